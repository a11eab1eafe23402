"""The loop, guidance and the real transformer together (random weights)."""

import dataclasses

import torch

from markovgen_app.decoding.guidance import guided_logits
from markovgen_app.decoding.sampler import METHODS, DecodingSettings, DecodingStep, decode, method_settings
from markovgen_app.models.text import TextStates
from markovgen_app.models.transformer import MuseTransformer


def random_texts(lengths: list[int], seed: int = 0) -> TextStates:
    """Random states of one prompt for each length, padded as a batch."""
    prompts = []
    for index, length in enumerate(lengths):
        states = torch.randn(1, length, 384, generator=torch.Generator().manual_seed(seed + index))
        prompts.append(TextStates(states, torch.ones(1, length, dtype=torch.bool), states.mean(1)))
    return TextStates.cat(prompts)


def run(
    model: MuseTransformer, text: TextStates, settings: DecodingSettings, seeds: list[int], tokens: torch.Tensor
) -> list[DecodingStep]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    closure = guided_logits(model, text, random_texts([2], seed=99), settings)
    return list(decode(closure, tokens, model.mask_token_id, settings, generators, grid=model.grid))


def all_masked(model: MuseTransformer, rows: int) -> torch.Tensor:
    return torch.full((rows, model.grid[0] * model.grid[1]), model.mask_token_id)


def test_every_method_fills_the_grid(tiny_transformer: MuseTransformer) -> None:
    for method in METHODS:
        settings = method_settings(method, 6, 4)
        steps = run(tiny_transformer, random_texts([3, 5]), settings, [1, 2], all_masked(tiny_transformer, 2))
        assert len(steps) == (6 if method == "full" else 4)
        assert steps[-1].final
        assert (steps[-1].tokens < tiny_transformer.mask_token_id).all()


def test_one_seed_gives_one_picture_in_any_batch(tiny_transformer: MuseTransformer) -> None:
    """Also where the other prompts are longer and the rows start with different numbers of unknown tokens."""
    text, settings = random_texts([3, 9, 5]), DecodingSettings(steps=6)
    tokens = all_masked(tiny_transformer, 3)
    tokens[1, :7] = 1
    together = run(tiny_transformer, text, settings, [5, 6, 7], tokens)[-1].tokens
    for row, length in enumerate([3, 9, 5]):
        alone_text = random_texts([length], seed=row)
        alone = run(tiny_transformer, alone_text, settings, [5 + row], tokens[row : row + 1])[-1].tokens
        assert alone[0].equal(together[row])


def test_guidance_moves_the_logits_of_a_real_model_towards_its_prompt(tiny_transformer: MuseTransformer) -> None:
    text, tokens = random_texts([4]), all_masked(tiny_transformer, 1)
    weak, none, strong = (
        run(tiny_transformer, text, DecodingSettings(steps=1, guidance_scale=scale), [0], tokens)[0].logits
        for scale in (0.0, 1.0, 4.0)
    )
    torch.testing.assert_close(strong - none, 3 * (none - weak), rtol=1e-3, atol=1e-3)
    plain = tiny_transformer(tokens, text.states, text.mask, text.pooled)
    torch.testing.assert_close(none, plain)


def test_settings_that_change_nothing_change_nothing(tiny_transformer: MuseTransformer) -> None:
    settings = DecodingSettings(steps=5)
    text, tokens = random_texts([3]), all_masked(tiny_transformer, 1)
    one = run(tiny_transformer, text, settings, [3], tokens)[-1].tokens
    last_step = run(tiny_transformer, text, dataclasses.replace(settings, exit_step=5), [3], tokens)[-1].tokens
    assert one.equal(last_step)
