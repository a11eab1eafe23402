"""The command: its output, its exit codes, and one line for everything that is wrong."""

import inspect
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import TINY_CODES, TINY_GRID, tiny_pipeline
from commands import run_command as run
from PIL import Image

from markovgen_app import cli
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.pictures import read_settings
from markovgen_app.requests import GenerateRequest

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_json_is_one_object_on_standard_output(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "a panda", "--steps", "4", "--seed", "7", "--count", "2", "--json", "--model", weights]
    assert run(*arguments, "--out", "pictures") == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [set(image) for image in images] == [
        {"path", "seed", "method", "steps", "seconds", "model_seconds", "width", "height", "prompt"}
    ] * 2
    assert [(image["seed"], image["steps"], image["method"]) for image in images] == [(7, 4, "full"), (8, 4, "full")]
    for image in images:
        path = tmp_path / image["path"]
        with Image.open(path) as picture:
            assert picture.size == (image["width"], image["height"]) == (32, 32)
        settings = read_settings(path)
        assert (settings.prompt, settings.seed, settings.steps, settings.count) == ("a panda", image["seed"], 4, 1)


def test_paths_are_printed_and_every_option_arrives(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--method early-exit --steps 6 --exit-step 2 --seed 3 --guidance 2.5 --negative-prompt pizza --temperature 0.7"
        " --choice-temperature 2 --top-k 9 --order z_curve --device cpu"
    )
    assert run("generate", "a panda", *options.split(), "--model", weights) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("out/a-panda_early-exit_3.png")
    settings = read_settings(path).model_dump(exclude_defaults=True)
    assert settings == {
        "prompt": "a panda",
        "negative_prompt": "pizza",
        "method": "early-exit",
        "steps": 6,
        "exit_step": 2,
        "guidance_scale": 2.5,
        "temperature": 0.7,
        "choice_temperature": 2.0,
        "top_k": 9,
        "order": "z_curve",
        "seed": 3,
        "size": 32,
    }


def test_a_comparison_is_a_folder_and_one_object(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["compare", "a panda", "--steps", "6", "--exit-step", "2", "--seed", "7", "--model", weights]
    assert run(*shared, "--out", "side-by-side", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [image["method"] for image in report["images"]] == ["full", "early-exit", "markovgen"]
    for image in report["images"]:
        assert run("generate", "a panda", *shared[2:], "--method", image["method"]) == 0
        with Image.open(image["path"]) as compared, Image.open(capsys.readouterr().out.strip()) as alone:
            assert compared.tobytes() == alone.tobytes()
        assert image["model_seconds"] > 0 and image["speedup_over_full"] > 0
    assert report["images"][2]["random_field"]["energy_after"] != report["images"][2]["random_field"]["energy_before"]
    for name in ("grid", "token_changes", "filmstrip"):
        with Image.open(report[name]) as sheet:
            assert sheet.format == "PNG"

    assert run(*shared, "--out", "side-by-side", "--methods", "halton, full", "--no-metadata") == 0
    captured = capsys.readouterr()
    first, second, *sheets = captured.out.splitlines()
    assert first.startswith("side-by-side/full.png  6 transformer calls · ") and "halton.png" in second
    assert sheets == ["side-by-side/grid.png", "side-by-side/filmstrip.png"]
    assert not Path("side-by-side/markovgen.png").exists()


def test_without_a_field_markovgen_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = tiny_pipeline()
    pipeline.register_modules(mrf=None)
    pipeline.save_pretrained(tmp_path / "bare")
    shared = ["compare", "a panda", "--steps", "2", "--out", "out", "--model", str(tmp_path / "bare")]
    assert run(*shared, "--methods", "full,markovgen") == 2
    assert "hold no random field" in capsys.readouterr().err
    assert run(*shared, "--json") == 0
    assert [image["method"] for image in json.loads(capsys.readouterr().out)["images"]][-1] == "rescheduled"


def test_settings_can_be_left_out_of_the_file(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "a panda", "--steps", "1", "--no-metadata", "--model", weights) == 0
    with Image.open(capsys.readouterr().out.strip()) as picture:
        assert picture.info == {}


def test_the_same_seed_gives_the_same_file(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run("generate", "a panda", "--steps", "3", "--seed", "5", "--model", weights) == 0
    first, second = capsys.readouterr().out.split()
    assert first != second and Path(first).read_bytes() == Path(second).read_bytes()


def test_notes_go_to_standard_error(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "ピザの隣のパンダ", "--steps", "1", "--model", weights, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"][0]["prompt"] == "ピザの隣のパンダ"
    assert "knows no word of the prompt" in captured.err


@pytest.mark.parametrize(("command", "without"), [(cli.generate, set()), (cli.compare, {"method", "count"})])
def test_every_field_is_an_option_and_no_option_is_left_unread(command: Callable[..., None], without: set[str]) -> None:
    read = {"methods", "model", "mrf", "device", "out", "metadata", "as_json"}
    assert inspect.signature(command).parameters.keys() - read == GenerateRequest.model_fields.keys() - without


def test_a_comparison_takes_schedule_order_and_top_k(weights: str) -> None:
    options = "--schedule linear --no-guidance-ramp --order halton --top-k 9 --choice-temperature 2 --steps 2 --seed 1"
    shared = ["compare", "a panda", "--methods", "full,early-exit", "--model", weights, "--out", "made"]
    assert run(*shared, *options.split()) == 0
    settings = read_settings("made/full.png").model_dump()
    wanted = {"schedule": "linear", "guidance_ramp": False, "order": "halton", "top_k": 9, "choice_temperature": 2.0}
    assert {name: settings[name] for name in wanted} == wanted


def test_a_port_in_use_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("app", "--model", "nowhere", "--port", port) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith(f"Something listens on port {port} already") and "--port 7861" in told
    assert run("app", "--model", "nowhere", "--port", port, "--host", "192.0.2.1") == 2
    assert "cannot listen on 192.0.2.1" in capsys.readouterr().err
    assert run("app", "--model", "nowhere", "--port", port) == 2
    assert "There is no folder nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", ""], "The prompt is empty: say what the picture shows"),
        (["generate", "p" * 5000], "Prompt has 5,000 characters: shorten it"),
        (["generate", "a", "--steps", "0"], "Steps must be a whole number between 1 and 256, not 0."),
        (["generate", "a", "--steps", "few"], "'--steps'"),
        (["generate", "a", "--seed", "-1"], "Seed must be a whole number between 0 and 4294967295, not -1."),
        (["generate", "a", "--seed", "4294967296"], "Seed must be a whole number between"),
        (["generate", "a", "--method", "magic"], "Method must be one of full"),
        (["generate", "a", "--exit-step", "99"], "Exit step must be between 1 and the 24 steps, not 99."),
        (["generate", "a", "--guidance", "inf"], "Guidance scale must be a number between 0 and 30, not inf."),
        (["generate", "a", "--count", "0"], "Count must be a whole number between 1 and 64, not 0."),
        (["generate", "a", "--bogus"], "--bogus"),
        (["generate"], "Missing argument"),
        (["paint"], "paint"),
        (["generate", "a", "--model", "nowhere"], "There is no folder nowhere: give a checkpoint's folder"),
        (["generate", "a", "--device", "toaster"], "The device 'toaster' is not on this machine"),
        (["generate", "a", "--out", "/dev/null"], "/dev/null is a file, not a folder"),
        (["generate", "a", "--out", "/proc/out"], "Cannot write to /proc/out"),
        (["compare", "", "--out", "x"], "The prompt is empty"),
        (["compare", "a"], "Missing option '--out'"),
        (["compare", "a", "--out", "x", "--methods", "full"], "Choose two methods or more"),
        (["compare", "a", "--out", "x", "--methods", "full,magic"], "No method is called 'magic'"),
        (["compare", "a", "--out", "x", "--seed", "-1"], "Seed must be a whole number between"),
        (["compare", "a", "--out", "/dev/null"], "/dev/null is a file, not a folder"),
        (["app", "--port", "99999"], "MARKOVGEN_PORT: "),
        (["app", "--model", "nowhere"], "There is no folder nowhere"),
        (["evaluate", "--methods", "magic"], "Method must be one of full"),
        (["evaluate", "--seeds", "x"], "Seeds are whole numbers"),
        (["evaluate", "--scorer", "nowhere"], "There is no scorer in nowhere"),
        (["benchmark", "--methods", "full:steps=0"], "Steps must be a whole number between 1 and 256, not '0'."),
        (["benchmark", "--model", "nowhere"], "There is no folder nowhere"),
        (["train", "base"], "--config"),
        (["train", "scorer", "--config", "nothing.yaml"], "There is no configuration file nothing.yaml"),
        (["train", "base", "--config", "nothing.yaml"], "There is no configuration file nothing.yaml"),
        (["train", "tokenizer", "--config", "nothing.yaml"], "There is no configuration file nothing.yaml"),
        (["train", "preview-data", "--split", "dream"], "split is one of"),
        (["train", "preview-data", "--count", "0"], "'--count'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


def test_a_truncated_checkpoint_is_one_line_and_exit_code_2(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(weights, "cut")
    file = Path("cut/tokenizer/diffusion_pytorch_model.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    assert run("generate", "a panda", "--model", "cut") == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == f"{file} is truncated or damaged: copy or download the checkpoint again."
    assert captured.out == "" and list(Path("out").iterdir()) == []


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("markovgen_app.runtime.load_runtime", interrupted)
    assert run("generate", "a panda") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_benchmark_is_one_object(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", "--methods", "full:steps=2", "--rounds", "1", "--json", "--model", weights) == 0
    assert "components" in json.loads(capsys.readouterr().out)


def test_a_contact_sheet_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "preview-data", "--count", "2", "--out", "sheet.png") == 0
    assert capsys.readouterr().out.strip() == "sheet.png"
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 128


def test_help_comes_fast_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from markovgen_app import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print([name for name in ('torch', 'gradio', 'diffusers', 'transformers') if name in sys.modules])"
    )
    for arguments in ([], ["--help"], ["generate", ""]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == "[]", done
        assert done.returncode == (0 if "--help" in arguments else 2)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "markovgen_app", "generate", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: markovgen generate" in done.stdout and "--negative-prompt" in done.stdout


def test_a_field_of_its_own_folder_is_used_and_a_wrong_one_is_said(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=2).save_pretrained(tmp_path / "silent")
    MarkovRandomField("low-rank", TINY_CODES, (9, 9), rank=2).save_pretrained(tmp_path / "large")
    for name, fault in (("idle", {"iterations": 0}), ("mixed", {"rank": 3})):
        shutil.copytree(tmp_path / "silent", tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | fault))
    shared = ["generate", "a panda", "--steps", "6", "--exit-step", "2", "--seed", "3", "--model", weights]
    pictures = []
    for options in (["early-exit"], ["markovgen", "--mrf", "silent"], ["markovgen"]):
        assert run(*shared, "--method", *options) == 0
        with Image.open(capsys.readouterr().out.strip()) as picture:
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1] != pictures[2]
    for field, message in (
        ("large", "random field is over 9 × 9 tokens"),
        ("nowhere", "There is no random field in nowhere"),
        ("idle", "The model in idle cannot be loaded: copy it again, with its config.json ("),
        ("mixed", "The model in mixed cannot be loaded: copy it again, with its config.json ("),
        (f"{weights}/tokenizer", "holds ImageTokenizer, not MarkovRandomField"),
    ):
        assert run(*shared, "--method", "markovgen", "--mrf", field) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    for wrong, message in ((["--mrf-iterations", "0"], "Mrf iterations must be"), (["--exit-step", "7"], "Exit step")):
        assert run(*shared, "--method", "markovgen", *wrong) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
