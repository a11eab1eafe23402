"""What cases add up to: means with intervals, seams against the true pictures', and variants against one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import metrics


def summary(values: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, Any]:
    """Means with their intervals; of the seams, the ratio to the true pictures'."""
    table: dict[str, Any] = {}
    for name, each in values.items():
        if name == "model_seconds":
            table[name] = float(np.median(each))
        elif name in ("seam", "band"):
            table[f"{name}_ratio"] = _ratio(each, values[f"{name}_true"], weights)
        elif not name.endswith("_true"):
            table[name] = metrics.mean_interval(each, weights)
    return table


def counterparts(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The variants that each is compared with: those before it that differ from it in their method alone."""
    names = list(variants)
    options = {
        name: {key: value for key, value in fields.items() if key != "method"} for name, fields in variants.items()
    }
    return {
        name: [other for other in names[:place] if options[other] == options[name]] for place, name in enumerate(names)
    }


def difference(
    values: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], weights: np.ndarray
) -> dict[str, metrics.Interval]:
    """Means of one variant's measures less another's, case by case, with their intervals; not of times and seams."""
    left_out = ("model_seconds", "seam", "band", "seam_true", "band_true")
    return {
        name: metrics.mean_interval(each - others[name], weights)
        for name, each in values.items()
        if name not in left_out
    }


def _ratio(made: np.ndarray, true: np.ndarray, weights: np.ndarray) -> metrics.Interval:
    """Ratio of two means of differences over the same cases, with its interval.

    Flat true pictures have no difference to divide by: NaN where all are flat, and for the interval where all of a
    resample's are.
    """
    there = ~(np.isnan(made) | np.isnan(true))
    made, true, share = made[there], true[there], weights[:, there]
    nothing = float("nan")
    if not true.any():
        return {"value": nothing, "low": nothing, "high": nothing}
    value, below = float(made.mean() / true.mean()), share @ true  # (R,)
    if not below.all():
        return {"value": value, "low": nothing, "high": nothing}
    return metrics.percentiles(value, (share @ made) / below)
