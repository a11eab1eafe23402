"""Exports: nothing is lost, nothing runs, nothing is claimed that the study does not hold."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from pathlib import Path

import fastparquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voting import plan_of, vote

from markovgen_app.errors import UserError
from markovgen_app.study.export import methods_paragraph, read_votes, results_json, to_csv, to_jsonl, to_parquet
from markovgen_app.study.power import planned
from markovgen_app.study.simulate import World, plan_for_simulation, simulate
from markovgen_app.study.statistics import analyse
from markovgen_app.study.votes import Vote

WRITERS = {".csv": to_csv, ".jsonl": to_jsonl, ".parquet": to_parquet}
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''", "=cmd|' /C calc'!A0"]

# Text that CSV, JSON and Parquet all hold: no surrogates, no NUL.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(FORMULAS)
votes = st.lists(
    st.builds(
        lambda cells, choice, seconds, simulated, repeat_of: Vote(
            *cells, choice, seconds, "pair", repeat_of, None, simulated, "2026-01-01T00:00:00+00:00"
        ),
        cells=st.tuples(*[texts] * 6),
        choice=st.sampled_from(["left", "tie", "right", "bad", "skip"]),
        seconds=st.floats(0, 1e6),
        simulated=st.booleans(),
        repeat_of=st.none() | texts.filter(bool),
    ),
    max_size=3,
)


@pytest.mark.parametrize("ending", WRITERS)
@given(votes)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_reading_gives_back_what_was_written(tmp_path: Path, ending: str, written: list[Vote]) -> None:
    path = tmp_path / f"votes{ending}"
    path.write_bytes(WRITERS[ending](written))
    assert read_votes(path) == written


@given(votes)
@settings(max_examples=30, deadline=None)
def test_no_cell_of_the_csv_is_a_formula(written: list[Vote]) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(written).decode(), newline="")))
    assert rows[0] == [field.name for field in fields(Vote)]
    assert len(rows) == len(written) + 1
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)


def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    path = tmp_path / "votes.parquet"
    path.write_bytes(to_parquet([vote("a", "p0", "full", "markovgen", "left", seconds=1.5)]))
    table = fastparquet.ParquetFile(str(path)).to_pandas()
    assert table["seconds"].dtype == "float64" and table["simulated"].dtype == "bool"
    assert table["repeat_of"].isna().all()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("votes.xlsx", b"", r"give one that ends in \.csv, \.jsonl, \.parquet"),
        ("votes.jsonl", b'{"rater": "a"}\n', "vote 1: trial: Field required"),
        ("votes.jsonl", b"no json\n", "is no file of votes"),
        ("votes.csv", b"rater,trial\na\n", "more or fewer cells"),
        ("votes.csv", b"\xff\xfe", "is no file of votes"),
        ("votes.parquet", b"PAR2", "damaged, or not Parquet"),
        ("votes.parquet", b"PAR1" + b"\x00" * 40, "is no file of votes"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=line) as error:
        read_votes(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1"])
def test_times_that_are_none_are_refused(tmp_path: Path, seconds: str) -> None:
    path = tmp_path / "votes.jsonl"
    line = to_jsonl([vote("a", "p0", "full", "markovgen", "left", seconds=4.0)]).decode()
    path.write_text(line.replace('"seconds": 4.0', f'"seconds": {seconds}'))
    with pytest.raises(UserError, match="no length of time"):
        read_votes(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        read_votes(tmp_path / "votes.csv")


def test_results_are_plain_json() -> None:
    plan = plan_for_simulation(20)
    results = analyse(simulate(plan, World(), 0), plan, draws=20)
    read = json.loads(results_json(results))
    assert read["pairs"][0]["raw"]["first"]["value"] == results.pairs[0].raw.first.value
    assert read["simulated"] is True


def test_the_paragraph_has_the_studys_own_figures() -> None:
    plan = plan_for_simulation(60)
    results = analyse(simulate(plan, World(), 3), plan, draws=0)
    text = methods_paragraph(results)
    pair = results.pairs[0]
    assert text.startswith("SIMULATED")
    assert f"PRELIMINARY: the study has fewer votes than were planned ({pair.votes} of {pair.target} for full" in text
    assert pair.raw.first.value is not None and pair.raw.first.low is not None and pair.raw.first.high is not None
    figures = f"{pair.raw.first.value:.1%} [{100 * pair.raw.first.low:.1f}, {100 * pair.raw.first.high:.1f}]"
    assert f"full was preferred to early-exit in {figures} of {pair.votes} votes" in text
    assert plan.digest()[:16] in text
    assert "to find a preference of 60% of the sided votes with a power of 80%" in text
    assert (
        "and for leaving out raters who failed more than 1 attention check, answered in under 1.5 s at the median,"
        " repeated under 20% of 10 or more own answers, chose one side in more than 90% of 15 or more sided answers or"
        " answered fewer than 1 pair."
    ) in text
    assert f"markovgen {results.strengths[0].value:+.2f}" in text
    assert "\n" not in text and "None" not in text and "nan" not in text


def test_the_paragraph_claims_no_power_calculation_that_was_not_made() -> None:
    votes = [vote(rater, f"p{item}", "full", "markovgen", "left") for item in range(10) for rater in "abc"]
    plan = plan_of(methods=("full", "markovgen"))
    assert "power" not in methods_paragraph(analyse(votes, plan))
    assert "power of 80%" in methods_paragraph(analyse(votes, planned(plan)))
    assert "PRELIMINARY" not in methods_paragraph(analyse(votes, plan))
    assert "SIMULATED" not in methods_paragraph(analyse(votes, plan))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_paragraph_of_a_study_that_hardly_began(count: int) -> None:
    choices = ("left", "tie", "right", "bad", "left")
    rows = [vote("a", f"p{item}", "full", "markovgen", choices[item]) for item in range(count)]
    text = methods_paragraph(analyse(rows, plan_of()))
    assert "None" not in text and "nan" not in text
    assert text == "There are no answers to report yet." or f"gave {count} judgements" in text
