"""Tensors that are computed once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .pictures import write_error


def save_whole(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file whole or not at all, whoever else writes the same one.

    Raises:
        UserError: the disk is full, or nothing may be written there.
    """
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        raise write_error(path.parent, error) from error
