"""How far a token shows: a decoder of overlapping kernels draws its change into the pixels of its neighbours, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_PICTURES = 4
_CODES = 4


def decoder_reach(
    to_images: Callable[[Tensor], Sequence[Image.Image]], tokens: Tensor, grid: tuple[int, int], levels: int = 1
) -> int:
    """Pixels beyond a token's own, to any side, at which another choice of it still changes a colour visibly.

    Measured on the middle tokens of a few pictures, each replaced by a few codes of other places; half a picture is the
    furthest that this can see.

    Args:
        to_images: pictures of tokens (B, n).
        tokens: (P, n) long, of real pictures.
        grid: rows and columns of tokens.
        levels: of 255, the largest change that does not count.
    """
    row, column = grid[0] // 2, grid[1] // 2
    pictures = tokens[:_PICTURES].repeat_interleave(_CODES, dim=0)  # (B, n)
    changed = pictures.clone()
    places = torch.randint(tokens.numel(), (len(pictures),), generator=torch.Generator().manual_seed(0))
    changed[:, row * grid[1] + column] = tokens.flatten()[places.to(tokens.device)]
    before, after = (
        np.stack([np.asarray(image, np.int16) for image in to_images(each)]) for each in (pictures, changed)
    )
    seen = np.abs(after - before).max(axis=(0, 3)) > levels  # (B, H, W, 3) -> (H, W)
    reach = 0
    for axis, start in ((0, row), (1, column)):
        factor = seen.shape[axis] // grid[axis]
        hit = np.flatnonzero(seen.any(axis=1 - axis))
        if len(hit):
            reach = max(reach, start * factor - int(hit[0]), int(hit[-1]) - (start + 1) * factor + 1)
    return reach


def beyond(tokens: np.ndarray, grid: tuple[int, int], factor: int, reach: int) -> np.ndarray:
    """Pixels (H, W) bool more than `reach` away, along rows or columns, from those of the marked tokens (n,) bool."""
    cells = torch.from_numpy(tokens.reshape(1, *grid)).float()  # (n,) -> (1, h, w)
    near = cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)  # (1, H, W)
    near = F.max_pool2d(near, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    near = F.max_pool2d(near, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    return near[0].numpy() == 0
