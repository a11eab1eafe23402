"""The look: one accent colour on warm paper, by day and by night.

The colours are those of palette.py; `static/*.css` reads them through Gradio's own variables.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import gradio as gr

from markovgen_app.palette import (
    ACCENT,
    ACCENT_STRONG,
    CARD,
    EDGE,
    INK,
    LINE,
    MUTED,
    ON_ACCENT,
    PAPER,
    RAISED,
    WASH,
)

STATIC = Path(__file__).parent / "static"
_STYLES = ("page.css", "stage.css", "compare.css", "divide.css", "words.css", "change.css")
_SCRIPTS = ("page.js", "tabs.js")

_SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "Liberation Sans",
    "sans-serif",
)
_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", "monospace")

_COLOURS = {
    "body_background_fill": PAPER,
    "body_text_color": INK,
    "body_text_color_subdued": MUTED,
    "background_fill_primary": CARD,
    "background_fill_secondary": RAISED,
    "border_color_primary": LINE,
    "border_color_accent": ACCENT,
    "color_accent_soft": WASH,
    "link_text_color": ACCENT,
    "link_text_color_hover": ACCENT_STRONG,
    "link_text_color_active": ACCENT_STRONG,
    "link_text_color_visited": ACCENT,
    "block_background_fill": CARD,
    "block_border_color": LINE,
    "block_info_text_color": MUTED,
    "block_label_text_color": MUTED,
    "block_title_text_color": INK,
    "panel_background_fill": CARD,
    "accordion_text_color": INK,
    "input_background_fill": CARD,
    "input_background_fill_focus": CARD,
    "input_background_fill_hover": CARD,
    "input_border_color": EDGE,
    "input_border_color_focus": ACCENT,
    "input_border_color_hover": MUTED,
    "input_placeholder_color": MUTED,
    "slider_color": ACCENT,
    "loader_color": ACCENT,
    "checkbox_background_color": CARD,
    "checkbox_background_color_selected": ACCENT,
    "checkbox_border_color": MUTED,
    "checkbox_border_color_selected": ACCENT,
    "checkbox_border_color_focus": ACCENT,
    "checkbox_label_background_fill": CARD,
    "checkbox_label_background_fill_hover": RAISED,
    "checkbox_label_background_fill_selected": WASH,
    "checkbox_label_border_color": EDGE,
    "checkbox_label_border_color_hover": MUTED,
    "checkbox_label_border_color_selected": ACCENT,
    "checkbox_label_text_color": INK,
    "checkbox_label_text_color_selected": INK,
    "button_primary_background_fill": ACCENT,
    "button_primary_background_fill_hover": ACCENT_STRONG,
    "button_primary_border_color": ACCENT,
    "button_primary_border_color_hover": ACCENT_STRONG,
    "button_primary_text_color": ON_ACCENT,
    "button_primary_text_color_hover": ON_ACCENT,
    "button_secondary_background_fill": CARD,
    "button_secondary_background_fill_hover": RAISED,
    "button_secondary_border_color": LINE,
    "button_secondary_border_color_hover": MUTED,
    "button_secondary_text_color": INK,
    "button_secondary_text_color_hover": INK,
    "button_cancel_background_fill": INK,
    "button_cancel_background_fill_hover": INK,
    "button_cancel_border_color": INK,
    "button_cancel_border_color_hover": INK,
    "button_cancel_text_color": PAPER,
    "button_cancel_text_color_hover": PAPER,
}

_SHAPES = {
    "block_radius": "16px",
    "container_radius": "16px",
    "input_radius": "12px",
    "checkbox_border_radius": "6px",
    "checkbox_label_padding": "10px 14px",
    "checkbox_label_gap": "8px",
    "button_large_radius": "14px",
    "button_medium_radius": "12px",
    "button_small_radius": "10px",
    "button_large_text_weight": "650",
    "block_title_text_weight": "600",
    "block_title_text_size": "14px",
    "block_label_text_size": "13px",
    "block_info_text_size": "13px",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_padding": "0px",
    "block_shadow": "none",
    "block_shadow_dark": "none",
    "input_border_width": "1px",
    "input_border_width_dark": "1px",
    "input_shadow": "none",
    "input_shadow_dark": "none",
    "input_shadow_focus": "0 0 0 3px *color_accent_soft",
    "input_shadow_focus_dark": "0 0 0 3px *color_accent_soft",
    "checkbox_shadow": "none",
    "checkbox_label_shadow": "none",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "layout_gap": "18px",
    "form_gap_width": "0px",
    "color_accent": "*border_color_accent",
}


def theme() -> gr.themes.Base:
    """The Gradio theme. Fonts are the visitor's own, so that no page load calls a font server."""
    base = gr.themes.Base(
        font=[gr.themes.Font(name) for name in _SANS], font_mono=[gr.themes.Font(name) for name in _MONO]
    )
    colours = {name: light for name, (light, _) in _COLOURS.items()}
    dark = {f"{name}_dark": dark for name, (_, dark) in _COLOURS.items()}
    return base.set(**colours, **dark, **_SHAPES)


def head() -> str:
    """Styles and page-wide scripts for the document's head: Gradio would rewrite the selectors of its `css` option."""
    icon = f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(static("icon.svg"))}">'
    styles = "".join(f"<style>{static(name)}</style>" for name in _STYLES)
    return icon + styles + "".join(f"<script>{static(name)}</script>" for name in _SCRIPTS)


def stage_script(*names: str) -> str:
    """The script of a stage: what all stages share, then its own files."""
    return "".join(static(name) for name in ("pictures.js", "run.js", *names))


def static(name: str) -> str:
    """The text of a file in `static/`."""
    return (STATIC / name).read_text(encoding="utf-8")
