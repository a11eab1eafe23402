"""What can be asked for: one typed request a job, with defaults, bounds and descriptions, shared by app, CLI and API.

Requests about a picture that is there are in `picture_requests`. Nothing heavy is imported here: the command line reads
its help texts from these fields.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .errors import UserError
from .validation import validated

if TYPE_CHECKING:
    from typing_extensions import Self

Method = Literal["full", "early-exit", "markovgen", "rescheduled", "halton"]
Finalise = Literal["sample", "argmax", "perturb", "decimate"]
Order = Literal["confidence", "halton", "row_major", "spiral_in", "spiral_out", "z_curve", "subsample", "alternate"]
Schedule = Literal["cosine", "arccos", "linear", "square", "cubic"]

MAX_PROMPT = 1000
MAX_SEED = 2**32 - 1
MAX_COUNT = 64


class DecodingRequest(BaseModel):
    """What every request says to the decoding loop.

    Build one from outside input with `validated(…)`, which says what is wrong in one line.
    """

    task: ClassVar[str]

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt: str = Field(max_length=MAX_PROMPT, description="what the picture shows")
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT, description="what the picture keeps away from")
    method: Method = Field(default="full", description="how the tokens are decoded")
    steps: int = Field(default=24, ge=1, le=256, description="planned decoding steps n")
    exit_step: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="stop after this step k; the random field's own, or three quarters of the steps, if not given",
    )
    guidance_scale: float = Field(default=2.0, ge=0, le=30, description="how strongly the text pulls; 1 is no guidance")
    guidance_ramp: bool = Field(default=True, description="ramp the guidance up over the steps, as Muse does")
    temperature: float = Field(default=0.75, ge=0, le=10, description="of the token draws; 0 takes the likeliest token")
    annealing: float = Field(
        default=0.6, ge=0, le=1, description="share of the temperature that is gone by the last step, evenly"
    )
    exit_temperature: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="of the draws at the exit step; if not given the temperature that is asked for, else the random"
        " field's own",
    )
    choice_temperature: float = Field(
        default=1.0, ge=0, le=100, description="noise on which tokens are kept first, if the order is by confidence"
    )
    top_k: int | None = Field(default=None, ge=1, description="draw among the k likeliest tokens only")
    order: Order = Field(default="halton", description="which tokens are decided first")
    schedule: Schedule = Field(default="cosine", description="how many tokens each step decides")
    finalise: Finalise = Field(default="sample", description="how the tokens left at the exit step are taken")
    mrf_iterations: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="mean-field iterations, or how often a decimation asks the random field; its own number if not"
        " given",
    )
    mrf_clamp: bool = Field(
        default=True,
        description="tokens already decided tell the random field what they are; in a decimation they always do",
    )
    super_resolution_steps: int = Field(
        default=8, ge=1, le=256, description="planned decoding steps of every stage above the first"
    )
    super_resolution_exit_step: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="stop those stages after this step; the field's own, or 3 of 8, if not given",
    )
    super_resolution_guidance_scale: float = Field(
        default=1.0, ge=0, le=30, description="how strongly the text pulls in those stages; 1 is no guidance"
    )
    super_resolution_temperature: float = Field(
        default=0.25, ge=0, le=10, description="of the token draws in those stages; 0 takes the likeliest token"
    )
    super_resolution_exit_temperature: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="of the draws at their exit step; the field's own, or that temperature, if not given",
    )
    super_resolution_finalise: Finalise | None = Field(
        default=None, description="how the tokens left at their exit are taken; the field's own way if not given"
    )
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="the same seed gives the same picture; random if not given"
    )
    count: int = Field(default=1, ge=1, le=MAX_COUNT, description="pictures, with seeds counting up from the first")

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str) -> str:
        if not prompt:
            raise ValueError("The prompt is empty: say what the picture shows, for example “a panda on a brick wall”.")
        return prompt

    @model_validator(mode="after")
    def _exit_within_steps(self) -> Self:
        if self.exit_step is not None and self.exit_step > self.steps:
            raise UserError(
                f"Exit step must be between 1 and the {self.steps} steps, not {self.exit_step}.", field="exit_step"
            )
        return self

    @model_validator(mode="after")
    def _super_resolution_exit_within_steps(self) -> Self:
        exit_step, steps = self.super_resolution_exit_step, self.super_resolution_steps
        if exit_step is not None and exit_step > steps:
            raise UserError(
                f"Super resolution exit step must be between 1 and the {steps} steps, not {exit_step}.",
                field="super_resolution_exit_step",
            )
        return self

    @classmethod
    def validated(cls, **fields: Any) -> Self:
        """A request from outside input; raises UserError with one line on the first thing that is wrong."""
        return validated(cls, fields)

    def with_seed(self) -> Self:
        """This request with its seed settled: drawn at random where none was given."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": random.SystemRandom().randint(0, MAX_SEED)})

    @property
    def seeds(self) -> list[int]:
        """One seed a picture: seed, seed + 1, …, past the largest from 0 again.

        Raises:
            ValueError: no seed is settled yet.
        """
        if self.seed is None:
            raise ValueError("settle the seed with `with_seed` first")
        return [(self.seed + index) % (MAX_SEED + 1) for index in range(self.count)]


class GenerateRequest(DecodingRequest):
    """Text to pictures."""

    task: ClassVar[str] = "generate"

    size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="side of the picture in pixels; the largest that the weights make if not given",
    )
