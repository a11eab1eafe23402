"""How tests read the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(page: Path, language: str = "") -> list[str]:
    """The contents of a page's fenced blocks of one language, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M)
    return [content for its_language, content in found if its_language == language]


def python_blocks(page: Path) -> list[str]:
    """A page's examples in Python, in order."""
    return blocks(page, "python")
