"""Fields whose codes share what their digits share, while they are trained.

A product code (FSQ) names a token by a few digits, and codes that share digits look alike. With one free row a code, a
field learns each pair of codes from the few times that it was seen; here the row of a code is the sum of rows of its
digits, so that every token teaches all codes with the same digits. On 384 pictures and the embedded tokenizer the free
tables made held-out conditionals worse than no field at all, and the sums made them better by 0.4 nats.

The constraint is one of training only: `untied` writes the sums out, and a saved field has plain tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..loading import own_config
from ..models.mrf import MarkovRandomField

_TABLES = ("sender", "receiver")


def digit_features(levels: Sequence[int]) -> Tensor:
    """Digits of every code, one-hot and side by side, (V, sum of levels); codes in lexicographic order."""
    codes = torch.cartesian_prod(*(torch.arange(level) for level in levels))  # (V, D)
    return torch.cat([F.one_hot(codes[:, place], level) for place, level in enumerate(levels)], dim=1).float()


class DigitTable(nn.Module):
    """A table's parametrisation: what it was, plus the sum of rows of its digits, (V, d)."""

    def __init__(self, digits: Tensor, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("digits", digits, persistent=False)
        self.rows = nn.Parameter(start)  # (sum of levels, d)

    digits: Tensor

    def forward(self, table: Tensor) -> Tensor:
        return table + self.digits @ self.rows


def tie(field: MarkovRandomField, levels: Sequence[int]) -> None:
    """Let the codes of a "low-rank" or "directional" field differ by their digits' rows only, in place.

    What the tables hold stays as a constant; a sender that is still random is forgotten.

    Raises:
        ValueError: a dense field has no rows to share, or the levels are of other codes.
    """
    if field.receiver is None:
        raise ValueError("a dense field has a number for each pair of codes, and no rows to share")
    digits = digit_features(levels)
    if len(digits) != field.config.codebook_size:
        raise ValueError(f"levels {list(levels)} make {len(digits)} codes, the field has {field.config.codebook_size}")
    fresh = not field.receiver.any()
    width = field.receiver.shape[1]
    for name in _TABLES:
        table: nn.Parameter = getattr(field, name)
        rows = torch.zeros(digits.shape[1], width)
        if fresh and name == "sender":
            nn.init.zeros_(table)
            rows.normal_(std=(width * len(levels)) ** -0.5)
        table.requires_grad_(False)
        parametrize.register_parametrization(field, name, DigitTable(digits, rows))


@torch.no_grad()
def untied(field: MarkovRandomField) -> MarkovRandomField:
    """A plain field that says the same; the given one stays as it is."""
    plain = MarkovRandomField(**own_config(field))
    for name, parameter in plain.named_parameters():
        parameter.copy_(getattr(field, name))
    return plain.to(field.spatial.device)
