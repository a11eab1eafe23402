"""What the endpoints take and answer, without a server before them."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import runtime_of, tiny_ladder

from markovgen_app.pictures import read_settings
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.ui.api import compare_endpoint, generate_endpoint
from markovgen_app.visitors import VisitorLimit

CALLER: Any = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return runtime_of(tiny_ladder(field=False))


@pytest.mark.parametrize(("make", "without"), [(generate_endpoint, {"count"}), (compare_endpoint, {"count", "method"})])
def test_every_field_of_a_request_can_be_given(runtime: Runtime, make: Any, without: set[str], tmp_path: Path) -> None:
    parameters = inspect.signature(make(runtime, VisitorLimit(0, 1), str(tmp_path), metadata=True)).parameters
    assert set(parameters) - {"request", "methods"} == set(GenerateRequest.model_fields) - without


def test_notes_come_with_the_settings(runtime: Runtime, tmp_path: Path) -> None:
    generate = generate_endpoint(runtime, VisitorLimit(0, 1), str(tmp_path), metadata=True)
    asked = {"steps": 2, "seed": 5, "schedule": "linear", "guidance_ramp": False, "size": 64}
    *_, (file, settings) = generate("猫", **asked, method="markovgen", request=CALLER)
    unknown, lacking = settings.pop("notes")
    assert "knows no word of the prompt" in unknown and "no random field for super-resolution" in lacking
    assert asked.items() <= settings.items() and read_settings(file["path"]).model_dump() == settings
    *_, (_, settings) = generate("an owl", steps=2, request=CALLER)
    assert "notes" not in settings, "settings that can be given again as they are"


def test_comparisons_are_told_how_tokens_are_drawn(runtime: Runtime, tmp_path: Path) -> None:
    compare = compare_endpoint(runtime, VisitorLimit(0, 1), str(tmp_path), metadata=True)
    asked = {"steps": 2, "order": "halton", "top_k": 5, "choice_temperature": 1.5, "schedule": "square"}
    *_, (_, _, report) = compare("猫", ["full", "markovgen"], **asked, guidance_ramp=False, request=CALLER)
    assert {**asked, "guidance_ramp": False}.items() <= report["settings"].items() and len(report["notes"]) == 2
