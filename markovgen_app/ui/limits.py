"""What the politeness limit counts: pictures, and long work as several."""

from __future__ import annotations

from collections.abc import Iterable

import gradio as gr

from markovgen_app.requests import DecodingRequest, GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import visitor_at


def pictures_worth(runtime: Runtime, *requests: DecodingRequest) -> float:
    """How many pictures requests count as: those that they make, or as many usual ones as would take their time.

    Raises:
        UserError: these weights cannot do what is asked for.
    """
    usual = runtime.estimate_seconds(GenerateRequest(prompt="a picture"))
    return sum(max(each.count, round(runtime.estimate_seconds(each) / usual, 1)) for each in requests)


def comparison_worth(runtime: Runtime, request: GenerateRequest, methods: Iterable[str]) -> float:
    """`pictures_worth` of one picture with each of several methods."""
    return pictures_worth(runtime, *(request.model_copy(update={"method": name, "count": 1}) for name in methods))


def visitor(request: gr.Request) -> str | None:
    """A name for whoever sends a request (see `visitor_at`); None on this machine itself."""
    return visitor_at(request.client.host if request.client else "", request.headers)
