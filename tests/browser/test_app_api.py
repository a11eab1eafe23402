"""The named endpoint that programs call."""

from __future__ import annotations

import pytest
from gradio_client import Client
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
    assert set(endpoints) == {"/generate", "/compare"}


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
