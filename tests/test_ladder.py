"""Pictures through several stages: sizes, labels, seeds, methods, checkpoints, and what must fit."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from builders import (
    TINY_CODES,
    text_encoder,
    tiny_field,
    tiny_ladder,
    tiny_pipeline,
    tiny_super_resolution,
    tiny_tokenizer,
    tiny_transformer,
)

from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.ladder import default_super_resolution_exit, stage_seed
from markovgen_app.models.super_resolution import SuperResolutionTransformer
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest


@pytest.fixture(scope="module")
def pipeline() -> MarkovGenPipeline:
    return tiny_ladder()


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.images]


def steps_of(pipeline: MarkovGenPipeline, **fields: object) -> tuple[list[StepEvent], Result]:
    *steps, result = pipeline.run(GenerateRequest(prompt="a panda", **{"seed": 3, "steps": 4, **fields}))  # type: ignore[arg-type]
    assert isinstance(result, Result)
    return steps, result  # type: ignore[return-value]


def test_both_stages_are_seen_step_by_step(pipeline: MarkovGenPipeline) -> None:
    steps, result = steps_of(pipeline, super_resolution_steps=3, count=2)
    assert [event.label for event in steps] == [
        *(f"base {index}/4" for index in range(1, 5)),
        *(f"base 4/4 · super-resolution {index}/3" for index in range(1, 4)),
    ]
    assert [event.fraction for event in steps] == pytest.approx([index / 7 for index in range(1, 8)])
    assert [event.stage.grid for event in steps] == [(4, 4)] * 4 + [(8, 8)] * 3
    assert steps[3].images[0].size == (32, 32) and steps[4].images[0].size == (64, 64)
    for index, picture in enumerate(result.images):
        assert (picture.width, picture.height) == (64, 64)
        assert (picture.steps, picture.transformer_calls, picture.planned_calls) == (4, 7, 7)
        assert picture.settings["size"] == 64
        film = result.filmstrip(index)
        assert len(film) == len(result.frames) == 3 and film[-1].tobytes() == picture.image.tobytes()
    assert [image.tobytes() for image in steps[-1].images] == pixels(result)


def test_the_first_stage_is_that_of_the_base_alone(pipeline: MarkovGenPipeline) -> None:
    alone = MarkovGenPipeline(
        pipeline.transformer, pipeline.tokenizer, text_encoder(), pipeline.vocabulary, pipeline.mrf
    )
    steps, _ = steps_of(pipeline)
    of_base, small = steps_of(alone)
    for both, one in zip(steps, of_base, strict=False):
        assert torch.equal(both.step.predicted, one.step.predicted)
    _, asked_small = steps_of(pipeline, size=32)
    assert pixels(asked_small) == pixels(small)
    assert asked_small.images[0].settings == small.images[0].settings
    assert alone.sizes == (32,) and pipeline.sizes == (32, 64)


def test_the_fine_picture_depends_on_the_coarse_one(pipeline: MarkovGenPipeline) -> None:
    steps, _ = steps_of(pipeline)
    other, _ = steps_of(pipeline, temperature=0)
    coarse, fine = steps[3].step.predicted, pipeline.super_resolution
    assert fine is not None and not torch.equal(coarse, other[3].step.predicted)
    text = pipeline.text_encoder.encode(["a panda"])
    blank = torch.full((1, 64), TINY_CODES)
    stage = pipeline.stage(1)
    one, two = (
        fine(blank, text.states, text.mask, text.pooled, each, stage.enlarged(each))
        for each in (coarse, other[3].step.predicted)
    )
    assert not torch.allclose(one, two, atol=1e-3)
    # there is no guidance: the first step's logits are those of the prompt and the coarse tokens alone
    assert torch.allclose(steps[4].step.logits, one, atol=1e-4)


@pytest.mark.parametrize("method", ["full", "markovgen", "early-exit", "halton"])
def test_a_seed_gives_the_same_picture_in_any_batch(pipeline: MarkovGenPipeline, method: str) -> None:
    _, three = steps_of(pipeline, count=3, method=method)
    for index, seed in enumerate((3, 4, 5)):
        _, alone = steps_of(pipeline, seed=seed, method=method)
        assert pixels(alone) == [pixels(three)[index]]


def test_stages_have_noise_of_their_own() -> None:
    assert stage_seed(7, 0) == 7
    drawn = {stage_seed(seed, stage) for seed in (0, 1, 2**32 - 1) for stage in (1, 2, 3)}
    assert len(drawn) == 9 and all(0 <= seed < 2**32 for seed in drawn)  # CPU generators read 32 bits


@pytest.mark.parametrize(
    ("method", "calls"), [("full", 32), ("early-exit", 21), ("markovgen", 21), ("rescheduled", 21), ("halton", 21)]
)
def test_methods_leave_every_stage_early(pipeline: MarkovGenPipeline, method: str, calls: int) -> None:
    # the paper's exits of 24 and 8 steps; 4 x 4 tokens are decided before step 18, so fewer are run here
    request = GenerateRequest(prompt="a panda", method=method, exit_step=18, seed=1)  # type: ignore[arg-type]
    settings = [stage.settings(request) for stage in pipeline.stages]
    assert sum(each.exit_step or each.steps for each in settings) == calls
    _, result = steps_of(pipeline, method=method, exit_step=3, super_resolution_steps=8)
    assert result.images[0].transformer_calls == {32: 12}.get(calls, 6) and result.images[0].planned_calls == 12


def test_three_of_eight_is_the_default_exit() -> None:
    assert [default_super_resolution_exit(steps) for steps in (1, 2, 4, 8, 16)] == [1, 1, 2, 3, 6]


def test_a_field_says_where_its_stage_is_left() -> None:
    """And all methods that stop early stop there, in that stage alone."""
    ladder = tiny_ladder()
    assert ladder.super_resolution_mrf is not None
    ladder.super_resolution_mrf.register_to_config(exit_share=0.5)
    assert [ladder.stage(0).exit_step(24), ladder.stage(1).exit_step(8), ladder.stage(1).exit_step(1)] == [18, 4, 1]
    for method in ("early-exit", "markovgen"):
        request = GenerateRequest(prompt="a panda", method=method, seed=1)  # type: ignore[arg-type]
        assert [stage.settings(request).exit_step for stage in ladder.stages] == [18, 4]
        asked = request.model_copy(update={"super_resolution_exit_step": 2})
        assert ladder.stage(1).settings(asked).exit_step == 2


def test_the_field_of_each_stage_has_its_own_word(pipeline: MarkovGenPipeline) -> None:
    early, markov = (steps_of(pipeline, method=method)[0] for method in ("early-exit", "markovgen"))
    finals = [event for event in markov if event.step.final]
    assert [event.stage.number for event in finals] == [0, 1]
    assert all(event.step.plain is not None for event in finals)
    base = next(event for event in early if event.step.final)
    assert torch.equal(finals[0].step.plain, base.step.predicted)  # type: ignore[arg-type]


def test_a_stage_without_a_field_takes_all_steps_and_says_so() -> None:
    steps, result = steps_of(tiny_ladder(field=False), method="markovgen", exit_step=3, super_resolution_steps=5)
    assert steps[-1].label == "base 3/3 · super-resolution 5/5"
    assert any("no random field for super-resolution" in note for note in result.notes)
    _, full = steps_of(tiny_ladder(field=False), method="full", super_resolution_steps=5)
    assert not any("random field" in note for note in full.notes)


def test_a_third_stage_follows(tmp_path: Path) -> None:
    tall = tiny_ladder(further=1)
    assert tall.sizes == (32, 64, 128)
    steps, result = steps_of(tall, super_resolution_steps=2)
    assert result.images[0].width == 128
    assert steps[-1].label == "base 4/4 · super-resolution 2/2 · super-resolution 2 2/2"
    tall.save_pretrained(tmp_path)
    assert (tmp_path / "super_resolution_2" / "config.json").is_file()
    loaded = MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())
    assert loaded.sizes == (32, 64, 128)
    again = MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())
    assert pixels(steps_of(loaded)[1]) == pixels(steps_of(again)[1])
    config = tmp_path / "super_resolution_2" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(UserError, match=r"super_resolution_2 cannot be loaded"):
        MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())
    (tmp_path / "super_resolution_2" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"super_resolution_2.*missing"):
        MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())


def test_stages_of_an_earlier_checkpoint_do_not_come_back(tmp_path: Path) -> None:
    tiny_ladder(further=1).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    assert json.loads(index.read_text())["_stages"] == ["base", "super-resolution", "super-resolution 2"]
    shutil.copytree(tmp_path / "super_resolution_2", tmp_path / "kept")
    (tmp_path / "scorer").mkdir()
    tiny_ladder(field=False).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {"transformer", "tokenizer", "mrf", "super_resolution", "kept", "scorer"}
    (tmp_path / "kept").rename(tmp_path / "super_resolution_2")
    assert MarkovGenPipeline.from_pretrained(tmp_path).sizes == (32, 64)
    older = {name: entry for name, entry in json.loads(index.read_text()).items() if name != "_stages"}
    index.write_text(json.dumps(older))
    assert MarkovGenPipeline.from_pretrained(tmp_path).sizes == (32, 64, 128)


def test_fields_that_were_put_beside_the_stages_are_found(tmp_path: Path) -> None:
    bare = tiny_ladder(field=False)
    bare.register_modules(mrf=None)
    bare.save_pretrained(tmp_path)
    assert "markovgen" not in MarkovGenPipeline.from_pretrained(tmp_path).methods
    tiny_field().save_pretrained(tmp_path / "mrf")
    tiny_field((8, 8)).save_pretrained(tmp_path / "super_resolution_mrf")
    found = MarkovGenPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert [stage.mrf is not None and stage.mrf.dtype == torch.bfloat16 for stage in found.stages] == [True, True]
    (tmp_path / "mrf" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"mrf.*truncated or damaged"):
        MarkovGenPipeline.from_pretrained(tmp_path)


def test_a_checkpoint_keeps_both_stages(tmp_path: Path) -> None:
    pipeline = tiny_ladder()
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["super_resolution"] == ["markovgen_app.models.super_resolution", "SuperResolutionTransformer"]
    loaded = MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())
    assert loaded.super_resolution is not None and loaded.super_resolution_mrf is not None
    for name, tensor in pipeline.super_resolution.state_dict().items():  # type: ignore[union-attr]
        assert torch.allclose(loaded.super_resolution.state_dict()[name], tensor, atol=1e-3)
    assert steps_of(loaded, method="markovgen")[1].images[0].width == 64
    (tmp_path / "super_resolution" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="truncated or damaged"):
        MarkovGenPipeline.from_pretrained(tmp_path, text_encoder=text_encoder())


def test_all_stages_move_together() -> None:
    pipeline = tiny_ladder(further=1).to(torch.bfloat16)
    assert {stage.transformer.dtype for stage in pipeline.stages} == {torch.bfloat16}
    assert steps_of(pipeline)[1].images[0].width == 128


def test_models_take_turns_where_memory_is_short(pipeline: MarkovGenPipeline) -> None:
    waiting = copy.deepcopy(pipeline).offload(torch.device("cpu"))
    assert pixels(steps_of(waiting, method="markovgen")[1]) == pixels(steps_of(pipeline, method="markovgen")[1])


def test_sizes_that_are_not_there_are_named(pipeline: MarkovGenPipeline) -> None:
    with pytest.raises(UserError, match="pictures of 32 or 64 pixels, not of 128"):
        pipeline("a panda", size=128)
    with pytest.raises(UserError, match="pictures of 32 pixels, not of 64"):
        tiny_pipeline()("a panda", size=64)
    with pytest.raises(UserError, match="exit step must be between 1 and the 8 steps, not 9"):
        GenerateRequest.validated(prompt="a panda", super_resolution_exit_step=9)


def test_parts_that_do_not_fit_are_named() -> None:
    def pipeline(**parts: object) -> MarkovGenPipeline:
        return MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), **parts)  # type: ignore[arg-type]

    with pytest.raises(UserError, match=r"Super-resolution refines 8 × 8 tokens .* base makes 4 × 4"):
        pipeline(super_resolution=tiny_super_resolution(2))
    with pytest.raises(UserError, match="no super-resolution transformer"):
        pipeline(super_resolution_mrf=tiny_field((8, 8)))
    with pytest.raises(UserError, match="field of super-resolution is over 4 × 4 tokens"):
        pipeline(super_resolution=tiny_super_resolution(), super_resolution_mrf=tiny_field())
    other = SuperResolutionTransformer(50, (8, 8), (4, 4), 32, 1, 2, 2.0, fine_size=16)
    with pytest.raises(UserError, match="of 50 codes"):
        pipeline(super_resolution=other)
