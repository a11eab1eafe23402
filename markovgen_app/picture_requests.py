"""Requests about a picture that is there: inpaint, outpaint, edit by words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .errors import UserError
from .requests import MAX_PROMPT, DecodingRequest
from .validation import shown

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    from .canvas import Padding
    from .intake import Opened

Fit = Literal["letterbox", "crop"]
Remask = Literal["words", "chance"]  # what chooses the tokens that an edit draws anew
Anchor = Literal[
    "centre", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right"
]  # where a picture stays when its canvas grows

MAX_REACH = 256


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
        if self.grow and self.soft:
            raise UserError("A soft mask keeps its levels and cannot be grown: leave one of the two out.", field="grow")
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
    """A picture changed by words alone: the tokens that the new words speak against are drawn anew.

    Or, as in Muse, tokens are hidden by chance and drawn again, round by round. Decoding settings are then those of one
    round, and default to Muse's: one step, guidance 4, top-k 3.
    """

    task: ClassVar[str] = "edit"

    strength: float = Field(default=0.5, ge=0.01, le=1, description="how far the picture may move")
    source_prompt: str = Field(
        default="", max_length=MAX_PROMPT, description="what the picture shows now; the edit moves away from that"
    )
    keep: Any = Field(
        default=None, exclude=True, repr=False, description="a picture of the same size, white where nothing may change"
    )
    remask: Remask = Field(
        default="words",
        description="which tokens are drawn anew: those that the words speak against, or by chance, round by round,"
        " as in Muse",
    )
    share: float = Field(default=0.08, ge=0.01, le=1, description="of the tokens, hidden by chance in each round")

    _taken_in_keep = field_validator("keep", mode="before")(_mask_from_outside)

    @model_validator(mode="before")
    @classmethod
    def _rounds_as_in_muse(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and fields.get("remask") == "chance":
            from .decoding.editing import MUSE_ROUND

            return {**MUSE_ROUND, **fields}
        return fields

    @model_validator(mode="after")
    def _rounds_take_all_their_steps(self) -> Self:
        if self.remask == "chance" and self.method not in ("full", "markovgen"):
            raise UserError(
                f"Rounds by chance take all of their steps, so method must be full or markovgen, not {self.method}.",
                field="method",
            )
        return self

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
        raise UserError(f"A rectangle is left, top, right, bottom, such as 10,10,60,60, not {shown(value)}.")
    return numbers


def away_from(request: DecodingRequest) -> str:
    """The text that guidance leads away from."""
    source = request.source_prompt if isinstance(request, EditRequest) else ""
    return ", ".join(text for text in (source, request.negative_prompt) if text)
