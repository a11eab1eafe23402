"""The latency table: parts and methods, measured in turns within one run, so that their ratios can be trusted.

    markovgen benchmark

Every round measures each part and each method once, one picture at a time, the methods in rotating order; the table
shows medians and quartiles over the rounds, and medians of the ratios within the rounds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.uvit_2d import UVit2DModel
from torch import Tensor

from ..decoding.draws import draw_tokens, gumbel_noise, lowest
from ..decoding.finalise import Inference, MeanField, decimate, evenly
from ..decoding.guidance import guided_logits
from ..decoding.sampler import DecodingSettings, decode, default_exit_step
from ..decoding.schedule import mask_counts
from ..errors import UserError
from ..events import Result
from ..ladder import Stage
from ..methods import COMPARED
from ..models.mrf import MarkovRandomField
from ..models.text import TextStates
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest
from ..runtime import Runtime, load_runtime
from ..settings import DEFAULT_MODEL, load_settings
from ..timing import Stopwatch, synchronize
from .amused_size import TRANSFORMER, measure_checkpoint, text_lines
from .generation import available, parse_methods
from .memory import peak_memory_mb
from .output import command_line, plain, write_report
from .waits import app_ready_seconds, first_preview_seconds, scenes_per_second

PROMPT = "a panda next to a pizza on a brick wall"
COMPONENTS = (
    "text_ms",
    "base_step_ms",
    "base_mrf_ms",
    "base_exit_ms",
    "super_resolution_step_ms",
    "super_resolution_mrf_ms",
    "super_resolution_exit_ms",
    "detokenizer_ms",
)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of `work`, work queued on the device included."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def measure_components(pipeline: MarkovGenPipeline) -> dict[str, float]:
    """Milliseconds of each part that the pipeline has, for one picture of the largest size.

    text_ms: prompt and empty prompt. base_step_ms, super_resolution_step_ms: one step of the decoding loop with
    guidance, draws included. base_mrf_ms, super_resolution_mrf_ms: the random field's inference at the stage's exit
    step. base_exit_ms, super_resolution_exit_ms: that, and all else that an early exit does without, draws above all.
    detokenizer_ms: the last stage's tokens to pixels.
    """
    device = pipeline.device
    texts = pipeline.text_encoder.encode([PROMPT, ""]).to(device)
    components = {"text_ms": 1e3 * seconds(lambda: pipeline.text_encoder.encode([PROMPT, ""]), device)}
    made: list[Tensor] = []
    for stage in pipeline.stages:
        name = stage.name.replace("-", "_").replace(" ", "_")  # base, super_resolution, super_resolution_2
        step_seconds, tokens = measure_step(stage, texts, device, made[-1] if made else None)
        made.append(tokens)
        components[f"{name}_step_ms"] = 1e3 * step_seconds
        if stage.mrf is not None:
            steps = 8 if stage.number else 24
            inference_seconds, exit_seconds = field_seconds(stage.mrf, device, steps, stage.exit_step(steps))
            components |= {f"{name}_mrf_ms": 1e3 * inference_seconds, f"{name}_exit_ms": 1e3 * exit_seconds}
    components["detokenizer_ms"] = 1e3 * seconds(lambda: pipeline.tokenizer.decode(made[-1], stage.grid), device)
    return components


def measure_step(stage: Stage, texts: TextStates, device: torch.device, coarse: Tensor | None) -> tuple[float, Tensor]:
    """Seconds of a guided step of a stage for one picture, and tokens that it may have made.

    Args:
        texts: of the prompt and the empty prompt.
        coarse: tokens of the stage below; None for the base.
    """
    settings = DecodingSettings(steps=4, guidance_ramp=False)
    steps = decode(
        guided_logits(stage.model(1, device, coarse), texts[[0]], texts[[1]], settings),
        torch.full((1, stage.positions), stage.mask_token_id, device=device),
        stage.mask_token_id,
        settings,
        stage.generators([0]),
        grid=stage.grid,
    )
    first = next(steps)  # not counted: it may warm caches
    return seconds(lambda: next(steps), device), first.predicted


class Timed:
    """An `Inference` that counts the seconds of another."""

    def __init__(self, inference: Inference, device: torch.device) -> None:
        self.inference, self.watch = inference, Stopwatch(device)

    def refine(self, *inputs: Tensor) -> Tensor:
        """The other's."""
        with self.watch:
            return self.inference.refine(*inputs)

    def expect(self, *inputs: Tensor) -> Tensor:
        """The other's."""
        with self.watch:
            return self.inference.expect(*inputs)

    def tell(self, *inputs: Tensor) -> Tensor:
        """The other's."""
        with self.watch:
            return self.inference.tell(*inputs)


def field_seconds(
    field: MarkovRandomField,
    device: torch.device,
    steps: int = 24,
    exit_step: int | None = None,
) -> tuple[float, float]:
    """Seconds of a random field at an exit of a stage, for one picture: its inference; and what an exit needs for it.

    The second is what an exit with the field has more to do than an early exit: inference, and draws by its answer, of
    which a decimation has several. Measured one after the other.
    """
    generator = torch.Generator().manual_seed(0)
    positions, codes = field.grid[0] * field.grid[1], field.config.codebook_size
    logits = torch.randn(1, positions, codes, generator=generator).to(device)
    tokens = torch.randint(codes, (1, positions), generator=generator).to(device)
    exit_step = exit_step or default_exit_step(steps)
    left = [positions, *mask_counts(positions, steps)]  # after 0, 1, … steps
    open_at_exit = left[exit_step - 1]
    undecided = (torch.rand(1, positions, generator=generator).argsort(dim=1) < open_at_exit).to(device)
    noise = gumbel_noise([open_at_exit], codes, [generator]).to(device)
    rounds = evenly(exit_step, steps, field.config.iterations)
    mean_field = MeanField(field)
    timed = Timed(mean_field, device)
    first = draw_tokens(logits, undecided, noise)

    def after(step: int, mask: Tensor, scores: Tensor) -> Tensor:
        return lowest(scores, mask, [left[step]])

    def finish(inference: Inference) -> None:
        if field.config.finalise == "decimate":
            decimate(logits, tokens, undecided, inference, first, noise, None, rounds, after)
        else:
            draw_tokens(inference.refine(logits, tokens, undecided), undecided, noise)

    with torch.no_grad():
        finish(mean_field)  # not counted: it may warm caches
        whole = seconds(lambda: finish(mean_field), device)
        finish(timed)
    return timed.watch.seconds, whole


def measure_amused(
    device: torch.device, dtype: torch.dtype, rounds: int, shape: Mapping[str, Any] = TRANSFORMER
) -> dict[str, Any]:
    """Milliseconds of a guided step of aMUSEd-256's transformer, and of fields over its 256 tokens of 8192 codes.

    Random weights of the real shape: time does not depend on their values. The dense field, whose W^c alone has 67
    million entries, is left out.

    Args:
        rounds: measurements of each, in turns; medians are reported.
        shape: sizes of the transformer, see `diffusers.UVit2DModel`.
    """
    model = UVit2DModel(**shape).to(device, dtype).eval()
    side, codes, width = shape["sample_size"], shape["codebook_size"], shape["encoder_hidden_size"]
    fields = {
        name: MarkovRandomField(name, codes, (side, side)).to(device).eval() for name in ("low-rank", "directional")
    }
    tokens = torch.full((2, side, side), shape["vocab_size"] - 1, device=device)
    text = torch.zeros(2, 77, width, device=device, dtype=dtype)
    pooled = torch.zeros(2, shape["cond_embed_dim"], device=device, dtype=dtype)
    micro = torch.tensor([[256.0, 256, 0, 0, 6]], device=device, dtype=dtype).repeat(2, 1)  # (1, 5) -> (2, 5)

    def step() -> None:
        with torch.no_grad():
            model(tokens, text, pooled, micro)

    step()
    times: dict[str, list[float]] = {"base_step_ms": []}
    for number in range(rounds):
        times["base_step_ms"].append(1e3 * seconds(step, device))
        for name, field in fields.items():
            times.setdefault(f"{name}_mrf_ms", []).append(1e3 * field_seconds(field, device)[0])
        print(f"aMUSEd's size, round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    shares = {f"{name}_mrf_share": medians[f"{name}_mrf_ms"] / medians["base_step_ms"] for name in fields}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, **medians, **{f"{n}_spread": spread(v) for n, v in times.items()}, **shares}


def measure_method(pipeline: MarkovGenPipeline, fields: Mapping[str, Any]) -> float:
    """Model seconds of one picture by a method."""
    for event in pipeline.run(GenerateRequest.validated(prompt=PROMPT, seed=0, **fields)):
        if isinstance(event, Result):
            return event.images[0].model_seconds
    raise AssertionError("a run ends with its result")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Quartiles."""
    low, high = np.percentile(values, (25, 75))
    return {"low": float(low), "high": float(high)}


def benchmark(runtime: Runtime, methods: Mapping[str, Mapping[str, Any]], rounds: int = 5) -> dict[str, Any]:
    """Measure parts and methods; see the top of this file.

    Args:
        methods: name → fields of the request; ratios are to `full`, which is measured in any case.
        rounds: measurements of each.

    Raises:
        UserError: no rounds, or a method that does not exist.
    """
    if rounds < 1:
        raise UserError(f"Rounds must be 1 or more, not {rounds}.")
    pipeline = runtime.pipeline
    methods = {"full": {"method": "full"}, **methods}
    names = list(methods)
    measure_components(pipeline)  # a first time, not counted
    parts: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for part, milliseconds in measure_components(pipeline).items():
            parts.setdefault(part, []).append(milliseconds)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(measure_method(pipeline, methods[name]))
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return {
        "device": str(runtime.device),
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "components": {
            part: float(np.median(parts[part])) if part in parts else None
            for part in dict.fromkeys([*COMPONENTS, *parts])
        },
        "components_spread": {part: spread(values) for part, values in parts.items()},
        "methods": {
            name: {"seconds": float(np.median(values)), "spread": spread(values)} for name, values in times.items()
        },
        "speedup_over_full": {
            name: float(np.median(np.array(times["full"]) / np.array(values))) for name, values in times.items()
        },
        "first_preview_seconds": first_preview_seconds(pipeline, PROMPT, rounds),
        "scenes_per_second": scenes_per_second(),
        "peak_memory_mb": peak_memory_mb(),
    }


def text_table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"{report['device']}, {report['dtype']}, {report['threads']} threads, {report['rounds']} rounds", ""]
    for part, value in report["components"].items():
        if value is not None:
            quartiles = report["components_spread"][part]
            lines.append(f"{part:<26}{value:9.2f}  ({quartiles['low']:.2f} … {quartiles['high']:.2f})")
    if (step := report["components"]["base_step_ms"]) and (field := report["components"]["base_mrf_ms"]):
        whole = report["components"]["base_exit_ms"]
        lines.append(f"the random field takes {field / step:.1%} of a base step, an exit with it {whole / step:.1%}")
    if larger := report.get("amused_256"):
        lines += ["", f"aMUSEd-256's shape, random weights, {larger['parameters'] / 1e6:.0f} M parameters"]
        lines.append(f"{'base_step_ms':<26}{larger['base_step_ms']:9.1f}")
        for name in ("low-rank", "directional"):
            share = f"({larger[f'{name}_mrf_share']:.1%} of the step)"
            lines.append(f"{f'{name}_mrf_ms':<26}{larger[f'{name}_mrf_ms']:9.1f}  {share}")
        lines += text_lines(larger["checkpoint"])
    lines += ["", f"{'method':<26}{'seconds':>9}  quartiles        full / method"]
    for name, values in report["methods"].items():
        quartiles = f"({values['spread']['low']:.3f} … {values['spread']['high']:.3f})"
        lines.append(f"{name:<26}{values['seconds']:9.3f}  {quartiles:<17}{report['speedup_over_full'][name]:.2f}×")
    lines += ["", f"first preview after {report['first_preview_seconds']:.2f} s"]
    if ready := report.get("app_ready_seconds"):
        lines.append(f"app ready after {ready:.1f} s")
    lines.append(f"{report['scenes_per_second']:.0f} training scenes a second on one core")
    return "\n".join([*lines, f"peak memory {report['peak_memory_mb']:.0f} MB"])


def main(
    model: str | None = None,
    as_json: bool = False,
    *,
    methods: str = "full",
    rounds: int = 5,
    mrf: str | None = None,
    amused: bool = False,
    app: bool = False,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """`markovgen benchmark`: print the latency table, or one JSON object.

    Args:
        model: checkpoint, the settings' one if not given.
        methods: as typed, parted by commas.
        amused: also measure a checkpoint of aMUSEd's size, and random fields over its tokens.
        app: also start the app once and time how long it takes to answer.
        out: file for the JSON report, beside what is printed.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        chosen = parse_methods(methods)
        settings = load_settings(model=model, mrf=mrf, device=device)
        runtime = load_runtime(settings)
        report = plain(benchmark(runtime, available(chosen, runtime.pipeline), rounds))
        if amused:
            report["amused_256"] = plain(measure_amused(runtime.device, runtime.dtype, rounds))
            report["amused_256"]["checkpoint"] = plain(measure_checkpoint(runtime.device, runtime.dtype))
        if app:
            report["app_ready_seconds"] = plain(app_ready_seconds(settings))
        report["command"] = command(
            methods,
            rounds,
            amused=amused,
            app=app,
            model=settings.model,
            mrf=settings.mrf,
            device=settings.device,
        )
        if out:
            write_report(report, out)
    print(json.dumps(report) if as_json else text_table(report))


def command(
    methods: str,
    rounds: int,
    *,
    amused: bool = False,
    app: bool = False,
    model: str = DEFAULT_MODEL,
    mrf: str | None = None,
    device: str = "auto",
) -> str:
    """The line that measures the same once more, also where the environment named the weights or the field."""
    return command_line(
        "benchmark",
        ("--methods", methods, COMPARED),
        ("--rounds", rounds, 5),
        ("--amused-size", amused, False),
        ("--app", app, False),
        ("--model", model, DEFAULT_MODEL),
        ("--mrf", mrf, None),
        ("--device", device, "auto"),
    )
