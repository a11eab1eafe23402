"""Mask counts: bounds, monotony, and agreement with the published formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.decoding.schedule import SCHEDULES, mask_counts

schedules = st.sampled_from(sorted(SCHEDULES))


@given(unknown=st.integers(0, 1024), steps=st.integers(1, 64), schedule=schedules)
def test_counts_fall_strictly_while_possible_and_end_at_zero(unknown: int, steps: int, schedule: str) -> None:
    counts = mask_counts(unknown, steps, schedule)
    assert len(counts) == steps
    assert counts[-1] == 0
    for before, after in zip([unknown, *counts], counts, strict=False):
        assert after < before or after == before == 0
    assert counts.count(0) == 1 + max(0, steps - max(unknown, 1))


@given(unknown=st.integers(1, 300), schedule=schedules)
def test_as_many_steps_as_tokens_decide_one_a_step(unknown: int, schedule: str) -> None:
    assert mask_counts(unknown, unknown, schedule) == list(range(unknown - 1, -1, -1))


@given(steps=st.integers(1, 24))
def test_cosine_is_the_formula_of_maskgit(steps: int) -> None:
    expected = [math.floor(1024 * math.cos(math.pi / 2 * (step / steps))) for step in range(1, steps + 1)]
    assert mask_counts(1024, steps) == expected


def test_known_values() -> None:
    assert mask_counts(256, 8) == [251, 236, 212, 181, 142, 97, 49, 0]
    assert mask_counts(100, 4, "linear") == [75, 50, 25, 0]
    assert mask_counts(256, 1) == [0]
    assert mask_counts(0, 3) == [0, 0, 0]
    assert mask_counts(2, 4) == [1, 0, 0, 0]


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_schedules_run_from_everything_to_nothing(schedule: str) -> None:
    assert SCHEDULES[schedule](0.0) == pytest.approx(1)
    assert SCHEDULES[schedule](1.0) == pytest.approx(0)


@pytest.mark.parametrize(("unknown", "steps", "schedule"), [(-1, 4, "cosine"), (4, 0, "cosine"), (4, 4, "cubist")])
def test_nonsense_is_refused(unknown: int, steps: int, schedule: str) -> None:
    with pytest.raises(ValueError, match=r"schedule"):
        mask_counts(unknown, steps, schedule)
