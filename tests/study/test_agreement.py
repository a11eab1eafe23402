"""Krippendorff's alpha against published figures and another implementation."""

from __future__ import annotations

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.study.agreement import alpha, alpha_interval

N = np.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011: four observers, twelve units, answers missing.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
)
# The same paper, two observers and ten units of yes and no.
BINARY = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)


def counts_of(ratings: np.ndarray) -> np.ndarray:
    values = np.unique(ratings[~np.isnan(ratings)])
    return np.stack([(ratings == value).sum(axis=0) for value in values], axis=1)


@pytest.mark.parametrize(("ratings", "expected"), [(PUBLISHED, 0.743), (BINARY, 0.095)])
def test_published_figures(ratings: np.ndarray, expected: float) -> None:
    assert float(alpha(counts_of(ratings))) == pytest.approx(expected, abs=5e-4)


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 4))
def test_another_implementation_agrees(seed: int, raters: int, categories: int) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, categories, (raters, 20)).astype(float)
    ratings[rng.random(ratings.shape) < 0.2] = np.nan
    ratings[:2, 0] = 0, 1  # at least two answers differ
    assert float(alpha(counts_of(ratings))) == pytest.approx(evalica.alpha(pd.DataFrame(ratings)).alpha, abs=1e-9)


def test_full_agreement_is_one_and_no_difference_is_undefined() -> None:
    assert float(alpha(np.array([[3, 0], [0, 3], [3, 0]]))) == 1
    assert np.isnan(float(alpha(np.array([[3, 0], [3, 0]]))))


def test_weights_repeat_units() -> None:
    counts = counts_of(PUBLISHED)
    weights = np.arange(12) % 3
    assert alpha(counts, weights[None])[0] == pytest.approx(float(alpha(np.repeat(counts, weights, axis=0))))


def test_the_interval_holds_alpha_and_needs_two_prompts() -> None:
    counts = counts_of(PUBLISHED)
    rng = np.random.default_rng(0)
    low, high = alpha_interval(counts, np.arange(12), rng, 1000) or (1, 0)
    assert low < 0.743 < high
    assert alpha_interval(counts, np.zeros(12, int), rng, 1000) is None
