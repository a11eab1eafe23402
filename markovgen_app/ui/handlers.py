"""What happens on the Generate tab. Every handler answers with what changes; none ever takes an input away."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from markovgen_app.errors import UserError
from markovgen_app.pictures import read_settings
from markovgen_app.pipeline import Result
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime

from .limits import VisitorLimit, visitor
from .links import fields_of
from .stage import StageRun
from .words import hints_html, notice_html

_SHORT = ("early-exit", "markovgen", "rescheduled", "halton")
_CONFIDENT = ("full", "early-exit", "markovgen", "rescheduled")
NOT_FOR_ALL = {
    "exit_step": _SHORT,
    "order": _CONFIDENT,
    "schedule": _CONFIDENT,
    "choice_temperature": _CONFIDENT,
    "finalise": ("early-exit", "markovgen"),
    "mrf_iterations": ("markovgen",),
    "mrf_clamp": ("markovgen",),
}
"""Fields that only some methods read, and which."""

Components = dict[gr.components.Component, Any]
log = logging.getLogger(__name__)


def request_from(fields: Mapping[str, Any]) -> GenerateRequest:
    """A request from controls or a query string, where an empty text means "not given".

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    given = {name: value for name, value in fields.items() if value not in ("", None)}
    return GenerateRequest.validated(**{"prompt": "", **given})


@dataclass(frozen=True, eq=False)
class Handlers:
    """Handlers of one tab; `controls` are named as the fields of `GenerateRequest`, `metadata` is a checkbox."""

    runtime: Runtime
    limit: VisitorLimit
    controls: Mapping[str, gr.components.Component]
    metadata: gr.components.Component
    stage: gr.HTML
    notice: gr.HTML

    def run(self, values: Components, request: gr.Request) -> Iterator[Components]:
        """Decodes; a generator, so that Stop can end it between two steps."""
        try:
            wanted = request_from({name: values[control] for name, control in self.controls.items()})
            self.limit.take(visitor(request), wanted.count)
            run = StageRun(wanted, self.runtime.pipeline.grid, metadata=values[self.metadata])
            yield {self.notice: ""}
            for event in self.runtime.run(wanted):
                if isinstance(event, Result):
                    yield {self.stage: run.result(event), self.notice: notice_html(" ".join(event.notes))}
                else:
                    yield {self.stage: run.step(event)}
        except UserError as error:
            yield {self.notice: notice_html(str(error))}
        except Exception:
            log.exception("a run failed")
            yield {self.notice: notice_html("Something went wrong while decoding: press Run to try again.")}

    def look_up_words(self, prompt: str) -> str:
        """The line under the prompt about words that the model has never seen."""
        return hints_html(self.runtime.pipeline.unknown_words(prompt[:1000]))

    def open_link(self, event: gr.EventData) -> Components:
        """Fills the controls from the page's query string."""
        fields = fields_of(event.query)
        return self._fill(lambda: request_from(fields)) if fields else {}

    def restore(self, event: gr.EventData) -> Components:
        """Fills the controls with the settings of a picture of this page."""
        return self._fill(lambda: request_from(json.loads(event.settings)))

    def restore_file(self, path: str | None) -> Components:
        """Fills the controls with the settings inside a PNG file."""

        return self._fill(lambda: read_settings(path)) if path else {}

    def reuse_seed(self, event: gr.EventData) -> Components:
        """Puts the seed of the picture on the stage into the seed control."""
        return {self.controls["seed"]: event.seed}

    def seed_note(self, seed: str) -> dict[str, Any]:
        """A seed that is set makes every run the same: say so where the eye is, with the way back."""
        return gr.update(value=f"Seed {seed[:12]} is kept: use a new one each time", visible=bool(seed.strip()))

    def show_fields(self, method: str) -> list[dict[str, Any]]:
        """Hides the fields of `NOT_FOR_ALL` that a method does not read."""
        return [gr.update(visible=method in methods) for methods in NOT_FOR_ALL.values()]

    def _fill(self, read: Callable[[], GenerateRequest]) -> Components:
        try:
            request = read()
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        filled = {control: getattr(request, name) for name, control in self.controls.items()}
        return {**filled, self.notice: ""}
