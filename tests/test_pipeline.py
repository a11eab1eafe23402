"""The pipeline: events, seeds, batches, cancelling, notes, and the round trip through a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from builders import (
    TINY_CODES,
    TINY_GRID,
    text_encoder,
    tiny_checkpoint,
    tiny_field,
    tiny_pipeline,
    tiny_tokenizer,
    tiny_transformer,
    tiny_vocabulary,
)

from markovgen_app.decoding.sampler import FINALISE, METHODS
from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.text import TextEncoder
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest


@pytest.fixture(scope="module")
def pipeline() -> MarkovGenPipeline:
    return tiny_pipeline()


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.images]


def test_a_run_yields_every_step_and_then_the_result(pipeline: MarkovGenPipeline) -> None:
    *steps, result = pipeline.run(GenerateRequest(prompt="a panda", steps=5, seed=3, count=2))
    assert all(isinstance(event, StepEvent) for event in steps) and isinstance(result, Result)
    assert [event.label for event in steps] == [f"base {index}/5" for index in range(1, 6)]
    assert [event.fraction for event in steps] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [image.size for image in steps[0].images] == [(32, 32)] * 2
    assert steps[0].images is steps[0].images
    assert [image.tobytes() for image in steps[-1].images] == pixels(result)
    assert [picture.seed for picture in result.images] == [3, 4] and result.notes == []
    for picture in result.images:
        assert (picture.width, picture.height) == pipeline.size == (32, 32)
        assert (picture.steps, picture.transformer_calls, picture.prompt) == (5, 5, "a panda")
        assert 0 < picture.model_seconds <= picture.seconds


def test_a_filmstrip_ends_with_the_picture(pipeline: MarkovGenPipeline) -> None:
    result = pipeline("a panda", steps=6, seed=3, count=2)
    for index, picture in enumerate(result.images):
        frames = result.filmstrip(index)
        assert len(frames) == 6 and frames[-1].tobytes() == picture.image.tobytes()
        assert frames[0].tobytes() != frames[-1].tobytes()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_seed_gives_the_same_picture_in_any_batch(
    pipeline: MarkovGenPipeline, method: str, guidance_scale: float
) -> None:
    fields = {"method": method, "steps": 8, "guidance_scale": guidance_scale}
    together = pipeline("a panda", seed=10, count=3, **fields)
    assert len(set(pixels(together))) == 3
    for picture in together.images:
        assert pixels(pipeline(**picture.settings)) == [picture.image.tobytes()]


def test_a_random_seed_is_echoed_and_gives_the_picture_again(pipeline: MarkovGenPipeline) -> None:
    result = pipeline("a panda", steps=4)
    assert result.request.seed == result.images[0].seed
    assert pixels(pipeline("a panda", steps=4, seed=result.images[0].seed)) == pixels(result)


def test_methods_take_the_steps_they_promise(pipeline: MarkovGenPipeline) -> None:
    calls = {
        method: pipeline("a panda", method=method, steps=8, exit_step=3, seed=0).images[0].transformer_calls
        for method in METHODS
    }
    assert calls == {"full": 8, "early-exit": 3, "markovgen": 3, "rescheduled": 3, "halton": 3}


def test_the_field_decides_the_tokens_that_the_early_exit_guesses(pipeline: MarkovGenPipeline) -> None:
    fields = {"steps": 8, "exit_step": 3, "seed": 0}
    early, refined = (pipeline("a panda", method=method, **fields) for method in ("early-exit", "markovgen"))
    for before, after in zip(early.frames[:-1], refined.frames[:-1], strict=True):
        assert before.equal(after)
    assert not early.frames[-1].equal(refined.frames[-1])
    others = [
        {"mrf_iterations": 1},
        {"mrf_clamp": False},
        {"exit_temperature": 0.0},
        *({"finalise": how} for how in FINALISE[1:]),
    ]
    for other in others:
        changed = pipeline("a panda", method="markovgen", **fields, **other)
        assert not changed.frames[-1].equal(refined.frames[-1]), other


@pytest.mark.parametrize("finalise", FINALISE)
def test_a_field_without_weights_is_the_early_exit_bit_for_bit(finalise: str) -> None:
    silent = MarkovRandomField("low-rank", TINY_CODES, TINY_GRID, rank=4)
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder(), mrf=silent)
    fields = {"steps": 8, "exit_step": 3, "seed": 0, "count": 2, "finalise": finalise}
    early, refined = (
        list(pipeline.run(GenerateRequest(prompt="a panda", method=method, **fields)))
        for method in ("early-exit", "markovgen")
    )
    for before, after in zip(early[:-1], refined[:-1], strict=True):
        assert isinstance(before, StepEvent) and isinstance(after, StepEvent)
        assert before.step.tokens.equal(after.step.tokens) and before.step.confidence.equal(after.step.confidence)
    assert pixels(early[-1]) == pixels(refined[-1])


def test_a_field_says_how_exits_are_finalised_and_how_often_it_is_asked() -> None:
    told = tiny_field()
    told.register_to_config(finalise="decimate", exit_temperature=0.25, iterations=2)
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder(), mrf=told)
    asked = GenerateRequest(prompt="a panda", method="markovgen")
    assert pipeline.settled(asked).finalise == "decimate" and pipeline.settled(asked).exit_temperature == 0.25
    own = GenerateRequest(prompt="a panda", method="markovgen", exit_temperature=None)
    assert pipeline.settled(own).exit_temperature is None
    assert pipeline.settled(asked.model_copy(update={"finalise": "sample"})).finalise == "sample"
    assert pipeline.decoding_settings(asked).mrf_iterations == 2
    assert pipeline.decoding_settings(asked.model_copy(update={"mrf_iterations": 5})).mrf_iterations == 5
    exit_step = {"method": "markovgen", "steps": 8, "exit_step": 3, "seed": 1}
    usual, rounds = (pipeline("a panda", **exit_step, **how) for how in ({}, {"mrf_iterations": 5}))
    assert not usual.frames[-1].equal(rounds.frames[-1]), "more strides, another picture"
    assert usual.frames[-1].equal(pipeline("a panda", **exit_step, finalise="decimate").frames[-1])
    assert not usual.frames[-1].equal(pipeline("a panda", **exit_step, finalise="sample").frames[-1])


def test_without_a_field_markovgen_is_refused_in_one_line() -> None:
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder())
    assert "markovgen" not in pipeline.methods and "markovgen" in tiny_pipeline().methods
    with pytest.raises(UserError, match="no random field: choose another method"):
        pipeline("a panda", method="markovgen")
    assert pipeline("a panda", steps=2).images


def test_a_field_over_other_tokens_is_refused_in_one_line() -> None:
    for other in (MarkovRandomField("low-rank", TINY_CODES, (5, 4)), MarkovRandomField("low-rank", 9, TINY_GRID)):
        with pytest.raises(UserError, match="take the field that was trained for this checkpoint"):
            MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), mrf=other)


def test_prompt_negative_prompt_and_guidance_matter(pipeline: MarkovGenPipeline) -> None:
    plain = pixels(pipeline("a panda", seed=1, steps=4, guidance_ramp=False))
    for other in (
        {"prompt": "a pizza"},
        {"prompt": "a panda", "negative_prompt": "a pizza"},
        {"prompt": "a panda", "guidance_scale": 1.0},
    ):
        assert pixels(pipeline(**{"seed": 1, "steps": 4, "guidance_ramp": False, **other})) != plain


def test_previews_are_decoded_only_when_looked_at(pipeline: MarkovGenPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = pipeline.tokenizer.decode
    monkeypatch.setattr(pipeline.tokenizer, "decode", lambda *inputs: decoded.append(1) or decode(*inputs))
    pipeline("a panda", steps=6, seed=0)
    assert len(decoded) == 1


def test_closing_a_run_cancels_it(pipeline: MarkovGenPipeline) -> None:
    calls = []
    handle = pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    try:
        events = pipeline.run(GenerateRequest(prompt="a panda", steps=8))
        next(events)
        next(events)
        events.close()
    finally:
        handle.remove()
    assert len(calls) == 2
    assert list(events) == []


def test_bad_input_is_said_before_anything_runs(pipeline: MarkovGenPipeline) -> None:
    for fields in ({"prompt": ""}, {"prompt": "p" * 5000}, {"prompt": "a", "steps": 0}, {"prompt": "a", "seed": -1}):
        with pytest.raises(UserError):
            pipeline(**fields)


def test_a_prompt_in_another_language_is_noted_and_still_painted(pipeline: MarkovGenPipeline) -> None:
    result = pipeline("ピザの隣のパンダ", steps=2)
    assert len(result.images) == 1
    assert result.notes == [
        "This model knows no word of the prompt, so the picture is a guess: describe it in English,"
        " for example “a panda”."
    ]


def test_what_is_not_read_of_a_long_prompt_is_noted(pipeline: MarkovGenPipeline) -> None:
    result = pipeline("panda " * 100, negative_prompt="pizza " * 70, steps=1)
    assert [note.split(":")[0] for note in result.notes] == [
        "The prompt has 102 word pieces and the model reads the first 64",
        "The negative prompt has 72 word pieces and the model reads the first 64",
    ]


def test_unknown_words_come_with_the_nearest_known_nouns(pipeline: MarkovGenPipeline) -> None:
    unknown = pipeline.unknown_words("a wolf and a lorry on a brick wall")
    assert list(unknown) == ["wolf", "lorry"]
    assert all(len(nearest) == 3 and set(nearest) <= set(pipeline.knows["nouns"]) for nearest in unknown.values())
    assert set(unknown["wolf"]) & {"fox", "dog", "bear", "lion", "tiger"}
    assert pipeline.unknown_words("a panda on a brick wall") == {}


def test_a_pipeline_comes_back_from_its_checkpoint(pipeline: MarkovGenPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "first")
    loaded = MarkovGenPipeline.from_pretrained(tmp_path / "first")
    assert loaded.transformer.dtype == loaded.tokenizer.dtype == torch.float32
    assert loaded.vocabulary == pipeline.vocabulary and loaded.grid == TINY_GRID
    for name, tensor in pipeline.transformer.state_dict().items():
        assert tensor.half().float().equal(loaded.transformer.state_dict()[name])
    loaded.save_pretrained(tmp_path / "second")
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == [
        "model_index.json",
        "mrf/config.json",
        "mrf/diffusion_pytorch_model.safetensors",
        "tokenizer/config.json",
        "tokenizer/diffusion_pytorch_model.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vocabulary.json",
    ]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
        assert str(tmp_path).encode() not in (tmp_path / "second" / file).read_bytes()
    again = MarkovGenPipeline.from_pretrained(tmp_path / "second", text_encoder=text_encoder())
    assert pixels(again("a panda", steps=4, seed=1)) == pixels(loaded("a panda", steps=4, seed=1))
    assert (pipeline.transformer.dtype, pipeline.tokenizer.dtype) == (torch.float32, torch.float32)


def test_a_checkpoint_is_in_diffusers_format(tmp_path: Path) -> None:
    index = json.loads((tiny_checkpoint(tmp_path) / "model_index.json").read_text())
    assert index["_class_name"] == "MarkovGenPipeline"
    assert index["transformer"] == ["markovgen_app.models.transformer", "MuseTransformer"]
    assert index["tokenizer"] == ["markovgen_app.models.tokenizer", "ImageTokenizer"]


def test_a_folder_that_cannot_be_written_is_said(pipeline: MarkovGenPipeline, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        pipeline.save_pretrained(tmp_path / "file")


def test_parts_that_do_not_fit_are_said() -> None:
    with pytest.raises(UserError, match="The transformer has 240 tokens, the tokenizer 8"):
        MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(levels=(2, 2, 2)))
    with pytest.raises(UserError, match="text encoder's states are 384 wide, the transformer reads 16"):
        MarkovGenPipeline(tiny_transformer(text_width=16), tiny_tokenizer(), text_encoder())


def test_the_text_encoder_is_found_when_needed_and_moves_along() -> None:
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), vocabulary=tiny_vocabulary())
    assert isinstance(pipeline.text_encoder, TextEncoder)
    assert pipeline.to("cpu", torch.bfloat16) is pipeline
    assert pipeline.transformer.dtype == torch.bfloat16 and pipeline.text_encoder.model.dtype == torch.float32
    assert pipeline("a panda", steps=2).images[0].image.size == (32, 32)
