"""What the tabs that change pictures share: from easel and controls to requests, and their runs on the stage."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from markovgen_app.errors import UserError
from markovgen_app.events import Result
from markovgen_app.picture_requests import PictureRequest

from .easel import Easel
from .handlers import Components, Handlers, given, request_from
from .limits import pictures_worth
from .source import before_picture, touched
from .stage import StageRun, preview_url
from .words import notice_html

Controls = Mapping[str, gr.components.Component]


@dataclass(frozen=True, eq=False)
class ChangeHandlers(Handlers):
    """A picture, changed.

    Attributes:
        easel: the picture and its mask.
        choice: the tab's own choice of how the picture is changed.
        own: by task, the controls of what only its request has.
    """

    easel: Easel
    choice: gr.Radio
    own: Mapping[str, Controls]

    @abstractmethod
    def requests(self, values: Components) -> Sequence[PictureRequest]:
        """What is asked for, one after the other.

        Raises:
            UserError: one line on the first thing that is wrong.
        """

    @abstractmethod
    def example(self, values: Components) -> PictureRequest:
        """A request whatever the words, which says by its mask what a run would change.

        Raises:
            UserError: one line on the first thing that is wrong.
        """

    def captions(self, requests: Sequence[PictureRequest]) -> Sequence[str]:
        """Names of the requests' pictures; none where there is one request."""
        return ()

    @property
    def named(self) -> Controls:
        return {name: control for controls in (self.controls, *self.own.values()) for name, control in controls.items()}

    @property
    def inputs(self) -> set[Block]:
        return super().inputs | self.known | set(self._own_parts)

    @property
    def known(self) -> set[Block]:
        """What the easel holds."""
        return {self.easel.source, self.easel.editor, self.easel.last}

    @property
    def held(self) -> list[Block]:
        return list(self.known)

    @property
    def filled(self) -> list[Block]:
        return [*super().filled, *self._own_parts, *self.easel.parts]

    @property
    def _own_parts(self) -> list[Block]:
        return [self.choice, *(part for controls in self.own.values() for part in controls.values())]

    def fields(self, values: Components, kind: type[PictureRequest]) -> dict[str, Any]:
        """A request's fields but for the mask."""
        own = {name: values[control] for name, control in self.own[kind.task].items()}
        source = values[self.easel.source]
        return {**given(kind, self.asked(values) | own), "image": source and source.image}

    def work(self, values: Components, visitor: str | None) -> Iterator[Components]:
        wanted = [request.with_seed() for request in self.requests(values)]
        self.limit.take(visitor, pictures_worth(self.runtime, *wanted))
        before = preview_url(before_picture(wanted[0]))
        run = StageRun(*wanted, metadata=values[self.metadata], before=before, captions=self.captions(wanted))
        for request in wanted:
            for event in self.runtime.run(request):
                if isinstance(event, Result):
                    yield {self.stage: run.result(event), self.notice: notice_html(" ".join(event.notes))}
                else:
                    yield {self.stage: run.step(event)}

    def show_tokens(self, values: Components) -> Components:
        """What a run would change."""
        try:
            picture, says = touched(self.runtime.pipeline, self.example(values))
        except UserError as error:
            return {self.easel.notice: self.answer(error), self.easel.shown: None}
        return {self.easel.shown: {"src": preview_url(picture), "says": says}, self.easel.notice: ""}

    def receive(self, values: Components, event: gr.EventData) -> Components:
        """A picture with the settings that are its own, or the picture alone, for the next change of it."""
        try:
            filled = self.fill(lambda: json.loads(event.settings)) if event.settings else {}
            if event.src:
                filled |= self.easel.receive(values, event.src, keep_mask=not event.settings)
        except UserError as error:
            return {self.easel.notice: notice_html(str(error))}
        return filled

    def settings(self, fields: Mapping[str, Any]) -> Components:
        """All controls for the settings of a picture that was made here; prompt and seed of any other."""
        task = str(fields.get("task"))
        if task in self.own:
            self.check_method(str(fields.get("method")))
            return {
                control: fields[name]
                for name, control in {**self.controls, **self.own[task]}.items()
                if name in fields and name != "count"
            }
        request = request_from({name: fields.get(name) for name in ("prompt", "seed")})
        return {self.controls["prompt"]: request.prompt, self.controls["seed"]: request.seed}
