"""ZeroGPU: a stand-in for the package `spaces` runs marked functions in a forked process, as the real one does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import tiny_pipeline
from PIL import Image

from markovgen_app.events import Result, StepEvent
from markovgen_app.picture_requests import EditRequest
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime
from markovgen_app.zero_gpu import portable

REQUEST = GenerateRequest(prompt="a panda", steps=3, seed=4, count=2)


def forked(calls: list[int]) -> SimpleNamespace:
    """A package whose GPU(duration=…) lets generators run in a forked process, which may not outlive them."""

    home = os.getpid()

    def gpu(duration: Callable[..., int]) -> Callable[..., Any]:
        def marked(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def call(*arguments: Any) -> Iterator[Any]:
                if os.getpid() != home:  # what is marked runs as it is in a process that has a GPU
                    yield from function(*arguments)
                    return
                calls.append(duration(*arguments))
                context = multiprocessing.get_context("fork")
                queue: Any = context.Queue()

                def work(data: bytes) -> None:
                    torch.set_num_threads(1)
                    for item in function(*pickle.loads(data)):
                        queue.put(pickle.dumps((os.getpid(), item)))
                    queue.put(None)

                process = context.Process(target=work, args=(pickle.dumps(arguments),))
                process.start()
                while (data := queue.get(timeout=60)) is not None:
                    pid, item = pickle.loads(data)
                    assert pid != os.getpid()
                    yield item
                process.join()

            return call

        return marked

    return SimpleNamespace(GPU=gpu)


def test_events_come_out_of_the_forked_process_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    pipeline = tiny_pipeline()
    *steps, wanted = pipeline.run(REQUEST)
    monkeypatch.setitem(sys.modules, "spaces", forked(calls))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    runtime = Runtime(pipeline, torch.device("cpu"), torch.float32, 1.0, 1.0)
    *got, result = runtime.run(REQUEST)
    assert calls == [16] and runtime.describe() == "ZeroGPU"
    assert isinstance(wanted, Result) and isinstance(result, Result)
    for before, after in zip(steps, got, strict=True):
        assert isinstance(before, StepEvent) and isinstance(after, StepEvent)
        assert [each.tobytes() for each in before.images] == [each.tobytes() for each in after.images]
        assert before.step.tokens.equal(after.step.tokens) and before.label == after.label
    for index in range(2):
        assert result.images[index].image.tobytes() == wanted.images[index].image.tobytes()
        films = [[frame.tobytes() for frame in each.filmstrip(index)] for each in (wanted, result)]
        assert films[0] == films[1]


def test_a_gpu_is_lent_for_all_rounds_of_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setitem(sys.modules, "spaces", forked(calls))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    runtime = Runtime(tiny_pipeline(), torch.device("cpu"), torch.float32, 1.0, 1.0)
    picture = Image.new("RGB", (32, 32))
    request = EditRequest(prompt="a fox", image=picture, strength=0.1, remask="chance", seed=4)
    *rounds, result = runtime.run(request)
    assert calls == [2 * (len(rounds) + 1)] == [22] and isinstance(result, Result)


def test_elsewhere_nothing_changes() -> None:
    pipeline = tiny_pipeline()
    runtime = Runtime(pipeline, torch.device("cpu"), torch.float32, 1.0, 1.0)
    event = next(runtime.run(REQUEST))
    assert "spaces" not in sys.modules
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(event)
    assert pickle.loads(pickle.dumps(portable(event)))
