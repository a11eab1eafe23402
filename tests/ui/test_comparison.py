"""What the Compare tab is told about a comparison."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from builders import runtime_of, text_encoder, tiny_ladder, tiny_pipeline, tiny_tokenizer, tiny_transformer
from PIL import Image

from markovgen_app.compare import Column, Comparison, Turn, compare
from markovgen_app.events import Result
from markovgen_app.methods import EXPLAINED, NAMES, TITLES
from markovgen_app.pictures import read_settings
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.ui.comparison import ComparisonRun, different_lines, equal_lines
from markovgen_app.ui.examples import load_comparisons, make_comparisons
from markovgen_app.ui.links import comparison_link, link

REQUEST = GenerateRequest(prompt="an owl", steps=8, exit_step=3, seed=5)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return runtime_of(tiny_pipeline())


def picture(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(";base64,")[2])))


def followed(runtime: Runtime, *methods: str, metadata: bool = True) -> tuple[list[dict], list]:
    run = ComparisonRun(REQUEST, methods, runtime.pipeline.grid, metadata=metadata)
    events = list(compare(runtime, REQUEST, methods))
    return [run.add(event) for event in events], events


def test_every_turn_changes_its_own_card(runtime: Runtime) -> None:
    values, events = followed(runtime, "full", "markovgen")
    before = {name: {"label": ""} for name in ("full", "markovgen")}
    for value, event in zip(values, events, strict=True):
        json.dumps(value)
        if not isinstance(event, Turn):
            continue
        other = "markovgen" if event.method == "full" else "full"
        card = value["cards"][event.method]
        assert value["cards"][other]["label"] == before[other]["label"]
        assert (card["title"], card["explained"]) == (TITLES[event.method], EXPLAINED[event.method])
        if isinstance(event.event, Result):
            assert card["done"] and card["label"] == "Ready" and not value["final"]
            assert read_settings(io.BytesIO(base64.b64decode(card["src"].split(",")[1]))).method == event.method
        else:
            assert card["label"] == event.event.label and card["fraction"] == event.event.fraction
            assert np.array_equal(np.array(picture(card["src"])), np.array(event.event.images[0]))
            assert len(base64.b64decode(card["tokens"])) == 16
        before = value["cards"]
    assert [value["final"] for value in values] == [False] * (len(values) - 1) + [True]


def test_the_findings_are_those_of_the_comparison(runtime: Runtime) -> None:
    values, events = followed(runtime, *NAMES)
    value, comparison = values[-1], events[-1]
    assert isinstance(comparison, Comparison)
    columns = [event for event in events if isinstance(event, Column)]
    assert [(cut["step"], cut["changed"]) for cut in value["film"]] == [(each.step, each.changed) for each in columns]
    assert np.array_equal(np.array(picture(value["film"][2]["refined"])), np.array(columns[2].refined))
    for name, entry in comparison.entries.items():
        card = value["cards"][name]
        assert card["codes"] == entry.tokens.tolist() and card["calls"] == entry.picture.transformer_calls
        assert card["steps"] == (
            "8 of 8" if name == "full" else "3 of 3" if name in ("rescheduled", "halton") else "3 of 8"
        )
        assert card["speedup"] == f"{entry.speedup:.2f}×" and card["reference"] == (name == "full")
        assert 0 < card["share"] <= 1
        alone = REQUEST.model_copy(update={"method": name})
        assert card["link"] == link(alone, 5) and json.loads(card["settings"])["method"] == name
    assert max(card["share"] for card in value["cards"].values()) == 1
    made = comparison.entries["markovgen"].refinement
    assert made is not None and value["field"]["changed"] == made.changed.int().tolist()
    lower = made.energy_after <= made.energy_before
    assert value["field"]["verdict"].endswith("fit together better" if lower else "nats higher")
    assert value["link"] == comparison_link(REQUEST, NAMES)
    assert json.loads(value["settings"])["methods"] == list(NAMES)
    assert picture(value["sheet"]).size[0] > 3 * 384 and value["file"] == "an-owl"


def test_every_part_says_whose_tokens_it_is_about() -> None:
    runtime = runtime_of(tiny_ladder())
    values, events = followed(runtime, "full", "early-exit", "markovgen")
    for value, event in zip(values, events, strict=True):
        if isinstance(event, Turn) and not isinstance(event.event, Result):
            card, above = value["cards"][event.method], event.event.stage.number > 0
            assert card["stage"] == ({"number": 1, "grid": [8, 8]} if above else None)
            assert len(base64.b64decode(card["tokens"])) == (64 if above else 16)
    value, comparison = values[-1], events[-1]
    assert isinstance(comparison, Comparison) and value["grid"] == [4, 4]
    for name, card in value["cards"].items():
        assert card["codes"] == comparison.entries[name].tokens.tolist() and len(card["codes"]) == 64
        assert card["stage"]["grid"] == [8, 8] and len(base64.b64decode(card["tokens"])) == 64
    told = value["field"]
    assert told["name"] == "Super-resolution step 3" and told["stage"]["grid"] == [8, 8] and len(told["changed"]) == 64
    assert len(told["below"]) == 1 and "left at step 3 came" in told["below"][0]
    assert "left at super-resolution step 3 came" in told["said"]
    assert [(cut["name"], cut["stage"], cut["exit"]) for cut in value["film"]][4:7] == [
        ("Step 8", None, False),
        ("Super-resolution step 2", {"number": 1, "grid": [8, 8]}, False),
        ("Super-resolution step 3", {"number": 1, "grid": [8, 8]}, True),
    ]
    assert "Full, Early exit and MarkovGen share every token up to step 3 of the base." in value["equal"]
    assert value["differs"][0] == "Full takes all 8 steps. Then it takes 8 of 8 steps of super-resolution."
    assert value["differs"][2].endswith("Then it takes 3 of 8 steps of super-resolution.")
    lacking, _ = followed(runtime_of(tiny_ladder(field=False)), "full", "markovgen")
    assert lacking[-1]["field"]["stage"] is None and len(lacking[-1]["field"]["changed"]) == 16


def test_settings_stay_out_of_the_files_on_request(runtime: Runtime) -> None:
    values, _ = followed(runtime, "full", "halton", metadata=False)
    assert not any(picture(card["src"]).info for card in values[-1]["cards"].values())


def test_fair_play_says_what_holds(runtime: Runtime) -> None:
    *_, comparison = compare(runtime, REQUEST, ("full", "markovgen", "halton"))
    assert isinstance(comparison, Comparison)
    assert "Full and MarkovGen share every token up to step 3." in equal_lines(comparison)
    different = different_lines(comparison)
    assert different[0] == "Full takes all 8 steps." and different[1].startswith("MarkovGen stops after step 3 of 8")
    *_, apart = compare(runtime, REQUEST, ("full", "halton"))
    assert isinstance(apart, Comparison) and not any("share every token" in line for line in equal_lines(apart))


@pytest.fixture(scope="module")
def brief() -> Runtime:
    """Weights whose requests take 8 steps, if they do not say otherwise."""
    pipeline = tiny_pipeline()
    pipeline.defaults = {"steps": 8, "exit_step": 3}
    return runtime_of(pipeline)


def test_examples_are_made_and_found(brief: Runtime, tmp_path: Path) -> None:
    assert load_comparisons(tmp_path) == []
    assert len(make_comparisons(brief, tmp_path)) == 3
    examples = load_comparisons(tmp_path)
    assert [list(example["cards"]) for example in examples] == [["full", "early-exit", "markovgen"]] * 3
    assert len({example["run"] for example in examples}) == 3 and all(example["final"] for example in examples)
    bare = runtime_of(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder()))
    make_comparisons(bare, tmp_path, effort=0)
    assert list(load_comparisons(tmp_path)[0]["cards"]) == ["full", "early-exit", "rescheduled"]


@pytest.fixture
def one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markovgen_app.ui.examples._COMPARISONS", (("an owl", 5),))


@pytest.mark.usefixtures("one_example")
def test_examples_look_like_what_is_compared(brief: Runtime, tmp_path: Path) -> None:
    make_comparisons(brief, tmp_path)
    (value,) = load_comparisons(tmp_path)
    *_, comparison = compare(brief, GenerateRequest(prompt="an owl", seed=5), list(value["cards"]))
    assert isinstance(comparison, Comparison)
    made = comparison.entries["markovgen"].refinement
    for told, true in [*zip(value["film"], comparison.film, strict=True), (value["field"], made)]:
        for name in ("plain", "refined"):
            shown, drawn = (np.array(each.convert("L"), float) for each in (picture(told[name]), getattr(true, name)))
            assert shown.shape == drawn.shape and np.abs(shown - drawn).mean() < 4, "of 255, where all is noise"
        assert (told["plain"] == told["refined"]) == (true.plain == true.refined), "equal ones stay equal"


@pytest.mark.usefixtures("one_example")
def test_a_film_that_is_too_large_for_an_example_is_cut(
    brief: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = make_comparisons(brief, tmp_path, effort=0)
    room = file.stat().st_size - 1000
    monkeypatch.setattr("markovgen_app.ui.examples._LARGEST", room)
    make_comparisons(brief, tmp_path, effort=0)
    steps = [cut["step"] for cut in load_comparisons(tmp_path)[0]["film"]]
    assert file.stat().st_size <= room + 100 and 0 < len(steps) < 8 and 3 in steps, "the exit stays"
