"""What most raters of an item said, and how sure the share of such verdicts is.

The verdicts of two items hang together only through raters they share. That dependence is too weak to be seen in the
verdicts of one study, but it can be carried over from the votes, where it is seen well: a rater's taste moves votes,
and a vote moves a verdict as often as it is pivotal.
"""

from __future__ import annotations

import numpy as np

from .intervals import Array, drawn, effective_wilson, occupied, one_way_covariance, percentiles

FIRST, INDIFFERENT, SECOND = range(3)


def verdicts(counts: Array) -> Array:
    """The outcome (…, items) that more than half of an item's votes gave, of counts (…, items, 3); else INDIFFERENT."""
    most = 2 * counts.max(axis=-1, initial=0) > counts.sum(axis=-1)
    return np.where(most, counts.argmax(axis=-1), INDIFFERENT)


def pivots(counts: Array) -> Array:
    """For each outcome (3,): how much more often it is the verdict if one vote, the others as they are, is for it.

    Each vote of each item is turned into the outcome, and into the two others as often as those are given overall.
    """
    shares = counts.sum(axis=0) / counts.sum()
    one = np.eye(3, dtype=int)
    found = np.zeros(3)
    for cast in range(3):
        others = counts - one[cast]
        won = np.stack([np.eye(3)[verdicts(others + one[turned])] for turned in range(3)])  # (turned, items, outcome)
        for outcome in range(3):
            rest = [other for other in range(3) if other != outcome]
            odds = shares[rest] / shares[rest].sum() if shares[rest].any() else np.full(2, 0.5)
            gains = won[outcome, :, outcome] - odds @ won[rest, :, outcome]  # (items,)
            found[outcome] += gains @ counts[:, cast]
    return found / counts.sum()


def majority_intervals(counts: Array, outcomes: Array, raters: Array) -> list[tuple[float, float] | None]:
    """95 % intervals of the shares (3,) of verdicts; None with fewer than two items or two raters.

    `counts` (items, 3) are the items' votes; `outcomes` and `raters` (votes,) are the same votes one by one. To the
    variance of independent verdicts comes what raters add to the variance of votes, times the square of `pivots` and
    of the number of votes an item: a verdict has that many raters. Student's t has Satterthwaite's degrees of freedom,
    but never fewer than the smaller number of clusters has.
    """
    items, clusters = len(counts), occupied(raters)
    if items < 2 or clusters < 2:
        return [None] * 3
    given = np.eye(3)[outcomes]  # (votes, 3)
    scores = (given - given.mean(axis=0)) / len(given)
    with_raters = np.diag(one_way_covariance(scores, raters))  # (3,)
    without = (scores**2).sum(axis=0) * len(scores) / (len(scores) - 1)
    scale = (pivots(counts) * len(outcomes) / items) ** 2
    shares = np.bincount(verdicts(counts), minlength=3) / items
    alone = shares * (1 - shares) / (items - 1)
    variance = alone + scale * (with_raters - without)
    doubt = alone**2 / (items - 1) + (scale * with_raters) ** 2 / (clusters - 1)
    degrees = np.divide(variance**2, doubt, out=np.zeros(3), where=doubt > 0)
    degrees = np.maximum(degrees, min(items, clusters) - 1)
    return [
        effective_wilson(float(share), float(spread), items, float(free))
        for share, spread, free in zip(shares, variance, degrees, strict=True)
    ]


def bootstrap_majorities(
    outcomes: Array, raters: Array, items: Array, needed: int, rng: np.random.Generator, draws: int = 1000
) -> list[tuple[float, float] | None]:
    """The 95 % percentile intervals of the shares (3,) of verdicts, raters and items drawn anew.

    `outcomes`, `raters` and `items` (votes,) are all votes on a pair, also on items with fewer than the `needed` ones.
    Each draw is analysed as the study is: a rater who is drawn twice votes twice, and items with `needed` votes or more
    have a verdict. None where no draw has such an item.
    """
    names, places = np.unique(items, return_inverse=True)
    cells, starts = np.unique(np.sort(3 * places + outcomes), return_index=True)
    by_cell = drawn(raters, rng, draws)[:, np.argsort(3 * places + outcomes)]  # (draws, votes)
    flat = np.zeros((draws, 3 * len(names)), int)
    flat[:, cells] = np.add.reduceat(by_cell, starts, axis=1)
    counts = flat.reshape(draws, len(names), 3)  # (draws, items · outcomes) -> (draws, items, outcomes)
    weights = drawn(np.arange(len(names)), rng, draws) * (counts.sum(axis=2) >= needed)  # (draws, items)
    totals = weights.sum(axis=1)
    if not totals.any():
        return [None] * 3
    found = verdicts(counts)
    hits = np.stack([(weights * (found == outcome)).sum(axis=1) for outcome in range(3)], axis=1)  # (draws, outcomes)
    return [*percentiles(hits[totals > 0] / totals[totals > 0, None])]
