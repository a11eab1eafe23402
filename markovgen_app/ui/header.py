"""The header of every page: name, device, shortcuts, day or night, code."""

from __future__ import annotations

from html import escape
from string import Template

from .theme import static


def header_html(device: str, code_url: str | None) -> str:
    """Args: `device` for the chip ("CPU · 2 threads · about 2 s a picture"); `code_url` where the code is, if known."""
    code = f'<a class="mg-quiet" href="{escape(code_url)}" target="_blank" rel="noopener">Code</a>' if code_url else ""
    return Template(static("header.html")).substitute(device=escape(device), code=code)
