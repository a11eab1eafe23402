"""Spaces on ZeroGPU: the GPU is there only inside functions marked with `spaces.GPU`, which run in a forked process.

Elsewhere, and where the package `spaces` is not installed, nothing here changes anything. What such a function yields
is pickled on its way back, so events travel with their previews made and without references to the models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from .events import Result, StepEvent
    from .requests import DecodingRequest

Events = Callable[["DecodingRequest"], "Iterator[StepEvent | Result]"]
EventT = TypeVar("EventT")


def on_zero_gpu() -> bool:
    """Whether this process runs in a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def borrowing_gpu(
    run: Callable[..., Iterator[EventT]],
    seconds: Callable[..., float],
    portably: Callable[[EventT], EventT],
) -> Callable[..., Iterator[EventT]]:
    """`run` with a GPU borrowed for as long as each call needs; `run` itself where there is none to borrow.

    Args:
        run: what computes.
        seconds: expected time of a call with the same arguments, which its visitor's quota pays for.
        portably: makes an event one that can be pickled, such as `portable`.
    """
    if not on_zero_gpu():
        return run
    import spaces

    def lent(*arguments: Any) -> Iterator[EventT]:
        for event in run(*arguments):
            yield portably(event)

    return spaces.GPU(duration=lambda *arguments: max(10, round(2 * seconds(*arguments))))(lent)


def portable(event: StepEvent | Result) -> StepEvent | Result:
    """An event that can be pickled: tensors in main memory, previews made."""
    from .events import StepEvent

    if isinstance(event, StepEvent):
        tensors: dict[str, Any] = {name: each for name, each in vars(event.step).items() if isinstance(each, Tensor)}
        step = replace(event.step, **{name: tensor.cpu() for name, tensor in tensors.items()})
        return replace(event, step=step, _to_images=Made(event.images))
    films = [Made(view(frame)) for view, frame in zip(event._to_images, event.frames, strict=True)]
    return replace(event, frames=[frame.cpu() for frame in event.frames], _to_images=films)


@dataclass(frozen=True)
class Made:
    """Stands where tokens were turned into pictures, with the pictures of all rows."""

    images: list[Image.Image]

    def __call__(self, tokens: Any, rows: Sequence[int] | None = None) -> list[Image.Image]:
        """The pictures of `rows`, of all if not given; the tokens are not looked at."""
        return self.images if rows is None else [self.images[row] for row in rows]
