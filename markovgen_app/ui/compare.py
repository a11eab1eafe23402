"""The Compare tab: methods side by side on one prompt and seed, filled in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from markovgen_app.compare import Column, Comparison, Turn, comparing
from markovgen_app.methods import chosen_methods, default_methods
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import VisitorLimit

from .comparison import ComparisonRun
from .controls import QUIETLY, advanced_options, ask, fold, method_choices, seed_control, stage_block
from .examples import load_comparisons
from .handlers import Components, Handlers, request_from, wire
from .limits import comparison_worth
from .words import notice_html

_NO_FIELD = (
    "These weights hold no trained random field yet, so MarkovGen itself is missing here; the other methods compare as"
    " they will then."
)


@dataclass(frozen=True, eq=False)
class CompareHandlers(Handlers):
    """Methods side by side.

    Attributes:
        methods: a group of checkboxes.
        examples: folder of comparisons to open with.
        compare: see `comparing`.
    """

    methods: gr.CheckboxGroup
    examples: Path
    compare: Callable[[GenerateRequest, Sequence[str]], Iterator[Turn | Column | Comparison]]

    @property
    def inputs(self) -> set[Block]:
        return super().inputs | {self.methods}

    @property
    def filled(self) -> list[Block]:
        return [*super().filled, self.methods]

    def work(self, values: Components, visitor: str | None) -> Iterator[Components]:
        pipeline = self.runtime.pipeline
        wanted = request_from(self.asked(values))
        methods = chosen_methods(values[self.methods], pipeline.methods)
        self.limit.take(visitor, comparison_worth(self.runtime, wanted, methods))
        run = ComparisonRun(wanted, methods, pipeline.grid, metadata=values[self.metadata])
        for event in self.compare(wanted, methods):
            yield {self.stage: run.add(event)}
        assert isinstance(event, Comparison)
        yield {self.notice: notice_html(" ".join(event.notes))}

    def chosen(self, values: Components) -> Sequence[str]:
        return values[self.methods]

    def show_examples(self) -> Components:
        """The comparisons that the tab opens with; sent when it is opened first, because they are large."""
        return {self.stage: {"examples": load_comparisons(self.examples)}}

    def settings(self, fields: Mapping[str, Any]) -> Components:
        """As of any tab. Several methods, parted by commas, are chosen; one alone is what another tab ran."""
        named = str(fields.get("method", "")).split(",")
        others = {name: value for name, value in fields.items() if name != "method"}
        filled = self.filled_with(request_from(others), settled="method" in fields)
        if len(named) > 1:
            filled[self.methods] = list(chosen_methods(named, self.runtime.pipeline.methods))
        return filled


def compare_tab(runtime: Runtime, limit: VisitorLimit, examples: Path, *, metadata: bool) -> Handlers:
    """Lays out the tab and wires it; call inside `gr.Tab`.

    Args:
        limit: pictures a visitor may ask for; every method counts as one at least.
        examples: folder of comparisons to open with.
        metadata: whether PNG files carry their settings unless the visitor says otherwise.
    """
    pipeline = runtime.pipeline
    first = list(default_methods(pipeline.methods))
    with gr.Row(elem_id="tab-compare", elem_classes=["mg-tab", "mg-bench"]):
        with gr.Column(elem_classes="mg-ask"):
            head = ask("Describe one picture for all methods", "Compare", lines=2)
        with gr.Column(elem_classes="mg-options"):
            methods = gr.CheckboxGroup(
                method_choices(pipeline, explained=False),
                value=first,
                label="Methods",
                info=None if "markovgen" in pipeline.methods else _NO_FIELD,
                elem_classes="mg-methods",
            )
            seed = seed_control(elem_classes="mg-seed")
        with gr.Column(elem_classes="mg-more"):
            fold("compare-advanced", "Advanced")
            with gr.Column(elem_id="compare-advanced", elem_classes="mg-advanced"):
                advanced = advanced_options(pipeline, first)
                keep = gr.Checkbox(metadata, label="Keep the settings inside the PNG files", elem_classes="mg-wide")
        with gr.Column(elem_classes="mg-picture"):
            stage = stage_block("compare")
    controls = {"prompt": head.prompt, "seed": seed, **advanced}
    handlers = CompareHandlers(
        "compare", runtime, limit, controls, keep, stage, head.notice, methods, examples, comparing(runtime)
    )
    wire(handlers, head, methods)
    stage.examples(handlers.show_examples, None, stage, **QUIETLY)
    return handlers
