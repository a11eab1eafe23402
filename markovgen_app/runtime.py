"""Loading for use: devices by accelerate, precision, warm-up, a replica for every GPU, and one lock a device."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from threading import Lock

import torch
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache

from .decoding.editing import rounds_of
from .errors import UserError
from .events import Result, StepEvent
from .models.text import TextEncoder
from .patches import pass_count
from .picture_requests import EditRequest
from .pipeline import MarkovGenPipeline
from .requests import DecodingRequest, GenerateRequest
from .settings import Settings, model_path
from .zero_gpu import Events, borrowing_gpu, on_zero_gpu, portable

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LOCKS: dict[str, Lock] = {}
_Pace = tuple[float, float, tuple[float, ...]]  # step_seconds, decode_seconds and finer_step_seconds of a runtime
_BORROWED_PACE: _Pace = (0.1, 0.1, ())  # where no GPU is there to measure it


@dataclass(frozen=True, eq=False)
class Runtime:
    """A pipeline that is ready to work.

    Attributes:
        pipeline: on its device, warm.
        device: where it runs.
        dtype: of the image models.
        step_seconds: one guided decoding step of one picture on the base, as measured at the warm-up.
        decode_seconds: tokens to one picture of the largest size.
        others: the same on further devices; a request goes to the one with the fewest.
        finer_step_seconds: a step on each stage above the base; as on the base where not measured.
    """

    pipeline: MarkovGenPipeline
    device: torch.device
    dtype: torch.dtype
    step_seconds: float
    decode_seconds: float
    others: tuple[Runtime, ...] = ()
    finer_step_seconds: tuple[float, ...] = ()
    _busy: set[object] = field(default_factory=set, repr=False)
    _events: Events = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """On ZeroGPU, which looks for such functions before the app starts, mark the one that computes."""
        computing = borrowing_gpu(lambda request: self.pipeline.run(request), self.estimate_seconds, portable)
        object.__setattr__(self, "_events", computing)

    @property
    def concurrency(self) -> int:
        """Requests that can be worked on at once, each on a device of its own."""
        return 1 + len(self.others)

    @property
    def lock(self) -> Lock:
        """The device's lock: held by whoever computes on it."""
        return _LOCKS.setdefault(str(self.device), Lock())

    def run(self, request: DecodingRequest) -> Iterator[StepEvent | Result]:
        """`run_here`, on the replica with the fewest requests."""
        with self.reserved() as replica:
            yield from replica.run_here(request.with_seed())

    @contextmanager
    def reserved(self) -> Iterator[Runtime]:
        """The replica with the fewest requests, one more meanwhile: for several runs on the same device."""
        replica = min((self, *self.others), key=lambda each: len(each._busy))
        ticket = object()
        replica._busy.add(ticket)
        try:
            yield replica
        finally:
            replica._busy.discard(ticket)

    def run_here(self, request: DecodingRequest) -> Iterator[StepEvent | Result]:
        """`MarkovGenPipeline.run`, one step of one request at a time on the device.

        The lock is held during steps, not between them: a request that nobody reads on with blocks nobody. Where the
        device's memory does not suffice, the models are moved out and in as they are needed, from here on.

        Raises:
            UserError: even that takes more memory than there is.
        """
        events = self._events(request)
        done = 0
        while True:
            with self.lock:
                try:
                    event = next(events, None)
                except torch.OutOfMemoryError:
                    self._save_memory()
                    events = self.pipeline.run(request)
                    for _ in range(done):  # the same again, to the step that was too much
                        next(events)
                    continue
            if event is None:
                return
            done += 1
            yield event

    def _save_memory(self) -> None:
        """Go over to low memory, or raise UserError where that is the mode already."""
        if self.pipeline.offloaded:
            raise UserError(
                f"The memory of {self.device} is too small for this request: ask for fewer pictures at once."
            ) from None
        _offload(self.pipeline, self.device)

    def estimate_seconds(self, request: DecodingRequest) -> float:
        """Expected model time of a request, as if every step were taken: few open tokens may need fewer.

        Raises:
            UserError: no stage makes pictures of that size, or it would take too many windows.
        """
        request = self.pipeline.settled(request)
        settings = [stage.settings(request) for stage in self.pipeline.stages_for(request)]
        steps = [each.exit_step or each.steps for each in settings]
        if isinstance(request, EditRequest):
            steps[0] = steps[0] + 1 if request.remask == "words" else steps[0] * rounds_of(request.strength)
        paces = chain((self.step_seconds, *self.finer_step_seconds), repeat(self.step_seconds))
        a_pass = sum(number * pace for number, pace in zip(steps, paces, strict=False)) + self.decode_seconds
        return request.count * pass_count(request, self.pipeline.size, self.pipeline.grid) * a_pass

    def describe(self) -> str:
        """For people: "CPU · 2 threads · about 2 s a picture"."""
        if on_zero_gpu():
            return "ZeroGPU"
        seconds = self.estimate_seconds(GenerateRequest(prompt="a picture"))
        pace = f"about {seconds:.0f} s a picture" if seconds >= 1.5 else f"about {max(seconds, 0.1):.1f} s a picture"
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            return f"CPU · {threads} thread{'s' if threads != 1 else ''} · {pace}"
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        several = f"{self.concurrency} × " if self.others else ""
        return " · ".join([f"{several}{name}", *(["low memory"] if self.pipeline.offloaded else []), pace])


def load_runtime(settings: Settings, *, every_gpu: bool = False) -> Runtime:
    """Load the checkpoint that the settings name, place it, choose the precision, warm it up.

    Args:
        every_gpu: put a replica on every GPU, where the settings leave the device open.

    Raises:
        UserError: the checkpoint or the device is not there.
    """
    _quiet_loading()
    devices = every_device(settings.device) if every_gpu else [choose_device(settings.device)]
    text_encoder = TextEncoder.from_pretrained(settings.text_encoder) if settings.text_encoder else None
    pipeline = MarkovGenPipeline.from_pretrained(
        model_path(settings.model), text_encoder=text_encoder, mrf=settings.mrf
    )
    others = tuple(_placed(copy.deepcopy(pipeline), device, settings, ()) for device in devices[1:])
    return _placed(pipeline, devices[0], settings, others)


def _placed(
    pipeline: MarkovGenPipeline, device: torch.device, settings: Settings, others: tuple[Runtime, ...]
) -> Runtime:
    try:
        dtype = _DTYPES.get(settings.dtype) or choose_dtype(device)
        try:
            pipeline.to(dtype)
            pipeline.offload(device) if settings.low_memory else pipeline.to(device)
            pace = _warm_up(pipeline) if not on_zero_gpu() else _BORROWED_PACE
        except torch.OutOfMemoryError:
            _offload(pipeline, device)
            pace = _warm_up(pipeline)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{device} cannot run the model in {settings.dtype} ({reason}): choose cpu and float32."
        ) from error
    step_seconds, decode_seconds, finer = pace
    return Runtime(pipeline, device, dtype, step_seconds, decode_seconds, others, finer)


def _offload(pipeline: MarkovGenPipeline, device: torch.device) -> None:
    print(
        f"The memory of {device} is too small for all models at once: from here on they wait in main memory and take"
        " turns there, which is slower (MARKOVGEN_LOW_MEMORY=1 does so from the start).",
        file=sys.stderr,
    )
    pipeline.to("cpu")
    clear_device_cache(garbage_collection=True)
    pipeline.offload(device)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes what accelerate finds best (cuda, xpu, mps …, else cpu).

    In a process that `accelerate launch` started, "auto" is the device of that process.

    Raises:
        UserError: it is not on this machine.
    """
    if name == "auto":
        state = PartialState()
        return torch.device(state.device if state.num_processes > 1 else state.default_device)
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        built = " (this PyTorch is built without CUDA)" if "cuda" in name and torch.version.cuda is None else ""
        raise UserError(f"The device {name!r} is not on this machine{built}: choose auto or cpu.") from error
    return device


def every_device(name: str) -> list[torch.device]:
    """All GPUs of the kind that "auto" finds; the one device of any other name.

    Raises:
        UserError: it is not on this machine.
    """
    device = choose_device(name)
    if name != "auto" or device.type not in ("cuda", "xpu") or on_zero_gpu():
        return [device]
    return [torch.device(device.type, index) for index in range(getattr(torch, device.type).device_count())]


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it, float32 everywhere else.

    On a CPU it is float32 even where bfloat16 might be faster: one seed gives one picture, at every start and whatever
    else the machine does meanwhile. MARKOVGEN_DTYPE=bfloat16 is there for who wants it. float16 is never chosen: its
    range is too small for weights that were trained in another precision.
    """
    if on_zero_gpu():
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "xpu":
        return torch.bfloat16 if torch.xpu.is_bf16_supported() else torch.float32
    return torch.float32


def _warm_up(pipeline: MarkovGenPipeline) -> _Pace:
    """Seconds of a guided step of each stage and of decoding tokens, after a first round that is not counted."""
    request = GenerateRequest(prompt="a warm-up", steps=2, super_resolution_steps=2, seed=0, guidance_ramp=False)
    step_times: list[list[float]] = [[] for _ in pipeline.stages]
    decode_times: list[float] = []
    for _ in range(2):
        last = time.perf_counter()
        for event in pipeline.run(request):
            now = time.perf_counter()
            (decode_times if isinstance(event, Result) else step_times[event.stage.number]).append(now - last)
            last = now
    base, *finer = (min(times) for times in step_times)
    return base, min(decode_times), tuple(finer)


def _quiet_loading() -> None:
    """No progress bars for files that load in a second, and no warnings where an error follows."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
