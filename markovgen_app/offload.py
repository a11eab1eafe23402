"""Low-memory mode: models wait in main memory, and come to the device one at a time, while they work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn

_ENTRANCES = ("forward", "hidden", "logits", "coarse_states", "fine_states", "encode", "decode")


def one_at_a_time(models: Sequence[nn.Module], device: torch.device) -> None:
    """Make every model bring itself to the device when it is called, and send the one before back to main memory."""
    present: list[nn.Module] = []

    def bring(model: nn.Module) -> None:
        if model in present:
            return
        for other in present:
            nn.Module.to(other, "cpu")
        present[:] = [model]
        clear_device_cache()
        nn.Module.to(model, device)

    def entrance(model: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def entered(*args: Any, **options: Any) -> Any:
            bring(model)
            return method(*args, **options)

        return entered

    for model in models:
        nn.Module.to(model, "cpu")
        for name in _ENTRANCES:
            if hasattr(model, name):
                setattr(model, name, entrance(model, getattr(model, name)))
