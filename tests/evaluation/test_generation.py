"""What methods are asked for, as typed, and that each makes the pictures that the pipeline makes."""

import numpy as np
import pytest
from builders import tiny_ladder, tiny_pipeline
from PIL import Image
from scorers import tiny_scorer

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.evaluation import generation
from markovgen_app.evaluation.judging import look
from markovgen_app.methods import COMPARED
from markovgen_app.models.amused import amused_defaults
from markovgen_app.requests import GenerateRequest

METHODS = generation.parse_methods("full:steps=3,early-exit:steps=3:exit_step=2")


@pytest.mark.parametrize("of_all", ["steps=6", "steps=6:top_k=3"])
def test_methods_that_share_a_loop_give_the_same_pictures_from_one_run_of_it(monkeypatch, of_all):
    pipeline = tiny_pipeline()
    methods = generation.parse_methods(
        f"early-exit:{of_all}:exit_step=2,full:{of_all},markovgen:{of_all}:exit_step=3:finalise=perturb:mrf_iterations=1,"
        f"rescheduled:{of_all},early-exit:{of_all}:temperature=0.7"
    )
    assert list(generation.exits_of_full(pipeline, methods)) == list(methods)[:3]
    assert generation.exits_of_full(pipeline, generation.parse_methods("full,rescheduled")) == {}
    scenes = [SceneDataset().scene(index) for index in range(3)]
    apart, enlarged = generation.generate(pipeline, tiny_scorer(), scenes, (0, 1), methods)
    assert enlarged is None
    monkeypatch.setattr(generation, "_TIMED", 1)
    shared, _ = generation.generate(pipeline, tiny_scorer(), scenes, (0, 1), methods)
    for name in methods:
        assert apart[name].tokens.equal(shared[name].tokens), name
        assert np.array_equal(apart[name].seen.features, shared[name].seen.features)
        assert apart[name].seen.readings == shared[name].seen.readings
    full = f"full:{of_all}"
    assert len(shared[full].model_seconds) == 2 and len(apart[full].model_seconds) == 6


def test_the_bases_pictures_of_a_ladder_are_kept_to_be_enlarged():
    ladder, scene = tiny_ladder(), SceneDataset().scene(0)
    methods = generation.parse_methods("early-exit:steps=3,full:steps=3:size=32,early-exit:steps=3:size=32")
    made, enlarged = generation.generate(ladder, tiny_scorer(), [scene], (0,), methods)
    assert enlarged is not None and enlarged.tokens.equal(made["early-exit:steps=3:size=32"].tokens)
    picture = generation.enlarged_picture(ladder, enlarged.tokens[0], 64)
    small = ladder.result(generation.request_for(scene, 0, 0, methods["early-exit:steps=3:size=32"])).images[0].image
    assert picture.tobytes() == small.resize((64, 64), Image.Resampling.LANCZOS).tobytes()
    assert np.array_equal(enlarged.seen.features, look(tiny_scorer(), [picture]).features)
    large = ladder.result(generation.request_for(scene, 0, 0, methods["early-exit:steps=3"])).images[0].image
    tokens = made["early-exit:steps=3"].tokens[0]
    assert generation.picture_of(ladder, tokens).tobytes() == large.tobytes() != picture.tobytes()


def test_loops_are_told_apart_by_what_the_weights_settle_too():
    pipeline = tiny_pipeline()
    methods = generation.parse_methods("full,early-exit,early-exit:guidance_scale=2,early-exit:guidance_scale=4.5")
    assert list(generation.exits_of_full(pipeline, methods)) == list(methods)[:3]
    pipeline.defaults = amused_defaults()
    assert pipeline.defaults["guidance_scale"] == 4.5
    assert list(generation.exits_of_full(pipeline, methods)) == ["full", "early-exit", "early-exit:guidance_scale=4.5"]
    steps = generation.parse_methods(f"full,early-exit:steps=24,early-exit:steps={pipeline.defaults['steps']}")
    assert list(generation.exits_of_full(pipeline, steps)) == ["full", list(steps)[2]]


@pytest.mark.parametrize("option", ["seed=1", "prompt=x", "count=2", "method=full"])
def test_what_all_methods_share_is_no_methods_option(option):
    with pytest.raises(UserError, match="the same for all methods"):
        generation.parse_methods(f"early-exit:{option}")


def test_the_grid_is_that_of_the_last_stage():
    ladder = tiny_ladder()
    assert generation.grid_of(ladder, {}) == (8, 8)
    assert generation.grid_of(ladder, {"size": "32"}) == (4, 4)
    assert generation.grid_of(tiny_pipeline(), {}) == (4, 4)
    with pytest.raises(UserError, match="not of 40"):
        generation.grid_of(ladder, {"size": "40"})


def test_markovgen_is_compared_with_the_first_and_with_all_that_takes_as_many_steps():
    methods = generation.parse_methods(COMPARED)
    colder = methods["early-exit:exit_temperature=0.25"]
    assert GenerateRequest.validated(prompt="a panda", **colder).exit_temperature == 0.25
    found = generation.counterparts(tiny_pipeline(), methods)
    assert found["markovgen"] == [name for name in methods if name != "markovgen"]
    assert all(found[name] == ["full"] for name in methods if name not in ("full", "markovgen"))
    ladder = tiny_ladder(field=False)  # where markovgen takes all steps of the upper stage
    assert generation.steps_of(ladder, methods["early-exit"]) != generation.steps_of(ladder, methods["markovgen"])
    assert generation.counterparts(ladder, methods)["markovgen"] == ["full"]
    base = generation.parse_methods("full:size=32,early-exit:size=32,markovgen:size=32,early-exit")
    assert generation.counterparts(ladder, base)["markovgen:size=32"] == ["full:size=32", "early-exit:size=32"]


def test_every_prompt_and_seed_has_its_own_noise_and_methods_share_it():
    scene = SceneDataset().scene(0)
    seeds = [generation.request_for(scene, seed, index, {}).seed for seed in (0, 1) for index in range(50)]
    assert len(set(seeds)) == 100
    assert {generation.request_for(scene, 1, 7, fields).seed for fields in METHODS.values()} == {1_000_010}


def test_methods_and_seeds_as_typed():
    parsed = generation.parse_methods("full, early-exit:exit_step=8:temperature=0.7")
    assert list(parsed) == ["full", "early-exit:exit_step=8:temperature=0.7"]
    assert generation.parse_seeds("3, 1") == [3, 1]


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
        generation.parse_methods(text)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "2,2"])
def test_bad_seeds_are_named(text):
    with pytest.raises(UserError, match=r"[Ss]eeds"):
        generation.parse_seeds(text)


def test_methods_without_their_field_are_named_and_none_at_all_is_refused(capsys):
    pipeline = tiny_pipeline()
    pipeline.mrf = None
    left = generation.available(generation.parse_methods("full,markovgen:exit_step=6"), pipeline)
    assert list(left) == ["full"] and "markovgen:exit_step=6" in capsys.readouterr().err
    with pytest.raises(UserError, match="--mrf"):
        generation.available(generation.parse_methods("markovgen"), pipeline)
