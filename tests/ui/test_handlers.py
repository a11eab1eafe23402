"""What all tabs do with mistakes, links, seeds and runs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from builders import runtime_of, tiny_pipeline, tiny_tokenizer, tiny_transformer
from PIL import Image

from markovgen_app.errors import UserError
from markovgen_app.picture_requests import EditRequest
from markovgen_app.pictures import read_settings
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.ui.generate import generate_tab
from markovgen_app.ui.handlers import Handlers
from markovgen_app.ui.tabs import Workplace
from markovgen_app.visitors import VisitorLimit


def generate(pipeline: MarkovGenPipeline) -> Handlers:
    with gr.Blocks():
        return generate_tab(runtime_of(pipeline), VisitorLimit(0, 1), [], metadata=True)


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return generate(tiny_pipeline())


def outcomes(handlers: Handlers, **fields: Any) -> list[dict[Any, Any]]:
    """What a run with these controls yields."""
    values = {part: getattr(part, "value", None) for part in handlers.inputs}
    values |= {handlers.controls[name]: value for name, value in fields.items()}
    request = SimpleNamespace(client=SimpleNamespace(host="127.0.0.1"), headers={})
    return list(handlers.run(values, request))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "Steps must be a whole number between 1 and 256, not 0."),
        ("exit_step", "25", "Exit step must be between 1 and the 24 steps, not 25."),
        (
            "mrf_iterations",
            "0",
            "“Rounds of the random field” must be a whole number between 1 and 100, not &#x27;0&#x27;.",
        ),
        ("guidance_scale", -1, "“Guidance” must be a number between 0 and 30, not -1."),
        ("prompt", "", "The prompt is empty"),
    ],
)
def test_a_mistake_is_told_by_the_name_on_the_page(handlers: Handlers, field: str, value: Any, says: str) -> None:
    *_, last = outcomes(handlers, **{"prompt": "an owl", "method": "markovgen", field: value})
    assert says in last[handlers.notice] and f'data-field="{field}"' in last[handlers.notice]
    assert f"mg-field-{field}" in handlers.controls[field].elem_classes


def test_what_no_chosen_method_reads_stands_in_nobodys_way(handlers: Handlers) -> None:
    """It is hidden then."""
    *_, last = outcomes(handlers, prompt="an owl", method="full", steps=2, exit_step="12", mrf_iterations="abc")
    assert last[handlers.stage]["pictures"]


def test_an_emptied_field_is_empty_also_where_the_weights_have_a_number(handlers: Handlers) -> None:
    handlers.runtime.pipeline.defaults["exit_temperature"] = 0.0
    asked = {"prompt": "an owl", "method": "early-exit", "steps": 4, "exit_step": "1", "temperature": 5, "seed": "3"}
    shown = []
    for exit_temperature in ("", "5", "0"):
        *_, last = outcomes(handlers, **asked, exit_temperature=exit_temperature)
        shown.append(last[handlers.stage]["pictures"][0]["src"])
    del handlers.runtime.pipeline.defaults["exit_temperature"]
    pixels = [Image.open(io.BytesIO(base64.b64decode(src.split(",")[1]))).tobytes() for src in shown]
    assert pixels[0] == pixels[1] != pixels[2]


def test_a_changed_picture_gives_its_words_seed_and_method_alone(handlers: Handlers, tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32))
    request = EditRequest.validated(prompt="a fox", image=image, seed=5, strength=0.01, method="markovgen")
    path = handlers.runtime.pipeline.result(request).images[0].save(tmp_path)
    filled = handlers.receive_file(str(path))
    assert "made by edit" in filled[handlers.notice]
    told = {name: filled[control] for name, control in handlers.controls.items()}
    assert (told["prompt"], told["seed"], told["method"]) == ("a fox", 5, "markovgen")
    assert (told["steps"], told["top_k"], told["guidance_ramp"]) == (24, None, True)
    with pytest.raises(UserError, match="made by edit"):
        read_settings(path)
    assert "no picture" in handlers.receive_file(__file__)[handlers.notice]


def test_a_run_says_its_seed_from_the_first_step_on(handlers: Handlers) -> None:
    _, *told = outcomes(handlers, prompt="an owl", steps=2, count=2)
    seeds = told[-1][handlers.stage]["seeds"]
    assert [picture["seed"] for picture in told[-1][handlers.stage]["pictures"]] == seeds
    assert all(each[handlers.stage]["seeds"] == seeds for each in told)


def test_a_method_that_the_weights_lack_is_refused() -> None:
    bare = generate(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer()))
    event = SimpleNamespace(query={"p": "an owl", "m": "markovgen"})
    filled = bare.open_link(event)  # type: ignore[arg-type]
    assert set(filled) == {bare.notice} and "cannot run the method &#x27;markovgen&#x27;" in filled[bare.notice]


def test_the_tab_begins_with_the_settings_of_the_weights() -> None:
    """A link to a prompt alone does, too; one that says more is taken at its word."""
    pipeline = tiny_pipeline()
    assert pipeline.mrf is not None
    pipeline.mrf.register_to_config(exit_share=0.5, exit_temperature=0.25)
    own = generate(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), mrf=pipeline.mrf))
    method, exit_step, chance = (own.controls[name] for name in ("method", "exit_step", "exit_temperature"))
    assert (method.value, exit_step.placeholder, chance.value) == ("full", "after 50% of the steps", "0.25")
    for query, wanted in (
        ({"p": "an owl"}, ("full", 0.25)),
        ({"p": "an owl", "m": "full"}, ("full", None)),
        ({"p": "an owl", "m": "markovgen", "exit_temperature": "0.5"}, ("markovgen", 0.5)),
    ):
        filled = own.open_link(SimpleNamespace(query=query))  # type: ignore[arg-type]
        assert (filled[method], filled[chance]) == wanted


def test_a_kept_seed_is_told(handlers: Handlers) -> None:
    for seed, visible in (("12", True), (" ", False), ("", False), (None, False)):
        note = handlers.seed_note(seed)
        assert note["visible"] == visible and note["value"].startswith("Seed 12 is kept") == (seed == "12")


def test_a_link_leads_to_any_tab() -> None:
    with gr.Blocks(), gr.Tabs() as tabs:
        gr.Tab("About", id="about")
    for name, leads in (("about", True), ("nowhere", False), ("", False)):
        answer = Workplace(tabs).open(SimpleNamespace(query_params={"tab": name}))  # type: ignore[arg-type]
        assert (getattr(answer, "selected", None) == "about") == leads
