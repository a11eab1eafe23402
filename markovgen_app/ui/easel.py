"""The easel: a picture to open and a mask to paint on it, with tools that need no pointer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.blocks import Block

from markovgen_app.decoding import masks
from markovgen_app.errors import UserError
from markovgen_app.intake import mask_picture

from .controls import QUIETLY
from .handlers import Components
from .source import BRUSHES, Source, editor_value, from_url, mask_file, painted, take_in
from .stage import preview_url
from .theme import static
from .words import notice_html

_EMPTY = '<p class="mg-no-picture">Open a picture, drop one here, paste one, or send one from another tab.</p>'
_NO_PICTURE = "There is no picture yet: open one, or send one here from another tab."


@dataclass(frozen=True, eq=False)
class Easel:
    """A picture and what is painted on it.

    Attributes:
        source: holds the picture, a `Source` or None.
        editor: shows it, and holds the mask.
        empty: stands in its place while there is no picture.
        upload: opens a picture.
        notice: one line on the picture and its mask.
        shown: what `static/easel.js` shows below, see there.
        edges: left, top, right, bottom of a rectangle.
        tokens: asks which tokens a run would change.
    """

    source: gr.State
    editor: gr.ImageEditor
    empty: gr.HTML
    upload: gr.UploadButton
    notice: gr.HTML
    shown: gr.HTML
    edges: tuple[gr.Number, ...]
    tokens: gr.Button

    @property
    def parts(self) -> list[Block]:
        """What a new picture changes."""
        return [self.source, self.editor, self.empty, self.notice, self.shown]

    def mask(self, values: Components) -> np.ndarray:
        """The mask, (H, W) in [0, 1].

        Raises:
            UserError: there is no picture yet, or the mask is not of its size.
        """
        return painted(values[self.editor], self._there(values))

    def _there(self, values: Components) -> Source:
        source = values[self.source]
        if source is None:
            raise UserError(_NO_PICTURE)
        return source

    def show(self, source: Source, mask: np.ndarray | None = None, notes: str = "") -> Components:
        """A new picture, with a mask if there is one."""
        return {
            self.source: source,
            self.editor: gr.ImageEditor(value=editor_value(source, mask), visible=True),
            self.empty: gr.HTML(visible=False),
            self.notice: notice_html(notes),
            self.shown: None,
        }

    def receive(self, values: Components, url: str, *, keep_mask: bool) -> Components:
        """A picture from a stage; the mask stays if it is to, and the picture has the size of the last one.

        Raises:
            UserError: no picture arrived.
        """
        source, notes = take_in(from_url(url))
        last = values[self.source]
        stays = keep_mask and last is not None and last.size == source.size
        return self.show(source, self.mask(values) if stays else None, " ".join(notes))

    def open(self, path: str | None) -> Components:
        """A picture from a file; what is there stays if the file is none."""
        if path is None:
            return {}
        try:
            source, notes = take_in(path)
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        return self.show(source, notes=" ".join(notes))

    def changed(self, values: Components, change: Callable[[np.ndarray, Source], np.ndarray | None]) -> Components:
        """The mask after a change, or a line on why there is none."""
        try:
            source = self._there(values)
            mask = change(self.mask(values), source)
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        return {self.editor: editor_value(source, mask), self.notice: "", self.shown: None}

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
        return self.changed(values, lambda mask, source: mask_file(path, source))

    def download(self, values: Components) -> Components:
        """The mask as a file to save: white where it is painted."""
        try:
            mask, name = mask_picture(self.mask(values)), f"{values[self.source].name}-mask"
            file = {"src": preview_url(mask), "name": name, "ticket": secrets.token_hex(4)}  # anew for every press
        except UserError as error:
            return {self.notice: notice_html(str(error))}
        return {self.shown: {"save": file}, self.notice: ""}


def easel(titles: str, label: str, first: Path | None) -> Easel:
    """Lays out the easel and wires its tools; call inside the tab's column.

    Args:
        titles: what stands above it, HTML.
        label: of the editor, what painting means.
        first: a picture to begin with.
    """
    source = take_in(first)[0] if first else None
    held = gr.State(source)
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
        elem_classes="mg-editor",
    )
    notice = gr.HTML(elem_classes="mg-notices", apply_default_css=False)
    with gr.Row(elem_classes="mg-tools"):
        invert = gr.Button("Invert", size="sm")
        clear = gr.Button("Clear", size="sm")
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
    )
    parts = Easel(held, editor, empty, upload, notice, shown, edges, tokens)
    known: set[Block] = {held, editor}
    tools: dict[gr.Button, Callable[[Components], Components]] = {
        invert: lambda values: parts.changed(values, lambda mask, source: masks.invert(mask)),
        clear: lambda values: parts.changed(values, lambda mask, source: None),
        mark: parts.mark,
        download: parts.download,
    }
    for button, work in tools.items():
        button.click(work, {*known, *edges} if button is mark else known, parts.parts, **QUIETLY)
    upload.upload(parts.open, upload, parts.parts, **QUIETLY)
    mask_upload.upload(
        lambda values: parts.load(values, values[mask_upload]), {*known, mask_upload}, parts.parts, **QUIETLY
    )
    return parts
