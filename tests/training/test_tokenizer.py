"""Losses and measures of the tokenizer stage; a tiny run, then a polish of its decoder alone."""

import json

import pytest
import torch
import yaml

from markovgen_app.errors import UserError
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.training import tokenizer as stage


def test_psnr_of_a_known_error():
    pixels = torch.zeros(2, 3, 8, 8)
    assert torch.allclose(stage.psnr(pixels + 0.2, pixels), torch.full((2,), 20.0), atol=1e-4)


def test_reconstruction_loss_is_zero_only_for_the_same_picture_and_edges_matter():
    pixels = torch.rand(1, 3, 16, 16)
    assert stage.reconstruction_loss(pixels, pixels, 4, 1) == 0
    noise = torch.randn_like(pixels) * 0.1
    with_edges, without = (stage.reconstruction_loss(pixels + noise, pixels, 4, w) for w in (1, 0))
    assert with_edges > without > 0


def test_each_side_of_the_game_gets_its_own_gradient():
    torch.manual_seed(0)
    judge = stage.PatchDiscriminator(8)
    pixels = torch.rand(2, 3, 32, 32)
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    judged, generated, matched = stage.adversarial_losses(judge, fake, pixels)
    judged.backward()
    assert fake.grad is None and judge.opinion.weight.grad is not None
    judge.zero_grad()
    (generated + matched).backward()
    assert fake.grad is not None
    assert all(p.grad is None for p in judge.parameters())


def test_crops_lie_on_the_token_grid_and_follow_their_generator():
    pixels = torch.arange(64 * 48, dtype=torch.float32).view(1, 1, 64, 48).expand(2, 3, -1, -1)
    corners = set()
    for seed in range(60):
        crop = stage.random_crop(pixels, 32, 8, torch.Generator().manual_seed(seed))
        assert crop.shape == (2, 3, 32, 32)
        assert torch.equal(crop, stage.random_crop(pixels, 32, 8, torch.Generator().manual_seed(seed)))
        top, left = divmod(int(crop[0, 0, 0, 0]), 48)
        assert torch.equal(crop, pixels[..., top : top + 32, left : left + 32])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(0, 33, 8) for left in range(0, 17, 8)}


def test_a_tiny_run_and_a_polish_that_keeps_every_token(tmp_path):
    settings = {
        "name": "tiny",
        "minutes": 5,
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "size": 32,
        "runs": str(tmp_path / "runs"),
        "levels": [4, 4],
        "channels": [4, 8, 8],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1, 1, 1],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    stage.train(tmp_path / "c.yaml")
    first = ImageTokenizer.from_pretrained(tmp_path / "runs/tiny/weights", torch_dtype=torch.float32)
    polish = {
        "name": "polish",
        "start_from": str(tmp_path / "runs/tiny/weights"),
        "freeze_encoder": True,
        "adversarial_weight": 0.1,
        "size": 64,
        "crop": 32,
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**settings, **polish}))
    stage.train(tmp_path / "p.yaml")
    second = ImageTokenizer.from_pretrained(tmp_path / "runs/polish/weights", torch_dtype=torch.float32)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(first.encode(pixels), second.encode(pixels))
    assert not torch.equal(first.decode(first.encode(pixels)), second.decode(second.encode(pixels)))
    assert "matching" in (tmp_path / "runs/polish/log.jsonl").read_text()


def test_a_local_encoder_learns_a_teachers_tokens(tmp_path):
    torch.manual_seed(1)
    sizes = {"levels": [4, 4], "channels": [4, 8, 8], "decoder_blocks": [1, 1, 1]}
    teacher = ImageTokenizer(**sizes, encoder_blocks=(1, 1)).requires_grad_(False)
    teacher.save_pretrained(tmp_path / "teacher")
    settings = {**sizes, "name": "local", "minutes": 5, "steps": 60, "batch_size": 4, "log_every": 1, "size": 32}
    settings |= {"encoder_kernel": 1, "encoder_blocks": [2, 2], "teacher": str(tmp_path / "teacher")}
    settings |= {"runs": str(tmp_path / "runs"), "warmup_steps": 1, "learning_rate": 0.005, "teacher_weight": 50}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    stage.train(tmp_path / "c.yaml")
    log = [json.loads(line) for line in (tmp_path / "runs/local/log.jsonl").read_text().splitlines()]
    distances = [line["teacher"] for line in log if "teacher" in line]
    assert sum(distances[-10:]) < 0.5 * sum(distances[:10])
    made = ImageTokenizer.from_pretrained(tmp_path / "runs/local/weights")
    assert made.config.encoder_kernel == 1
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**settings, "levels": [4, 3]}))
    with pytest.raises(UserError, match="levels"):
        stage.train(tmp_path / "c.yaml")


def test_the_teachers_decoder_is_where_the_pupils_starts(tmp_path):
    torch.manual_seed(1)
    teacher = ImageTokenizer((4, 4), (4, 8, 8), (1, 1), (1, 1, 1))
    teacher.save_pretrained(tmp_path)
    pupil = ImageTokenizer((4, 4), (4, 8, 8), (2, 1), (1, 1, 1), encoder_kernel=1)
    tokens = torch.randint(0, 16, (1, 16))
    assert not torch.equal(pupil.decode(tokens), teacher.decode(tokens))
    loaded = stage.load_teacher(pupil, tmp_path)
    assert torch.equal(pupil.decode(tokens), teacher.decode(tokens))
    pixels = torch.rand(1, 3, 32, 32)
    assert stage.teacher_loss(teacher, loaded, pixels) < 1e-9 < stage.teacher_loss(pupil, loaded, pixels)
