"""Permalinks: settings in a query string, `?p=PROMPT&seed=S&m=METHOD`, further fields if not default.

A link to a comparison is `?tab=compare&p=PROMPT&seed=S&m=METHOD,METHOD`; a link without a tab is to Generate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from markovgen_app.requests import GenerateRequest

_SHORT = {"prompt": "p", "seed": "seed", "method": "m"}
_NEVER = {"count"}  # a link is to one picture
_FIELDS = {_SHORT.get(name, name): name for name in GenerateRequest.model_fields if name not in _NEVER}


def link(request: GenerateRequest, seed: int) -> str:
    """The query string that leads to the picture that `request` gave with `seed`."""
    return _link(request, request.method, seed=seed)


def comparison_link(request: GenerateRequest, methods: Sequence[str]) -> str:
    """The query string that leads to a comparison; the request's seed is settled, its method not used."""
    return _link(request, ",".join(methods), tab="compare", seed=request.seed)


def _link(request: GenerateRequest, method: str, tab: str | None = None, **fields: object) -> str:
    fields |= request.model_dump(exclude_defaults=True, exclude_none=True, exclude=set(fields))
    fields |= {"prompt": request.prompt, "method": method}
    query = {short: fields[name] for short, name in _FIELDS.items() if name in fields}
    return "?" + urlencode(({"tab": tab} if tab else {}) | query, safe=",")


def fields_of(query: Mapping[str, str]) -> dict[str, str]:
    """The request fields in a query string, unchecked; parameters that are not ours are left out."""
    return {name: query[short] for short, name in _FIELDS.items() if query.get(short)}
