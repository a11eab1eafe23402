"""The Generate tab: words in, a picture out, every step of it to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from markovgen_app.events import Result
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import VisitorLimit

from .controls import QUIETLY, advanced_options, ask, fold, method_choices, seed_control, stage_block
from .handlers import Components, Handlers, request_from, wire
from .limits import pictures_worth
from .stage import StageRun
from .words import knows_html, notice_html

_FIRST_METHOD = "full"


@dataclass(frozen=True, eq=False)
class GenerateHandlers(Handlers):
    """Text to pictures."""

    def work(self, values: Components, visitor: str | None) -> Iterator[Components]:
        wanted = request_from(self.asked(values)).with_seed()
        self.limit.take(visitor, pictures_worth(self.runtime, wanted))
        run = StageRun(wanted, metadata=values[self.metadata])
        for event in self.runtime.run(wanted):
            if isinstance(event, Result):
                yield {self.stage: run.result(event), self.notice: notice_html(" ".join(event.notes))}
            else:
                yield {self.stage: run.step(event)}


def generate_tab(runtime: Runtime, limit: VisitorLimit, examples: list[dict[str, Any]], *, metadata: bool) -> Handlers:
    """Lays out the tab and wires it; call inside `gr.Tab`.

    Args:
        limit: pictures a visitor may ask for.
        examples: pictures to open with, see `examples.load_examples`.
        metadata: whether PNG files carry their settings unless the visitor says otherwise.
    """
    with gr.Row(elem_id="tab-generate", elem_classes=["mg-tab", "mg-studio"]):
        with gr.Column(elem_classes="mg-ask"):
            head = ask("Describe a picture", "Run")
        with gr.Column(elem_classes="mg-picture"):
            stage = stage_block("stage", examples=examples)
        with gr.Column(elem_classes="mg-options"):
            method = gr.Radio(
                method_choices(runtime.pipeline, explained=True),
                value=_FIRST_METHOD,
                label="Method",
                elem_classes="mg-method",
            )
            count = gr.Radio([1, 2, 3, 4], value=1, label="Pictures", elem_classes="mg-count")
            fold("advanced", "Advanced")
            with gr.Column(elem_id="advanced", elem_classes="mg-advanced"):
                seed = seed_control(elem_classes="mg-wide")
                advanced = advanced_options(runtime.pipeline, [_FIRST_METHOD])
                keep = gr.Checkbox(metadata, label="Keep the settings inside the PNG", elem_classes="mg-wide")
            settings_file = gr.UploadButton(
                "Restore settings from a PNG", file_types=[".png"], size="sm", elem_id="drop-settings"
            )
        with gr.Column(elem_classes="mg-knows"):
            fold("words", "What this model knows", open=True)
            gr.HTML(knows_html(runtime.pipeline.knows), apply_default_css=False, elem_id="words")

    controls = {"prompt": head.prompt, "method": method, "count": count, "seed": seed, **advanced}
    handlers = GenerateHandlers("generate", runtime, limit, controls, keep, stage, head.notice)
    wire(handlers, head, method)
    restored = settings_file.upload(handlers.receive_file, settings_file, handlers.filled, **QUIETLY)
    restored.then(None, handlers.notice, js="(notice) => notice || window.markovgenStages?.['tab-generate']?.filled()")
    return handlers
