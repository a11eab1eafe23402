"""Many ways to leave one decoding loop, for the price of one: what evaluation and sweep save most of their time by.

Methods that differ only in when and how they leave the loop share every step before. So the loop is run to its end
once, and the logits of its steps are kept; every way out is the same loop again, with these logits in place of the
transformer. The tokens are those that each method gives when it is run by itself (tested). The loop is that of any
stage; above the base, all ways out of it share the coarse tokens, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..decoding.guidance import guided_logits
from ..decoding.sampler import TokensToLogits, decode
from ..ladder import Stage
from ..models.mrf import MarkovRandomField
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest

EARLY_EXIT = "early-exit"


@dataclass(frozen=True)
class Variant:
    """One way to leave the loop. `field` is "early-exit" for none; the other knobs are those of a request.

    `temperature` is that of the exit.
    """

    exit_step: int
    field: str = EARLY_EXIT
    iterations: int | None = None
    clamp: bool = True
    finalise: str = "sample"
    temperature: float | None = None

    def asked_of(self, request: GenerateRequest, number: int) -> GenerateRequest:
        """The request that leaves the loop of the stage `number` like this."""
        of_stage = "super_resolution_" if number else ""
        how = {
            "method": "early-exit" if self.field == EARLY_EXIT else "markovgen",
            f"{of_stage}exit_step": self.exit_step,
            f"{of_stage}exit_temperature": self.temperature,
            "mrf_iterations": self.iterations,
            "mrf_clamp": self.clamp,
            f"{of_stage}finalise": self.finalise,
        }
        return request.model_copy(update=how)


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
    start = torch.full((1, stage.positions), stage.mask_token_id, device=pipeline.device)
    kept: list[Tensor] = []

    def watched(tokens: Tensor, step: int) -> Tensor:
        kept.append(logits_at(tokens, step))
        return kept[-1]

    def left(tokens_to_logits: TokensToLogits, way: Stage, asked: GenerateRequest) -> Tensor:
        *_, last = decode(
            tokens_to_logits, start, way.mask_token_id, way.settings(asked), way.generators(asked.seeds),
            grid=way.grid, inference=way.inference(asked, pipeline.device),
        )  # fmt: skip
        return last.tokens[0].cpu()

    whole = left(watched, stage, request)
    taken = []
    for variant in variants:
        way = replace(stage, mrf=fields.get(variant.field))
        taken.append(left(lambda _, step: kept[step - 1], way, variant.asked_of(request, number)))
    return whole, taken
