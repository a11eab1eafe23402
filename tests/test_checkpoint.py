"""Checkpoints that are missing, cut short or of another kind: one line that names the file, never a traceback."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import text_encoder

from markovgen_app.checkpoint import find_checkpoint
from markovgen_app.errors import UserError
from markovgen_app.pipeline import MarkovGenPipeline

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def whole(weights: str) -> Path:
    return Path(weights)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def edited(path: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**content, **changes}))

    return edit


def rewritten(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: [(folder / path).write_bytes(change((folder / path).read_bytes()))].clear()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json is missing"),
        (rewritten("model_index.json", lambda data: data[:20]), "model_index.json is damaged"),
        (rewritten("model_index.json", lambda data: b"[]"), "model_index.json is damaged"),
        (edited("model_index.json", _class_name="FluxPipeline"), "holds FluxPipeline, not MarkovGenPipeline"),
        (edited("model_index.json", _class_name="AmusedPipeline"), "transformer in .* is no UVit2DModel"),
        (edited("model_index.json", _class_name=None), "holds no pipeline, not MarkovGenPipeline"),
        (edited("model_index.json", transformer=["os", "system"]), "transformer in .* is no MuseTransformer"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer/config.json is missing"),
        (rewritten("transformer/config.json", lambda data: b"{"), "transformer/config.json is damaged"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (rewritten(WEIGHTS, lambda data: b""), f"{WEIGHTS} is truncated or damaged"),
        (rewritten(WEIGHTS, lambda data: data[: len(data) // 2]), f"{WEIGHTS} is truncated or damaged"),
        (rewritten(WEIGHTS, lambda data: data[:-1]), f"{WEIGHTS} is truncated or damaged"),
        (rewritten(WEIGHTS, lambda data: b"\xff" * 8 + data[8:]), f"{WEIGHTS} is truncated or damaged"),
        (rewritten(WEIGHTS, lambda data: data[:-200] + b"\xff" * 200), "transformer are damaged .not all numbers"),
        (edited("transformer/config.json", num_layers=3), "transformer do not fit its config.json"),
        (edited("transformer/config.json", num_layers=1), "transformer do not fit its config.json"),
        (edited("model_index.json", mrf=["os", "system"]), "mrf in .* is no MarkovRandomField"),
        (lambda folder: shutil.rmtree(folder / "mrf"), "mrf/config.json is missing"),
        (edited("mrf/config.json", grid=[4, 5]), "random field is over 4 × 5 tokens of 240 codes"),
        (edited("transformer/config.json", hidden_size=64), "cannot be loaded: copy or download it again"),
        (edited("transformer/config.json", grid=[4]), "cannot be loaded: copy or download it again"),
        (edited("tokenizer/config.json", levels=[8, 5, 6, 1]), "cannot be loaded: copy or download it again"),
        (rewritten("vocabulary.json", lambda data: data[:99]), "vocabulary.json cannot be read"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(copied: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copied)
    with pytest.raises(UserError, match=message) as caught:
        MarkovGenPipeline.from_pretrained(copied, text_encoder=text_encoder())
    assert "\n" not in str(caught.value)


def test_shards_are_read_and_a_missing_one_is_said(whole: Path, tmp_path: Path) -> None:
    pipeline = MarkovGenPipeline.from_pretrained(whole, text_encoder=text_encoder())
    pipeline.save_pretrained(tmp_path, max_shard_size="50KB")
    shards = sorted((tmp_path / "transformer").glob("*.safetensors"))
    assert len(shards) > 1 and max(shard.stat().st_size for shard in shards) < 60_000
    again = MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())
    for name, tensor in pipeline.transformer.state_dict().items():
        assert tensor.equal(again.transformer.state_dict()[name])
    shards[1].unlink()
    with pytest.raises(UserError, match=f"{shards[1].name} is missing"):
        MarkovGenPipeline.from_pretrained(tmp_path)
    (tmp_path / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(UserError, match=r"index.json is damaged"):
        MarkovGenPipeline.from_pretrained(tmp_path)


def test_a_name_that_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*nowhere: give a checkpoint's folder, or a hub id"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="There is no folder nowhere: "):
        find_checkpoint("nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a checkpoint's folder"):
        find_checkpoint(tmp_path / "file")


@pytest.fixture
def hub(refusing_hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", refusing_hub["address"])
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", refusing_hub["address"])
    return refusing_hub


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "no folder owner/no-such-model, and the hub has no model of that name that you may see"),
        (401, "RepoNotFound", "the hub has no model of that name that you may see: check the spelling"),
        (403, "GatedRepo", "gives owner/no-such-model only to those who accepted its conditions: accept them at"),
        (400, "", "the hub gives no model of that name now: check name and connection"),
    ],
)
def test_what_the_hub_refuses_is_said(hub: dict[str, Any], status: int, code: str, message: str) -> None:
    hub.update(status=status, code=code)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        find_checkpoint("owner/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(UserError, match="no room left on the disk for owner/name"):
        find_checkpoint("owner/name")


def test_a_download_that_broke_off_is_said(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half = Path(shutil.copytree(whole, tmp_path / "half"))
    (half / WEIGHTS).unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(half))
    with pytest.raises(UserError, match=f"{WEIGHTS} is missing: copy or download the checkpoint again"):
        MarkovGenPipeline.from_pretrained("owner/name", text_encoder=text_encoder())


def test_a_hub_id_that_is_not_in_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no folder owner/no-such-model, and the hub gives no model of that name now"):
        find_checkpoint("owner/no-such-model")
