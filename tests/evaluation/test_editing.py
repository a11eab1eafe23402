"""Editing against ground truth: the cases, the measures, and the report of a tiny pipeline."""

import inspect
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import tiny_checkpoint, tiny_pipeline
from commands import run_command
from PIL import Image
from scorers import tiny_scorer

from markovgen_app.data.scenes import SceneDataset, combination_splits
from markovgen_app.errors import UserError
from markovgen_app.evaluation import cases as change_cases
from markovgen_app.evaluation import edit_measures, editing
from markovgen_app.evaluation.metrics import resamples
from markovgen_app.evaluation.reach import beyond, decoder_reach
from markovgen_app.evaluation.summaries import counterparts, difference, summary
from markovgen_app.models.scorer import Detection, Reading
from markovgen_app.pixels import to_levels

SCENES = SceneDataset(0, 128, "test")
FIELD = "markovgen:remask=chance:strength=0.01"
ROUNDS = "full:remask=chance:strength=0.01"


@pytest.mark.parametrize("change", ["replaced", "removed", "noun", "background"])
def test_a_case_changes_one_thing_and_its_truth_shows_it(change: change_cases.Change) -> None:
    for case in change_cases.cases(SCENES, change, 12, 64):
        before, after = case.scene, case.target
        assert case.picture.shape == case.truth.shape == (64, 64, 3)
        assert (before.background != after.background) == (change == "background")
        assert (before.nouns != after.nouns) == (change != "background")
        assert after.nouns == () if change == "removed" else len(after.nouns) == 1
        if change != "background" and before.style is None:
            changed = (case.picture != case.truth).any(axis=2)
            assert changed.any() and not changed[case.mask == 0].any(), "the mask covers all that differs"
        if change in ("replaced", "noun"):
            assert combination_splits(after) == {"test"}
            assert after.nouns[0] in case.prompt and before.nouns[0] in case.source_prompt
    again = change_cases.cases(SCENES, change, 2, 64)
    assert again[1].prompt == change_cases.cases(SCENES, change, 12, 64)[1].prompt


def test_border_differences_are_those_of_neighbours() -> None:
    picture = np.zeros((10, 10, 3), dtype=np.uint8)
    mask = np.zeros((10, 10), dtype=np.float32)
    mask[3:7, 3:7] = 1
    picture[3:7, 3:7] = 30
    assert edit_measures.border_difference(picture, mask) == 30 == edit_measures.border_difference(picture, mask, 3)
    ramp = np.broadcast_to(np.arange(10, dtype=np.uint8)[None, :, None] * 8, (10, 10, 3))
    assert edit_measures.border_difference(ramp, mask) == 4 and edit_measures.border_difference(ramp, mask, 2) == 8
    assert np.isnan(edit_measures.border_difference(picture, np.ones((10, 10))))


def test_psnr_looks_only_where_it_is_told() -> None:
    first, second = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    second[0] = 255
    place = np.ones((4, 4), dtype=bool)
    assert edit_measures.psnr_where(first, second, place) == pytest.approx(10 * np.log10(4))
    place[0] = False
    assert edit_measures.psnr_where(first, second, place) > 100


def test_a_token_shows_as_far_as_the_decoder_reaches() -> None:
    """The tiny decoder's kernels that start with weights: one of 3 x 3 tokens, one of 3 x 3 pairs of pixels."""
    pipeline, grid = tiny_pipeline(), (8, 8)
    tokens = torch.randint(240, (3, 64), generator=torch.manual_seed(0))

    def images(tokens: torch.Tensor) -> list[Image.Image]:
        return [Image.fromarray(each) for each in to_levels(pipeline.tokenizer.decode(tokens, grid))]

    reach = decoder_reach(images, tokens, grid, levels=0)
    assert reach == 8 + 2
    assert decoder_reach(images, tokens, grid, levels=255) == 0

    is_open = np.zeros(64, dtype=bool)
    is_open[9] = True  # row 1, column 1
    far = beyond(is_open, grid, 8, reach)
    assert not far[:26, :26].any() and far[26:].all() and far[:, 26:].all()
    changed = torch.where(torch.from_numpy(is_open), (tokens + 7) % 240, tokens)
    same = np.asarray(images(tokens)[0]) == np.asarray(images(changed)[0])
    assert same[far].all() and not same[~far].all()


def test_what_is_kept_is_kept_to_the_token_and_as_well_as_the_tokenizer_can() -> None:
    pipeline = tiny_pipeline()
    (case,) = change_cases.cases(SCENES, "replaced", 1, pipeline.size[0])
    mask = np.zeros_like(case.mask)
    mask[:4, :4] = 1
    work, variants = [replace(case, mask=mask)], editing.parse_variants("full:steps=2", "inpaint")
    (made,) = editing.make(pipeline, work, "inpaint", variants, "")["full:steps=2"]
    before = editing.through_tokenizer(pipeline, [case.picture])
    assert list(np.flatnonzero(made.is_open)) == [0] and edit_measures.kept_tokens_exact(made, before[0]) == 1

    def measured(made: edit_measures.Made) -> dict[str, np.ndarray]:
        return edit_measures.measures("replaced", work, [made], before, tiny_scorer(), 6, pipeline.grid, 10)

    kept = measured(made)
    assert kept["kept_share"] == 1 - (18 / 32) ** 2 and kept["kept_tokens_exact"] == 1 == kept["outside_exact"]
    assert kept["kept_psnr"] == kept["reconstruction_psnr"]
    moved = made.tokens.copy()
    moved[-1] = (moved[-1] + 100) % 240
    (raw,) = pipeline.to_images(torch.from_numpy(moved[None]))
    lost = measured(replace(made, tokens=moved, raw=np.asarray(raw)))
    assert lost["kept_tokens_exact"] == 0 and lost["kept_psnr"] != lost["reconstruction_psnr"]
    assert np.isnan(edit_measures.kept_tokens_exact(replace(made, is_open=np.ones(16, dtype=bool)), before[0]))


def seen(*nouns: str, x: float = 0.5, y: float = 0.5, background: str = "snow") -> Reading:
    return Reading(tuple(Detection(noun, x, y, 0.5, None, 1.0) for noun in nouns), background, None)


def test_what_counts_as_right() -> None:
    case = next(
        case for case in change_cases.cases(SCENES, "replaced", 20, 64) if abs(case.scene.objects[0].x - 0.5) < 0.05
    )
    new, old, background = case.target.nouns[0], case.scene.nouns[0], case.target.background
    good = edit_measures.judged("replaced", case, seen(new, background=background))
    assert good == {"object": 1, "exactly": 1, "background": 1, "old_gone": 1}
    both = edit_measures.judged("replaced", case, seen(new, old))
    assert both["object"] == 1 and both["exactly"] == both["old_gone"] == 0
    assert edit_measures.judged("replaced", case, seen(new, x=0.02, y=0.02))["object"] == 0
    assert edit_measures.judged("removed", case, seen()) == {"empty": 1, "background": float(background == "snow")}
    assert edit_measures.judged("removed", case, seen(old))["empty"] == 0


def test_variants_are_compared_where_they_differ_in_their_method_alone() -> None:
    variants = editing.parse_variants("full,full:strength=0.5,markovgen:strength=0.5,full+source,markovgen", "edit")
    pairs = {"markovgen:strength=0.5": ["full:strength=0.5"], "markovgen": ["full"]}
    assert {name: others for name, others in counterparts(variants).items() if others} == pairs


def test_by_default_every_strength_is_edited_and_the_field_meets_the_early_exit(monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(editing, "main", lambda model, task, methods, *others, **options: asked.append(methods))
    assert run_command("evaluate", "--task", "edit") == 0
    variants = editing.parse_variants(asked[0], "edit")
    pairs = {name: others for name, others in counterparts(variants).items() if others}
    assert [fields.get("strength") for fields in variants.values()] == ["0.25", None, "1", None, None]
    assert pairs["markovgen"] == ["full", "early-exit"]


def test_differences_are_those_of_the_same_cases() -> None:
    """Between cases the measure varies far more than within them: paired, a small difference is seen."""
    case = np.random.default_rng(0).normal(0, 10, 50)
    weights = resamples(50, 200)
    table = difference({"object": case + 0.5, "seam": case}, {"object": case, "seam": case}, weights)
    assert list(table) == ["object"]
    assert table["object"]["low"] == pytest.approx(0.5) == table["object"]["value"]
    unpaired = summary({"object": case}, weights)["object"]
    assert unpaired["high"] - unpaired["low"] > 3


def test_ratios_weigh_cases_as_means_do() -> None:
    values = {"seam": np.array([2.0, 4.0, np.nan]), "seam_true": np.array([1.0, 2.0, 5.0])}
    table = summary(values, np.full((4, 3), 1 / 3))
    assert table == {"seam_ratio": {"value": 2.0, "low": 2.0, "high": 2.0}}


@pytest.mark.filterwarnings("error")
def test_a_ratio_to_flat_pictures_is_no_number() -> None:
    weights = np.array([[0.5, 0.5], [1.0, 0.0]])
    flat = summary({"seam": np.array([2.0, 4.0]), "seam_true": np.zeros(2)}, weights)["seam_ratio"]
    assert np.isnan([flat["value"], flat["low"], flat["high"]]).all()
    some = summary({"seam": np.array([2.0, 4.0]), "seam_true": np.array([0.0, 2.0])}, weights)["seam_ratio"]
    assert some["value"] == 3 and np.isnan([some["low"], some["high"]]).all()


def test_variants_as_typed() -> None:
    parsed = editing.parse_variants("full:strength=0.5, markovgen+source", "edit")
    assert parsed["full:strength=0.5"] == {"method": "full", "strength": "0.5"}
    assert parsed["markovgen+source"] == {"method": "markovgen", "+source": True}
    for text, task, says in (
        ("halton:remask=chance", "edit", "method must be full or markovgen, not halton"),
        ("full:strength=3", "inpaint", "Strength must be a number"),
        ("full:strength", "edit", "write options as in"),
        ("full+source", "inpaint", "Only --task edit"),
    ):
        with pytest.raises(UserError, match=says):
            editing.parse_variants(text, task)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reports():
    pipeline, found = tiny_pipeline(), {}
    for task, methods in (
        ("inpaint", "full:steps=2,markovgen:steps=2:exit_step=1"),
        ("edit", f"{ROUNDS},full:remask=chance:strength=0.02,{FIELD},full:strength=0.01+source"),
    ):
        variants = editing.parse_variants(methods, task)
        found[task] = editing.evaluate(pipeline, tiny_scorer(), task, variants, 2, draws=20)
    return found


def test_reports_hold_every_change_with_what_is_in_reach(reports) -> None:
    for task, (report, shown) in reports.items():
        assert set(report["changes"]) == set(change_cases.CHANGES[task]) and report["images"] == 2
        for rows in report["changes"].values():
            assert list(rows)[-2:] == ["tokenizer", "true pictures"] and len(rows) >= 4
            for name, values in rows.items():
                assert ("model_seconds" in values) == (name not in ("tokenizer", "true pictures"))
                compared = values.get("differences", {})
                others = {"inpaint": [], "edit": [ROUNDS]}[task] if name == FIELD else []
                assert list(compared) == others and all("model_seconds" not in each for each in compared.values())
                plain = {key: each for key, each in values.items() if key not in ("model_seconds", "differences")}
                for value in [*plain.values(), *(each for other in compared.values() for each in other.values())]:
                    defined = ~np.isnan([value["value"], value["low"], value["high"]])
                    assert defined.all() or not defined[1:].any(), "an interval has two ends or none"
                    assert value["low"] <= value["value"] <= value["high"] or not defined.all()
        assert len(shown) == 8
        json.dumps(report)
        lines = editing.text_table(report).splitlines()
        assert any(line.startswith("true pictures") for line in lines)
        told = [line for line in lines if line.startswith(FIELD) and ROUNDS in line]
        assert len(told) == (2 if task == "edit" else 0), "one for each change"


def test_inpainting_leaves_the_outside_to_the_bit(reports) -> None:
    for rows in reports["inpaint"][0]["changes"].values():
        for name in ("full:steps=2", "markovgen:steps=2:exit_step=1"):
            assert rows[name]["outside_exact"]["value"] == 1
            kept = rows[name]["kept_tokens_exact"]["value"]
            assert kept == 1 or np.isnan(kept), "a mask on so small a picture may touch every token"
            assert np.isnan(rows[name]["seam_ratio"]["value"]), "the true pictures are flat at both borders"


def test_strengths_that_share_a_run_are_what_they_are_alone() -> None:
    pipeline = tiny_pipeline()
    work = change_cases.cases(SceneDataset(0, 128, "test"), "noun", 1, pipeline.size[0])
    variants = editing.parse_variants("full:remask=chance:strength=0.03,full:remask=chance:strength=0.06", "edit")
    together = editing.make(pipeline, work, "edit", variants, "")
    for name, fields in variants.items():
        alone = editing.make(pipeline, work, "edit", {name: fields}, "")[name][0]
        assert np.array_equal(alone.image, together[name][0].image)


def test_the_command_prints_one_object_and_how_to_make_it_again(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "a model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    monkeypatch.setenv("MARKOVGEN_MODEL", "a model")
    options = {"scorer_folder": Path("scorer"), "device": "cpu", "split": "tune"}
    editing.main(None, "edit", "full:strength=0.01+source", 2, True, **options, out=tmp_path / "report.json")
    first = json.loads(capsys.readouterr().out)
    assert first == json.loads((tmp_path / "report.json").read_text())
    monkeypatch.delenv("MARKOVGEN_MODEL")
    assert run_command(*shlex.split(first["command"])[1:], "--json") == 0
    second = json.loads(capsys.readouterr().out)
    for report in (first, second):
        for rows in report["changes"].values():
            assert rows["full:strength=0.01+source"].pop("model_seconds") > 0
    assert first == second
    with pytest.raises(UserError, match="2 or more"):
        editing.main("a model", "inpaint", "full", 1, True, **options)
    with pytest.raises(UserError, match="not sheet: name such a file"):
        editing.main("a model", "inpaint", "full", 2, True, **{**options, "sheet_path": tmp_path / "sheet"})


@pytest.mark.parametrize(
    "given",
    [
        {"task": "inpaint", "methods": "full,early-exit", "images": 500},
        {"task": "edit", "methods": "full:strength=0.5+source", "images": 9, "split": "tune", "mrf": "runs/field"},
        {"task": "edit", "methods": "full", "images": 9, "scorer_folder": Path("my scorer"), "model": "a b"},
    ],
)
def test_the_stored_command_asks_for_the_same(given, monkeypatch) -> None:
    """Typed into the command line, it calls `main` with what it was made of."""
    parameters = inspect.signature(editing.main).parameters.values()
    usual = {each.name: None if each.default is each.empty else each.default for each in parameters}
    called = {}

    def main(model, task, methods, images, as_json, **others):
        called.update(model=model, task=task, methods=methods, images=images, as_json=as_json, **others)

    monkeypatch.setattr(editing, "main", main)
    assert run_command(*shlex.split(editing.command(**given))[1:]) == 0
    assert called == {**usual, "as_json": False, **given}
