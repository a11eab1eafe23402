"""How long a device works, what is queued on it included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

import torch

ItemT = TypeVar("ItemT")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Stopwatch:
    """Adds up the seconds spent inside `with`, work that was queued on the device included."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        synchronize(self._device)
        self.seconds += time.perf_counter() - self._started

    def each(self, items: Iterator[ItemT]) -> Iterator[ItemT]:
        """The items, the making of each inside `with`."""
        end = object()
        while True:
            with self:
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]
