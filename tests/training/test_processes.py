"""Several processes train one model: own batches, averaged gradients, one that writes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import tiny_tokenizer
from processes import summed, together
from safetensors.torch import load_file

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.training import base, tokenizer, tokens
from markovgen_app.training.data import scene_batches


def written(path: Path, **fields: Any) -> Path:
    common = {"name": "run", "minutes": 5, "steps": 2, "batch_size": 2, "log_every": 1}
    path.write_text(yaml.safe_dump({**common, "runs": str(path.parent / "runs"), **fields}))
    return path


def steps(folder: Path) -> list[int]:
    """Steps in the log that have a loss."""
    lines = (json.loads(line) for line in (folder / "runs/run/log.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "loss" in line]


def test_gradients_are_the_mean_of_each_process_s_own_batches(tmp_path: Path) -> None:
    together(2, tmp_path, summed, tmp_path)
    assert (tmp_path / "ended-0").read_text() == f"{-(0.5 + 2.5 + 4.5)} [0, 2, 4]"
    assert (tmp_path / "ended-1").read_text() == f"{-(0.5 + 2.5 + 4.5)} [1, 3, 5]"
    assert len((tmp_path / "sum/log.jsonl").read_text().splitlines()) == 3, "one of them writes"
    assert load_file(tmp_path / "sum/state.safetensors")["module.weight"].item() == -7.5


def test_two_processes_train_one_tokenizer(tmp_path: Path) -> None:
    shape = {"levels": [4, 4], "channels": [4, 8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1, 1]}
    config = written(tmp_path / "run.yaml", adversarial_weight=0.1, **shape, size=256, crop=32)  # few are measured
    together(2, tmp_path, tokenizer.train, config)
    assert steps(tmp_path) == [1, 2]
    assert ImageTokenizer.from_pretrained(tmp_path / "runs/run/weights").codebook_size == 16


def test_two_processes_train_one_transformer_on_tokens_that_they_keep_together(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "tokenizer": str(tmp_path / "tokenizer")}
    together(2, tmp_path, base.train, written(tmp_path / "run.yaml", size=32, reuse=2, **sizes))
    assert steps(tmp_path) == [1, 2]
    together(2, tmp_path, base.train, written(tmp_path / "run.yaml", size=32, reuse=2, steps=3, **sizes), True)
    assert steps(tmp_path) == [1, 2, 3], "gone on from its state"
    assert MuseTransformer.from_pretrained(tmp_path / "runs/run/weights").grid == (4, 4)


@pytest.mark.parametrize("fields", [{}, {"reuse": 3}, {"cached_scenes": 24}])
def test_processes_share_the_batches_of_one(
    tmp_path: Path, fields: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_SHARD", 32)
    config = base.BaseConfig(name="x", minutes=1, batch_size=2, runs=tmp_path, **fields)
    source = tokens.TokenSource(SceneDataset(0, 32), tiny_tokenizer(), config, torch.device("cpu"))

    def captions(first: int, every: int, count: int) -> list[list[str]]:
        return [batch.captions for batch in itertools.islice(source.batches(first, every), count)]

    apart = [captions(process, 3, 6) for process in range(3)]
    fresh = base.BaseConfig(**{**config.model_dump(), "reuse": 1})
    alone = tokens.TokenSource(SceneDataset(0, 32), tiny_tokenizer(), fresh, torch.device("cpu")).batches(0)
    wanted = [batch.captions for batch in itertools.islice(alone, 18)]
    for process, step in itertools.product(range(3), range(6)):
        assert apart[process][step] == wanted[step // config.reuse * 3 + process]
    assert captions(2 * 3 + 1, 3, 3) == apart[1][2:5], "a run may be continued at any step"


def test_what_is_kept_is_tokenized_by_all_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_SHARD", 32)
    config = base.BaseConfig(name="x", minutes=1, batch_size=2, runs=tmp_path, cached_scenes=90)
    source = tokens.TokenSource(SceneDataset(0, 32), tiny_tokenizer(), config, torch.device("cpu"))
    source.prepare(0, 2)
    assert sorted(path.stem for path in tmp_path.rglob("*.safetensors")) == ["00000", "00002"]
    source.prepare(1, 2)
    files = sorted(tmp_path.rglob("*.*"))
    assert [path.name for path in files] == [*(f"{number:05d}.safetensors" for number in range(3)), "drawn.txt"]
    made = [path.stat().st_mtime_ns for path in files]
    source.prepare(0, 1)
    assert [path.stat().st_mtime_ns for path in files] == made


def test_pictures_of_every_second_batch() -> None:
    scenes = SceneDataset(0, 32)
    wanted = [batch.scenes for batch in itertools.islice(scene_batches(scenes, 2, 1), 5)]
    assert [batch.scenes for batch in itertools.islice(scene_batches(scenes, 2, 1, every=2), 3)] == wanted[::2]
