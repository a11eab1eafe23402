"""The measured results: one table for README.md and the app, with the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovgen_app.results import EDITS, EDITS_HEAD, HEAD, edits_markdown, load_results, markdown

ROOT = Path(__file__).parents[1]


def measure(value: float, spread: float) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = {
        "scene_fd": measure(412.4, 30),
        "prompt_accuracy": measure(0.5, 0.125),
        "object_accuracy": measure(0.75, 0.05),
        "background_accuracy": measure(0.9, 0.02),
        "transformer_calls": 18.0,
        "model_seconds": 0.936,
    }
    report = {"images": 1000, "seeds": [0, 1], "methods": {"early-exit": values}, "command": "markovgen evaluate"}
    (tmp_path / "quality.json").write_text(json.dumps(report))
    return tmp_path


def test_a_report_becomes_rows(folder: Path) -> None:
    results = load_results(folder)
    assert results is not None
    assert results.rows == (
        (
            "early-exit",
            "18",
            "0.94",
            "412 (382 … 442)",
            "75.0 % (70.0 % … 80.0 %)",
            "90.0 % (88.0 % … 92.0 %)",
            "50.0 % (37.5 % … 62.5 %)",
        ),
    )
    assert "1,000 held-out prompts, 2 seeds each" in results.note


def test_the_markdown_is_a_table_with_its_command(folder: Path) -> None:
    results = load_results(folder)
    assert results is not None
    head, rule, row, *rest = markdown(results).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == len(HEAD) + 1
    assert rest[-1] == "Measured by `markovgen evaluate`."


def test_nothing_measured_is_no_table(tmp_path: Path) -> None:
    assert load_results(tmp_path) is None


def test_the_readme_shows_the_measured_table() -> None:
    results, readme = load_results(), (ROOT / "README.md").read_text()
    assert "held-out prompts" not in readme if results is None else markdown(results) in readme


def test_what_is_not_all_is_not_written_as_all(tmp_path: Path) -> None:
    for share, written in ((1, "100 %"), (0.9997, "99.9 %"), (0.997, "99.7 %"), (0.57, "57 %")):
        values = {"object": measure(0.8, 0.05), "background": measure(0.95, 0.01), "outside_exact": measure(share, 0)}
        report = {"images": 300, "changes": {"noun": {"full": values}}, "command": "markovgen evaluate"}
        for name in EDITS:
            (tmp_path / name).write_text(json.dumps(report))
        table = edits_markdown(tmp_path)
        assert table is not None and f"| {written} |" in table


def test_edits_are_one_table_with_their_commands(tmp_path: Path) -> None:
    shared = {"background": measure(0.95, 0.01), "model_seconds": 1.234}
    exact = {"outside_exact": measure(1, 0), "seam_ratio": measure(1.391, 0.1)}
    inpaint = {"removed": {"full": {"empty": measure(0.91, 0.02), **shared, **exact}}}
    edit = {"noun": {"full": {"object": measure(0.8, 0.05), **shared}}}
    assert edits_markdown(tmp_path) is None
    for name, changes in (("inpaint", inpaint), ("edit", edit)):
        report = {"images": 300, "changes": changes, "command": f"markovgen evaluate --task {name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    table = edits_markdown(tmp_path)
    assert table is not None
    head, _, removed, noun, _, last = table.splitlines()
    assert head.count("|") == removed.count("|") == noun.count("|") == len(EDITS_HEAD) + 1
    assert "inpaint: no object | full | 91.0 % (89.0 % … 93.0 %)" in removed and "| 100 % | 1.39 | 1.23 |" in removed
    assert "edit: another object | full | 80.0 %" in noun and "| – | – | 1.23 |" in noun
    assert "`markovgen evaluate --task edit` (300 cases a change)" in last


def test_the_docs_show_the_measured_edits() -> None:
    table, docs = edits_markdown(), (ROOT / "docs/editing.md").read_text()
    assert table is not None and table in docs
