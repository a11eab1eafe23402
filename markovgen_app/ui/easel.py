"""The easel: a picture to open and a mask to paint on it, with tools that need no pointer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block
from PIL import Image

from markovgen_app.decoding import masks
from markovgen_app.errors import UserError
from markovgen_app.intake import mask_picture, open_mask

from .controls import QUIETLY
from .handlers import Components
from .source import BRUSHES, MAX_SIDE, Source, editor_value, from_url, mask_file, painted, take_in
from .stage import preview_url
from .theme import static
from .words import notice_html

_EMPTY = '<p class="mg-no-picture">Open a picture, drop one here, paste one, or send one from another tab.</p>'
_OPENING = '<p class="mg-notice" role="status"></p>'  # filled in by static/easel.js
_CANVAS = (1, 1)  # pixels of an empty editor: it would lay masks in the middle of a canvas larger than the picture
_NO_PICTURE = "There is no picture yet: open one, or send one here from another tab."


@dataclass(frozen=True, eq=False)
class Easel:
    """A picture and what is painted on it.

    Attributes:
        source: holds the picture, a `Source` or None.
        last: holds what undoing brings back, a picture and its mask, or None.
        editor: shows the picture, and holds the mask.
        due: holds what the editor is to show once it is empty, or None.
        empty: stands in its place while there is no picture.
        upload: opens a picture.
        notice: one line on the picture and its mask.
        shown: what `static/easel.js` shows below, and what it says of a file that comes, see there.
        edges: left, top, right, bottom of a rectangle.
        tokens: asks which tokens a run would change.
    """

    source: gr.State
    last: gr.State
    editor: gr.ImageEditor
    due: gr.State
    empty: gr.HTML
    upload: gr.UploadButton
    notice: gr.HTML
    shown: gr.HTML
    edges: tuple[gr.Number, ...]
    tokens: gr.Button

    @property
    def parts(self) -> list[Block]:
        """What a new picture changes."""
        return [self.source, self.last, self.editor, self.due, self.empty, self.notice, self.shown]

    def mask(self, values: Components) -> np.ndarray:
        """The mask, (H, W) in [0, 1]; empty while the editor still holds that of the picture before.

        Raises:
            UserError: there is no picture yet, or the mask is not of its size.
        """
        source, value, before = self._there(values), values[self.editor], values[self.last]
        if value and before and before[0].shown != source.shown:
            value = {"layers": [layer for layer in value["layers"] if layer.size != before[0].shown]}
        return painted(value, source)

    def _there(self, values: Components) -> Source:
        source = values[self.source]
        if source is None:
            raise UserError(_NO_PICTURE)
        return source

    def show(self, values: Components, source: Source, mask: np.ndarray | None = None, notes: str = "") -> Components:
        """A new picture, with a mask if there is one.

        The editor takes the size of a picture only if that is larger than all before, or if it was emptied between.
        """
        last, value = values[self.source], editor_value(source, mask)
        emptied = last is not None and last.shown != source.shown
        return {
            self.source: source,
            self.editor: gr.update(value=None if emptied else value, visible=True),
            self.due: value if emptied else None,
            self.empty: gr.HTML(visible=False),
            self.notice: notice_html(notes),
            self.shown: _told(None, fresh=True),
        }

    def _kept(self, values: Components) -> tuple[Source, Image.Image] | None:
        """What undoing a change brings back; None where there is nothing."""
        try:
            return self._there(values), mask_picture(self.mask(values))
        except UserError:
            return None

    def receive(self, values: Components, url: str, *, keep_mask: bool) -> Components:
        """A picture from a stage; the mask stays if it is to, and the picture has the size of the last one.

        Raises:
            UserError: no picture arrived.
        """
        source, notes = take_in(from_url(url), longest=None)
        last = values[self.source]
        stays = keep_mask and last is not None and last.size == source.size
        mask = self.mask(values) if stays else None
        return {**self.show(values, source, mask, " ".join(notes)), self.last: self._kept(values)}

    def open(self, values: Components, path: str | None) -> Components:
        """A picture from a file; what is there stays if the file is none."""
        if path is None:
            return {}
        try:
            source, notes = take_in(path, _given(values[self.shown]))
        except UserError as error:
            return {self.notice: notice_html(str(error)), self.shown: None}
        return {**self.show(values, source, notes=" ".join(notes)), self.last: self._kept(values)}

    def changed(self, values: Components, change: Callable[[np.ndarray, Source], np.ndarray | None]) -> Components:
        """The mask after a change, or a line on why there is none."""
        try:
            source = self._there(values)
            mask = change(self.mask(values), source)
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        changed: Components = {self.editor: editor_value(source, mask), self.shown: _told(mask), self.notice: ""}
        return {**changed, self.last: self._kept(values)}

    def undo(self, values: Components) -> Components:
        """The picture and the mask as they were before the last change; pressed again, as they were after it."""
        if values[self.last] is None:
            return {self.notice: notice_html("There is nothing to undo.")}
        source, kept = values[self.last]
        mask = open_mask(kept)
        return {
            **self.show(values, source, mask),
            self.shown: _told(mask, fresh=True),
            self.last: self._kept(values),
        }

    def mark(self, values: Components) -> Components:
        """The mask and the rectangle of the four edges together."""

        def add(mask: np.ndarray, source: Source) -> np.ndarray:
            edges = [values[edge] for edge in self.edges]
            if None in edges:
                raise UserError("A rectangle has four edges: give left, top, right and bottom in pixels.")
            return np.maximum(mask, masks.rectangle(*source.size, [int(edge) for edge in edges]))

        return self.changed(values, add)

    def load(self, values: Components, path: str) -> Components:
        """The mask of a file."""
        given = _given(values[self.shown])
        return {self.shown: None, **self.changed(values, lambda mask, source: mask_file(path, source, given))}

    def download(self, values: Components) -> Components:
        """The mask as a file to save: white where it is painted."""
        try:
            mask, name = mask_picture(self.mask(values)), f"{values[self.source].name}-mask"
            file = {"src": preview_url(mask), "name": name, "ticket": secrets.token_hex(4)}  # anew for every press
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        return {self.shown: {"save": file}, self.notice: ""}


def _told(mask: np.ndarray | None, *, fresh: bool = False) -> dict[str, Any]:
    """For the page, which warns of leaving what is painted, and says when it is ready for a fresh picture."""
    painted = mask is not None and bool(mask.any())
    return {"painted": painted, "fresh": fresh, "ticket": secrets.token_hex(4)}  # anew for every change


def _given(told: Any) -> tuple[int, int] | None:
    """The size that a picture or a mask had before the page shrunk it, as the page says."""
    match told:
        case {"given": [int(width), int(height)]}:
            return width, height
    return None


def easel(titles: str, label: str, first: Path | None) -> Easel:
    """Lays out the easel and wires its tools; call inside the tab's column.

    Args:
        titles: what stands above it, HTML.
        label: of the editor, what painting means.
        first: a picture to begin with.
    """
    source = take_in(first)[0] if first else None
    held, last, due = gr.State(source), gr.State(), gr.State()
    with gr.Row(elem_classes="mg-easel-head"):
        gr.HTML(titles, apply_default_css=False)
        upload = gr.UploadButton("Open a picture", file_types=["image"], size="sm", elem_classes="mg-open")
    empty = gr.HTML(_EMPTY, visible=source is None, apply_default_css=False)
    editor = gr.ImageEditor(
        editor_value(source) if source else None,
        visible=source is not None,
        type="pil",
        image_mode="RGBA",
        format="png",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(colors=list(BRUSHES), default_color=BRUSHES[0], color_mode="fixed", default_size=16),
        eraser=gr.Eraser(default_size=16),
        buttons=[],
        label=label,
        show_label=False,
        height=440,
        canvas_size=_CANVAS,
        elem_classes="mg-editor",
    )
    gr.HTML(_OPENING, apply_default_css=False, elem_classes="mg-opening")
    notice = gr.HTML(elem_classes="mg-notices", apply_default_css=False)
    with gr.Row(elem_classes="mg-tools"):
        invert = gr.Button("Invert", size="sm")
        clear = gr.Button("Clear", size="sm")
        undo = gr.Button("Undo", size="sm", elem_classes="mg-undo")  # static/easel.js undoes strokes before
        mask_upload = gr.UploadButton("Upload mask", file_types=["image"], size="sm", elem_classes="mg-mask-file")
        download = gr.Button("Download mask", size="sm")
        tokens = gr.Button("Show tokens", size="sm")
    gr.HTML('<p class="mg-legend-line">Without a pointer: a rectangle, in pixels</p>', apply_default_css=False)
    with gr.Row(elem_classes="mg-rectangle"):
        edges = tuple(gr.Number(label=edge, precision=0, min_width=60) for edge in ("Left", "Top", "Right", "Bottom"))
        mark = gr.Button("Mark", size="sm")
    shown = gr.HTML(
        html_template=static("easel.html"),
        js_on_load=static("pictures.js") + static("easel.js"),
        apply_default_css=False,
        elem_classes="mg-shown",
        longest=MAX_SIDE,
    )
    parts = Easel(held, last, editor, due, empty, upload, notice, shown, edges, tokens)
    known: set[Block] = {held, last, editor}
    tools: dict[gr.Button, Callable[[Components], Components]] = {
        invert: lambda values: parts.changed(values, lambda mask, source: masks.invert(mask)),
        clear: lambda values: parts.changed(values, lambda mask, source: None),
        undo: parts.undo,
        mark: parts.mark,
        download: parts.download,
    }
    shown.ready(lambda value: (value, None) if value else gr.skip(), due, [editor, due], **QUIETLY)
    for button, work in tools.items():
        button.click(work, {*known, *edges} if button is mark else known, parts.parts, **QUIETLY)
    opened = upload.upload(
        lambda values: parts.open(values, values[upload]), {*known, shown, upload}, parts.parts, **QUIETLY
    )
    loaded = mask_upload.upload(
        lambda values: parts.load(values, values[mask_upload]), {*known, shown, mask_upload}, parts.parts, **QUIETLY
    )
    for brought in (opened, loaded):
        brought.failure(None, None, shown, js="() => [null]")
    return parts
