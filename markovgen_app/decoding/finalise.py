"""How the tokens left at the exit are taken, with the random field's help.

`sampler.decode` asks here at its exit step. An `Inference` is what it knows of a field, and `MeanField` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from markovgen_app.decoding.draws import draw

if TYPE_CHECKING:
    from markovgen_app.models.mrf import MarkovRandomField

FINALISE = ("sample", "argmax", "perturb", "decimate")


class Inference(Protocol):
    """What the decoding loop asks of a random field."""

    def refine(self, logits: Tensor, tokens: Tensor, undecided: Tensor) -> Tensor:
        """Logits (B, n, V) after inference, of logits (B, n, V) float32, tokens (B, n), undecided ones (B, n) bool."""

    def expect(self, logits: Tensor, undecided: Tensor) -> Tensor:
        """What undecided tokens would send before any is fixed, (B, n, d), of logits (B, n, V) float32, (B, n) bool."""

    def tell(self, expected: Tensor, tokens: Tensor, fixed: Tensor, undecided: Tensor) -> Tensor:
        """Messages (M, V), to be added to the logits of the M undecided tokens, of what was fixed in a round.

        Args:
            expected: (B, n, d), see `expect`.
            tokens: (B, n) long, labels where `fixed`.
            fixed: (B, n) bool, what the round fixed: every token is told of once.
            undecided: (B, n) bool, what is left.
        """


@dataclass(frozen=True, eq=False)
class MeanField:
    """Mean field in a random field, by one set of options.

    With `clamp`, committed tokens send their labels. Without, they send marginals and are inferred like all others,
    which is Algorithm 1 of the paper to the letter. Either way their own logits come back unchanged. A decimation
    tells labels in any case, by the one undamped update that it is made of.

    Attributes:
        field: the random field.
        iterations, damping, top_k: see `MarkovRandomField.forward`.
        clamp: see above.
        alone: infer picture by picture, so that a picture does not depend on its batch to the last bit.

    Raises:
        ValueError: if an option is out of its range.
    """

    field: MarkovRandomField
    iterations: int | None = None
    damping: float | None = None
    top_k: int | None = None
    clamp: bool = True
    alone: bool = False

    def __post_init__(self) -> None:
        self.field.options(self.iterations, self.damping, self.top_k)

    def refine(self, logits: Tensor, tokens: Tensor, undecided: Tensor) -> Tensor:
        """See `Inference`."""

        def refined(logits: Tensor, tokens: Tensor, undecided: Tensor) -> Tensor:
            options = self.iterations, self.damping, self.top_k
            if self.clamp:
                return self.field(logits, tokens, ~undecided, *options)
            return torch.where(undecided.unsqueeze(-1), self.field(logits, None, None, *options), logits)

        return self._in_parts(refined, logits, tokens, undecided)

    def expect(self, logits: Tensor, undecided: Tensor) -> Tensor:
        """See `Inference`."""
        return self._in_parts(partial(self.field.expected, top_k=self.top_k), logits, undecided)

    def tell(self, expected: Tensor, tokens: Tensor, fixed: Tensor, undecided: Tensor) -> Tensor:
        """See `Inference`."""
        return self._in_parts(self.field.told, expected, tokens, fixed, undecided)

    def _in_parts(self, infer: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        if not self.alone or len(batch[0]) == 1:
            return infer(*batch)
        return torch.cat([infer(*row) for row in zip(*(each.split(1) for each in batch), strict=True)])


UndecidedAfter = Callable[[int, Tensor, Tensor], Tensor]
"""(step, undecided (B, n) bool, log probabilities of their draws (M,)) -> (B, n) bool, undecided after that step."""


def refined_logits(
    unary: Tensor, tokens: Tensor, mask: Tensor, inference: Inference, perturbation: Tensor | None = None
) -> Tensor:
    """Logits of the exit step after the random field, (B, n, V) float32.

    With a `perturbation` (M, V) of the M undecided positions, the field sees perturbed logits, and the result is the
    plain logits plus the messages that this caused: drawn with the same noise, that is perturb and MAP.
    """
    if perturbation is None:
        return inference.refine(unary, tokens, mask).float()
    perturbed = unary.masked_scatter(mask.unsqueeze(-1), unary[mask] + perturbation)
    return unary + (inference.refine(perturbed, tokens, mask).float() - perturbed)


def decimate(
    unary: Tensor,
    tokens: Tensor,
    mask: Tensor,
    inference: Inference,
    first: tuple[Tensor, Tensor],
    noise: Tensor | None,
    top_k: int | None,
    rounds: Sequence[int],
    undecided_after: UndecidedAfter,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Draws the undecided tokens a few at a time, those left hearing of each.

    Decimation (guided by belief propagation: Montanari, Ricci-Tersenghi and Semerjian, arXiv 0709.1667): the most
    confident draws of a round are fixed, the field tells the others what they are, and the next round draws anew what
    is left. Of the messages m, only what fixing tells is added to the unaries, f + m − m⁰ with the messages m⁰ from
    before. So nothing changes until a token is fixed: the backbone has heard all tokens committed before the exit, and
    is believed about each of the others alone; what the field adds is how they go together.

    Args:
        unary, tokens, mask, inference: as in `refined_logits`.
        first: the draw from the unaries of all M undecided tokens, see `draw`.
        noise: of the draws, (M, V), or None: the same in every round.
        top_k: see `draw`.
        rounds: steps of the schedule, rising from the exit to the last: after each, as many are left as it says.
        undecided_after: says what stays undecided after a step.

    Returns:
        logits (B, n, V) that every undecided token was drawn from; and the draws, as `draw` returns them.
    """
    logits = unary[mask]  # (M, V)
    names, log_probability = (part.clone() for part in first)  # (M,) each
    still, left = mask, torch.arange(len(logits), device=mask.device)  # (B, n) bool, (M',) of the M
    expected: Tensor | None = None
    for step in rounds[:-1]:
        undecided = undecided_after(step, still, log_probability[left])
        if not undecided.any():
            break
        if expected is None:
            expected = inference.expect(unary, mask)
        tokens = tokens.masked_scatter(still, names[left])
        left = left[undecided[still]]
        logits.index_add_(0, left, inference.tell(expected, tokens, still & ~undecided, undecided).float())
        names[left], log_probability[left] = draw(logits[left], None if noise is None else noise[left], top_k)
        still = undecided
    return unary.masked_scatter(mask.unsqueeze(-1), logits), (names, log_probability)


def evenly(first: int, last: int, updates: int | None) -> list[int]:
    """Whole numbers from `first` to `last`, both among them, in at most `updates` even strides; None: all."""
    strides = min(updates or last - first, last - first)
    return [first + round((last - first) * stride / max(1, strides)) for stride in range(strides + 1)]
