"""What the browser tests share."""

from collections.abc import Callable

from playwright.sync_api import Page

PATIENCE = 30_000  # ms; generous, because other tests share the cores
OpenPage = Callable[..., Page]
