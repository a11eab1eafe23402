"""The About tab: what was measured is shown where there is something, and left out where there is not."""

from __future__ import annotations

import json
from pathlib import Path

from amused import amused_checkpoint
from builders import runtime_of, tiny_pipeline

from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.runtime import Runtime
from markovgen_app.ui.about import about_html
from markovgen_app.ui.build import FILES_LAST


def runtime() -> Runtime:
    return runtime_of(tiny_pipeline())


def test_the_table_is_shown_where_quality_was_measured(tmp_path: Path) -> None:
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    values = {f"{what}_accuracy": share for what in ("prompt", "object", "background")}
    values |= {"scene_fd": {"value": 300.0, "low": 250.0, "high": 350.0}, "transformer_calls": 24, "model_seconds": 1.2}
    report = {"images": 50, "seeds": [0], "methods": {"full": values}, "command": "markovgen evaluate --images 50"}
    (tmp_path / "quality.json").write_text(json.dumps(report))
    page = about_html(runtime(), tmp_path, tmp_path)
    assert "<h2>How good it is</h2>" in page and "<td>300<small>250 … 350</small></td>" in page
    assert "<td>24</td>" in page and "<code>markovgen evaluate --images 50</code>" in page


def test_no_table_and_no_strip_where_nothing_was_made(tmp_path: Path) -> None:
    page = about_html(runtime(), tmp_path, tmp_path)
    assert "How good it is" not in page and "<figure>" not in page


def test_only_weights_of_the_projects_own_world_are_said_to_be_of_it(tmp_path: Path) -> None:
    own = about_html(runtime(), tmp_path, tmp_path)
    other = about_html(
        runtime_of(MarkovGenPipeline.from_pretrained(amused_checkpoint(tmp_path / "amused"))), tmp_path, tmp_path
    )
    for words in ("emoji figures", "<dt>things</dt>", "Code and weights: Apache-2.0.", "Noto Color Emoji"):
        assert words in own and words not in other
    assert "Code: Apache-2.0. The weights have a licence of their own" in other and "licence of their own" not in own
    assert "Its pictures are 32 × 32 pixels" in other and "<dl></dl>" not in other


def test_what_it_says_of_files_is_how_long_they_last(tmp_path: Path) -> None:
    assert "at most three hours" in about_html(runtime(), tmp_path, tmp_path) and sum(FILES_LAST) == 3 * 3600
