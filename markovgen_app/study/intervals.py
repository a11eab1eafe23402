"""Intervals for shares of answers that hang together twice: by rater and by prompt.

Three estimators, from the least to the most careful:

- `wilson` takes the answers for independent, which they are not (Wilson 1927).
- `clustered_share` estimates the variance with both clusters (Cameron, Gelbach & Miller, "Robust inference with
  multiway clustering", 2011) and puts Wilson's interval around the number of independent answers that would vary as
  much, with Student's t on the smaller number of clusters. This is the one to report: simulated studies show that it
  covers what it claims (`markovgen study simulate`).
- `bootstrap_share` draws raters and prompts anew with replacement (the pigeonhole bootstrap). Its variance counts the
  noise of single answers three times over (Owen, "The pigeonhole bootstrap", 2007), so it is wide.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

Array = np.ndarray
LEVEL = 0.95


def wilson(share: float, total: float, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval for a share of `total` independent answers; 95 % without another `quantile`."""
    z = stats.norm.ppf(0.5 + LEVEL / 2) if quantile is None else quantile
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (0.0 if share == 0 else max(0.0, float(centre - half))), (
        1.0 if share == 1 else min(1.0, float(centre + half))
    )


def clustered_share(hits: Array, raters: Array, prompts: Array) -> tuple[float, float] | None:
    """The 95 % interval of a share that knows both clusters; None with fewer than two raters or two prompts.

    `hits` (n,) are true or false; `raters` and `prompts` (n,) are the numbers of each answer's clusters.
    """
    clusters = min(len(np.unique(raters)), len(np.unique(prompts)))
    if clusters < 2:
        return None
    share = hits.mean()
    scores = (hits - share)[:, None] / len(hits)
    variance = two_way_covariance(scores, raters, prompts)[0, 0]
    return effective_wilson(float(share), variance, len(hits), clusters - 1)


def two_way_covariance(scores: Array, raters: Array, prompts: Array) -> Array:
    """Covariance (k, k) of the sum of scores (n, k) with clusters of raters and of prompts.

    Raters plus prompts minus what both count, each with the factor g / (g - 1) for its g clusters. The difference may
    have no square root; then its negative directions are set to none, as its authors advise.
    """
    both = np.unique(np.stack([raters, prompts]), axis=1, return_inverse=True)[1]
    covariance = (
        one_way_covariance(scores, raters) + one_way_covariance(scores, prompts) - one_way_covariance(scores, both)
    )
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def bootstrap_shares(
    outcomes: Array, raters: Array, prompts: Array, rng: np.random.Generator, draws: int = 1000
) -> list[tuple[float, float]]:
    """The 95 % percentile intervals of the columns' means of outcomes (n, k), raters and prompts drawn anew."""
    weights = _drawn(raters, rng, draws) * _drawn(prompts, rng, draws)  # (draws, n)
    totals = weights.sum(axis=1)
    means = (weights @ outcomes)[totals > 0] / totals[totals > 0, None]  # (draws, k)
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def student(degrees: float) -> float:
    """The two-sided 95 % quantile of Student's t."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees))


def effective_wilson(share: float, variance: float, total: int, degrees: float) -> tuple[float, float]:
    """Wilson's interval on the number of independent answers that would vary as much, but never on more than `total`.

    Where all agree there is no variance to see; then each degree of freedom, and one, counts as an answer: the careful
    end.
    """
    alone = share * (1 - share)
    effective = degrees + 1 if alone == 0 else min(total, alone / variance if variance > 0 else total)
    return wilson(share, effective, student(degrees))


def one_way_covariance(scores: Array, clusters: Array) -> Array:
    """Covariance (k, k) of the sum of scores (n, k) with one kind of clusters, with the factor g / (g - 1)."""
    count = int(clusters.max()) + 1
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, clusters, scores)
    present = len(np.unique(clusters))
    return sums.T @ sums * (present / (present - 1) if present > 1 else 1.0)


def _drawn(clusters: Array, rng: np.random.Generator, draws: int) -> Array:
    """How often each answer's cluster is drawn, (draws, n)."""
    names, places = np.unique(clusters, return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, places]
