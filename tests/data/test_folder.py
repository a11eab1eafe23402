"""Folders of pictures with captions, however those are written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from markovgen_app.data.folder import FolderDataset, captioned_files
from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.training.data import PicturesConfig, open_pictures, scene_batches


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def captioned(folder: Path, count: int) -> Path:
    """`count` pictures, each of a grey of its own, with .txt files."""
    for number in range(count):
        path = picture(folder / f"{number}.png", f"rgb({number}, {number}, {number})")
        path.with_suffix(".txt").write_text(f"{number}")
    return folder


def test_captions_are_found_wherever_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "beside.jpg").with_suffix(".txt").write_text("a red\nsquare\n")
    picture(tmp_path / "object.png").with_suffix(".json").write_text('{"caption": "from an object", "width": 3}')
    picture(tmp_path / "deep/er/csv.webp")
    (tmp_path / "deep/metadata.csv").write_text('file_name,text\ner/csv.webp,"one, two"\n')
    picture(tmp_path / "lines/jsonl.PNG")
    (tmp_path / "lines/metadata.jsonl").write_text('{"file_name": "jsonl.PNG", "prompt": "ün"}\n\n')
    picture(tmp_path / "bare.png")
    (tmp_path / "notes.md").write_text("not a picture")
    found = {each.path.name: each.caption for each in captioned_files(tmp_path)}
    assert found == {
        "beside.jpg": "a red square", "object.png": "from an object", "csv.webp": "one, two", "jsonl.PNG": "ün"
    }  # fmt: skip
    assert "1 of 5 pictures" in capsys.readouterr().err


def test_splits_part_the_pictures_and_epochs_shuffle_them(tmp_path: Path) -> None:
    captioned(tmp_path, 60)
    parts = [FolderDataset(tmp_path, split=split) for split in ("train", "tune", "test")]
    names = [{each.path.name for each in part.items} for part in parts]
    assert [len(each) for each in names] == [58, 1, 1] and len(set.union(*names)) == 60
    train = parts[0]
    epochs = [[train.scene(58 * epoch + index).caption for index in range(58)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    again = FolderDataset(tmp_path)
    assert [again.scene(index).caption for index in (70, 3)] == [epochs[1][12], epochs[0][3]]
    assert FolderDataset(tmp_path, seed=1).scene(0) != FolderDataset(tmp_path, seed=2).scene(0)


def test_pictures_fill_a_square_upright_on_white(tmp_path: Path) -> None:
    captioned(tmp_path, 3)
    data = FolderDataset(tmp_path, size=16)
    half = Image.new("RGB", (40, 20), "blue")
    half.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[274] = 6  # turned a quarter clockwise when shown
    half.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    scene = data.scene(0)
    turned = data.render(type(scene)(tmp_path / "turned.jpg", ""))
    assert turned.shape == (16, 16, 3) and turned[0, 8, 0] > 200 and turned[-1, 8, 2] > 200
    assert (data.render(type(scene)(tmp_path / "clear.png", ""), 8) == 255).all()
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    with pytest.raises(UserError, match=r"cut\.png cannot be read: remove it"):
        data.render(type(scene)(tmp_path / "cut.png", ""))


def test_batches_are_those_of_scenes(tmp_path: Path) -> None:
    captioned(tmp_path, 10)
    data = open_pictures(PicturesConfig(name="x", minutes=1, data=str(tmp_path)), 16, "train")
    batches = scene_batches(data, 4, first=1, sizes=(16, 32))
    batch = next(batches)
    assert [each.caption for each in batch.scenes] == [data.scene(index).caption for index in range(4, 8)]
    assert [tuple(render.shape) for render in batch.renders] == [(4, 3, 16, 16), (4, 3, 32, 32)]
    assert [int(each[0, 0, 0]) for each in batch.renders[0]] == [int(each.caption) for each in batch.scenes]
    scenes = open_pictures(PicturesConfig(name="x", minutes=1), 32, "train")
    assert isinstance(scenes, SceneDataset) and np.array_equal(scenes[0][1], SceneDataset(0, 32)[0][1])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        FolderDataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds 2 pictures with captions, and training needs three"):
        FolderDataset(captioned(tmp_path / "few", 2))
    captioned(tmp_path / "bad", 4)
    (tmp_path / "bad/metadata.csv").write_text("name,text\na,b\n")
    with pytest.raises(UserError, match=r"metadata\.csv has no column file_name"):
        FolderDataset(tmp_path / "bad")
    (tmp_path / "bad/metadata.csv").unlink()
    (tmp_path / "bad/metadata.jsonl").write_text(json.dumps({"file_name": "0.png"})[:-3])
    with pytest.raises(UserError, match=r"metadata\.jsonl cannot be read"):
        FolderDataset(tmp_path / "bad")
