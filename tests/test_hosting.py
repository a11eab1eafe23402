"""Hosting: what a Space reads and does, and the example for programs as docs/hosting.md has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import yaml
from browsing import free_port
from builders import tiny_checkpoint
from PIL import Image

from markovgen_app.settings import load_settings
from markovgen_app.ui.build import launch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def front_matter() -> dict[str, Any]:
    text = (ROOT / "README.md").read_text()
    return yaml.safe_load(text.split("---")[1])


def test_the_front_matter_is_what_a_space_takes(front_matter: dict[str, Any]) -> None:
    assert front_matter["sdk"] == "gradio" and (ROOT / front_matter["app_file"]).is_file()
    assert front_matter["python_version"] == "3.12" and front_matter["license"] == "apache-2.0"
    assert len(front_matter["short_description"]) <= 60  # longer ones are refused
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= colours


def test_its_gradio_is_one_that_the_requirements_take(front_matter: dict[str, Any]) -> None:
    (line,) = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("gradio")]
    lowest, limit = re.fullmatch(r"gradio>=([\d.]+),<(\d+)", line).groups()  # type: ignore[union-attr]
    numbers = [tuple(map(int, text.split("."))) for text in (lowest, front_matter["sdk_version"], limit)]
    assert numbers[0] <= numbers[1] < numbers[2]


def test_no_file_of_the_weights_is_too_large_for_a_plain_push() -> None:
    assert max(path.stat().st_size for path in (ROOT / "weights").rglob("*") if path.is_file()) < 10_000_000


def test_every_line_that_the_documentation_tells_to_change_is_there() -> None:
    text = (ROOT / "docs/hosting.md").read_text()
    assert "torch==2.13.0" in text and "torch==2.13.0" in (ROOT / "requirements.txt").read_text().splitlines()


def test_a_space_is_served_on_the_port_that_its_proxy_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that `launch` gives to Gradio where only SPACE_ID is set; nothing is bound."""
    for name in ("MARKOVGEN_HOST", "MARKOVGEN_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPACE_ID", "someone/markovgen")
    asked: dict[str, Any] = {}
    with gr.Blocks() as page:
        monkeypatch.setattr(page, "launch", lambda **options: asked.update(options))
        launch(page, load_settings())
    assert (asked["server_name"], asked["server_port"]) == ("0.0.0.0", 7860)


def test_the_app_starts_as_in_a_space_and_answers_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python app.py` with SPACE_ID and a home that nobody can write to; then the documented example."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MARKOVGEN_", "GRADIO_", "HF_"))},
        "SPACE_ID": "someone/markovgen",
        "HOME": "/proc/nowhere",
        "MARKOVGEN_MODEL": str(tiny_checkpoint(tmp_path / "weights")),
        "MARKOVGEN_PORT": str(port),
        "MARKOVGEN_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with (tmp_path / "log").open("wb") as log:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/", app, tmp_path / "log")
        listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").is_file() else ""
        assert not listening or f"00000000:{port:04X}" in listening, "a Space's proxy comes from outside"
        example = re.search(r"```python\n(.*?)```", (ROOT / "docs/hosting.md").read_text(), re.S).group(1)  # type: ignore[union-attr]
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(example.replace("127.0.0.1:7860", f"127.0.0.1:{port}"), names)
        assert Image.open(names["path"]).format == "PNG" and names["settings"]["seed"] == 7
    finally:
        app.terminate()
        ended = app.wait(timeout=60)
    assert ended == 0 and "closing server" in (tmp_path / "log").read_text()


def wait_for(url: str, app: subprocess.Popen[bytes], log: Path) -> None:
    """Until the page is served; fails with the app's output if it ends, or takes too long."""
    end = time.monotonic() + 240
    while time.monotonic() < end and app.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(log.read_text()[-3000:])
