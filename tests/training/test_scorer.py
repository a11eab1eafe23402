"""Training of the scorer: labels, cell targets, augmentation, picture cache, and a run that learns and resumes."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.models.scorer import Scorer
from markovgen_app.training import scorer as training
from markovgen_app.training.scorer import (
    Labels,
    PictureCache,
    accuracies,
    augmented,
    cell_targets,
    judgements,
    labels,
    scorer_loss,
    train,
)
from tests.scorers import perfect_output, tiny_scorer


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(training, "_SHARD", 64)


def test_labels_number_names_from_one_and_none_as_zero():
    scorer = tiny_scorer()
    scenes = [SceneDataset().scene(index) for index in range(200)]
    known = labels(scenes, scorer)
    for row, scene in enumerate(scenes):
        numbers = known.objects[row, :, 0].long().tolist()
        assert [scorer.config.nouns[n - 1] for n in numbers if n] == list(scene.nouns)
        assert scorer.config.backgrounds[known.backgrounds[row]] == scene.background
        assert (None, *scorer.config.styles)[known.styles[row]] == scene.style
        tints = known.objects[row, : len(scene.objects), 1].long().tolist()
        assert [(None, *scorer.config.colours)[t] for t in tints] == [item.colour for item in scene.objects]


def test_cell_targets_by_hand():
    cells = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    objects = torch.zeros(1, 4, 5)
    objects[0, 0] = torch.tensor([3, 2, 0.3, 0.2, 0.5])  # footprint: 0.15 around (0.3, 0.2)
    objects[0, 1] = torch.tensor([4, 0, 0.25, 0.3, 0.5])  # the same cell, farther by 0.02
    target = cell_targets(objects, cells)
    assert target.nouns.tolist() == [[4, 0, 0, 0]]
    objects[0, 1, 3] = 0.33
    target = cell_targets(objects, cells)
    assert target.nouns.tolist() == [[3, 0, 0, 0]] and target.colours.tolist() == [[2, 0, 0, 0]]
    assert target.boxes[0, 0].tolist() == pytest.approx([0.05, -0.05, 0.5])


def test_every_object_owns_a_cell():
    scorer = tiny_scorer()
    scenes = [SceneDataset(2).scene(index) for index in range(300)]
    target = cell_targets(labels(scenes, scorer).objects, scorer.cells)
    for row, scene in enumerate(scenes):
        assert {scorer.config.nouns[n - 1] for n in target.nouns[row].tolist() if n} == set(scene.nouns)


def test_augmentation_mirrors_labels_with_the_picture_and_is_a_function_of_its_generator():
    count = 64
    pixels = torch.zeros(count, 3, 128, 128)
    pixels[..., :64] = 1  # the left half is bright
    objects = torch.zeros(count, 4, 5)
    objects[:, 0] = torch.tensor([1, 0, 0.25, 0.6, 0.4])
    known = Labels(objects, torch.zeros(count), torch.zeros(count))
    out, changed = augmented(pixels, known, torch.Generator().manual_seed(0))
    again, _ = augmented(pixels, known, torch.Generator().manual_seed(0))
    assert torch.equal(out, again)
    left = out[..., :64].mean(dim=(1, 2, 3)) > out[..., 64:].mean(dim=(1, 2, 3))
    assert torch.equal(left, changed.objects[:, 0, 2] < 0.5) and 10 < left.sum() < 54
    assert torch.equal(changed.objects[:, 0, 3], objects[:, 0, 3]) and torch.equal(known.objects, objects)


def test_the_loss_falls_to_nothing_for_a_perfect_answer():
    scorer = tiny_scorer()
    known = labels([SceneDataset().scene(index) for index in range(20)], scorer)
    output = perfect_output(scorer, known)
    _, parts = scorer_loss(output, scorer.cells, known)
    assert sum(float(value) for name, value in parts.items() if name != "presence") < 0.01


def test_pictures_without_objects_have_a_finite_loss():
    scorer = tiny_scorer()
    empty = next(s for s in map(SceneDataset().scene, itertools.count()) if s.layout == "empty")
    value, _ = scorer_loss(scorer(torch.zeros(1, 3, 128, 128)), scorer.cells, labels([empty], scorer))
    assert value.isfinite()


def test_the_cache_holds_the_scenes_and_shuffles_every_epoch(tmp_path, small_shards):
    scenes, scorer = SceneDataset(), tiny_scorer()
    cache = PictureCache(scenes, 64, scorer, tmp_path)
    first = list(itertools.islice(cache.batches(32, 0), 2))
    picture, known = cache.shards[0]["pictures"][5], cache.shards[0]["objects"][5]
    assert np.array_equal(picture.numpy(), scenes[5][1])
    assert torch.equal(known, labels([scenes.scene(5)], scorer).objects[0])
    sums = torch.cat([batch.pictures.long().sum(dim=(1, 2, 3)) for batch in first])
    assert sorted(sums.tolist()) == sorted(cache.shards[0]["pictures"].long().sum(dim=(1, 2, 3)).tolist())
    third = list(itertools.islice(cache.batches(32, 0), 3))[2]
    assert torch.equal(next(cache.batches(32, 2)).pictures, third.pictures)  # resumable at any batch
    assert not torch.equal(third.pictures, first[0].pictures)
    written = next(cache.folder.iterdir()).stat().st_mtime_ns
    PictureCache(scenes, 64, scorer, tmp_path)
    assert next(cache.folder.iterdir()).stat().st_mtime_ns == written


def test_judgements_of_renders_are_shares():
    shares = accuracies(judgements(tiny_scorer(), SceneDataset(), range(5), batch_size=3))
    assert set(shares) == {"objects", "background", "style", "prompt"} and all(0 <= v <= 1 for v in shares.values())


def config(tmp_path, steps, size=128):
    path = tmp_path / "scorer.yaml"
    path.write_text(
        f"name: s\nminutes: 60\nsteps: {steps}\nbatch_size: 16\nlog_every: 1\nwarmup_steps: 1\ncached_scenes: 64\n"
        "learning_rate: 0.003\n"
        f"size: {size}\nchannels: [8, 16, 24]\nblocks: [0, 1, 1]\nruns: {tmp_path}/runs\nexport: {tmp_path}/weights\n"
    )
    return path


def test_a_run_learns_resumes_and_exports(tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(training, "judgements", lambda *_: judgements(tiny_scorer(), SceneDataset(), range(2)))
    train(config(tmp_path, 12))
    log = (tmp_path / "runs/s/log.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in log if '"loss"' in line]
    assert losses[-1] < losses[0]
    train(config(tmp_path, 14), resume=True)
    resumed = (tmp_path / "runs/s/log.jsonl").read_text().splitlines()[len(log)]
    assert int(resumed.split(":")[1].split(",")[0]) == len(losses) + 1
    exported = Scorer.from_pretrained(tmp_path / "weights", torch_dtype=torch.float32)
    assert len(exported.config.nouns) == len(SceneDataset().nouns)


def test_a_run_starts_from_an_exported_scorer_of_its_names_and_sizes(tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(training, "judgements", lambda scorer, scenes, _: judgements(scorer, scenes, range(2)))
    train(config(tmp_path, 2))
    first = Scorer.from_pretrained(tmp_path / "weights", torch_dtype=torch.float32)
    more = config(tmp_path, 1)
    more.write_text(more.read_text().replace("name: s", f"name: more\nstart_from: {tmp_path}/weights"))
    more.write_text(more.read_text().replace("warmup_steps: 1", "warmup_steps: 1000"))
    train(more)
    second = Scorer.from_pretrained(tmp_path / "weights", torch_dtype=torch.float32)
    moved = max((a - b).abs().max() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert 0 < moved < 1e-2  # one step at a thousandth of the rate, where fresh weights differ by more than 1
    more.write_text(more.read_text().replace("[8, 16, 24]", "[8, 16, 32]"))
    with pytest.raises(UserError, match="channels"):
        train(more)


def test_a_scorer_of_another_size_is_trained_on_pictures_of_that_size(tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(training, "judgements", lambda scorer, scenes, _: judgements(scorer, scenes, range(2)))
    train(config(tmp_path, 1, size=64))
    (shard,) = (tmp_path / "runs/pictures").rglob("*.safetensors")
    assert load_file(shard)["pictures"].shape == (64, 64, 64, 3)
    exported = Scorer.from_pretrained(tmp_path / "weights", torch_dtype=torch.float32)
    assert exported.config.size == 64 and exported.cells.shape == (16, 2)
    assert exported.read(torch.zeros(1, 3, 64, 64))[0].background in exported.config.backgrounds


def test_bad_configurations_are_named(tmp_path):
    (tmp_path / "c.yaml").write_text("name: s\nminutes: 1\nvocabulary: all")
    with pytest.raises(UserError, match="vocabulary"):
        train(tmp_path / "c.yaml")


def test_the_projects_own_configuration_is_valid():
    from pathlib import Path

    from markovgen_app.training.loop import read_config

    root = Path(__file__).resolve().parents[2]
    assert read_config(root / "configs/scorer.yaml", training.ScorerConfig).export == Path("weights/scorer")
