"""How many votes a study needs, settled before the first one."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from .votes import Plan, Power


def planned(plan: Plan) -> Plan:
    """The plan with `target_n`, the votes on each pair of methods that its power calculation asks for."""
    per_rater = min(plan.session_length / len(plan.pairs), len(plan.prompts))
    return plan.model_copy(update={"target_n": target_votes(plan.power, plan.raters_per_pair, per_rater)})


def target_votes(power: Power, raters_per_pair: int, votes_per_rater: float) -> int:
    """Votes on one pair of methods that find the preference with the wanted power.

    The sided votes that the exact sign test needs, if they were independent; more, as some votes take no side; and more
    by the design effect of two kinds of clusters: votes on one item, and votes of one rater, say less than as many
    votes from everywhere (Kish, "Survey Sampling", 1965, section 5.4).
    """
    votes = sided_votes(power.preference, power.alpha, power.power) / (1 - power.ties)
    return math.ceil(votes * design_effect(power, raters_per_pair, votes_per_rater))


def design_effect(power: Power, raters_per_pair: int, votes_per_rater: float) -> float:
    """How many votes of such a study say as much as one independent vote."""
    by_prompt = (raters_per_pair - 1) * power.prompt_correlation
    by_rater = max(votes_per_rater - 1, 0) * power.rater_correlation
    return 1 + by_prompt + by_rater


def sided_votes(preference: float, alpha: float, power: float) -> int:
    """The smallest number of independent sided votes from which on the exact two-sided sign test has this power.

    The test's power goes up and down with the parity and the size of its tails; from this number on it never falls
    below `power` again.
    """
    quantiles = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    bound = math.ceil(quantiles**2 / (4 * (preference - 0.5) ** 2)) * 2 + 100
    enough = sign_test_power(np.arange(1, bound), preference, alpha) >= power
    return int(bound - np.argmin(enough[::-1])) if not enough.all() else 1


def sign_test_power(votes: np.ndarray, preference: float, alpha: float) -> np.ndarray:
    """The chance that the exact two-sided sign test of that many votes is significant."""
    critical = stats.binom.ppf(alpha / 2, votes, 0.5)
    critical -= stats.binom.cdf(critical, votes, 0.5) > alpha / 2
    return stats.binom.cdf(critical, votes, preference) + stats.binom.sf(votes - critical - 1, votes, preference)
