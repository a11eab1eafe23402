"""What programs call: counted by the work that it is, answered at last, and ended when nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from browsing import free_port
from builders import runtime_of, tiny_field, tiny_pipeline, tiny_tokenizer, tiny_transformer
from gradio_client import Client
from PIL import Image

from markovgen_app.picture_requests import EditRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import DecodingRequest, GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.settings import Settings
from markovgen_app.ui.api import compare_endpoint, generate_endpoint
from markovgen_app.ui.build import build, launch
from markovgen_app.ui.limits import comparison_worth, pictures_worth
from markovgen_app.visitors import VisitorLimit

FAR_AWAY: Any = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return runtime_of(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), mrf=tiny_field()))


def photo(folder: Path) -> dict[str, Any]:
    """An uploaded picture of 32 x 32 pixels."""
    Image.new("RGB", (32, 32), "teal").save(folder / "photo.png")
    return {"path": str(folder / "photo.png")}


def test_requests_count_as_the_work_that_they_are(runtime: Runtime) -> None:
    picture = Image.new("RGB", (32, 32), "teal")
    usual = GenerateRequest(prompt="an owl")  # 24 steps of 0.1 s, and 0.1 s to decode
    assert pictures_worth(runtime, usual) == 1
    assert pictures_worth(runtime, usual.model_copy(update={"steps": 1, "count": 3})) == 3, "none is less than itself"
    assert pictures_worth(runtime, GenerateRequest(prompt="an owl", steps=256)) == pytest.approx(10.3)
    longest = EditRequest.validated(prompt="an owl", image=picture, strength=1, steps=256, remask="chance")
    assert pictures_worth(runtime, longest) == pytest.approx(25_600 / 25, abs=1)
    wide = OutpaintRequest.validated(prompt="an owl", image=picture, left=32, right=32)
    assert pictures_worth(runtime, wide) == pytest.approx(4, abs=2) and pictures_worth(runtime, wide) > 2
    assert comparison_worth(runtime, usual, ["full", "markovgen"]) == 2


def test_long_work_empties_a_bucket(runtime: Runtime, tmp_path: Path) -> None:
    def asked(make: Callable[..., Any], *kind: Any, **fields: Any) -> list[Any]:
        endpoint = make(*kind, runtime, limit, str(tmp_path), metadata=True)
        return list(endpoint(**fields, prompt="an owl", request=FAR_AWAY))

    limit = VisitorLimit(burst=12, per_minute=6, clock=lambda: 0.0)
    for _ in range(3):
        asked(generate_endpoint)
        asked(compare_endpoint, methods=["full", "markovgen"])
    with pytest.raises(gr.Error, match=r"much work in a short time: please try again in 7\d seconds"):
        asked(generate_endpoint, steps=256)


def test_an_endpoint_answers_at_last_and_can_be_ended_before(runtime: Runtime, tmp_path: Path) -> None:
    generate = generate_endpoint(runtime, VisitorLimit(0, 1), str(tmp_path), metadata=True)
    *before, (file, settings) = generate("an owl", seed=5, steps=4, request=FAR_AWAY)
    assert before == [(None, None)] * 5 and settings["seed"] == 5 and Path(file["path"]).is_file()
    call = generate("an owl", steps=4, request=FAR_AWAY)
    next(call)
    assert runtime._busy
    call.close()  # type: ignore[attr-defined]
    assert not runtime._busy


def test_a_program_can_cancel_a_call_and_the_next_one_is_answered(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    steps: list[float] = []
    run = pipeline.run

    def slowly(request: DecodingRequest) -> Iterator[Any]:
        for event in run(request):
            time.sleep(0.2)
            steps.append(time.monotonic())
            yield event

    pipeline.run = slowly  # type: ignore[method-assign]
    settings = Settings(port=free_port())
    page = build(runtime_of(pipeline), settings, examples=tmp_path)
    launch(page, settings, prevent_thread_lock=True, quiet=True, _frontend=False)
    try:
        client = Client(f"http://127.0.0.1:{settings.port}/", verbose=False, download_files=str(tmp_path))
        job = client.submit("an owl", steps=16, api_name="/generate")
        while len(steps) < 2 and not job.done():
            time.sleep(0.05)
        job.cancel()
        path, made = client.predict("an owl", steps=1, seed=7, api_name="/generate")
        assert Image.open(path).format == "PNG" and made["seed"] == 7
        assert len(steps) < 10, "the rest of the first call's steps were not taken"
    finally:
        page.close()
