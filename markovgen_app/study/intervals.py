"""Intervals for shares of answers that hang together twice: by rater and by prompt.

Three estimators, from the least to the most careful:

- `wilson` takes the answers for independent, which they are not (Wilson 1927).
- `clustered_shares` estimates the variance with both clusters (Cameron, Gelbach & Miller, "Robust inference with
  multiway clustering", 2011) and puts Wilson's interval around the number of independent answers that would vary as
  much, with Student's t on the smaller number of clusters. This is the one to report: simulated studies show that it
  covers what it claims (`markovgen study simulate`).
- `bootstrap_shares` draws raters and prompts anew with replacement (the pigeonhole bootstrap). Its variance counts the
  noise of single answers three times over (Owen, "The pigeonhole bootstrap", 2007), so it is wide.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

Array = np.ndarray
LEVEL = 0.95


def wilson(share: float, total: float, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval for a share of `total` independent answers; 95 % without another `quantile`."""
    z = special.ndtri(0.5 + LEVEL / 2) if quantile is None else quantile
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (0.0 if share == 0 else max(0.0, float(centre - half))), (
        1.0 if share == 1 else min(1.0, float(centre + half))
    )


def clustered_shares(outcomes: Array, raters: Array, prompts: Array) -> list[tuple[float, float] | None]:
    """The 95 % intervals, that know both clusters, of the columns' means of outcomes (n, k), true or false.

    None with fewer than two raters or two prompts. `raters` and `prompts` (n,) are the numbers of each answer's
    clusters.
    """
    clusters = min(occupied(raters), occupied(prompts))
    if clusters < 2:
        return [None] * outcomes.shape[1]
    shares = outcomes.mean(axis=0)
    variances = np.diag(two_way_covariance((outcomes - shares) / len(outcomes), raters, prompts))
    return [
        effective_wilson(float(share), float(variance), len(outcomes), clusters - 1)
        for share, variance in zip(shares, variances, strict=True)
    ]


def two_way_covariance(scores: Array, raters: Array, prompts: Array) -> Array:
    """Covariance (k, k) of the sum of scores (n, k) with clusters of raters and of prompts.

    Raters plus prompts minus what both count, each with the factor g / (g - 1) for its g clusters. As a difference it
    may come out with negative variances.
    """
    both = np.unique(raters * (prompts.max() + 1) + prompts, return_inverse=True)[1]
    one_way = [one_way_covariance(scores, clusters) for clusters in (raters, prompts, both)]
    return one_way[0] + one_way[1] - one_way[2]


def bootstrap_shares(
    outcomes: Array, raters: Array, prompts: Array, rng: np.random.Generator, draws: int = 1000
) -> list[tuple[float, float]]:
    """The 95 % percentile intervals of the columns' means of outcomes (n, k), raters and prompts drawn anew."""
    weights = drawn(raters, rng, draws) * drawn(prompts, rng, draws)  # (draws, n)
    totals = weights.sum(axis=1)
    means = (weights @ outcomes)[totals > 0] / totals[totals > 0, None]  # (draws, k)
    return percentiles(means)


def percentiles(means: Array) -> list[tuple[float, float]]:
    """The 95 % percentile intervals of the columns of means (draws, k)."""
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def student(degrees: float) -> float:
    """The two-sided 95 % quantile of Student's t."""
    return float(special.stdtrit(degrees, 0.5 + LEVEL / 2))


def effective_wilson(share: float, variance: float, total: int, degrees: float) -> tuple[float, float]:
    """Wilson's interval on the number of independent answers that would vary as much, `total` at the most: `variance`,
    a difference of estimates, may come out smaller than that of independent answers, or negative.

    Where all agree there is no variance to see; then each degree of freedom, and one, counts as an answer: the careful
    end.
    """
    alone = share * (1 - share)
    effective = degrees + 1 if alone == 0 else min(alone / variance, total) if variance > 0 else total
    return wilson(share, effective, student(degrees))


def one_way_covariance(scores: Array, clusters: Array) -> Array:
    """Covariance (k, k) of the sum of scores (n, k) with one kind of clusters, with the factor g / (g - 1)."""
    count = int(clusters.max()) + 1
    sums = np.stack([np.bincount(clusters, column, count) for column in scores.T], axis=1)
    present = occupied(clusters)
    return sums.T @ sums * (present / (present - 1) if present > 1 else 1.0)


def occupied(clusters: Array) -> int:
    """How many different clusters there are, of numbers from 0."""
    return int((np.bincount(clusters) > 0).sum())


def drawn(clusters: Array, rng: np.random.Generator, draws: int) -> Array:
    """How often each answer's cluster is drawn, (draws, n)."""
    names, places = np.unique(clusters, return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, places]
