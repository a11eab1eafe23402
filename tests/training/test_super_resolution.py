"""Corrupted coarse tokens, tokens of two sizes, and a tiny run from start to exported weights."""

import json

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from markovgen_app.data.scenes import Scene, SceneDataset, SceneObject
from markovgen_app.errors import UserError
from markovgen_app.models.super_resolution import SuperResolutionTransformer
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.pixels import stacked, to_pixels
from markovgen_app.training import super_resolution as stage
from markovgen_app.training import tokens as token_module
from markovgen_app.training.masked import build_optimizers
from markovgen_app.training.tokens import TokenSource


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_near_codes_differ_by_one_small_step_of_one_digit():
    codebook = ImageTokenizer((4, 4, 4), (4, 8, 8), (1, 1), (1, 1, 1)).codebook
    near = stage.near_codes(codebook, 3)
    steps = (codebook[near] - codebook[:, None]).abs()  # (V, 3, D)
    assert torch.allclose(steps.sum(dim=-1), torch.full((64, 3), 2 / 3)) and ((steps > 0.1).sum(dim=-1) == 1).all()
    assert (near != torch.arange(64)[:, None]).all()


def test_as_many_tokens_are_replaced_as_the_drawn_shares_say():
    near = stage.near_codes(torch.rand(1000, 3, generator=generator()))
    tokens = torch.randint(1000, (2000, 200), generator=generator())
    near_only = stage.corrupted(tokens, near, 0.4, 1.0, generator(1))
    shares = (near_only != tokens).float().mean(dim=1)
    assert shares.mean() == pytest.approx(0.2, abs=0.01)
    assert shares.max() < 0.52 and (shares < 0.1).float().mean() == pytest.approx(0.25, abs=0.04)
    changed = near_only != tokens
    assert (near[tokens[changed]] == near_only[changed][:, None]).any(dim=1).all()
    anything = stage.corrupted(tokens, near, 1.0, 0.0, generator(1))
    changed = anything != tokens
    assert (near[tokens[changed]] == anything[changed][:, None]).any(dim=1).float().mean() < 0.02
    assert torch.equal(stage.corrupted(tokens, near, 0.0, 0.5, generator()), tokens)


def test_rows_are_dropped_whole():
    tokens = torch.randint(9, (4000, 3), generator=generator())
    out, others = stage.dropped([tokens, tokens[:, :2]], 0.25, 9, generator())
    assert torch.equal(others, out[:, :2])
    unknown = (out == 9).all(dim=1)
    assert unknown.float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(out[~unknown], tokens[~unknown])


@pytest.fixture
def tiny_run(tmp_path):
    torch.manual_seed(0)
    tokenizer = ImageTokenizer((4, 4, 4), (4, 8, 8), (1, 1), (1, 1, 1))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = {
        "name": "tiny",
        "minutes": 5,
        "steps": 3,
        "batch_size": 2,
        "log_every": 1,
        "runs": str(tmp_path / "runs"),
        "tokenizer": str(tmp_path / "tokenizer"),
        "size": 64,
        "coarse_size": 32,
        "steps_shown": 2,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "fine_size": 8,
    }
    return tmp_path, tokenizer, settings


def write(folder, settings):
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "config.yaml"


def test_both_sizes_show_the_same_scene_fresh_and_cached(tiny_run, monkeypatch):
    _, tokenizer, settings = tiny_run
    monkeypatch.setattr(token_module, "_SHARD", 32)
    scenes = SceneDataset(0)
    settings = {**settings, "batch_size": 4}
    cached_config = stage.SuperResolutionConfig(**{**settings, "cached_scenes": 32})
    configs = (stage.SuperResolutionConfig(**settings), cached_config)
    fresh, cached = (
        next(TokenSource(scenes, tokenizer, config, torch.device("cpu"), (128, 64)).batches(2)) for config in configs
    )
    assert fresh.captions == cached.captions == [scenes.scene(index).caption for index in range(8, 12)]
    for which, size in enumerate((128, 64)):
        pictures = stacked([scenes.render(scenes.scene(index), size) for index in range(8, 12)])
        wanted = tokenizer.encode(to_pixels(pictures))
        assert torch.equal(fresh.tokens[which], wanted) and torch.equal(cached.tokens[which], wanted)


def test_spoilt_tokens_are_made_once_and_are_those_of_the_enlarged_picture(tiny_run, monkeypatch):
    _, tokenizer, settings = tiny_run
    monkeypatch.setattr(token_module, "_SHARD", 32)
    config = stage.SuperResolutionConfig(**{**settings, "batch_size": 4, "cached_scenes": 64, "enlarged": True})
    near = stage.near_codes(tokenizer.codebook)
    derived = stage.spoilt(config, tokenizer, near)

    def source(derived):
        return TokenSource(SceneDataset(0), tokenizer, config, torch.device("cpu"), (32, 64), derived)

    batches = source(derived).batches(6)
    small, _, coarse, enlarged = next(batches).tokens
    assert coarse.shape == (4, 16) and enlarged.shape == (4, 64)
    assert 0 < (coarse != small).float().mean() < 0.3
    pictures = torch.nn.functional.interpolate(tokenizer.decode(coarse), (64, 64), mode="bicubic").clamp(-1, 1)
    assert (enlarged == tokenizer.encode(pictures)).float().mean() > 0.99
    *_, other, _ = next(source(derived).batches(14)).tokens  # the same place in the next shard
    small_other = next(source(derived).batches(14)).tokens[0]
    assert not torch.equal(other != small_other, coarse != small), "every shard has errors of its own"
    never = stage.Derived(derived.name, lambda *_: pytest.fail("made again"))
    assert torch.equal(next(source(never).batches(6)).tokens[3], enlarged)


@pytest.mark.parametrize("changes", [{}, {"window": 4, "window_until": 1.0}, {"cached_scenes": 32}])
def test_a_run_that_reads_enlarged_pictures(tiny_run, monkeypatch, changes):
    folder, _, settings = tiny_run
    monkeypatch.setattr(stage, "_HELD_OUT", 8)
    monkeypatch.setattr(token_module, "_SHARD", 32)
    stage.train(write(folder, {**settings, "enlarged": True, **changes}))
    model = SuperResolutionTransformer.from_pretrained(folder / "runs/tiny/weights")
    assert model.config.enlarged and model.enlarged_in.weight.abs().sum() > 0


def test_matrices_between_hidden_layers_have_muon():
    model = SuperResolutionTransformer(20, (8, 8), (4, 4), 32, 1, 2, 2.0, 1, 16, levels=(4, 5))
    muon, adam = build_optimizers(model, 0.02, 1e-3, stage._INNER)
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = {names[id(p)] for p in muon.param_groups[0]["params"]}
    assert {"merge_in.weight", "spread_out.weight", "coarse_spread.weight", "fine_after.1.mix.weight"} < matrices
    assert {"blocks.0.cross.key.weight", "coarse_blocks.0.up.weight"} < matrices
    others = {names[id(p)] for p in adam.param_groups[0]["params"]}
    assert {
        "token_embedding.weight",
        "head.weight",
        "blocks.0.modulation.weight",
        "fine_after.0.spatial.weight",
    } < others
    assert len(matrices) + len(others) == len(names)


def test_a_tiny_run_trains_samples_exports_and_resumes(tiny_run, monkeypatch):
    folder, _, settings = tiny_run
    monkeypatch.setattr(stage, "_HELD_OUT", 8)
    stage.train(write(folder, settings))
    model = SuperResolutionTransformer.from_pretrained(folder / "runs/tiny/weights")
    assert model.grid == (8, 8) and model.coarse_grid == (4, 4) and model.config.codebook_size == 64
    with Image.open(folder / "runs/tiny/samples.png") as sheet:
        assert sheet.size == (6 * 64, 3 * 64)
    log = [json.loads(line) for line in (folder / "runs/tiny/log.jsonl").read_text().splitlines()]
    assert {"full_mask_loss", "full_mask_loss_without_text", "full_mask_loss_without_coarse"} < set(log[-1])
    stage.train(write(folder, {**settings, "steps": 5}), resume=True)
    assert load_file(folder / "runs/tiny/state.safetensors")["step"] == 5
    warm = {**settings, "name": "warm", "start_from": str(folder / "runs/tiny/weights")}
    stage.train(write(folder, warm))
    with pytest.raises(UserError, match="fine_size = 8, this run 16"):
        stage.train(write(folder, {**warm, "fine_size": 16}))
    with pytest.raises(UserError, match=r"grid = \[8, 8\], this run \[16, 16\]"):
        stage.train(write(folder, {**warm, "size": 128}))


def test_windows_lie_on_objects_more_often():
    scene = Scene((SceneObject("owl", 0.25, 0.25, 0.5),), "plain", 0, None, "single")
    generator = torch.Generator().manual_seed(0)
    places = stage.window_places([scene] * 3000 + [object()] * 3000, (8, 8), 4, 2, 5.0, generator)
    assert places.shape == (6000, 16)
    rows, columns = (places // 8).view(-1, 4, 4), (places % 8).view(-1, 4, 4)
    assert (rows.diff(dim=1) == 1).all() and (columns.diff(dim=2) == 1).all(), "row-major"
    assert (rows[:, :, 1:] == rows[:, :, :1]).all() and (columns[:, 1:] == columns[:, :1]).all(), "a square"
    corners = torch.stack([rows[:, 0, 0], columns[:, 0, 0]])
    assert set(corners.unique().tolist()) == {0, 2, 4}
    on_object = ((places // 8 < 4) & (places % 8 < 4)).float().mean(dim=1)
    assert on_object[:3000].mean() > 1.3 * on_object[3000:].mean()
    ends = [float((corners[:, 3000:] == end).float().mean()) for end in (0, 4)]
    assert ends[0] == pytest.approx(ends[1], abs=0.15)


def test_a_run_sees_windows_at_first_only(tiny_run, monkeypatch):
    folder, _, settings = tiny_run
    monkeypatch.setattr(stage, "_HELD_OUT", 8)
    seen = []
    states = SuperResolutionTransformer.fine_states

    def watched(self, tokens, *context):
        if self.training:
            seen.append((tokens.shape[1], context[-1]))
        return states(self, tokens, *context)

    monkeypatch.setattr(SuperResolutionTransformer, "fine_states", watched)
    for until, wanted in ((1.0, (16, (4, 4))), (0.0, (64, None))):
        seen.clear()
        stage.train(write(folder, {**settings, "name": f"window{until}", "window": 4, "window_until": until}))
        assert seen and set(seen) == {wanted}
    with pytest.raises(UserError, match="window is a multiple of 2, and at most 8"):
        stage.train(write(folder, {**settings, "window": 10}))


def test_it_learns_to_copy_what_the_coarse_tokens_say():
    """Each fine token is the coarse one above it: without that, no loss is below ln 8 = 2.08."""
    torch.manual_seed(0)
    model = SuperResolutionTransformer(8, (4, 4), (2, 2), 32, 1, 2, 2.0, 1, 16, (1, 1), text_width=4)
    optimizers = build_optimizers(model, 0.02, 3e-3, stage._INNER)
    text = torch.zeros(16, 1, 4), torch.ones(16, 1, dtype=torch.bool), torch.zeros(16, 4)
    everything = torch.full((16, 16), 8)
    for _ in range(50):
        coarse = torch.randint(8, (16, 2, 2))
        fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
        logits = model(everything, *text, coarse.flatten(1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), fine.flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert loss < 1.0
