"""The ladder of stages that a checkpoint climbs: each fills a finer grid of tokens than the one before.

The base stage turns words into a coarse grid; every stage above it turns that and the words into a finer one, by the
same decoding loop. A checkpoint's parts say its stages: `transformer` and `mrf` are the base, `super_resolution` and
`super_resolution_mrf` the next, `super_resolution_2` and `super_resolution_2_mrf` the one after, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .checkpoint import read_json
from .decoding.finalise import Inference, MeanField
from .decoding.sampler import DecodingSettings, default_exit_step, method_settings
from .errors import UserError
from .models.mrf import MarkovRandomField
from .models.super_resolution import SuperResolutionTransformer
from .models.transformer import MuseTransformer
from .requests import DecodingRequest, Finalise

if TYPE_CHECKING:
    from .models.amused import AmusedTokenizer, AmusedTransformer
    from .models.tokenizer import ImageTokenizer

_TOGETHER = 64  # pictures that a device other than a CPU enlarges at once

STAGES = "_stages"
"""Entry of model_index.json: the names of all stages, from the base up."""

Finer = tuple[SuperResolutionTransformer, MarkovRandomField | None]
"""A stage above the base: its transformer and its random field."""


@dataclass(frozen=True)
class Level:
    """A grid of the ladder.

    Attributes:
        number: 0 for the base.
        grid: rows and columns of tokens.
    """

    number: int
    grid: tuple[int, int]

    @property
    def name(self) -> str:
        """ "base", "super-resolution", "super-resolution 2"."""
        if self.number == 0:
            return "base"
        return "super-resolution" if self.number == 1 else f"super-resolution {self.number}"

    @property
    def positions(self) -> int:
        """n, the number of tokens."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, eq=False)
class Stage:
    """The models that work on one grid of the ladder.

    Attributes:
        number: 0 for the base.
        transformer: predicts its tokens.
        mrf: what the method markovgen needs; without it, a stage above the base takes all of its steps.
        tokenizer: enlarges coarse pictures for a transformer that reads those.
    """

    number: int
    transformer: MuseTransformer | AmusedTransformer | SuperResolutionTransformer
    mrf: MarkovRandomField | None = None
    tokenizer: ImageTokenizer | AmusedTokenizer | None = None

    @property
    def level(self) -> Level:
        """Which grid it is."""
        return Level(self.number, self.transformer.grid)

    @property
    def name(self) -> str:
        return self.level.name

    @property
    def grid(self) -> tuple[int, int]:
        return self.level.grid

    @property
    def positions(self) -> int:
        return self.level.positions

    @property
    def mask_token_id(self) -> int:
        return self.transformer.mask_token_id

    def exit_step(self, steps: int) -> int:
        """Where the methods that stop early stop, of so many steps, if a request does not say.

        At the random field's own share of them, so that all of these methods cost the same; without one at the paper's.
        """
        share = None if self.mrf is None else self.mrf.config.get("exit_share")
        if share is not None:
            return max(1, round(share * steps))
        return default_super_resolution_exit(steps) if self.number else default_exit_step(steps)

    def steps(self, request: DecodingRequest) -> tuple[int, int]:
        """Planned steps n and exit step k of a request here."""
        if self.number == 0:
            return request.steps, request.exit_step or self.exit_step(request.steps)
        planned = request.super_resolution_steps
        return planned, request.super_resolution_exit_step or self.exit_step(planned)

    def finalise(self, request: DecodingRequest) -> Finalise:
        """How the tokens left at this stage's exit are taken."""
        if self.number == 0:
            return request.finalise
        return request.super_resolution_finalise or ("sample" if self.mrf is None else self.mrf.config.finalise)

    def settings(self, request: DecodingRequest) -> DecodingSettings:
        """The loop's settings for a request."""
        options = request.model_dump(include=set(DecodingSettings.__dataclass_fields__) - {"steps", "exit_step"})
        if request.mrf_iterations is None and self.mrf is not None:
            options["mrf_iterations"] = self.mrf.config.iterations
        options["finalise"] = self.finalise(request)
        if self.number:
            options["guidance_scale"] = request.super_resolution_guidance_scale
            options["temperature"] = request.super_resolution_temperature
            options["exit_temperature"] = request.super_resolution_exit_temperature
            if options["exit_temperature"] is None and self.mrf is not None:
                options["exit_temperature"] = self.mrf.config.exit_temperature
        method = "full" if self._lacks_field(request) else request.method
        return method_settings(method, *self.steps(request), **options)

    def notes(self, request: DecodingRequest) -> list[str]:
        """What to tell the person who asked."""
        if not self._lacks_field(request):
            return []
        return [f"These weights have no random field for {self.name}, so that stage took all of its steps."]

    def _lacks_field(self, request: DecodingRequest) -> bool:
        return self.number > 0 and self.mrf is None and request.method == "markovgen"

    def generators(self, seeds: Sequence[int]) -> list[torch.Generator]:
        """One source of noise a picture: the seed's own for the base, others drawn from it for the stages above."""
        return [torch.Generator().manual_seed(stage_seed(seed, self.number)) for seed in seeds]

    def model(self, count: int, device: torch.device, coarse: Tensor | None = None) -> Callable[..., Tensor]:
        """The transformer, for `count` pictures or twice as many rows; on a CPU picture by picture.

        Kernels choose their order of summation by the size of the batch, and the last bit of a logit can decide a
        token: fixed shapes make a picture independent of its batch. Batching would gain a CPU little.

        Args:
            coarse: (count, n') tokens of the stage below; None for the base.
        """
        if device.type != "cpu":
            return self._given(coarse)
        alone = [self._given(None if coarse is None else coarse[[index]]) for index in range(count)]

        def each_alone(*inputs: Tensor) -> Tensor:
            rows = [model(*(each[index::count] for each in inputs)) for index, model in enumerate(alone)]
            return torch.stack(rows, dim=1).flatten(0, 1)  # (1 or 2, count, n, V) -> (rows, n, V)

        return each_alone

    def inference(self, request: DecodingRequest, device: torch.device) -> Inference | None:
        """What the random field does at the exit of the method markovgen; on a CPU picture by picture, as `model`.

        Raises:
            UserError: the base has no random field.
        """
        if request.method != "markovgen" or self._lacks_field(request):
            return None
        if self.mrf is None:
            raise UserError(
                "This checkpoint has no random field: choose another method, name a field's folder (--mrf), or train"
                " one with `markovgen train mrf`."
            )
        iterations = None if self.finalise(request) == "decimate" else request.mrf_iterations  # those are its strides
        return MeanField(self.mrf, iterations, clamp=request.mrf_clamp, alone=device.type == "cpu")

    def _given(self, coarse: Tensor | None) -> Callable[..., Tensor]:
        if coarse is None:
            return self.transformer
        assert isinstance(self.transformer, SuperResolutionTransformer), "the base refines nothing"
        return self.transformer.given(coarse, self.enlarged(coarse))

    def enlarged(self, coarse: Tensor) -> Tensor | None:
        """Fine tokens (B, n) of the enlarged pictures of coarse ones (B, n'); None where the transformer reads none."""
        model = self.transformer
        if not isinstance(model, SuperResolutionTransformer) or not model.config.enlarged:
            return None
        assert self.tokenizer is not None, "a transformer that reads enlarged pictures comes with a tokenizer"
        return enlarged_tokens(self.tokenizer, coarse, model.coarse_grid, model.grid)


@torch.no_grad()
def enlarged_tokens(
    tokenizer: ImageTokenizer | AmusedTokenizer, coarse: Tensor, coarse_grid: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Tokens (B, n) on a grid of the pictures that tokens (B, n') on a coarser one stand for, enlarged (bicubic).

    On a CPU pictures go through the tokenizer one by one, so that each has the same tokens in any batch.
    """
    size = [side * tokenizer.factor for side in grid]
    made = []
    for part in coarse.split(1 if coarse.device.type == "cpu" else _TOGETHER):
        pixels = F.interpolate(tokenizer.decode(part, coarse_grid).float(), size, mode="bicubic").clamp(-1, 1)
        made.append(tokenizer.encode(pixels))
    return torch.cat(made)


def default_super_resolution_exit(steps: int) -> int:
    """Three eighths of the steps, at least one: MarkovGen's 3 of 8 (arXiv 2308.10997)."""
    return max(1, round(0.375 * steps))


def stage_seed(seed: int, stage: int) -> int:
    """The seed of a stage's noise: the picture's own for the base, one derived from both for the stages above."""
    return seed if stage == 0 else int(np.random.SeedSequence((seed, stage)).generate_state(1)[0])


def part_names(number: int) -> tuple[str, str]:
    """Folders in a checkpoint of a stage's transformer and random field, for a stage above the base."""
    name = "super_resolution" if number == 1 else f"super_resolution_{number}"
    return name, f"{name}_mrf"


def further_parts(folder: Path) -> list[tuple[str, str | None]]:
    """Names of the parts of a checkpoint's stages above the first super-resolution, from the lowest up.

    They are as many as model_index.json says; as there are folders, where it is of a time when it said nothing.
    """
    stages = read_json(folder / "model_index.json").get(STAGES)
    found: list[tuple[str, str | None]] = []
    said = len(stages) if isinstance(stages, list) else None
    while (folder / part_names(len(found) + 2)[0]).is_dir() if said is None else len(found) + 2 < said:
        transformer, field = part_names(len(found) + 2)
        found.append((transformer, field if (folder / field).is_dir() else None))
    return found


def check_ladder(stages: Sequence[Stage]) -> None:
    """Raise UserError where stages do not fit each other, or a random field is over other tokens than its stage's."""
    for stage in stages:
        if stage.mrf is not None:
            check_field(stage.mrf, stage.transformer, "" if stage.number == 0 else f" of {stage.name}")
    base = stages[0].transformer
    for below, stage in pairwise(stages):
        finer = stage.transformer
        assert isinstance(finer, SuperResolutionTransformer)
        own = (*finer.coarse_grid, finer.config.codebook_size, finer.config.text_width)
        wanted = (*below.grid, base.config.codebook_size, base.config.text_width)
        if own != wanted:
            raise UserError(
                f"{stage.name.capitalize()} refines {own[0]} × {own[1]} tokens of {own[2]} codes and reads text states"
                f" {own[3]} wide, where {below.name} makes {wanted[0]} × {wanted[1]} of {wanted[2]} and reads"
                f" {wanted[3]}: take the stages that were trained for each other."
            )


def check_field(
    mrf: MarkovRandomField,
    transformer: MuseTransformer | AmusedTransformer | SuperResolutionTransformer,
    whose: str = "",
) -> None:
    """Raise UserError where a random field is over other tokens than the transformer's."""
    own, wanted = (*mrf.grid, mrf.config.codebook_size), (*transformer.grid, transformer.config.codebook_size)
    if own != wanted:
        raise UserError(
            f"The random field{whose} is over {own[0]} × {own[1]} tokens of {own[2]} codes, the transformer's are"
            f" {wanted[0]} × {wanted[1]} of {wanted[2]}: take the field that was trained for this checkpoint."
        )
