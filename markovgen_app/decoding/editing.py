"""Editing by words, without a mask: hide a few tokens at random, let the model fill them in from new words, and repeat.

Muse (Chang et al., ICML 2023, arXiv 2301.00704, "mask-free editing") hides 8 % of the tokens in each of 100 rounds,
with guidance 4 and top-k 3: the tokens that stay hold the picture in place, the draws move it towards the words a
little at a time. Every round is a run of the one decoding loop over a partly masked grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from markovgen_app.decoding.draws import hide
from markovgen_app.decoding.finalise import Inference
from markovgen_app.decoding.sampler import DecodingSettings, DecodingStep, TokensToLogits, decode
from markovgen_app.errors import UserError

ROUNDS = 100
"""Rounds at strength 1."""

_STRIDES = 3
"""Of a decimation, if neither the request nor the field says otherwise."""

STRENGTHS = {"subtle": 0.25, "medium": 0.5, "strong": 1.0}


@dataclass(frozen=True)
class EditSettings:
    """How far an edit goes.

    Attributes:
        rounds: of hiding and filling in.
        share: of the tokens that may change, hidden in each round.

    Raises:
        UserError: if a value is out of its range.
    """

    rounds: int = ROUNDS
    share: float = 0.08

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"Rounds must be 1 or more, not {self.rounds}.")
        if not 0 < self.share <= 1:
            raise UserError(f"The share of tokens hidden in a round must be above 0 and at most 1, not {self.share}.")


def rounds_of(strength: float) -> int:
    """Rounds of a strength in (0, 1]. An edit is a part of every stronger one with the same seed."""
    return max(1, round(strength * ROUNDS))


def settings_of_rounds(settings: DecodingSettings, *, inferred: bool) -> tuple[DecodingSettings, DecodingSettings]:
    """Settings of all rounds but the last, and of the last, by those of the request.

    All rounds draw by the same temperature, whatever is asked of exits. Where a random field infers what the last round
    hides, the rounds before take all of their steps; after those of the last, a decimation has as many strides as it
    takes updates.
    """
    plain = replace(settings, finalise="sample", exit_temperature=None)
    if not inferred:
        return plain, plain
    strides = (settings.mrf_iterations or _STRIDES) if settings.finalise == "decimate" else 0
    last = replace(settings, steps=settings.steps + strides, exit_step=settings.steps, exit_temperature=None)
    return replace(plain, exit_step=None), last


def edit(
    tokens_to_logits: TokensToLogits,
    tokens: Tensor,
    mask_token_id: int,
    settings: DecodingSettings,
    generators: Sequence[torch.Generator],
    *,
    grid: tuple[int, int],
    edit_settings: EditSettings,
    editable: Tensor | None = None,
    inference: Inference | None = None,
    last: DecodingSettings | None = None,
) -> Iterator[DecodingStep]:
    """Moves pictures towards a text; yields a `DecodingStep` after every round, the last with `final` set.

    Rows draw from their own generators, and only for themselves: one seed gives one picture in any batch, and an edit
    of few rounds is the start of one of many. The steps count rounds. A step's `mask` is where its round drew, although
    every token is decided again; `confidence` is that of each token's last draw, 1 where no round has drawn.

    Args:
        tokens_to_logits, mask_token_id, generators, grid: as in `decode`; steps are those within a round.
        tokens: (B, n) long, all known.
        settings: of the decoding within a round, most often of one step.
        edit_settings: see `EditSettings`.
        editable: (B, n) bool, tokens that may change; all if not given.
        inference: replaces the logits of the last round, see `decode`.
        last: settings of the decoding within the last round, if it has its own (see `settings_of_rounds`).

    Raises:
        ValueError: as in `decode`, or if a token is not known.
    """
    if (tokens == mask_token_id).any():
        raise ValueError("an edit starts from a whole picture: decode the masked tokens first")
    if editable is None:
        editable = torch.ones_like(tokens, dtype=torch.bool)
    confidence = torch.ones(tokens.shape, device=tokens.device)
    for index in range(1, edit_settings.rounds + 1):
        final = index == edit_settings.rounds
        masked = hide(tokens, mask_token_id, editable, edit_settings.share, generators)
        *_, step = decode(
            tokens_to_logits,
            masked,
            mask_token_id,
            last if final and last else settings,
            generators,
            grid=grid,
            inference=inference if final else None,
        )
        tokens, again = step.tokens, masked == mask_token_id
        confidence = torch.where(again, step.confidence, confidence)
        yield replace(step, index=index, steps=edit_settings.rounds, mask=again, confidence=confidence, final=final)
