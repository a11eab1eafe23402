"""Fixed orders: permutations on any grid, with the shape that their names promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from markovgen_app.decoding.order import (
    ORDERS,
    alternate,
    halton,
    order_scores,
    row_major,
    spiral_in,
    spiral_out,
    subsample,
    z_curve,
)


@given(height=st.integers(1, 20), width=st.integers(1, 20), name=st.sampled_from(sorted(ORDERS)))
def test_every_order_is_a_permutation_of_any_grid(height: int, width: int, name: str) -> None:
    order = ORDERS[name](height, width)
    assert order.dtype == torch.long
    assert order.sort().values.tolist() == list(range(height * width))


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_scores_fall_along_an_order(name: str) -> None:
    along = order_scores(name, (5, 7))[ORDERS[name](5, 7)]
    assert (along.diff() < 0).all()


def test_small_grids_by_hand() -> None:
    assert row_major(2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert alternate(3, 2).tolist() == [0, 1, 3, 2, 4, 5]
    assert spiral_in(3, 4).tolist() == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    assert spiral_out(3, 3).tolist() == [4, 3, 6, 7, 8, 5, 2, 1, 0]
    assert z_curve(4, 4).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert subsample(4, 4).tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]


@given(height=st.integers(1, 12), width=st.integers(1, 12), name=st.sampled_from(["alternate", "spiral_in"]))
def test_continuous_orders_walk_from_neighbour_to_neighbour(height: int, width: int, name: str) -> None:
    order = ORDERS[name](height, width)
    rows, columns = order // width, order % width
    assert ((rows.diff().abs() + columns.diff().abs()) == 1).all()


def test_halton_starts_as_the_sequence_does() -> None:
    """The points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), (5/8, 7/9) on a 16 x 16 grid."""
    expected = [(8, 5), (4, 10), (12, 1), (2, 7), (10, 12)]
    assert halton(16, 16)[:5].tolist() == [row * 16 + column for row, column in expected]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (16, 24)])
@pytest.mark.parametrize("taken", [16, 48, 96])
def test_halton_spreads_its_first_cells_evenly(height: int, width: int, taken: int) -> None:
    """Any beginning of the order covers the grid more evenly than the same number of random cells."""

    def discrepancy(order: torch.Tensor) -> float:
        cells = torch.stack([order[:taken] // width / height, order[:taken] % width / width], 1)  # (taken, 2)
        return qmc.discrepancy((cells + torch.tensor([0.5 / height, 0.5 / width])).numpy())

    generator = torch.Generator().manual_seed(0)
    random = [discrepancy(torch.randperm(height * width, generator=generator)) for _ in range(40)]
    assert discrepancy(halton(height, width)) < min(random)
    assert discrepancy(row_major(height, width)) > max(random)


def test_halton_visits_every_quadrant_in_five_cells() -> None:
    quadrants = {(cell // 16 // 8, cell % 16 // 8) for cell in halton(16, 16)[:5].tolist()}
    assert quadrants == {(0, 0), (0, 1), (1, 0), (1, 1)}
