"""Fixtures that several test files share: tiny random models of the real classes, and a sensible use of the cores."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.models.transformer import MuseTransformer

settings.register_profile(
    "markovgen", deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("markovgen")

TINY_GRID = (4, 4)
TINY_LEVELS = (8, 6, 5)
TINY_CODES = 240


def pytest_configure(config: pytest.Config) -> None:
    """Shares the cores among the workers of pytest-xdist: PyTorch in each would otherwise start a thread a core."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, (os.cpu_count() or 1) // workers)
    limit = int(os.environ.get("OMP_NUM_THREADS", threads))
    torch.set_num_threads(min(threads, limit))


@pytest.fixture(scope="session")
def tiny_transformer() -> MuseTransformer:
    """A base transformer of 4 x 4 tokens with random weights, also where training starts from zeros."""
    generator = torch.Generator().manual_seed(0)
    model = MuseTransformer(codebook_size=TINY_CODES, grid=TINY_GRID, hidden_size=32, num_layers=2, num_heads=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> ImageTokenizer:
    """An image tokenizer with few channels and random weights, for `tiny_transformer`'s codebook."""
    torch.manual_seed(0)
    model = ImageTokenizer(levels=TINY_LEVELS, channels=(8, 12, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    assert model.codebook_size == TINY_CODES
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a checkpoint of tiny random models, to be read only."""
    from builders import tiny_checkpoint  # imports the whole pipeline, which most files do not need

    return str(tiny_checkpoint(tmp_path_factory.mktemp("weights")))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A hub on this machine that answers every call with the status and the error code put into what is yielded.

    Its address is there, for the libraries that are to ask it; nothing is in the cache.
    """
    answer: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.send_header("X-Error-Code", answer["code"])
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    answer["address"] = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    yield answer
    server.shutdown()
    server.server_close()
