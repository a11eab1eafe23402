"""Controls that tabs share: the prompt with run and stop, folds, and the advanced options with who reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from markovgen_app.methods import EXPLAINED, TITLES
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import DecodingRequest, GenerateRequest

from .theme import stage_script, static

_SHORT = ("early-exit", "markovgen", "rescheduled", "halton")
_CONFIDENT = ("full", "early-exit", "markovgen", "rescheduled")
_GUESSED = ("early-exit", "markovgen")
NOT_FOR_ALL: Mapping[str, Sequence[str]] = {
    "exit_step": _SHORT,
    "super_resolution_exit_step": _SHORT,
    "super_resolution_exit_temperature": _GUESSED,
    "order": _CONFIDENT,
    "schedule": _CONFIDENT,
    "choice_temperature": _CONFIDENT,
    "finalise": _GUESSED,
    "exit_temperature": _GUESSED,
    "mrf_iterations": ("markovgen",),
    "mrf_clamp": ("markovgen",),
}
"""Fields that only some methods read, and which."""

_FINER = {
    "size",
    "super_resolution_steps",
    "super_resolution_exit_step",
    "super_resolution_guidance_scale",
    "super_resolution_temperature",
    "super_resolution_exit_temperature",
}
_FINALISE = {
    "sample": "drawn one by one",
    "argmax": "the likeliest each",
    "perturb": "together: neighbours hear the dice",
    "decimate": "a few at a time, told to the others",
}
_IN_WORDS = {
    "steps": "How many steps a full run takes.",
    "size": "Larger pictures are the small ones with detail added.",
    "super_resolution_steps": "How many steps a full run takes to add detail.",
    "super_resolution_exit_step": "After this step of them the methods that stop early stop.",
    "super_resolution_guidance_scale": "How strongly the words pull while detail is added; 1 is no guidance.",
    "super_resolution_temperature": "Of the draws while detail is added; 0 takes the likeliest.",
    "super_resolution_exit_temperature": "Of the draws at that exit; 0 takes the likeliest.",
    "exit_step": "After this step the methods that stop early stop.",
    "finalise": "How the tokens that no step has decided are taken at the exit.",
    "annealing": "How much of the temperature is gone by the last step; 1 is all of it.",
    "exit_temperature": "Of their draws; 0 takes the likeliest. Empty: the temperature.",
    "mrf_iterations": "How often tokens hear their neighbours before they are taken.",
    "mrf_clamp": (
        "The random field takes decided tokens at their word, as it always does where a few at a time are taken. Off,"
        " it doubts them like all others; they stay as they are either way."
    ),
}
"""Where the request's own description is for people who know the code."""


QUIETLY: Mapping[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that needs no model: at once, without a sign of work, and not for programs."""


@dataclass(frozen=True, eq=False)
class Ask:
    """What stands at the head of a tab."""

    prompt: gr.Textbox
    hints: gr.HTML
    notice: gr.HTML
    run: gr.Button
    stop: gr.Button
    forget: gr.Button


def ask(label: str, run: str, *, lines: int = 3) -> Ask:
    """Lays out prompt, the lines below it, run and stop, and the way back from a seed; call inside the tab's column."""
    prompt = gr.Textbox(
        label=label,
        placeholder="a panda next to a pizza on a brick wall",
        lines=lines,
        max_lines=8,
        elem_classes="mg-ask-prompt",
    )
    hints = gr.HTML(elem_classes="mg-hints", apply_default_css=False)
    notice = gr.HTML(elem_classes="mg-notices", apply_default_css=False)
    with gr.Row(elem_classes="mg-runbar"):
        start = gr.Button(run, variant="primary", size="lg", elem_classes="mg-run")
        stop = gr.Button("Stop", variant="stop", size="lg", elem_classes="mg-stop")
    forget = gr.Button(size="sm", visible=False, elem_classes="mg-forget")
    return Ask(prompt, hints, notice, start, stop, forget)


def stage_block(name: str, **props: Any) -> gr.HTML:
    """Lays out where pictures are shown: static/`name`.html, run by static/`name`.js; call inside the tab's column."""
    return gr.HTML(
        html_template=static(f"{name}.html"),
        js_on_load=stage_script("divide.js", f"{name}.js"),
        apply_default_css=False,
        elem_classes="mg-stage-block",
        **props,
    )


def fold(target: str, title: str, *, open: bool = False) -> None:
    """Lays out a button that shows and hides what follows, which has the id `target`.

    Gradio's accordion draws its controls only when it is opened, and forgets what is typed into them too soon.
    """
    gr.HTML(
        f'<button type="button" class="mg-fold" aria-controls="{target}" aria-expanded="{str(open).lower()}">'
        f"{title}</button>",
        apply_default_css=False,
        elem_classes="mg-fold-head",
    )


def method_choices(pipeline: MarkovGenPipeline, *, explained: bool) -> list[tuple[str, str]]:
    """The methods that the weights can run, as choices of a control."""
    names = pipeline.methods
    return [(f"{TITLES[name]}: {EXPLAINED[name]}" if explained else TITLES[name], name) for name in names]


def seed_control(**options: Any) -> gr.Textbox:
    """Empty for a seed drawn anew every time."""
    return gr.Textbox(label="Seed", max_lines=1, placeholder="random", **about("seed"), **options)


def advanced_options(
    pipeline: MarkovGenPipeline, methods: Sequence[str], kind: type[DecodingRequest] = GenerateRequest
) -> dict[str, gr.components.Component]:
    """Controls named as the request's fields. Numbers are without bounds of their own: the request's bounds speak, in
    one line beside the prompt.

    Args:
        methods: those chosen at first: what none of them reads is hidden.
        kind: of request; what it does not have, or does not read, is left out.
    """
    fields, common = kind.model_fields, DecodingRequest.model_fields

    def options(name: str) -> dict[str, Any]:
        own = name not in common or fields[name].default == common[name].default
        default = {"value": pipeline.defaults[name]} if own and name in pipeline.defaults else {}
        return {**about(name, kind), **default, "visible": is_read(name, methods)}

    def number(name: str, label: str, step: float, precision: int | None = None) -> gr.Number:
        return gr.Number(label=label, step=step, precision=precision, **options(name))

    def optional(name: str, label: str, placeholder: str) -> gr.Textbox:
        return gr.Textbox(label=label, max_lines=1, placeholder=placeholder, **options(name))

    def choice(name: str, label: str, words: Mapping[str, str] | None = None) -> gr.Dropdown:
        values = get_args(fields[name].annotation)
        return gr.Dropdown([((words or {}).get(value, value), value) for value in values], label=label, **options(name))

    def switch(name: str, label: str) -> gr.Checkbox:
        return gr.Checkbox(label=label, elem_classes="mg-wide", **options(name))

    def negative() -> gr.Textbox:
        return gr.Textbox(
            label="Negative prompt", lines=1, max_lines=4, elem_classes="mg-wide", **options("negative_prompt")
        )

    def size() -> gr.Radio:
        sides = [(f"{side} × {side} px", side) for side in pipeline.sizes]
        first = {**options("size"), "value": pipeline.sizes[-1]}
        return gr.Radio(sides, label="Size", elem_classes="mg-wide", **first)

    def exit_of(number: int) -> str:
        """Where a stage stops early if nothing is typed, such as "after 50 % of the steps"."""
        steps = fields["super_resolution_steps" if number else "steps"].default
        return f"after {pipeline.stage(number).exit_step(steps) / steps:.0%} of the steps"

    own = "" if pipeline.mrf is None else f"{pipeline.mrf.config.iterations}, the field's own"
    controls: dict[str, Callable[[], gr.components.Component]] = {
        "negative_prompt": negative,
        "steps": lambda: number("steps", "Steps", 1, 0),
        "exit_step": lambda: optional("exit_step", "Exit step", exit_of(0)),
        "guidance_scale": lambda: number("guidance_scale", "Guidance", 0.5),
        "temperature": lambda: number("temperature", "Temperature", 0.05),
        "annealing": lambda: number("annealing", "Annealing", 0.05),
        "choice_temperature": lambda: number("choice_temperature", "Order noise", 0.5),
        "top_k": lambda: optional("top_k", "Top-k", "all"),
        "order": lambda: choice("order", "Order"),
        "schedule": lambda: choice("schedule", "Schedule"),
        "finalise": lambda: choice("finalise", "Tokens left at the exit", _FINALISE),
        "exit_temperature": lambda: optional("exit_temperature", "Temperature at the exit", "the temperature"),
        "mrf_iterations": lambda: optional("mrf_iterations", "Rounds of the random field", own),
        "mrf_clamp": lambda: switch("mrf_clamp", "Trust decided tokens"),
        "guidance_ramp": lambda: switch("guidance_ramp", "Guidance ramp"),
        "size": size,
        "super_resolution_steps": lambda: number("super_resolution_steps", "Steps for detail", 1, 0),
        "super_resolution_exit_step": lambda: optional(
            "super_resolution_exit_step", "Exit step for detail", exit_of(1)
        ),
        "super_resolution_guidance_scale": lambda: number(
            "super_resolution_guidance_scale", "Guidance for detail", 0.5
        ),
        "super_resolution_temperature": lambda: number("super_resolution_temperature", "Temperature for detail", 0.05),
        "super_resolution_exit_temperature": lambda: optional(
            "super_resolution_exit_temperature", "Temperature at that exit", "the field's own"
        ),
    }
    left_out = _FINER if len(pipeline.sizes) == 1 else set()
    return {name: make() for name, make in controls.items() if name in fields and name not in left_out}


def is_read(name: str, methods: Sequence[str]) -> bool:
    """Whether any of the methods reads a field."""
    return name not in NOT_FOR_ALL or any(method in NOT_FOR_ALL[name] for method in methods)


def marked(control: gr.components.Component, name: str) -> None:
    """Gives a control the class by which the page's scripts find the field `name`."""
    control.elem_classes = [*control.elem_classes, f"mg-field-{name}"]


def about(name: str, kind: type[DecodingRequest] = GenerateRequest) -> dict[str, Any]:
    """Default and explanation of a control: those of the request's own field."""
    info = kind.model_fields[name]
    text = info.description or ""
    return {"value": info.default, "info": _IN_WORDS.get(name, f"{text[:1].upper()}{text[1:]}.")}
