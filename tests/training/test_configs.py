"""Every configuration that comes with the project is one that its stage takes, and says how it is run."""

import re
from pathlib import Path

import pytest
import yaml

from markovgen_app.errors import UserError
from markovgen_app.training.base import BaseConfig
from markovgen_app.training.loop import read_config
from markovgen_app.training.mrf import MrfConfig
from markovgen_app.training.scorer import ScorerConfig
from markovgen_app.training.super_resolution import SuperResolutionConfig
from markovgen_app.training.tokenizer import TokenizerConfig

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "tokenizer": TokenizerConfig,
    "base": BaseConfig,
    "super-resolution": SuperResolutionConfig,
    "mrf": MrfConfig,
    "scorer": ScorerConfig,
}
COMMAND = re.compile(
    r"^#   (?:accelerate launch -m markovgen_app|markovgen) train (\S+) --config (\S+)"
    r"(?: --(?:data|model) \S+)? --resume$",
    re.MULTILINE,
)
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
GPU = sorted((ROOT / "configs/gpu").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_configuration_is_valid_and_names_its_own_command(path):
    found = COMMAND.search(path.read_text())
    assert found and ROOT / found[2] == path
    read_config(path, STAGES[found[1]])


def test_runs_have_names_of_their_own():
    names = [yaml.safe_load(path.read_text())["name"] for path in CONFIGS]
    assert len(set(names)) == len(names)


def test_the_gpu_runs_fit_into_half_an_hour_and_feed_each_other():
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in GPU}
    assert set(configs) == {"tokenizer", "tokenizer-polish", "base", "super-resolution", "scorer"}
    assert sum(config["minutes"] for config in configs.values()) <= 27  # what is left is starting and rendering
    weights = f"runs/{configs['tokenizer']['name']}/weights"
    assert configs["tokenizer-polish"]["start_from"] == weights
    assert configs["base"]["tokenizer"] == configs["super-resolution"]["tokenizer"] == weights
    assert all(config["mixed_precision"] == "bf16" and config["vocabulary"] == "full" for config in configs.values())


def test_a_crop_that_does_not_fit_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("name: c\nminutes: 1\nsize: 128\ncrop: 256\n")
    with pytest.raises(UserError, match=r"c\.yaml: .*crop is a multiple of 8 up to the size 128"):
        read_config(tmp_path / "c.yaml", TokenizerConfig)


def test_more_kept_places_than_there_are_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("name: c\nminutes: 1\nsize: 64\nkept_tokens: 65\n")
    with pytest.raises(UserError, match=r"c\.yaml: .*kept_tokens is at most 64, the places of a picture of 64 pixels"):
        read_config(tmp_path / "c.yaml", BaseConfig)
