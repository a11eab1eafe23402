"""`markovgen evaluate` on tiny random models of the real classes: the shape of the report, its promises, bad input."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.data.vocabulary import NOUNS
from markovgen_app.errors import UserError
from markovgen_app.evaluation import report
from markovgen_app.vocabulary import Vocabulary
from tests.builders import tiny_checkpoint, tiny_pipeline, tiny_transformer
from tests.scorers import tiny_scorer

METHODS = report.parse_methods("full:steps=3,early-exit:steps=3:exit_step=2")
MEASURES = (
    "scene_fd",
    "cmmd",
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
    assert "difference" not in full and set(early["difference"]) == set(MEASURES)
    json.loads(json.dumps(report.plain(found), allow_nan=False))


def test_the_same_call_gives_the_same_numbers_and_uses_the_cache(evaluated):
    (first, pictures), (second, again) = evaluated
    for values in (*first["methods"].values(), *second["methods"].values()):
        values.pop("model_seconds", None)
    assert json.dumps(first) == json.dumps(second)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(pictures, again, strict=True))


def test_real_pictures_are_nearer_to_real_pictures_than_noise_is(evaluated):
    found, _ = evaluated[0]
    for values in found["methods"].values():
        assert found["real"]["scene_fd"]["value"] < values["scene_fd"]["value"]
        assert found["real"]["bigram_divergence"]["value"] < values["bigram_divergence"]["value"]


def test_the_tokenizer_is_measured_too(evaluated):
    found = evaluated[0][0]["reconstruction"]
    assert found["images"] == 3 and 0 < found["codebook_use"] <= 1
    assert 0 < found["psnr_128"] < 60 and 0 < found["psnr_256"] < 60
    assert set(report.ACCURACIES) <= set(found)


def test_prompts_are_held_out_and_pictures_are_those_that_the_pipeline_makes(pipeline, evaluated):
    _, pictures = evaluated[0]
    scenes = SceneDataset(0, split="test")
    assert [caption for caption, _ in pictures] == [scenes.scene(index).caption for index in range(4)]
    request = report.request_for(scenes.scene(2), 0, 2, METHODS["full:steps=3"])
    made = pipeline(request.prompt, **request.model_dump(exclude={"prompt"}))
    assert np.array_equal(made.images[0].image, pictures[2][1])


def test_methods_that_share_a_loop_give_the_same_pictures_from_one_run_of_it(pipeline, monkeypatch):
    methods = report.parse_methods(
        "early-exit:steps=6:exit_step=2,full:steps=6,markovgen:steps=6:exit_step=3:finalise=perturb:mrf_iterations=1,"
        "rescheduled:steps=6,early-exit:steps=6:temperature=0.5"
    )
    assert list(report.exits_of_full(pipeline, methods)) == list(methods)[:3]
    assert report.exits_of_full(pipeline, report.parse_methods("full,rescheduled")) == {}
    scenes = [SceneDataset().scene(index) for index in range(3)]
    apart = report.generate(pipeline, scenes, (0, 1), methods)
    monkeypatch.setattr(report, "_TIMED", 1)
    shared = report.generate(pipeline, scenes, (0, 1), methods)
    for name in methods:
        assert torch.stack(apart[name].tokens).equal(torch.stack(shared[name].tokens)), name
        assert [a.tobytes() for a in apart[name].images] == [b.tobytes() for b in shared[name].images]
    assert len(shared["full:steps=6"].model_seconds) == 2 and len(apart["full:steps=6"].model_seconds) == 6


def test_every_prompt_and_seed_has_its_own_noise_and_methods_share_it():
    scene = SceneDataset().scene(0)
    seeds = [report.request_for(scene, seed, index, {}).seed for seed in (0, 1) for index in range(50)]
    assert len(set(seeds)) == 100
    assert {report.request_for(scene, 1, 7, fields).seed for fields in METHODS.values()} == {1_000_010}


def test_averages_over_seeds_keep_prompts_apart():
    scenes = [SceneDataset().scene(index) for index in range(3)]
    right = report.Reading((), scenes[1].background, scenes[1].style)
    wrong = report.Reading((), "nowhere", "none")
    values = report.judged_values(scenes, [wrong, right, wrong, wrong, wrong, wrong])
    assert values["background_accuracy"].tolist() == [0, 0.5, 0]
    assert np.isnan(values["place_accuracy"]).any()


def test_methods_and_seeds_as_typed():
    parsed = report.parse_methods("full, early-exit:exit_step=8:temperature=0.7")
    assert list(parsed) == ["full", "early-exit:exit_step=8:temperature=0.7"]
    assert report.parse_seeds("3, 1") == [3, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fastest", "Method must be one of"),
        ("", "Method must be one of"),
        ("full:steps", "early-exit:exit_step=12"),
        ("full:steps=0", "Steps must be a whole number between 1"),
        ("full:speed=3", "no setting called 'speed'"),
        ("early-exit:steps=4:exit_step=5", "Exit step"),
    ],
)
def test_bad_methods_are_named(text, message):
    with pytest.raises(UserError, match=message):
        report.parse_methods(text)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "2,2"])
def test_bad_seeds_are_named(text):
    with pytest.raises(UserError, match=r"[Ss]eeds"):
        report.parse_seeds(text)


def test_a_missing_or_damaged_scorer_is_named(tmp_path):
    with pytest.raises(UserError, match="markovgen train scorer"):
        report.load_scorer(tmp_path)
    tiny_scorer().save_pretrained(tmp_path)
    assert report.load_scorer(tmp_path).config.size == 128
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="copy it again"):
        report.load_scorer(tmp_path)


def test_a_scorer_that_knows_too_little_is_named(pipeline):
    everything = Vocabulary(nouns={noun.name: noun.emoji for noun in NOUNS})
    larger = type(pipeline)(tiny_transformer(), pipeline.tokenizer, pipeline.text_encoder, everything)
    with pytest.raises(UserError, match="vocabulary: full"):
        report.scenes_for(larger, tiny_scorer(), "test")
    assert len(report.scenes_for(pipeline, tiny_scorer(), "tune").nouns) == len(tiny_scorer().config.nouns)
    with pytest.raises(UserError, match="split"):
        report.scenes_for(pipeline, tiny_scorer(), "best")


def test_pictures_of_other_sizes_are_brought_to_the_scorers():
    small, large = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (256, 256), (255, 0, 0))
    pixels = report.to_pixels([small, large], 128, "cpu")
    assert pixels.shape == (2, 3, 128, 128)
    assert torch.equal(pixels[0], pixels[1]) and pixels[0, 0].min() == 1 and pixels[0, 1].max() == -1


def test_numbers_are_plain_in_json():
    found = report.plain({"a": math.nan, "b": [1 / 3, 2], "c": {"d": math.inf}, "e": "x"})
    assert found == {"a": None, "b": [0.33333, 2], "c": {"d": None}, "e": "x"}


def test_the_command_prints_one_object_or_a_table_and_writes_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "model")
    tiny_scorer().save_pretrained(tmp_path / "scorer")
    options = {"scorer_folder": tmp_path / "scorer", "references": 4, "device": "cpu"}
    model = str(tmp_path / "model")
    report.main(model, "full:steps=2", 2, "0", True, **options, out=tmp_path / "a/report.json")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "a/report.json").read_text())
    report.main(model, "full:steps=2", 2, "0", sheet_path=tmp_path / "b/sheet.png", **options)
    table = capsys.readouterr().out
    assert "full:steps=2" in table and "real pictures" in table and "scene-FD" in table
    assert Image.open(tmp_path / "b/sheet.png").width > 128
    with pytest.raises(UserError, match="2 or more"):
        report.main(model, "full", 1, "0", **options)
