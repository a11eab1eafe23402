"""Values from outside into requests, and what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError

from .errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RequestT = TypeVar("RequestT", bound=BaseModel)


def validated(kind: type[RequestT], fields: Mapping[str, Any]) -> RequestT:
    """Build a request from outside input.

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(_one_line(kind, first), field=_field(first)) from None


def spoken(name: str) -> str:
    """What messages call a field."""
    return name.replace("_", " ").capitalize()


def _field(first: ErrorDetails) -> str | None:
    """The field that is wrong, if it is one alone."""
    if first["loc"]:
        return str(first["loc"][0])
    return getattr(first.get("ctx", {}).get("error"), "field", None)


def _one_line(kind: type[BaseModel], first: ErrorDetails) -> str:
    name = str(first["loc"][0]) if first["loc"] else ""
    problem, given, label = first["type"], first["input"], spoken(name)
    if problem == "value_error":
        return str(first["ctx"]["error"])
    if problem == "extra_forbidden":
        return f"There is no setting called {shown(name)}: choose among {', '.join(kind.model_fields)}."
    if problem == "missing":
        return f"{label} is missing: give one."
    if problem == "literal_error":
        return f"{label} must be one of {first['ctx']['expected'].replace(chr(39), '')}, not {shown(given)}."
    if problem == "string_too_long":
        return f"{label} has {len(given):,} characters: shorten it to {first['ctx']['max_length']:,} or fewer."
    if problem == "string_unicode":
        return f"{label} holds characters that are no text: type it again."
    wanted = _bounds(kind, name)
    if wanted:
        return f"{label} must be {wanted}, not {shown(given)}."
    return f"{label}: {first['msg']}."


def _bounds(kind: type[BaseModel], name: str) -> str:
    """What a field takes, such as “a whole number between 1 and 256”; empty where it is no number."""
    field = kind.model_fields[name]
    number = {int: "a whole number", float: "a number"}
    word = next((text for each, text in number.items() if field.annotation in (each, each | None)), "")
    if not word:
        return ""
    low = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), None)
    high = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    if high is not None:
        return f"{word} between {low:g} and {high}"
    return f"{word} of at least {low}" if low is not None else word


def shown(value: Any, longest: int = 40) -> str:
    """A value as messages quote it, cut where it is long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
