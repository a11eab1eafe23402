"""Losses and measures of the tokenizer stage; a tiny run, then a polish of its decoder alone."""

import json
from itertools import islice

import pytest
import torch
import yaml

from markovgen_app.data.scenes import SceneDataset, covered
from markovgen_app.errors import UserError
from markovgen_app.models.tokenizer import ImageTokenizer, ResidualBlock
from markovgen_app.training import tokenizer as stage
from markovgen_app.training.loop import Trainer


def test_psnr_of_a_known_error():
    pixels = torch.zeros(2, 3, 8, 8)
    assert torch.allclose(stage.psnr(pixels + 0.2, pixels), torch.full((2,), 20.0), atol=1e-4)


def test_reconstruction_loss_is_zero_only_for_the_same_picture_and_edges_matter():
    pixels = torch.rand(1, 3, 16, 16)
    assert stage.reconstruction_loss(pixels, pixels, 4, 1) == 0
    noise = torch.randn_like(pixels) * 0.1
    with_edges, without = (stage.reconstruction_loss(pixels + noise, pixels, 4, w) for w in (1, 0))
    assert with_edges > without > 0


def test_errors_on_objects_count_more_and_pictures_count_the_same():
    scenes = [SceneDataset(0, 64).scene(index) for index in range(6)]
    weights = stage.pixel_weights(scenes, 64, 4.0)
    assert weights.shape == (6, 1, 64, 64) and torch.allclose(weights.mean((1, 2, 3)), torch.ones(6))
    scene = next(number for number, scene in enumerate(scenes) if 0 < covered(scene, 8).mean() < 0.5)
    on = torch.from_numpy(covered(scenes[scene], 8)).repeat_interleave(8, 0).repeat_interleave(8, 1)  # (64, 64)
    row = weights[scene, 0]
    assert torch.allclose(row[on] / row[~on].mean(), torch.tensor(4.0)) and row[~on].std() < 1e-6
    pixels = torch.rand(1, 3, 64, 64)
    wrong = {where: pixels + 0.1 * place for where, place in (("object", on), ("elsewhere", ~on))}
    plain, counted = (
        {where: stage.reconstruction_loss(each, pixels, 4, 0, w) for where, each in wrong.items()}
        for w in (None, weights[[scene]])
    )
    assert counted["object"] > plain["object"] and counted["elsewhere"] < plain["elsewhere"]


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
        "added_blocks": [1, 0, 0],
        "matrix_rate": 0.01,
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
    assert list(second.config.decoder_blocks) == [2, 1, 1]
    assert "matching" in (tmp_path / "runs/polish/log.jsonl").read_text()


def test_a_decoder_grows_without_a_change_and_its_kernels_are_muons():
    torch.manual_seed(0)
    small = ImageTokenizer((4, 4), (4, 8, 8), (1, 1), (1, 1, 1))
    for block in small.modules():
        if isinstance(block, ResidualBlock):
            torch.nn.init.normal_(block.mix.weight)
    grown = stage.deepened(small, (2, 0, 1))
    assert list(grown.config.decoder_blocks) == [3, 1, 2]
    tokens = torch.randint(0, 16, (1, 16))
    assert torch.equal(grown.decode(tokens), small.decode(tokens))
    grown.encoder.requires_grad_(False)
    config = stage.TokenizerConfig(name="x", minutes=1, matrix_rate=0.01)
    adam, muon = stage.build_optimizers(grown, config)
    kernels, others = ([p.shape for group in each.param_groups for p in group["params"]] for each in (muon, adam))
    assert len(kernels) == 2 * (3 + 1 + 2) and all(len(shape) == 4 and shape[0] == shape[1] for shape in kernels)
    assert len(kernels) + len(others) == len(list(grown.decoder.parameters()))
    (alone,) = stage.build_optimizers(grown, config.model_copy(update={"matrix_rate": None}))
    assert len(alone.param_groups[0]["params"]) == len(kernels) + len(others)


def test_every_nth_batch_is_of_finer_pictures(tmp_path):
    settings = {"name": "x", "minutes": 1, "size": 32, "batch_size": 2, "runs": tmp_path}
    config = stage.TokenizerConfig(**settings, finer_every=3)
    scenes = stage.open_pictures(config, 32, "train")

    def sides(config, step):
        trainer = Trainer(config, torch.nn.Linear(1, 1), [])
        trainer.step = step
        return [each.pictures.shape[-1] for each in islice(stage.training_batches(scenes, config, trainer), 7)]

    assert sides(config, 0) == [64, 32, 32, 64, 32, 32, 64]
    assert sides(config, 4) == [32, 32, 64, 32, 32, 64, 32]  # resumed
    assert sides(config.model_copy(update={"finer_every": None}), 0) == [32] * 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 32, "finer_every": 2},
        {"crop": 32, "perceptual": "network"},
        {"added_blocks": (1, 0, 0)},
        {"size": 64, "crop": 36},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError, match=r"crop|start_from"):
        stage.TokenizerConfig(name="x", minutes=1, **wrong)


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
