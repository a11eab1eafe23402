"""Many prompts on many processes: the same files whatever their number, resumable, one line on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import tiny_checkpoint, tiny_field
from PIL import Image

from markovgen_app.batch import LIST, is_made, read_items, run
from markovgen_app.errors import UserError
from markovgen_app.loading import weights_digest
from markovgen_app.pictures import read_settings
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest
from markovgen_app.settings import Settings

PROMPTS = """{"prompt": "a panda", "method": "markovgen"}

{"prompt": "a pizza", "seed": 7, "count": 2}
{"prompt": "grass"}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text(PROMPTS)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def launched(processes: int, checkpoint: Path, prompts: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """As `accelerate launch` starts processes: torchrun's environment, here on CPUs."""
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
    arguments = ["--prompts", prompts, "--out", out, "--model", checkpoint, "--steps", "3", "--device", "cpu"]
    return subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), "-m", "markovgen_app.batch", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_one_process_and_two_make_the_same_files(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        ended = launched(processes, checkpoint, prompts, tmp_path / str(processes))
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert ended.stderr.count("line ") == 3
    one = contents(tmp_path / "1")
    assert set(one) == {"00000_0.png", "00002_7.png", "00002_8.png", "00003_3.png", LIST}
    assert contents(tmp_path / "2") == one
    listed = [json.loads(line) for line in one[LIST].decode().splitlines()]
    assert [(each["path"], each["line"]) for each in listed][0:2] == [("00000_0.png", 1), ("00002_7.png", 3)]
    assert len({each["weights"] for each in listed}) == 1
    assert read_settings(tmp_path / "1" / "00000_0.png").method == "markovgen"


def test_a_run_goes_on_where_it_stopped(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    settings = Settings(model=str(checkpoint), device="cpu")
    torch.set_num_threads(1)
    items = read_items(prompts, {"steps": 2}, 0)
    paths = run(items, tmp_path / "out", settings)
    first = contents(tmp_path / "out")
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    paths[3].write_bytes(b"cut short")
    assert run(items, tmp_path / "out", settings) == paths
    assert contents(tmp_path / "out") == first and paths[0].stat().st_mtime_ns == kept
    weights = weights_digest(MarkovGenPipeline.from_pretrained(checkpoint))
    assert is_made(paths[0], read_settings(paths[0]), weights)
    assert not is_made(paths[0], GenerateRequest(prompt="another"), weights)


def test_pictures_by_other_weights_are_made_again(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    """Another random field draws other pictures of the same settings, which must not pass for each other."""
    other = tiny_field()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-3)
    other.save_pretrained(tmp_path / "mrf")
    settings = Settings(model=str(checkpoint), device="cpu")
    swapped = settings.model_copy(update={"mrf": str(tmp_path / "mrf")})
    items = read_items(prompts, {"steps": 3}, 0)
    run(items, tmp_path / "out", settings)
    before = contents(tmp_path / "out")
    run(items, tmp_path / "out", swapped)
    run(items, tmp_path / "fresh", swapped)
    after = contents(tmp_path / "out")
    assert after == contents(tmp_path / "fresh")
    assert not {*before.values()} & {*after.values()}


def test_a_picture_made_without_a_batch_is_made_again(checkpoint: Path, tmp_path: Path) -> None:
    """It does not say by which weights it was made."""
    pipeline = MarkovGenPipeline.from_pretrained(checkpoint)
    alone = pipeline("a panda", steps=2, seed=0).images[0].save(tmp_path)
    assert not is_made(alone, read_settings(alone), weights_digest(pipeline))


def test_pictures_are_those_of_the_pipeline(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a panda\na pizza\n")
    run(read_items(tmp_path / "prompts.txt", {"steps": 2}, 5), tmp_path, Settings(model=str(checkpoint), device="cpu"))
    wanted = MarkovGenPipeline.from_pretrained(checkpoint)("a pizza", steps=2, seed=6).images[0]
    with Image.open(tmp_path / "00001_6.png") as made:
        assert made.tobytes() == wanted.image.tobytes()
        assert read_settings(made) == GenerateRequest(**wanted.settings)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n \n", "holds no prompt"),
        ("a.txt", "a panda\n" + "x" * 2000, "line 2: Prompt has 2,000 characters"),
        ("a.jsonl", '{"prompt": "a panda"}\n{"prompt"\n', "line 2: this is no JSON"),
        ("a.jsonl", '["a panda"]\n', "line 1: this is no object"),
        ("a.jsonl", '{"prompt": "a panda", "style": 3}', "line 1: There is no setting called 'style'"),
    ],
)
def test_bad_lines_are_said(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_items(tmp_path / name, {}, 0)
    with pytest.raises(UserError, match="There is no file of prompts"):
        read_items(tmp_path / "nowhere", {}, 0)
