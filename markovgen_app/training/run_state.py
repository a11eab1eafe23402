"""The state of a run on disk, to be gone on from: a safetensors file, whole or not there at all.

module.NAME   average.NAME   optimizer.NUMBER.PARAMETER.NAME   step   minutes
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError
from ..tensor_files import save_whole


def save_state(
    path: Path,
    module: nn.Module,
    average: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    minutes: float,
) -> None:
    """Write the file; the old one stays until the new one is complete.

    Raises:
        UserError: the disk is full, or nothing may be written there.
    """
    tensors: dict[str, Tensor] = {"step": torch.tensor(step), "minutes": torch.tensor(minutes, dtype=torch.float64)}
    tensors |= {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{parameter}.{name}": value for name, value in state.items()}
    save_whole(tensors, path)


def load_state(
    path: Path,
    module: nn.Module,
    average: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, float]:
    """Fill a run's parts, wherever they are, from its file; the number of steps and the minutes so far.

    Learning rates and the like are the optimizers' own: they may have been changed in the configuration.

    Raises:
        UserError: the file is damaged, or that of a run of other sizes.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the run begins anew.") from error
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    states: list[dict[int, dict[str, Tensor]]] = [defaultdict(dict) for _ in optimizers]
    try:
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            if part == "optimizer":
                number, parameter, name = name.split(".", 2)
                states[int(number)][int(parameter)][name] = value
            else:
                parts[part][name] = value
        module.load_state_dict(parts["module"])
        average.load_state_dict(parts["average"])
        for optimizer, state in zip(optimizers, states, strict=True):
            saved: dict[str, Any] = {"state": dict(state), "param_groups": optimizer.state_dict()["param_groups"]}
            optimizer.load_state_dict(saved)
        return int(parts["step"][""]), float(parts["minutes"][""])
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is not of this run: its configuration names other sizes now. Give the run another name, delete the"
            " file, or put the sizes back."
        ) from error
