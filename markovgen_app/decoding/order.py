"""Fixed decoding orders: each function maps a grid to a permutation of its row-major positions, first decided first.

With one token a step these are the autoregressive orders of Parti (row by row, arXiv 2206.10789) and of taming
transformers (Esser et al., 2021, arXiv 2012.09841, section A.2); with several a step they replace MaskGIT's confidence.
Every order works on any height and width, and returns a LongTensor of shape (height · width,).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def row_major(height: int, width: int) -> Tensor:
    """Left to right, top to bottom."""
    return torch.arange(height * width)


def alternate(height: int, width: int) -> Tensor:
    """Row by row, turning at each end: even rows left to right, odd rows right to left."""
    rows = torch.arange(height * width).view(height, width)  # (h, w)
    rows[1::2] = rows[1::2].flip(1)
    return rows.flatten()  # (n,)


def spiral_in(height: int, width: int) -> Tensor:
    """Clockwise from the top left corner to the middle."""
    rest = torch.arange(height * width).view(height, width)  # (h, w)
    rings = []
    while rest.numel():
        rings.append(rest[0])
        rest = rest[1:].rot90()  # the rest turns so that the next side to walk lies on top
    return torch.cat(rings)  # (n,)


def spiral_out(height: int, width: int) -> Tensor:
    """From the middle outwards: `spiral_in` backwards."""
    return spiral_in(height, width).flip(0)


def z_curve(height: int, width: int) -> Tensor:
    """Morton order: quadrant by quadrant, and so within each quadrant."""
    return _sorted_by_bits(height, width, coarse_first=False)


def subsample(height: int, width: int) -> Tensor:
    """A coarse lattice first, then the finer ones between its points."""
    return _sorted_by_bits(height, width, coarse_first=True)


def halton(height: int, width: int) -> Tensor:
    """Cells in the order in which the Halton sequence first visits them (Besnier et al., arXiv 2503.17076, section 4).

    Rows come from base 2 and columns from base 3, starting with the sequence's first point (1/2, 1/3). Neighbours in
    time are far apart in the picture, so tokens decided in the same step depend little on each other.
    """
    cells = height * width
    points = 4 * cells
    while True:
        visited = _radical_inverse(points, 2, height) * width + _radical_inverse(points, 3, width)
        first_visits = np.unique(visited, return_index=True)[1]
        if len(first_visits) == cells:
            return torch.from_numpy(visited[np.sort(first_visits)])
        points *= 2


ORDERS: dict[str, Callable[[int, int], Tensor]] = {
    "halton": halton,
    "row_major": row_major,
    "spiral_in": spiral_in,
    "spiral_out": spiral_out,
    "z_curve": z_curve,
    "subsample": subsample,
    "alternate": alternate,
}


def order_scores(name: str, grid: tuple[int, int]) -> Tensor:
    """A score for every place of a grid (height, width), (height · width,) float32: the higher, the earlier decided.

    Raises:
        KeyError: no order is called so.
    """
    return -ORDERS[name](*grid).argsort().float()


def _radical_inverse(points: int, base: int, cells: int) -> np.ndarray:
    """⌊cells · φ_base(i)⌋ for i = 1 … points, where φ mirrors the digits of i at the point; exact, in integers."""
    index = np.arange(1, points + 1, dtype=np.int64)
    mirrored = np.zeros_like(index)
    scale = 1
    while scale <= points:
        mirrored = mirrored * base + index % base
        index //= base
        scale *= base
    return mirrored * cells // scale


def _sorted_by_bits(height: int, width: int, coarse_first: bool) -> Tensor:
    """Sorts cells by their interleaved row and column bits, from the highest bit, or from the lowest (coarse first)."""
    row = torch.arange(height).repeat_interleave(width)  # (n,)
    column = torch.arange(width).repeat(height)  # (n,)
    bits = range((max(height, width) - 1).bit_length())
    code = torch.zeros_like(row)
    for bit in bits if coarse_first else reversed(bits):
        code = code * 4 + (row >> bit & 1) * 2 + (column >> bit & 1)
    return code.argsort()
