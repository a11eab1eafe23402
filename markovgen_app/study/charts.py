"""Figures of the results page, plain SVG across the whole width in the page's colours, and how numbers are written."""

from __future__ import annotations

from html import escape

from .results import PairResult, Preference, Share

_NARROW = 0.09  # a part of a bar that is smaller has no room for its number
AXIS = '<line x1="0" x2="100%" y1="18" y2="18"/>'


def percent(value: float | None) -> str:
    """ "41.2 %", and a dash where there is nothing."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def interval(low: float | None, high: float | None, *, shares: bool = True) -> str:
    """ "36.0 – 46.5 %", and a dash where there is none."""
    if low is None or high is None:
        return "–"
    return f"{100 * low:.1f} – {100 * high:.1f}\u202f%" if shares else f"{signed(low)} … {signed(high)}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def stacked_bar(shares: Preference, pair: PairResult) -> str:
    """Three parts that add up to one, as in Figure 5 of the MarkovGen paper."""
    if not shares.first.total:
        return '<p class="muted">no answers yet</p>'
    parts, start = [], 0.0
    for share, kind in ((shares.first, "first"), (shares.indifferent, "neither"), (shares.second, "second")):
        width = share.value or 0.0
        parts.append(f'<rect class="{kind}" x="{100 * start:.3f}%" width="{100 * width:.3f}%" height="44"/>')
        if width >= _NARROW:
            middle = 100 * (start + width / 2)
            parts.append(
                f'<text class="on-{kind}" x="{middle:.3f}%" y="27" text-anchor="middle">{100 * width:.0f}%</text>'
            )
        start += width
    label = (
        f"{pair.first} {percent(shares.first.value)}, indifferent {percent(shares.indifferent.value)},"
        f" {pair.second} {percent(shares.second.value)}"
    )
    return chart(44, label, "".join(parts), "chart shares")


def whisker(share: Share) -> str:
    """A share with its interval on a line from 0 to 100 %."""
    if share.value is None:
        return '<p class="muted">no sided answers yet</p>'
    ticks = "".join(
        f'<line x1="{at}%" x2="{at}%" y1="8" y2="28"/>'
        f'<text class="axis" x="{at}%" y="44" text-anchor="{anchor}">{at}%</text>'
        for at, anchor in zip((0, 25, 50, 75, 100), ("start", "middle", "middle", "middle", "end"), strict=True)
    )
    label = f"{percent(share.value)}, interval {interval(share.low, share.high)}"
    return chart(48, label, f"{AXIS}{ticks}{dot(share.value, share.low, share.high)}")


def chart(height: int, label: str, parts: str, kind: str = "chart") -> str:
    """Across the whole width, said in words by its label."""
    return f'<svg class="{kind}" height="{height}" role="img" aria-label="{escape(label)}">{parts}</svg>'


def dot(value: float, low: float | None, high: float | None) -> str:
    """A point with its interval, in shares of the width, at the height of 18."""
    line = ""
    if low is not None and high is not None:
        line = f'<line class="whisker" x1="{100 * low:.3f}%" x2="{100 * high:.3f}%" y1="18" y2="18"/>'
    return f'{line}<circle class="dot" cx="{100 * value:.3f}%" cy="18" r="7"/>'


def marks(reach: float) -> list[float]:
    """Round numbers from -reach to reach, zero among them, seven at most."""
    step = next(s * 10.0**power for power in range(-2, 9) for s in (1, 2, 5) if reach / (s * 10.0**power) < 4)
    count = int(reach / step)
    return [number * step for number in range(-count, count + 1)]
