"""What happens on a tab. Every handler answers with what changes; none ever takes an input away."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr
from gradio.blocks import Block

from markovgen_app.errors import UserError
from markovgen_app.pictures import request_of, stored_settings
from markovgen_app.requests import DecodingRequest, GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.validation import spoken
from markovgen_app.visitors import VisitorLimit

from .controls import NOT_FOR_ALL, QUIETLY, Ask, is_read, marked
from .limits import visitor as visitor_of
from .links import fields_of
from .words import hints_html, notice_html

MODEL_QUEUE = "model"  # one concurrency group for all that uses the model
_SETTLED_JS = "(text) => window.markovgenSettled ? window.markovgenSettled(text) : text"
_BROKEN_OFF = (
    "That did not start or broke off; your pictures are kept. Press Run again in a minute, as many people may be"
    " waiting; if it fails once more, reload the page."
)

Components = dict[Block, Any]
log = logging.getLogger(__name__)


def given(kind: type[DecodingRequest], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What controls or a query string say of a request: an emptied field that may be None is None, also where the
    weights would have a number there; any other empty one is not given.
    """
    found = {}
    for name, value in fields.items():
        if value not in ("", None):
            found[name] = value
        elif name in kind.model_fields and type(None) in get_args(kind.model_fields[name].annotation):
            found[name] = None
    return {"prompt": "", **found}


def request_from(fields: Mapping[str, Any]) -> GenerateRequest:
    """A request from controls or a query string (see `given`).

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    return GenerateRequest.validated(**given(GenerateRequest, fields))


@dataclass(frozen=True, eq=False)
class Handlers(ABC):
    """Handlers of one tab.

    Attributes:
        tab: its id, which links to it name.
        controls: named as the fields of the request; prompt and seed among them.
        metadata: a checkbox, whether PNG files carry their settings.
        stage: shows the run; its events are those of `controls.wire`.
        notice: one line beside the prompt.
    """

    tab: str
    runtime: Runtime
    limit: VisitorLimit
    controls: Mapping[str, gr.components.Component]
    metadata: gr.components.Component
    stage: gr.HTML
    notice: gr.HTML

    @abstractmethod
    def work(self, values: Components, visitor: str | None) -> Iterator[Components]:
        """Does what the controls' values ask for, step by step, for a visitor (see `VisitorLimit.take`).

        Raises:
            UserError: one line on the first thing that is wrong.
        """

    @property
    def named(self) -> Mapping[str, gr.components.Component]:
        """All controls that requests are made of, by their fields."""
        return self.controls

    @property
    def inputs(self) -> set[Block]:
        """What `run` reads."""
        return {*self.controls.values(), self.metadata}

    @property
    def filled(self) -> list[Block]:
        """What links, files and other tabs fill in."""
        return [*self.controls.values(), self.notice]

    @property
    def held(self) -> list[Block]:
        """What `receive` reads."""
        return []

    def run(self, values: Components, request: gr.Request) -> Iterator[Components]:
        """Works; a generator, so that Stop can end it between two steps."""
        try:
            yield {self.notice: ""}
            yield from self.work(values, visitor_of(request))
        except UserError as error:
            yield {self.notice: self.answer(error)}
        except Exception:
            log.exception("a run failed")
            yield {self.notice: notice_html("Something went wrong while decoding: please try again.")}

    def answer(self, error: UserError) -> str:
        """A notice on a mistake, which calls the field as the page does."""
        field = error.field or ""
        if field not in self.named:
            return notice_html(str(error))
        message, called, label = str(error), spoken(field), self.named[field].label
        if label != called and message.startswith(f"{called} "):
            message = f"“{label}”{message.removeprefix(called)}"
        return notice_html(message, field)

    def chosen(self, values: Components) -> Sequence[str]:
        """The methods that the controls ask for."""
        return [values[self.controls["method"]]]

    def asked(self, values: Components) -> dict[str, Any]:
        """The controls' values by name, but for those that no chosen method reads: they are hidden."""
        methods = self.chosen(values)
        return {name: values[control] for name, control in self.controls.items() if is_read(name, methods)}

    def look_up_words(self, prompt: str) -> str:
        """The line under the prompt about words that the model has never seen."""
        return hints_html(self.runtime.pipeline.unknown_words(prompt[:1000]))

    def open_link(self, event: gr.EventData) -> Components:
        """Fills the controls from the page's query string, if it leads to this tab."""
        fields = fields_of(event.query)
        return self.fill(lambda: fields) if fields else {}

    def receive(self, values: Components, event: gr.EventData) -> Components:
        """Fills the controls with the settings of a picture, of this tab or another; `values` are those of `held`."""
        return self.fill(lambda: json.loads(event.settings))

    def receive_file(self, path: str | None) -> Components:
        """Fills the controls with the settings inside a PNG file."""
        if not path:
            return {}
        try:
            fields = stored_settings(path)
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        task = fields.get("task", GenerateRequest.task)
        if task == GenerateRequest.task:
            return self.fill(lambda: request_of(fields).model_dump())
        filled = self.fill(lambda: {name: fields.get(name) for name in ("prompt", "seed", "method")})
        told = f"This picture was made by {task}: its words, seed and method are here; the rest would not fit."
        return {**filled, self.notice: filled[self.notice] or notice_html(told)}

    def seed_note(self, seed: str | None) -> dict[str, Any]:
        """A seed that is set makes every run the same: say so where the eye is, with the way back."""
        kept = (seed or "").strip()
        return gr.update(value=f"Seed {kept[:12]} is kept: use a new one each time", visible=bool(kept))

    def reuse_seed(self, event: gr.EventData) -> Components:
        """Puts the seed of what is on the stage into the seed control."""
        return {self.controls["seed"]: event.seed}

    def fill(self, read: Callable[[], Mapping[str, Any]]) -> Components:
        """Fills the controls with a request's fields, or says what is wrong with them."""
        try:
            return {**self.settings(read()), self.notice: ""}
        except UserError as error:
            return {self.notice: notice_html(str(error))}

    def settings(self, fields: Mapping[str, Any]) -> Components:
        """The controls' values for a request's fields; where these name no method, such as in a link to a prompt alone,
        the rest is as the weights are best asked.

        Raises:
            UserError: one line on the first field that is wrong.
        """
        return self.filled_with(request_from(fields), settled="method" in fields)

    def filled_with(self, request: GenerateRequest, *, settled: bool) -> Components:
        """The controls' values for a request: as it is, or with what it leaves open as the weights are best asked."""
        request = request if settled else self.runtime.pipeline.settled(request)
        self.check_method(request.method)
        if request.size not in self.runtime.pipeline.sizes:
            request = request.model_copy(update={"size": self.runtime.pipeline.sizes[-1]})
        return {control: getattr(request, name) for name, control in self.controls.items()}

    def check_method(self, method: str) -> None:
        """Raise UserError where the weights cannot run a method."""
        methods = self.runtime.pipeline.methods
        if method not in methods:
            raise UserError(f"These weights cannot run the method {method[:40]!r}: choose among {', '.join(methods)}.")


def wire(handlers: Handlers, ask: Ask, methods: gr.components.Component) -> None:
    """Wires what all tabs have: run and stop, the line on new words, links, settings, seeds, fields that not all read.

    Args:
        methods: the control of the method, or of several.
    """
    stage, filled, seed = handlers.stage, handlers.filled, handlers.controls["seed"]
    there = f"window.markovgenStages?.[{json.dumps(f'tab-{handlers.tab}')}]"  # the stage, in the page
    for name, control in handlers.named.items():
        marked(control, name)
    ask.run.click(None, None, handlers.notice, js="() => ''")
    running = ask.run.click(
        handlers.run,
        inputs=handlers.inputs,
        outputs=[stage, handlers.notice],
        show_progress="minimal",
        show_progress_on=stage,
        concurrency_id=MODEL_QUEUE,
        concurrency_limit=handlers.runtime.concurrency,
        api_visibility="private",
    )
    running.then(None, js=f"() => {there}?.finish()")
    broken_off = json.dumps(notice_html(_BROKEN_OFF))
    running.failure(None, None, handlers.notice, js=f"() => ({there}?.fail() ? {broken_off} : undefined)")
    ask.stop.click(None, cancels=[running])
    ask.prompt.change(
        handlers.look_up_words, ask.prompt, ask.hints, trigger_mode="always_last", js=_SETTLED_JS, **QUIETLY
    )
    opened = stage.opened(handlers.open_link, None, filled, **QUIETLY)
    opened.then(None, None, [ask.prompt, seed], js="() => window.markovgenTabs.left()")
    stage.reuse(handlers.reuse_seed, None, [seed], **QUIETLY)
    seed.change(  # type: ignore[attr-defined]
        handlers.seed_note, seed, ask.forget, trigger_mode="always_last", **QUIETLY
    )
    ask.forget.click(lambda: "", None, seed, **QUIETLY)
    not_for_all = {name: handlers.controls[name] for name in NOT_FOR_ALL if name in handlers.controls}

    def show_fields(chosen: str | list[str]) -> list[dict[str, Any]]:
        """Hides the fields that no chosen method reads."""
        names = [chosen] if isinstance(chosen, str) else chosen
        return [gr.update(visible=is_read(name, names)) for name in not_for_all]

    methods.change(show_fields, methods, list(not_for_all.values()), **QUIETLY)  # type: ignore[attr-defined]
