"""What the browser tests share."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

RESULTS = Path(__file__).parents[2] / "test-results"
FAILED = pytest.StashKey[list[str]]()

PATIENCE = 60_000  # ms; generous, because other tests share the cores
OpenPage = Callable[..., Page]
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--disable-background-networking"]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
