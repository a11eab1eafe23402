"""The perceptual loss: what it measures, whom it teaches, and a tiny tokenizer that learns from it."""

import json

import pytest
import torch
import yaml

from markovgen_app.errors import UserError
from markovgen_app.models.scorer import Scorer
from markovgen_app.training import tokenizer as stage
from markovgen_app.training.perceptual import load_network, perceptual_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(3)
    network = Scorer(["cat", "dog"], ["sky"], ["neon"], ["red"], size=32, channels=(4, 8, 8), blocks=(1, 1, 1))
    for parameter in network.parameters():  # heads and residual branches start at zero, which sees nothing
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("network")
    network.save_pretrained(folder)
    return folder


def test_the_same_picture_is_seen_the_same_and_more_noise_is_seen_as_more(folder):
    network = load_network(folder, 32)
    pixels = torch.rand(3, 3, 32, 32) * 2 - 1
    noise = torch.randn_like(pixels)
    same, little, much = (float(perceptual_loss(network, pixels + w * noise, pixels)) for w in (0, 0.05, 0.5))
    assert abs(same) < 1e-6 < little < much


def test_it_teaches_the_reconstruction_and_not_the_network(folder):
    network = load_network(folder, 32)
    pixels = torch.rand(2, 3, 32, 32)
    reconstruction = torch.rand(2, 3, 32, 32, requires_grad=True)
    optimiser = torch.optim.SGD([reconstruction], lr=1.0)
    before = perceptual_loss(network, reconstruction, pixels)
    before.backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    optimiser.step()
    assert perceptual_loss(network, reconstruction, pixels) < before


def test_what_is_read_counts_beside_what_is_felt(folder):
    network = load_network(folder, 32)
    pixels, other = torch.rand(2, 1, 3, 32, 32)
    before = perceptual_loss(network, other, pixels)
    network.noun_head.weight.data *= 2  # the features stay what they are
    assert perceptual_loss(network, other, pixels) > before


def test_a_tiny_run_looks_through_it_at_whole_pictures_alone(folder, tmp_path):
    settings = {
        "name": "tiny",
        "minutes": 5,
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "size": 32,
        "finer_every": 2,
        "runs": str(tmp_path / "runs"),
        "levels": [4, 4],
        "channels": [4, 8, 8],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1, 1, 1],
        "perceptual": str(folder),
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    stage.train(tmp_path / "c.yaml")
    lines = [json.loads(line) for line in (tmp_path / "runs/tiny/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert ["perceptual" in line for line in steps] == [False, True, False, True]


def test_a_network_for_other_pictures_is_refused(folder):
    with pytest.raises(UserError, match="size"):
        load_network(folder, 64)
