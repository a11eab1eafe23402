"""Intervals against formulas worked out another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from markovgen_app.study.intervals import (
    bootstrap_shares,
    clustered_shares,
    effective_wilson,
    occupied,
    student,
    two_way_covariance,
    wilson,
)


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits / total, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_student_is_scipys() -> None:
    assert student(7.5) == pytest.approx(t.ppf(0.975, 7.5), abs=1e-12)
    assert student(1e9) == pytest.approx(norm.ppf(0.975), abs=1e-6)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_the_covariance_is_the_sum_over_pairs_that_share_a_cluster(raters: int, prompts: int, seed: int) -> None:
    """Without the factors for few clusters, Cameron, Gelbach and Miller's sum counts every such pair once."""
    rng = np.random.default_rng(seed)
    n = 40
    rater, prompt = rng.integers(0, raters, n), rng.integers(0, prompts, n)
    scores = rng.normal(size=(n, 2))
    together = (rater[:, None] == rater) | (prompt[:, None] == prompt)
    both = len({*zip(rater.tolist(), prompt.tolist(), strict=True)})
    one_way = [(rater[:, None] == rater, occupied(rater)), (prompt[:, None] == prompt, occupied(prompt))]
    one_way.append((one_way[0][0] & one_way[1][0], both))
    assert (one_way[0][0].astype(int) + one_way[1][0] - one_way[2][0] == together).all()
    sums = [scores.T @ shared @ scores * g / (g - 1) if g > 1 else scores.T @ shared @ scores for shared, g in one_way]
    assert two_way_covariance(scores, rater, prompt) == pytest.approx(sums[0] + sums[1] - sums[2])


def test_where_every_vote_has_clusters_of_its_own_the_interval_is_wilsons() -> None:
    hits = np.arange(400)[:, None] % 4 == 0
    everyone = np.arange(400)
    low, high = clustered_shares(hits, everyone, everyone)[0] or (0, 0)
    assert (low, high) == pytest.approx(wilson(0.25, 400), abs=2e-3)


def test_votes_that_only_repeat_their_rater_count_once_a_rater() -> None:
    hits = np.repeat(np.arange(30) % 3 == 0, 20)[:, None]
    raters, prompts = np.repeat(np.arange(30), 20), np.tile(np.arange(20), 30)
    low, high = clustered_shares(hits, raters, prompts)[0] or (0, 0)
    expected = wilson(1 / 3, 29, student(19))
    assert (low, high) == pytest.approx(expected, abs=0.01)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_intervals_stay_within_bounds_and_around_the_share(seed: int, chance: float) -> None:
    rng = np.random.default_rng(seed)
    raters, prompts = rng.integers(0, 6, 60), rng.integers(0, 15, 60)
    hits = rng.random((60, 1)) < chance
    low, high = clustered_shares(hits, raters, prompts)[0] or (-1, -1)
    assert 0 <= low <= hits.mean() <= high <= 1
    assert high > low


def test_a_variance_that_comes_out_negative_leaves_the_votes_independent() -> None:
    """Two raters who disagree on every one of two prompts cancel out in every cluster."""
    hits = np.array([[True], [False], [False], [True]])
    raters, prompts = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert two_way_covariance(hits - 0.5, raters, prompts)[0, 0] < 0
    assert clustered_shares(hits, raters, prompts)[0] == wilson(0.5, 4, student(1))


def test_no_estimate_makes_the_votes_count_for_more_than_they_are() -> None:
    """The variance of 40 independent answers by halves is 0.25 / 40."""
    assert effective_wilson(0.5, 0.25 / 80, 40, 7) == wilson(0.5, 40, student(7))
    assert effective_wilson(0.5, 0.25 / 20, 40, 7) == wilson(0.5, 20, student(7))


def test_one_rater_or_one_prompt_gives_no_interval() -> None:
    hits, many, one = np.ones((10, 1), bool), np.arange(10), np.zeros(10, int)
    assert clustered_shares(hits, many, one) == clustered_shares(hits, one, many) == [None]


def test_full_agreement_is_as_sure_as_there_are_clusters() -> None:
    hits, raters, prompts = np.ones((40, 1), bool), np.arange(40) % 8, np.arange(40) // 2
    assert clustered_shares(hits, raters, prompts)[0] == wilson(1.0, 8, student(7))
    assert effective_wilson(1.0, 0.0, 40, 7) == wilson(1.0, 8, student(7))


def test_the_bootstrap_is_as_wide_as_its_theory_says() -> None:
    """Without clusters, drawing both counts the noise of votes three times (Owen 2007): √3 times as wide."""
    rng = np.random.default_rng(0)
    raters, prompts = np.repeat(np.arange(60), 60), np.tile(np.arange(60), 60)
    hits = rng.random((3600, 1)) < 0.4
    low, high = bootstrap_shares(hits, raters, prompts, rng, draws=4000)[0]
    narrow = wilson(float(hits.mean()), 3600)
    assert (high - low) / (narrow[1] - narrow[0]) == pytest.approx(np.sqrt(3), rel=0.12)
