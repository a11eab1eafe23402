"""The random field of a stage above the base: its states, its run, and the checkpoint that it goes into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from builders import TINY_CODES, text_encoder, tiny_ladder

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.events import StepEvent
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.pixels import stacked, to_pixels
from markovgen_app.requests import GenerateRequest
from markovgen_app.training import mrf as training
from markovgen_app.training.export import export
from markovgen_app.training.mrf import MrfConfig
from markovgen_app.training.states import Backbone, Kind, StateSource

SEEDS = range(7, 9)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, the upper one without a field."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_ladder(field=False).save_pretrained(folder)
    return folder


def config_of(checkpoint: Path, **changes: object) -> MrfConfig:
    values = {"name": "x", "minutes": 1, "model": checkpoint, "stage": 1, "stages": [{"objective": "conditional"}]}
    return MrfConfig.model_validate({**values, **changes})


def source(backbone: Backbone, scenes: SceneDataset, kind: Kind) -> StateSource:
    return StateSource(backbone, scenes, kind, 64, Path("nowhere"))


def test_steps_and_exits_are_those_of_the_stage(checkpoint: Path) -> None:
    backbone = training.load_backbone(config_of(checkpoint))
    assert backbone.transformer.grid == (8, 8)
    assert (backbone.settings.steps, backbone.exit_steps) == (8, (2, 3, 4, 5))
    assert backbone.coarse is not None and backbone.coarse.request.steps == 24
    backbone = training.load_backbone(config_of(checkpoint, steps_planned=16))
    assert (backbone.settings.steps, backbone.exit_steps) == (16, (4, 6, 8, 10))
    with pytest.raises(UserError, match="between 1 and the 8 steps"):
        training.load_backbone(config_of(checkpoint, exit_steps=[9]))
    with pytest.raises(UserError, match=r"no stage 2, only 0 \(base\), 1 \(super-resolution\)"):
        training.load_backbone(config_of(checkpoint, stage=2))


def test_own_states_are_those_of_a_picture_through_both_stages(checkpoint: Path) -> None:
    """What the app makes of these weights: a base with a field, and a stage that has none yet and takes all steps."""
    backbone = training.load_backbone(config_of(checkpoint))
    assert backbone.coarse is not None
    scenes = SceneDataset(0, 64, "train", "frequent")
    found = source(backbone, scenes, "own")._sample(SEEDS)
    for row, seed in enumerate(SEEDS):
        request = GenerateRequest(prompt=scenes.scene(seed).caption, seed=seed, method="markovgen")
        *events, result = backbone.coarse.pipeline.run(request)
        fine = [event.step for event in events if isinstance(event, StepEvent) and event.stage.number == 1]
        for index in range(row, len(found), 2):
            step = int(found.steps[index])
            assert found.tokens[index].long().equal(fine[step - 2].tokens[0])
            assert found.targets[index].long().equal(result.frames[-1][0])  # type: ignore[union-attr]
            logits = backbone.transformer.logits(found.hidden[index].float())
            torch.testing.assert_close(logits, fine[step - 1].logits[0], atol=2e-2, rtol=2e-2)


def test_real_states_are_given_the_same_picture_drawn_small(checkpoint: Path) -> None:
    scenes = SceneDataset(0, 64, "train", "frequent")
    whole, damaged = (
        training.load_backbone(config_of(checkpoint, corruption=share, guidance_scale=1)) for share in (0, 1)
    )
    sources = [source(backbone, scenes, "real") for backbone in (whole, damaged)]
    found, other = (each._sample(SEEDS) for each in sources)
    drawn = [scenes.scene(index) for index in SEEDS]
    small, large = (
        whole.tokenizer.encode(to_pixels(stacked([scenes.render(scene, side) for scene in drawn]))) for side in (32, 64)
    )
    text = text_encoder().encode([scene.caption for scene in drawn])
    assert whole.coarse is not None
    enlarged = whole.coarse.stage.enlarged(small)
    assert enlarged is not None
    for index in range(len(found)):
        row = slice(index % 2, index % 2 + 1)
        assert found.targets[index].long().equal(large[row][0]) and other.targets[index].equal(found.targets[index])
        tokens = found.tokens[[index]].long()
        assert tokens[tokens < TINY_CODES].equal(large[row][tokens < TINY_CODES])
        texts = text.states[row], text.mask[row], text.pooled[row]
        expected = whole.transformer.hidden(tokens, *texts, small[row], enlarged[row])
        torch.testing.assert_close(found.hidden[[index]].float(), expected, atol=5e-3, rtol=5e-3)
    assert not found.hidden.allclose(other.hidden, atol=1e-2), "errors of the coarse tokens were heard"
    assert sources[0].folder != sources[1].folder


def test_a_run_ends_with_a_field_that_the_checkpoint_takes(tmp_path: Path, checkpoint: Path) -> None:
    values = {
        "name": "fine", "minutes": 5, "steps": 3, "batch_size": 4, "log_every": 1, "model": str(checkpoint), "stage": 1,
        "rank": 4, "neighbourhood": 3, "tie_digits": True, "steps_planned": 4, "exit_steps": [2], "pictures": 64,
        "runs": str(tmp_path / "runs"),
        "stages": [{"objective": "marginal", "share": 1e-9}, {"objective": "conditional"}],
    }  # fmt: skip
    (tmp_path / "fine.yaml").write_text(yaml.safe_dump(values))
    training.train(tmp_path / "fine.yaml")
    log = [json.loads(line) for line in (tmp_path / "runs/fine/log.jsonl").read_text().splitlines()]
    assert {"plain", "mean_field", "conditional"} < set(log[-1])
    field = tmp_path / "runs/fine/weights"
    card = (field / "README.md").read_text()
    assert "over 8 × 8 tokens" in card and "the folder `super_resolution_mrf`" in card and "--mrf" not in card
    export(
        checkpoint / "tokenizer", checkpoint / "transformer", tmp_path / "out", "frequent", mrf=checkpoint / "mrf",
        super_resolution=[checkpoint / "super_resolution"], super_resolution_mrf=[field],
    )  # fmt: skip
    pipeline = MarkovGenPipeline.from_pretrained(tmp_path / "out", text_encoder=text_encoder())
    result = pipeline("a panda", method="markovgen", steps=4, exit_step=2, seed=0)
    assert result.images[0].width == 64 and not any("no random field" in note for note in result.notes)
    assert result.images[0].transformer_calls == 2 + 3
