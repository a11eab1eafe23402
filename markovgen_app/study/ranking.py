"""Bradley–Terry strengths from comparisons, ties counting as half a win for each."""

from __future__ import annotations

import evalica
import numpy as np
from scipy.sparse.csgraph import connected_components

from .intervals import Array, occupied, student, two_way_covariance


def bradley_terry(first: Array, second: Array, wins: Array, weights: Array | None = None) -> Array | None:
    """Log-odds strengths (methods,), zero on average, of the most likely model.

    Comparison k was between methods `first[k]` and `second[k]`; `wins[k]` is 1 if the first won, 0.5 for a tie, 0 if it
    lost. None where the votes leave some strength unbounded (Ford 1957): unless every method has beaten every other, at
    least through a chain of others, the most likely strengths are infinite.
    """
    methods = int(max(first.max(), second.max())) + 1
    points = _points(first, second, wins, weights, methods)
    if connected_components(points > 0, connection="strong")[0] > 1:
        return None
    rows, columns = np.nonzero(points)
    scores = evalica.bradley_terry(
        rows.tolist(),
        columns.tolist(),
        [evalica.Winner.X] * len(rows),
        weights=points[rows, columns].tolist(),
        tolerance=1e-14,
        limit=100_000,
    ).scores
    strengths = np.log(scores.reindex(range(methods)).to_numpy())
    return strengths - strengths.mean()


def strength_intervals(
    strengths: Array, first: Array, second: Array, wins: Array, raters: Array, prompts: Array
) -> list[tuple[float, float]] | None:
    """95 % intervals of the strengths that know both clusters; None with fewer than two raters or two prompts.

    The sandwich of the model's curvature around the clustered covariance of its scores, with Student's t on the
    smaller number of clusters. It does not need the model to be true: what it then covers are the strengths that
    describe all raters and prompts best. Where the variance, a difference, comes out smaller than that of independent
    votes, theirs is taken.
    """
    clusters = min(occupied(raters), occupied(prompts))
    if clusters < 2:
        return None
    methods = len(strengths)
    chance = 1 / (1 + np.exp(strengths[second] - strengths[first]))  # (n,)
    direction = np.eye(methods)[first] - np.eye(methods)[second]  # (n, methods)
    curvature = (direction * (chance * (1 - chance))[:, None]).T @ direction
    inverse = np.linalg.inv(curvature + 1)  # the strengths' common level, which nothing tells, is held at zero
    scores = direction * (wins - chance)[:, None]
    clustered, alone = (
        np.diag(inverse @ covariance @ inverse)
        for covariance in (two_way_covariance(scores, raters, prompts), scores.T @ scores)
    )
    half = student(clusters - 1) * np.sqrt(np.maximum(clustered, alone))
    return [(float(value - reach), float(value + reach)) for value, reach in zip(strengths, half, strict=True)]


def _points(first: Array, second: Array, wins: Array, weights: Array | None, methods: int) -> Array:
    """How many points, ties halved, the method of the row won against that of the column."""
    weights = np.ones(len(wins)) if weights is None else weights
    points = np.zeros((methods, methods))
    np.add.at(points, (first, second), wins * weights)
    np.add.at(points, (second, first), (1 - wins) * weights)
    return points
