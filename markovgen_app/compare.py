"""Methods side by side on one prompt and seed: each really run by itself, taking turns step by step.

What is equal: prompt, seed and therefore noise, weights, guidance, device. Times are those that the models and the
decoding loop worked on each method (`Picture.model_seconds`); what is drawn or asked of the random field beside them is
not counted. The filmstrip is that of MarkovGen's figure 4 (arXiv 2308.10997): the full run, cut at some of its steps
and finalised there without and with the random field. Its columns replay the decoding loop on the logits that the full
run was decided by, so each is, to the token, what early-exit and markovgen give with that exit step: of the base stage
the picture itself, of a stage above it what they make of the full run's tokens below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from PIL import Image
from torch import Tensor

from .decoding.sampler import DecodingStep, decode
from .events import Result, StepEvent
from .ladder import Level, Stage
from .methods import chosen_methods
from .pictures import Picture
from .requests import GenerateRequest
from .runtime import Runtime
from .zero_gpu import borrowing_gpu, portable

FILM_COLUMNS = 8
_KEPT_BYTES = 256 * 2**20  # of logits that wait for the filmstrip


@dataclass(frozen=True, eq=False)
class Turn:
    """One method did a step, or has its picture."""

    method: str
    event: StepEvent | Result

    @property
    def label(self) -> str:
        """ "markovgen: base 7/24"."""
        return f"{self.method}: {'ready' if isinstance(self.event, Result) else self.event.label}"


@dataclass(frozen=True, eq=False)
class Refinement:
    """What the random field of a stage did to the tokens that were undecided at its exit.

    Attributes:
        stage: whose tokens they are.
        step: the exit step k.
        undecided: how many tokens it decided.
        changed: (n,) bool, tokens that an exit without the field would have taken otherwise, by the same noise.
        plain, refined: the stage's pictures without the field and with it.
        energy_before, energy_after: of the tokens without the field and with it, in nats, under the field and the
            logits of step k. Lower fits better.
    """

    stage: Level
    step: int
    undecided: int
    changed: Tensor
    plain: Image.Image
    refined: Image.Image
    energy_before: float
    energy_after: float


@dataclass(frozen=True, eq=False)
class Entry:
    """A method's picture and what it took.

    Attributes:
        picture: with its settings, transformer calls and seconds.
        steps: by stage, how many were done of how many planned.
        speedup: the full run's model time over this one's; None where full was not run.
        stage: the last one, whose tokens the picture is made of.
        tokens: (n,) long, row-major.
        confidence: (n,) float32, the model's probability of each token when it was taken.
        refinements: for markovgen, of each stage that left tokens to a field, from the base up.
    """

    method: str
    picture: Picture
    steps: dict[str, tuple[int, int]]
    speedup: float | None
    stage: Level
    tokens: Tensor
    confidence: Tensor
    refinements: tuple[Refinement, ...] = ()

    @property
    def refinement(self) -> Refinement | None:
        """What the last of the fields did; None where no token was left to one."""
        return self.refinements[-1] if self.refinements else None


@dataclass(frozen=True, eq=False)
class Column:
    """The full run, cut at a step: one column of the filmstrip.

    Attributes:
        stage, step: where it was cut.
        is_exit: whether all methods but full stop that stage there.
        plain: finalised by the transformer's own guesses.
        refined: finalised by the random field; None where there is none.
        changed: tokens in which the two differ.
    """

    stage: Level
    step: int
    is_exit: bool
    plain: Image.Image
    refined: Image.Image | None
    changed: int

    @property
    def label(self) -> str:
        """ "filmstrip: step 6"."""
        return f"filmstrip: {step_name(self.stage, self.step)}"


def step_name(stage: Level, step: int) -> str:
    """ "step 6", "super-resolution step 3"."""
    return f"{stage.name} step {step}" if stage.number else f"step {step}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods are done.

    Attributes:
        request: what was asked for, with seed and defaults settled; its method means nothing here.
        entries: in the order asked for, by method.
        exit_step: k, after which all but full stop the base stage.
        film: stage by stage; empty where the full run is not among the methods.
        notes: lines for the person who asked.
    """

    request: GenerateRequest
    entries: dict[str, Entry]
    exit_step: int
    film: list[Column]
    notes: list[str] = field(default_factory=list)


def compare(runtime: Runtime, request: GenerateRequest, methods: Sequence[str]) -> Iterator[Turn | Column | Comparison]:
    """Runs the methods in step, then makes the filmstrip; ends with the `Comparison`. Closing the generator cancels.

    Every round of turns begins with another method, so that no one always pays for what happens between rounds.

    Args:
        request: its method is not used, and one picture a method is made, whatever its count.
        methods: see `methods.chosen_methods`.

    Raises:
        UserError: the methods cannot be compared.
    """
    with runtime.reserved() as replica:
        yield from _compare(replica, request, methods)


def comparing(runtime: Runtime) -> Callable[[GenerateRequest, Sequence[str]], Iterator[Turn | Column | Comparison]]:
    """`compare` on a runtime; in a Space on ZeroGPU all of it on one borrowed GPU. Call it before the app starts."""

    def run(request: GenerateRequest, methods: Sequence[str]) -> Iterator[Turn | Column | Comparison]:
        yield from compare(runtime, request, methods)

    def seconds(request: GenerateRequest, methods: Sequence[str]) -> float:
        return sum(runtime.estimate_seconds(request.model_copy(update={"method": name})) for name in methods)

    return borrowing_gpu(run, seconds, _portable)


def _portable(event: Turn | Column | Comparison) -> Turn | Column | Comparison:
    """An event that can be pickled, without the logits that only this file needs."""
    if not isinstance(event, Turn):
        return event
    made = portable(event.event)
    if isinstance(made, StepEvent):
        made = replace(made, step=replace(made.step, logits=made.step.logits[..., :0], unary=None))
    return Turn(event.method, made)


def _compare(
    runtime: Runtime, request: GenerateRequest, methods: Sequence[str]
) -> Iterator[Turn | Column | Comparison]:
    methods = chosen_methods(methods, runtime.pipeline.methods)
    request = runtime.pipeline.settled(request).with_seed().model_copy(update={"count": 1})
    runs = {name: runtime.run_here(request.model_copy(update={"method": name})) for name in methods}
    records = {name: _Record(runtime, request.finalise, keep_logits=name == "full") for name in methods}
    try:
        for turn in count():
            waiting = [name for name in methods if records[name].result is None]
            if not waiting:
                break
            first = turn % len(waiting)
            for name in waiting[first:] + waiting[:first]:
                event = next(runs[name])
                records[name].add(event)
                yield Turn(name, event)
    finally:
        for run in runs.values():
            run.close()  # type: ignore[attr-defined]
    film = []
    if "full" in records:
        for column in _film(runtime, request, records["full"].logits):
            film.append(column)
            yield column
    full = records["full"].picture.model_seconds if "full" in records else None
    entries = {name: record.entry(name, full) for name, record in records.items()}
    notes = dict.fromkeys(note for record in records.values() for note in record.notes)
    yield Comparison(request, entries, runtime.pipeline.stages[0].steps(request)[1], film, list(notes))


class _Record:
    """What is kept of one method's run."""

    def __init__(self, runtime: Runtime, finalise: str, *, keep_logits: bool) -> None:
        self.runtime = runtime
        self.finalise = finalise
        self.keep_logits = keep_logits
        self.undecided: Tensor | None = None  # (1, n) bool, after the step before, of the stage that runs
        self.steps: dict[str, tuple[int, int]] = {}
        self.logits: list[list[Tensor]] = []
        self.kept = 0  # bytes
        self.last: tuple[Level, Tensor, Tensor] | None = None
        self.refinements: list[Refinement] = []
        self.result: Result | None = None

    def add(self, event: StepEvent | Result) -> None:
        if isinstance(event, Result):
            self.result = event
            return
        step, stage = event.step, event.stage
        if stage.name not in self.steps:
            self.undecided = None
            self.logits.append([])
        self.steps[stage.name] = step.index, step.steps
        self.last = stage, step.predicted[0], step.confidence[0]
        if self.keep_logits and self.kept + step.logits.nbytes <= _KEPT_BYTES:
            self.logits[-1].append(step.logits)
            self.kept += step.logits.nbytes
        if step.plain is not None:
            self.refinements.append(self._refinement(stage, step))
        self.undecided = step.mask

    @property
    def picture(self) -> Picture:
        assert self.result is not None
        return self.result.images[0]

    @property
    def notes(self) -> list[str]:
        assert self.result is not None
        return self.result.notes

    def entry(self, method: str, full_seconds: float | None) -> Entry:
        assert self.last is not None
        stage, *last = self.last
        tokens, confidence = (part.cpu() for part in last)
        speedup = None if full_seconds is None else full_seconds / self.picture.model_seconds
        return Entry(method, self.picture, self.steps, speedup, stage, tokens, confidence, tuple(self.refinements))

    def _refinement(self, stage: Level, step: DecodingStep) -> Refinement:
        pipeline = self.runtime.pipeline
        mrf = pipeline.stages[stage.number].mrf
        assert step.plain is not None and step.unary is not None and mrf is not None
        plain, predicted, unary = (part.to(pipeline.device) for part in (step.plain, step.predicted, step.unary))
        open_before = torch.ones_like(plain, dtype=torch.bool) if self.undecided is None else self.undecided
        open_before = open_before.to(pipeline.device)  # (1, n)
        with self.runtime.lock, torch.no_grad():
            if self.finalise == "decimate":  # its messages are measured from these
                unary = 2 * unary - mrf(unary, predicted, ~open_before, iterations=1, damping=0.0)
            before, after = (float(mrf.energy(tokens, unary)) for tokens in (plain, predicted))
            pictures = pipeline.to_images(torch.cat([plain, predicted]))
        changed = (plain != predicted)[0].cpu()
        left = int(open_before.sum())
        return Refinement(stage, step.index, left, changed, pictures[0], pictures[1], before, after)


def film_steps(steps: int, exit_step: int, most: int = FILM_COLUMNS) -> list[int]:
    """Steps of a stage that the filmstrip shows: `most` evenly apart, the last one among them, and the exit step."""
    columns = min(most, steps)
    return sorted({round(steps * column / columns) for column in range(1, columns + 1)} | {min(exit_step, steps)})


def _film(runtime: Runtime, request: GenerateRequest, logits: Sequence[Sequence[Tensor]]) -> Iterator[Column]:
    """The columns of the filmstrip, from the logits of the full run's steps by stage; none where none were kept."""
    for stage, kept in zip(runtime.pipeline.stages, logits, strict=False):
        if kept:
            yield from _stage_film(runtime, stage, request, kept, FILM_COLUMNS // len(logits))


def _stage_film(
    runtime: Runtime, stage: Stage, request: GenerateRequest, logits: Sequence[Tensor], columns: int
) -> Iterator[Column]:
    pipeline, (_, exit_step) = runtime.pipeline, stage.steps(request)
    blank = torch.full((1, stage.positions), stage.mask_token_id, device=pipeline.device)
    refined = stage.mrf is not None
    for cut in film_steps(len(logits), exit_step, columns):
        exit_field = "super_resolution_exit_step" if stage.number else "exit_step"
        method = request.model_copy(update={"method": "markovgen" if refined else "early-exit", exit_field: cut})
        with runtime.lock:
            *_, last = decode(
                lambda tokens, step: logits[step - 1].to(tokens.device),
                blank,
                stage.mask_token_id,
                stage.settings(method),
                stage.generators(request.seeds),
                grid=stage.grid,
                inference=stage.inference(method, pipeline.device),
            )
            plain = last.predicted if last.plain is None else last.plain
            pictures = pipeline.to_images(torch.cat([plain, last.predicted]))
        changed = int((plain != last.predicted).sum())
        yield Column(stage.level, cut, cut == exit_step, pictures[0], pictures[1] if refined else None, changed)
