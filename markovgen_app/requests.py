"""What can be asked for: one typed request a job, with defaults, bounds and descriptions, shared by app, CLI and API.

Nothing heavy is imported here: the command line reads its help texts from these fields.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from pydantic_core import ErrorDetails
    from typing_extensions import Self

    from .canvas import Padding
    from .intake import Opened

Method = Literal["full", "early-exit", "markovgen", "rescheduled", "halton"]
Finalise = Literal["sample", "argmax", "perturb", "decimate"]
Order = Literal["confidence", "halton", "row_major", "spiral_in", "spiral_out", "z_curve", "subsample", "alternate"]
Schedule = Literal["cosine", "arccos", "linear", "square"]
Fit = Literal["letterbox", "crop"]
Anchor = Literal[
    "centre", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right"
]  # where a picture stays when its canvas grows

MAX_PROMPT = 1000
MAX_SEED = 2**32 - 1
MAX_COUNT = 64
MAX_REACH = 256


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
    guidance_scale: float = Field(default=3.0, ge=0, le=30, description="how strongly the text pulls; 1 is no guidance")
    guidance_ramp: bool = Field(default=True, description="ramp the guidance up over the steps, as Muse does")
    temperature: float = Field(default=1.0, ge=0, le=10, description="of the token draws; 0 takes the likeliest token")
    exit_temperature: float | None = Field(
        default=None, ge=0, le=10, description="of the draws at the exit step; the temperature if not given"
    )
    choice_temperature: float = Field(default=4.5, ge=0, le=100, description="noise on which tokens are kept first")
    top_k: int | None = Field(default=None, ge=1, description="draw among the k likeliest tokens only")
    order: Order = Field(default="confidence", description="which tokens are decided first")
    schedule: Schedule = Field(default="cosine", description="how many tokens each step decides")
    finalise: Finalise = Field(default="sample", description="how the tokens left at the exit step are taken")
    mrf_iterations: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="mean-field iterations, or how often a decimation asks the random field; its own number if not"
        " given",
    )
    mrf_clamp: bool = Field(default=True, description="tokens already decided tell the random field what they are")
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
        default=0.7, ge=0, le=10, description="of the token draws in those stages; 0 takes the likeliest token"
    )
    super_resolution_exit_temperature: float | None = Field(
        default=None, ge=0, le=10, description="of the draws at their exit step; that temperature if not given"
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


class PictureRequest(DecodingRequest):
    """What all requests about a picture that is there share. The picture itself is not among the dumped settings."""

    background: str = Field(default="white", max_length=40, description="colour that shows through transparent parts")
    image: Any = Field(exclude=True, repr=False, description="the picture's file")
    fit: Fit = Field(
        default="letterbox",
        description="how a picture of other proportions meets the model: letterbox shows it all, crop a square of it",
    )
    keep_outside: bool = Field(default=True, description="put back, to the bit, all pixels that were not to change")
    feather: int = Field(
        default=6, ge=0, le=MAX_REACH, description="pixels over which new and old picture are blended at the seam"
    )
    count: int = Field(default=1, ge=1, le=4, description="candidates, with seeds counting up from the first")

    @field_validator("image", mode="before")
    @classmethod
    def _taken_in(cls, image: Any, info: ValidationInfo) -> Opened:
        from .intake import Opened, open_picture

        if isinstance(image, Opened):
            return image
        if image is None:
            raise UserError("There is no picture yet: open one, or make one first.")
        return open_picture(image, background=info.data.get("background", "white"))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        return self.image.image.size


def _mask_from_outside(mask: Any) -> Any:
    import numpy as np

    from .intake import open_mask

    return mask if mask is None or isinstance(mask, np.ndarray) else open_mask(mask)


class InpaintRequest(PictureRequest):
    """A part of a picture anew. The part is what `mask` and `rectangle` mark together; one of them is needed."""

    task: ClassVar[str] = "inpaint"

    mask: Any = Field(
        default=None, exclude=True, repr=False, description="a picture of the same size, white where it may change"
    )
    rectangle: tuple[int, int, int, int] | None = Field(
        default=None, description="left, top, right, bottom of a part that may change, in pixels"
    )
    invert: bool = Field(default=False, description="change what the mask leaves black, and keep what is white")
    soft: bool = Field(default=False, description="blend by the mask's grey levels, instead of cutting at half")
    grow: int = Field(
        default=0, ge=-MAX_REACH, le=MAX_REACH, description="pixels to grow the mask by; negative shrinks it"
    )
    strength: float = Field(
        default=1.0, ge=0.01, le=1, description="share of the marked tokens made anew; the others stay as hints"
    )

    _taken_in_mask = field_validator("mask", mode="before")(_mask_from_outside)

    @field_validator("rectangle", mode="before")
    @classmethod
    def _typed_rectangle(cls, rectangle: Any) -> Any:
        return None if rectangle in (None, "") else _numbers(rectangle)

    @model_validator(mode="after")
    def _marks_a_part(self) -> Self:
        _ = self.marked
        return self

    @cached_property
    def marked(self) -> np.ndarray:
        """What may change: (H, W) float32 in [0, 1], inverted, hardened and grown as asked.

        Raises:
            UserError: nothing or everything is marked, or the mask does not fit the picture.
        """
        import numpy as np

        from .decoding import masks

        width, height = self.size
        mask = np.zeros((height, width), np.float32) if self.mask is None else self.mask.astype(np.float32)
        masks.check_size(mask, width, height)
        if self.rectangle is not None:
            mask = np.maximum(mask, masks.rectangle(width, height, self.rectangle))
        if self.invert:
            mask = masks.invert(mask)
        if not self.soft:
            mask = masks.harden(mask)
        if self.grow:
            mask = masks.grow(mask, self.grow)
        masks.check(mask)
        return mask


class OutpaintRequest(PictureRequest):
    """A picture on a larger canvas: by pixels a side, or up to an aspect."""

    task: ClassVar[str] = "outpaint"

    left: int = Field(default=0, description="pixels to add on the left")
    top: int = Field(default=0, description="pixels to add at the top")
    right: int = Field(default=0, description="pixels to add on the right")
    bottom: int = Field(default=0, description="pixels to add at the bottom")
    aspect: str = Field(default="", max_length=20, description="proportions to reach instead, such as 16:9")
    anchor: Anchor = Field(default="centre", description="where the picture stays when it grows to an aspect")
    fit: Fit = Field(
        default="crop",
        description="crop works through the new part window by window, letterbox makes it at once at a smaller scale",
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        self.padding.check(*self.size)
        return self

    @property
    def padding(self) -> Padding:
        """The pixels to add.

        Raises:
            UserError: both pixels and an aspect are given, or the aspect is none.
        """
        from .canvas import Padding, padding_to_aspect

        sides = Padding(self.left, self.top, self.right, self.bottom)
        if not self.aspect:
            return sides
        if sides != Padding():
            raise UserError("Give pixels for the sides or an aspect, not both.")
        return padding_to_aspect(*self.size, self.aspect, self.anchor)


class EditRequest(PictureRequest):
    """A picture changed by words alone: tokens are hidden and drawn again, round by round, from new words.

    Its decoding settings are those of one round, and default to Muse's: guidance 4, top-k 3.
    """

    task: ClassVar[str] = "edit"

    strength: float = Field(
        default=0.5, ge=0.01, le=1, description="how far the picture may move; a part of every stronger edit's way"
    )
    source_prompt: str = Field(
        default="", max_length=MAX_PROMPT, description="what the picture shows now; the edit moves away from that"
    )
    keep: Any = Field(
        default=None, exclude=True, repr=False, description="a picture of the same size, white where nothing may change"
    )
    share: float = Field(default=0.08, ge=0.01, le=1, description="of the tokens, hidden in each round")
    method: Literal["full", "markovgen"] = Field(
        default="full", description="markovgen: the random field has the last round's word"
    )
    steps: int = Field(default=1, ge=1, le=256, description="decoding steps in a round")
    guidance_scale: float = Field(default=4.0, ge=0, le=30, description="how strongly the new words pull")
    guidance_ramp: bool = Field(default=False, description="ramp the guidance up over the steps of a round")
    top_k: int | None = Field(default=3, ge=1, description="draw among the k likeliest tokens only: near the picture")

    _taken_in_keep = field_validator("keep", mode="before")(_mask_from_outside)

    @field_validator("source_prompt")
    @classmethod
    def _source_on_one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @model_validator(mode="after")
    def _leaves_a_part(self) -> Self:
        _ = self.marked
        return self

    @cached_property
    def marked(self) -> np.ndarray | None:
        """What may change: (H, W) float32 of 0 and 1; None for all of the picture.

        Raises:
            UserError: everything is kept, or the mask does not fit the picture.
        """
        from .decoding import masks

        if self.keep is None:
            return None
        masks.check_size(self.keep, *self.size)
        marked = masks.harden(masks.invert(self.keep))
        if not marked.any():
            raise UserError("The whole picture is kept, so nothing could change: leave a part out.")
        return None if marked.all() else marked


def _numbers(value: Any) -> Any:
    """A rectangle as typed, "10, 10, 60, 60" or four numbers, as a tuple."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        numbers = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4:
        raise UserError(f"A rectangle is left, top, right, bottom, such as 10,10,60,60, not {_shown(value)}.")
    return numbers


RequestT = TypeVar("RequestT", bound=BaseModel)


def validated(kind: type[RequestT], fields: Mapping[str, Any]) -> RequestT:
    """Build a request from outside input.

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(_one_line(kind, first), field=_field(first)) from None


def spoken(name: str) -> str:
    """What messages call a field."""
    return name.replace("_", " ").capitalize()


def _field(first: ErrorDetails) -> str | None:
    """The field that is wrong, if it is one alone."""
    if first["loc"]:
        return str(first["loc"][0])
    return getattr(first.get("ctx", {}).get("error"), "field", None)


def _one_line(kind: type[BaseModel], first: ErrorDetails) -> str:
    name = str(first["loc"][0]) if first["loc"] else ""
    problem, given, label = first["type"], first["input"], spoken(name)
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
