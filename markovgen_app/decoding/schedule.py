"""Mask schedules: how many tokens are still undecided after each decoding step.

A schedule maps progress r in [0, 1] (steps done / steps) to the share of the unknown tokens that stays masked, from
1 at r = 0 down to 0 at r = 1. MaskGIT (Chang et al., 2022, arXiv 2202.04200, section 3.2) compares such functions and
chooses the cosine, which Muse (arXiv 2301.00704) keeps; the Halton sampler (arXiv 2503.17076) uses the arc cosine.
"""

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: math.cos(math.pi / 2 * progress),
    "arccos": lambda progress: math.acos(progress) * 2 / math.pi,
    "linear": lambda progress: 1 - progress,
    "square": lambda progress: 1 - progress**2,
    "cubic": lambda progress: 1 - progress**3,
}


def mask_counts(unknown: int, steps: int, schedule: str = "cosine") -> list[int]:
    """Number of tokens still masked after step 1, 2, …, `steps`.

    The counts follow ⌊unknown · schedule(step / steps)⌋, bent only so far that every step decides at least one token
    while any is left: with `unknown` ≥ `steps` they fall strictly, with `unknown` = `steps` one token a step is decided
    (autoregressive decoding), and with fewer unknown tokens than steps the last counts are all 0. The last is always 0.

    Args:
        unknown: tokens masked at the start, ≥ 0.
        steps: decoding steps, ≥ 1.
        schedule: a name in `SCHEDULES`.

    Raises:
        ValueError: for a negative `unknown`, `steps` below 1, or a schedule that does not exist.
    """
    if unknown < 0 or steps < 1:
        raise ValueError(f"a schedule needs unknown >= 0 and steps >= 1, not {unknown} and {steps}")
    if schedule not in SCHEDULES:
        raise ValueError(f"no schedule is called {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    counts: list[int] = []
    left = unknown
    for step in range(1, steps + 1):
        wanted = math.floor(unknown * SCHEDULES[schedule](step / steps))
        one_each_later = min(unknown, steps) - step
        left = max(0, min(left - 1, max(wanted, one_each_later)))
        counts.append(left)
    return counts
