"""Numbers and marks of the results page's figures."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.study.charts import interval, marks, percent, signed


@given(st.floats(0.05, 1e6))
def test_marks_are_round_even_and_few(reach: float) -> None:
    found = marks(reach)
    assert 3 <= len(found) <= 7 and 0 in found and max(found) <= reach
    assert found == pytest.approx([-value for value in reversed(found)])
    assert len({round(b - a, 6) for a, b in itertools.pairwise(found)}) == 1


def test_numbers_are_written_for_people() -> None:
    assert percent(0.4123) == "41.2\u202f%" and percent(None) == "–"
    assert signed(-0.2) == "−0.20" and signed(0.2) == "+0.20"
    assert interval(0.36, 0.465) == "36.0 – 46.5\u202f%" and interval(None, 0.5) == "–"
    assert interval(-0.1, 0.25, shares=False) == "−0.10 … +0.25"
