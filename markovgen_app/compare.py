"""Methods side by side on one prompt and seed: each really run by itself, taking turns step by step.

What is equal: prompt, seed and therefore noise, weights, guidance, device. Times are those that the models and the
decoding loop worked on each method (`Picture.model_seconds`); what is drawn or asked of the random field beside them is
not counted. The filmstrip is that of MarkovGen's figure 4 (arXiv 2308.10997): the full run, cut at some of its steps
and finalised there without and with the random field. Its columns replay the decoding loop on the logits that the full
run was decided by, so each is, to the token, the picture that early-exit and markovgen give with that exit step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from PIL import Image
from torch import Tensor

from .decoding.sampler import DecodingStep, decode
from .methods import chosen_methods
from .pictures import Picture
from .pipeline import Result, StepEvent
from .requests import GenerateRequest
from .runtime import Runtime

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
        plain: the early exit's picture.
        energy_before, energy_after: of the early exit's tokens and of the field's, in nats, under the field and the
            logits of step k. Lower fits better.
    """

    step: int
    undecided: int
    changed: Tensor
    plain: Image.Image
    energy_before: float
    energy_after: float


@dataclass(frozen=True, eq=False)
class Entry:
    """A method's picture and what it took.

    Attributes:
        picture: with its settings, steps, transformer calls and seconds.
        speedup: the full run's model time over this one's; None where full was not run.
        tokens: (n,) long, of the base stage, row-major.
        confidence: (n,) float32, the model's probability of each token when it was taken.
        refinement: for markovgen; None where no token was left to the field.
    """

    method: str
    picture: Picture
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
        request: what was asked for, with the seed settled; its method means nothing here.
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
    methods = chosen_methods(methods, runtime.pipeline.methods)
    request = request.with_seed().model_copy(update={"count": 1})
    runs = {name: runtime.run(request.model_copy(update={"method": name})) for name in methods}
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
    early = runtime.pipeline.decoding_settings(request.model_copy(update={"method": "early-exit"}))
    exit_step = early.exit_step or early.steps
    film = []
    if "full" in records:
        for column in _film(runtime, request, exit_step, records["full"].logits):
            film.append(column)
            yield column
    full = records["full"].picture.model_seconds if "full" in records else None
    entries = {name: record.entry(name, full) for name, record in records.items()}
    result = records[methods[0]].result
    assert result is not None
    yield Comparison(request, entries, exit_step, film, runtime.pipeline.grid, result.notes)


class _Record:
    """What is kept of one method's run."""

    def __init__(self, runtime: Runtime, *, keep_logits: bool) -> None:
        self.runtime = runtime
        self.positions = runtime.pipeline.grid[0] * runtime.pipeline.grid[1]
        self.keep_logits = keep_logits
        self.undecided = self.positions
        self.logits: list[Tensor] = []
        self.last: tuple[Tensor, Tensor] | None = None
        self.refinement: Refinement | None = None
        self.result: Result | None = None

    def add(self, event: StepEvent | Result) -> None:
        if isinstance(event, Result):
            self.result = event
            return
        step = event.step
        if step.tokens.shape[1] != self.positions:
            return  # another stage's, on a finer grid
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

    def entry(self, method: str, full_seconds: float | None) -> Entry:
        assert self.last is not None
        tokens, confidence = (part.cpu() for part in self.last)
        speedup = None if full_seconds is None else full_seconds / self.picture.model_seconds
        return Entry(method, self.picture, speedup, tokens, confidence, self.refinement)

    def _refinement(self, step: DecodingStep) -> Refinement:
        pipeline = self.runtime.pipeline
        assert step.plain is not None and step.unary is not None and pipeline.mrf is not None
        with self.runtime.lock, torch.no_grad():
            before, after = (float(pipeline.mrf.energy(tokens, step.unary)) for tokens in (step.plain, step.predicted))
            plain = pipeline.to_images(step.plain)[0]
        changed = (step.plain != step.predicted)[0].cpu()
        return Refinement(step.index, self.undecided, changed, plain, before, after)


def film_steps(steps: int, exit_step: int) -> list[int]:
    """Steps of the full run that the filmstrip shows: evenly apart, the last one and the exit step among them."""
    columns = min(FILM_COLUMNS, steps)
    return sorted({round(steps * column / columns) for column in range(1, columns + 1)} | {min(exit_step, steps)})


def _film(runtime: Runtime, request: GenerateRequest, exit_step: int, logits: Sequence[Tensor]) -> Iterator[Column]:
    """The columns of the filmstrip, from the logits of the full run's steps; none where not even one was kept."""
    if not logits:
        return
    pipeline = runtime.pipeline
    refine = pipeline.mrf and pipeline.mrf.refine(request.mrf_iterations, clamp=request.mrf_clamp)
    blank = torch.full_like(logits[0][..., 0], pipeline.transformer.mask_token_id, dtype=torch.long)  # (1, n)
    for cut in film_steps(len(logits), exit_step):
        method = request.model_copy(update={"method": "early-exit", "exit_step": cut})
        settings = pipeline.decoding_settings(method)
        generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        with runtime.lock:
            *_, last = decode(
                lambda tokens, step: logits[step - 1],
                blank,
                pipeline.transformer.mask_token_id,
                settings,
                generators,
                grid=pipeline.grid,
                refine=refine,
            )
            plain = last.predicted if last.plain is None else last.plain
            pictures = pipeline.to_images(torch.cat([plain, last.predicted]))
        yield Column(cut, pictures[0], pictures[1] if refine else None, int((plain != last.predicted).sum()))
