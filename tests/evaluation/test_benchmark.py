"""`markovgen benchmark` on a tiny pipeline: the shape of the report, and times that make sense."""

import errno
import inspect
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from markovgen_app.decoding.finalise import MeanField
from markovgen_app.errors import UserError
from markovgen_app.evaluation import amused_size, benchmark, memory, waits
from markovgen_app.evaluation.amused_size import TRANSFORMER, Shapes
from markovgen_app.evaluation.generation import parse_methods
from markovgen_app.methods import NAMES
from markovgen_app.runtime import Runtime
from markovgen_app.settings import Settings, load_settings
from tests.builders import runtime_of, tiny_checkpoint, tiny_ladder, tiny_pipeline
from tests.commands import run_command


@pytest.fixture(scope="module")
def measured():
    runtime = runtime_of(tiny_pipeline())
    return benchmark.benchmark(runtime, parse_methods("early-exit:steps=24:exit_step=2"), rounds=1)


def test_the_report_has_the_promised_shape(measured):
    assert measured["device"] == "cpu" and measured["dtype"] == "float32" and measured["threads"] >= 1
    assert set(measured["components"]) == set(benchmark.COMPONENTS)
    for name in ("text_ms", "base_step_ms", "base_mrf_ms", "base_exit_ms", "detokenizer_ms"):
        assert measured["components"][name] > 0
        assert measured["components_spread"][name]["low"] <= measured["components_spread"][name]["high"]
    for name in ("super_resolution_step_ms", "super_resolution_mrf_ms", "super_resolution_exit_ms"):
        assert measured["components"][name] is None
    assert measured["peak_memory_mb"] > 50
    json.dumps(measured, allow_nan=False)


def test_the_stages_above_the_base_are_timed_too():
    pipeline = tiny_ladder(further=1)
    for name, milliseconds in benchmark.measure_components(pipeline).items():
        assert milliseconds > 0, name
    runtime = runtime_of(pipeline)
    found = benchmark.benchmark(runtime, {}, rounds=1)
    assert all(found["components"][name] for name in benchmark.COMPONENTS)
    assert found["components"]["super_resolution_2_step_ms"] > 0
    assert "super_resolution_2_mrf_ms" not in found["components"]


@pytest.mark.parametrize("finalise", ["sample", "decimate"])
def test_a_field_is_a_part_of_its_exit(finalise, monkeypatch):
    """Both ways to finalise ask it in three runs: to warm up, timed as a whole, and timed for the field alone."""
    field = tiny_pipeline().mrf
    field.register_to_config(finalise=finalise, iterations=2)
    asked = []
    for name in ("refine", "tell"):
        whole = getattr(MeanField, name)
        monkeypatch.setattr(
            MeanField, name, lambda *inputs, name=name, whole=whole: asked.append(name) or whole(*inputs)
        )
    inference, whole = benchmark.field_seconds(field, torch.device("cpu"), 24, 6)
    assert inference > 0 and whole > 0
    assert asked == (["refine"] * 3 if finalise == "sample" else ["tell"] * 6)


def test_ratios_are_within_rounds_in_which_the_methods_take_turns(monkeypatch):
    """Times that differ from round to round: the medians of the ratios are not the ratios of the medians."""
    times = {"full": [4.0, 9.0, 2.0], "early-exit": [1.0, 3.0, 2.0], "halton": [8.0, 3.0, 1.0]}
    order = []

    def measure(pipeline, fields):
        order.append(fields["method"])
        return times[fields["method"]][order.count(fields["method"]) - 1]

    monkeypatch.setattr(benchmark, "measure_method", measure)
    methods = parse_methods("early-exit,halton")
    found = benchmark.benchmark(runtime_of(tiny_pipeline()), methods, rounds=3)
    assert order == ["full", "early-exit", "halton", "early-exit", "halton", "full", "halton", "full", "early-exit"]
    assert found["speedup_over_full"] == {"full": 1, "early-exit": 3, "halton": 2}
    assert {name: each["seconds"] for name, each in found["methods"].items()} == {
        "full": 4,
        "early-exit": 2,
        "halton": 3,
    }
    assert found["methods"]["halton"]["spread"] == {"low": 2, "high": 5.5}


def test_the_full_method_is_always_there(measured):
    assert set(measured["methods"]) == {"full", "early-exit:steps=24:exit_step=2"} == set(measured["speedup_over_full"])
    assert all(each["seconds"] > 0 for each in measured["methods"].values())


def test_seconds_counts_the_work_and_nothing_else(monkeypatch):
    assert 0.2 <= benchmark.seconds(partial(time.sleep, 0.2), torch.device("cpu")) < 10
    clock = [5.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[-1])
    assert benchmark.seconds(lambda: clock.append(8.0), torch.device("cpu")) == 3


def test_no_rounds_are_refused():
    with pytest.raises(UserError, match="Rounds"):
        benchmark.benchmark(Runtime(tiny_pipeline(), torch.device("cpu"), torch.float32, 0, 0), {}, rounds=0)


def test_the_command_prints_one_object_or_a_table(tmp_path: Path, capsys):
    model = str(tiny_checkpoint(tmp_path / "model"))
    benchmark.main(model, True, methods="full:steps=2", rounds=1, device="cpu", out=tmp_path / "benchmark.json")
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "benchmark.json").read_text())
    assert report["command"].startswith("markovgen benchmark --methods full:steps=2 --rounds 1 --model")
    benchmark.main(model, methods="halton:steps=2", rounds=1, device="cpu")
    table = capsys.readouterr().out
    assert "base_step_ms" in table and "halton:steps=2" in table and "peak memory" in table


@pytest.mark.parametrize("given", [{}, {"amused": True, "app": True, "model": "runs/a b", "mrf": "f", "device": "cpu"}])
def test_the_stored_command_asks_for_the_same(given, monkeypatch):
    """Typed into the command line, it calls `main` with what it was made of."""
    asked = {"methods": "full,early-exit:exit_step=8", "rounds": 3, **given}
    usual = {name: parameter.default for name, parameter in inspect.signature(benchmark.main).parameters.items()}
    called = {}

    def main(model, as_json, **others):
        called.update(model=model, as_json=as_json, **others)

    monkeypatch.setattr(benchmark, "main", main)
    assert run_command(*shlex.split(benchmark.command(**asked))[1:]) == 0
    assert called == {**usual, **asked}


def test_a_checkpoint_of_amuseds_kind_is_loaded_and_runs_every_method(monkeypatch, capsys):
    """In a thread here: another process would take seconds to import everything once more."""
    alone = []

    def thread(count, mp_context):
        alone.append(mp_context.get_start_method())
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(amused_size, "ProcessPoolExecutor", thread)
    small = Shapes(
        transformer={
            **TRANSFORMER,
            "hidden_size": 16,
            "cond_embed_dim": 12,
            "encoder_hidden_size": 8,
            "vocab_size": 72,
            "codebook_size": 64,
            "in_channels": 24,
            "block_out_channels": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "sample_size": 4,
        },
        tokenizer={"block_out_channels": [8, 8], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4},
        text={"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        sides=(4, 8),
    )
    found = amused_size.measure_checkpoint(torch.device("cpu"), torch.float32, small)
    assert set(found["methods"]) == set(NAMES) and min(found["methods"].values()) > 0
    assert found["load_seconds"] > 0 and found["peak_memory_mb"] > 50
    steps = {"low-rank_16", "low-rank_64", "directional_16", "directional_64"}
    assert set(found["training_step_seconds"]) == steps and min(found["training_step_seconds"].values()) > 0
    assert alone == ["spawn"] * (1 + 4), "the checkpoint and each training step, so that memory is each one's own"
    assert set(found["training_step_peak_memory_mb"]) == steps
    assert min(found["training_step_peak_memory_mb"].values()) > 50 and not [key for key in found if "device" in key]
    lines = amused_size.text_lines(found)
    assert len(lines) == 1 + len(NAMES) + 4 + 1
    assert all(line.endswith(" GB at most") for line in lines[-5:-1]) and "not counted" not in lines[-1]
    progress = [line.removeprefix("aMUSEd's size: ") for line in capsys.readouterr().err.splitlines()]
    steps = [
        f"training steps, {field}, {tokens} tokens" for tokens in (16, 64) for field in ("low-rank", "directional")
    ]
    assert [
        line for line in progress if line in steps or line in NAMES or line in ("checkpoint written", "loaded")
    ] == [
        "checkpoint written",
        "loaded",
        *NAMES,
        *steps,
    ]


def test_a_stored_report_without_the_memory_of_training_steps_says_so():
    stored = json.loads((Path(__file__).parents[2] / "assets/results/amused-size.json").read_text())["checkpoint"]
    lines = amused_size.text_lines(
        {key: value for key, value in stored.items() if not key.startswith("training_step_peak")}
    )
    assert lines[-1].endswith("4.1 GB, that of training steps not counted")
    assert lines[-2].endswith("1.93 s a training step of 16 pictures")
    on_gpu = {**stored, "peak_device_memory_mb": 3072, "training_step_peak_memory_mb": {"directional_1024": 2048},
              "training_step_peak_device_memory_mb": {"directional_1024": 1536}}  # fmt: skip
    lines = amused_size.text_lines(on_gpu)
    assert lines[-2].endswith("of 16 pictures, 2.0 GB at most, 1.5 GB of the GPU's")
    assert lines[-1].endswith("GB, of the checkpoint's use, 3.0 GB of the GPU's")


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be written to .*No space left.*: set TMPDIR"),
        (SafetensorError("I/O error: No space left"), "cannot be written to .*No space left.*: set TMPDIR"),
        (None, "was killed, most likely for want of memory"),
    ],
)
def test_no_room_for_the_checkpoint_is_said_and_nothing_stays(monkeypatch, tmp_path, trouble, message):
    def write_checkpoint(folder: Path, shapes: Shapes) -> None:
        (folder / "part").write_bytes(b"weights")
        assert folder.parent == tmp_path
        if trouble:
            raise trouble

    forked = multiprocessing.get_context("fork")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(amused_size, "write_checkpoint", write_checkpoint)
    monkeypatch.setattr(amused_size, "use_checkpoint", killed)
    monkeypatch.setattr(
        amused_size, "ProcessPoolExecutor", lambda count, mp_context: ProcessPoolExecutor(count, forked)
    )
    with pytest.raises(UserError, match=message):
        amused_size.measure_checkpoint(torch.device("cpu"), torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_peak_memory_is_that_of_the_process_itself_and_not_of_who_started_it():
    code = "from markovgen_app.evaluation.memory import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 100 < memory.peak_memory_mb()


def test_fields_are_timed_beside_a_transformer_of_amuseds_kind():
    shape = {
        **TRANSFORMER,
        "hidden_size": 32,
        "in_channels": 16,
        "block_out_channels": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "block_num_heads": 2,
        "intermediate_size": 32,
        "sample_size": 4,
        "codebook_size": 64,
        "vocab_size": 80,
    }
    found = benchmark.measure_amused(torch.device("cpu"), torch.float32, 2, shape)
    for name in ("low-rank", "directional"):
        assert found[f"{name}_mrf_share"] == pytest.approx(found[f"{name}_mrf_ms"] / found["base_step_ms"])
    json.dumps(found)


def test_what_people_wait_for_is_measured(measured):
    assert 0 < measured["first_preview_seconds"] < 10 and measured["scenes_per_second"] > 0


def test_an_app_that_answers_is_ready_and_one_that_ends_is_said():
    serve = "import http.server as h, os; h.HTTPServer(('127.0.0.1', int(os.environ['MARKOVGEN_PORT'])),"
    ready = [sys.executable, "-c", serve + " h.SimpleHTTPRequestHandler).serve_forever()"]
    assert 0 < waits.app_ready_seconds(Settings(), ready) < 60
    with pytest.raises(UserError, match="ended while starting"):
        waits.app_ready_seconds(Settings(), [sys.executable, "-c", ""])


def test_the_app_that_is_timed_has_the_weights_and_the_device_of_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKOVGEN_MODEL", "another")
    seen, keep = tmp_path / "seen.json", "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    settings = load_settings(model="runs/a b", mrf="runs/field", device="cuda:1")
    with pytest.raises(UserError, match="ended while starting"):
        waits.app_ready_seconds(settings, [sys.executable, "-c", keep, str(seen)])
    environment = json.loads(seen.read_text())
    asked = [environment[f"MARKOVGEN_{name}"] for name in ("MODEL", "MRF", "DEVICE")]
    assert asked == ["runs/a b", "runs/field", "cuda:1"]


def test_the_benchmark_times_the_app_with_its_own_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "benchmark", lambda *_: {})
    monkeypatch.setattr(benchmark, "app_ready_seconds", lambda settings: float(settings.model == model))
    model = str(tiny_checkpoint(tmp_path / "model"))
    benchmark.main(model, True, app=True, device="cpu")
    assert json.loads(capsys.readouterr().out)["app_ready_seconds"] == 1
