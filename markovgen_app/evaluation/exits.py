"""Many ways to leave one decoding loop, for the price of one: what evaluation and sweep save most of their time by.

Methods that differ only in when and how they leave the loop share every step before. So the loop is run to its end
once; at each exit step its state and its generator are kept, and every way out finalises that same state with that same
noise. The tokens are those that each method gives when it is run by itself (tested). The loop is that of any stage;
above the base, all ways out of it share the coarse tokens, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decoding.guidance import guided_logits
from ..decoding.sampler import decode, draw_tokens, gumbel_noise, refined_logits
from ..models.mrf import MarkovRandomField
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest

EARLY_EXIT = "early-exit"


@dataclass(frozen=True)
class Variant:
    """One way to leave the loop. `field` is "early-exit" for none; the other knobs are those of a request."""

    exit_step: int
    field: str = EARLY_EXIT
    iterations: int | None = None
    clamp: bool = True
    finalise: str = "sample"


@torch.no_grad()
def finalised(
    pipeline: MarkovGenPipeline,
    fields: Mapping[str, MarkovRandomField],
    variants: Sequence[Variant],
    request: GenerateRequest,
    number: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Tokens (n,) of the full run of a request, and of every variant of its exit, all by the same noise.

    Args:
        number: the stage whose tokens they are; those below run once, as the request says.

    Raises:
        UserError: the checkpoint has no such stage.
    """
    stage, request = pipeline.stage(number), pipeline.settled(request)
    settings = stage.settings(request)
    texts = pipeline.text_encoder.encode([request.prompt, request.negative_prompt]).to(pipeline.device)
    model = stage.model(1, pipeline.device, pipeline.coarse_tokens(stage, request))
    logits_at = guided_logits(model, texts[[0]], texts[[1]], settings)
    (generator,) = stage.generators(request.seeds)
    mask_id = stage.mask_token_id
    by_step: dict[int, list[Variant]] = {}
    for variant in variants:
        by_step.setdefault(variant.exit_step, []).append(variant)
    tokens_of: dict[Variant, Tensor] = {}

    def watched(tokens: Tensor, step: int) -> Tensor:
        logits = logits_at(tokens, step).float()
        mask = tokens == mask_id  # (1, n)
        state = generator.get_state()
        for variant in by_step.get(step, ()):
            noise = None
            if variant.finalise != "argmax" and settings.temperature > 0:
                same = torch.Generator()
                same.set_state(state)
                candidates = settings.top_k if variant.finalise == "sample" else None  # as many as `decode` draws for
                width = min(candidates or logits.shape[2], logits.shape[2])
                drawn = gumbel_noise([int(mask.sum())], width, [same])  # (M, width)
                noise = (drawn * settings.temperature).to(logits.device)
            answer = logits
            if variant.field != EARLY_EXIT:
                refine = fields[variant.field].refine(variant.iterations, clamp=variant.clamp)
                answer = refined_logits(logits, tokens, mask, refine, noise if variant.finalise == "perturb" else None)
            taken = tokens.masked_scatter(mask, draw_tokens(answer, mask, noise, settings.top_k)[0])
            tokens_of[variant] = taken[0].cpu()
        return logits

    start = torch.full((1, stage.positions), mask_id, device=pipeline.device)
    *_, last = decode(watched, start, mask_id, settings, [generator], grid=stage.grid)
    return last.tokens[0].cpu(), [tokens_of[variant] for variant in variants]
