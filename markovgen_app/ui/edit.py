"""The Edit by words tab: a picture and new words, and the picture follows them, as far as it is allowed to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from markovgen_app.decoding.editing import MUSE_ROUND, STRENGTHS
from markovgen_app.picture_requests import EditRequest, PictureRequest
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import VisitorLimit

from .changes import ChangeHandlers
from .controls import QUIETLY, about, advanced_options, ask, fold, method_choices, seed_control, stage_block
from .easel import easel
from .handlers import Components, Handlers, wire

_TITLE = (
    '<h2 class="mg-easel-title">Picture to edit</h2>'
    '<p class="mg-legend-line">Nothing has to be painted: what is painted over stays.</p>'
)
_STRIP = "strip"
_FITS = {"letterbox": "all of the picture", "crop": "the largest square of it"}
_REMASK = {"words": "what the words speak against", "chance": "a share by chance, round by round, as Muse"}


@dataclass(frozen=True, eq=False)
class EditHandlers(ChangeHandlers):
    """A picture changed by words alone; the choice is one of `STRENGTHS`, all, or None for what the slider says."""

    def requests(self, values: Components) -> Sequence[PictureRequest]:
        request = self._request(values, {})
        if values[self.choice] != _STRIP:
            return [request]
        request = request.with_seed()
        return [request.model_copy(update={"strength": strength, "count": 1}) for strength in STRENGTHS.values()]

    def captions(self, requests: Sequence[PictureRequest]) -> Sequence[str]:
        return [name.capitalize() for name in STRENGTHS] if len(requests) > 1 else ()

    def _request(self, values: Components, instead: dict[str, Any]) -> EditRequest:
        keep = self.easel.mask(values) if values[self.easel.source] else None
        return EditRequest.validated(**{**self.fields(values, EditRequest), **instead}, keep=keep)

    def example(self, values: Components) -> EditRequest:
        return self._request(values, {"prompt": "anything"})

    def settings(self, fields: Any) -> Components:
        filled = super().settings(fields)
        return {**filled, self.choice: _preset(fields["strength"])} if fields.get("task") == "edit" else filled


def _preset(strength: float) -> str | None:
    """The name of a strength, if it has one."""
    return next((name for name, value in STRENGTHS.items() if value == strength), None)


def edit_tab(runtime: Runtime, limit: VisitorLimit, first: Path | None, *, metadata: bool) -> Handlers:
    """Lays out the tab and wires it; call inside `gr.Tab`.

    Args:
        limit: pictures a visitor may ask for.
        first: a picture to begin with.
        metadata: whether PNG files carry their settings unless the visitor says otherwise.
    """
    pipeline = runtime.pipeline
    with gr.Row(elem_id="tab-edit", elem_classes=["mg-tab", "mg-change"]):
        with gr.Column(elem_classes="mg-source"):
            parts = easel(_TITLE, "Paint over what must stay", first)
        with gr.Column(elem_classes="mg-ask"):
            head = ask("What should the picture show?", "Run", lines=2)
        with gr.Column(elem_classes="mg-picture"):
            stage = stage_block("stage", empty="Say what the picture should show, then press Run.")
        with gr.Column(elem_classes="mg-options"):
            preset = gr.Radio(
                [*((name.capitalize(), name) for name in STRENGTHS), ("All three", _STRIP)],
                value="medium",
                label="How far it may move",
                elem_classes=["mg-count", "mg-presets"],
            )
            strength = gr.Slider(0.01, 1, step=0.01, label="Strength", **about("strength", EditRequest))
            source_prompt = gr.Textbox(
                label="What it shows now", max_lines=4, placeholder="optional", **about("source_prompt", EditRequest)
            )
            method = gr.Radio(
                method_choices(pipeline, explained=True), value="full", label="Method", elem_classes="mg-method"
            )
            count = gr.Radio([1, 2, 3, 4], value=1, label="Candidates", elem_classes=["mg-count", "mg-candidates"])
            fold("edit-advanced", "Advanced")
            with gr.Column(elem_id="edit-advanced", elem_classes="mg-advanced"):
                seed = seed_control(elem_classes="mg-wide")
                advanced = advanced_options(pipeline, ["full"], EditRequest)
                remask = gr.Radio(
                    [(text, name) for name, text in _REMASK.items()],
                    label="Drawn anew",
                    elem_classes="mg-wide",
                    **about("remask", EditRequest),
                )
                share = gr.Number(label="Share hidden a round", step=0.01, visible=False, **about("share", EditRequest))
                feather = gr.Number(label="Feather", precision=0, **about("feather", EditRequest))
                fit = gr.Radio(
                    [(text, name) for name, text in _FITS.items()],
                    label="The model sees",
                    elem_classes="mg-wide",
                    **about("fit", EditRequest),
                )
                outside = gr.Checkbox(
                    label="Keep what stays exactly", elem_classes="mg-wide", **about("keep_outside", EditRequest)
                )
                keep = gr.Checkbox(metadata, label="Keep the settings inside the PNG", elem_classes="mg-wide")

    controls = {"prompt": head.prompt, "method": method, "count": count, "seed": seed, **advanced}
    own = {
        "edit": {
            "strength": strength,
            "source_prompt": source_prompt,
            "remask": remask,
            "share": share,
            "feather": feather,
            "fit": fit,
            "keep_outside": outside,
        }
    }
    handlers = EditHandlers("edit", runtime, limit, controls, keep, stage, head.notice, parts, preset, own)
    wire(handlers, head, method)
    parts.tokens.click(handlers.show_tokens, handlers.inputs, parts.parts, **QUIETLY)
    usual = {advanced[name]: (advanced[name].value, of_muse) for name, of_muse in MUSE_ROUND.items()}

    def suit(chosen: str) -> Components:
        """The settings that suit a choice of what is drawn anew."""
        return {control: values[chosen == "chance"] for control, values in usual.items()}

    remask.input(suit, remask, [*usual], **QUIETLY)
    remask.change(lambda chosen: gr.update(visible=chosen == "chance"), remask, share, **QUIETLY)
    named = json.dumps(STRENGTHS)
    preset.input(None, [preset, strength], strength, js=f"(name, now) => ({named})[name] ?? now", **QUIETLY)
    strength.input(
        None,
        strength,
        preset,
        js=f"(now) => Object.entries({named}).find(([, value]) => value === now)?.[0] ?? null",
        **QUIETLY,
    )
    return handlers
