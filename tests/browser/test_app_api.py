"""The named endpoints that programs call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from markovgen_app.pictures import read_settings


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def test_generate_returns_a_picture_and_its_settings(client: Client) -> None:
    path, settings = client.predict("an owl", seed=5, steps=4, api_name="/generate")
    assert Image.open(path).format == "PNG"
    assert settings["seed"] == 5 and settings["prompt"] == "an owl"
    assert read_settings(path).model_dump() == settings
    path, settings = client.predict(prompt="an owl", steps=2, api_name="/generate")
    assert settings["seed"] is not None, "a random seed is echoed"


def test_notes_come_with_the_settings(client: Client) -> None:
    _, settings = client.predict("猫", steps=2, schedule="linear", guidance_ramp=False, api_name="/generate")
    assert (settings["schedule"], settings["guidance_ramp"]) == ("linear", False)
    assert len(settings["notes"]) == 1 and "knows no word of the prompt" in settings["notes"][0]
    fields = {"steps": 2, "order": "halton", "top_k": 5, "choice_temperature": 1.5}
    *_, report = client.predict("猫", ["full", "early-exit"], **fields, api_name="/compare")
    assert {name: report["settings"][name] for name in fields} == fields and len(report["notes"]) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "x" * 5000}, "shorten it to 1,000"),
        ({"prompt": "an owl", "steps": 0}, "Steps must be a whole number between 1 and 256, not 0."),
        ({"prompt": "an owl", "seed": 2**32}, "Seed must be a whole number between 0 and"),
        ({"prompt": "an owl", "method": "magic"}, "Method must be one of"),
    ],
)
def test_bad_input_is_one_line(client: Client, fields: dict, says: str) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**fields, api_name="/generate")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_nothing_else_is_offered(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/generate", "/compare", "/inpaint", "/outpaint", "/edit"}


def test_compare_returns_a_grid_pictures_and_what_each_took(client: Client) -> None:
    grid, pictures, report = client.predict("an owl", ["full", "markovgen"], seed=5, steps=4, api_name="/compare")
    assert Image.open(grid).format == "PNG" and Image.open(grid).width > Image.open(pictures[0]).width
    assert [read_settings(path).method for path in pictures] == ["full", "markovgen"]
    assert list(report["methods"]) == ["full", "markovgen"] and report["seed"] == 5
    assert report["methods"]["markovgen"]["transformer_calls"] == 3
    assert report["methods"]["markovgen"]["random_field"]["tokens_changed"] >= 0
    *_, report = client.predict(prompt="an owl", steps=2, api_name="/compare")
    assert list(report["methods"]) == ["full", "early-exit", "markovgen"] and report["seed"] is not None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "an owl", "methods": ["full"]}, "Choose two methods or more"),
        ({"prompt": "an owl", "methods": ["full", "magic"]}, "No method is called 'magic'"),
        ({"prompt": "an owl", "mrf_iterations": 0}, "Mrf iterations must be a whole number between 1 and 100, not 0."),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_line(client: Client, fields: dict, says: str) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**fields, api_name="/compare")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 96 x 128 pixels."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_inpaint_changes_what_a_mask_or_a_rectangle_marks(client: Client, photo: Path, tmp_path: Path) -> None:
    mask = np.zeros((128, 96), np.uint8)
    mask[40:80, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    asked: dict[str, Any] = {"seed": 5, "steps": 2, "feather": 0, "api_name": "/inpaint"}
    path, settings = client.predict(handle_file(photo), "an owl", handle_file(tmp_path / "mask.png"), **asked)
    outside = mask == 0
    assert (pixels_of(path)[outside] == pixels_of(photo)[outside]).all()
    assert (pixels_of(path)[~outside] != pixels_of(photo)[~outside]).any()
    assert settings["task"] == "inpaint" and settings["seed"] == 5
    again, _ = client.predict(handle_file(photo), "an owl", rectangle=[30, 40, 60, 80], **asked)
    assert (pixels_of(again) == pixels_of(path)).all()


def test_outpaint_widens(client: Client, photo: Path) -> None:
    path, settings = client.predict(handle_file(photo), "an owl", right=32, steps=2, feather=0, api_name="/outpaint")
    assert pixels_of(path).shape == (128, 128, 3) and settings["right"] == 32
    assert (pixels_of(path)[:, :96] == pixels_of(photo)).all()


def test_edit_follows_the_words(client: Client, photo: Path) -> None:
    path, settings = client.predict(handle_file(photo), "an owl", strength=0.02, seed=3, api_name="/edit")
    assert pixels_of(path).shape == (128, 96, 3)
    assert settings["task"] == "edit" and settings["strength"] == 0.02 and settings["guidance_scale"] == 2


@pytest.mark.parametrize(
    ("endpoint", "fields", "says"),
    [
        ("/inpaint", {}, "The mask is empty"),
        ("/inpaint", {"rectangle": [0, 0, 96, 128]}, "The mask covers the whole picture"),
        ("/inpaint", {"rectangle": [0, 0, 97, 10]}, "leaves the picture"),
        ("/inpaint", {"rectangle": [0, 0, 9, 9], "prompt": " "}, "The prompt is empty"),
        ("/outpaint", {}, "There is nothing to add"),
        ("/outpaint", {"left": 500}, "Left must be between 0 and"),
        ("/edit", {"strength": 0}, "Strength must be a number between 0.01 and 1"),
        ("/edit", {"image": "/etc/hostname"}, "has to be uploaded"),
        ("/edit", {"image": {"path": "/etc/hostname"}}, "has to be uploaded"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_line(
    client: Client, photo: Path, endpoint: str, fields: dict, says: str
) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**{"image": handle_file(photo), "prompt": "an owl", **fields}, api_name=endpoint)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_picture_is_one_line(client: Client, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(AppError, match="no picture that can be read"):
        client.predict(handle_file(tmp_path / "words.png"), "an owl", api_name="/edit")
