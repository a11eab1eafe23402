"""Masks: nothing that was marked vanishes, nothing outside the feather changes, distances are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from markovgen_app.decoding import masks
from markovgen_app.errors import UserError

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
HARD = arrays.arrays(np.bool_, SHAPES)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two pictures and a hard mask of one size."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    old, new = (draw(arrays.arrays(np.uint8, (height, width, 3))) for _ in range(2))
    return old, new, draw(arrays.arrays(np.bool_, (height, width))).astype(np.float32)


def cells(pixels: int, side: int) -> list[tuple[int, int]]:
    return [(start, start + side) for start in range(0, pixels, side)]


@given(HARD, st.integers(0, 25))
def test_distances_are_exact_up_to_the_limit(mask: np.ndarray, limit: int) -> None:
    found = masks.distance(mask, limit)
    wanted = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    wanted = np.where(wanted <= limit, wanted, np.inf)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@given(HARD, st.integers(0, 9))
def test_growing_adds_a_disc_and_shrinking_is_growing_what_is_kept(mask: np.ndarray, pixels: int) -> None:
    level = mask.astype(np.float32)
    y, x = np.ogrid[-pixels : pixels + 1, -pixels : pixels + 1]
    assert np.array_equal(masks.grow(level, pixels), ndimage.binary_dilation(mask, x**2 + y**2 <= pixels**2))
    shrunk = masks.grow(level, -pixels)
    assert np.array_equal(shrunk, masks.invert(masks.grow(masks.invert(level), pixels)))
    assert (shrunk <= level).all()


@given(HARD, st.integers(0, 12))
def test_a_feather_shows_all_of_the_mask_and_ends_where_it_says(mask: np.ndarray, pixels: int) -> None:
    shown = masks.feather(mask.astype(np.float32), pixels)
    away = masks.distance(mask, 40)
    assert (shown[mask] == 1).all() and (shown[away > pixels] == 0).all()
    assert ((shown > 0) & (shown < 1))[(away > 0) & (away <= pixels)].all()
    order = np.argsort(away, axis=None)
    assert (np.diff(shown.ravel()[order]) <= 1e-6).all(), "never more of the new picture further out"


def test_a_soft_mask_keeps_its_levels_under_a_feather() -> None:
    mask = np.zeros((1, 9), dtype=np.float32)
    mask[0, :3] = 1, 0.75, 0.25
    shown = masks.feather(mask, 2)
    assert shown[0, :2].tolist() == [1, 0.75] and shown[0, 2] > 0.25 and shown[0, 4:].tolist() == [0] * 5


@given(pictures(), st.integers(0, 6))
def test_pasting_back_keeps_every_bit_outside_the_feather(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], pixels: int
) -> None:
    old, new, mask = drawn
    pasted = masks.paste_back(old, new, masks.feather(mask, pixels))
    away = masks.distance(mask > 0, 40)
    assert pasted.dtype == np.uint8
    assert np.array_equal(pasted[away > pixels], old[away > pixels])
    assert np.array_equal(pasted[mask == 1], new[mask == 1])
    between = np.minimum(old, new) <= pasted
    assert (between & (pasted <= np.maximum(old, new))).all()


def test_pasting_back_needs_one_size() -> None:
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="one size"):
        masks.paste_back(picture, picture, np.zeros((4, 5), dtype=np.float32))


def test_a_wall_that_comes_back_darker_leaves_no_patch() -> None:
    wall = np.full((96, 96, 3), (250, 250, 240), dtype=np.uint8)
    darker = wall - np.array([6, 3, 0], dtype=np.uint8)
    known = np.ones((96, 96), dtype=bool)
    known[40:56, 40:56] = False
    level = masks.evened(wall, darker, known, 8).astype(int)
    assert np.abs(level - wall).max() <= 1, "a small hole is level throughout"
    known[16:80, 16:80] = False
    level = masks.evened(wall, darker, known, 8).astype(int)
    assert np.abs(level - wall).max() <= 2, "and so is a large one"
    assert np.abs(np.diff(level, axis=0)).max() <= 1, "with no edge in it"


@given(pictures())
def test_what_was_made_stays_where_the_model_makes_no_error_or_nothing_is_known(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    old, new, mask = drawn
    outside = mask == 0
    right = np.where(outside[..., None], old, new)
    assert np.array_equal(masks.evened(old, right, outside, 2), right)
    assert np.array_equal(masks.evened(old, new, np.zeros_like(outside), 2), new)


@given(HARD, st.integers(1, 8))
def test_a_cell_is_touched_exactly_if_it_holds_a_marked_pixel(mask: np.ndarray, side: int) -> None:
    height, width = mask.shape
    touched = masks.any_coverage(mask.astype(np.float32), cells(height, side), cells(width, side))
    wanted = {(int(y) // side, int(x) // side) for y, x in np.argwhere(mask)}
    assert {(int(row), int(column)) for row, column in np.argwhere(touched)} == wanted


@given(st.integers(0, 127), st.integers(0, 127))
def test_one_pixel_is_enough(x: int, y: int) -> None:
    mask = np.zeros((128, 128), dtype=np.float32)
    mask[y, x] = 1
    touched = masks.any_coverage(mask, cells(128, 8), cells(128, 8))
    assert np.argwhere(touched).tolist() == [[y // 8, x // 8]]


def test_a_thin_stroke_touches_every_token_on_its_way() -> None:
    mask = np.zeros((128, 128), dtype=np.float32)
    mask[61:67] = 1  # 6 px, across the border between two rows of tokens
    touched = masks.any_coverage(mask, cells(128, 8), cells(128, 8))
    assert touched[7:9].all() and touched.sum() == 32


def test_noise_of_lossy_files_touches_nothing_and_cells_outside_are_empty() -> None:
    mask = np.full((16, 16), 0.04, dtype=np.float32)
    assert not masks.any_coverage(mask, cells(16, 8), cells(16, 8)).any()
    mask[:] = 1
    assert masks.any_coverage(mask, [(-8, 0), (0, 8), (16, 24)], [(-8, 1), (30, 40)]).tolist() == [
        [False, False],
        [True, False],
        [False, False],
    ]


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_a_rectangle_masks_just_itself(width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    mask = masks.rectangle(width, height, (left, top, right, bottom))
    assert mask.shape == (height, width) and mask.sum() == (right - left) * (bottom - top)
    assert masks.bounds(mask) == (left, top, right, bottom)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((4, 4, 4, 8), "rectangle is empty"),
        ((4, 8, 8, 4), "rectangle is empty"),
        ((-1, 0, 4, 4), "stay within 0, 0 to 32, 16"),
        ((0, 0, 33, 4), "stay within 0, 0 to 32, 16"),
        ((0, 0, 4, 17), "stay within 0, 0 to 32, 16"),
    ],
)
def test_rectangles_that_cannot_be_are_said(box: tuple[int, int, int, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        masks.rectangle(32, 16, box)


@pytest.mark.parametrize(
    ("mask", "says"), [(np.zeros((16, 32)), "The mask is empty"), (np.ones((16, 32)), "covers the whole picture")]
)
def test_masks_that_say_nothing_are_said(mask: np.ndarray, says: str) -> None:
    with pytest.raises(UserError, match=says):
        masks.check(mask)
    masks.check_size(mask, 32, 16)
    with pytest.raises(UserError, match="The mask is 32 × 16 pixels and the picture 16 × 32"):
        masks.check_size(mask, 16, 32)


@pytest.mark.parametrize("change", [masks.grow, masks.feather])
def test_reaches_are_bounded(change) -> None:
    mask = np.ones((4, 4), dtype=np.float32)
    with pytest.raises(UserError, match="256 pixels, not 300"):
        change(mask, 300)
    with pytest.raises(UserError, match="not -300"):
        change(mask, -300)


@given(HARD)
def test_inverting_twice_changes_nothing(mask: np.ndarray) -> None:
    level = mask.astype(np.float32)
    assert np.array_equal(masks.invert(masks.invert(level)), level)
    assert np.array_equal(masks.harden(level), level)
    assert masks.bounds(level) is not None or not mask.any()
