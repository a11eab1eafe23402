"""Bradley–Terry strengths against another fit, and their intervals against textbook cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from markovgen_app.study.intervals import student
from markovgen_app.study.ranking import bradley_terry, strength_intervals


def oracle(first: np.ndarray, second: np.ndarray, wins: np.ndarray, methods: int) -> np.ndarray:
    """Logistic regression on the votes, by scipy's Newton method: no line of it is shared with what it checks."""
    design = np.zeros((len(wins), methods - 1))
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        if a:
            design[row, a - 1] += 1
        if b:
            design[row, b - 1] -= 1

    def loss(x: np.ndarray) -> float:
        return -(wins * log_expit(design @ x) + (1 - wins) * log_expit(-design @ x)).sum()

    def gradient(x: np.ndarray) -> np.ndarray:
        return -design.T @ (wins - expit(design @ x))

    def curvature(x: np.ndarray) -> np.ndarray:
        chance = expit(design @ x)
        return (design * (chance * (1 - chance))[:, None]).T @ design

    fit = minimize(loss, np.zeros(methods - 1), jac=gradient, hess=curvature, method="trust-exact", tol=1e-12)
    strengths = np.concatenate([[0.0], fit.x])
    return strengths - strengths.mean()


def votes(methods: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, methods)
    first = rng.integers(0, methods, n)
    second = (first + rng.integers(1, methods, n)) % methods
    wins = (rng.random(n) < expit(truth[first] - truth[second])).astype(float)
    return first, second, np.where(rng.random(n) < 0.2, 0.5, wins)


@given(st.integers(2, 6), st.integers(30, 600), st.integers(0, 10_000))
@settings(deadline=None)
def test_strengths_agree_with_an_independent_fit(methods: int, n: int, seed: int) -> None:
    first, second, wins = votes(methods, n, seed)
    strengths = bradley_terry(first, second, wins)
    if strengths is not None and len(strengths) == methods:
        assert strengths == pytest.approx(oracle(first, second, wins, methods), abs=1e-6)
        assert strengths.sum() == pytest.approx(0, abs=1e-9)


def test_two_methods_have_the_log_odds_of_their_wins() -> None:
    first, second = np.zeros(10, int), np.ones(10, int)
    strengths = bradley_terry(first, second, np.array([1.0] * 6 + [0.5] * 2 + [0.0] * 2))
    assert strengths == pytest.approx([np.log(7 / 3) / 2, -np.log(7 / 3) / 2])


def test_weights_are_as_good_as_repeats() -> None:
    first, second, wins = votes(4, 200, 1)
    times = np.arange(200) % 3 + 1
    repeated = [np.repeat(column, times) for column in (first, second, wins)]
    assert bradley_terry(first, second, wins, times.astype(float)) == pytest.approx(bradley_terry(*repeated))


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ([0, 0, 1], [1, 2, 2], [1, 1, 1]),  # a perfect order
        ([0, 1, 2, 2], [1, 0, 3, 3], [1, 1, 1, 0]),  # two pairs of methods that never met
        ([0, 0], [1, 1], [1, 1]),  # one that never lost
    ],
)
def test_strengths_without_bounds_are_not_made_up(first: list[int], second: list[int], wins: list[float]) -> None:
    assert bradley_terry(np.array(first), np.array(second), np.array(wins, float)) is None


def test_intervals_of_independent_votes_are_those_of_the_information() -> None:
    """Each vote with clusters of its own, no ties: the sandwich is the inverse of the information."""
    rng = np.random.default_rng(2)
    n = 4000
    first, second = np.zeros(n, int), np.ones(n, int)
    wins = (rng.random(n) < 0.6).astype(float)
    strengths = bradley_terry(first, second, wins)
    assert strengths is not None
    low, high = (strength_intervals(strengths, first, second, wins, np.arange(n), np.arange(n)) or [(0, 0)])[0]
    # The log-odds have the variance 1 / (n p q); each strength is half of them.
    expected = student(n - 1) / np.sqrt(n * wins.mean() * (1 - wins.mean())) / 2
    assert (high - low) / 2 == pytest.approx(expected, rel=2e-3)
    assert (low + high) / 2 == pytest.approx(strengths[0])


def test_strengths_are_never_surer_than_independent_votes_make_them() -> None:
    """Two raters who disagree on every prompt cancel out in every cluster."""
    wins = np.tile([1.0, 0.0, 0.0, 1.0], 10)
    raters, prompts = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    first, second = np.zeros(40, int), np.ones(40, int)
    strengths = bradley_terry(first, second, wins)
    assert strengths is not None
    low, high = (strength_intervals(strengths, first, second, wins, raters, prompts) or [(0, 0)])[0]
    assert (high - low) / 2 == pytest.approx(student(1) / np.sqrt(40 * 0.25) / 2, rel=1e-6)


def test_copied_votes_of_the_same_raters_make_nothing_surer() -> None:
    first, second, _ = votes(3, 300, 3)
    raters, prompts = np.arange(300) % 30, np.arange(300)
    taste = np.random.default_rng(3).normal(0, 2, (30, 3))
    wins = (taste[raters, first] > taste[raters, second]).astype(float)  # every rater is of one mind
    strengths = bradley_terry(first, second, wins)
    assert strengths is not None
    columns = (first, second, wins, raters, prompts)
    once = strength_intervals(strengths, *columns)
    thrice = strength_intervals(strengths, *(np.tile(column, 3) for column in columns))
    assert np.array(thrice) == pytest.approx(np.array(once), abs=1e-3)


def test_one_rater_gives_no_interval() -> None:
    first, second, wins = votes(3, 60, 4)
    strengths = bradley_terry(first, second, wins)
    assert strengths is not None
    assert strength_intervals(strengths, first, second, wins, np.zeros(60, int), np.arange(60)) is None
