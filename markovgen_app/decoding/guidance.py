"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) on token logits, and Muse's linear ramp of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from markovgen_app.decoding.sampler import DecodingSettings, TokensToLogits
    from markovgen_app.models.text import TextStates


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Guided logits u + scale · (c − u), in float32.

    Muse (arXiv 2301.00704, section 2.7) writes (1 + t) · c − t · u, which is the same with scale = 1 + t: scale 1 is
    the conditional model alone, 0 ignores the text, above 1 the text is exaggerated (away from a negative prompt).

    Args:
        conditional: logits given the prompt, any shape and floating dtype.
        unconditional: logits given the empty or the negative prompt, same shape.
        scale: guidance scale.
    """
    return torch.lerp(unconditional.float(), conditional.float(), scale)


def guidance_at(step: int, steps: int, scale: float, ramp: bool) -> float:
    """Guidance scale at `step` (1-based) of `steps`: constant, or Muse's linear ramp of t = scale − 1 from 0 up.

    Muse ramps so that early tokens, which fix the layout, stay diverse. The ramp spans all planned steps, so an early
    exit sees the same scales as the full run it is cut from. With one step there is no ramp.
    """
    if not ramp or steps == 1:
        return scale
    return 1 + (scale - 1) * (step - 1) / (steps - 1)


def guided_logits(
    model: Callable[..., Tensor],
    text: TextStates,
    negative: TextStates | None,
    settings: DecodingSettings,
) -> TokensToLogits:
    """Wraps a model and its texts as the `tokens_to_logits` that `decode` asks for.

    Both halves go through the model in one batch [unconditional, conditional]; where the scale is 1 (always, or at
    the start of a ramp) the unconditional half is left out.

    Args:
        model: called as `model(tokens, text_states, text_mask, pooled_text)`, returns logits (B, n, V).
        text: states of the B prompts, on the model's device.
        negative: states of the B negative prompts, or of one for all rows; the empty prompt where there is none.
            None only without guidance (scale 1).
        settings: its steps, guidance scale and ramp are used.

    Raises:
        ValueError: if there is guidance but no `negative`, or their batch sizes do not fit.
    """
    rows = text.states.shape[0]
    both: TextStates | None = None
    if negative is not None:
        if negative.states.shape[0] == 1:
            negative = negative.repeat_interleave(rows)
        if negative.states.shape[0] != rows:
            raise ValueError(f"{rows} prompts need 1 or {rows} negative prompts, not {negative.states.shape[0]}")
        both = type(text).cat([negative, text])

    def tokens_to_logits(tokens: Tensor, step: int) -> Tensor:
        scale = guidance_at(step, settings.steps, settings.guidance_scale, settings.guidance_ramp)
        if scale == 1:
            return model(tokens, text.states, text.mask, text.pooled)
        if both is None:
            raise ValueError("guidance needs `negative`: pass the encoding of the empty prompt")
        logits = model(torch.cat([tokens, tokens]), both.states, both.mask, both.pooled)  # (2B, n, V)
        unconditional, conditional = logits.chunk(2)  # (B, n, V) each
        return guide(conditional, unconditional, scale)

    return tokens_to_logits
