"""Loading for use: device, precision, warm-up, and one lock a device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from accelerate import PartialState

from .errors import UserError
from .models.text import TextEncoder
from .pipeline import MarkovGenPipeline, Result, StepEvent
from .requests import DecodingRequest, GenerateRequest
from .settings import Settings, model_path

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LOCKS: dict[str, Lock] = {}


@dataclass(frozen=True, eq=False)
class Runtime:
    """A pipeline that is ready to work.

    Attributes:
        pipeline: on its device, warm.
        device: where it runs.
        dtype: of the image models.
        step_seconds: one guided decoding step of one picture, as measured at the warm-up.
        decode_seconds: tokens to one picture.
    """

    pipeline: MarkovGenPipeline
    device: torch.device
    dtype: torch.dtype
    step_seconds: float
    decode_seconds: float

    @property
    def lock(self) -> Lock:
        """The device's lock: held by whoever computes on it."""
        return _LOCKS.setdefault(str(self.device), Lock())

    def run(self, request: DecodingRequest) -> Iterator[StepEvent | Result]:
        """`MarkovGenPipeline.run`, one step of one request at a time on the device.

        The lock is held during steps, not between them: a request that nobody reads on with blocks nobody.
        """
        events = self.pipeline.run(request)
        while True:
            with self.lock:
                event = next(events, None)
            if event is None:
                return
            yield event

    def estimate_seconds(self, request: DecodingRequest) -> float:
        """Expected model time of a request."""
        settings = self.pipeline.decoding_settings(request)
        steps = settings.exit_step or settings.steps
        return request.count * (steps * self.step_seconds + self.decode_seconds)

    def describe(self) -> str:
        """For people: "CPU · 2 threads · about 2 s a picture"."""
        seconds = self.estimate_seconds(GenerateRequest(prompt="a picture"))
        pace = f"about {seconds:.0f} s a picture" if seconds >= 1.5 else f"about {max(seconds, 0.1):.1f} s a picture"
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            return f"CPU · {threads} thread{'s' if threads != 1 else ''} · {pace}"
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} · {pace}"
        return f"{self.device.type.upper()} · {pace}"


def load_runtime(settings: Settings) -> Runtime:
    """Load the checkpoint that the settings name, place it, choose the precision, warm it up.

    Raises:
        UserError: the checkpoint or the device is not there.
    """
    _quiet_loading()
    device = choose_device(settings.device)
    text_encoder = TextEncoder.from_pretrained(settings.text_encoder) if settings.text_encoder else None
    pipeline = MarkovGenPipeline.from_pretrained(
        model_path(settings.model), text_encoder=text_encoder, mrf=settings.mrf
    )
    dtype = _DTYPES.get(settings.dtype) or choose_dtype(pipeline, device)
    try:
        pipeline.to(device, dtype)
        step_seconds, decode_seconds = _warm_up(pipeline)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{device} cannot run the model in {settings.dtype} ({reason}): choose cpu and float32."
        ) from error
    return Runtime(pipeline, device, dtype, step_seconds, decode_seconds)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes what accelerate finds best.

    Raises:
        UserError: it is not on this machine.
    """
    if name == "auto":
        return torch.device(PartialState().default_device)
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device {name!r} is not on this machine: choose auto or cpu.") from error
    return device


def choose_dtype(pipeline: MarkovGenPipeline, device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it, and on CPUs that have it natively and are measured to be faster with it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type != "cpu" or not cpu_has_bfloat16():
        return torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        pipeline.to(device, dtype)
        seconds[dtype] = _warm_up(pipeline)[0]
    return min(seconds, key=lambda dtype: seconds[dtype])


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies matrices of bfloat16 natively (AMX or AVX-512), as far as Linux tells."""
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _warm_up(pipeline: MarkovGenPipeline) -> tuple[float, float]:
    """Seconds of a guided step and of decoding tokens to a picture, after a first round that is not counted."""
    request = GenerateRequest(prompt="a warm-up", steps=2, seed=0, guidance_ramp=False)
    step_times: list[float] = []
    decode_times: list[float] = []
    for _ in range(2):
        last = time.perf_counter()
        for event in pipeline.run(request):
            now = time.perf_counter()
            (decode_times if isinstance(event, Result) else step_times).append(now - last)
            last = now
    return min(step_times), min(decode_times)


def _quiet_loading() -> None:
    """No progress bars for files that load in a second, and no warnings where an error follows."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
