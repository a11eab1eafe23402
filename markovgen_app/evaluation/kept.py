"""What is kept of pictures while an evaluation goes on, in memory and in a file, so that a stopped one can go on.

The file holds a line a prompt and seed, with what every method made of it; it belongs to one set of weights, one scorer
and one choice of methods with all their settings. It goes when the evaluation is done.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..loading import tensors_digest, weights_digest
from ..models.scorer import Detection, Reading, Scorer
from ..pictures import write_error
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest
from .judging import WAY_OF_LOOKING, Seen


@dataclass(frozen=True, eq=False)
class Shown:
    """What is kept of one picture: its tokens (n,), which make it again, and what the scorer saw in it.

    Time and calls are only there where it was run by itself.
    """

    tokens: Tensor
    features: np.ndarray
    details: np.ndarray
    reading: Reading
    model_seconds: float | None = None
    transformer_calls: int | None = None


@dataclass
class Made:
    """What one method made, seed by seed, prompt by prompt."""

    shown: list[Shown] = field(default_factory=list)

    @property
    def tokens(self) -> Tensor:
        """Of all pictures, (M, n)."""
        return torch.stack([each.tokens for each in self.shown])

    @property
    def seen(self) -> Seen:
        """What the scorer saw in all pictures."""
        features, details = (np.stack([getattr(each, of) for each in self.shown]) for of in ("features", "details"))
        return Seen([each.reading for each in self.shown], features, details)

    @property
    def model_seconds(self) -> list[float]:
        """Of the pictures that were run by themselves."""
        return [each.model_seconds for each in self.shown if each.model_seconds is not None]

    @property
    def transformer_calls(self) -> list[int]:
        """Of the pictures that were run by themselves."""
        return [each.transformer_calls for each in self.shown if each.transformer_calls is not None]


class Kept:
    """The prompts that an evaluation is done with, in a file that grows by a line each.

    Args:
        path: the file; a last line that was not written to its end is taken away.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = path.read_bytes() if path.is_file() else b""
            whole = stored[: stored.rfind(b"\n") + 1]
            if whole != stored:
                path.write_bytes(whole)
        except OSError as error:
            raise write_error(path.parent, error) from error
        for line in whole.decode().splitlines():
            key, _, shown = line.partition("\t")
            self._lines[key] = shown
        if self._lines:
            print(
                f"Goes on where an evaluation was stopped: {len(self._lines)} prompts are in {path}, delete it to start"
                " from nothing.",
                file=sys.stderr,
            )

    @classmethod
    def of(
        cls, pipeline: MarkovGenPipeline, scorer: Scorer, methods: Mapping[str, Mapping[str, Any]], folder: Path
    ) -> Kept:
        """Those of these weights, methods and this scorer, in a folder; raises UserError as the class does."""
        works = [str(pipeline.transformer.dtype), str(pipeline.device), weights_digest(pipeline)]
        asked = {name: each.model_dump(mode="json") for name, each in settled_requests(pipeline, methods).items()}
        kind = [*works, tensors_digest(scorer), scorer.config.size, WAY_OF_LOOKING, asked]
        digest = hashlib.blake2b(json.dumps(kind).encode(), digest_size=8)
        return cls(folder / f"unfinished-{digest.hexdigest()}.jsonl")

    def get(self, request: GenerateRequest) -> dict[str, Shown] | None:
        """What was kept of a prompt and its noise, by name; None if it is not done yet."""
        line = self._lines.get(_key(request))
        return None if line is None else {name: _read(values) for name, values in json.loads(line).items()}

    def add(self, request: GenerateRequest, shown: Mapping[str, Shown]) -> None:
        """Keep what a prompt and its noise led to.

        Raises:
            UserError: the file cannot be written.
        """
        line = json.dumps({name: _plain(each) for name, each in shown.items()})
        try:
            with self.path.open("a") as file:
                file.write(f"{_key(request)}\t{line}\n")
        except OSError as error:
            raise write_error(self.path.parent, error) from error

    def remove(self) -> None:
        """The evaluation is done."""
        self.path.unlink(missing_ok=True)


def settled_requests(
    pipeline: MarkovGenPipeline, methods: Mapping[str, Mapping[str, Any]]
) -> dict[str, GenerateRequest]:
    """What each method asks for, the checkpoint's defaults filled in; prompt and seed stand for any."""
    return {
        name: pipeline.settled(GenerateRequest.validated(prompt="-", seed=0, **fields))
        for name, fields in methods.items()
    }


def _key(request: GenerateRequest) -> str:
    return hashlib.blake2b(f"{request.seed} {request.prompt}".encode(), digest_size=8).hexdigest()


def _plain(shown: Shown) -> dict[str, Any]:
    return {
        "tokens": shown.tokens.tolist(),
        "features": shown.features.tolist(),
        "details": shown.details.tolist(),
        "reading": asdict(shown.reading),
        "model_seconds": shown.model_seconds,
        "transformer_calls": shown.transformer_calls,
    }


def _read(values: Mapping[str, Any]) -> Shown:
    seen = values["reading"]
    objects = tuple(Detection(**each) for each in seen["objects"])
    return Shown(
        torch.tensor(values["tokens"]),
        np.array(values["features"], dtype=np.float32),
        np.array(values["details"], dtype=np.float32),
        Reading(objects, seen["background"], seen["style"]),
        values["model_seconds"],
        values["transformer_calls"],
    )
