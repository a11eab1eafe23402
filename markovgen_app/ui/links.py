"""Permalinks: a picture's settings in a query string, `?p=PROMPT&seed=S&m=METHOD`, further fields if not default."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from markovgen_app.requests import GenerateRequest

_SHORT = {"prompt": "p", "seed": "seed", "method": "m"}
_NEVER = {"count"}  # a link is to one picture
_FIELDS = {_SHORT.get(name, name): name for name in GenerateRequest.model_fields if name not in _NEVER}


def link(request: GenerateRequest, seed: int) -> str:
    """The query string that leads to the picture that `request` gave with `seed`."""
    fields = request.model_dump(exclude_defaults=True, exclude_none=True)
    fields |= {"prompt": request.prompt, "method": request.method, "seed": seed}
    query = {short: fields[name] for short, name in _FIELDS.items() if name in fields}
    return "?" + urlencode(query)


def fields_of(query: Mapping[str, str]) -> dict[str, str]:
    """The request fields in a query string, unchecked; parameters that are not ours are left out."""
    return {name: query[short] for short, name in _FIELDS.items() if query.get(short)}
