"""Editing by words, without a mask: tokens that the new words speak against are found, and drawn anew.

What a text says of a token by itself is the pointwise mutual information of the two, log p(x_i | text) − log p(x_i),
with every token hidden (`evidence`): the words "on a beach" speak for sand and against bricks, and say nothing of a
panda's ear. Tokens that they speak against are hidden, and drawn by the one decoding loop; all others stay. DiffEdit
(arXiv 2210.11427) finds its mask by a like contrast of what a diffusion model predicts.

Muse (Chang et al., ICML 2023, arXiv 2301.00704, "mask-free editing") leaves the choice to chance (`edit`): it hides 8 %
of the tokens in each of 100 rounds, with guidance 4 and top-k 3. The tokens that stay hold the picture in place, the
draws move it towards the words a little at a time. Every round is a run of the one loop over a partly masked grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from markovgen_app.decoding.draws import hide
from markovgen_app.decoding.finalise import Inference
from markovgen_app.decoding.sampler import DecodingSettings, DecodingStep, TokensToLogits, decode
from markovgen_app.errors import UserError

ROUNDS = 100
"""Rounds at strength 1."""

_STRIDES = 3
"""Of a decimation, if neither the request nor the field says otherwise."""

STRENGTHS = {"subtle": 0.25, "medium": 0.5, "strong": 1.0}

MUSE_ROUND: Mapping[str, Any] = {
    "steps": 1,
    "guidance_scale": 4.0,
    "guidance_ramp": False,
    "temperature": 1.0,
    "top_k": 3,
}
"""Settings of the decoding within a round, as in Muse."""


@dataclass(frozen=True)
class EditSettings:
    """How far an edit by chance goes.

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


def evidence(given_text: Tensor, given_none: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much a text speaks for each token, in nats: log p(x_i | text) − log p(x_i), (B, n).

    Each is the mean over a token and those around it: things are larger than a token, and one token says little.

    Args:
        given_text, given_none: (1, n, V) logits with all tokens hidden, of the text and of the empty one.
        tokens: (B, n) long, of the pictures.
        grid: (height, width) in tokens.
    """
    gain = given_text.float().log_softmax(-1) - given_none.float().log_softmax(-1)  # (1, n, V)
    of_tokens = gain.expand(len(tokens), -1, -1).gather(2, tokens.unsqueeze(2)).squeeze(2)  # (B, n)
    planes = of_tokens.unflatten(1, grid).unsqueeze(1)  # (B, n) -> (B, 1, h, w)
    return F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False).flatten(1)  # (B, 1, h, w) -> (B, n)


def threshold_of(strength: float) -> float:
    """The evidence, in nats, below which an edit of a strength in (0, 1] draws a token anew.

    0 for a subtle edit, 1 for a medium, 3 for a strong one, which draws all tokens anew that a weaker one does.
    """
    return 4 * strength - 1


def rounds_of(strength: float) -> int:
    """Rounds of a strength in (0, 1], by chance. Such an edit is a part of every stronger one with the same seed."""
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
    """Moves pictures towards a text by chance; yields a `DecodingStep` after every round, the last with `final` set.

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
