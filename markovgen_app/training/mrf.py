"""Train the random field on half-decoded pictures, the backbone frozen.

A run is a list of stages, each an objective on one kind of states (see `states`):

    masked       the paper's stage 1: tokens of real pictures, `mask_share` of them hidden at random; the field alone,
                 its logits f = 0, infers them; cross-entropy.
    marginal     mean field from the backbone's logits at step k, committed tokens clamped; its marginals are to match
                 the targets. On own states this is the paper's stage 2: KL(target ‖ Q), where the target is the
                 backbone's final token (one-hot, so cross-entropy), or with `distributions` what it was drawn from.
    conditional  ours: pseudo-likelihood (Besag, 1975) given the backbone, − log p(x_i | x_−i, f) of every undecided
                 token. All neighbours of a token are known here, so couplings are learned that the marginal objective
                 cannot see: it only ever meets neighbours that are blurs of many tokens.
    decimated    ours: what decimation asks (see `decoding.finalise.decimate`). A random share of the undecided
                 tokens, often a small one, is fixed to the true ones, and the others are inferred from f and what
                 fixing them told: − log p(x_i | x_fixed, f). As messages count from those before, the field has
                 nothing to say about what the backbone knows already. On own states with `distributions`, what is fixed
                 are the backbone's own draws up to a later step, right or wrong, and the others are to be inferred as
                 the backbone does that has heard them: KL(backbone then ‖ f + told), its steps without its cost.

The report at every checkpoint is the cross-entropy of undecided tokens of held-out real pictures in nats: of the
backbone alone, of mean field, and of the conditionals; then of those that are left where half are fixed, at random: of
the backbone alone and of decimation. Where a stage matches what the backbone says later, also that divergence on
held-out captions, of what it said before and with the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import find_checkpoint
from ..errors import UserError
from ..loading import load_field
from ..models.mrf import MarkovRandomField
from ..models.text import TextEncoder
from ..pipeline import MarkovGenPipeline
from ..requests import Finalise, GenerateRequest
from .cards import write_card
from .coarse import CoarseTokens
from .data import PicturesConfig, open_pictures
from .digits import tie, untied
from .loop import Trainer, copy_half, read_config, without_denormals
from .masked import random_mask
from .states import Backbone, Kind, States, StateSource, check_room

_EXITS_OF_24 = (6, 8, 10, 12, 16, 18, 20)
_LATER_BATCHES = 16
_EXITS_OF_8 = (2, 3, 4, 5)  # above the base, around MarkovGen's 3 of 8


class Stage(BaseModel):
    """One objective, for a share of the run's minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Literal["masked", "marginal", "conditional", "decimated"]
    states: Kind = "real"
    share: float = Field(1.0, gt=0, description="of the run's time, relative to the other stages")
    distributions: bool = Field(False, description="own states: match distributions, not tokens; see the module's text")
    mask_share: float = Field(0.2, gt=0, le=1, description="masked: tokens to hide")

    @model_validator(mode="after")
    def _distributions_are_known(self) -> Stage:
        if self.distributions and (self.states != "own" or self.objective not in ("marginal", "decimated")):
            raise ValueError(
                "distributions are only known of own states, and matched by the objectives marginal and decimated"
            )
        return self

    @property
    def of_pairs(self) -> bool:
        """Whether it learns from pairs of states of one decoding."""
        return self.distributions and self.objective == "decimated"


class MrfConfig(PicturesConfig):
    """Settings of a random field's run."""

    model: Path = Field(Path("weights"), description="checkpoint with the backbone: a folder or a hub id")
    stage: int = Field(0, ge=0, description="of the checkpoint: 0 the base, 1 the first super-resolution stage, …")
    text_encoder: str | None = Field(None, description="folder or hub id; the checkpoint's own by default")
    start_from: Path | None = Field(None, description="weights of a field to go on from")
    parametrisation: Literal["dense", "low-rank", "directional"] = "directional"
    rank: int = Field(64, ge=1)
    neighbourhood: int = Field(7, ge=3)
    far_kernels: int = Field(0, ge=0, description="directional: low-rank kernels over the whole grid")
    far_rank: int = Field(4, ge=1, description="numbers that a token sends through each of those")
    tie_digits: bool = Field(False, description="codes share what their digits share, see `digits`; product codes only")
    iterations: int = Field(3, ge=1, description="mean-field updates, in training and as the field's own number")
    damping: float = Field(0.0, ge=0, lt=1)
    finalise: Finalise = Field(
        "sample", description="how exits are finalised with the field, if a request does not say"
    )
    exit_temperature: float | None = Field(None, ge=0, description="of the draws there; the temperature of all draws")
    exit_share: float | None = Field(
        None, gt=0, le=1, description="share of the steps after which methods leave them early by default"
    )
    learning_rate: float = Field(2e-3, gt=0, description="Adam's")
    stages: list[Stage] = Field(min_length=1)
    steps_planned: int | None = Field(None, ge=1, description="steps n to sample states from; as the model decodes")
    exit_steps: list[int] | None = Field(None, min_length=1, description="steps k to learn for; a quarter of n and up")
    guidance_scale: float | None = Field(None, ge=0, description="as the model decodes by default")
    corruption: float = Field(
        0.3, ge=0, le=1, description="real states above the base: largest share of coarse tokens to replace"
    )
    pictures: int = Field(1024, ge=64, description="training scenes to sample states of, per kind")
    held_out: int = Field(64, ge=64, description="scenes of the split tune for the report")

    @field_validator("neighbourhood")
    @classmethod
    def _has_a_centre(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"a neighbourhood has a token in its centre: take {value - 1} or {value + 1}, not {value}")
        return value

    @model_validator(mode="after")
    def _pairs_have_two_steps(self) -> MrfConfig:
        if any(stage.of_pairs for stage in self.stages) and self.exit_steps is not None and len(self.exit_steps) < 2:
            raise ValueError("exit_steps: what the backbone says later is learned from two steps or more")
        return self

    @model_validator(mode="after")
    def _far_kernels_have_near_ones(self) -> MrfConfig:
        if self.far_kernels and self.parametrisation != "directional":
            raise ValueError(f"far_kernels are of directional fields: a {self.parametrisation} one hears all tokens")
        return self


def undecided_loss(field: MarkovRandomField, states: States, logits: Tensor, stage: Stage) -> Tensor:
    """The objectives marginal and conditional: cross-entropy in nats over the undecided tokens, given f = `logits`."""
    mask = states.tokens >= field.config.codebook_size  # (S, n), the mask token
    if stage.objective == "conditional":
        return F.cross_entropy(field.conditional_logits(logits, states.targets)[mask], states.targets[mask])
    return F.cross_entropy(field(logits, states.tokens, ~mask)[mask], states.targets[mask])


def decimated(
    field: MarkovRandomField, states: States, logits: Tensor, share: float | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits (M, V) of the tokens still to be inferred in a round of decimation, and where they are, (S, n) bool.

    Args:
        share: of the undecided tokens to fix to the targets, at random; None: for each sample another one in [0, 1), as
            often as steps of the cosine schedule leave it, which fixes few in most of them.
        generator: on the CPU.
    """
    mask = states.tokens >= field.config.codebook_size  # (S, n)
    passed = torch.rand(len(mask), 1, generator=generator)  # share of the steps
    shares = 1 - torch.cos(passed * math.pi / 2) if share is None else torch.tensor(share)
    still = mask & (torch.rand(mask.shape, generator=generator) >= shares).to(mask.device)
    still = still if still.any() else mask
    told = field.told(field.expected(logits, mask), states.targets, mask & ~still, still)
    return logits[still] + told, still


def distribution_loss(field: MarkovRandomField, states: States, logits: Tensor, final_logits: Tensor) -> Tensor:
    """KL(target ‖ Q) in nats over the undecided tokens, the targets being distributions; the paper's stage 2."""
    mask = states.tokens >= field.config.codebook_size  # (S, n)
    refined = field(logits, states.tokens, ~mask)[mask].log_softmax(-1)  # (M, V)
    return F.kl_div(refined, final_logits[mask].log_softmax(-1), reduction="batchmean", log_target=True)


def later_loss(field: MarkovRandomField, before: States, after: States, logits: Tensor, later_logits: Tensor) -> Tensor:
    """KL in nats of what the backbone says of tokens undecided in pairs of states: then, from before with the field.

    The field tells what it was that was fixed in between; with one that tells nothing it is how much that changed.
    """
    mask, still = (states.tokens >= field.config.codebook_size for states in (before, after))  # (S, n) each
    told = field.told(field.expected(logits, mask), after.tokens, mask & ~still, still)
    inferred, said = ((logits[still] + told).log_softmax(-1), later_logits[still].log_softmax(-1))  # (M, V) each
    return F.kl_div(inferred, said, reduction="batchmean", log_target=True)


def masked_loss(field: MarkovRandomField, tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The paper's stage 1: cross-entropy in nats of a random `share` of the tokens (B, n), from all the others."""
    mask = random_mask(torch.full((len(tokens),), share), tokens.shape[1], generator).to(tokens.device)
    flat = torch.zeros(*tokens.shape, field.config.codebook_size, device=tokens.device)  # (B, n, V)
    return F.cross_entropy(field(flat, tokens, ~mask)[mask], tokens[mask])


@torch.no_grad()
def held_out_report(field: MarkovRandomField, backbone: Backbone, states: States) -> dict[str, float]:
    """Nats per undecided token of real pictures, see the module's text."""
    generator = torch.Generator().manual_seed(0)
    sums, counts = torch.zeros(5), torch.zeros(5)
    for start in range(0, len(states), 8):
        part = states[slice(start, start + 8)].to(backbone.device)
        mask = part.tokens >= field.config.codebook_size
        logits = backbone.transformer.logits(part.hidden)
        refined, conditional = field(logits, part.tokens, ~mask), field.conditional_logits(logits, part.targets)
        halfway, still = decimated(field, part, logits, 0.5, generator)
        answers = [logits[mask], refined[mask], conditional[mask], logits[still], halfway]  # (M, V) each
        for number, (answer, place) in enumerate(zip(answers, [mask, mask, mask, still, still], strict=True)):
            sums[number] += float(F.cross_entropy(answer, part.targets[place], reduction="sum"))
            counts[number] += int(place.sum())
    names = ("plain", "mean_field", "conditional", "plain_halfway", "decimated_halfway")
    return dict(zip(names, (sums / counts).tolist(), strict=True))


@torch.no_grad()
def later_report(field: MarkovRandomField, backbone: Backbone, source: StateSource) -> dict[str, float]:
    """Nats, see `later_loss`, of pairs of states that were not trained on: as it was before, and with the field."""
    sums = torch.zeros(2)
    for number in range(_LATER_BATCHES):
        before, after = source.pairs(8, number, 0)
        logits, later_logits = (backbone.transformer.logits(states.hidden) for states in (before, after))
        told = later_loss(field, before, after, logits, later_logits)
        still = after.tokens >= field.config.codebook_size
        plain = F.kl_div(
            logits[still].log_softmax(-1), later_logits[still].log_softmax(-1), reduction="batchmean", log_target=True
        )
        sums += torch.tensor([float(plain), float(told)])
    return dict(zip(("plain_later", "decimated_later"), (sums / _LATER_BATCHES).tolist(), strict=True))


def load_backbone(config: MrfConfig) -> Backbone:
    """The frozen models of a stage of the configuration's checkpoint.

    A stage above the base meets coarse tokens as at run time: of the method markovgen where the base has a field.

    Raises:
        UserError: the checkpoint is missing or damaged, or has no such stage, or an exit step is beyond the steps.
    """
    text_encoder = None if config.text_encoder is None else TextEncoder.from_pretrained(config.text_encoder)
    pipeline = MarkovGenPipeline.from_pretrained(find_checkpoint(config.model), text_encoder=text_encoder)
    stage = pipeline.stage(config.stage)
    of_stage = "super_resolution_" if stage.number else ""
    given: dict[str, Any] = {
        f"{of_stage}steps": config.steps_planned,
        f"{of_stage}guidance_scale": config.guidance_scale,
    }
    request = pipeline.settled(
        GenerateRequest(prompt="-", **{name: value for name, value in given.items() if value is not None})
    )
    settings = replace(stage.settings(request), finalise="sample", exit_temperature=None, mrf_iterations=None)
    usual, of = (_EXITS_OF_8, 8) if stage.number else (_EXITS_OF_24, 24)
    exits = tuple(sorted(set(config.exit_steps or (max(1, step * settings.steps // of) for step in usual))))
    if not 1 <= exits[0] <= exits[-1] <= settings.steps:
        raise UserError(f"Exit steps must be between 1 and the {settings.steps} steps, not {list(exits)}.")
    coarse = None
    if stage.number:
        below = request.model_copy(update={"method": "markovgen" if pipeline.mrf is not None else "full"})
        coarse = CoarseTokens(pipeline, stage, below, config.corruption)
    return Backbone(stage.transformer, pipeline.tokenizer, pipeline.text_encoder, settings, exits, coarse)


def copy_weights(source: MarkovRandomField, target: MarkovRandomField) -> None:
    """Fill a field with another one's weights; UserError where they differ in shape."""
    shapes = [{name: tuple(value.shape) for name, value in field.state_dict().items()} for field in (source, target)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"The field to start from is {source.config.parametrisation} with {shapes[0]}, the configuration asks for"
            f" {target.config.parametrisation} with {shapes[1]}: make them agree."
        )
    target.load_state_dict(source.state_dict())


def tie_to_digits(field: MarkovRandomField, backbone: Backbone) -> None:
    """Tie a field's codes by the tokenizer's digits; UserError where it has none, or the field is dense."""
    levels = getattr(backbone.tokenizer.config, "levels", None)
    if not levels or field.receiver is None:
        reason = "this tokenizer's codes have no digits" if not levels else "a dense field has no rows to share"
        raise UserError(f"tie_digits: {reason}, leave it out of the configuration.")
    tie(field, levels)


@without_denormals
def train(config_path: Path, resume: bool = False, model: str | None = None, data: str | None = None) -> None:
    """Train by the configuration file; the averaged weights go to runs/NAME/weights at every checkpoint.

    Under `accelerate launch` every process takes its share of the states and of each batch's samples.

    Args:
        model, data: in place of the file's.

    Raises:
        UserError: the configuration, the checkpoint, the pictures or the field to go on from is wrong.
    """
    config = read_config(config_path, MrfConfig, model=model, data=data)
    torch.manual_seed(config.seed)
    backbone = load_backbone(config)
    field = MarkovRandomField(
        config.parametrisation,
        backbone.transformer.config.codebook_size,
        backbone.transformer.grid,
        config.rank,
        config.neighbourhood,
        config.iterations,
        config.damping,
        config.finalise,
        config.exit_temperature,
        config.exit_share,
        config.far_kernels,
        config.far_rank,
    )
    if config.start_from is not None:
        copy_weights(load_field(config.start_from), field)
    if config.tie_digits:
        tie_to_digits(field, backbone)
    learned = [parameter for parameter in field.parameters() if parameter.requires_grad]
    trainer = Trainer(config, field, [torch.optim.Adam(learned, config.learning_rate, betas=(0.9, 0.99))])
    if resume:
        trainer.resume()
    backbone.to(trainer.device)
    folder = config.runs / "states"

    def source(split: Literal["train", "tune"], kind: Kind, pictures: int, distributions: bool = False) -> StateSource:
        side = backbone.transformer.grid[0] * backbone.tokenizer.factor
        scenes = open_pictures(config, side, split)
        return StateSource(backbone, scenes, kind, pictures, folder, distributions=distributions)

    kinds = {stage: (stage.states, stage.distributions and not stage.of_pairs) for stage in config.stages}
    sources = {kind: source("train", kind[0], config.pictures, kind[1]) for kind in kinds.values()}
    report_source = source("tune", "real", config.held_out)
    pairs_source = source("tune", "own", config.held_out) if any(stage.of_pairs for stage in config.stages) else None
    everything = (*sources.values(), report_source, *([pairs_source] if pairs_source else []))
    check_room(everything, tell=trainer.accelerator.is_main_process)
    for each in everything:
        each.prepare(trainer.accelerator.process_index, trainer.processes)
    trainer.accelerator.wait_for_everyone()
    held_out = States.cat([report_source.shard(number) for number in range(report_source.shards)])

    def batches() -> Iterator[tuple[Stage, States, States | None]]:
        while True:
            stage = stage_at(config.stages, trainer.minutes / config.minutes)
            states, which = sources[kinds[stage]], (config.batch_size, trainer.stream, config.seed)
            yield (stage, *(states.pairs(*which) if stage.of_pairs else (states.batch(*which), None)))

    def loss(batch: tuple[Stage, States, States | None], number: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        stage, states, later = batch
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        if stage.objective == "masked":
            value = masked_loss(field, states.targets, stage.mask_share, generator)
        else:
            with torch.no_grad():
                logits = backbone.transformer.logits(states.hidden)
            if later is not None:
                with torch.no_grad():
                    later_logits = backbone.transformer.logits(later.hidden)
                value = later_loss(field, states, later, logits, later_logits)
            elif stage.distributions:
                assert states.target_hidden is not None
                with torch.no_grad():
                    final_logits = backbone.transformer.logits(states.target_hidden)
                value = distribution_loss(field, states, logits, final_logits)
            elif stage.objective == "decimated":
                inferred, still = decimated(field, states, logits, None, generator)
                value = F.cross_entropy(inferred, states.targets[still])
            else:
                value = undecided_loss(field, states, logits, stage)
        return value, {stage.objective: value.detach()}

    def on_checkpoint() -> None:
        average: MarkovRandomField = trainer.average  # type: ignore[assignment]
        average = untied(average) if config.tie_digits else average
        report = held_out_report(average, backbone, held_out)
        if pairs_source is not None:
            report |= later_report(average, backbone, pairs_source)
        trainer.log({"step": trainer.step, **report})
        copy_half(average, config.folder / "weights")
        write_card(config.folder / "weights", average, backbone.transformer, config.model_dump(mode="json"), report)

    trainer.fit(batches(), loss, on_checkpoint)


def stage_at(stages: list[Stage], progress: float) -> Stage:
    """The stage that a run is in after `progress` (0 … 1) of its time."""
    total, passed = sum(stage.share for stage in stages), 0.0
    for stage in stages:
        passed += stage.share / total
        if progress < passed:
            return stage
    return stages[-1]
