"""The app as it is served: the study beside it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from browsing import free_port
from builders import runtime_of, tiny_field, tiny_tokenizer, tiny_transformer
from httpx import Client, ConnectError
from studies import a_study

from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.settings import Settings
from markovgen_app.ui.build import build, launch

PASSWORD = "open sesame"


def wait_for(http: Client) -> None:
    """Until the app answers, at most a minute."""
    for _ in range(600):
        try:
            http.get("/rate")
            return
        except ConnectError:
            time.sleep(0.1)
    pytest.fail("the app does not answer")


def test_a_study_is_served_beside_the_app_and_closed_with_it(tmp_path: Path) -> None:
    bundle = a_study(tmp_path / "study")
    settings = Settings(port=free_port(), study=bundle.folder, admin_password=PASSWORD)
    runtime = runtime_of(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), mrf=tiny_field()))
    page = build(runtime, settings, examples=tmp_path)
    before = set(threading.enumerate())  # other tests' studies may be open
    app = threading.Thread(target=launch, args=(page, settings), kwargs={"quiet": True, "_frontend": False})
    app.start()
    try:
        with Client(base_url=f"http://127.0.0.1:{settings.port}", follow_redirects=True, timeout=60) as http:
            wait_for(http)
            assert "MarkovGen" in http.get("/").text, "the app itself"
            assert http.get("/rate").headers["content-type"].startswith("text/html")
            told = http.post("/rate/api/start", json={"consent": True}).json()
            rater = {"Authorization": f"Bearer {told['token']}"}
            trial = told["trials"][0]["id"]
            shown = http.get(f"/rate/pictures/{trial}/left", headers=rater)
            assert shown.headers["content-type"] == "image/png" and len(shown.content) == bundle.manifest.bytes
            answer = {"number": 1, "action": "vote", "trial": trial, "choice": "left", "seconds": 2.5}
            assert http.post("/rate/api/answers", json=answer, headers=rater).json()["answered"] == 1
            assert 'type="password"' in http.get("/results").text
            assert "Leave" in http.post("/results/enter", data={"password": PASSWORD}).text
    finally:
        page.close()
        app.join(timeout=60)
    assert not app.is_alive()
    left = set(threading.enumerate()) - before
    assert "study-recorder" not in {thread.name for thread in left}, "the study is closed"
