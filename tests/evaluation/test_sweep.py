"""The sweep: its plan, and that its pictures are those that the app would make."""

from __future__ import annotations

import functools
import inspect
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import TINY_CODES, TINY_GRID, text_encoder, tiny_checkpoint, tiny_field, tiny_ladder, tiny_pipeline
from commands import run_command
from PIL import Image
from scorers import tiny_scorer

from markovgen_app.decoding.guidance import guided_logits
from markovgen_app.decoding.sampler import decode
from markovgen_app.errors import UserError
from markovgen_app.evaluation import sweep as module
from markovgen_app.evaluation import sweep_output
from markovgen_app.evaluation.exits import EARLY_EXIT, Variant, finalised
from markovgen_app.evaluation.sweep import Knobs, plan
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest

KNOBS = Knobs((2, 4), (2, 1), (True, False), ("perturb", "sample", "argmax"), (None, 0.0))


@pytest.fixture(scope="module")
def pipeline() -> MarkovGenPipeline:
    return tiny_pipeline()


def test_the_plan_turns_one_knob_at_a_time() -> None:
    variants = plan(["a", "b"], KNOBS)
    assert len(variants) == len(set(variants))
    per_step = Counter(variant.exit_step for variant in variants)
    assert per_step == {2: 8, 4: 8}  # argmax is what no chance leaves
    centre = Variant(2, "a", 2, True, "perturb")
    for variant in variants[: per_step[2]]:
        if variant.field != EARLY_EXIT:
            same = [getattr(variant, n) == getattr(centre, n) for n in ("field", "iterations", "clamp")]
            same.append((variant.finalise, variant.temperature) == (centre.finalise, centre.temperature))
            assert sum(same) >= 3


def test_the_grid_crosses_everything_and_no_field_leaves_the_baselines() -> None:
    assert len(plan(["a", "b"], KNOBS, grid=True)) == 2 * (2 + 2 * 2 * 2 * 3)
    assert {variant.field for variant in plan([], KNOBS)} == {EARLY_EXIT}


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.0},
        {"top_k": 3, "temperature": 0.7},
        {"top_k": TINY_CODES + 1},
        {"temperature": 0.0},
    ],
)
def test_every_variant_is_the_picture_of_its_request(pipeline: MarkovGenPipeline, options: dict[str, Any]) -> None:
    fields = {"steps": 6, **options}
    request = GenerateRequest(prompt="a panda", seed=5, **fields)
    assert pipeline.mrf is not None
    variants = plan(["mrf"], KNOBS, grid=True)
    whole, taken = finalised(pipeline, {"mrf": pipeline.mrf}, variants, request)
    assert whole.equal(pipeline("a panda", seed=5, **fields).frames[-1][0])
    for variant, tokens in zip(variants, taken, strict=True):
        knobs = {"exit_step": variant.exit_step, "finalise": variant.finalise, "exit_temperature": variant.temperature}
        if variant.field == "mrf":
            knobs |= {"mrf_iterations": variant.iterations, "mrf_clamp": variant.clamp, "method": "markovgen"}
        else:
            knobs |= {"method": "early-exit"}
        assert tokens.equal(pipeline("a panda", seed=5, **fields, **knobs).frames[-1][0]), variant


@pytest.mark.parametrize("options", [{}, {"top_k": 3, "temperature": 0.7}])
def test_every_variant_of_a_finer_stage_refines_the_tokens_of_one_base_run(options: dict[str, Any]) -> None:
    """Each is what the stage makes by itself, told to leave so, of the coarse tokens of the base's full run."""
    ladder = tiny_ladder()
    request = GenerateRequest(prompt="a panda", seed=5, steps=3, super_resolution_steps=6, **options)
    stage = ladder.stage(1)
    assert stage.mrf is not None
    variants = plan(["mrf"], KNOBS, grid=True)
    whole, taken = finalised(ladder, {"mrf": stage.mrf}, variants, request, 1)
    full = ladder.result(request)
    assert whole.equal(full.frames[-1][0])
    coarse = ladder.result(request.model_copy(update={"size": 32})).frames[-1]
    texts = text_encoder().encode(["a panda", ""])
    for variant, tokens in zip(variants, taken, strict=True):
        knobs: dict[str, Any] = {"super_resolution_exit_step": variant.exit_step}
        knobs["super_resolution_finalise"] = variant.finalise
        knobs["super_resolution_exit_temperature"] = variant.temperature
        if variant.field == "mrf":
            knobs |= {"mrf_iterations": variant.iterations, "mrf_clamp": variant.clamp, "method": "markovgen"}
        else:
            knobs |= {"method": "early-exit"}
        asked = request.model_copy(update=knobs)
        settings = stage.settings(asked)
        logits = guided_logits(stage.model(1, ladder.device, coarse), texts[[0]], texts[[1]], settings)
        *_, last = decode(
            logits, torch.full((1, 64), TINY_CODES), TINY_CODES, settings, stage.generators([5]), grid=stage.grid,
            inference=stage.inference(asked, ladder.device),
        )  # fmt: skip
        assert tokens.equal(last.tokens[0]), variant


def test_a_finer_stage_is_measured_by_its_own_pictures() -> None:
    ladder, scorer = tiny_ladder(), tiny_scorer()
    assert ladder.super_resolution_mrf is not None
    variants = plan(["mrf"], Knobs((2,), (1,), (True,), ("sample",), (None, 0.5)))
    report = module.plain(
        module.sweep(
            ladder, {"mrf": ladder.super_resolution_mrf}, scorer, variants, 2, options={"super_resolution_steps": 3},
            references=4, draws=4, number=1,
        )
    )  # fmt: skip
    assert report["stage"] == 1 and len(report["rows"]) == 5
    assert "Exits of stage 1" in sweep_output.text_table(report)
    with pytest.raises(UserError, match="no stage 2"):
        finalised(ladder, {}, [], GenerateRequest(prompt="a panda", seed=0), 2)


def test_the_defaults_of_a_finer_stage_are_sensible_for_eight_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its field is the checkpoint's own of that stage, whatever field the environment names for the base."""
    monkeypatch.chdir(tmp_path)
    tiny_ladder().save_pretrained(tmp_path / "model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    tiny_field().save_pretrained(tmp_path / "field")
    monkeypatch.setenv("MARKOVGEN_MRF", "field")
    asked: dict[str, Any] = {}

    def sweep(pipeline: Any, fields: Any, scorer: Any, variants: Any, images: int, **others: Any) -> dict[str, Any]:
        asked.update(fields=fields, variants=variants, **others)
        return {"stage": others["number"], "rows": []}

    monkeypatch.setattr(module, "sweep", sweep)
    module.main("model", images=2, as_json=True, stage=1, device="cpu", scorer_folder=Path("scorer"))
    report = json.loads(capsys.readouterr().out)
    assert report["command"].startswith("markovgen sweep --images 2 --stage 1 ") and "field" not in report["command"]
    assert asked["options"] == {"super_resolution_steps": 8} and asked["number"] == 1
    assert {variant.exit_step for variant in asked["variants"]} == {2, 3, 4, 5, 6}
    assert [field.grid for field in asked["fields"].values()] == [(8, 8)]
    for given, message in (
        ({"fields": "field"}, "The random field of super-resolution is over 4 × 4"),
        ({"exit_steps": "9"}, "between 1 and the 8 steps"),
        ({"stage": 2}, "no stage 2"),
    ):
        with pytest.raises(UserError, match=message):
            module.main(**{"model": "model", "images": 2, "stage": 1, "scorer_folder": Path("scorer"), **given})


def test_the_report_has_a_row_a_variant(pipeline: MarkovGenPipeline, tmp_path: Path) -> None:
    assert pipeline.mrf is not None
    variants = plan(["mrf"], Knobs((2, 4), (1,), (True,), ("sample",), (None,)))
    scorer = tiny_scorer()
    report = module.plain(
        module.sweep(pipeline, {"mrf": pipeline.mrf}, scorer, variants, 4, options={"steps": 6}, references=8, draws=10)
    )
    json.dumps(report)
    assert [row["method"] for row in report["rows"]] == ["full", *["early-exit", "markovgen"] * 2]
    for row in report["rows"]:
        for measure in sweep_output.MEASURES:
            assert row[measure]["low"] <= row[measure]["value"] <= row[measure]["high"]
    table = sweep_output.text_table(report)
    assert table.count("best") >= 2 and "4 prompts of the tune split" in table
    sweep_output.plot(report, tmp_path / "deep" / "sweep.png")
    with Image.open(tmp_path / "deep" / "sweep.png") as picture:
        assert picture.width > 500


@pytest.mark.parametrize(
    "given",
    [
        {"fields": "", "images": 200},
        {"fields": "runs/a b/weights,runs/c", "images": 9, "exit_steps": "2,4", "iterations": "1", "steps": 6},
        {"fields": "", "images": 9, "stage": 1, "open_backgrounds": 0.25},
        {"fields": "", "images": 9, "temperatures": "0.5,0.25", "references": 512},
        {"fields": "", "images": 9, "guidance_scale": 2.5, "grid": True, "split": "test"},
        {"fields": "", "images": 9, "scorer_folder": Path("my scorer"), "model": "runs/a b", "device": "cpu"},
    ],
)
def test_the_stored_command_asks_for_the_same(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed into the command line, it calls `main` with what it was made of."""
    usual = {name: parameter.default for name, parameter in inspect.signature(module.main).parameters.items()}
    called: dict[str, Any] = {}

    def main(model: str, fields: str, images: int, as_json: bool, **others: Any) -> None:
        called.update(model=model, fields=fields, images=images, as_json=as_json, **others)

    monkeypatch.setattr(module, "main", main)
    assert run_command(*shlex.split(module.command(**given))[1:]) == 0
    assert called == {**usual, **given}


def test_the_stored_command_measures_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "sweep", functools.partial(module.sweep, references=4))
    tiny_checkpoint(tmp_path / "a model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=2).save_pretrained(tmp_path / "field")
    monkeypatch.setenv("MARKOVGEN_MODEL", "a model")
    monkeypatch.setenv("MARKOVGEN_MRF", "field")
    options: dict[str, Any] = {"exit_steps": "2", "iterations": "1", "steps": 4, "device": "cpu"}
    module.main(None, "", 2, True, **options, scorer_folder=Path("scorer"), out=tmp_path / "sweep.json")
    first = json.loads(capsys.readouterr().out)
    assert first == json.loads((tmp_path / "sweep.json").read_text())
    assert {row.get("field") for row in first["rows"]} == {None, EARLY_EXIT, "field"}
    monkeypatch.delenv("MARKOVGEN_MODEL")
    monkeypatch.delenv("MARKOVGEN_MRF")
    assert run_command(*shlex.split(first["command"])[1:], "--json") == 0
    assert json.loads(capsys.readouterr().out) == first


def test_the_centre_is_drawn_at_the_temperature_of_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    field = MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=2, finalise="decimate", exit_temperature=0.7)
    field.save_pretrained(tmp_path / "field")
    asked: dict[str, Any] = {}

    def sweep(pipeline: Any, fields: Any, scorer: Any, variants: Any, images: int, **others: Any) -> dict[str, Any]:
        asked.update(variants=variants, **others)
        return {"stage": 0, "rows": []}

    monkeypatch.setattr(module, "sweep", sweep)
    options: dict[str, Any] = {"exit_steps": "2", "iterations": "1", "scorer_folder": Path("scorer")}
    module.main("model", "field", 2, True, **options, references=7)
    assert asked["references"] == 7
    early = [variant.temperature for variant in asked["variants"] if variant.field == EARLY_EXIT]
    assert early == [0.7, None, 0.5, 0.25, 0.0]
    drawn = {variant.temperature for variant in asked["variants"] if variant.finalise == "decimate"}
    assert drawn == set(early) and {v.temperature for v in asked["variants"] if v.finalise == "sample"} == {*early[:-1]}
    module.main("model", "field", 2, True, **options, temperatures="0.3")
    assert {variant.temperature for variant in asked["variants"]} == {0.3, 0.0}  # argmax is without chance
    capsys.readouterr()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for options, message in (
        ({"exit_steps": "2,x"}, "Exit steps are whole numbers"),
        ({"exit_steps": "25"}, "between 1 and the 24 steps"),
        ({"iterations": "0"}, "Iterations must be 1 or more"),
        ({"temperatures": "0.5,warm"}, "Temperatures are numbers from 0 on"),
        ({"temperatures": "-1"}, "Temperatures are numbers from 0 on"),
        ({"images": 1}, "Images must be 2 or more"),
    ):
        with pytest.raises(UserError, match=message):
            module.main(**options)


def test_a_field_over_other_tokens_is_refused(pipeline: MarkovGenPipeline) -> None:
    with pytest.raises(UserError, match="take the field that was trained"):
        module.check_field(MarkovRandomField("low-rank", TINY_CODES, (9, 9)), pipeline.transformer)
    module.check_field(tiny_field(), pipeline.transformer)
    assert tiny_field().grid == TINY_GRID
