"""Windows and canvases: pixels and tokens map both ways, what is outside a window stays, padding lands where asked."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from markovgen_app.canvas import (
    Geometry,
    Padding,
    choose_window,
    padded,
    padding_to_aspect,
    windows_for,
)
from markovgen_app.errors import UserError
from markovgen_app.picture_requests import Anchor, Fit

SIZE, GRID = (128, 128), (16, 16)
SIDES = st.integers(16, 700)
FITS = st.sampled_from(get_args(Fit))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def to_model(geometry: Geometry, x: float, y: float) -> tuple[float, float]:
    """The way back from `to_picture`: that of the geometry whose picture is the model's."""
    return replace(geometry, window=geometry.place, place=geometry.window).to_picture(x, y)


@given(SIDES, SIDES, st.sampled_from([(128, 128), (192, 128), (64, 128)]))
def test_windows_show_what_their_name_says_in_right_proportions(width: int, height: int, size: tuple[int, int]) -> None:
    whole = choose_window((width, height), size, GRID, "letterbox")
    assert whole.window == (0, 0, width, height)
    x0, y0, x1, y1 = whole.place
    assert x0 >= 0 and y0 >= 0 and x1 <= size[0] and y1 <= size[1] and (x1 - x0 == size[0] or y1 - y0 == size[1])
    assert abs((x1 - x0) / width - (y1 - y0) / height) <= 0.5 / min(width, height)
    crop = choose_window((width, height), size, GRID, "crop")
    left, top, right, bottom = crop.window
    assert crop.place == (0, 0, *size) and (right - left == width or bottom - top == height)
    assert abs((right - left) * size[1] / size[0] - (bottom - top)) <= max(1, size[1] / size[0])


@given(SIDES, SIDES, FITS, st.floats(0, 1), st.floats(0, 1))
def test_points_map_both_ways(width: int, height: int, fit: Fit, x: float, y: float) -> None:
    geometry = choose_window((width, height), SIZE, GRID, fit)
    point = (x * width, y * height)
    assert geometry.to_picture(*to_model(geometry, *point)) == pytest.approx(point, abs=1e-6)
    left, top, right, bottom = geometry.window
    assert geometry.to_picture(*geometry.place[:2]) == (left, top)
    assert to_model(geometry, left, top) == geometry.place[:2]
    assert to_model(geometry, right, bottom) == pytest.approx(geometry.place[2:])


@given(SIDES, SIDES, FITS, st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_pixel_touches_the_token_that_it_is_scaled_into(
    width: int, height: int, fit: Fit, x: float, y: float
) -> None:
    geometry = choose_window((width, height), SIZE, GRID, fit)
    left, top, right, bottom = geometry.window
    column, row = int(left + x * (right - left)), int(top + y * (bottom - top))
    mask = np.zeros((height, width), dtype=np.float32)
    mask[row, column] = 1
    touched = geometry.tokens(mask)
    across, down = to_model(geometry, column + 0.5, row + 0.5)
    assert touched[int(down // 8), int(across // 8)]
    x0, y0 = to_model(geometry, column, row)
    x1, y1 = to_model(geometry, column + 1, row + 1)
    if fit == "crop" or width == height:  # no mirror images: and none that the pixel has no part in
        for token_row, token_column in np.argwhere(touched):
            assert token_column * 8 < np.ceil(x1) and token_column * 8 + 8 > np.floor(x0)
            assert token_row * 8 < np.ceil(y1) and token_row * 8 + 8 > np.floor(y0)


@given(SIDES, SIDES, FITS, st.integers(0, 255))
def test_tokens_cover_the_pixels_that_are_scaled_into_them(width: int, height: int, fit: Fit, number: int) -> None:
    geometry = choose_window((width, height), SIZE, GRID, fit)
    tokens = np.zeros(GRID, bool)
    tokens.flat[number] = True
    mask = geometry.pixels(tokens)
    assert mask.shape == (height, width) and set(np.unique(mask)) <= {0, 1}
    row, column = divmod(number, 16)
    left, top = geometry.to_picture(column * 8, row * 8)
    right, bottom = geometry.to_picture(column * 8 + 8, row * 8 + 8)
    ys, xs = np.mgrid[:height, :width]
    over = (ys + 1 > top + 1e-6) & (ys < bottom - 1e-6) & (xs + 1 > left + 1e-6) & (xs < right - 1e-6)
    x0, y0, x1, y1 = geometry.window
    over &= (ys >= y0) & (ys < y1) & (xs >= x0) & (xs < x1)
    assert np.array_equal(mask > 0, over)
    assert not over.any() or geometry.tokens(mask)[row, column]


def test_a_stroke_is_mirrored_with_the_picture_into_the_margins() -> None:
    geometry = choose_window((128, 64), SIZE, GRID, "letterbox")
    assert geometry.place == (0, 32, 128, 96)
    mask = np.zeros((64, 128), dtype=np.float32)
    mask[0, 3] = 1
    assert np.argwhere(geometry.tokens(mask)).tolist() == [[3, 0], [4, 0]]
    seen = np.asarray(geometry.view(noise(128, 64)))
    assert np.array_equal(seen[:32], seen[32:64][::-1]) and np.array_equal(seen[96:], seen[64:96][::-1])


def test_a_picture_of_the_models_size_is_seen_and_put_back_bit_for_bit() -> None:
    picture = noise(128, 128)
    for fit in get_args(Fit):
        geometry = choose_window(picture.size, SIZE, GRID, fit)
        assert geometry.view(picture).tobytes() == picture.tobytes()
        other = noise(128, 128).transpose(Image.Transpose.ROTATE_90)
        assert geometry.put_back(other, picture).tobytes() == other.tobytes()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (16, 128), (129, 127)])
def test_letterboxes_put_back_at_the_pictures_size(width: int, height: int) -> None:
    picture = noise(width, height)
    geometry = choose_window(picture.size, SIZE, GRID, "letterbox")
    assert geometry.view(picture).size == SIZE
    changed = geometry.put_back(Image.new("RGB", SIZE, (9, 99, 199)), picture)
    assert changed.size == picture.size and changed.getcolors() == [(width * height, (9, 99, 199))]


def test_crops_change_nothing_outside_and_hold_what_they_are_about() -> None:
    picture = noise(300, 100)
    geometry = choose_window(picture.size, SIZE, GRID, "crop", focus=(250, 10, 290, 50))
    assert geometry.window == (200, 0, 300, 100)
    changed = np.asarray(geometry.put_back(Image.new("RGB", SIZE), picture))
    assert np.array_equal(changed[:, :200], np.asarray(picture)[:, :200]) and not changed[:, 200:].any()
    with pytest.raises(UserError, match="120 × 40 pixels and a crop shows 100 × 100: choose letterbox"):
        choose_window(picture.size, SIZE, GRID, "crop", focus=(10, 10, 130, 50))


def test_a_finer_model_sees_the_same_window() -> None:
    for fit in get_args(Fit):
        geometry = choose_window((300, 200), SIZE, GRID, fit, focus=(0, 0, 20, 20))
        finer = geometry.at((256, 256), (32, 32))
        assert finer.window == geometry.window and finer.view(noise(300, 200)).size == (256, 256)
        assert finer.place == tuple(2 * edge for edge in geometry.place)
        mask = np.zeros((200, 300), dtype=np.float32)
        mask[40:50, 30:36] = 1
        assert (finer.tokens(mask).reshape(16, 2, 16, 2).any(axis=(1, 3)) <= geometry.tokens(mask)).all()


@given(SIDES, SIDES, st.data())
def test_padding_leaves_the_picture_where_it_says(width: int, height: int, data: st.DataObject) -> None:
    padding = Padding(*(data.draw(st.integers(0, 40)) for _ in range(4)))
    picture = noise(width, height)
    canvas, mask = padded(picture, padding)
    assert canvas.size == padding.size(width, height) == mask.shape[::-1]
    box = (padding.left, padding.top, padding.left + width, padding.top + height)
    assert canvas.crop(box).tobytes() == picture.tobytes()
    assert mask.sum() == mask.size - width * height and not mask[box[1] : box[3], box[0] : box[2]].any()


@given(SIDES, SIDES, st.sampled_from(["16:9", "9:16", "1:1", "3 : 2", "1.5", "4x5"]), st.sampled_from(get_args(Anchor)))
def test_an_aspect_is_reached_with_the_least_padding(width: int, height: int, aspect: str, anchor: Anchor) -> None:
    ratio = {"16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1, "3 : 2": 1.5, "1.5": 1.5, "4x5": 0.8}[aspect]
    try:
        padding = padding_to_aspect(width, height, aspect, anchor)
    except UserError:
        assert abs(width - height * ratio) <= max(1, ratio)
        return
    wide, high = padding.size(width, height)
    assert wide == width or high == height
    assert abs(wide - high * ratio) <= max(1, ratio) / 2 + 1e-6
    if "left" in anchor:
        assert padding.left == 0
    if "bottom" in anchor:
        assert padding.bottom == 0
    if anchor == "centre":
        assert abs(padding.left - padding.right) <= 1 and abs(padding.top - padding.bottom) <= 1


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (Padding(), "nothing to add"),
        (Padding(left=-1), "Left must be between 0 and the picture's own width, 64 pixels, not -1"),
        (Padding(right=65), "Right must be between 0 and the picture's own width, 64 pixels, not 65"),
        (Padding(bottom=33), "Bottom must be between 0 and the picture's own height, 32 pixels, not 33"),
    ],
)
def test_padding_that_cannot_be_is_said(padding: Padding, says: str) -> None:
    with pytest.raises(UserError, match=says):
        padding.check(64, 32)


def test_canvases_stay_small_and_stout_enough() -> None:
    with pytest.raises(UserError, match=r"8,000 × 4,000 pixels are too many"):
        Padding(left=4000).check(4000, 4000)
    with pytest.raises(UserError, match="too long and thin"):
        Padding(left=700).check(700, 100)


@pytest.mark.parametrize("aspect", ["", "wide", "0:1", "1:0", "-1", "16:9:4"])
def test_aspects_that_are_none_are_said(aspect: str) -> None:
    with pytest.raises(UserError, match="is no aspect"):
        padding_to_aspect(10, 10, aspect)


def test_aspects_that_are_there_and_anchors_that_are_not_are_said() -> None:
    with pytest.raises(UserError, match="is 1:1 already"):
        padding_to_aspect(64, 64, "1:1")
    with pytest.raises(UserError, match="No anchor is called 'middle'"):
        padding_to_aspect(64, 32, "1:1", "middle")  # type: ignore[arg-type]


@given(st.integers(16, 300), st.integers(16, 300), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_windows_fill_the_canvas_from_what_is_known(width: int, height: int, shares: list[float]) -> None:
    """Every window lies on the canvas, has work to do and something to go by; together they leave nothing empty."""
    padding = Padding(*(round(share * side) for share, side in zip(shares, (width, height) * 2, strict=True)))
    _, mask = padded(Image.new("RGB", (width, height)), padding)
    try:
        windows = windows_for(mask, SIZE, GRID, min(width, height))
    except UserError:
        assert max(mask.shape) > 4 * min(width, height)
        return
    for geometry in windows:
        left, top, right, bottom = geometry.window
        assert geometry.place == (0, 0, *SIZE) and right - left == bottom - top == min(width, height)
        assert left >= 0 and top >= 0 and bottom <= mask.shape[0] and right <= mask.shape[1]
        seen = mask[top:bottom, left:right]
        assert 0 < seen.mean() < 1
        mask[top:bottom, left:right] = 0
    assert not mask.any()


def test_half_a_window_is_added_at_a_time() -> None:
    _, mask = padded(Image.new("RGB", (128, 128)), Padding(left=128))
    windows = windows_for(mask, SIZE, GRID, 128)
    assert [geometry.window for geometry in windows] == [(64, 0, 192, 128), (0, 0, 128, 128)]
    assert isinstance(windows[0], Geometry)
