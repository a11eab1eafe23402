"""A study's votes as CSV, JSONL and Parquet, the way back, its results as JSON, and its paragraph for a paper.

All formats hold the same columns, the fields of `Vote`, and all votes: exclusions belong to the analysis. Reading what
was written gives the same votes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import UserError
from .results import PairResult, Results, Share
from .votes import Vote

COLUMNS = tuple(field.name for field in fields(Vote))
_TEXT = tuple(name for name in COLUMNS if name not in ("seconds", "simulated"))
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_VOTES = TypeAdapter(list[Vote])


def to_csv(votes: Sequence[Vote]) -> bytes:
    """With a header. A cell that a spreadsheet would run as a formula has an apostrophe before it, as one that begins
    with an apostrophe has; `read_votes` takes it off again."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")  # so that both ends are quoted in cells
    writer.writeheader()
    for row in map(asdict, votes):
        writer.writerow(row | {name: _harmless(row[name]) for name in _TEXT})
    return buffer.getvalue().encode()


def to_jsonl(votes: Sequence[Vote]) -> bytes:
    """A vote a line."""
    return "".join(json.dumps(asdict(vote), ensure_ascii=False) + "\n" for vote in votes).encode()


def to_parquet(votes: Sequence[Vote]) -> bytes:
    """With text columns, `seconds` in doubles and `simulated` as true or false."""
    import fastparquet
    import pandas as pd

    types = dict.fromkeys(COLUMNS, "str") | {"seconds": "float64", "simulated": "bool"}
    rows = pd.DataFrame([asdict(vote) for vote in votes], columns=list(COLUMNS)).astype(types)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.parquet"
        fastparquet.write(str(path), rows, write_index=False, compression="ZSTD")
        return path.read_bytes()


def results_json(results: Results) -> bytes:
    """Every figure of the analysis."""
    return (json.dumps(results.as_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file that was exported, .csv, .jsonl or .parquet, to analyse them again.

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    readers: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        ".csv": _csv_rows,
        ".jsonl": _jsonl_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is no file of votes: give one that ends in {', '.join(readers)}.")
    try:
        votes = _VOTES.validate_python(reader(path))
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file of votes.") from None
    except ValidationError as error:
        first = error.errors()[0]
        row, *field = first["loc"]
        raise UserError(f"{path}, vote {int(row) + 1}: {'.'.join(map(str, field))}: {first['msg']}.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no file of votes ({error}): export it again.") from None
    for number, vote in enumerate(votes, start=1):
        if not 0 <= vote.seconds < math.inf:
            raise UserError(f"{path}, vote {number}: seconds: {vote.seconds} is no length of time.")
    return votes


def _harmless(cell: str | None) -> str:
    return f"'{cell}" if cell and cell.startswith(_FORMULA) else cell or ""


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    for row in rows:
        if None in row or None in row.values():
            raise ValueError("a row has more or fewer cells than the header")
        for name, cell in row.items():
            row[name] = cell.removeprefix("'")
        for name in ("repeat_of", "expected"):
            row[name] = row.get(name) or None
    return rows


def _jsonl_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import fastparquet

    path.open("rb").close()  # says so if it cannot be read
    try:
        rows = fastparquet.ParquetFile(str(path)).to_pandas().astype(object)
    except Exception as error:  # a damaged file fails in many ways inside the package
        raise ValueError("damaged, or not Parquet") from error
    return rows.where(rows.notna(), None).to_dict("records")


def methods_paragraph(results: Results) -> str:
    """How the study was made and what it found, with its own figures, in words that fit a paper."""
    if not results.votes:
        return "There are no answers to report yet."
    return " ".join([*_warnings(results), *_design(results), *_raters(results), *_findings(results)])


def _warnings(results: Results) -> Iterable[str]:
    if results.simulated:
        yield "SIMULATED: no person gave these answers; they show how the analysis works and nothing else."
    if results.preliminary:
        lines = (f"{pair.votes:,} of {pair.target:,} for {pair.first} against {pair.second}" for pair in results.pairs)
        short = [line for line, pair in zip(lines, results.pairs, strict=True) if pair.preliminary]
        yield f"PRELIMINARY: the study has fewer votes than were planned ({'; '.join(short)})."


def _design(results: Results) -> Iterable[str]:
    plan = results.planned
    yield (
        f"We compared {_listed(results.methods)} on {plan.prompts:,} prompts. Raters saw two images of one prompt side"
        f" by side, did not learn which method made which, and answered “{results.question}” with left, right, tie or"
        f" both bad; ties and both bad count as indifferent. Each pair of images was to be judged by"
        f" {results.raters_per_pair} raters, with sides balanced for every rater and every pair of images. A session"
        f" had {plan.session_length} pairs of images, {plan.repeat_share:.0%} of them shown twice with the sides"
        f" swapped, and {plan.checks} attention checks."
    )
    reason = (
        f", to find a preference of {plan.preference:.0%} of the sided votes with a power of {plan.power:.0%} at a"
        f" level of {plan.alpha:g}"
        if plan.by_power
        else ""
    )
    yield (
        f"The plan (SHA-256 {results.plan_digest[:16]}…), frozen before the first vote, asked for {results.target:,}"
        f" votes on each pair of methods{reason}, and for leaving out raters who"
        f" {_listed([exclusion.reason for exclusion in results.exclusions], 'or')}."
    )


def _raters(results: Results) -> Iterable[str]:
    lost = [f"{len(exclusion.raters)} who {exclusion.reason}" for exclusion in results.exclusions if exclusion.raters]
    out = (
        f"{results.raters_left_out:,} were left out by rules set beforehand ({'; '.join(lost)})"
        if lost
        else ("the rules set beforehand left out nobody")
    )
    first, last = (results.first_at or "")[:10], (results.last_at or "")[:10]
    when = "" if results.simulated else f" on {first}" if first == last else f" from {first} to {last}"
    yield (
        f"{results.raters:,} raters gave {results.votes:,} judgements{when} that were analysed; {out}, and"
        f" {results.skipped:,} judgements were skipped. The median judgement took {results.median_seconds:.1f} s."
    )
    trust = []
    if results.checks.value is not None:
        trust.append(f"passed {results.checks.value:.1%} of the attention checks")
    if results.repeats.value is not None:
        trust.append(f"gave the same answer to {_share(results.repeats)} of the repeats")
    if results.left_share.value is not None:
        trust.append(f"chose the left image in {_share(results.left_share)} of the sided answers")
    if trust:
        yield f"They {_listed(trust)}."
    if results.agreement.alpha is not None:
        yield f"Krippendorff’s α between raters was {results.agreement.alpha:.2f}."


def _findings(results: Results) -> Iterable[str]:
    yield from map(_finding, (pair for pair in results.pairs if pair.votes))
    if results.strengths:
        rows = [
            f"{row.method} {_signed(row.value, '+.2f')}{_between(row.low, row.high, '+.2f')}"
            for row in results.strengths
        ]
        yield f"Bradley–Terry strengths in log-odds against the average method were {_listed(rows)}."
    yield (
        "Brackets hold 95% intervals that allow for clusters of raters and of prompts; p-values are of exact two-sided"
        " sign tests on the majorities that took a side, corrected for the number of pairs by Holm’s method; they take"
        " majorities for independent, which raters with several prompts make them not quite."
    )


def _finding(pair: PairResult) -> str:
    raw = pair.raw
    text = (
        f"{pair.first} was preferred to {pair.second} in {_share(raw.first)} of {pair.votes:,} votes, {pair.second} in"
        f" {_share(raw.second)}, and {_share(raw.indifferent)} were indifferent"
    )
    if not pair.majority.first.total:
        return f"{text}."
    majority = [
        f"{share.value:.1%}" for share in (pair.majority.first, pair.majority.indifferent, pair.majority.second)
    ]
    test = pair.sign_majority
    p = "p < 0.001" if test.holm < 0.001 else f"p = {test.holm:.3f}"
    return (
        f"{text}; by the majority on {pair.majority.first.total:,} pairs of images {majority[0]} {pair.first},"
        f" {majority[1]} indifferent, {majority[2]} {pair.second} ({test.first} to {test.second}, {p})."
    )


def _share(share: Share) -> str:
    if share.value is None:
        return "none"
    low, high = (None, None) if share.low is None or share.high is None else (100 * share.low, 100 * share.high)
    return f"{share.value:.1%}{_between(low, high, '.1f')}"


def _between(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{_signed(low, form)}, {_signed(high, form)}]"


def _signed(number: float, form: str) -> str:
    return f"{number:{form}}".replace("-", "−")


def _listed(words: Sequence[str], joint: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"
