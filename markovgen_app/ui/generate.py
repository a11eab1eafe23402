"""The Generate tab: words in, a picture out, every step of it to see."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime

from .handlers import NOT_FOR_ALL, Handlers
from .limits import VisitorLimit
from .theme import static
from .words import knows_html

MODEL_QUEUE = "model"  # one concurrency group for all that uses the model

_METHODS = {
    "full": "Full: every step, the reference",
    "early-exit": "Early exit: stop before the end, take the best guess for the rest",
    "markovgen": "MarkovGen: stop before the end, let the random field settle the rest",
    "rescheduled": "Rescheduled: as few steps, but planned that way from the start",
    "halton": "Halton: as few steps, spread evenly over the picture",
}
_FINISHED_JS = "() => window.markovgenStage?.finish()"
_SETTLED_JS = "(text) => window.markovgenSettled ? window.markovgenSettled(text) : text"


def generate_tab(runtime: Runtime, limit: VisitorLimit, examples: list[dict[str, Any]], *, metadata: bool) -> Handlers:
    """Lays out the tab and wires it; call inside `gr.Tab`. The handlers say where prompt and seed are.

    Args:
        limit: pictures a visitor may ask for.
        examples: pictures to open with, see `examples.load_examples`.
        metadata: whether PNG files carry their settings unless the visitor says otherwise.
    """
    with gr.Row(elem_id="studio"):
        with gr.Column(elem_id="ask"):
            prompt = gr.Textbox(
                label="Describe a picture",
                placeholder="a panda next to a pizza on a brick wall",
                lines=3,
                max_lines=8,
                elem_id="prompt",
            )
            hints = gr.HTML(elem_id="hints", apply_default_css=False)
            notice = gr.HTML(elem_id="notice", apply_default_css=False)
            forget_seed = gr.Button(size="sm", visible=False, elem_id="forget-seed")
            with gr.Row(elem_id="runbar"):
                run = gr.Button("Run", variant="primary", size="lg", elem_id="run")
                stop = gr.Button("Stop", variant="stop", size="lg", elem_id="stop")
        with gr.Column(elem_id="picture"):
            stage = gr.HTML(
                html_template=static("stage.html"),
                js_on_load=static("pictures.js") + static("stage.js"),
                apply_default_css=False,
                elem_id="stage",
                examples=examples,
            )
        with gr.Column(elem_id="options"):
            methods = [(_METHODS.get(name, name), name) for name in runtime.pipeline.methods]
            method = gr.Radio(methods, value="full", label="Method", elem_id="method")
            count = gr.Radio([1, 2, 3, 4], value=1, label="Pictures", elem_id="count")
            gr.HTML(_fold("advanced", "Advanced", open=False), apply_default_css=False)
            with gr.Column(elem_id="advanced"):
                advanced = _advanced_options()
                metadata_box = gr.Checkbox(metadata, label="Keep the settings inside the PNG", elem_id="metadata")
            settings_file = gr.UploadButton(
                "Restore settings from a PNG", file_types=[".png"], size="sm", elem_id="drop-settings"
            )
        with gr.Column(elem_id="knows"):
            gr.HTML(_fold("words", "What this model knows", open=True), apply_default_css=False)
            gr.HTML(knows_html(runtime.pipeline.knows), apply_default_css=False, elem_id="words")

    controls: dict[str, Any] = {"prompt": prompt, "method": method, "count": count, **advanced}
    handlers = Handlers(runtime, limit, controls, metadata_box, stage, notice)
    filled = [*controls.values(), notice]
    quietly: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    running = run.click(
        handlers.run,
        inputs={*controls.values(), metadata_box},
        outputs=[stage, notice],
        show_progress="minimal",
        show_progress_on=stage,
        concurrency_id=MODEL_QUEUE,
        concurrency_limit=1,
        api_visibility="private",
    )
    running.then(None, js=_FINISHED_JS)
    stop.click(None, cancels=[running])
    prompt.change(handlers.look_up_words, prompt, hints, trigger_mode="always_last", js=_SETTLED_JS, **quietly)
    not_for_all = [controls[name] for name in NOT_FOR_ALL]
    method.change(handlers.show_fields, method, not_for_all, **quietly)
    seed = controls["seed"]
    seed.change(handlers.seed_note, seed, forget_seed, trigger_mode="always_last", **quietly)
    forget_seed.click(lambda: "", None, seed, **quietly)
    stage.opened(handlers.open_link, None, filled, **quietly)
    stage.restore(handlers.restore, None, filled, **quietly)
    stage.reuse(handlers.reuse_seed, None, [seed], **quietly)
    settings_file.upload(handlers.restore_file, settings_file, filled, **quietly)
    return handlers


def _fold(target: str, title: str, *, open: bool) -> str:
    """A button that shows and hides `#target`.

    Gradio's accordion draws its controls only when it is opened, and forgets what is typed into them too soon.
    """
    return (
        f'<button type="button" class="mg-fold" aria-controls="{target}" aria-expanded="{str(open).lower()}">'
        f"{title}</button>"
    )


def _about(name: str) -> dict[str, Any]:
    """Default and explanation of a control: those of the request's own field."""
    info = GenerateRequest.model_fields[name]
    text = info.description or ""
    return {"value": info.default, "info": f"{text[:1].upper()}{text[1:]}."}


def _advanced_options() -> dict[str, gr.components.Component]:
    """Numbers without bounds of their own: the request's bounds speak, in one line beside the prompt."""

    def number(name: str, label: str, step: float, **options: Any) -> gr.Number:
        return gr.Number(label=label, step=step, **_about(name), **options)

    def optional(name: str, label: str, placeholder: str, **options: Any) -> gr.Textbox:
        return gr.Textbox(label=label, max_lines=1, placeholder=placeholder, **_about(name), **options)

    def choice(name: str, label: str) -> gr.Dropdown:
        return gr.Dropdown(list(get_args(GenerateRequest.model_fields[name].annotation)), label=label, **_about(name))

    return {
        "negative_prompt": gr.Textbox(
            label="Negative prompt", lines=1, max_lines=4, elem_classes="mg-wide", **_about("negative_prompt")
        ),
        "seed": optional("seed", "Seed", "random", elem_id="seed"),
        "steps": number("steps", "Steps", 1, precision=0),
        "exit_step": optional("exit_step", "Exit step", "three quarters", visible=False),
        "guidance_scale": number("guidance_scale", "Guidance", 0.5),
        "temperature": number("temperature", "Temperature", 0.05),
        "choice_temperature": number("choice_temperature", "Order noise", 0.5),
        "top_k": optional("top_k", "Top-k", "all"),
        "order": choice("order", "Order"),
        "schedule": choice("schedule", "Schedule"),
        "finalise": gr.Dropdown(
            list(get_args(GenerateRequest.model_fields["finalise"].annotation)),
            label="Last tokens",
            visible=False,
            **_about("finalise"),
        ),
        "mrf_iterations": optional("mrf_iterations", "Field iterations", "the field's own", visible=False),
        "mrf_clamp": gr.Checkbox(
            label="Decided tokens speak as they are", visible=False, elem_classes="mg-wide", **_about("mrf_clamp")
        ),
        "guidance_ramp": gr.Checkbox(label="Guidance ramp", elem_classes="mg-wide", **_about("guidance_ramp")),
    }
