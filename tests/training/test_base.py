"""Masking, text dropping and token sources of the base stage; a tiny run from start to exported weights."""

import itertools
import json
import math

import pytest
import torch
import yaml
from safetensors.torch import load_file

from markovgen_app.data.scenes import Scene, SceneDataset, SceneObject
from markovgen_app.errors import UserError
from markovgen_app.models.text import TextEncoder
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.training import base, masked, tokens


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mask_rates_follow_muses_density():
    rates = base.mask_rates(200_000, 0.0, generator())
    assert rates.min() >= 0 and rates.max() <= 1
    assert rates.mean() == pytest.approx(2 / math.pi, abs=0.005)
    assert (rates < 0.5).float().mean() == pytest.approx(2 / math.pi * math.asin(0.5), abs=0.005)


def test_the_asked_share_is_fully_masked():
    assert (base.mask_rates(100_000, 0.3, generator()) == 1).float().mean() == pytest.approx(0.3, abs=0.01)


def test_masks_have_the_asked_size_and_at_least_one_token():
    rates = torch.tensor([0.0, 0.25, 0.5, 1.0])
    mask = masked.random_mask(rates, 16, generator())
    assert mask.sum(dim=1).tolist() == [1, 4, 8, 16]
    many = masked.random_mask(torch.full((4000,), 0.25), 16, generator()).float().mean(dim=0)
    assert (many - 0.25).abs().max() < 0.04


def test_captions_are_dropped_where_the_draw_is_below_the_probability():
    captions = ["a panda"] * 20_000
    dropped = base.drop_captions(captions, 0.1, generator())
    assert set(dropped) == {"a panda", ""}
    assert dropped.count("") / len(dropped) == pytest.approx(0.1, abs=0.01)
    assert base.drop_captions(captions, 0.0, generator()) == captions
    assert set(base.drop_captions(captions, 1.0, generator())) == {""}


def test_captions_are_read_as_they_are_at_few_lengths():
    encoder = TextEncoder.from_pretrained()
    for caption, length in (("", 16), ("a panda next to a pizza " * 2, 16), ("a panda next to a pizza " * 3, 32)):
        read, plain = masked.read_captions(encoder, [caption]), encoder.encode([caption])
        count = plain.mask.shape[1]
        assert read.mask.shape[1] == length and read.mask.sum() == count
        assert torch.equal(read.states[:, :count], plain.states) and torch.equal(read.pooled, plain.pooled)


def test_every_parameter_has_one_optimizer_and_matrices_of_blocks_have_muon():
    model = MuseTransformer(20, (4, 4), 32, 2, 2, 2.0, 12, levels=(4, 5))
    muon, adam = base.build_optimizers(model, 0.02, 1e-3)
    owned = [p for optimizer in (muon, adam) for group in optimizer.param_groups for p in group["params"]]
    assert len(owned) == len({id(p) for p in owned}) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    for parameter in muon.param_groups[0]["params"]:
        assert names[id(parameter)].startswith("blocks.") and parameter.ndim == 2


@pytest.fixture
def tiny_run(tmp_path):
    torch.manual_seed(0)
    tokenizer = ImageTokenizer((4, 4, 4), (4, 8, 8), (1, 1), (1, 1, 1))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = {
        "name": "tiny",
        "minutes": 5,
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "runs": str(tmp_path / "runs"),
        "tokenizer": str(tmp_path / "tokenizer"),
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path, tokenizer, settings


def test_cached_tokens_are_those_of_fresh_scenes(tiny_run, monkeypatch):
    _, tokenizer, settings = tiny_run
    monkeypatch.setattr(tokens, "_SHARD", 32)
    scenes = SceneDataset(0)
    fresh = base.TokenSource(scenes, tokenizer, base.BaseConfig(**settings), torch.device("cpu")).batches(3)
    config = base.BaseConfig(**{**settings, "cached_scenes": 64})
    cached = base.TokenSource(scenes, tokenizer, config, torch.device("cpu"))
    one, other = next(fresh), next(cached.batches(3))
    assert one.captions == other.captions and torch.equal(one.tokens[0], other.tokens[0])
    again = next(cached.batches(3 + 64 // 2))
    assert torch.equal(again.tokens[0], one.tokens[0])


def test_another_drawing_gets_shards_of_its_own(tiny_run, monkeypatch):
    folder, tokenizer, settings = tiny_run
    monkeypatch.setattr(tokens, "_SHARD", 32)
    config = base.BaseConfig(**{**settings, "cached_scenes": 32})

    def first_tokens():
        return next(base.TokenSource(SceneDataset(0), tokenizer, config, torch.device("cpu")).batches(0)).tokens[0]

    def folders():
        return sorted(path.name for path in (folder / "runs/tokens").iterdir())

    before = first_tokens()
    (note,) = (folder / "runs/tokens").glob("*/drawn.txt")
    note.unlink()  # as of a time when there was none: the shards are kept
    assert torch.equal(first_tokens(), before) and note.is_file() and len(folders()) == 1
    render = SceneDataset.render
    monkeypatch.setattr(SceneDataset, "render", lambda *given: 255 - render(*given))
    assert not torch.equal(first_tokens(), before)
    assert len(folders()) == 2 and folders()[1].startswith(f"{folders()[0]}-")
    first_tokens()
    monkeypatch.setattr(SceneDataset, "render", render)
    assert torch.equal(first_tokens(), before) and len(folders()) == 2


def test_scenes_may_be_used_for_several_steps_in_a_row(tiny_run):
    _, tokenizer, settings = tiny_run
    config = base.BaseConfig(**{**settings, "reuse": 3})
    plain = base.TokenSource(SceneDataset(0), tokenizer, base.BaseConfig(**settings), torch.device("cpu"))
    wanted = [batch.captions for batch in itertools.islice(plain.batches(0), 3)]
    source = base.TokenSource(SceneDataset(0), tokenizer, config, torch.device("cpu"))
    for first in (0, 1, 5):  # a run may be continued at any step
        found = [batch.captions for batch in itertools.islice(source.batches(first), 8 - first)]
        assert found == [wanted[number // 3] for number in range(first, 8)]


def test_a_tiny_run_trains_samples_exports_and_resumes(tiny_run):
    folder, _, settings = tiny_run
    base.train(folder / "tiny.yaml")
    model = MuseTransformer.from_pretrained(folder / "runs/tiny/weights")
    assert model.grid == (16, 16)
    assert {t.dtype for t in load_file(next((folder / "runs/tiny/weights").glob("*.safetensors"))).values()} == {
        torch.float16
    }
    assert (folder / "runs/tiny/samples.png").stat().st_size > 1000
    log = (folder / "runs/tiny/log.jsonl").read_text()
    assert "full_mask_loss_without_text" in log
    settings["steps"] = 6
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    base.train(folder / "tiny.yaml", resume=True)
    assert load_file(folder / "runs/tiny/state.safetensors")["step"] == 6


def test_places_on_objects_are_kept_more_often():
    scene = Scene((SceneObject("panda", 0.25, 0.25, 0.5),), "plain", 0, None, "single")
    kept = base.keep_places([scene] * 4000 + [object()] * 4000, (8, 8), 12, 3.0, generator())
    assert kept.shape == (8000, 12) and (kept.diff(dim=1) > 0).all()
    share = torch.zeros(8000, 64).scatter_(1, kept, 1.0)
    on_object = share[:4000].mean(dim=0).reshape(8, 8)[:4, :4]  # (64,) -> (8, 8)
    elsewhere = (share[:4000].sum() / 4000 - on_object.sum()) / 48
    assert on_object.mean() / elsewhere == pytest.approx(2.7, abs=0.3)  # below 3, as none is drawn twice
    assert share[4000:].mean(dim=0).sub(12 / 64).abs().max() < 0.03


def test_masks_of_regions_are_as_large_and_stand_together():
    rates = torch.full((400,), 0.3)
    scattered, regions = (base.mask_patches(rates, (16, 16), share, generator()) for share in (0.0, 1.0))
    assert scattered.equal(masked.random_mask(rates, 256, generator())), "none asked for, none made"

    def border(masks):
        grid = masks.unflatten(1, (16, 16)).float()  # (B, n) -> (B, 16, 16)
        return grid.diff(dim=2).abs().sum(dim=(1, 2)).mean()

    assert regions.sum(dim=1).equal(scattered.sum(dim=1)) and border(regions) < border(scattered) / 4
    assert (regions.float().mean(dim=0) - 0.3).abs().max() < 0.12, "anywhere on the grid"
    some = base.mask_patches(torch.full((4000,), 0.3), (16, 16), 0.25, generator())
    broken = some.unflatten(1, (16, 16)).float().diff(dim=2).abs().sum(dim=(1, 2)) > border(scattered) / 2
    assert 1 - broken.float().mean() == pytest.approx(0.25, abs=0.03)
    assert base.mask_patches(torch.ones(3), (16, 16), 0.5, generator()).all()


def test_what_stands_where_is_named():
    one, other = SceneObject("panda", 0.25, 0.25, 0.5), SceneObject("pizza", 0.75, 0.75, 0.5)
    scene = Scene((one, other), "snow", 0, None, "pair")
    found = base.things_shown([scene, object()], (4, 4), ["panda", "snow", "owl"]).unflatten(1, (4, 4))
    assert found[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, -100, -100], [1, 1, -100, -100]]
    assert (found[1] == -100).all(), "a picture of one's own says nothing"


def test_naming_is_learned_and_not_exported(tiny_run):
    folder, _, settings = tiny_run
    same = {"learning_rate": 0.03, "warmup_steps": 1, "steps": 40, "reuse": 40}  # two scenes, again and again
    named = {**settings, **same, "name": "named", "naming": 1.0, "naming_block": 1, "patches": 0.5, "kept_tokens": 60}
    (folder / "named.yaml").write_text(yaml.safe_dump(named))
    base.train(folder / "named.yaml")
    log = [json.loads(line) for line in (folder / "runs/named/log.jsonl").read_text().splitlines()]
    losses = [line["naming"] for line in log if "naming" in line]
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]
    (stored,) = (folder / "runs/named/weights").glob("*.safetensors")
    assert not [name for name in load_file(stored) if "naming" in name]
    for wrong, message in (({"naming_block": 2}, "at most the 1 blocks"), ({"data": "pictures"}, "leave it out")):
        (folder / "named.yaml").write_text(yaml.safe_dump({**named, **wrong}))
        with pytest.raises(UserError, match=message):
            base.train(folder / "named.yaml")


def test_a_run_leaves_places_out_at_first_only(tiny_run, monkeypatch):
    folder, _, settings = tiny_run
    seen = []
    hidden = MuseTransformer.hidden_after

    def watched(self, tokens, states, mask, pooled, places=None, blocks=0):
        if self.training:
            seen.append((tokens.shape[1], places is not None))
        return hidden(self, tokens, states, mask, pooled, places, blocks)

    monkeypatch.setattr(MuseTransformer, "hidden_after", watched)
    for until, wanted in ((1.0, (100, True)), (0.0, (256, False))):
        seen.clear()
        text = yaml.safe_dump({**settings, "name": f"kept{until}", "kept_tokens": 100, "kept_until": until})
        (folder / "kept.yaml").write_text(text)
        base.train(folder / "kept.yaml")
        assert set(seen) == {wanted}


def test_a_run_starts_from_exported_weights_of_its_sizes(tiny_run):
    folder, _, settings = tiny_run
    base.train(folder / "tiny.yaml")
    first = MuseTransformer.from_pretrained(folder / "runs/tiny/weights", torch_dtype=torch.float32)
    warm = {
        **settings,
        "name": "warm",
        "steps": 1,
        "start_from": str(folder / "runs/tiny/weights"),
        "warmup_steps": 1000,
    }
    (folder / "warm.yaml").write_text(yaml.safe_dump(warm))
    base.train(folder / "warm.yaml")
    second = MuseTransformer.from_pretrained(folder / "runs/warm/weights", torch_dtype=torch.float32)
    moved = max((a - b).abs().max() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert moved < 1e-3  # one step at a thousandth of the rate, where fresh weights differ by more than 1
    (folder / "warm.yaml").write_text(yaml.safe_dump({**warm, "hidden_size": 32}))
    with pytest.raises(UserError, match="hidden_size = 16, this run 32"):
        base.train(folder / "warm.yaml")
    (folder / "warm.yaml").write_text(yaml.safe_dump({**warm, "start_from": str(folder / "nowhere")}))
    with pytest.raises(UserError, match="no exported model"):
        base.train(folder / "warm.yaml")
    (folder / "cut").mkdir()
    for file in (folder / "runs/tiny/weights").iterdir():
        (folder / "cut" / file.name).write_bytes(file.read_bytes()[:600])
    (folder / "warm.yaml").write_text(yaml.safe_dump({**warm, "start_from": str(folder / "cut")}))
    with pytest.raises(UserError, match="damaged"):
        base.train(folder / "warm.yaml")
    del warm["hidden_size"]
    (folder / "warm.yaml").write_text(yaml.safe_dump({**warm, "name": "sizes from the folder"}))
    base.train(folder / "warm.yaml")


def test_added_blocks_change_nothing_until_they_are_trained(tiny_run):
    folder, _, settings = tiny_run
    torch.manual_seed(0)
    model = MuseTransformer(20, (4, 4), 32, 2, 2, 2.0, 12, levels=(4, 5))
    for parameter in model.parameters():  # a trained one: nothing in it is zero
        torch.nn.init.normal_(parameter, std=0.2)
    deeper = base.deepened(model, 2)
    asked = torch.randint(0, 21, (2, 16)), torch.randn(2, 3, 12), torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 12)
    assert torch.equal(deeper(*asked), model(*asked))
    deeper(*asked).sum().backward()
    assert all(block.down.weight.grad.abs().max() > 0 for block in deeper.blocks[2:])  # but they can learn

    base.train(folder / "tiny.yaml")
    more = {**settings, "name": "more", "steps": 1, "start_from": str(folder / "runs/tiny/weights"), "added_layers": 1}
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    base.train(folder / "more.yaml")
    first, second = (MuseTransformer.load_config(folder / f"runs/{name}/weights") for name in ("tiny", "more"))
    assert second["num_layers"] == first["num_layers"] + 1
    del more["start_from"]
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    with pytest.raises(UserError, match="added_layers is for a model to start from"):
        base.train(folder / "more.yaml")


def test_a_tokenizer_that_is_missing_or_cut_short_is_named(tiny_run):
    folder, _, settings = tiny_run
    (folder / "astray.yaml").write_text(yaml.safe_dump({**settings, "tokenizer": str(folder / "nowhere")}))
    with pytest.raises(UserError, match=r"no tokenizer in .*nowhere: train it first"):
        base.train(folder / "astray.yaml")
    weights = folder / "tokenizer/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="truncated or damaged"):
        base.train(folder / "tiny.yaml")
