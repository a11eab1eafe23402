"""The results of a study as HTML: figures of plain SVG that follow the page's colours, and tables of all numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .charts import AXIS, chart, dot, interval, marks, percent, signed, stacked_bar, whisker
from .results import CategoryResult, PairResult, Preference, Results, Share, SignTest
from .store import Status


def results_html(results: Results, status: Status, methods_text: str, files: Sequence[tuple[str, str]]) -> str:
    """The page's main part. `files` are names and addresses of what can be downloaded."""
    return "".join(
        (
            _lead(results, status),
            _preferences(results),
            _strengths(results),
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


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


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
    when = f"Answers from {_day(results.first_at)} to {_day(results.last_at)}" if results.first_at else "No answers yet"
    when = "Answers of simulated raters" if results.simulated else when
    state = f"closed on {_day(status.closed_at)}" if status.closed_at else "open"
    return (
        f'<section class="lead"><h1>{escape(results.question)}</h1>{"".join(notices)}<dl class="facts">{listed}</dl>'
        f'<p class="note">{when}; the study is {state}. Plan <span class="mono">{results.plan_digest[:16]}'
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
        f'<div class="bar"><p>{name} <small>{count}</small></p>{stacked_bar(shares, pair)}</div>'
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
        f" ({interval(pair.sided.low, pair.sided.high)})</small></p>{whisker(pair.sided)}</div>"
        f'<p class="note">{_tests(pair.sign_raw, pair.sign_majority)} Indifferent: {pair.tied:,} ties,'
        f" {pair.bad:,} times both bad.</p>"
        f"<details><summary>Numbers and intervals</summary>{_share_table(rows, 'Shares')}</details></article>"
    )


def _tests(raw: SignTest, majority: SignTest) -> str:
    return (
        f"Sign test on answers that took a side: {raw.first:,} to {raw.second:,}, {_p(raw.p)}, corrected for the number"
        f" of pairs {_p(raw.holm)}; on majorities {majority.first:,} to {majority.second:,}, {_p(majority.p)},"
        f" corrected {_p(majority.holm)}. It takes answers for independent: where raters and prompts differ, its p is"
        " too small, and the intervals above are to be believed."
    )


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
    title = "<section><h2>Strength</h2>"
    if not results.strengths:
        return f'{title}<p class="note">{escape(results.strengths_note)}</p></section>'
    bounds = [abs(edge) for s in results.strengths for edge in (s.value, s.low, s.high) if edge is not None]
    reach = max([0.2, *bounds]) * 1.1

    def place(value: float) -> float:
        return 0.5 + value / (2 * reach)

    places = [(f"{100 * place(value):.3f}%", signed(value) if value else "0") for value in marks(reach)]
    ticks = "".join(f'<line x1="{at}" x2="{at}" y1="8" y2="28"/>' for at, _ in places)
    rows = []
    for strength in results.strengths:
        shown = f"{signed(strength.value)} ({interval(strength.low, strength.high, shares=False)})"
        ends = (None if edge is None else place(edge) for edge in (strength.low, strength.high))
        drawn = chart(36, f"{strength.method} {shown}", f"{AXIS}{ticks}{dot(place(strength.value), *ends)}")
        rows.append(f'<div class="bar"><p>{escape(strength.method)} <small>{shown}</small></p>{drawn}</div>')
    axis = "".join(f'<text class="axis" x="{at}" y="12" text-anchor="middle">{text}</text>' for at, text in places)
    return (
        f'{title}<p class="note">Bradley–Terry strengths in log-odds against the average method, ties as half a win for'
        f' each, with 95 % intervals.</p>{"".join(rows)}<div class="bar" aria-hidden="true"><p></p>'
        f'<svg class="chart" height="16">{axis}</svg></div></section>'
    )


def _categories(results: Results) -> str:
    if len({row.category for row in results.categories}) < 2:
        return ""
    by_pair: dict[tuple[str, str], list[CategoryResult]] = {}
    for row in results.categories:
        by_pair.setdefault((row.first, row.second), []).append(row)
    tables = "".join(
        f"<details><summary>{escape(first)} against {escape(second)}</summary>"
        f"{_category_table('All answers', 'answers', first, second, [(row.category, row.raw) for row in rows])}"
        f"{_category_table('Majorities', 'pairs', first, second, [(row.category, row.majority) for row in rows])}"
        "</details>"
        for (first, second), rows in by_pair.items()
    )
    return f"<section><h2>By category</h2>{tables}</section>"


def _category_table(caption: str, unit: str, first: str, second: str, rows: Iterable[tuple[str, Preference]]) -> str:
    cells = (
        (
            category,
            f"{shares.first.total:,}",
            percent(shares.first.value),
            interval(shares.first.low, shares.first.high),
            percent(shares.indifferent.value),
            percent(shares.second.value),
            interval(shares.second.low, shares.second.high),
        )
        for category, shares in rows
    )
    return _table(("category", unit, first, "95 %", "indifferent", second, "95 %"), cells, caption)


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
