"""Weights from the hub come whole; and their digest: one for all ways of holding them, another for every other set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from amused import CODES, amused_checkpoint
from builders import text_encoder, tiny_field, tiny_ladder, tiny_pipeline
from encoders import tiny_encoder
from huggingface_hub.utils import filter_repo_objects

from markovgen_app.errors import UserError
from markovgen_app.loading import load_field, weights_digest
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.text import TextEncoder
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.training.cards import write_card
from markovgen_app.training.loop import copy_half


def test_a_checkpoint_has_one_digest_however_it_is_held(tmp_path: Path) -> None:
    pipeline = tiny_ladder(further=1)
    digest = weights_digest(pipeline)
    assert len(digest) == 16 and int(digest, 16)
    pipeline.save_pretrained(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    loaded = MarkovGenPipeline.from_pretrained(tmp_path / "b")
    assert weights_digest(loaded) == digest
    assert weights_digest(loaded.to(torch.float16)) == weights_digest(loaded.to(torch.float32)) == digest
    assert weights_digest(loaded.offload(torch.device("cpu"))) == digest
    assert weights_digest(loaded.to(torch.bfloat16)) != digest


def test_checkpoints_of_amuseds_format_have_one_too(tmp_path: Path) -> None:
    folders = [amused_checkpoint(tmp_path / f"{side}", sample_size=side) for side in (4, 8)]
    digests = [weights_digest(MarkovGenPipeline.from_pretrained(folder)) for folder in (*folders, folders[1])]
    assert digests[0] != digests[1] == digests[2]


def _one_weight(pipeline: MarkovGenPipeline) -> None:
    with torch.no_grad():
        next(pipeline._further[0][0].parameters()).view(-1)[-1] += 0.01


def _field(pipeline: MarkovGenPipeline) -> None:
    pipeline.register_modules(super_resolution_mrf=None)


def _config(pipeline: MarkovGenPipeline) -> None:
    assert pipeline.mrf is not None
    pipeline.mrf.register_to_config(iterations=5)


@pytest.mark.parametrize("change", [_one_weight, _field, _config])
def test_other_weights_have_another(change: Callable[[MarkovGenPipeline], None]) -> None:
    pipeline = tiny_ladder(further=1)
    digest = weights_digest(pipeline)
    change(pipeline)
    assert weights_digest(pipeline) != digest


def test_the_text_encoder_counts_by_its_name(tmp_path: Path) -> None:
    names = ("a/bert", "b/bert", "b/other")
    encoders = [TextEncoder.from_pretrained(tiny_encoder(tmp_path / name, "bert")) for name in names]
    parts = tiny_pipeline()
    transformer = MuseTransformer(parts.transformer.config.codebook_size, parts.grid, 32, 1, 2, text_width=16)
    digests = [weights_digest(MarkovGenPipeline(transformer, parts.tokenizer, each)) for each in encoders]
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder OWNER/NAME of which is a repository: what is downloaded of one is what its filter of names lets pass."""

    def snapshot(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        published, cached = tmp_path / "hub" / name, tmp_path / "cache" / name
        files = sorted(str(file.relative_to(published)) for file in published.rglob("*") if file.is_file())
        patterns: Any = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        for file in filter_repo_objects(files, **patterns):
            (cached / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(published / file, cached / file)
        cached.mkdir(parents=True, exist_ok=True)
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    return tmp_path / "hub"


def test_a_field_that_was_trained_loads_from_the_hub(hub: Path, tmp_path: Path) -> None:
    field = tiny_field()
    copy_half(field, hub / "owner/field")
    write_card(hub / "owner/field", field, tiny_pipeline().transformer, {"model": "owner/checkpoint"}, {"plain": 1.0})
    field.save_pretrained(hub / "owner/shards", max_shard_size="2KB")
    assert len(list((hub / "owner/shards").glob("*.safetensors"))) > 1
    for name in ("owner/field", "owner/shards"):
        loaded = load_field(name).state_dict()
        assert all(torch.allclose(loaded[key], value, atol=2e-3) for key, value in field.state_dict().items())
    tiny_pipeline().save_pretrained(hub / "owner/checkpoint")
    with pytest.raises(UserError, match="There is no random field in"):
        load_field("owner/checkpoint")
    assert not list((tmp_path / "cache/owner/checkpoint").rglob("*.safetensors")), "what is no field stays there"


def test_a_whole_checkpoint_loads_from_the_hub(hub: Path, tmp_path: Path) -> None:
    """Ours with every stage, in shards, and with a text encoder of its own; aMUSEd's with its weights twice."""
    ladder = tiny_ladder(further=1)
    ladder.save_pretrained(hub / "owner/ladder", max_shard_size="50KB")
    again = MarkovGenPipeline.from_pretrained("owner/ladder", text_encoder=text_encoder())
    assert weights_digest(again) == weights_digest(ladder) and again.vocabulary.nouns == ladder.vocabulary.nouns

    encoder = TextEncoder.from_pretrained(tiny_encoder(tmp_path / "t5", "t5"))
    parts = tiny_pipeline()
    transformer = MuseTransformer(parts.transformer.config.codebook_size, parts.grid, 32, 1, 2, text_width=24)
    MarkovGenPipeline(transformer, parts.tokenizer, encoder).save_pretrained(hub / "owner/own")
    own = MarkovGenPipeline.from_pretrained("owner/own").text_encoder
    assert own.encode(["a cat"]).states.equal(encoder.encode(["a cat"]).states)

    published = amused_checkpoint(hub / "owner/amused")
    copy_half(MarkovRandomField("low-rank", CODES, (8, 8), rank=4), published / "mrf")
    for model in list(published.glob("*/*.safetensors")):
        shutil.copy(model, model.with_suffix(".fp16.safetensors"))
    digest = weights_digest(MarkovGenPipeline.from_pretrained(published))
    assert weights_digest(MarkovGenPipeline.from_pretrained("owner/amused")) == digest
    assert not list((tmp_path / "cache").rglob("*.fp16.safetensors")), "nothing is downloaded twice"
