"""The figures show the study's numbers, render alike every time, and need no display."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from PIL import Image
from voting import plan_of, vote

from markovgen_app.study.plots import preference_figure, render, strength_figure
from markovgen_app.study.results import Results
from markovgen_app.study.simulate import World, plan_for_simulation, simulate
from markovgen_app.study.statistics import analyse


@pytest.fixture(scope="module")
def results() -> Results:
    plan = plan_for_simulation(40)
    return analyse(simulate(plan, World(), 0), plan, draws=0)


def words(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(render(figure, "svg"))
    return ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("}text")]


def test_the_bars_are_as_long_as_the_shares(results: Results) -> None:
    figure = preference_figure(results)
    for panel, pair in zip(figure.axes, results.pairs, strict=True):
        lengths = [patch.get_width() for patch in panel.patches]  # type: ignore[attr-defined]
        expected = [
            share.value
            for preference in (pair.raw, pair.majority)
            for share in (preference.first, preference.indifferent, preference.second)
        ]
        assert lengths == pytest.approx(expected)
        lines = [sorted(line.get_xdata()) for line in panel.lines]  # type: ignore[arg-type, type-var]
        assert pair.raw.second.low is not None and pair.raw.second.high is not None
        assert lines[0] == pytest.approx([pair.raw.first.low, pair.raw.first.high])
        assert lines[1] == pytest.approx([1 - pair.raw.second.high, 1 - pair.raw.second.low])


def test_the_words_name_what_is_compared_and_that_it_is_simulated(results: Results) -> None:
    said = words(preference_figure(results))
    assert said.count("markovgen") == 2 and said.count("full") == 2 and said.count("indifferent") == 3
    assert "Which image is of higher quality? (simulated, preliminary)" in said
    assert f"n = {results.pairs[0].votes}" in " ".join(said)


def test_strengths_are_ordered_with_the_best_on_top(results: Results) -> None:
    panel = strength_figure(results).axes[0]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[::-1] == [row.method for row in results.strengths]
    dots = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "o"]  # type: ignore[index]
    assert dots[::-1] == pytest.approx([row.value for row in results.strengths])


@pytest.mark.parametrize("make", [preference_figure, strength_figure])
def test_files_are_readable_and_always_the_same(results: Results, make) -> None:  # type: ignore[no-untyped-def]
    png, svg = render(make(results), "png"), render(make(results), "svg")
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width == 1600
        assert not getattr(picture, "text", {}).keys() - {"Software"}
    assert svg.startswith(b"<?xml")
    assert (png, svg) == (render(make(results), "png"), render(make(results), "svg"))


@pytest.mark.parametrize("count", [0, 1])
def test_a_study_that_hardly_began_can_be_drawn(count: int) -> None:
    rows = [vote("a", "p0", "full", "markovgen", "left")][:count]
    results = analyse(rows, plan_of())
    render(preference_figure(results), "png")
    assert results.strengths_note in words(strength_figure(results))


def test_dollars_and_long_names_stay_text() -> None:
    plan = plan_of(methods=("costs $1 and $2", "x" * 64))
    said = words(preference_figure(analyse([], plan)))
    assert "costs $1 and $2" in said and "x" * 31 + "…" in said


def test_figures_are_not_kept(results: Results) -> None:
    render(preference_figure(results), "png")
    assert not Gcf.get_all_fig_managers(), "figures that pyplot knows stay in memory"
