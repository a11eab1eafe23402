"""Trained parts become one checkpoint that loads; missing parts are named."""

import pytest
import torch

from markovgen_app.errors import UserError
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.super_resolution import SuperResolutionTransformer
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.training.export import export
from markovgen_app.training.loop import copy_half


@pytest.fixture
def parts(tmp_path):
    torch.manual_seed(0)
    copy_half(ImageTokenizer((4, 4), (4, 8, 8), (1, 1), (1, 1, 1)), tmp_path / "tokenizer")
    copy_half(MuseTransformer(16, (4, 4), 16, 1, 2, levels=(4, 4)), tmp_path / "base")
    for name, side in (("finer", 8), ("finest", 16)):
        stage = SuperResolutionTransformer(16, (side, side), (side // 2, side // 2), 16, 1, 2, fine_size=8)
        copy_half(stage, tmp_path / name)
    copy_half(MarkovRandomField("low-rank", 16, (8, 8), rank=2), tmp_path / "field")
    return tmp_path


def test_an_exported_checkpoint_makes_pictures_and_knows_its_words(parts):
    export(parts / "tokenizer", parts / "base", parts / "out", "frequent")
    pipeline = MarkovGenPipeline.from_pretrained(parts / "out")
    assert pipeline("a panda", steps=2, seed=1).images[0].image.size == (32, 32)
    assert "panda" in pipeline.vocabulary.nouns and "volcano" not in pipeline.vocabulary.nouns
    assert max(path.stat().st_size for path in (parts / "out").rglob("*") if path.is_file()) < 10_000_000


def test_stages_above_the_base_come_along(parts):
    finer = [parts / "finer", parts / "finest"]
    export(
        parts / "tokenizer", parts / "base", parts / "out", "full",
        super_resolution=finer, super_resolution_mrf=[parts / "field"],
    )  # fmt: skip
    pipeline = MarkovGenPipeline.from_pretrained(parts / "out")
    assert pipeline.sizes == (32, 64, 128)
    assert [stage.mrf is not None for stage in pipeline.stages] == [False, True, False]
    assert pipeline("a panda", steps=2, super_resolution_steps=2, seed=1).images[0].width == 128
    with pytest.raises(UserError, match="more random fields"):
        export(
            parts / "tokenizer", parts / "base", parts / "out", "full",
            super_resolution=finer[:1], super_resolution_mrf=[parts / "field"] * 2,
        )  # fmt: skip
    with pytest.raises(UserError, match="Super-resolution refines"):
        export(parts / "tokenizer", parts / "base", parts / "out", "full", super_resolution=finer[::-1])


def test_what_is_missing_or_misspelt_is_named(parts):
    with pytest.raises(UserError, match="no trained weights in"):
        export(parts / "nothing", parts / "base", parts / "out", "full")
    weights = parts / "base" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="truncated or damaged"):
        export(parts / "tokenizer", parts / "base", parts / "out", "full")
    with pytest.raises(UserError, match="'most'"):
        export(parts / "tokenizer", parts / "base", parts / "out", "most")
