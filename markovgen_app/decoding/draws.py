"""Draws of tokens and of places: noise from one generator a picture, so that a picture does not depend on its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_tokens(
    logits: Tensor, mask: Tensor, noise: Tensor | None = None, top_k: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draws a token for each of the M masked positions, in row-major order: `draw` of logits (B, n, V), mask (B, n)."""
    return draw(logits[mask], noise, top_k)


def draw(candidates: Tensor, noise: Tensor | None = None, top_k: int | None = None) -> tuple[Tensor, Tensor]:
    """Draws a token from each of M rows by the Gumbel-max trick.

    Args:
        candidates: logits (M, V) float32.
        noise: Gumbel noise times the temperature, (M, V), or (M, top_k) for the candidates from the likeliest down;
            None takes the likeliest.
        top_k: candidates; None: all V.

    Returns:
        tokens (M,) long, and their log probability (M,) under the softmax of the logits (not tempered, not cut).
    """
    normaliser = candidates.logsumexp(-1, keepdim=True)  # (M, 1)
    names: Tensor | None = None
    if top_k is not None and top_k < candidates.shape[1]:
        candidates, names = candidates.topk(top_k)  # (M, k) each
        if noise is not None and noise.shape[1] > top_k:
            noise = noise.gather(1, names)  # (M, V) -> (M, k)
    choice = (candidates if noise is None else noise + candidates).argmax(-1, keepdim=True)  # (M, 1)
    log_probability = (candidates.gather(1, choice) - normaliser).clamp_max_(0).squeeze(1)  # (M,)
    return (choice if names is None else names.gather(1, choice)).squeeze(1), log_probability


def gumbel_noise(rows: Sequence[int], width: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard Gumbel noise (sum of `rows`, `width`) on the CPU; `rows[i]` lines of it come from `generators[i]`.

    −log(−log u) of uniform u, which PyTorch draws seven times faster than exponential variates. u has 24 bits: the
    noise never exceeds 16.7.
    """
    noise = torch.empty(sum(rows), width)
    for lines, generator in zip(noise.split(list(rows)), generators, strict=True):
        lines.uniform_(generator=generator)
    return noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_().neg_().log_().neg_()


def hide(
    tokens: Tensor, mask_token_id: int, is_open: Tensor, share: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Tokens (B, n) with a share of the open ones, chosen at random and at least one where there is any, masked.

    Args:
        tokens, is_open: (B, n) long and bool.
        share: in (0, 1]; all are masked at 1, and nothing is drawn.
        generators: one CPU generator a row.
    """
    if share < 1:
        counts: list[int] = is_open.sum(1).tolist()
        chance = gumbel_noise(counts, 1, generators).squeeze(1).to(tokens.device)  # (open tokens,)
        is_open = lowest(chance, is_open, [max(min(1, count), round(share * count)) for count in counts])
    return tokens.masked_fill(is_open, mask_token_id)


def lowest(scores: Tensor, mask: Tensor, counts: Sequence[int]) -> Tensor:
    """Mask (B, n) of the `counts[i]` lowest-scored among the masked positions of row i; of equals, the first.

    Args:
        scores: (M,) of the masked positions, in row-major order.
        mask: (B, n) bool with M positions set.
    """
    grid_scores = torch.full(mask.shape, torch.inf, device=mask.device).masked_scatter_(mask, scores)  # (B, n)
    rank = grid_scores.argsort(dim=1, stable=True).argsort(dim=1)  # (B, n)
    return mask & (rank < torch.tensor(counts, device=mask.device).unsqueeze(1))
