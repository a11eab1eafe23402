"""The two figures of a study, as PNG and SVG: preferences as Figure 5 of the MarkovGen paper draws them, and strengths.

Matplotlib's figures are made and rendered without pyplot, so several threads can plot at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import palette
from .results import PairResult, Preference, Results

_FIRST, _NEITHER, _SECOND = (colour[0] for colour in (palette.MUTED, palette.LINE, palette.ACCENT))
_INK, _MUTED, _ON_ACCENT = palette.INK[0], palette.MUTED[0], palette.ON_ACCENT[0]
_SMALL: dict[str, Any] = {"color": _MUTED, "fontsize": 9}
_NARROW = 0.06  # a part of a bar that is smaller has no room for its number


def render(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    """The figure's file. The same figure gives the same bytes; text in SVG stays text."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "markovgen"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, dpi=200, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def preference_figure(results: Results) -> Figure:
    """Two stacked bars for every pair of methods: all answers, and majorities.

    The line below a bar is the interval of its left part, which ends where that part could end; the line above that of
    its right part.
    """
    figure = Figure(figsize=(8, 1.0 + 1.6 * len(results.pairs)), layout="constrained")
    panels = figure.subplots(len(results.pairs), 1, sharex=True, squeeze=False)[:, 0]
    for panel, pair in zip(panels, results.pairs, strict=True):
        _pair(panel, pair, results)
    panels[-1].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    panels[-1].set_xlabel("Lines: 95% intervals, below a bar of its left part, above a bar of its right part", **_SMALL)
    _title(figure, results, results.question)
    return figure


def strength_figure(results: Results) -> Figure:
    """Bradley–Terry strengths, best on top, with their 95 % intervals."""
    rows = results.strengths[::-1]
    figure = Figure(figsize=(8, 1.4 + 0.45 * max(len(rows), 1)), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0, color=_NEITHER, linewidth=1)
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            panel.plot([row.low, row.high], [place, place], color=_INK, linewidth=1.6, solid_capstyle="butt")
        panel.plot(row.value, place, "o", color=_SECOND, markersize=8)
        panel.annotate(
            f"{row.value:+.2f}".replace("-", "−"),
            (row.value, place),
            (0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=_INK,
        )
    panel.set_yticks(range(len(rows)), [_plain_text(row.method) for row in rows])
    panel.set_ylim(-0.6, max(len(rows), 1) - 0.3)
    if not rows:
        panel.set_xticks([])
        panel.text(0.5, 0.5, results.strengths_note, transform=panel.transAxes, ha="center", color=_MUTED)
    panel.set_xlabel("log-odds against the average method, with 95% intervals", **_SMALL)
    _plain(panel)
    _title(figure, results, "Bradley–Terry strength")
    return figure


def _pair(panel: Axes, pair: PairResult, results: Results) -> None:
    bars = ((1.15, "all answers", pair.raw), (0, f"majority of {results.raters_per_pair}", pair.majority))
    labels = []
    for height, name, shares in bars:
        labels.append(f"{name}\nn = {shares.first.total:,}")
        if shares.first.total:
            _bar(panel, height, shares)
    panel.set_yticks([1.15, 0], labels)
    panel.set_xlim(0, 1)
    panel.set_ylim(-0.6, 1.75)
    panel.set_title(_plain_text(pair.first), loc="left", fontsize=10, color=_FIRST, weight="bold", pad=4)
    panel.set_title("indifferent", **_SMALL, pad=4)
    panel.set_title(_plain_text(pair.second), loc="right", fontsize=10, color=_SECOND, weight="bold", pad=4)
    _plain(panel)


def _bar(panel: Axes, height: float, shares: Preference) -> None:
    start = 0.0
    parts = (
        (shares.first, _FIRST, "white"),
        (shares.indifferent, _NEITHER, _INK),
        (shares.second, _SECOND, _ON_ACCENT),
    )
    for share, colour, ink in parts:
        width = share.value or 0.0
        panel.barh(height, width, left=start, height=0.7, color=colour)
        if width >= _NARROW:
            panel.text(start + width / 2, height, f"{width:.0%}", ha="center", va="center", color=ink, fontsize=10)
        start += width
    if shares.first.low is not None and shares.first.high is not None:
        _line(panel, shares.first.low, shares.first.high, height - 0.44, _FIRST)
    if shares.second.low is not None and shares.second.high is not None:
        _line(panel, 1 - shares.second.high, 1 - shares.second.low, height + 0.44, _SECOND)


def _line(panel: Axes, low: float, high: float, height: float, colour: str) -> None:
    panel.plot([low, high], [height] * 2, "|-", color=colour, linewidth=1.6, markersize=6, clip_on=False)


def _plain_text(text: str, longest: int = 32) -> str:
    """Cut to what there is room for, and with dollars that are no formula."""
    return (text if len(text) <= longest else f"{text[: longest - 1]}…").replace("$", r"\$")


def _plain(panel: Axes) -> None:
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(_NEITHER)
    panel.tick_params(length=0, labelsize=9, colors=_MUTED)


def _title(figure: Figure, results: Results, text: str) -> None:
    marks: Sequence[str] = [
        mark for mark, holds in (("simulated", results.simulated), ("preliminary", results.preliminary)) if holds
    ]
    text = _plain_text(text, 70)
    figure.suptitle(f"{text} ({', '.join(marks)})" if marks else text, fontsize=11, color=_INK, x=0.01, ha="left")
