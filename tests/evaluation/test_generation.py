"""What methods are asked for, as typed, and that each makes the pictures that the pipeline makes."""

import pytest
import torch
from builders import tiny_pipeline

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.evaluation import generation

METHODS = generation.parse_methods("full:steps=3,early-exit:steps=3:exit_step=2")


def test_methods_that_share_a_loop_give_the_same_pictures_from_one_run_of_it(monkeypatch):
    pipeline = tiny_pipeline()
    methods = generation.parse_methods(
        "early-exit:steps=6:exit_step=2,full:steps=6,markovgen:steps=6:exit_step=3:finalise=perturb:mrf_iterations=1,"
        "rescheduled:steps=6,early-exit:steps=6:temperature=0.5"
    )
    assert list(generation.exits_of_full(pipeline, methods)) == list(methods)[:3]
    assert generation.exits_of_full(pipeline, generation.parse_methods("full,rescheduled")) == {}
    scenes = [SceneDataset().scene(index) for index in range(3)]
    apart = generation.generate(pipeline, scenes, (0, 1), methods)
    monkeypatch.setattr(generation, "_TIMED", 1)
    shared = generation.generate(pipeline, scenes, (0, 1), methods)
    for name in methods:
        assert torch.stack(apart[name].tokens).equal(torch.stack(shared[name].tokens)), name
        assert [a.tobytes() for a in apart[name].images] == [b.tobytes() for b in shared[name].images]
    assert len(shared["full:steps=6"].model_seconds) == 2 and len(apart["full:steps=6"].model_seconds) == 6


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
