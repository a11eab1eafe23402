"""The random field's training: states, objectives, the run."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from amused import amused_checkpoint
from builders import (
    TINY_CODES,
    TINY_GRID,
    text_encoder,
    tiny_checkpoint,
    tiny_field,
    tiny_tokenizer,
    tiny_transformer,
)
from PIL import Image
from processes import together
from torch.distributions import Categorical, kl_divergence

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.decoding.sampler import DecodingStep, decode, method_settings
from markovgen_app.errors import UserError
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.text import TextEncoder
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.training import mrf as training
from markovgen_app.training import states as states_module
from markovgen_app.training.mrf import MrfConfig, Stage
from markovgen_app.training.states import Backbone, States, StateSource, own_states, real_states

MASK = TINY_CODES
N = TINY_GRID[0] * TINY_GRID[1]
CAPTIONS = ["a panda", "two pizzas on grass", "a red robot"]


def captioned(folder: Path, count: int) -> Path:
    """Small pictures, each of one colour, with captions beside them."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (20, 20), (number, 90, 255 - number)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"colour {number}")
    return folder


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    settings = method_settings("full", 6, guidance_scale=3.0, order="confidence", temperature=0.5)
    return Backbone(tiny_transformer(), tiny_tokenizer(), text_encoder(), settings, (2, 4, 5))


@pytest.fixture(scope="module")
def own(backbone: Backbone) -> States:
    return own_states(backbone, CAPTIONS, [7, 8, 9], distributions=True)


@pytest.fixture(scope="module")
def steps(backbone: Backbone) -> list[DecodingStep]:
    """The loop that `own` is of."""
    logits_at = states_module.guided_logits(
        backbone.transformer, text_encoder().encode(CAPTIONS), text_encoder().encode([""]), backbone.settings
    )
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8, 9)]
    start = torch.full((3, N), MASK)
    return list(decode(logits_at, start, MASK, backbone.settings, generators, grid=TINY_GRID))


def test_own_states_are_those_of_the_decoding_loop(backbone: Backbone, own: States, steps: list[DecodingStep]) -> None:
    assert len(own) == 9 and own.steps.tolist() == [2] * 3 + [4] * 3 + [5] * 3
    for index in range(9):
        step, row = int(own.steps[index]), index % 3
        assert own.tokens[index].long().equal(steps[step - 2].tokens[row])
        assert own.targets[index].long().equal(steps[-1].tokens[row])
        logits = backbone.transformer.logits(own.hidden[index].float())
        torch.testing.assert_close(logits, steps[step - 1].logits[row], atol=2e-2, rtol=2e-2)


def test_target_distributions_are_what_each_token_was_drawn_from(
    backbone: Backbone, own: States, steps: list[DecodingStep]
) -> None:
    """Those of the step that committed it, which are not those of the steps around it."""
    assert own.target_hidden is not None
    logits = backbone.transformer.logits(own.target_hidden.float())  # (9, n, V)
    for index in range(9):
        row, undecided = index % 3, torch.ones(N, dtype=torch.bool)
        for step in steps:
            drawn = undecided & ~step.mask[row]
            torch.testing.assert_close(logits[index, drawn], step.logits[row, drawn], atol=2e-2, rtol=2e-2)
            for other in steps:
                far = (logits[index, drawn] - other.logits[row, drawn]).abs().amax(-1)
                assert other is step or far.min() > 0.05
            undecided = step.mask[row]


def test_real_states_uncover_the_pictures_tokens_by_the_schedule(backbone: Backbone) -> None:
    targets = torch.randint(TINY_CODES, (3, N), generator=torch.Generator().manual_seed(0))
    found = real_states(backbone, CAPTIONS, targets, [0, 1, 2])
    left = states_module.mask_counts(N, 6, "cosine")
    for index in range(len(found)):
        mask = found.tokens[index] == MASK
        assert int(mask.sum()) == left[int(found.steps[index]) - 2]
        assert found.tokens[index][~mask].long().equal(targets[index % 3][~mask])
    assert found.target_hidden is None
    by_step = (found.tokens == MASK).unflatten(0, (3, 3))  # (9, n) -> (steps, pictures, n)
    assert not (by_step[1] & ~by_step[0]).any() and not (by_step[2] & ~by_step[1]).any()


@pytest.mark.parametrize("choice_temperature", [0.0, 1000.0])
def test_real_states_uncover_what_the_loop_would_be_surest_of(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, choice_temperature: float
) -> None:
    """A model that is sure of five positions only, as many as are uncovered by step 4: they come first, if not hot."""
    model, sure = tiny_transformer(), torch.zeros(N, dtype=torch.bool)
    sure[[1, 6, 7, 12, 14]] = True
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda *inputs: hidden(*inputs) * torch.where(sure, 200.0, 0.0)[:, None])
    settings = replace(backbone.settings, choice_temperature=choice_temperature)
    targets = torch.randint(TINY_CODES, (3, N), generator=torch.Generator().manual_seed(0))
    found = real_states(replace(backbone, transformer=model, settings=settings), CAPTIONS, targets, [0, 1, 2])
    second, fourth, fifth = (found.tokens != MASK).unflatten(0, (3, 3))  # (9, n) -> (steps, pictures, n)
    by_certainty = not (second & ~sure).any() and bool((fourth == sure).all() and (fifth | ~sure).all())
    assert by_certainty == (choice_temperature == 0)


@pytest.mark.parametrize("order", ["confidence", "halton", "spiral_in"])
def test_uncovering_what_the_loop_made_goes_through_the_loops_own_states(backbone: Backbone, order: str) -> None:
    """In the same order, or by the same noise, annealed alike: step k − 1 commits what the state before step k has."""
    settings = replace(backbone.settings, order=order)
    every = replace(backbone, settings=settings, exit_steps=(2, 3, 4, 5, 6))
    own = own_states(every, CAPTIONS, [7, 8, 9])
    real = real_states(every, CAPTIONS, own.targets[:3].long(), [7, 8, 9])
    assert real.steps.equal(own.steps) and real.tokens.equal(own.tokens)


def test_shards_are_sampled_once_and_kept_apart(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_module, "_SHARD", 4)
    monkeypatch.setattr(states_module, "_BATCH", 2)
    scenes = SceneDataset(0, 32, "train", "frequent")
    source = StateSource(backbone, scenes, "real", 8, tmp_path)
    first = source.batch(5, 3, seed=0)
    assert source.shards == 2 and len(first) == 5 and first.hidden.dtype == torch.float32
    assert first.targets.equal(StateSource(backbone, scenes, "real", 8, tmp_path).batch(5, 3, seed=0).targets)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert StateSource(backbone, scenes, "own", 8, tmp_path).folder != source.folder
    tuned = SceneDataset(0, 32, "tune", "frequent")
    assert StateSource(backbone, tuned, "real", 8, tmp_path).folder != source.folder
    retrained = copy.deepcopy(text_encoder())
    next(iter(retrained.model.parameters())).mul_(1.5)
    shorter = TextEncoder(text_encoder().model, text_encoder().tokenizer, max_length=8)
    for encoder in (retrained, shorter):
        others = StateSource(replace(backbone, text_encoder=encoder), scenes, "real", 8, tmp_path)
        assert others.folder != source.folder


def coupled(count: int, generator: torch.Generator) -> torch.Tensor:
    """Tokens (count, n) of a world in which every token equals its left neighbour, rows being independent."""
    first = torch.randint(8, (count, TINY_GRID[0], 1), generator=generator)
    return first.expand(-1, -1, TINY_GRID[1]).flatten(1)


@pytest.mark.parametrize("objective", ["masked", "marginal", "conditional", "decimated"])
def test_every_objective_learns_that_neighbours_agree(objective: str) -> None:
    torch.manual_seed(0)
    field = MarkovRandomField("directional", TINY_CODES, TINY_GRID, rank=8, neighbourhood=3)
    optimizer = torch.optim.Adam(field.parameters(), 0.02)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        targets = coupled(16, generator)
        if objective == "masked":
            value = training.masked_loss(field, targets, 0.3, generator)
        else:
            mask = torch.rand(targets.shape, generator=generator) < 0.4
            found = States(targets.masked_fill(mask, MASK), torch.zeros(1), targets, torch.zeros(1))
            flat = torch.zeros(*targets.shape, TINY_CODES)
            if objective == "decimated":
                found.tokens.fill_(MASK)  # of those committed before, the backbone would have heard
                inferred, still = training.decimated(field, found, flat, 0.8, generator)
                value = torch.nn.functional.cross_entropy(inferred, targets[still])
            else:
                value = training.undecided_loss(field, found, flat, Stage(objective=objective))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    assert losses[0] == pytest.approx(torch.tensor(float(TINY_CODES)).log().item(), abs=0.2)
    assert losses[-1] < 1.5


def test_a_field_says_nothing_of_what_the_backbone_has_heard(backbone: Backbone, own: States) -> None:
    """Messages of decimation count from those before anything is fixed."""
    own = own.to(backbone.device)
    logits, field, generator = backbone.transformer.logits(own.hidden), tiny_field(), torch.Generator()
    inferred, still = training.decimated(field, own, logits, 0.0, generator)
    assert still.equal(own.tokens == MASK) and inferred.equal(logits[still])
    inferred, still = training.decimated(field, own, logits, 0.5, generator)
    assert still.sum() < (own.tokens == MASK).sum() and not torch.allclose(inferred, logits[still], atol=1e-2)


def test_matching_distributions_is_a_divergence(backbone: Backbone, own: States) -> None:
    field = MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=4)
    own = own.to(backbone.device)
    logits = backbone.transformer.logits(own.hidden)
    assert training.distribution_loss(field, own, logits, logits).item() == pytest.approx(0, abs=1e-5)
    mask, field = own.tokens == MASK, tiny_field()
    for parameter in field.parameters():
        parameter.mul_(0.5)  # no probability rounds to zero
    target = Categorical(logits=logits[mask] / 3)
    inferred = Categorical(logits=field(logits, own.tokens, ~mask)[mask])
    expected, reverse = kl_divergence(target, inferred).mean().item(), kl_divergence(inferred, target).mean().item()
    assert training.distribution_loss(field, own, logits, logits / 3).item() == pytest.approx(expected, rel=1e-4)
    assert abs(expected - reverse) > 0.001, "the two directions differ here"


def test_pairs_are_of_one_decoding_and_random_steps(backbone: Backbone, tmp_path: Path) -> None:
    source = StateSource(backbone, SceneDataset(0, 16), "own", 64, tmp_path)
    before, after = source.pairs(64, 0, 3)
    assert before.targets.equal(after.targets), "of one decoding"
    assert (before.steps < after.steps).all()
    met = set(zip(before.steps.tolist(), after.steps.tolist(), strict=True))
    assert met == {(2, 4), (2, 5), (4, 5)}
    fixed = before.tokens != MASK
    assert after.tokens[fixed].equal(before.tokens[fixed]) and ((after.tokens != MASK).sum() > fixed.sum())
    assert len({tuple(row) for row in before.targets.tolist()}) > 20, "many pictures"
    again, _ = source.pairs(64, 0, 3)
    other, _ = source.pairs(64, 0, 4)
    assert again.tokens.equal(before.tokens) and not other.targets.equal(before.targets)


def test_a_field_learns_what_the_backbone_says_once_it_has_heard() -> None:
    """This backbone hears of left neighbours only when they are fixed, and then says the same token, nearly surely."""
    torch.manual_seed(0)
    field = MarkovRandomField("directional", TINY_CODES, TINY_GRID, rank=8, neighbourhood=3)
    optimizer = torch.optim.Adam(field.parameters(), 0.02)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        drawn = torch.randint(8, (16, N), generator=generator)
        fixed = torch.rand(drawn.shape, generator=generator) < 0.5
        flat = torch.zeros(16, N, TINY_CODES)
        heard = flat.clone().unflatten(1, TINY_GRID)
        told = torch.nn.functional.one_hot(drawn, TINY_CODES) * fixed.unsqueeze(-1) * 5.0
        heard[:, :, 1:] += told.unflatten(1, TINY_GRID)[:, :, :-1]
        nothing, after = (
            States(tokens, torch.zeros(1), drawn, torch.zeros(1))
            for tokens in (torch.full_like(drawn, MASK), drawn.masked_fill(~fixed, MASK))
        )
        value = training.later_loss(field, nothing, after, flat, heard.flatten(1, 2))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    assert min(losses[:5]) > 0.3 and max(losses[-5:]) < 0.1


def test_a_field_that_tells_nothing_is_as_far_off_as_the_backbone_was(backbone: Backbone, own: States) -> None:
    own = own.to(backbone.device)
    logits = backbone.transformer.logits(own.hidden)
    before, after = own[:3], own[3:6]  # at the exit steps 2 and 4
    silent = tiny_field()
    silent.receiver.zero_()
    still = after.tokens == MASK
    said = [Categorical(logits=each[still]) for each in (logits[3:6], logits[:3])]
    far = training.later_loss(silent, before, after, logits[:3], logits[3:6]).item()
    assert far == pytest.approx(kl_divergence(*said).mean().item(), rel=1e-4) and far > 0


def test_stages_share_the_time() -> None:
    stages = [Stage(objective="masked", share=1), Stage(objective="marginal", states="own", share=3)]
    assert [training.stage_at(stages, progress).objective for progress in (0, 0.24, 0.26, 1.0)] == [
        "masked",
        "masked",
        "marginal",
        "marginal",
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


def write_config(tmp_path: Path, checkpoint: Path, **changes: object) -> Path:
    values = {
        "name": "field",
        "minutes": 5,
        "steps": 6,
        "batch_size": 4,
        "log_every": 1,
        "model": str(checkpoint),
        "rank": 4,
        "neighbourhood": 3,
        "steps_planned": 6,
        "exit_steps": [2, 4],
        "pictures": 64,
        "runs": str(tmp_path / "runs"),
        "stages": [
            {"objective": "masked", "share": 1e-9},
            {"objective": "marginal", "states": "own", "distributions": True, "share": 1e-9},
            {"objective": "conditional", "share": 1e-9},
            {"objective": "decimated"},
        ],
        **changes,
    }
    path = tmp_path / "field.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_run_ends_with_a_field_that_the_pipeline_takes(tmp_path: Path, checkpoint: Path) -> None:
    training.train(write_config(tmp_path, checkpoint))
    log = [json.loads(line) for line in (tmp_path / "runs/field/log.jsonl").read_text().splitlines()]
    report = next(line for line in reversed(log) if "mean_field" in line)
    assert {"plain", "mean_field", "conditional", "plain_halfway", "decimated_halfway"} < set(report)
    field = tmp_path / "runs/field/weights"
    pipeline = MarkovGenPipeline.from_pretrained(checkpoint, mrf=field, text_encoder=text_encoder())
    assert pipeline("a panda", method="markovgen", steps=6, exit_step=2, seed=0).images
    training.train(write_config(tmp_path, checkpoint, steps=8), resume=True)
    assert json.loads((tmp_path / "runs/field/log.jsonl").read_text().splitlines()[-1])["step"] == 8
    training.train(write_config(tmp_path, checkpoint, name="more", start_from=str(field), steps=1))
    training.train(write_config(tmp_path, checkpoint, name="tied", tie_digits=True))
    later = {"objective": "decimated", "states": "own", "distributions": True}
    training.train(write_config(tmp_path, checkpoint, name="later", steps=2, stages=[later]))
    log = [json.loads(line) for line in (tmp_path / "runs/later/log.jsonl").read_text().splitlines()]
    assert log[-1]["plain_later"] > 0 and log[-1]["decimated_later"] > 0
    tied = MarkovRandomField.from_pretrained(tmp_path / "runs/tied/weights")
    assert set(tied.state_dict()) == {"sender", "receiver", "spatial"}
    with pytest.raises(UserError, match="make them agree"):
        training.train(write_config(tmp_path, checkpoint, name="other", start_from=str(field), rank=5))


def test_it_learns_over_an_amused_checkpoint_and_own_pictures(tmp_path: Path) -> None:
    """Both of the paper's stages and ours, at two sizes; what is saved works beside the checkpoint."""
    for side, parametrisation in ((8, "low-rank"), (4, "directional")):
        folder = amused_checkpoint(tmp_path / f"amused-{side}", sample_size=side)
        pictures = captioned(tmp_path / f"pictures-{side}", 70)
        config = write_config(
            tmp_path, folder, name=f"field-{side}", parametrisation=parametrisation, steps=3, steps_planned=None,
            exit_steps=None, stages=[
                {"objective": "masked", "share": 1e-9},
                {"objective": "marginal", "states": "own", "distributions": True, "share": 1e-9},
                {"objective": "conditional"},
            ],
        )  # fmt: skip
        training.train(config, data=str(pictures))
        weights = tmp_path / f"runs/field-{side}/weights"
        card = (weights / "README.md").read_text()
        assert card.startswith("---\nlicense: openrail++\n") and "harming minors" not in card
        assert "exploit or harm minors" in card and "| mean field |" in card and str(tmp_path) not in card
        shutil.copytree(weights, folder / "mrf")
        pipeline = MarkovGenPipeline.from_pretrained(folder)
        assert pipeline.mrf is not None and pipeline("a cat", method="markovgen", seed=0).request.steps == 12


def test_states_of_amused_are_taken_as_it_decodes(tmp_path: Path) -> None:
    config = MrfConfig(name="x", minutes=1, model=amused_checkpoint(tmp_path), stages=[Stage(objective="conditional")])
    backbone = training.load_backbone(config)
    assert (backbone.settings.steps, backbone.settings.guidance_scale, backbone.settings.guidance_ramp) == (
        12,
        4.5,
        False,
    )
    assert backbone.exit_steps == (3, 4, 5, 6, 8, 9, 10)


def test_two_processes_train_one_field(tmp_path: Path, checkpoint: Path) -> None:
    """Each takes other samples, their gradients are shared, and the first writes the weights."""
    config = write_config(tmp_path, checkpoint, batch_size=2, steps=3, stages=[{"objective": "conditional"}])
    together(2, tmp_path, training.train, config)
    lines = [json.loads(line) for line in (tmp_path / "runs/field/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert (tmp_path / "runs/field/weights/README.md").read_text().startswith("---\nlicense: apache-2.0")


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, checkpoint: Path) -> None:
    for changes, message in (
        ({"exit_steps": [2, 7]}, "Exit steps must be between 1 and the 6 steps"),
        ({"model": str(tmp_path / "nowhere")}, "There is no folder"),
        ({"start_from": str(tmp_path / "nowhere")}, "There is no random field"),
        ({"stages": []}, "stages"),
        ({"far_kernels": 2, "parametrisation": "dense"}, "far_kernels are of directional fields"),
        ({"neighbourhood": 4}, "neighbourhood: a neighbourhood has a token in its centre: take 3 or 5, not 4"),
        ({"tie_digits": True, "parametrisation": "dense"}, "dense field has no rows to share"),
        ({"stages": [{"objective": "conditional", "distributions": True}]}, "distributions are only known of own"),
        (
            {"stages": [{"objective": "decimated", "states": "own", "distributions": True}], "exit_steps": [2]},
            "exit_steps: what the backbone says later is learned from two steps or more",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            training.train(write_config(tmp_path, checkpoint, **changes))
        assert "\n" not in str(caught.value)


def test_too_small_a_disk_is_said_before_anything_is_sampled(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=99_000))
    with pytest.raises(UserError, match=r"states need \d\.\d MB in .*states, and its disk has 0\.1 MB left: "):
        training.train(write_config(tmp_path, checkpoint))
    assert not (tmp_path / "runs/states").exists()


def test_configurations_with_the_project_are_valid() -> None:
    for path in Path(__file__).parents[2].glob("configs/mrf*.yaml"):
        config = training.read_config(path, MrfConfig)
        assert config.stages
