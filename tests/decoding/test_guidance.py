"""Guidance: the sign (an error there looks like a model that ignores its text), the ramp, and the batched closure."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from markovgen_app.decoding.guidance import guidance_at, guide, guided_logits
from markovgen_app.decoding.sampler import DecodingSettings
from markovgen_app.models.text import TextStates

scales = st.floats(0, 20, allow_nan=False)


@given(seed=st.integers(0, 1000), scale=st.floats(1.01, 10))
def test_guidance_favours_what_the_text_favours(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    conditional, unconditional = torch.randn(2, 3, 8, generator=generator)
    favoured = (conditional - unconditional).argmax(-1, keepdim=True)
    plain = conditional.softmax(-1).gather(1, favoured)
    guided = guide(conditional, unconditional, scale).softmax(-1).gather(1, favoured)
    assert (guided > plain).all()


@given(seed=st.integers(0, 1000), scale=scales)
def test_guidance_is_the_formula_of_muse(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    conditional, unconditional = torch.randn(2, 4, 8, generator=generator)
    muse = (1 + (scale - 1)) * conditional - (scale - 1) * unconditional
    torch.testing.assert_close(guide(conditional, unconditional, scale), muse, rtol=1e-4, atol=1e-4)


def test_scale_one_and_zero_are_the_two_halves() -> None:
    conditional, unconditional = torch.randn(2, 4, 8)
    assert guide(conditional, unconditional, 1).equal(conditional)
    assert guide(conditional, unconditional, 0).equal(unconditional)


def test_half_precision_logits_are_guided_in_float32() -> None:
    conditional, unconditional = torch.randn(2, 4, 8).half()
    guided = guide(conditional, unconditional, 7.3)
    assert guided.dtype == torch.float32
    assert guided.equal(guide(conditional.float(), unconditional.float(), 7.3))


@given(steps=st.integers(2, 64), scale=scales)
def test_ramp_runs_linearly_from_no_guidance_to_the_scale(steps: int, scale: float) -> None:
    ramp = [guidance_at(step, steps, scale, ramp=True) for step in range(1, steps + 1)]
    torch.testing.assert_close(torch.tensor(ramp), torch.linspace(1, scale, steps), rtol=1e-5, atol=1e-5)
    assert {guidance_at(step, steps, scale, ramp=False) for step in range(1, steps + 1)} == {scale}
    assert guidance_at(1, 1, scale, ramp=True) == scale


def texts(*numbers: float) -> TextStates:
    """Prompts that are one number each, as text states of width 1."""
    pooled = torch.tensor(numbers).unsqueeze(1)  # (B, 1)
    return TextStates(pooled.unsqueeze(1), torch.ones(len(numbers), 1, dtype=torch.bool), pooled)


class NumberModel:
    """Wants token k as much as its prompt's number says k is near; remembers the batch sizes it was called with."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, tokens: Tensor, states: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        assert len(tokens) == len(states) == len(mask) == len(pooled)
        self.batches.append(len(tokens))
        logits = -(torch.arange(8) - pooled).abs()  # (B, V)
        return logits.unsqueeze(1).expand(-1, tokens.shape[1], -1)  # (B, n, V)


def test_closure_puts_prompt_and_negative_prompt_in_their_places() -> None:
    model = NumberModel()
    settings = DecodingSettings(steps=4, guidance_scale=3, guidance_ramp=False)
    closure = guided_logits(model, texts(6, 5), texts(1), settings)
    logits = closure(torch.zeros(2, 3, dtype=torch.long), 1)
    assert logits.shape == (2, 3, 8)
    assert model.batches == [4]
    assert (logits[0, :, 6] > logits[0, :, 1] + 10).all(), "guided towards the prompt and away from the negative prompt"
    alone = guided_logits(model, texts(5), texts(1), settings)(torch.zeros(1, 3, dtype=torch.long), 1)
    assert logits[1:].equal(alone)


def test_unconditional_half_is_left_out_where_the_scale_is_one() -> None:
    model = NumberModel()
    tokens = torch.zeros(2, 3, dtype=torch.long)
    guided_logits(model, texts(6, 5), None, DecodingSettings(guidance_scale=1))(tokens, 3)
    ramped = guided_logits(model, texts(6, 5), texts(0, 0), DecodingSettings(guidance_scale=4, guidance_ramp=True))
    ramped(tokens, 1)
    ramped(tokens, 2)
    assert model.batches == [2, 2, 4]


def test_guidance_without_a_negative_text_or_with_too_few_is_refused() -> None:
    tokens = torch.zeros(3, 3, dtype=torch.long)
    settings = DecodingSettings(guidance_scale=3, guidance_ramp=False)
    with pytest.raises(ValueError, match="negative"):
        guided_logits(NumberModel(), texts(1, 2, 3), None, settings)(tokens, 1)
    with pytest.raises(ValueError, match="negative"):
        guided_logits(NumberModel(), texts(1, 2, 3), texts(0, 0), settings)
