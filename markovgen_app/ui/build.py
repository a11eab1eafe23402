"""The page: header, tabs, and how it is served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.routing import BaseRoute

from markovgen_app.errors import UserError
from markovgen_app.runtime import Runtime
from markovgen_app.settings import Settings
from markovgen_app.visitors import VisitorLimit

from .about import about_tab
from .api import compare_endpoint, generate_endpoint
from .change_api import CHANGES, change_endpoint
from .compare import compare_tab
from .edit import edit_tab
from .examples import FOLDER, first_picture, load_examples
from .generate import generate_tab
from .handlers import MODEL_QUEUE
from .header import header_html
from .inpaint import inpaint_tab
from .tabs import Workplace
from .theme import head, theme

FILES_LAST = (3600, 7200)
"""Seconds between two looks at the files that visitors left, and their age that is too old: see About on both."""

Image.MAX_IMAGE_PIXELS = 16_000_000  # an uploaded picture is at most this large when unpacked


def build(runtime: Runtime, settings: Settings, *, examples: Path = FOLDER) -> gr.Blocks:
    """The whole app, ready to launch; it opens with the pictures in `examples`."""
    limit = VisitorLimit(settings.visitor_burst, settings.visitor_per_minute)
    with gr.Blocks(title="MarkovGen", analytics_enabled=False, delete_cache=FILES_LAST, fill_width=True) as page:
        gr.HTML(header_html(runtime.describe(), code_url(settings)), apply_default_css=False, elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            workplace = Workplace(tabs)
            with gr.Tab("Generate", id="generate") as tab:
                made = load_examples(examples)
                workplace.add(tab, generate_tab(runtime, limit, made, metadata=settings.save_metadata))
            with gr.Tab("Compare", id="compare") as tab:
                workplace.add(tab, compare_tab(runtime, limit, examples, metadata=settings.save_metadata))
            first = first_picture(examples)
            with gr.Tab("Inpaint", id="inpaint") as tab:
                workplace.add(tab, inpaint_tab(runtime, limit, first, metadata=settings.save_metadata))
            with gr.Tab("Edit by words", id="edit") as tab:
                workplace.add(tab, edit_tab(runtime, limit, first, metadata=settings.save_metadata))
            with gr.Tab("About", id="about"):
                about_tab(runtime, examples)
        workplace.wire(page)
        endpoints: dict[str, Any] = {"generate": generate_endpoint, "compare": compare_endpoint}
        endpoints |= {task: partial(change_endpoint, kind) for task, kind in CHANGES.items()}
        for name, endpoint in endpoints.items():
            function = endpoint(runtime, limit, page.GRADIO_CACHE, metadata=settings.save_metadata)
            gr.api(function, api_name=name, concurrency_id=MODEL_QUEUE, concurrency_limit=runtime.concurrency)
    page.queue(max_size=settings.queue_size)
    return page


def code_url(settings: Settings) -> str | None:
    """Where the code of this app is: as set, else a Space's own files, else not known."""
    space = os.environ.get("SPACE_ID")
    if settings.code_url or not space:
        return settings.code_url
    return f"https://huggingface.co/spaces/{space}/tree/main"


def launch(page: gr.Blocks, settings: Settings, **options: Any) -> Any:
    """Serves the page, and the study that the settings name, until interrupted; `options` go to Gradio's `launch`.

    Raises:
        UserError: the study cannot be opened, or the library mcp is missing.
    """
    if settings.mcp and find_spec("mcp") is None:
        raise UserError("MARKOVGEN_MCP=1 takes the library mcp: pip install 'mcp>=1.21,<2', or leave it out.")
    with _study(settings) as routes:
        return page.launch(
            **{
                "app_kwargs": {"routes": routes},
                "server_name": settings.host,
                "server_port": settings.port,
                "theme": theme(),
                "head": head(),
                "ssr_mode": False,
                "max_file_size": "10mb",
                "footer_links": ["api"],
                "run_history": False,
                "enable_monitoring": False,
                "pwa": False,
                "mcp_server": settings.mcp,
                "show_error": True,
                **options,
            }
        )


@contextmanager
def _study(settings: Settings) -> Iterator[list[BaseRoute]]:
    """The pages /rate and /results, which come before Gradio's own, until the study is closed; none without one."""
    if settings.study is None:
        yield []
        return
    from markovgen_app.study.site import Site

    site = Site.open(settings.study, settings)
    try:
        yield site.routes
    finally:
        site.close()
