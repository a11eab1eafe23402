"""What people wait for beside a finished picture: the app, the first preview; and training for its scenes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from ..data.scenes import SceneDataset
from ..errors import UserError
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest
from ..settings import Settings

_PATIENCE = 120.0  # seconds


def first_preview_seconds(pipeline: MarkovGenPipeline, prompt: str, rounds: int) -> float:
    """Median time from asking to the first step's preview, decoded to pixels."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        events = pipeline.run(GenerateRequest(prompt=prompt, seed=0))
        assert next(events).images
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def scenes_per_second(count: int = 300, size: int = 128) -> float:
    """Training scenes that one core draws, captions included; the first few, which fill caches, are not counted."""
    scenes = SceneDataset(0, size, "train", "full")
    for index in range(50):
        scenes[index]
    started = time.perf_counter()
    for index in range(50, 50 + count):
        scenes[index]
    return count / (time.perf_counter() - started)


def app_ready_seconds(settings: Settings, command: list[str] | None = None) -> float:
    """Time from starting `python app.py` to its page being answered, on a free port.

    Args:
        settings: the app gets their model, random field and device.
        command: starts something else than the app.

    Raises:
        UserError: the app ended or did not answer in two minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    entry = Path(__file__).resolve().parents[2] / "app.py"
    environment = {**os.environ, "MARKOVGEN_HOST": "127.0.0.1", "MARKOVGEN_PORT": str(port)}
    for name in ("model", "mrf", "device"):
        if (value := getattr(settings, name)) is not None:
            environment[f"MARKOVGEN_{name.upper()}"] = value
    started = time.perf_counter()
    server = subprocess.Popen(
        command or [sys.executable, str(entry)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - started < _PATIENCE:
            if server.poll() is not None:
                raise UserError("The app ended while starting: run `python app.py` to see why.")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                    return time.perf_counter() - started
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise UserError(f"The app did not answer within {_PATIENCE:.0f} s: run `python app.py` to see why.")
    finally:
        server.terminate()
        server.wait(timeout=30)
