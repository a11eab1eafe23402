"""Krippendorff's alpha for nominal data, from counts, so that it can be drawn anew thousands of times."""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL, Array


def alpha(counts: Array, weights: Array | None = None) -> Array:
    """Alpha of units, NaN where every answer is the same.

    `counts` (units, categories) says how often each answer was given to a unit; units with fewer than two answers do
    not count. `weights` (draws, units) repeats units and gives one alpha a draw; without it the result is a scalar.
    Krippendorff, "Content Analysis", 2018, section 12.3, by way of the coincidence matrix.
    """
    counts = np.asarray(counts, float)
    sizes = counts.sum(axis=1)
    paired = sizes >= 2
    counts, sizes = counts[paired], sizes[paired]
    weights = np.ones(len(counts)) if weights is None else np.asarray(weights, float)[..., paired]
    agreeing = (counts * (counts - 1)).sum(axis=1) / (sizes - 1)  # (units,)
    totals = weights @ sizes  # (draws,)
    categories = weights @ counts  # (draws, categories)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = totals - (categories * (categories - 1)).sum(axis=-1) / (totals - 1)
        return 1 - (totals - weights @ agreeing) / expected


def alpha_interval(counts: Array, prompts: Array, rng: np.random.Generator, draws: int) -> tuple[float, float] | None:
    """The 95 % percentile interval of alpha with the units' prompts (units,) drawn anew."""
    names, places = np.unique(prompts, return_inverse=True)
    if len(names) < 2 or not draws:
        return None
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, places]
    alphas = alpha(counts, weights)
    alphas = alphas[np.isfinite(alphas)]
    if not len(alphas):
        return None
    low, high = np.quantile(alphas, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)
