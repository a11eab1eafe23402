"""What the page is told about a run, and its examples."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from builders import runtime_of, tiny_ladder, tiny_pipeline
from PIL import Image

from markovgen_app.events import Result, StepEvent
from markovgen_app.pictures import read_settings
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.ui.about import about_html
from markovgen_app.ui.controls import advanced_options
from markovgen_app.ui.examples import load_examples, make_examples
from markovgen_app.ui.stage import StageRun, pack_tokens


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return runtime_of(tiny_pipeline())


def png_of(source: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))


def test_tokens_are_packed_in_a_byte_each() -> None:
    packed = pack_tokens(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([False, True, True]))
    assert list(base64.b64decode(packed)) == [0, 128 + 64, 128 + 127]


def test_a_run_tells_every_step_losslessly(runtime: Runtime) -> None:
    request = GenerateRequest(prompt="an owl", steps=5, count=2, seed=3)
    run = StageRun(request)
    values = []
    for event in runtime.run(request):
        values.append(run.result(event) if isinstance(event, Result) else run.step(event))
        if isinstance(event, StepEvent):
            for source, image in zip(values[-1]["frames"][-1]["pictures"], event.images, strict=True):
                assert np.array_equal(np.array(Image.open(png_of(source))), np.array(image))
        else:
            for told, picture in zip(values[-1]["pictures"], event.images, strict=True):
                assert read_settings(png_of(told["src"])).seed == picture.seed == told["seed"]
                assert json.loads(told["settings"]) == picture.settings
    assert [value["label"] for value in values] == [f"base {step}/5" for step in range(1, 6)] + ["Ready"]
    assert [len(value["frames"]) for value in values] == [1, 2, 3, 4, 5, 5]
    assert [value["final"] for value in values] == [False] * 5 + [True]
    assert all(value["seeds"] == [3, 4] for value in values), "known from the start, for a run that is stopped"
    json.dumps(values)


def test_long_runs_keep_some_steps_and_the_newest(runtime: Runtime) -> None:
    event = next(runtime.run(GenerateRequest(prompt="an owl", steps=1)))
    assert isinstance(event, StepEvent)
    run = StageRun(GenerateRequest(prompt="an owl", steps=256, seed=3))
    for index in range(1, 256):
        run.step(replace(event, step=replace(event.step, index=index, steps=256)))
    kept = [int(frame["label"]) for frame in run.value["frames"]]
    assert kept == [*range(8, 256, 8), 255]


def test_settings_stay_out_of_the_file_on_request(runtime: Runtime) -> None:
    request = GenerateRequest(prompt="an owl", steps=1, seed=3)
    *_, result = runtime.run(request)
    assert isinstance(result, Result)
    value = StageRun(request, metadata=False).result(result)
    assert not Image.open(png_of(value["pictures"][0]["src"])).info


def test_examples_are_made_and_found(runtime: Runtime, tmp_path: Path) -> None:
    assert load_examples(tmp_path) == []
    assert "<figure>" not in about_html(runtime, tmp_path)
    make_examples(runtime, tmp_path)
    examples = load_examples(tmp_path)
    assert len(examples) == 3
    assert all(json.loads(example["settings"])["prompt"] == example["alt"] for example in examples)
    assert "<figure>" in about_html(runtime, tmp_path)
    alpha = np.array(Image.open(tmp_path / "steps.png"))[..., 3]
    assert alpha[:, -32:].all(), "the last panel shows the whole picture"
    assert not alpha[:, :32].all(), "the first one has gaps"


def test_both_stages_are_told_apart() -> None:
    runtime = runtime_of(tiny_ladder())
    request = GenerateRequest(prompt="an owl", steps=40, super_resolution_steps=3, seed=3)
    run = StageRun(request)
    for event in runtime.run(request):
        run.result(event) if isinstance(event, Result) else run.step(event)
    frames = run.value["frames"]
    base, fine = ([frame for frame in frames if frame["grid"] == grid] for grid in ([4, 4], [8, 8]))
    assert base[-1]["title"].startswith("step ") and base[-1]["title"].endswith(" of 40")
    assert [(frame["label"], frame["title"]) for frame in fine] == [
        (f"fine {index}", f"fine step {index} of 3") for index in (1, 2, 3)
    ]
    assert len({frame["label"] for frame in frames}) == len(frames)
    assert Image.open(png_of(fine[0]["pictures"][0])).size == (64, 64)
    assert "43 steps" in run.value["pictures"][0]["facts"]


def test_a_size_is_asked_for_only_where_there_is_a_choice() -> None:
    with gr.Blocks():
        assert "size" not in advanced_options(tiny_pipeline(), ["full"])
        controls = advanced_options(tiny_ladder(), ["full"])
    assert controls["size"].choices == [("32 × 32 px", 32), ("64 × 64 px", 64)] and controls["size"].value == 64
    assert not controls["super_resolution_exit_step"].visible
    assert "32 × 32 or 64 × 64 pixels" in about_html(runtime_of(tiny_ladder()), Path("nowhere"))
