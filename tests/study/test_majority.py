"""Verdicts of several raters, and how strongly one vote moves them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from markovgen_app.study.intervals import drawn, wilson
from markovgen_app.study.majority import (
    FIRST,
    INDIFFERENT,
    SECOND,
    bootstrap_majorities,
    majority_intervals,
    pivots,
    verdicts,
)


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ([2, 1, 0], FIRST),
        ([2, 0, 1], FIRST),
        ([0, 1, 2], SECOND),
        ([1, 1, 1], INDIFFERENT),
        ([1, 2, 0], INDIFFERENT),
        ([2, 0, 2], INDIFFERENT),
        ([2, 1, 1], INDIFFERENT),
        ([3, 1, 1], FIRST),
        ([0, 0, 1], SECOND),
    ],
)
def test_a_side_needs_more_than_half(counts: list[int], verdict: int) -> None:
    assert verdicts(np.array([counts])).tolist() == [verdict]


def test_pivots_are_the_slopes_of_the_majority() -> None:
    """Independent votes: a pivot is the derivative of the verdict's chance by one rater's chance to vote so."""
    chances = np.array([0.5, 0.2, 0.3])

    def verdict_chances(one: np.ndarray) -> np.ndarray:
        found = np.zeros(3)
        for cast in product(range(3), repeat=3):
            verdict = verdicts(np.bincount(cast, minlength=3)[None])[0]
            found[verdict] += one[cast[0]] * chances[cast[1]] * chances[cast[2]]
        return found

    rng = np.random.default_rng(0)
    counts = rng.multinomial(3, chances, size=20_000)
    for outcome in range(3):
        rest = [other for other in range(3) if other != outcome]
        less = np.zeros(3)
        less[rest] = chances[rest] / chances[rest].sum()
        slope = verdict_chances(np.eye(3)[outcome])[outcome] - verdict_chances(less)[outcome]
        assert pivots(counts)[outcome] == pytest.approx(slope, abs=0.01)


def test_with_raters_of_their_own_items_are_independent() -> None:
    rng = np.random.default_rng(1)
    outcomes = rng.choice(3, size=900, p=[0.5, 0.2, 0.3])
    counts = np.stack([(outcomes.reshape(300, 3) == outcome).sum(axis=1) for outcome in range(3)], axis=1)
    share = float((verdicts(counts) == FIRST).mean())
    low, high = (majority_intervals(counts, outcomes, np.arange(900))[FIRST]) or (0, 0)
    assert (low, high) == pytest.approx(wilson(share, 300), abs=0.01)


def test_shared_tastes_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    raters = rng.integers(0, 12, 900)
    likes_first = rng.random(12)
    outcomes = np.where(rng.random(900) < likes_first[raters], FIRST, SECOND)
    counts = np.stack([(outcomes.reshape(300, 3) == outcome).sum(axis=1) for outcome in range(3)], axis=1)
    shared = majority_intervals(counts, outcomes, raters)[FIRST] or (0, 0)
    alone = majority_intervals(counts, outcomes, np.arange(900))[FIRST] or (0, 0)
    assert shared[1] - shared[0] > 2 * (alone[1] - alone[0])


def test_too_little_gives_no_interval() -> None:
    assert majority_intervals(np.array([[3, 0, 0]]), np.zeros(3, int), np.arange(3)) == [None] * 3
    assert majority_intervals(np.array([[1, 0, 0]] * 3), np.zeros(3, int), np.zeros(3, int)) == [None] * 3


def test_unanimous_items_have_an_interval() -> None:
    counts = np.array([[3, 0, 0]] * 20)
    low, high = majority_intervals(counts, np.zeros(60, int), np.arange(60) % 10)[FIRST] or (0, 0)
    assert 0.5 < low < 1 and high == 1


def test_the_bootstrap_is_the_analysis_of_votes_that_are_drawn_anew() -> None:
    """Against copying the votes of every draw one by one, with the same draws."""
    rng = np.random.default_rng(4)
    draws, needed = 60, 3
    outcomes, raters, items = rng.integers(0, 3, 70), rng.integers(0, 9, 70), 2 * rng.integers(0, 20, 70)
    found = bootstrap_majorities(outcomes, raters, items, needed, np.random.default_rng(5), draws)

    again, names = np.random.default_rng(5), sorted({*items.tolist()})
    times, copies = drawn(raters, again, draws), drawn(np.arange(len(names)), again, draws)
    shares = []
    for draw in range(draws):
        given = []
        for place, item in enumerate(names):
            said = [int(outcomes[n]) for n in range(70) if items[n] == item for _ in range(times[draw, n])]
            if len(said) >= needed:
                most = [outcome for outcome in range(3) if 2 * said.count(outcome) > len(said)]
                given += (most or [INDIFFERENT]) * int(copies[draw, place])
        if given:
            shares.append([given.count(outcome) / len(given) for outcome in range(3)])
    expected = np.quantile(shares, [0.025, 0.975], axis=0).T
    assert np.array(found) == pytest.approx(expected, abs=1e-12)
    assert bootstrap_majorities(outcomes, raters, items, 1000, rng, draws) == [None] * 3
