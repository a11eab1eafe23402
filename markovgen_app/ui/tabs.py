"""The tabs as one workplace: prompt and seed are carried from tab to tab, links lead to a tab, pictures are sent."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from .controls import QUIETLY
from .handlers import Components, Handlers


class Workplace:
    """Collects the tabs that have a prompt and a seed, then wires them to each other.

    What it needs in the page is in `static/tabs.js`. A stage sends what it shows to another tab by the event `send`
    with `to` (the tab's id), `settings` (JSON, or null) and `src` (a data URL, for tabs that change pictures).

    Args:
        tabs: holds all of them.
    """

    def __init__(self, tabs: gr.Tabs) -> None:
        self.tabs = tabs
        self._handlers: dict[str, Handlers] = {}
        self._tabs: dict[str, gr.Tab] = {}

    def add(self, tab: gr.Tab, handlers: Handlers) -> None:
        """A tab whose id is the handlers' `tab`."""
        self._handlers[handlers.tab], self._tabs[handlers.tab] = handlers, tab

    def wire(self, page: gr.Blocks) -> None:
        """Wires all tabs that were added; call once, inside `page`."""
        carried = {
            name: [handlers.controls["prompt"], handlers.controls["seed"]] for name, handlers in self._handlers.items()
        }
        everything = [control for controls in carried.values() for control in controls]
        filled = list(dict.fromkeys(part for handlers in self._handlers.values() for part in handlers.filled))
        held = {part for handlers in self._handlers.values() for part in handlers.held}
        for name, tab in self._tabs.items():
            js = f"(...values) => window.markovgenTabs.entered({json.dumps(name)}, {json.dumps(list(carried))}, values)"
            tab.select(None, everything, carried[name], js=js, **QUIETLY)
            self._handlers[name].stage.send(self.send, held, [self.tabs, *filled], **QUIETLY)
        opened = page.load(self.open, None, self.tabs, **QUIETLY)
        js = f"() => window.markovgenTabs.restored({json.dumps(list(carried))})"
        opened.then(None, None, [self.tabs, *everything], js=js)

    def send(self, values: Components, event: gr.EventData) -> Components:
        """Fills in the tab that a picture was sent to, and goes there."""
        handlers = self._handlers.get(str(event.to))
        return {self.tabs: gr.Tabs(selected=handlers.tab), **handlers.receive(values, event)} if handlers else {}

    def open(self, request: gr.Request) -> Any:
        """Goes to the tab that the page's link names."""
        name = request.query_params.get("tab", "")
        there = [getattr(tab, "id", None) for tab in self.tabs.children]
        return gr.Tabs(selected=name) if name in there else gr.skip()
