"""Requests about a picture: what is marked, what grows, and one line for everything that is wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from markovgen_app.canvas import Padding
from markovgen_app.decoding.masks import MAX_REACH as REACH_OF_MASKS
from markovgen_app.decoding.sampler import METHODS
from markovgen_app.errors import UserError
from markovgen_app.picture_requests import MAX_REACH, EditRequest, InpaintRequest, OutpaintRequest, PictureRequest
from markovgen_app.requests import DecodingRequest, GenerateRequest

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
KINDS = (InpaintRequest, OutpaintRequest, EditRequest)


def mask_of(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    return mask


def inpaint(**fields: Any) -> InpaintRequest:
    return InpaintRequest.validated(**{"prompt": "a fox", "image": PICTURE, "mask": mask_of(0, 0, 10, 10), **fields})


def outpaint(**fields: Any) -> OutpaintRequest:
    return OutpaintRequest.validated(**{"prompt": "a fox", "image": PICTURE, **fields})


def edit(**fields: Any) -> EditRequest:
    return EditRequest.validated(**{"prompt": "a fox", "image": PICTURE, **fields})


def test_all_share_what_the_decoding_loop_is_told() -> None:
    for kind in (*KINDS, GenerateRequest):
        assert issubclass(kind, DecodingRequest) and set(DecodingRequest.model_fields) <= set(kind.model_fields)
        assert all(field.description for field in kind.model_fields.values())
    assert len({kind.task for kind in (*KINDS, GenerateRequest)}) == 4
    assert all(issubclass(kind, PictureRequest) for kind in KINDS)
    assert MAX_REACH == REACH_OF_MASKS
    assert set(get_args(EditRequest.model_fields["method"].annotation)) <= set(METHODS)


def test_settings_hold_no_pixels() -> None:
    for request in (inpaint(), outpaint(left=8), edit(keep=mask_of(0, 0, 9, 9))):
        dumped = request.model_dump()
        assert not {"image", "mask", "keep"} & set(dumped)
        assert all(isinstance(value, (str, int, float, bool, tuple, type(None))) for value in dumped.values())
        assert len(repr(request)) < 2000


def test_pictures_come_from_files_bytes_and_pillow(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for image in (PICTURE, tmp_path / "a.png", str(tmp_path / "a.png"), content, io.BytesIO(content)):
        assert edit(image=image).image.image.tobytes() == PICTURE.tobytes()
    layer = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert edit(image=layer, background="#102030").image.image.getpixel((3, 3)) == (16, 32, 48)


def test_a_mask_marks_what_is_white() -> None:
    assert inpaint().size == (48, 32)
    assert inpaint().marked.sum() == 100
    assert inpaint(invert=True).marked.sum() == 48 * 32 - 100
    assert inpaint(grow=-2).marked.sum() == 8 * 8, "the picture's edge does not eat into it"
    assert inpaint(grow=1).marked.sum() == 100 + 20
    assert inpaint(rectangle="20, 0, 30, 10").marked.sum() == 200
    assert inpaint(mask=None, rectangle=(20, 0, 30, 10)).marked.sum() == 100
    assert inpaint(mask=np.eye(32, 48, dtype=np.float32)).marked.sum() == 32


def test_grey_is_cut_at_half_or_kept() -> None:
    grey = Image.new("L", (48, 32))
    grey.paste(200, (0, 0, 10, 10))
    grey.paste(100, (10, 0, 20, 10))
    assert inpaint(mask=grey).marked.sum() == 100
    assert inpaint(mask=grey, soft=True).marked.sum() == pytest.approx(100 * 300 / 255)
    with pytest.raises(UserError, match="soft mask keeps its levels"):
        inpaint(mask=grey, soft=True, grow=2)


def test_seeds_settle_without_losing_the_mask() -> None:
    request = inpaint(count=2)
    settled = request.with_seed()
    assert len(settled.seeds) == 2 and np.array_equal(settled.marked, request.marked)


def test_canvases_grow_by_sides_or_to_an_aspect() -> None:
    assert outpaint(left=8, bottom=3).padding == Padding(8, 0, 0, 3)
    assert outpaint(aspect="1:1").padding == Padding(0, 8, 0, 8)
    assert outpaint(aspect="1:1", anchor="top").padding == Padding(0, 0, 0, 16)


def test_a_kept_part_is_not_marked() -> None:
    assert edit().marked is None and edit(keep=mask_of(0, 0, 0, 0)).marked is None
    marked = edit(keep=mask_of(0, 0, 10, 10)).marked
    assert marked is not None and marked.sum() == 48 * 32 - 100


@pytest.mark.parametrize(
    ("build", "fields", "says"),
    [
        (inpaint, {"mask": None}, "The mask is empty"),
        (inpaint, {"mask": mask_of(0, 0, 0, 0)}, "The mask is empty"),
        (inpaint, {"mask": mask_of(0, 0, 48, 32)}, "covers the whole picture"),
        (inpaint, {"mask": mask_of(0, 0, 9, 9, (64, 64))}, "The mask is 64 × 64 pixels and the picture 48 × 32"),
        (inpaint, {"mask": b"not a picture"}, "is no picture that can be read"),
        (inpaint, {"grow": -20}, "The mask is empty"),
        (inpaint, {"grow": 300}, "Grow must be a whole number between -256 and 256, not 300."),
        (inpaint, {"feather": -1}, "Feather must be a whole number between 0 and 256, not -1."),
        (inpaint, {"strength": 0}, "Strength must be a number between 0.01 and 1, not 0."),
        (inpaint, {"count": 5}, "Count must be a whole number between 1 and 4, not 5."),
        (inpaint, {"rectangle": "10,10"}, "A rectangle is left, top, right, bottom, such as 10,10,60,60, not '10,10'."),
        (inpaint, {"rectangle": "a,b,c,d"}, "A rectangle is left, top, right, bottom"),
        (inpaint, {"rectangle": (0, 0, 99, 9)}, "stay within 0, 0 to 48, 32"),
        (inpaint, {"fit": "stretch"}, "Fit must be one of letterbox or crop, not 'stretch'."),
        (inpaint, {"image": b"text"}, "is no picture that can be read"),
        (inpaint, {"image": None}, "There is no picture yet"),
        (inpaint, {"image": "/nowhere/a.png"}, "There is no file /nowhere/a.png"),
        (inpaint, {"prompt": ""}, "The prompt is empty"),
        (inpaint, {"background": "reddish"}, "No colour is called 'reddish'"),
        (inpaint, {"colour": "red"}, "There is no setting called 'colour'"),
        (outpaint, {}, "There is nothing to add"),
        (outpaint, {"left": -1}, "Left must be between 0 and the picture's own width, 48 pixels, not -1"),
        (outpaint, {"left": 49}, "Left must be between 0 and the picture's own width, 48 pixels, not 49"),
        (outpaint, {"left": 2.5}, "Left must be a whole number, not 2.5."),
        (outpaint, {"left": 4, "aspect": "1:1"}, "Give pixels for the sides or an aspect, not both."),
        (outpaint, {"aspect": "wide"}, "'wide' is no aspect"),
        (outpaint, {"aspect": "3:2"}, "is 3:2 already"),
        (outpaint, {"anchor": "middle"}, "Anchor must be one of centre, left"),
        (edit, {"strength": 1.5}, "Strength must be a number between 0.01 and 1, not 1.5."),
        (
            edit,
            {"method": "halton", "remask": "chance"},
            "Rounds by chance take all of their steps, so method must be full or markovgen, not halton.",
        ),
        (edit, {"keep": mask_of(0, 0, 48, 32)}, "The whole picture is kept"),
        (edit, {"keep": mask_of(0, 0, 9, 9, (64, 64))}, "The mask is 64 × 64 pixels"),
        (edit, {"source_prompt": "p" * 2000}, "Source prompt has 2,000 characters"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(build: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build(**fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
