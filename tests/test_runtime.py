"""The runtime: device, precision, locking, and what it tells people."""

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import sleep

import pytest
import torch
from builders import runtime_of, tiny_checkpoint, tiny_ladder, tiny_pipeline
from PIL import Image

from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import DecodingRequest, GenerateRequest
from markovgen_app.runtime import Runtime, choose_device, choose_dtype, every_device, load_runtime
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
    named = f"CPU · {threads} thread{'s' if threads > 1 else ''}"
    assert re.fullmatch(named + r" · about \d+(\.\d)? s a picture", runtime.describe())
    slow = Runtime(runtime.pipeline, torch.device("cpu"), torch.float32, step_seconds=0.1, decode_seconds=0.2)
    assert slow.describe().endswith("· about 3 s a picture")
    request = GenerateRequest(prompt="a", method="early-exit", steps=8, exit_step=3, count=2)
    assert slow.estimate_seconds(request) == pytest.approx(2 * (3 * 0.1 + 0.2))


def test_every_stage_counts_in_what_to_expect() -> None:
    pace = {"step_seconds": 0.1, "decode_seconds": 0.2, "finer_step_seconds": (0.5,)}
    runtime = Runtime(tiny_ladder(), torch.device("cpu"), torch.float32, **pace)  # type: ignore[arg-type]
    assert runtime.estimate_seconds(GenerateRequest(prompt="a")) == pytest.approx(24 * 0.1 + 8 * 0.5 + 0.2)
    assert runtime.estimate_seconds(GenerateRequest(prompt="a", size=32)) == pytest.approx(24 * 0.1 + 0.2)
    early = GenerateRequest(prompt="a", method="early-exit", steps=8, exit_step=3, count=2)
    assert runtime.estimate_seconds(early) == pytest.approx(2 * (3 * 0.1 + 3 * 0.5 + 0.2))
    unmeasured = Runtime(tiny_ladder(), torch.device("cpu"), torch.float32, 0.1, 0.2)
    assert unmeasured.estimate_seconds(GenerateRequest(prompt="a")) == pytest.approx(32 * 0.1 + 0.2)


def test_rounds_and_windows_count_in_what_to_expect() -> None:
    """What ZeroGPU lends a GPU by: the estimate is as many steps as the run takes, at the pace of each stage."""
    ladder = tiny_ladder()
    runtime = Runtime(ladder, torch.device("cpu"), torch.float32, 1.0, 100.0, finer_step_seconds=(10.0,))
    given = {"prompt": "a fox", "seed": 3, "super_resolution_steps": 2}
    edit = {**given, "image": Image.new("RGB", (64, 64))}
    rounds = {**edit, "remask": "chance"}
    assert runtime.estimate_seconds(EditRequest(**rounds, strength=0.1)) == 10 * 1 + 2 * 10 + 100
    several = EditRequest(**rounds, strength=0.5, steps=2, count=3)
    assert runtime.estimate_seconds(several) == 3 * (100 * 1 + 2 * 10 + 100)
    assert runtime.estimate_seconds(EditRequest(**edit, strength=0.1, steps=6)) == (1 + 6) * 1 + 2 * 10 + 100
    small = {**given, "image": Image.new("RGB", (32, 32)), "steps": 4}
    assert runtime.estimate_seconds(InpaintRequest(**small, rectangle=(0, 0, 9, 9))) == 4 * 1 + 100
    for fields, windows in (({"left": 16}, 1), ({"left": 32}, 2), ({"left": 32, "fit": "letterbox"}, 1)):
        request = OutpaintRequest(**small, **fields)
        *steps, _ = ladder.run(request)
        finer = sum(isinstance(event, StepEvent) and event.stage.number == 1 for event in steps)
        assert len(steps) == windows * 4 + finer
        assert runtime.estimate_seconds(request) == windows * (4 * 1 + 100) + finer * 10


def test_both_stages_are_measured(tmp_path: Path) -> None:
    tiny_ladder().save_pretrained(tmp_path)
    runtime = load_runtime(Settings(model=str(tmp_path), device="cpu"))
    assert len(runtime.finer_step_seconds) == 1 and min(runtime.finer_step_seconds) > 0


def test_requests_take_turns_and_an_abandoned_one_blocks_nobody(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = runtime.pipeline.run
    inside: list[int] = []
    together: list[int] = []

    def watched(request: DecodingRequest) -> Iterator[StepEvent | Result]:
        events = work(request)
        while True:
            inside.append(1)
            together.append(len(inside))
            sleep(0.01)  # lets every other thread come in, if it can
            event = next(events, None)
            inside.pop()
            if event is None:
                return
            yield event

    monkeypatch.setattr(runtime.pipeline, "run", watched)
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
    assert set(together) == {1} and not runtime.lock.locked()


def test_a_missing_device_is_said() -> None:
    absent = "cuda" if not torch.cuda.is_available() else "cuda:99"
    for name in (absent, "toaster", ""):
        with pytest.raises(UserError, match=r"is not on this machine( \(.*\))?: choose auto or cpu"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_precision_on_cpus_is_float32_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never by a race of dtypes, which would round the weights and let a start decide what a seed leads to."""
    cast: list[object] = []
    move = MarkovGenPipeline.to

    def recorded(self: MarkovGenPipeline, *where: object) -> MarkovGenPipeline:
        cast.extend(each for each in where if isinstance(each, torch.dtype))
        return move(self, *where)

    monkeypatch.setattr(MarkovGenPipeline, "to", recorded)
    checkpoint = tiny_checkpoint(tmp_path)
    runtime = load_runtime(Settings(model=str(checkpoint), device="cpu"))
    assert runtime.dtype is runtime.pipeline.transformer.dtype is torch.float32 and set(cast) == {torch.float32}
    stored = MarkovGenPipeline.from_pretrained(checkpoint).transformer.state_dict()
    assert all(stored[name].equal(each) for name, each in runtime.pipeline.transformer.state_dict().items())
    asked = load_runtime(Settings(model=str(checkpoint), device="cpu", dtype="bfloat16"))
    assert asked.dtype is asked.pipeline.transformer.dtype is torch.bfloat16


def test_precision_on_gpus_is_bfloat16_where_they_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_it, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda has_it=has_it, **_: has_it)
        assert choose_dtype(torch.device("cuda")) is dtype
    assert choose_dtype(torch.device("mps")) is choose_dtype(torch.device("cpu")) is torch.float32


REQUEST = GenerateRequest(prompt="a panda", method="markovgen", steps=4, exit_step=3, seed=1, count=2)


def pixels(events: Iterator[StepEvent | Result]) -> list[bytes]:
    """The pictures at the end, with all previews asked for on the way."""
    *steps, result = events
    assert isinstance(result, Result)
    assert [step.images[0].size for step in steps if isinstance(step, StepEvent)] == [(32, 32)] * 3
    return [picture.image.tobytes() for picture in result.images]


def test_low_memory_gives_the_same_pictures_with_one_model_present_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    wanted = pixels(runtime_of(pipeline).run(REQUEST))
    moves: list[tuple[str, str]] = []
    names = {id(part): name for name, part in pipeline._parts().items()}
    move = torch.nn.Module.to

    def recorded(model: torch.nn.Module, device: object) -> torch.nn.Module:
        moves.append((names[id(model)], "in" if device == torch.device("cpu") else "out"))
        return move(model, device)

    pipeline.offload(torch.device("cpu"))
    monkeypatch.setattr(torch.nn.Module, "to", recorded)
    assert pipeline.offloaded and pipeline.device == torch.device("cpu")
    assert pixels(runtime_of(pipeline).run(REQUEST)) == wanted
    present: set[str] = set()
    for name, way in moves:
        present = present | {name} if way == "in" else present - {name}
        assert len(present) <= 1
    assert {name for name, _ in moves} == {"transformer", "tokenizer", "mrf"}


def test_a_full_gpu_falls_back_to_low_memory_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = tiny_pipeline()
    wanted = pixels(runtime_of(pipeline).run(REQUEST))
    work = pipeline.run

    def too_much(request: DecodingRequest) -> Iterator[StepEvent | Result]:
        for number, event in enumerate(work(request)):
            if number == 2 and not pipeline.offloaded:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield event

    monkeypatch.setattr(pipeline, "run", too_much)
    runtime = runtime_of(pipeline)
    assert pixels(runtime.run(REQUEST)) == wanted
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "too small for all models at once" in said and pipeline.offloaded
    assert pixels(runtime.run(REQUEST)) == wanted and capsys.readouterr().err == ""


def test_too_small_even_for_one_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()

    def too_much(request: DecodingRequest) -> Iterator[StepEvent | Result]:
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(pipeline, "run", too_much)
    runtime = runtime_of(pipeline)
    with pytest.raises(UserError, match="memory of cpu is too small for this request: ask for fewer pictures"):
        list(runtime.run(REQUEST))
    assert not runtime._busy


def test_a_model_that_does_not_fit_when_it_is_loaded_is_offloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    move = MarkovGenPipeline.to

    def full(self: MarkovGenPipeline, *where: object) -> MarkovGenPipeline:
        if where == (torch.device("cpu"),):  # "cpu" is main memory, the device plays the GPU
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return move(self, *where)

    monkeypatch.setattr(MarkovGenPipeline, "to", full)
    settings = Settings(model=str(tiny_checkpoint(tmp_path)), device="cpu", dtype="float32")
    runtime = load_runtime(settings)
    assert runtime.pipeline.offloaded and "too small for all models" in capsys.readouterr().err
    assert pixels(runtime.run(REQUEST))


def test_low_memory_can_be_asked_for(tmp_path: Path) -> None:
    settings = Settings(model=str(tiny_checkpoint(tmp_path)), device="cpu", dtype="float32", low_memory=True)
    assert load_runtime(settings).pipeline.offloaded


def test_requests_go_to_the_replica_with_the_fewest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markovgen_app.runtime.every_device", lambda name: [torch.device("cpu")] * 3)
    settings = Settings(model=str(tiny_checkpoint(tmp_path)), device="auto", dtype="float32")
    runtime = load_runtime(settings, every_gpu=True)
    replicas = [runtime, *runtime.others]
    assert runtime.concurrency == 3 and len({id(each.pipeline.transformer) for each in replicas}) == 3
    running = [runtime.run(REQUEST) for _ in range(4)]
    for events in running:
        next(events)
    assert [len(each._busy) for each in replicas] == [2, 1, 1]
    running[1].close()  # type: ignore[attr-defined]
    next(runtime.run(REQUEST))
    made = [pixels(runtime.run(REQUEST)) for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert load_runtime(settings).others == ()


def test_only_an_open_choice_takes_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert every_device("cpu") == [torch.device("cpu")]
    monkeypatch.setattr("markovgen_app.runtime.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert every_device("auto") == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert every_device("cuda") == [torch.device("cuda")]


@pytest.mark.skipif(torch.version.cuda is not None, reason="about a PyTorch without CUDA")
def test_cuda_asked_of_a_pytorch_without_it_is_said() -> None:
    with pytest.raises(
        UserError, match=r"'cuda' is not on this machine \(this PyTorch is built without CUDA\): choose"
    ):
        choose_device("cuda")
