"""An aMUSEd checkpoint through the one pipeline: every kind of request, defaults of its own, fields beside it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from amused import CODES, amused_checkpoint
from builders import runtime_of
from commands import run_command
from PIL import Image

from markovgen_app.compare import Comparison, compare
from markovgen_app.decoding.sampler import METHODS
from markovgen_app.errors import UserError
from markovgen_app.events import StepEvent
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest
from markovgen_app.ui.api import compare_endpoint, generate_endpoint
from markovgen_app.ui.controls import advanced_options
from markovgen_app.visitors import VisitorLimit


def field(side: int = 8, codes: int = CODES) -> MarkovRandomField:
    torch.manual_seed(0)
    field = MarkovRandomField("low-rank", codes, (side, side), rank=4)
    with torch.no_grad():
        assert field.receiver is not None
        field.receiver.normal_()
    return field


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = amused_checkpoint(tmp_path_factory.mktemp("amused"))
    field().save_pretrained(folder / "mrf")
    return folder


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> MarkovGenPipeline:
    return MarkovGenPipeline.from_pretrained(checkpoint)


def test_all_methods_make_pictures(pipeline: MarkovGenPipeline) -> None:
    assert (pipeline.grid, pipeline.size, pipeline.methods) == ((8, 8), (32, 32), METHODS)
    made = {method: pipeline("a cat", method=method, seed=1, count=2) for method in METHODS}
    for result in made.values():
        again = pipeline(**result.images[1].settings)
        assert again.images[0].image.tobytes() == result.images[1].image.tobytes()
    assert made["full"].images[0].transformer_calls == 12 and made["markovgen"].images[0].transformer_calls == 9
    assert not made["markovgen"].frames[-1].equal(made["early-exit"].frames[-1])


def test_pictures_are_painted_over_widened_and_edited(pipeline: MarkovGenPipeline) -> None:
    picture = Image.new("RGB", (32, 32), "tan")
    painted = pipeline.result(
        InpaintRequest(prompt="a hat", image=picture, rectangle=(8, 8, 24, 24), seed=0, feather=0)
    )
    assert painted.request.steps == 12
    assert painted.images[0].image.crop((0, 0, 32, 8)).tobytes() == picture.crop((0, 0, 32, 8)).tobytes()
    assert painted.images[0].image.tobytes() != picture.tobytes()
    wider = pipeline.result(OutpaintRequest(prompt="a hat", image=picture, left=8, seed=0, steps=2))
    assert wider.images[0].image.size == (40, 32)
    edited = pipeline.result(EditRequest(prompt="a dog", image=picture, strength=1, seed=0))
    assert (edited.request.steps, edited.request.guidance_scale) == (12, 4.5)
    assert edited.images[0].image.tobytes() != pipeline.to_images(pipeline.encode([picture]))[0].tobytes()
    edited = pipeline.result(EditRequest(prompt="a dog", image=picture, strength=0.05, remask="chance", seed=0))
    assert (edited.request.steps, edited.request.guidance_scale) == (1, 4.0)  # rounds have defaults of their own


def test_what_is_not_said_is_as_amused_has_it(pipeline: MarkovGenPipeline) -> None:
    unsaid = pipeline("a cat", seed=0)
    wanted = {
        "steps": 12,
        "guidance_scale": 4.5,
        "guidance_ramp": False,
        "temperature": 1.0,
        "annealing": 0.0,
        "choice_temperature": 2.1818,
    }
    assert {name: unsaid.images[0].settings[name] for name in wanted} == wanted
    said = pipeline("a cat", seed=0, steps=3, guidance_scale=3.0)
    assert (said.request.steps, said.request.guidance_scale, said.request.guidance_ramp) == (3, 3.0, False)
    settings = pipeline.decoding_settings(GenerateRequest(prompt="a cat"))
    assert settings == pipeline.decoding_settings(unsaid.request)
    assert unsaid.notes == [] and pipeline.unknown_words("a cat") == {}
    long = pipeline.notes(GenerateRequest(prompt="a cat " * 20))
    assert len(long) == 1 and "reads the first 16" in long[0]


def test_the_app_opens_with_its_defaults(pipeline: MarkovGenPipeline, tmp_path: Path) -> None:
    runtime = runtime_of(pipeline)
    with gr.Blocks():
        controls = advanced_options(pipeline, ["full"])
        for endpoint in (generate_endpoint, compare_endpoint):
            call = endpoint(runtime, VisitorLimit(0, 1), str(tmp_path), metadata=True)
            assert inspect.signature(call).parameters["guidance_scale"].default == 4.5
    values: dict[str, Any] = {name: getattr(control, "value", None) for name, control in controls.items()}
    assert (values["steps"], values["guidance_scale"], values["guidance_ramp"]) == (12, 4.5, False)
    *_, comparison = compare(runtime, GenerateRequest(prompt="a cat", seed=0), ["full", "early-exit"])
    assert isinstance(comparison, Comparison) and comparison.request.steps == 12 and comparison.exit_step == 9


def test_previews_are_pictures(pipeline: MarkovGenPipeline) -> None:
    event = next(pipeline.run(GenerateRequest(prompt="a cat", seed=0)))
    assert isinstance(event, StepEvent) and event.images[0].size == (32, 32)


def test_a_field_comes_from_the_checkpoint_or_is_named(checkpoint: Path, tmp_path: Path) -> None:
    other = field()
    other.register_to_config(iterations=7)
    other.save_pretrained(tmp_path / "other")
    named = MarkovGenPipeline.from_pretrained(checkpoint, mrf=tmp_path / "other")
    assert named.mrf is not None and named.mrf.config.iterations == 7
    bare = amused_checkpoint(tmp_path / "bare")
    assert "markovgen" not in MarkovGenPipeline.from_pretrained(bare).methods
    field(side=4).save_pretrained(tmp_path / "small")
    with pytest.raises(UserError, match="random field is over 4 × 4 tokens of 24 codes, the transformer's are 8 × 8"):
        MarkovGenPipeline.from_pretrained(bare, mrf=tmp_path / "small")


def test_its_weights_are_not_written_in_our_format(pipeline: MarkovGenPipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="copy its folder, and put a random field into mrf/ there"):
        pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_line_takes_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(checkpoint), "--device", "cpu", "--seed", "3", "--out", str(tmp_path), "--json"]
    assert run_command("generate", "a cat", "--method", "markovgen", *arguments) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert (image["steps"], image["width"], Path(image["path"]).is_file()) == (12, 32, True)
