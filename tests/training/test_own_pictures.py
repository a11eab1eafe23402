"""Every stage on people's own pictures: a tokenizer and a base transformer from a folder make pictures together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import text_encoder, tiny_tokenizer
from commands import run_command as run
from encoders import WIDTHS, tiny_encoder
from PIL import Image

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


@pytest.mark.parametrize("kind", ["t5", "whole-clip"])
def test_a_model_with_a_text_encoder_of_ones_own(pictures: Path, tmp_path: Path, kind: str) -> None:
    """Two stages read it, the exported checkpoint brings it along, and a field is trained with it."""
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    encoder = tiny_encoder(tmp_path / "encoder", kind)
    common = {"num_layers": 1, "num_heads": 2, "tokenizer": str(tmp_path / "tokenizer")}
    common |= {"text_encoder": str(encoder)}
    base = config(tmp_path, "base", hidden_size=16, **common)
    assert run("train", "base", "--config", base, "--data", pictures) == 0
    finer = config(
        tmp_path, "finer", hidden_size=16, coarse_size=32, **{**common, "size": 64, "fine_size": 16, "steps_shown": 2}
    )
    assert run("train", "super-resolution", "--config", finer, "--data", pictures) == 0
    warm = config(tmp_path, "warm", start_from=str(tmp_path / "runs/base/weights"), **{**common, "text_encoder": None})
    assert run("train", "base", "--config", warm, "--data", pictures) == 0
    parts = {name: tmp_path / "runs" / name / "weights" for name in ("warm", "finer")}
    out = tmp_path / "checkpoint"
    arguments = ["--base", parts["warm"], "--super-resolution", parts["finer"], "--out", out, "--vocabulary", "none"]
    assert run("train", "export", "--tokenizer", tmp_path / "tokenizer", *arguments) == 0
    encoder.rename(tmp_path / "moved")
    pipeline = MarkovGenPipeline.from_pretrained(out)
    assert pipeline.text_encoder.width == WIDTHS[kind] and pipeline.vocabulary.nouns == {}
    assert pipeline("a red square", steps=2, super_resolution_steps=2, seed=0).images[0].image.size == (64, 64)
    stages = [{"objective": "conditional"}]
    field = config(tmp_path, "field", rank=2, pictures=64, held_out=64, stages=stages, steps_planned=2, exit_steps=[2])
    field.write_text(field.read_text().replace("size: 32\n", "", 1))
    assert run("train", "mrf", "--config", field, "--model", out, "--data", pictures) == 0


def test_a_text_encoder_that_is_not_there_is_said(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    base = config(tmp_path, "base", tokenizer=str(tmp_path / "tokenizer"), text_encoder=str(tmp_path / "nowhere"))
    assert run("train", "base", "--config", base, "--data", pictures) == 2
    assert "There is no text encoder in" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "tokenizer", "--config", config(tmp_path, "tokenizer"), "--data", tmp_path / "nowhere") == 2
    assert "There is no folder" in capsys.readouterr().err
