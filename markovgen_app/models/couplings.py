"""How what tokens send spreads over the grid: the spatial part of a random field's pairwise weights, and its labels.

No token ever hears itself.

    B pictures · n = h · w tokens, row-major · V codebook size · d numbers that a token sends · H kernels
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def likeliest(logits: Tensor, top_k: int | None) -> tuple[Tensor, Tensor | None]:
    """Logits (M, V) as they are, or the k highest and their labels (M, k)."""
    return (logits, None) if top_k is None or top_k >= logits.shape[1] else logits.topk(top_k)


def squared_distances(grid: Sequence[int]) -> Tensor:
    """Squared distances of a grid's tokens, (n, n), in tokens."""
    places = torch.cartesian_prod(*(torch.arange(float(side)) for side in grid))  # (n, 2)
    return torch.cdist(places, places).square()


def random_offsets(rank: int, side: int) -> Tensor:
    """A random matrix for every offset within a square of that side, (rank out, side, side, rank in)."""
    return torch.randn(rank, side, side, rank) * (rank * (side**2 - 1)) ** -0.5


def gaussian(grid: Sequence[int]) -> Tensor:
    """Weights of the paper's Gaussian of one token's width between all tokens, (n, n)."""
    return torch.exp(-squared_distances(grid) / 2) / (2 * torch.pi)


def wider_and_wider(grid: Sequence[int], count: int) -> Tensor:
    """Gaussians of widths 2, 4, 8, … tokens, the weights that each token hears adding up to 1, (count, n, n)."""
    squared = squared_distances(grid)
    return torch.stack([(-squared / 2 ** (2 * number + 3)).softmax(-1) for number in range(count)])


def heard_near(sent: Tensor, offsets: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum of a matrix for each offset times what is sent from there.

    Args:
        sent: (B, n, d in).
        offsets: (d out, K, K, d in), K odd; the middle is left out.

    Returns:
        (B, n, d out).
    """
    middle = offsets.shape[1] // 2
    kernel = offsets.permute(0, 3, 1, 2).clone()  # (d out, d in, K, K), channels last
    kernel[:, :, middle, middle] = 0
    maps = sent.unflatten(1, grid).permute(0, 3, 1, 2)  # (B, n, d) -> (B, d, h, w), channels last
    return F.conv2d(maps, kernel, padding=middle).permute(0, 2, 3, 1).flatten(1, 2)  # -> (B, n, d)


def heard_far(sent: Tensor, kernels: Tensor) -> Tensor:
    """Sums over all tokens, each kernel (n, n) for its share of the numbers sent.

    Args:
        sent: (B, n, d), d a multiple of H.
        kernels: (H, n, n), to token i from token j; the diagonals are left out.

    Returns:
        (B, n, d).
    """
    to_others = kernels.clone()
    to_others.diagonal(dim1=1, dim2=2).zero_()
    shares = sent.unflatten(2, (len(kernels), -1)).transpose(1, 2)  # (B, n, d) -> (B, H, n, d/H)
    return (to_others @ shares).transpose(1, 2).flatten(2)  # (B, H, n, d/H) -> (B, n, d)
