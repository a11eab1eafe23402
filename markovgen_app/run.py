"""One request on its way: window by window, stage by stage, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .decoding.draws import hide
from .decoding.editing import EditSettings, edit, evidence, rounds_of, settings_of_rounds, threshold_of
from .decoding.finalise import Inference
from .decoding.guidance import guided_logits
from .decoding.sampler import DecodingSettings, DecodingStep, TokensToLogits, decode, for_few
from .events import Result, StepEvent, TokensToImages
from .ladder import Stage
from .models.text import TextStates
from .patches import Patch, patches
from .picture_requests import EditRequest, away_from
from .pictures import Picture
from .requests import DecodingRequest, GenerateRequest
from .timing import Stopwatch

if TYPE_CHECKING:
    from .pipeline import MarkovGenPipeline

_NOTHING_TO_DO = (
    "At this strength the words speak against nothing in the picture: raise the strength, or mark what should change"
    " with the brush of Inpaint."
)


class Run:
    """A request that a pipeline works on; `events` does the work, once.

    Args:
        pipeline: its models, as they stand.
        request: what is asked for.

    Raises:
        UserError: the method needs a random field, and there is none; or no stage makes pictures of that size.
    """

    def __init__(self, pipeline: MarkovGenPipeline, request: DecodingRequest) -> None:
        self._started = time.perf_counter()
        self.pipeline = pipeline
        self.request = pipeline.settled(request).with_seed()
        self.stages = pipeline.stages_for(self.request)
        self.works = [_Work.of(stage, self.request, pipeline.device) for stage in self.stages]
        self._watch = Stopwatch(pipeline.device)
        self._frames: list[Tensor] = []
        self._views: list[TokensToImages] = []
        self._calls = 0
        self._notes: list[str] = []

    def events(self) -> Iterator[StepEvent | Result]:
        """A `StepEvent` after every decoding step, then one `Result`.

        Raises:
            UserError: what is to change does not fit into the window that was asked for.
        """
        request, pipeline = self.request, self.pipeline
        with self._watch:
            texts = pipeline.text_encoder.encode([request.prompt, away_from(request)]).to(pipeline.device)
        windows = patches(request, pipeline.size, pipeline.grid)
        patch = next(windows)
        while True:
            if isinstance(request, EditRequest) and request.remask == "words":
                with self._watch:
                    patch = self._spoken_against(request, patch, texts[[0]])
            yield from self._window(patch, texts)
            with self._watch:
                images = self._view(patch)(self._frames[-1])
            try:
                patch = windows.send(images)
            except StopIteration:
                break
        yield self._result(images, patch.total)

    def _window(self, patch: Patch, texts: TextStates) -> Iterator[StepEvent]:
        """Fill in one window, from the base up; what earlier windows led to stays in the film."""
        kept = len(self._frames)
        before = f"window {patch.number}/{patch.total} · " if patch.total > 1 else ""
        done = 0
        changed: Tensor | None = None
        for work in self.works:
            with self._watch:
                coarse = self._frames[-1] if work.stage.number else None
                start, is_open = self._start(patch, work.stage, changed)
                steps, total = self._steps(patch, work, texts, coarse, start, is_open)
            if work.stage.number:
                del self._frames[kept:], self._views[kept:]
            planned = done + total + sum(later.longest for later in self.works[work.stage.number + 1 :])
            for step in self._watch.each(steps):
                self._frames.append(step.predicted)
                self._views.append(self._view(patch.preview))
                fraction = (patch.number - 1 + (done + step.index) / planned) / patch.total
                label = f"{before}{work.counted} {step.index}/{total}"
                yield StepEvent(step, fraction, label, patch, work.stage.level, self._views[-1])
            before = f"{label} · "
            done += total
            changed = self._frames[-1] != start  # everywhere, where new pictures are made

    def _result(self, images: Sequence[Image.Image], windows: int) -> Result:
        request = self.request
        seconds = time.perf_counter() - self._started
        kind = {} if isinstance(request, GenerateRequest) else {"task": request.task}
        pictures = [
            Picture(
                image=image,
                settings={**kind, **request.model_dump(), "seed": seed, "count": 1},
                seed=seed,
                method=request.method,
                steps=request.steps,
                seconds=seconds,
                model_seconds=self._watch.seconds,
                transformer_calls=self._calls,
                planned_calls=windows * sum(work.planned_calls for work in self.works),
                prompt=request.prompt,
            )
            for image, seed in zip(images, request.seeds, strict=True)
        ]
        of_stages = (note for stage in self.stages for note in stage.notes(request))
        notes = [*self.pipeline.notes(request), *of_stages, *self._notes]
        return Result(pictures, request, notes, self._frames, self._views)

    def _start(self, patch: Patch, stage: Stage, changed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (count, n) that a stage starts from, and which of them are open to change, (count, n) bool.

        Where only some tokens are made anew, a stage above the base leaves alone what lies under tokens that stayed.

        Args:
            changed: (count, n') bool, tokens of the stage below that are no longer as they were; None for the base.
        """
        request, factor, device = self.request, self.pipeline.tokenizer.factor, self.pipeline.device
        size = (stage.grid[1] * factor, stage.grid[0] * factor)
        is_open = torch.from_numpy(patch.open_tokens(size, stage.grid)).to(device).repeat(request.count, 1)
        if patch.geometry is None:
            return torch.full(is_open.shape, stage.mask_token_id, device=device), is_open
        views = patch.views(size)
        if all(picture is patch.pictures[0] for picture in patch.pictures):
            tokens = self.pipeline.encode(views[:1]).repeat(request.count, 1)
        else:
            tokens = self.pipeline.encode(views)
        if changed is not None and (isinstance(request, EditRequest) or patch.share < 1):
            below = changed.float().unflatten(1, self.stages[stage.number - 1].grid).unsqueeze(1)  # (B, 1, h', w')
            is_open = is_open & F.interpolate(below, stage.grid).flatten(1).bool()  # (B, 1, h, w) -> (B, n)
        return tokens, is_open

    def _steps(
        self,
        patch: Patch,
        work: _Work,
        texts: TextStates,
        coarse: Tensor | None,
        tokens: Tensor,
        is_open: Tensor,
    ) -> tuple[Iterator[DecodingStep], int]:
        """The loop of a stage over one patch, and how many steps it takes at most.

        Args:
            texts: of the prompt, and of what to keep away from.
            coarse: tokens of the stage below; None for the base.
            tokens, is_open: see `_start`.
        """
        request, stage, settings = self.request, work.stage, work.settings
        count, mask_id = request.count, stage.mask_token_id
        model = stage.model(count, self.pipeline.device, coarse)

        def logits_by(settings: DecodingSettings) -> TokensToLogits:
            guided = guided_logits(model, texts[[0]].repeat_interleave(count), texts[[1]], settings)

            def counted(tokens: Tensor, step: int) -> Tensor:
                self._calls += 1
                return guided(tokens, step)

            return counted

        if isinstance(request, EditRequest) and work.rounds:
            rounds = edit(
                logits_by(settings), tokens, mask_id, settings, work.generators, grid=stage.grid,
                edit_settings=EditSettings(work.rounds, request.share), editable=is_open, inference=work.inference,
                last=work.last,
            )  # fmt: skip
            return rounds, work.rounds
        hidden = hide(tokens, mask_id, is_open, patch.share if coarse is None else 1, work.generators)
        unknown = int((hidden == mask_id).sum(dim=1).max())
        settings = for_few(settings, unknown)
        steps = decode(
            logits_by(settings), hidden, mask_id, settings, work.generators, grid=stage.grid, inference=work.inference
        )
        return steps, min(settings.exit_step or settings.steps, max(1, unknown))

    @torch.no_grad()
    def _spoken_against(self, request: EditRequest, patch: Patch, text: TextStates) -> Patch:
        """The patch, of whose tokens those alone may change that the words speak against at the edit's strength."""
        pipeline, stage = self.pipeline, self.stages[0]
        none = pipeline.text_encoder.encode([""]).to(pipeline.device)
        both = type(text).cat([text, none])
        hidden = torch.full((2, stage.positions), stage.mask_token_id, device=pipeline.device)
        logits = stage.model(1, pipeline.device)(hidden, both.states, both.mask, both.pooled)  # (2, n, V)
        self._calls += 1
        tokens = pipeline.encode(patch.views(pipeline.size)[:1])  # candidates share one picture
        against = evidence(logits[[0]], logits[[1]], tokens, stage.grid) < threshold_of(request.strength)  # (1, n)
        narrowed = patch.narrowed(
            against.view(stage.grid).cpu().numpy(), request.feather if request.keep_outside else None
        )  # (1, n) -> (rows, columns)
        if not narrowed.open_tokens(pipeline.size, stage.grid).any():
            self._notes.append(_NOTHING_TO_DO)
        return narrowed

    def _view(self, patch: Patch) -> TokensToImages:
        def images(tokens: Tensor, rows: Sequence[int] | None = None) -> list[Image.Image]:
            return patch.finished(self.pipeline.to_images(tokens), rows)

        return images


@dataclass(frozen=True, eq=False)
class _Work:
    """What one request does on one stage; an edit in rounds, of which the last may have settings of its own."""

    stage: Stage
    settings: DecodingSettings
    last: DecodingSettings | None
    inference: Inference | None
    generators: list[torch.Generator]
    rounds: int | None
    planned: int
    looks: bool = False  # at what the words speak against, first

    @classmethod
    def of(cls, stage: Stage, request: DecodingRequest, device: torch.device) -> _Work:
        inference, generators = stage.inference(request, device), stage.generators(request.seeds)
        settings, planned = stage.settings(request), stage.steps(request)[0]
        if not isinstance(request, EditRequest) or stage.number:
            return cls(stage, settings, None, inference, generators, None, planned)
        if request.remask == "words":
            return cls(stage, settings, None, inference, generators, None, planned, looks=True)
        settings, last = settings_of_rounds(settings, inferred=inference is not None)
        return cls(stage, settings, last, inference, generators, rounds_of(request.strength), planned)

    @property
    def longest(self) -> int:
        """The most steps, or rounds, that it takes."""
        return self.rounds or self.settings.exit_step or self.settings.steps

    @property
    def planned_calls(self) -> int:
        """Decoding steps that it plans."""
        return self.planned * (self.rounds or 1) + self.looks

    @property
    def counted(self) -> str:
        """What its steps are called: "base", "super-resolution", "round"."""
        return "round" if self.rounds else self.stage.name
