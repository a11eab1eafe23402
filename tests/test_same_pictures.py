"""A seed's tokens are those of the loop written out by hand, in this project's order of draws: they never change."""

from __future__ import annotations

import math

import torch
from builders import text_encoder, tiny_pipeline
from torch import Tensor

from markovgen_app.decoding.order import halton

STEPS, SEED, SCALE = 6, 11, 3.0


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    uniform = torch.empty(shape).uniform_(generator=generator).clamp_min(torch.finfo(torch.float32).tiny)
    return -(-uniform.log()).log()


def by_hand(pipeline: object, first: float, last_heat: float, places: Tensor | None) -> Tensor:
    """Tokens (n,) of "a panda": ramped guidance 3, cosine schedule, `places` in turn or order noise 1 falling to 0.

    The temperature goes evenly from `first` to `last_heat`.
    """
    model = pipeline.transformer  # type: ignore[attr-defined]
    text, empty = (text_encoder().encode([words, ""])[[row]] for words, row in (("a panda", 0), ("a panda", 1)))
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.full((1, 16), model.mask_token_id)
    for step in range(1, STEPS + 1):
        hidden = (tokens == model.mask_token_id).nonzero()[:, 1]  # (M,)
        conditional, free = (model(tokens, each.states, each.mask, each.pooled) for each in (text, empty))
        scale = 1 + (SCALE - 1) * (step - 1) / (STEPS - 1)
        heat = first + (last_heat - first) * (step - 1) / (STEPS - 1)
        logits = (free + scale * (conditional - free))[0, hidden]  # (M, V)
        drawn = (logits + heat * gumbel(tuple(logits.shape), generator)).argmax(-1)
        tokens[0, hidden] = drawn
        if step < STEPS:
            left = max(math.floor(16 * math.cos(math.pi / 2 * step / STEPS)), STEPS - step)
            if places is None:
                chosen = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
                scores = chosen + (1 - step / STEPS) * gumbel((len(hidden), 1), generator)[:, 0]
                last = hidden[scores.argsort()[:left]]
            else:
                last = places[-left:]
            tokens[0, last] = model.mask_token_id
    return tokens[0]


def test_the_pipeline_gives_the_tokens_of_the_loop_by_hand() -> None:
    pipeline = tiny_pipeline()
    result = pipeline("a panda", steps=STEPS, seed=SEED, guidance_scale=SCALE)
    assert result.frames[-1][0].equal(by_hand(pipeline, 0.75, 0.3, halton(4, 4)))
    confident = {"order": "confidence", "temperature": 0.5, "annealing": 0.0}
    asked = pipeline("a panda", steps=STEPS, seed=SEED, guidance_scale=SCALE, **confident)
    assert asked.frames[-1][0].equal(by_hand(pipeline, 0.5, 0.5, None))
    assert pipeline.defaults == {}
