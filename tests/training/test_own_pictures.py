"""Every stage on people's own pictures: a tokenizer and a base transformer from a folder make pictures together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import text_encoder
from PIL import Image

from markovgen_app.cli import main
from markovgen_app.pipeline import MarkovGenPipeline

COLOURS = ("red", "green", "blue", "tan")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        colour = COLOURS[number % len(COLOURS)]
        Image.new("RGB", (50, 40), colour).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"a {colour} square")
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as status:
        main([str(each) for each in arguments])
    return int(status.value.code or 0)


def config(folder: Path, name: str, **fields: Any) -> Path:
    common = {"name": name, "minutes": 5, "steps": 2, "batch_size": 2, "log_every": 1, "runs": str(folder / "runs")}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**common, "size": 32, **fields}))
    return path


def test_a_model_of_ones_own(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"levels": [4, 4], "channels": [4, 8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1, 1]}
    assert run("train", "tokenizer", "--config", config(tmp_path, "tokenizer", **shape), "--data", pictures) == 0
    tokenizer = tmp_path / "runs/tokenizer/weights"
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "tokenizer": str(tokenizer)}
    assert run("train", "base", "--config", config(tmp_path, "base", **sizes), "--data", pictures) == 0
    said = (tmp_path / "runs/base/samples.txt").read_text().splitlines()
    assert said and all(line.split()[1] in COLOURS for line in said)
    base, out = tmp_path / "runs/base/weights", tmp_path / "checkpoint"
    assert run("train", "export", "--tokenizer", tokenizer, "--base", base, "--out", out) == 0
    pipeline = MarkovGenPipeline.from_pretrained(out, text_encoder=text_encoder())
    assert pipeline("a red square", steps=2, seed=0).images[0].image.size == (32, 32)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "tokenizer", "--config", config(tmp_path, "tokenizer"), "--data", tmp_path / "nowhere") == 2
    assert "There is no folder" in capsys.readouterr().err
