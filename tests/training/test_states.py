"""Half-decoded states on disk: how much they take, whose they are, and what happens where there is no room."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import text_encoder, tiny_tokenizer, tiny_transformer
from safetensors import SafetensorError

from markovgen_app import tensor_files
from markovgen_app.data.scenes import SceneDataset
from markovgen_app.decoding.sampler import method_settings
from markovgen_app.errors import UserError
from markovgen_app.training import states as states_module
from markovgen_app.training.states import Backbone, Kind, StateSource, check_room


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "_SHARD", 4)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    settings = method_settings("full", 6, guidance_scale=3.0)
    return Backbone(tiny_transformer(), tiny_tokenizer(), text_encoder(), settings, (2, 4, 5))


def source(backbone: Backbone, folder: Path, kind: Kind = "real", **options: Any) -> StateSource:
    return StateSource(backbone, SceneDataset(0, 32, "train", "frequent"), kind, 8, folder, **options)


def left(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free))


@pytest.mark.parametrize(("kind", "distributions"), [("real", False), ("own", False), ("own", True)])
def test_their_size_is_known_before_they_are_sampled(
    backbone: Backbone, tmp_path: Path, kind: Kind, distributions: bool
) -> None:
    states = source(backbone, tmp_path, kind, distributions=distributions)
    assert states.missing == [0, 1]
    states.shard(0)
    (file,) = tmp_path.rglob("*.safetensors")
    assert 0 < file.stat().st_size - states.shard_bytes < 600, "no more than the file's header"
    assert states.missing == [1]


def test_too_small_a_disk_is_said_at_once(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs/states"
    both = [source(backbone, folder), source(backbone, folder, "own")]
    monkeypatch.setattr(StateSource, "shard_bytes", 3_000_000_000)
    left(monkeypatch, 12_000_000_000)
    check_room(both)
    assert capsys.readouterr().err == f"states: 12.0 GB of them will be kept in {folder}\n"
    left(monkeypatch, 11_900_000_000)
    with pytest.raises(UserError) as caught:
        check_room(both, tell=False)
    assert str(caught.value) == (
        f"The half-decoded states need 12.0 GB in {folder}, and its disk has 11.9 GB left: free some, ask for fewer"
        " `pictures:`, or name a folder on another disk as `runs:`."
    )
    assert capsys.readouterr().err == "" and not folder.exists()


def test_states_that_are_there_need_no_room(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = source(backbone, tmp_path)
    states.prepare()
    capsys.readouterr()
    left(monkeypatch, 0)
    check_room([states])
    assert capsys.readouterr().err == ""


def test_a_disk_that_fills_up_is_said_and_nothing_half_stays(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"a part of it")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(UserError, match=r"The disk of .* is full: free some space"):
        source(backbone, tmp_path).prepare()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder"):
        source(backbone, tmp_path / "file").prepare()


def test_states_belong_to_their_weights_to_the_last_number(backbone: Backbone, tmp_path: Path) -> None:
    """Also where other weights have the same sum, in whatever order it is taken."""
    turned = copy.deepcopy(backbone.transformer)
    weight = next(parameter for parameter in turned.parameters() if parameter.ndim == 2)
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert source(backbone, tmp_path).folder == source(replace(backbone), tmp_path).folder
    assert source(replace(backbone, transformer=turned), tmp_path).folder != source(backbone, tmp_path).folder


def test_states_of_the_base_belong_to_the_encoder_and_to_no_decoder(backbone: Backbone, tmp_path: Path) -> None:
    """A decoder that is trained on leaves hours of sampling as good as they were."""
    own = source(backbone, tmp_path).folder
    for part, same in (("decoder", True), ("encoder", False)):
        other = copy.deepcopy(backbone.tokenizer)
        with torch.no_grad():
            next(getattr(other, part).parameters()).mul_(1.5)
        assert (source(replace(backbone, tokenizer=other), tmp_path).folder == own) == same
