"""The Inpaint tab: paint over a part of a picture and say what should be there, or widen it on any side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from markovgen_app.errors import UserError
from markovgen_app.patches import patches
from markovgen_app.picture_requests import Anchor, InpaintRequest, OutpaintRequest, PictureRequest
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import VisitorLimit

from .changes import ChangeHandlers
from .controls import QUIETLY, about, advanced_options, ask, fold, method_choices, seed_control, stage_block
from .easel import easel
from .handlers import Components, Handlers, wire
from .source import Source
from .stage import preview_url

_TITLES = (
    '<h2 class="mg-easel-title mg-painted">Paint over what should change</h2>'
    '<h2 class="mg-easel-title mg-widened">Add to any side</h2>'
)
_FIRST_METHOD = "full"
_FITS = {"letterbox": "all of the picture", "crop": "a part around the mask"}
_WINDOWS = {"crop": "window by window, sharper", "letterbox": "at once, at a smaller scale"}
_SIDES = ("left", "top", "right", "bottom")
_ASPECTS = ["1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16"]


@dataclass(frozen=True, eq=False)
class InpaintHandlers(ChangeHandlers):
    """A part of a picture anew, or a larger canvas; the choice is the task, "inpaint" or "outpaint"."""

    def requests(self, values: Components) -> Sequence[PictureRequest]:
        return [self._request(values, {})]

    def _request(self, values: Components, instead: dict[str, Any]) -> PictureRequest:
        if values[self.choice] == OutpaintRequest.task:
            return OutpaintRequest.validated(**{**self.fields(values, OutpaintRequest), **instead})
        mask = self.easel.mask(values) if values[self.easel.source] else None
        return InpaintRequest.validated(**{**self.fields(values, InpaintRequest), **instead}, mask=mask)

    def example(self, values: Components) -> PictureRequest:
        return self._request({**values, self.choice: "inpaint"}, {"prompt": "anything"})

    def frame(self, values: Components) -> str:
        """The picture on the canvas that a run would give it, or why there is none."""
        source, asked = values[self.easel.source], self.own["outpaint"]
        if source is None or not any(values[asked[name]] for name in (*_SIDES, "aspect")):
            return frame_html(source) if source else ""
        try:
            request = self._request({**values, self.choice: "outpaint"}, {"prompt": "anything"})
            assert isinstance(request, OutpaintRequest)
            pipeline = self.runtime.pipeline
            windows = next(patches(request, pipeline.size, pipeline.grid)).total
        except UserError as error:
            return frame_html(source) + self.answer(error)
        return frame_html(source, request, windows)

    def settings(self, fields: Any) -> Components:
        filled = super().settings(fields)
        return {**filled, self.choice: fields["task"]} if fields.get("task") in self.own else filled


def frame_html(source: Source, request: OutpaintRequest | None = None, windows: int = 1) -> str:
    """A picture on its new canvas, to scale; without a request on its own."""
    width, height = source.size
    left, top, wide, high = 0, 0, width, height
    says = f"{width} × {height} pixels"
    if request is not None:
        left, top = request.padding.left, request.padding.top
        wide, high = request.padding.size(width, height)
        passes = f" in {windows} windows" if windows > 1 else ""
        says = f"{width} × {height} → {wide} × {high} pixels{passes}"
    small = source.image
    small.thumbnail((256, 256))
    place = f"left:{100 * left / wide:.3f}%;top:{100 * top / high:.3f}%;width:{100 * width / wide:.3f}%"
    return (
        f'<figure class="mg-canvas"><div style="aspect-ratio:{wide}/{high};--ratio:{wide / high:.4f}">'
        f'<img style="{place}" src="{preview_url(small)}" alt="The picture on its new canvas"></div>'
        f"<figcaption>{escape(says)}</figcaption></figure>"
    )


def inpaint_tab(runtime: Runtime, limit: VisitorLimit, first: Path | None, *, metadata: bool) -> Handlers:
    """Lays out the tab and wires it; call inside `gr.Tab`.

    Args:
        limit: pictures a visitor may ask for.
        first: a picture to begin with.
        metadata: whether PNG files carry their settings unless the visitor says otherwise.
    """
    pipeline = runtime.pipeline
    with gr.Row(elem_id="tab-inpaint", elem_classes=["mg-tab", "mg-change"]):
        with gr.Column(elem_classes="mg-source"):
            mode = gr.Radio(
                [("Paint over a part", "inpaint"), ("Widen the picture", "outpaint")],
                value="inpaint",
                label="What to do",
                show_label=False,
                elem_classes=["mg-count", "mg-mode"],
            )
            parts = easel(_TITLES, "Paint over what should change", first)
            with gr.Column(elem_classes="mg-widen"):
                frame = gr.HTML(frame_html(parts.source.value) if parts.source.value else "", apply_default_css=False)
                with gr.Row(elem_classes="mg-pads"):
                    pads = {
                        side: gr.Number(0, label=side.capitalize(), precision=0, step=16, min_width=60)
                        for side in _SIDES
                    }
                with gr.Row(elem_classes="mg-pads mg-aspects"):
                    aspect = gr.Dropdown(
                        [("by pixels", ""), *((each, each) for each in _ASPECTS)],
                        value="",
                        label="Proportions",
                        allow_custom_value=True,
                        min_width=120,
                    )
                    anchor = gr.Dropdown(
                        list(get_args(Anchor)), value="centre", label="Picture stays at", min_width=120
                    )
        with gr.Column(elem_classes="mg-ask"):
            head = ask("What should be there?", "Run", lines=2)
        with gr.Column(elem_classes="mg-picture"):
            stage = stage_block("stage", empty="Say what should be there, then press Run.")
        with gr.Column(elem_classes="mg-options"):
            with gr.Column(elem_classes="mg-painted"):
                strength = gr.Slider(0.05, 1, step=0.05, label="Strength", **about("strength", InpaintRequest))
            with gr.Row(elem_classes="mg-seam"):
                grow = gr.Number(
                    label="Grow", precision=0, elem_classes="mg-painted", min_width=100, **about("grow", InpaintRequest)
                )
                feather = gr.Number(label="Feather", precision=0, min_width=100, **about("feather", InpaintRequest))
            method = gr.Radio(
                method_choices(pipeline, explained=True), value=_FIRST_METHOD, label="Method", elem_classes="mg-method"
            )
            count = gr.Radio([1, 2, 3, 4], value=1, label="Candidates", elem_classes="mg-count")
            fold("inpaint-advanced", "Advanced")
            with gr.Column(elem_id="inpaint-advanced", elem_classes="mg-advanced"):
                seed = seed_control(elem_classes="mg-wide")
                advanced = advanced_options(pipeline, [_FIRST_METHOD], InpaintRequest)
                fit = gr.Radio(
                    [(text, name) for name, text in _FITS.items()],
                    label="The model sees",
                    elem_classes=["mg-wide", "mg-painted"],
                    **about("fit", InpaintRequest),
                )
                windows = gr.Radio(
                    [(text, name) for name, text in _WINDOWS.items()],
                    label="Make the new part",
                    elem_classes=["mg-wide", "mg-widened"],
                    **about("fit", OutpaintRequest),
                )
                outside = gr.Checkbox(
                    label="Keep the pixels outside exactly",
                    elem_classes="mg-wide",
                    **about("keep_outside", InpaintRequest),
                )
                keep = gr.Checkbox(metadata, label="Keep the settings inside the PNG", elem_classes="mg-wide")

    controls = {
        "prompt": head.prompt,
        "method": method,
        "count": count,
        "seed": seed,
        "feather": feather,
        "keep_outside": outside,
        **advanced,
    }
    own = {
        "inpaint": {"strength": strength, "grow": grow, "fit": fit},
        "outpaint": {**pads, "aspect": aspect, "anchor": anchor, "fit": windows},
    }
    handlers = InpaintHandlers("inpaint", runtime, limit, controls, keep, stage, head.notice, parts, mode, own)
    wire(handlers, head, method)
    parts.tokens.click(handlers.show_tokens, handlers.inputs, parts.parts, **QUIETLY)
    changes = [*(pad.change for pad in pads.values()), aspect.change, anchor.change, windows.change]
    framed = (handlers.frame, handlers.inputs - {parts.editor}, frame)
    gr.on(changes, *framed, trigger_mode="always_last", **QUIETLY)
    parts.shown.ready(*framed, trigger_mode="always_last", **QUIETLY)
    return handlers
