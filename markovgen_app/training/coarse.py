"""Coarse tokens for half-decoded pictures of a stage above the base, which cannot be without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ladder import Stage
from ..loading import tensors_digest
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest
from .super_resolution import SuperResolutionConfig, corrupted, near_codes

_NEAR_SHARE: float = SuperResolutionConfig.model_fields["near_share"].default


@dataclass(frozen=True, eq=False)
class CoarseTokens:
    """Where a stage above the base gets its coarse tokens (B, n') from.

    Attributes:
        pipeline: the checkpoint, whose stages below make them.
        stage: the one that reads them.
        request: how the stages below decode; prompt and seed are each picture's own.
        corruption: largest share of a real picture's tokens to replace, as in the stage's own training.
    """

    pipeline: MarkovGenPipeline
    stage: Stage
    request: GenerateRequest
    corruption: float = 0.0

    @property
    def side(self) -> int:
        """Side in pixels of the pictures that coarse tokens stand for."""
        return self.pipeline.sizes[self.stage.number - 1]

    def decoded(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """What the stages below make of captions, picture by picture."""
        made = []
        for caption, seed in zip(captions, seeds, strict=True):
            request = self.request.model_copy(update={"prompt": caption, "seed": seed, "count": 1})
            tokens = self.pipeline.coarse_tokens(self.stage, request)
            assert tokens is not None, "the base reads no coarse tokens"
            made.append(tokens)
        return torch.cat(made)

    @torch.no_grad()
    def encoded(self, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """Those of real pictures (B, 3, `side`, `side`), some of them replaced by the noise of the stage below."""
        tokenizer = self.pipeline.tokenizer
        near = near_codes(tokenizer.codebook)
        generators = self.pipeline.stage(self.stage.number - 1).generators(seeds)
        rows = zip(tokenizer.encode(pictures).split(1), generators, strict=True)
        return torch.cat([corrupted(row, near, self.corruption, _NEAR_SHARE, generator) for row, generator in rows])

    @property
    def identity(self) -> list[Any]:
        """What tells these coarse tokens from those of other weights or settings."""
        below = [part for stage in self.pipeline.stages[: self.stage.number] for part in (stage.transformer, stage.mrf)]
        weights = tensors_digest(*(part for part in below if part is not None))
        return [weights, self.request, self.corruption]
