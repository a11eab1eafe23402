"""The runtime: device, precision, locking, and what it tells people."""

from pathlib import Path
from threading import Thread

import pytest
import torch
from builders import tiny_checkpoint, tiny_pipeline

from markovgen_app.errors import UserError
from markovgen_app.pipeline import Result
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime, choose_device, choose_dtype, cpu_has_bfloat16, load_runtime
from markovgen_app.settings import Settings


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return load_runtime(Settings(model=str(tiny_checkpoint(tmp_path_factory.mktemp("weights"))), device="cpu"))


def test_it_is_placed_warm_and_measured(runtime: Runtime) -> None:
    assert runtime.device.type == runtime.pipeline.device.type == "cpu"
    assert runtime.pipeline.transformer.dtype == runtime.dtype
    assert runtime.step_seconds > 0 and runtime.decode_seconds > 0


def test_it_says_what_to_expect(runtime: Runtime) -> None:
    threads = torch.get_num_threads()
    assert runtime.describe().startswith(f"CPU · {threads} thread{'s' if threads > 1 else ''} · about 0.")
    slow = Runtime(runtime.pipeline, torch.device("cpu"), torch.float32, step_seconds=0.1, decode_seconds=0.2)
    assert slow.describe().endswith("· about 3 s a picture")
    request = GenerateRequest(prompt="a", method="early-exit", steps=8, exit_step=3, count=2)
    assert slow.estimate_seconds(request) == pytest.approx(2 * (3 * 0.1 + 0.2))


def test_requests_take_turns_and_an_abandoned_one_blocks_nobody(runtime: Runtime) -> None:
    request = GenerateRequest(prompt="a panda", steps=4, seed=1)
    abandoned = runtime.run(request)
    next(abandoned)
    results: list[Result] = []
    threads = [Thread(target=lambda: results.append(list(runtime.run(request))[-1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len({result.images[0].image.tobytes() for result in results}) == 1 and len(results) == 3
    assert not runtime.lock.locked()


def test_a_missing_device_is_said() -> None:
    absent = "cuda" if not torch.cuda.is_available() else "cuda:99"
    for name in (absent, "toaster", ""):
        with pytest.raises(UserError, match="is not on this machine: choose auto or cpu"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_precision_on_cpus_is_native_or_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_text("flags : fpu sse2 avx512f")
    (tmp_path / "new").write_text("flags : fpu sse2 avx512f amx_bf16")
    assert not cpu_has_bfloat16(tmp_path / "old") and not cpu_has_bfloat16(tmp_path / "none")
    assert cpu_has_bfloat16(tmp_path / "new")
    pipeline = tiny_pipeline()
    monkeypatch.setattr("markovgen_app.runtime.cpu_has_bfloat16", lambda: False)
    assert choose_dtype(pipeline, torch.device("cpu")) is torch.float32
    monkeypatch.setattr("markovgen_app.runtime.cpu_has_bfloat16", lambda: True)
    assert choose_dtype(pipeline, torch.device("cpu")) in (torch.float32, torch.bfloat16)
