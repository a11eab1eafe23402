"""Data sets in Parquet files and of the hub: columns, captions, splits, and what cannot be had."""

from __future__ import annotations

import builtins
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from markovgen_app.data.hub import Columns, HubDataset
from markovgen_app.errors import UserError
from markovgen_app.training.data import PicturesConfig, open_pictures, scene_batches

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def png(grey: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (grey, grey, grey)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(folder: Path, count: int = 12, **columns: list[Any]) -> Path:
    """A data set of `count` pictures, each of a grey of its own that its caption names; or with other columns."""
    content: dict[str, Any] = {"id": list(range(count)), "image": [png(number) for number in range(count)]}
    content |= columns or {"text": [str(number) for number in range(count)]}
    rows = datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "train.parquet")
    return folder


def config(data: object, **fields: Any) -> PicturesConfig:
    return PicturesConfig(name="x", minutes=1, data=str(data), **fields)


def test_pictures_and_captions_stay_together_in_every_split(tmp_path: Path) -> None:
    folder = table(tmp_path / "set", 60)
    parts = [open_pictures(config(folder), 16, split) for split in ("train", "tune", "test")]
    seen: list[list[int]] = []
    for part in parts:
        assert isinstance(part, HubDataset)
        scenes = [part.scene(index) for index in range(len(part.items))]
        assert all((part.render(scene) == int(scene.caption)).all() for scene in scenes)
        seen.append([scene.number for scene in scenes])
    assert [len(each) for each in seen] == [58, 1, 1] and {*seen[0], *seen[1], *seen[2]} == set(range(60))
    train = parts[0]
    assert [train.scene(58 + index).number for index in range(58)] != seen[0], "each epoch has its own order"
    batch = next(scene_batches(train, 4, 1))
    assert [scene.number for scene in batch.scenes] == seen[0][4:8]
    assert train.identity != open_pictures(config(table(tmp_path / "other", 60)), 16, "train").identity  # type: ignore[attr-defined]


def test_columns_can_be_named(tmp_path: Path) -> None:
    folder = table(tmp_path / "set", 4, text=["no"] * 4, prompt=["yes"] * 4, thumbnail=[png(9)] * 4)
    assert HubDataset(str(folder)).scene(0).caption == "no"
    chosen = config(folder, caption_column="prompt", image_column="image", data_split="train[:3]")
    found = open_pictures(chosen, 16, "train")
    assert found.scene(0).caption == "yes" and len(found.items) == 1  # type: ignore[attr-defined]


def test_lists_of_captions_are_read_one_an_epoch_and_rows_without_any_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = table(tmp_path / "set", 5, caption=[["a", " b \n c"], [], ["a", "b c"], ["a", "b c"], [""]])
    train = HubDataset(str(folder))
    assert len(train.items) == 1 and [train.scene(epoch).caption for epoch in range(3)] == ["a", "b c", "a"]
    assert "2 of 5 pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "chosen", "message"),
    [
        ({"label": [1, 2, 3]}, {}, "no column for the captions that is known by its name, only id, image, label: name"),
        (
            {"text": ["a", "b", "c"]},
            {"caption": "words"},
            "has no column 'words', only id, image, text: name it as cap",
        ),
        ({"text": ["a", "b", "c"]}, {"image": "text"}, "column 'text' of .* holds no pictures"),
        ({"text": ["a", "b", ""]}, {}, "holds 2 pictures with captions in 'text', and training needs three"),
        ({"text": ["a", "b", "c"]}, {"rows": "nothing"}, "cannot be read .*nothing.*: correct data_subset or data_spl"),
    ],
)
def test_what_a_data_set_lacks_is_said_in_one_line(
    tmp_path: Path, columns: dict[str, list[Any]], chosen: dict[str, str], message: str
) -> None:
    folder = table(tmp_path / "set", 3, **columns)
    with pytest.raises(UserError, match=message) as caught:
        HubDataset(str(folder), columns=Columns(**chosen))
    assert "\n" not in str(caught.value)


def test_a_damaged_picture_is_said(tmp_path: Path) -> None:
    folder = table(tmp_path / "set", 3)
    rows = datasets.Dataset.from_dict({"image": [{"bytes": b"\x89PNG", "path": None}] * 3, "text": ["a"] * 3})
    rows.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
    with pytest.raises(UserError, match=r"Picture \d of .* cannot be read"):
        HubDataset(str(folder))[0]


def test_a_name_of_the_hub_is_loaded_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, load = table(tmp_path / "set"), datasets.load_dataset

    def of_the_hub(name: str, subset: str | None, split: str) -> Any:
        assert (name, subset, split) == ("someone/pictures", "small", "train")
        return load(str(folder), split=split)

    monkeypatch.setattr("datasets.load_dataset", of_the_hub)
    found = open_pictures(config("someone/pictures", data_subset="small"), 16, "train")
    assert isinstance(found, HubDataset) and len(found.items) == 10


def test_neither_folder_nor_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*: name one with pictures and captions, or a data set"):
        open_pictures(config(tmp_path / "nowhere"), 16, "train")


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="takes the library datasets: pip install"):
        HubDataset("someone/pictures")
    assert "datasets" in sys.modules, "the other tests go on using it"


@pytest.fixture
def hub(refusing_hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", refusing_hub["address"])
    return refusing_hub


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "There is no folder someone/pictures, and the hub has no data set of that name"),
        (401, "RepoNotFound", "There is no folder someone/pictures, and the hub has no data set of that name"),
        (403, "GatedRepo", "gives someone/pictures only to those who accepted its conditions: accept them at https"),
    ],
)
def test_what_the_hub_refuses_is_said(hub: dict[str, Any], status: int, code: str, message: str) -> None:
    hub.update(status=status, code=code)
    with pytest.raises(UserError, match=message) as caught:
        HubDataset("someone/pictures")
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="The hub cannot be reached, and someone/pictures is not in its cache"):
        HubDataset("someone/pictures")
