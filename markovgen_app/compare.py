"""Methods side by side on one prompt and seed: each really run by itself, taking turns step by step.

What is equal: prompt, seed and therefore noise, weights, guidance, device. Times are those that the models and the
decoding loop worked on each method (`Picture.model_seconds`); what is drawn or asked of the random field beside them is
not counted. The filmstrip is that of MarkovGen's figure 4 (arXiv 2308.10997): the full run, cut at some of its steps
and finalised there without and with the random field. Its columns replay the decoding loop on the logits that the full
run was decided by, so each is, to the token, the picture that early-exit and markovgen give with that exit step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from PIL import Image
from torch import Tensor

from .decoding.sampler import DecodingStep, decode, default_exit_step
from .events import Result, StepEvent
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
    """What the random field did to the tokens that were undecided at the exit.

    Attributes:
        step: the exit step k.
        undecided: how many tokens it decided.
        changed: (n,) bool, tokens that the early exit would have taken otherwise, by the same noise.
        plain, refined: the pictures without the field and with it, of the base stage.
        energy_before, energy_after: of the early exit's tokens and of the field's, in nats, under the field and the
            logits of step k. Lower fits better.
    """

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
        tokens: (n,) long, of the base stage, row-major.
        confidence: (n,) float32, the model's probability of each token when it was taken.
        refinement: for markovgen; None where no token was left to the field.
    """

    method: str
    picture: Picture
    steps: dict[str, tuple[int, int]]
    speedup: float | None
    tokens: Tensor
    confidence: Tensor
    refinement: Refinement | None = None


@dataclass(frozen=True, eq=False)
class Column:
    """The full run, cut at a step: one column of the filmstrip.

    Attributes:
        step: where it was cut.
        plain: finalised by the transformer's own guesses.
        refined: finalised by the random field; None where there is none.
        changed: tokens in which the two differ.
    """

    step: int
    plain: Image.Image
    refined: Image.Image | None
    changed: int

    @property
    def label(self) -> str:
        """ "filmstrip: step 6"."""
        return f"filmstrip: step {self.step}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods are done.

    Attributes:
        request: what was asked for, with seed and defaults settled; its method means nothing here.
        entries: in the order asked for, by method.
        exit_step: k, after which all but full stop.
        film: empty where the full run is not among the methods.
        grid: rows and columns of the tokens.
        notes: lines for the person who asked.
    """

    request: GenerateRequest
    entries: dict[str, Entry]
    exit_step: int
    film: list[Column]
    grid: tuple[int, int]
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
    records = {name: _Record(runtime, keep_logits=name == "full") for name in methods}
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
    exit_step = request.exit_step or default_exit_step(request.steps)
    film = []
    if "full" in records:
        for column in _film(runtime, request, exit_step, records["full"].logits):
            film.append(column)
            yield column
    full = records["full"].picture.model_seconds if "full" in records else None
    entries = {name: record.entry(name, full) for name, record in records.items()}
    notes = dict.fromkeys(note for record in records.values() for note in record.notes)
    yield Comparison(request, entries, exit_step, film, runtime.pipeline.grid, list(notes))


class _Record:
    """What is kept of one method's run."""

    def __init__(self, runtime: Runtime, *, keep_logits: bool) -> None:
        self.runtime = runtime
        self.keep_logits = keep_logits
        self.undecided = runtime.pipeline.stages[0].positions
        self.steps: dict[str, tuple[int, int]] = {}
        self.logits: list[Tensor] = []
        self.last: tuple[Tensor, Tensor] | None = None
        self.refinement: Refinement | None = None
        self.result: Result | None = None

    def add(self, event: StepEvent | Result) -> None:
        if isinstance(event, Result):
            self.result = event
            return
        step = event.step
        self.steps[event.stage.name] = step.index, step.steps
        if event.stage.number:
            return  # above the base
        self.last = step.predicted[0], step.confidence[0]
        if self.keep_logits and (len(self.logits) + 1) * step.logits.nbytes <= _KEPT_BYTES:
            self.logits.append(step.logits)
        if step.plain is not None:
            self.refinement = self._refinement(step)
        self.undecided = int(step.mask.sum())

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
        tokens, confidence = (part.cpu() for part in self.last)
        speedup = None if full_seconds is None else full_seconds / self.picture.model_seconds
        return Entry(method, self.picture, self.steps, speedup, tokens, confidence, self.refinement)

    def _refinement(self, step: DecodingStep) -> Refinement:
        pipeline = self.runtime.pipeline
        assert step.plain is not None and step.unary is not None and pipeline.mrf is not None
        plain, predicted, unary = (part.to(pipeline.device) for part in (step.plain, step.predicted, step.unary))
        with self.runtime.lock, torch.no_grad():
            before, after = (float(pipeline.mrf.energy(tokens, unary)) for tokens in (plain, predicted))
            pictures = pipeline.to_images(torch.cat([plain, predicted]))
        changed = (plain != predicted)[0].cpu()
        return Refinement(step.index, self.undecided, changed, pictures[0], pictures[1], before, after)


def film_steps(steps: int, exit_step: int) -> list[int]:
    """Steps of the full run that the filmstrip shows: evenly apart, the last one and the exit step among them."""
    columns = min(FILM_COLUMNS, steps)
    return sorted({round(steps * column / columns) for column in range(1, columns + 1)} | {min(exit_step, steps)})


def _film(runtime: Runtime, request: GenerateRequest, exit_step: int, logits: Sequence[Tensor]) -> Iterator[Column]:
    """The columns of the filmstrip, from the logits of the full run's steps; none where not even one was kept."""
    if not logits:
        return
    pipeline, base = runtime.pipeline, runtime.pipeline.stages[0]
    blank = torch.full((1, base.positions), base.mask_token_id, device=pipeline.device)
    refined = base.mrf is not None
    for cut in film_steps(len(logits), exit_step):
        method = request.model_copy(update={"method": "markovgen" if refined else "early-exit", "exit_step": cut})
        with runtime.lock:
            *_, last = decode(
                lambda tokens, step: logits[step - 1].to(tokens.device),
                blank,
                base.mask_token_id,
                base.settings(method),
                base.generators(request.seeds),
                grid=base.grid,
                refine=base.refine(method, pipeline.device),
            )
            plain = last.predicted if last.plain is None else last.plain
            pictures = pipeline.to_images(torch.cat([plain, last.predicted]))
        yield Column(cut, pictures[0], pictures[1] if refined else None, int((plain != last.predicted).sum()))
