"""The About tab: what was measured is shown where there is something, and left out where there is not."""

from __future__ import annotations

import json
from pathlib import Path

from builders import runtime_of, tiny_pipeline

from markovgen_app.runtime import Runtime
from markovgen_app.ui.about import about_html


def runtime() -> Runtime:
    return runtime_of(tiny_pipeline())


def test_the_table_is_shown_where_quality_was_measured(tmp_path: Path) -> None:
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    values = {f"{what}_accuracy": share for what in ("prompt", "object", "background")}
    values |= {"scene_fd": {"value": 300.0, "low": 250.0, "high": 350.0}, "transformer_calls": 24, "model_seconds": 1.2}
    report = {"images": 50, "seeds": [0], "methods": {"full": values}, "command": "markovgen evaluate --images 50"}
    (tmp_path / "quality.json").write_text(json.dumps(report))
    page = about_html(runtime(), tmp_path, tmp_path)
    assert "<h2>How good it is</h2>" in page and "300 (250 … 350)" in page
    assert "<code>markovgen evaluate --images 50</code>" in page


def test_no_table_and_no_strip_where_nothing_was_made(tmp_path: Path) -> None:
    page = about_html(runtime(), tmp_path, tmp_path)
    assert "How good it is" not in page and "<figure>" not in page
