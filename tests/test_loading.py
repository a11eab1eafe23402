"""The digest of weights: one for all ways of holding them, another for every other set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from amused import amused_checkpoint
from builders import tiny_ladder, tiny_pipeline
from encoders import tiny_encoder

from markovgen_app.loading import weights_digest
from markovgen_app.models.text import TextEncoder
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.pipeline import MarkovGenPipeline


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
