"""Text encoders other than the published one: T5, CLIP and BERT's kind, and how weights say which one they need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from builders import text_encoder, tiny_tokenizer, tiny_transformer
from encoders import KINDS, WIDTHS, tiny_encoder

from markovgen_app.errors import UserError
from markovgen_app.models.text import HUB_ID, TextEncoder, source_beside
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.training.export import common_text_encoder

PROMPTS = ["a panda", "", "a panda, a cat, a dog."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_encoder(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_neither_read_nor_seen(folders: dict[str, Path], kind: str) -> None:
    encoder = TextEncoder.from_pretrained(folders[kind])
    assert encoder.width == WIDTHS[kind] and encoder.max_length <= 64
    batch = encoder.encode(PROMPTS)
    assert batch.states.shape == (3, batch.mask.shape[1], WIDTHS[kind]) and batch.pooled.shape == (3, WIDTHS[kind])
    assert batch.mask.sum(1).tolist() == [min(encoder.token_count(each), encoder.max_length) for each in PROMPTS]
    assert batch.mask.sum(1).unique().numel() == 3, "the prompts differ in length"
    for row, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        length = alone.mask.shape[1]
        torch.testing.assert_close(batch.states[row : row + 1, :length], alone.states, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(batch.pooled[row : row + 1], alone.pooled, atol=1e-5, rtol=1e-4)
        assert not batch.states[row, length:].any()
    long = encoder.encode(["panda " * 100])
    assert long.mask.shape == (1, encoder.max_length) and long.mask.all()


def test_the_summary_is_clips_last_state_and_elsewhere_the_mean(folders: dict[str, Path]) -> None:
    for kind in KINDS:
        encoded = TextEncoder.from_pretrained(folders[kind]).encode(PROMPTS)
        for states, mask, pooled in zip(encoded.states, encoded.mask, encoded.pooled, strict=True):
            wanted = states[mask][-1] if "clip" in kind else states[mask].mean(0)
            torch.testing.assert_close(pooled, wanted)


def test_the_encoder_is_t5s_and_not_its_decoder(folders: dict[str, Path]) -> None:
    from transformers import T5EncoderModel

    encoder = TextEncoder.from_pretrained(folders["t5"])
    assert isinstance(encoder.model, T5EncoderModel)
    reference = T5EncoderModel.from_pretrained(folders["t5"]).eval()
    pieces = encoder.tokenizer(PROMPTS[:1], return_tensors="pt")
    with torch.no_grad():
        assert encoder.encode(PROMPTS[:1]).states.equal(reference(**pieces).last_hidden_state)


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_checkpoint_brings_its_own_encoder_along(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders[kind], tmp_path / "source"))
    encoder = TextEncoder.from_pretrained(source)
    pipeline = MarkovGenPipeline(tiny_transformer(WIDTHS[kind]), tiny_tokenizer(), encoder)
    out = tmp_path / "checkpoint"
    pipeline.save_pretrained(out)
    shutil.rmtree(source)
    moved = Path(shutil.move(out, tmp_path / "elsewhere"))
    again = MarkovGenPipeline.from_pretrained(moved)
    first, second = (each.text_encoder.encode(PROMPTS) for each in (pipeline, again))
    assert first.states.equal(second.states) and first.pooled.equal(second.pooled)
    wanted = again("a panda", steps=3, seed=4).images[0].image.tobytes()
    again.save_pretrained(moved)  # in place
    third = MarkovGenPipeline.from_pretrained(moved)
    assert third("a panda", steps=3, seed=4).images[0].image.tobytes() == wanted
    assert str(tmp_path) not in (moved / "text_encoder.json").read_text()


def test_an_encoder_of_the_hub_is_named_and_not_stored(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folders[name.split("/")[1]]))
    pipeline = MarkovGenPipeline(tiny_transformer(24), tiny_tokenizer(), TextEncoder.from_pretrained("someone/t5"))
    pipeline.save_pretrained(tmp_path)
    assert source_beside(tmp_path) == "someone/t5" and not (tmp_path / "text_encoder").exists()
    again = MarkovGenPipeline.from_pretrained(tmp_path).text_encoder
    assert again.source == "someone/t5" and again.encode(PROMPTS).states.equal(
        pipeline.text_encoder.encode(PROMPTS).states
    )


def test_the_published_encoder_needs_no_word(tmp_path: Path) -> None:
    (tmp_path / "text_encoder.json").write_text('{"source": "someone/t5"}')
    MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder()).save_pretrained(tmp_path)
    assert not (tmp_path / "text_encoder.json").exists() and not (tmp_path / "text_encoder").exists()
    assert source_beside(tmp_path) == HUB_ID == TextEncoder.beside(tmp_path).source


def test_parts_trained_with_different_encoders_are_said(folders: dict[str, Path], tmp_path: Path) -> None:
    parts = [tmp_path / "base", tmp_path / "super-resolution"]
    for part in parts:
        part.mkdir()
    assert common_text_encoder(parts) is None
    TextEncoder.from_pretrained(folders["clip"]).name_beside(parts[1])
    with pytest.raises(UserError, match="trained with different text encoders"):
        common_text_encoder(parts)
    TextEncoder.from_pretrained(folders["clip"]).name_beside(parts[0])
    encoder = common_text_encoder(parts)
    assert encoder is not None and encoder.width == WIDTHS["clip"]


def test_a_wrong_or_missing_encoder_is_said_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = MarkovGenPipeline(tiny_transformer(24), tiny_tokenizer(), TextEncoder.from_pretrained(folders["t5"]))
    pipeline.save_pretrained(tmp_path)
    told = tmp_path / "text_encoder.json"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            MarkovGenPipeline.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)

    (tmp_path / "text_encoder/model.safetensors").rename(tmp_path / "weights")
    refused("There is no text encoder in .*text_encoder .config.json, model.safetensors.")
    (tmp_path / "text_encoder/model.safetensors").write_bytes((tmp_path / "weights").read_bytes()[:5000])
    refused("The text encoder in .* cannot be read")
    for content, message in (
        (json.dumps({"source": str(folders["clip"])}), "states are 20 wide, the transformer reads 24"),
        ('{"source": "nowhere"}', "The text encoder nowhere, which the weights in .* need, is not on this machine"),
        ('{"source": 3}', "names no text encoder"),
        ("{", "is damaged"),
    ):
        told.write_text(content)
        refused(message)
    told.unlink()
    refused("states are 384 wide, the transformer reads 24")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    shutil.copy(folders["clip"] / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="is of the type gpt2, which is no text encoder: choose T5, CLIP"):
        TextEncoder.from_pretrained(tmp_path)
