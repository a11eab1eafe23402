"""The planned number of votes against the test it is planned for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from markovgen_app.study.power import design_effect, planned, sided_votes, sign_test_power, target_votes
from markovgen_app.study.votes import Plan, Power, Prompt


@pytest.mark.parametrize("votes", [1, 5, 6, 17, 60])
def test_the_power_is_that_of_binomtest(votes: int) -> None:
    significant = [wins for wins in range(votes + 1) if binomtest(wins, votes).pvalue <= 0.05]
    expected = binom.pmf(significant, votes, 0.65).sum() if significant else 0.0
    assert sign_test_power(np.array([votes]), 0.65, 0.05)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("preference", "alpha", "power"), [(0.6, 0.05, 0.8), (0.75, 0.01, 0.9), (0.55, 0.05, 0.8)])
def test_from_the_number_on_the_power_never_falls_below(preference: float, alpha: float, power: float) -> None:
    votes = sided_votes(preference, alpha, power)
    following = sign_test_power(np.arange(votes, votes + 500), preference, alpha)
    assert following.min() >= power > sign_test_power(np.array([votes - 1]), preference, alpha)[0]


def test_a_textbook_number() -> None:
    """Sixty to forty at 80 % power: 194 by the normal approximation with the test's variance, 199 by the exact test."""
    assert 194 <= sided_votes(0.6, 0.05, 0.8) <= 210


def test_ties_and_clusters_ask_for_more_votes() -> None:
    alone = Power(ties=0, prompt_correlation=0, rater_correlation=0)
    assert target_votes(alone, 3, 10) == sided_votes(0.6, 0.05, 0.8)
    assert target_votes(Power(ties=0.5, prompt_correlation=0, rater_correlation=0), 3, 10) == 2 * target_votes(
        alone, 3, 10
    )
    assert design_effect(Power(prompt_correlation=0.1, rater_correlation=0.05), 3, 11) == pytest.approx(1.7)


def test_a_plan_is_given_its_target() -> None:
    rows = tuple(Prompt(id=str(number), text="a panda") for number in range(50))
    plan = planned(Plan(prompts=rows, methods=("full", "markovgen", "other"), session_length=30))
    assert plan.target_n == math.ceil(sided_votes(0.6, 0.05, 0.8) / 0.8 * (1 + 2 * 0.1 + 9 * 0.05))
