"""The API as tools of the Model Context Protocol: off unless asked for, and what a client is offered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from browsing import free_port
from builders import runtime_of, tiny_pipeline

from markovgen_app.errors import UserError
from markovgen_app.settings import Settings
from markovgen_app.ui import build as building


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="MARKOVGEN_MCP=1 takes the library mcp: pip install"):
        building.launch(gr.Blocks(), Settings(mcp=True))


def test_a_client_finds_the_tools_and_makes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    runtime = runtime_of(tiny_pipeline())
    settings = Settings(mcp=True, port=free_port())
    page = building.build(runtime, settings, examples=tmp_path)
    building.launch(page, settings, prevent_thread_lock=True, quiet=True)

    async def asked() -> tuple[dict[str, Any], Any]:
        address = f"http://127.0.0.1:{settings.port}/gradio_api/mcp/"
        async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool.inputSchema["properties"] for tool in (await session.list_tools()).tools}
            made = await session.call_tool("generate", {"prompt": "a panda", "seed": 7, "steps": 2})
            return tools, made

    try:
        tools, made = asyncio.run(asked())
    finally:
        page.close()
    assert {"generate", "compare"} <= set(tools)
    assert {"prompt", "seed", "steps", "method"} <= set(tools["generate"])
    assert not made.isError, made
    texts = [part.text for part in made.content if part.type == "text"]
    assert any('"seed": 7' in text or "'seed': 7" in text for text in texts), json.dumps(texts)[:500]
