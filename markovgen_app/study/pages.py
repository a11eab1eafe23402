"""The study's pages as whole documents: styles and scripts are in them, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from .. import palette
from .bundle import Bundle

_STATIC = Path(__file__).parent / "static"
_COLOURS = ("PAPER", "CARD", "RAISED", "INK", "MUTED", "LINE", "ACCENT", "ACCENT_STRONG", "ON_ACCENT", "WASH")
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 30"><rect x="1" y="5" width="13" height="20" rx="3"'
    ' fill="#8a7f72"/><rect x="16" y="5" width="13" height="20" rx="3" fill="#d9480f"/></svg>'
)


@dataclass(frozen=True)
class Page:
    """A document and the policy under which a browser may show it."""

    document: str
    policy: str

    def response(self, status: int = 200) -> Response:
        """The page, never kept by anybody."""
        headers = {
            "Content-Security-Policy": self.policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(self.document, status, headers=headers)


def page(template: str, style: str, script: str, **values: str) -> Page:
    """Fill a template from `static/`: `style` and `script` are whole texts, `values` are HTML."""
    document = Template(static(template)).substitute(icon=quote(_ICON), style=style, script=script, **values)
    allowed = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script) if script else "'none'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'self' https://huggingface.co" if os.environ.get("SPACE_ID") else "'self'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    return Page(document, policy)


def rate_page(bundle: Bundle, *, invite_only: bool) -> Page:
    """The rater's page: of the study it tells the title, the question, what one consents to and the pictures' shape."""
    plan, manifest = bundle.plan, bundle.manifest
    shape = (
        f":root {{ --shape: {manifest.width} / {manifest.height}; --ratio: {manifest.width / manifest.height:.4f}; }}\n"
    )
    return page(
        "rate.html",
        colours() + shape + static("base.css") + static("rate.css"),
        static("rate.js"),
        title=escape(plan.title),
        question=escape(plan.question),
        consent=paragraphs(manifest.consent),
        study=hashlib.sha256(bundle.digest.encode()).hexdigest()[:12],
        exposure=f"{manifest.exposure_seconds:g}",
        invited="only" if invite_only else "",
    )


def paragraphs(text: str) -> str:
    """Plain text as HTML: an empty line parts paragraphs."""
    return "".join(f"<p>{escape(' '.join(part.split()))}</p>" for part in re.split(r"\n\s*\n", text.strip()))


@cache
def static(name: str) -> str:
    """The text of a file in `static/`."""
    return (_STATIC / name).read_text(encoding="utf-8")


def colours() -> str:
    """The palette as CSS variables, by day and by night; `data-theme` on the document overrules the system."""

    def variables(turn: int) -> str:
        return "".join(f"--{name.lower().replace('_', '-')}: {getattr(palette, name)[turn]}; " for name in _COLOURS)

    day, night = variables(0), variables(1)
    return (
        f":root {{ color-scheme: light; {day}}}\n"
        f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ color-scheme: dark; {night}}} }}\n'
        f':root[data-theme="dark"] {{ color-scheme: dark; {night}}}\n'
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
