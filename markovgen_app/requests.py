"""What can be asked for: one typed request a job, with defaults, bounds and descriptions, shared by app, CLI and API.

Nothing heavy is imported here: the command line reads its help texts from these fields.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import UserError

Method = Literal["full", "early-exit", "markovgen", "rescheduled", "halton"]
Finalise = Literal["sample", "argmax", "perturb"]
Order = Literal["confidence", "halton", "row_major", "spiral_in", "spiral_out", "z_curve", "subsample", "alternate"]
Schedule = Literal["cosine", "arccos", "linear", "square"]

MAX_PROMPT = 1000
MAX_SEED = 2**32 - 1
MAX_COUNT = 64


class GenerateRequest(BaseModel):
    """Text to pictures.

    Build one from outside input with `GenerateRequest.validated(…)`, which says what is wrong in one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt: str = Field(max_length=MAX_PROMPT, description="what the picture shows")
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT, description="what the picture keeps away from")
    method: Method = Field(default="full", description="how the tokens are decoded")
    steps: int = Field(default=24, ge=1, le=256, description="planned decoding steps n")
    exit_step: int | None = Field(
        default=None, ge=1, le=256, description="stop after this step k; three quarters of the steps if not given"
    )
    guidance_scale: float = Field(default=3.0, ge=0, le=30, description="how strongly the text pulls; 1 is no guidance")
    guidance_ramp: bool = Field(default=True, description="ramp the guidance up over the steps, as Muse does")
    temperature: float = Field(default=1.0, ge=0, le=10, description="of the token draws; 0 takes the likeliest token")
    choice_temperature: float = Field(default=4.5, ge=0, le=100, description="noise on which tokens are kept first")
    top_k: int | None = Field(default=None, ge=1, description="draw among the k likeliest tokens only")
    order: Order = Field(default="confidence", description="which tokens are decided first")
    schedule: Schedule = Field(default="cosine", description="how many tokens each step decides")
    finalise: Finalise = Field(default="sample", description="how the tokens left at the exit step are taken")
    mrf_iterations: int | None = Field(
        default=None, ge=1, le=100, description="mean-field iterations; the random field's own number if not given"
    )
    mrf_clamp: bool = Field(default=True, description="tokens already decided tell the random field what they are")
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
    def _exit_within_steps(self) -> GenerateRequest:
        if self.exit_step is not None and self.exit_step > self.steps:
            raise ValueError(f"Exit step must be between 1 and the {self.steps} steps, not {self.exit_step}.")
        return self

    @classmethod
    def validated(cls, **fields: Any) -> GenerateRequest:
        """A request from outside input; raises UserError with one line on the first thing that is wrong."""
        return validated(cls, fields)

    def with_seed(self) -> GenerateRequest:
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


RequestT = TypeVar("RequestT", bound=BaseModel)


def validated(kind: type[RequestT], fields: Mapping[str, Any]) -> RequestT:
    """Build a request from outside input.

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise UserError(_one_line(kind, error)) from None


def _one_line(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    problem, given = first["type"], first["input"]
    label = name.replace("_", " ").capitalize()
    if problem == "value_error":
        return str(first["ctx"]["error"])
    if problem == "extra_forbidden":
        return f"There is no setting called {_shown(name)}: choose among {', '.join(kind.model_fields)}."
    if problem == "missing":
        return f"{label} is missing: give one."
    if problem == "literal_error":
        return f"{label} must be one of {first['ctx']['expected'].replace(chr(39), '')}, not {_shown(given)}."
    if problem == "string_too_long":
        return f"{label} has {len(given):,} characters: shorten it to {first['ctx']['max_length']:,} or fewer."
    if problem == "string_unicode":
        return f"{label} holds characters that are no text: type it again."
    wanted = _bounds(kind, name)
    if wanted:
        return f"{label} must be {wanted}, not {_shown(given)}."
    return f"{label}: {first['msg']}."


def _bounds(kind: type[BaseModel], name: str) -> str:
    """What a field takes, such as “a whole number between 1 and 256”; empty where it is no number."""
    field = kind.model_fields[name]
    number = {int: "a whole number", float: "a number"}
    word = next((text for each, text in number.items() if field.annotation in (each, each | None)), "")
    if not word:
        return ""
    low = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), None)
    high = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    if high is not None:
        return f"{word} between {low:g} and {high}"
    return f"{word} of at least {low}" if low is not None else word


def _shown(value: Any, longest: int = 40) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
