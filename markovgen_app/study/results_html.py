"""The results of a study as HTML: figures of plain SVG that follow the page's colours, and tables of all numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .results import CategoryResult, PairResult, Preference, Results, Share, SignTest
from .store import Status

_NARROW = 0.09  # a part of a bar that is smaller has no room for its number
_AXIS = '<line x1="0" x2="100%" y1="18" y2="18"/>'


def results_html(results: Results, status: Status, methods_text: str, files: Sequence[tuple[str, str]]) -> str:
    """The page's main part. `files` are names and addresses of what can be downloaded."""
    return "".join(
        (
            _lead(results, status),
            _preferences(results),
            _strengths(results) if results.strengths else "",
            _categories(results),
            _trust(results),
            _exclusions(results),
            f'<section><h2>For the paper</h2><p class="methods" id="methods-text">{escape(methods_text)}</p>'
            '<p><button type="button" class="secondary" id="copy">Copy this paragraph</button></p></section>',
            '<section><h2>Downloads</h2><ul class="links">',
            "".join(f'<li><a href="{escape(address)}" download>{escape(name)}</a></li>' for name, address in files),
            "</ul></section>",
        )
    )


def percent(value: float | None) -> str:
    """ "41.2 %", and a dash where there is nothing."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def interval(low: float | None, high: float | None, *, shares: bool = True) -> str:
    """ "36.0 – 46.5 %", and a dash where there is none."""
    if low is None or high is None:
        return "–"
    return f"{100 * low:.1f} – {100 * high:.1f}\u202f%" if shares else f"{_signed(low)} … {_signed(high)}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _lead(results: Results, status: Status) -> str:
    notices = []
    if results.simulated:
        notices.append('<p class="notice loud">Simulated: no person gave these answers.</p>')
    if results.preliminary:
        short = [pair for pair in results.pairs if pair.preliminary]
        lines = "; ".join(
            f"{escape(pair.first)} against {escape(pair.second)} has {pair.votes:,} of {pair.target:,}"
            for pair in short
        )
        notices.append(
            f'<p class="notice"><strong>Preliminary.</strong> Fewer answers than planned: {lines}. Differences may'
            " vanish or appear until then.</p>"
        )
    facts = [
        ("answers analysed", f"{results.votes:,}"),
        ("raters", f"{results.raters:,}"),
        ("prompts", f"{results.prompts:,}"),
        ("median seconds", "–" if results.median_seconds is None else f"{results.median_seconds:.1f}"),
        ("finished their session", f"{status.finished:,} <small>of {status.raters:,}</small>"),
        ("withdrew", f"{status.withdrawn:,}"),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    when = f"{_day(results.first_at)} to {_day(results.last_at)}" if results.first_at else "no answers yet"
    state = f"closed on {_day(status.closed_at)}" if status.closed_at else "open"
    return (
        f'<section class="lead"><h1>{escape(results.question)}</h1>{"".join(notices)}<dl class="facts">{listed}</dl>'
        f'<p class="note">Answers from {when}; the study is {state}. Plan <span class="mono">{results.plan_digest[:16]}'
        "</span>, frozen before the first answer.</p></section>"
    )


def _day(moment: str | None) -> str:
    return (moment or "")[:10]


def _preferences(results: Results) -> str:
    return (
        '<section><h2>Preference</h2><p class="note">Raters saw two pictures of one prompt side by side, without their'
        " methods. All answers count every judgement; the majority counts pairs of pictures, of which a side wins what"
        f" more than half of {results.raters_per_pair} raters gave to it.</p>"
        f'<div class="pairs">{"".join(_pair(pair, results) for pair in results.pairs)}</div></section>'
    )


def _pair(pair: PairResult, results: Results) -> str:
    first, second = escape(pair.first), escape(pair.second)
    bars = (
        ("All answers", f"{pair.raw.first.total:,} answers", pair.raw),
        (f"Majority of {results.raters_per_pair}", f"{pair.majority.first.total:,} pairs", pair.majority),
    )
    drawn = "".join(
        f'<div class="bar"><p>{name} <small>{count}</small></p>{_bar(shares, pair)}</div>'
        for name, count, shares in bars
    )
    rows = [
        (pair.first, pair.raw.first),
        ("indifferent", pair.raw.indifferent),
        (pair.second, pair.raw.second),
        (f"{pair.first}, of sided answers", pair.sided),
        (f"{pair.first}, by majority", pair.majority.first),
        ("indifferent, by majority", pair.majority.indifferent),
        (f"{pair.second}, by majority", pair.majority.second),
    ]
    return (
        f'<article class="pair"><h3>{first} against {second}</h3>'
        '<div class="bar"><span></span><p class="ends">'
        f"<span>{first}</span><span>indifferent</span><span>{second}</span></p></div>{drawn}"
        f'<div class="bar"><p>{first}, of sided answers <small>{percent(pair.sided.value)}'
        f" ({interval(pair.sided.low, pair.sided.high)})</small></p>{_whisker(pair.sided)}</div>"
        f'<p class="note">{_tests(pair.sign_raw, pair.sign_majority)} Indifferent: {pair.tied:,} ties,'
        f" {pair.bad:,} times both bad.</p>"
        f"<details><summary>Numbers and intervals</summary>{_share_table(rows, 'Shares')}</details></article>"
    )


def _tests(raw: SignTest, majority: SignTest) -> str:
    return (
        f"Sign test on answers that took a side: {raw.first:,} to {raw.second:,}, {_p(raw.p)}, corrected for the number"
        f" of pairs {_p(raw.holm)}; on majorities {majority.first:,} to {majority.second:,}, {_p(majority.p)},"
        f" corrected {_p(majority.holm)}."
    )


def _bar(shares: Preference, pair: PairResult) -> str:
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
    return _chart(44, label, "".join(parts), "chart shares")


def _whisker(share: Share) -> str:
    """A share with its interval on a line from 0 to 100 %."""
    if share.value is None:
        return '<p class="muted">no sided answers yet</p>'
    ticks = "".join(
        f'<line x1="{at}%" x2="{at}%" y1="8" y2="28"/>'
        f'<text class="axis" x="{at}%" y="44" text-anchor="{anchor}">{at}%</text>'
        for at, anchor in zip((0, 25, 50, 75, 100), ("start", "middle", "middle", "middle", "end"), strict=True)
    )
    label = f"{percent(share.value)}, interval {interval(share.low, share.high)}"
    return _chart(48, label, f"{_AXIS}{ticks}{_dot(share.value, share.low, share.high)}")


def _chart(height: int, label: str, parts: str, kind: str = "chart") -> str:
    """Across the whole width, said in words by its label."""
    return f'<svg class="{kind}" height="{height}" role="img" aria-label="{escape(label)}">{parts}</svg>'


def _dot(value: float, low: float | None, high: float | None) -> str:
    """A point with its interval, in shares of the width, at the height of 18."""
    line = ""
    if low is not None and high is not None:
        line = f'<line class="whisker" x1="{100 * low:.3f}%" x2="{100 * high:.3f}%" y1="18" y2="18"/>'
    return f'{line}<circle class="dot" cx="{100 * value:.3f}%" cy="18" r="7"/>'


def _share_table(rows: Iterable[tuple[str, Share]], caption: str) -> str:
    cells = (
        (
            name,
            f"{share.count:,} of {share.total:,}",
            percent(share.value),
            interval(share.low, share.high),
            interval(*(share.wilson or (None, None))),
            interval(*(share.bootstrap or (None, None))),
        )
        for name, share in rows
    )
    head = ("", "count", "share", "95 %, clustered", "Wilson, as if independent", "bootstrap")
    return _table(head, cells, caption)


def _strengths(results: Results) -> str:
    bounds = [abs(edge) for s in results.strengths for edge in (s.value, s.low, s.high) if edge is not None]
    reach = max([0.5, *bounds]) * 1.1

    def place(value: float | None) -> float | None:
        return None if value is None else 0.5 + value / (2 * reach)

    rows = []
    for strength in sorted(results.strengths, key=lambda s: -s.value):
        label = f"{strength.method} {_signed(strength.value)}, {interval(strength.low, strength.high, shares=False)}"
        dot = _dot(0.5 + strength.value / (2 * reach), place(strength.low), place(strength.high))
        chart = _chart(36, label, f'{_AXIS}<line x1="50%" x2="50%" y1="4" y2="32"/>{dot}')
        shown = f"{_signed(strength.value)} ({interval(strength.low, strength.high, shares=False)})"
        rows.append(f'<div class="bar"><p>{escape(strength.method)} <small>{shown}</small></p>{chart}</div>')
    note = f" {escape(results.strengths_note)}" if results.strengths_note else ""
    return (
        '<section><h2>Strength</h2><p class="note">Bradley–Terry strengths in log-odds against the average method, with'
        f" 95 % intervals.{note}</p>{''.join(rows)}</section>"
    )


def _categories(results: Results) -> str:
    if len({row.category for row in results.categories}) < 2:
        return ""
    by_pair: dict[tuple[str, str], list[CategoryResult]] = {}
    for row in results.categories:
        by_pair.setdefault((row.first, row.second), []).append(row)
    tables = "".join(
        f"<details><summary>{escape(first)} against {escape(second)}</summary>{_category_table(first, second, rows)}"
        "</details>"
        for (first, second), rows in by_pair.items()
    )
    return f"<section><h2>By category</h2>{tables}</section>"


def _category_table(first: str, second: str, rows: Sequence[CategoryResult]) -> str:
    cells = (
        (
            row.category or "none",
            f"{row.raw.first.total:,}",
            percent(row.raw.first.value),
            percent(row.raw.indifferent.value),
            percent(row.raw.second.value),
            interval(row.raw.second.low, row.raw.second.high),
        )
        for row in rows
    )
    return _table(("category", "answers", first, "indifferent", second, f"{second}, 95 %"), cells, "All answers")


def _trust(results: Results) -> str:
    agreement = results.agreement
    alpha = "–" if agreement.alpha is None else f"{agreement.alpha:.2f}"
    spread = "–" if agreement.low is None or agreement.high is None else f"{agreement.low:.2f} – {agreement.high:.2f}"
    rows = [
        ("left side chosen, of sided answers", results.left_share),
        ("repeats answered alike, sides swapped", results.repeats),
        ("attention checks passed", results.checks),
    ]
    cells = [
        ("Krippendorff’s alpha between raters", f"{agreement.items:,} pairs", alpha, spread),
        *(
            (name, f"{share.count:,} of {share.total:,}", percent(share.value), interval(share.low, share.high))
            for name, share in rows
        ),
        ("skipped", f"{results.skipped:,}", "", ""),
    ]
    return f"<section><h2>Can it be trusted?</h2>{_table(('', 'count', 'value', '95 %'), cells, '')}</section>"


def _exclusions(results: Results) -> str:
    cells = [
        (exclusion.reason, f"{len(exclusion.raters):,}", f"{exclusion.votes:,}") for exclusion in results.exclusions
    ]
    return (
        f"<section><h2>Left out</h2><p class='note'>{results.raters_left_out:,} raters in all, by rules that were fixed"
        " before the first answer. Their answers stay in the exports.</p>"
        f"{_table(('because the rater', 'raters', 'answers'), cells, '')}</section>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """The first column names the row, the others are numbers."""

    def cell(tag: str, text: str, column: int, scope: str = "") -> str:
        kind = "number" if column else "wrap"
        return f'<{tag}{scope} class="{kind}">{escape(text)}</{tag}>'

    top = "".join(
        cell("th", text, column, ' scope="col"') if text else '<td class="wrap"></td>'
        for column, text in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            cell("td", text, column) if column else cell("th", text, 0, ' scope="row"')
            for column, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption or "table")}"><table>{titled}'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
