"""What a request leads to: an event after every decoding step, then the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from PIL import Image
from torch import Tensor

from .decoding.sampler import DecodingStep
from .ladder import Level
from .patches import Patch
from .pictures import Picture
from .requests import DecodingRequest


class TokensToImages(Protocol):
    """Pictures of tokens (B, n); `rows` says which candidate each row is, if they are not all, in order."""

    def __call__(self, tokens: Tensor, rows: Sequence[int] | None = None) -> list[Image.Image]: ...


@dataclass(frozen=True, eq=False)
class StepEvent:
    """One decoding step is done.

    Attributes:
        step: the state of the loop.
        fraction: of the steps that will be done, in (0, 1].
        label: "base 7/24", "base 24/24 · super-resolution 2/8".
        patch: where the loop works.
        stage: what it fills in.
    """

    step: DecodingStep
    fraction: float
    label: str
    patch: Patch
    stage: Level
    _to_images: TokensToImages = field(repr=False)

    @cached_property
    def images(self) -> list[Image.Image]:
        """Previews of what is predicted so far, one a picture, of the stage's size; decoded when first asked for."""
        return self._to_images(self.step.predicted)


@dataclass(frozen=True, eq=False)
class Result:
    """The pictures are done.

    Attributes:
        images: the pictures, in the order of their seeds.
        request: what was asked for, with the seed settled.
        notes: lines for the person who asked, such as on a prompt that is too long to be read to its end.
        frames: predicted tokens after every step of the last stage, each (count, n).
    """

    images: list[Picture]
    request: DecodingRequest
    notes: list[str]
    frames: list[Tensor]
    _to_images: Sequence[TokensToImages] = field(repr=False)  # one a frame

    def frame(self, step: int, index: int = 0) -> Image.Image:
        """One picture as it was predicted after a step of the last stage, counted from 0."""
        return self._to_images[step](self.frames[step][index : index + 1], [index])[0]

    def filmstrip(self, index: int = 0) -> list[Image.Image]:
        """One picture as it was predicted after every step of the last stage, the last one being the result."""
        return [self.frame(step, index) for step in range(len(self.frames))]
