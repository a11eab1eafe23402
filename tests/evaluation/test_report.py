"""`markovgen evaluate` on tiny random models of the real classes: the shape of the report, its promises, bad input."""

import inspect
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.data.vocabulary import BACKGROUNDS
from markovgen_app.errors import UserError
from markovgen_app.evaluation import report
from markovgen_app.evaluation.generation import parse_methods, request_for
from markovgen_app.evaluation.judging import ACCURACIES
from markovgen_app.evaluation.output import cell, plain, text_table
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.pipeline import MarkovGenPipeline
from tests.builders import TINY_CODES, TINY_GRID, tiny_checkpoint, tiny_ladder, tiny_pipeline
from tests.commands import run_command
from tests.scorers import tiny_scorer

METHODS = parse_methods("full:steps=3,early-exit:steps=3:exit_step=2")
MEASURES = (
    "scene_fd",
    "cmmd",
    "kid",
    "detail_fd",
    "detail_kid",
    "bigram_divergence",
    "prompt_accuracy",
    "object_accuracy",
    "background_accuracy",
    "style_accuracy",
)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def evaluated(pipeline, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run():
        return report.evaluate(
            pipeline,
            tiny_scorer(),
            METHODS,
            4,
            (0, 1),
            references=12,
            reconstructions=3,
            draws=40,
            distance_draws=20,
            cache=cache,
        )

    return run(), run()


def test_the_report_has_the_promised_shape(evaluated):
    found, _ = evaluated[0]
    assert found["images"] == 4 and found["seeds"] == [0, 1] and set(found["methods"]) == set(METHODS)
    assert np.isnan(found["real"]["scene_fd"]["value"])  # of fewer pictures than the methods' two a prompt
    for values in found["methods"].values():
        for name in MEASURES:
            assert values[name]["low"] <= values[name]["value"] <= values[name]["high"]
        assert values["model_seconds"] > 0
        layouts = values["layouts"].values()
        assert sum(layout["images"] for layout in layouts) == 8
        total = sum(layout["images"] * layout["prompt_accuracy"]["value"] for layout in layouts) / 8
        assert total == pytest.approx(values["prompt_accuracy"]["value"])
    full, early = found["methods"].values()
    assert (full["transformer_calls"], early["transformer_calls"]) == (3, 2)
    assert "differences" not in full and set(early["differences"]) == {"full:steps=3"}
    assert set(early["differences"]["full:steps=3"]) == set(MEASURES)
    json.loads(json.dumps(plain(found), allow_nan=False))


def test_the_same_call_gives_the_same_numbers_and_uses_the_cache(evaluated):
    (first, pictures), (second, again) = evaluated
    for values in (*first["methods"].values(), *second["methods"].values()):
        values.pop("model_seconds", None)
    assert json.dumps(first) == json.dumps(second)
    for one, other in zip(pictures, again, strict=True):
        assert all(np.array_equal(image, other.pictures[name]) for name, image in one.pictures.items())


def test_markovgen_is_set_against_all_that_takes_as_many_steps_and_the_table_shows_it(pipeline):
    methods = parse_methods(
        "full:steps=4,early-exit:steps=4:exit_step=2,markovgen:steps=4:exit_step=2,rescheduled:steps=4:exit_step=3"
    )
    found, _ = report.evaluate(pipeline, tiny_scorer(), methods, 3, references=8, draws=20, distance_draws=10)
    full, early, markov, rescheduled = methods
    table = found["methods"]
    assert {name: list(values.get("differences", [])) for name, values in table.items()} == {
        full: [],
        early: [full],
        markov: [full, early],
        rescheduled: [full],
    }
    for other, measured in table[markov]["differences"].items():
        for name in MEASURES:
            assert measured[name]["value"] == pytest.approx(table[markov][name]["value"] - table[other][name]["value"])
            assert measured[name]["low"] <= measured[name]["value"] <= measured[name]["high"]
    rows = [line.split() for line in text_table(found).splitlines()]
    (row,) = (row for row in rows if row[:2] == [markov, early])
    assert cell(table[markov]["differences"][early]["scene_fd"]) in " ".join(row)


def test_real_pictures_are_nearer_to_real_pictures_than_noise_is(pipeline):
    found, _ = report.evaluate(pipeline, tiny_scorer(), METHODS, 4, references=12, draws=20, distance_draws=10)
    for values in found["methods"].values():
        assert found["real"]["scene_fd"]["value"] < values["scene_fd"]["value"]
        assert found["real"]["bigram_divergence"]["value"] < values["bigram_divergence"]["value"]


def test_the_tokenizer_is_measured_too(evaluated):
    found = evaluated[0][0]["reconstruction"]
    assert found["images"] == 3 and 0 < found["codebook_use"] <= 1
    assert 0 < found["psnr_128"] < 60 and 0 < found["psnr_256"] < 60
    assert set(ACCURACIES) <= set(found)


def test_prompts_are_held_out_and_pictures_are_those_that_the_pipeline_makes(pipeline, evaluated):
    _, pictures = evaluated[0]
    scenes = SceneDataset(0, split="test")
    assert [each.caption for each in pictures] == [scenes.scene(index).caption for index in range(4)]
    request = request_for(scenes.scene(2), 0, 2, METHODS["full:steps=3"])
    made = pipeline(request.prompt, **request.model_dump(exclude={"prompt"}))
    assert list(pictures[2].pictures) == ["full:steps=3", "real"]
    assert np.array_equal(made.images[0].image, pictures[2].pictures["full:steps=3"])
    assert np.array_equal(scenes.render(scenes.scene(2), 32), pictures[2].pictures["real"])


def test_pictures_of_a_ladder_are_judged_at_the_size_that_each_method_makes(tmp_path):
    ladder, counts = tiny_ladder(), {"references": 8, "draws": 10, "distance_draws": 5}
    methods = parse_methods("full:steps=2,markovgen:steps=2,full:steps=2:size=32")
    found, pictures = report.evaluate(ladder, tiny_scorer(), methods, 2, **counts, cache=tmp_path)
    large, markov, small = found["methods"].values()
    assert [each["size"] for each in (large, markov, small)] == [64, 64, 32]
    assert list(pictures[0].pictures) == ["32 px enlarged", "full:steps=2", "markovgen:steps=2", "real"]
    assert {image.size for each in pictures for image in each.pictures.values()} == {(64, 64)}
    enlarged = found["enlarged"]
    assert (enlarged["from"], enlarged["size"], enlarged["method"]) == (32, 64, "full:steps=2")
    for key in ("scene_fd", "kid", "detail_fd", "detail_kid"):
        assert enlarged[f"{key}_share"]["value"] == pytest.approx(large[key]["value"] / enlarged[key]["value"])
    table = text_table(plain(found))
    assert "\n32 px enlarged  " in table and "The scene-FD of full:steps=2 is " in table
    assert "reads pictures at" not in table  # as large as the pictures, or larger
    assert "reads pictures at 32 px" in text_table({**found, "scorer_size": 32})
    assert sorted(load_file(path)["tokens"].shape for path in tmp_path.iterdir()) == [(8, 16), (8, 64)]
    of_markov, of_small = (each["differences"]["full:steps=2"] for each in (markov, small))
    assert set(of_markov) == set(MEASURES)
    assert set(of_small) == set(ACCURACIES)  # distances are to real pictures of another size
    base = MarkovGenPipeline(ladder.transformer, ladder.tokenizer, ladder.text_encoder, ladder.vocabulary)
    alone, _ = report.evaluate(base, tiny_scorer(), parse_methods("full:steps=2"), 2, **counts)
    assert "enlarged" not in alone
    assert {name: small[name] for name in MEASURES} == {
        name: alone["methods"]["full:steps=2"][name] for name in MEASURES
    }
    with pytest.raises(UserError, match="pictures of 32 or 64 pixels, not of 128"):
        report.evaluate(ladder, tiny_scorer(), parse_methods("full:size=128"), 2, **counts)


def test_the_command_prints_one_object_or_a_table_and_writes_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    options = {"scorer_folder": tmp_path / "scorer", "references": 4, "device": "cpu"}
    model = str(tmp_path / "model")
    report.main(model, "full:steps=2", 2, "0", True, **options, out=tmp_path / "a/report.json")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "a/report.json").read_text())
    sheets = {
        "sheet_path": tmp_path / "b/sheet.png",
        "pairs_path": tmp_path / "c/pairs.png",
        "columns_path": tmp_path / "d/columns.webp",
    }
    report.main(model, "full:steps=2", 2, "0", **sheets, **options)
    table = capsys.readouterr().out
    assert "full:steps=2" in table and "real pictures" in table and "scene-FD" in table
    assert Image.open(tmp_path / "b/sheet.png").width > 128
    assert Image.open(tmp_path / "d/columns.webp").size == (2 * 268 + 12, 2 * 316 + 12)  # two prompts: full, real
    pairs = np.asarray(Image.open(tmp_path / "c/pairs.png"))  # 16 pictures of 32 px, eight a row, each above its twin
    scene = SceneDataset(0, split="test").scene(8)
    assert pairs.shape == (128, 256, 3) and np.array_equal(pairs[64:96, :32], SceneDataset().render(scene, 32))
    assert not np.array_equal(pairs[96:, :32], pairs[64:96, :32])
    assert not list(tmp_path.rglob("unfinished*"))
    with pytest.raises(UserError, match="is a file, not a folder"):
        report.main(model, "full:steps=2", 2, "0", out=tmp_path / "a/report.json/b.json", **options)
    with pytest.raises(UserError, match=r"a \.png or \.webp file, not sheet\.tga: name such a file"):
        report.main(model, "full:steps=2", 2, "0", sheet_path=tmp_path / "sheet.tga", **options)
    with pytest.raises(UserError, match="2 or more"):
        report.main(model, "full", 1, "0", **options)


def test_prompts_may_leave_the_background_open(pipeline):
    methods = parse_methods("full:steps=2,early-exit:steps=2:exit_step=1")
    found, examples = report.evaluate(
        pipeline, tiny_scorer(), methods, 3, references=8, draws=20, distance_draws=10, open_backgrounds=1.0
    )
    assert found["open_backgrounds"] == 1
    assert all(np.isnan(each["background_accuracy"]["value"]) for each in (*found["methods"].values(), found["real"]))
    assert not any(way in each.caption for each in examples for ways in BACKGROUNDS.values() for way in ways)
    table = text_table(plain(found))
    assert "3 prompts of the test split, 100% of them without a word on the background" in table


def test_the_command_names_what_is_unusual_only():
    assert report.command("full,halton", 500, "0", "test", 0) == "markovgen evaluate --methods full,halton --images 500"
    assert report.command("full", 9, "0,1", "tune", 10).endswith(
        "--images 9 --seeds 0,1 --split tune --reconstructions 10"
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seeds": "0,1", "split": "tune", "references": 9, "reconstructions": 3},
        {"open_backgrounds": 0.5},
        {"scorer_folder": Path("my scorer"), "model": "runs/a b", "mrf": "runs/field", "device": "cpu"},
    ],
)
def test_the_stored_command_asks_for_the_same(given, monkeypatch):
    """Typed into the command line, it calls `main` with what it was made of."""
    asked = {"methods": "full,early-exit:exit_step=8", "images": 9, "seeds": "0", "split": "test", "reconstructions": 0}
    asked |= given
    usual = {name: parameter.default for name, parameter in inspect.signature(report.main).parameters.items()}
    called = {}

    def main(model, methods, images, seeds, as_json, **others):
        called.update(model=model, methods=methods, images=images, seeds=seeds, as_json=as_json, **others)

    monkeypatch.setattr(report, "main", main)
    assert run_command(*shlex.split(report.command(**asked))[1:]) == 0
    assert called == {**usual, **asked}


def test_the_stored_command_measures_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "a model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    field = MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=2)
    field.save_pretrained(tmp_path / "field")
    monkeypatch.setenv("MARKOVGEN_MODEL", "a model")
    options = {"scorer_folder": Path("scorer"), "mrf": "field", "device": "cpu", "references": 4, "split": "tune"}
    report.main(None, "full:steps=2,markovgen:steps=2:exit_step=1", 2, "3", True, **options)
    first = json.loads(capsys.readouterr().out)
    monkeypatch.delenv("MARKOVGEN_MODEL")
    assert run_command(*shlex.split(first["command"])[1:], "--json") == 0
    second = json.loads(capsys.readouterr().out)
    for values in (*first["methods"].values(), *second["methods"].values()):
        values.pop("model_seconds")
    assert first == second
