"""Inpainting, outpainting and edits by words through the pipeline: what is kept, seeds, windows, previews, notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import tiny_ladder, tiny_pipeline
from PIL import Image

from markovgen_app.decoding import masks
from markovgen_app.decoding.editing import evidence, rounds_of, threshold_of
from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.patches import PREVIEW_SIDE
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline


@pytest.fixture(scope="module")
def pipeline() -> MarkovGenPipeline:
    return tiny_pipeline()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def inpaint(**fields: Any) -> InpaintRequest:
    given = {"prompt": "a fox", "image": noise(32, 32), "rectangle": (8, 8, 20, 20), "steps": 4, "seed": 3}
    return InpaintRequest.validated(**{**given, **fields})


def outpaint(**fields: Any) -> OutpaintRequest:
    given = {"prompt": "a fox", "image": noise(32, 32), "left": 16, "steps": 3, "seed": 3}
    return OutpaintRequest.validated(**{**given, **fields})


def edit(**fields: Any) -> EditRequest:
    given = {"prompt": "a fox", "image": noise(32, 32), "strength": 0.1, "seed": 3, "remask": "chance"}
    return EditRequest.validated(**{**given, **fields})


def edit_by_words(**fields: Any) -> EditRequest:
    return edit(**{"remask": "words", "strength": 1.0, "steps": 4, **fields})


def pixels(result: Result) -> list[bytes]:
    return [picture.image.tobytes() for picture in result.images]


@pytest.mark.parametrize("size", [(32, 32), (50, 41), (100, 30)])
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_nothing_outside_the_feather_changes_and_the_size_stays(
    pipeline: MarkovGenPipeline, size: tuple[int, int], fit: str
) -> None:
    picture = noise(*size)
    request = inpaint(image=picture, fit=fit, feather=4, count=2)
    for made in pipeline.result(request).images:
        assert made.image.size == size
        changed = (np.asarray(made.image) != np.asarray(picture)).any(axis=2)
        away = masks.distance(request.marked > 0, 64)
        assert not changed[away > 4].any()
        assert changed[away == 0].mean() > 0.9


def test_without_paste_back_the_rest_is_the_tokenizers_own_reconstruction(pipeline: MarkovGenPipeline) -> None:
    """Far from the new tokens, where the decoder cannot see them: the known tokens have not changed."""
    picture = noise(32, 32)
    request = inpaint(image=picture, rectangle=(0, 0, 3, 3), keep_outside=False)
    result = pipeline.result(request)
    whole = pipeline.encode([picture])
    assert result.frames[-1][0, 1:].equal(whole[0, 1:])
    reconstruction = np.asarray(pipeline.to_images(whole)[0])
    made = np.asarray(result.images[0].image)
    assert np.array_equal(made[:, 31], reconstruction[:, 31]) and not np.array_equal(
        made[:8, :8], reconstruction[:8, :8]
    )


def test_a_stroke_of_one_pixel_opens_its_token(pipeline: MarkovGenPipeline) -> None:
    first, *_ = pipeline.run(inpaint(rectangle=(13, 22, 14, 23)))
    assert isinstance(first, StepEvent)
    assert first.patch.open_tokens(pipeline.size, pipeline.grid).reshape(4, 4)[2, 1]
    assert first.patch.open_tokens(pipeline.size, pipeline.grid).sum() == 1
    assert first.label == "base 1/1", "one token takes one step"


def test_strength_keeps_some_of_the_marked_tokens_as_hints(pipeline: MarkovGenPipeline) -> None:
    whole = pipeline.encode([noise(32, 32)])
    request = inpaint(rectangle=(0, 0, 32, 31), strength=0.25, steps=16, temperature=0)
    events = list(pipeline.run(request))
    start = events[0]
    assert isinstance(start, StepEvent)
    known_before = int((start.step.confidence == 1).sum())
    assert known_before >= 12, "a quarter of 16 tokens is made anew"
    assert (events[-1].frames[-1] == whole).sum() >= 12


def test_methods_and_negative_prompts_matter(pipeline: MarkovGenPipeline) -> None:
    told = {"guidance_ramp": False, "order": "confidence", "temperature": 0.5}
    plain = pixels(pipeline.result(inpaint(**told)))
    for fields in ({"method": "halton"}, {"negative_prompt": "a pizza"}, {"prompt": "a pizza"}, {"seed": 4}):
        assert pixels(pipeline.result(inpaint(**told, **fields))) != plain


@pytest.mark.parametrize("build", [inpaint, outpaint, edit])
def test_a_seed_gives_the_same_picture_in_any_batch(pipeline: MarkovGenPipeline, build: Any) -> None:
    fields = {"strength": 0.5} if build is inpaint else {}
    together = pipeline.result(build(count=3, **fields))
    assert len(set(pixels(together))) == 3
    for picture in together.images:
        assert pixels(pipeline.result(build(**fields, seed=picture.seed))) == [picture.image.tobytes()]


def test_a_run_ends_with_its_last_preview_and_says_what_it_was(pipeline: MarkovGenPipeline) -> None:
    for request, label in ((inpaint(), "base 4/4"), (edit(), "round 10/10"), (outpaint(), "base 3/3")):
        *steps, result = pipeline.run(request)
        assert isinstance(result, Result) and steps[-1].label == label and steps[-1].fraction == 1
        assert [image.tobytes() for image in steps[-1].images] == pixels(result)
        assert result.filmstrip()[-1].tobytes() == pixels(result)[0]
        settings = result.images[0].settings
        assert settings["task"] == request.task and settings["seed"] == 3 and "image" not in settings
        assert "task" not in pipeline("a fox", steps=1).images[0].settings


def test_outpainting_keeps_the_picture_and_adds_what_was_asked_for(pipeline: MarkovGenPipeline) -> None:
    picture = noise(32, 32)
    for fields in ({}, {"fit": "letterbox"}, {"top": 20, "right": 32}, {"left": 0, "aspect": "16:9"}):
        request = outpaint(**fields, feather=3)
        made = pipeline.result(request).images[0].image
        padding = request.padding
        assert made.size == padding.size(32, 32)
        kept = np.asarray(made)[padding.top : padding.top + 32, padding.left : padding.left + 32]
        assert np.array_equal(
            kept[3 * (padding.top > 0) : 29, 3:29], np.asarray(picture)[3 * (padding.top > 0) : 29, 3:29]
        )


def test_wide_canvases_are_made_window_by_window(pipeline: MarkovGenPipeline) -> None:
    *steps, result = pipeline.run(outpaint(left=32))
    assert [event.label for event in steps] == [
        f"window {window}/2 · base {step}/3" for window in (1, 2) for step in (1, 2, 3)
    ]
    assert [event.fraction for event in steps] == pytest.approx([(index + 1) / 6 for index in range(6)])
    assert result.images[0].transformer_calls == 6
    assert result.images[0].image.size == (64, 32)


def test_repeated_outpainting_keeps_what_is_there(pipeline: MarkovGenPipeline) -> None:
    once = pipeline.result(outpaint(feather=0)).images[0].image
    twice = pipeline.result(outpaint(image=once, left=0, right=16, feather=0)).images[0].image
    assert twice.size == (64, 32) and twice.crop((0, 0, 48, 32)).tobytes() == once.tobytes()


def test_a_weak_edit_is_a_frame_of_a_strong_one(pipeline: MarkovGenPipeline) -> None:
    strong = pipeline.result(edit(strength=0.3))
    weak = pipeline.result(edit(strength=0.1))
    assert strong.frame(rounds_of(0.1) - 1).tobytes() == pixels(weak)[0]
    assert pixels(strong) != pixels(weak)


def test_words_draw_anew_what_they_speak_against_and_nothing_else(pipeline: MarkovGenPipeline) -> None:
    tokens = pipeline.encode([noise(32, 32)])
    texts = pipeline.text_encoder.encode(["a fox", ""])
    hidden = torch.full((2, 16), pipeline.transformer.mask_token_id)
    with torch.no_grad():
        logits = pipeline.transformer(hidden, texts.states, texts.mask, texts.pooled)
    found = evidence(logits[[0]], logits[[1]], tokens, pipeline.grid)
    strength = (float(found.median()) + 1e-4 + 1) / 4
    request = edit_by_words(strength=strength, temperature=4)
    first, *_ = steps = list(pipeline.run(request))
    assert isinstance(first, StepEvent) and first.label == "base 1/4"
    against = found < threshold_of(strength)
    assert 0 < against.sum() < 16
    result = steps[-1]
    assert isinstance(result, Result)
    changed = torch.stack([frame != tokens for frame in result.frames]).any(0)
    assert changed.any() and not changed[~against].any()
    assert result.images[0].transformer_calls == result.images[0].planned_calls == 5
    assert result.notes == []
    inside = against.view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()  # (32, 32)
    away = masks.distance(inside, 32) > request.feather
    same = (np.asarray(result.images[0].image) == np.asarray(noise(32, 32))).all(axis=2)
    assert same[away].all() and not same[inside].all()
    loose = pipeline.result(request.model_copy(update={"keep_outside": False}))
    assert loose.frames[-1].equal(result.frames[-1])
    assert loose.images[0].image.tobytes() == pipeline.to_images(result.frames[-1])[0].tobytes()


def test_words_that_speak_against_nothing_change_nothing_and_say_so(pipeline: MarkovGenPipeline) -> None:
    result = pipeline.result(edit_by_words(strength=0.01))
    assert result.frames[-1].equal(pipeline.encode([noise(32, 32)]))
    assert pixels(result) == [noise(32, 32).tobytes()]
    assert len(result.notes) == 1 and "raise the strength" in result.notes[0]


def test_an_edit_by_words_is_the_same_in_any_batch(pipeline: MarkovGenPipeline) -> None:
    both = pixels(pipeline.result(edit_by_words(count=2)))
    assert both == [pixels(pipeline.result(edit_by_words(seed=seed)))[0] for seed in (3, 4)] and both[0] != both[1]


def test_an_edit_by_words_can_leave_early(pipeline: MarkovGenPipeline) -> None:
    made = {
        method: pipeline.result(edit_by_words(method=method, steps=8, exit_step=2))
        for method in ("early-exit", "markovgen")
    }
    assert all(result.images[0].transformer_calls == 3 for result in made.values())
    assert made["early-exit"].frames[0].equal(made["markovgen"].frames[0])
    assert pixels(made["early-exit"]) != pixels(made["markovgen"])


@pytest.mark.parametrize("remask", ["words", "chance"])
def test_a_kept_part_survives_an_edit_to_the_bit(pipeline: MarkovGenPipeline, remask: str) -> None:
    keep = Image.new("L", (32, 32))
    keep.paste(255, (0, 0, 16, 32))
    made = np.asarray(pipeline.result(edit(keep=keep, strength=1, feather=2, remask=remask)).images[0].image)
    assert np.array_equal(made[:, :14], np.asarray(noise(32, 32))[:, :14])
    assert not np.array_equal(made[:, 16:], np.asarray(noise(32, 32))[:, 16:])


def test_source_words_and_strength_matter(pipeline: MarkovGenPipeline) -> None:
    plain = pixels(pipeline.result(edit()))
    assert pixels(pipeline.result(edit(source_prompt="a panda"))) != plain
    assert pixels(pipeline.result(edit(negative_prompt="a panda"))) == pixels(
        pipeline.result(edit(source_prompt="a panda"))
    )


def test_crops_leave_the_rest_of_the_picture_alone(pipeline: MarkovGenPipeline) -> None:
    picture = noise(80, 40)
    made = np.asarray(pipeline.result(edit(image=picture, fit="crop", feather=4)).images[0].image)
    changed = np.flatnonzero((made != np.asarray(picture)).any(axis=(0, 2)))
    assert changed.min() >= 20 and changed.max() < 60 and len(changed) > 30


@pytest.mark.parametrize(("size", "kept", "left"), [((80, 40), 44, 40), ((100, 40), 20, 30)])
def test_a_crop_lies_over_what_may_change_if_it_can_hold_that(
    pipeline: MarkovGenPipeline, size: tuple[int, int], kept: int, left: int
) -> None:
    """The last 36 pixels of 80 fit into a crop of 40; the last 80 of 100 do not, and it stays in the middle."""
    picture, keep = noise(*size), Image.new("L", size)
    keep.paste(255, (0, 0, kept, 40))
    first, *_, result = pipeline.run(edit(image=picture, keep=keep, fit="crop", feather=0))
    assert isinstance(first, StepEvent) and first.patch.geometry is not None and isinstance(result, Result)
    assert first.patch.geometry.window == (left, 0, left + 40, 40)
    changed = np.flatnonzero((np.asarray(result.images[0].image) != np.asarray(picture)).any(axis=(0, 2)))
    assert changed.min() == max(left, kept) and changed.max() == left + 39


@pytest.mark.parametrize("open_columns", [[*range(50), *range(150, 200)], [50, 51, 148, 149]])
def test_an_edit_that_could_change_nothing_is_refused(pipeline: MarkovGenPipeline, open_columns: list[int]) -> None:
    """All of the crop is kept, or all but what its feather takes at its edges."""
    kept = np.full((100, 200), 255, np.uint8)
    kept[:, open_columns] = 0
    request = edit(image=noise(200, 100), keep=Image.fromarray(kept), fit="crop")
    with pytest.raises(UserError, match=r"All of the crop, 50, 0 to 150, 100, is kept, .*: choose letterbox, or keep"):
        pipeline.result(request)
    assert pipeline.result(request.model_copy(update={"fit": "letterbox"})).images[0].image.size == (200, 100)


def test_previews_of_large_pictures_are_small_and_results_are_not(pipeline: MarkovGenPipeline) -> None:
    first, *_, result = pipeline.run(inpaint(image=noise(1200, 900), rectangle=(100, 100, 500, 500), steps=1, count=2))
    assert [image.size for image in first.images] == [(PREVIEW_SIDE, 384)] * 2
    assert [picture.image.size for picture in result.images] == [(1200, 900)] * 2


def test_what_was_done_to_the_picture_is_noted(pipeline: MarkovGenPipeline) -> None:
    layer = noise(32, 32).convert("RGBA")
    layer.putpixel((0, 0), (0, 0, 0, 0))
    assert pipeline.result(inpaint(image=layer)).notes == ["Its transparent parts are filled with white."]


def test_what_cannot_be_is_said(pipeline: MarkovGenPipeline) -> None:
    with pytest.raises(UserError, match="choose letterbox"):
        pipeline.result(inpaint(image=noise(100, 32), rectangle=(0, 0, 90, 20), fit="crop"))


def test_closing_a_run_cancels_it(pipeline: MarkovGenPipeline) -> None:
    calls: list[int] = []
    handle = pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    try:
        events = pipeline.run(edit(strength=1, guidance_scale=1))
        next(events)
        events.close()
    finally:
        handle.remove()
    assert len(calls) == 1


def test_known_tokens_vote_in_the_random_field_and_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    field = pipeline.mrf
    assert field is not None
    fixed = []
    forward = field.forward
    monkeypatch.setattr(
        field, "forward", lambda *inputs, **options: fixed.append(inputs[2]) or forward(*inputs, **options)
    )
    whole = pipeline.encode([noise(32, 32)])
    result = pipeline.result(inpaint(method="markovgen", steps=8, exit_step=2))
    open_tokens = torch.zeros(4, 4, dtype=torch.bool)
    open_tokens[1:3, 1:3] = True
    assert result.frames[-1][~open_tokens.flatten()[None]].equal(whole[~open_tokens.flatten()[None]])
    assert fixed and all(mask[0][~open_tokens.flatten()].all() for mask in fixed)
    assert pixels(result) != pixels(pipeline.result(inpaint(method="early-exit", steps=8, exit_step=2)))
    assert pixels(pipeline.result(edit(method="markovgen"))) != pixels(pipeline.result(edit()))


@pytest.mark.parametrize("finalise", ["decimate", "perturb", "sample"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_random_field_has_its_say_in_the_last_round_of_an_edit_and_in_no_other(
    finalise: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_pipeline()
    field = pipeline.mrf
    assert field is not None
    pipeline.defaults["exit_temperature"] = 0.0  # of exits from loops, of which an edit has none
    asked = []
    for name in ("told", "forward"):
        own = getattr(field, name)
        monkeypatch.setattr(field, name, lambda *inputs, own=own, **options: asked.append(1) or own(*inputs, **options))
    options: dict[str, Any] = {"share": 0.6, "strength": 0.04, "steps": steps}
    rounds = [
        pipeline.result(edit(method=method, finalise=finalise, **options)).frames for method in ("full", "markovgen")
    ]
    assert len(rounds[0]) == len(rounds[1]) == 4
    assert all(full.equal(inferred) for full, inferred in zip(rounds[0][:-1], rounds[1][:-1], strict=True))
    assert asked and (finalise == "decimate" or len(asked) == 1)
    silent = [value.zero_() for value in field.parameters()]
    assert silent
    plain = pipeline.result(edit(method="markovgen", finalise=finalise, **options))
    assert plain.images[0].transformer_calls == 4 * steps
    if finalise == "sample":
        assert plain.frames[-1].equal(rounds[0][-1])


@pytest.mark.parametrize("method", ["early-exit", "markovgen"])
def test_few_open_tokens_leave_as_much_of_the_loop_out_as_many(method: str) -> None:
    result = tiny_pipeline().result(inpaint(method=method, rectangle=(8, 8, 9, 24), steps=24, exit_step=12))
    assert result.images[0].transformer_calls == 1  # of 2 tokens
    assert inpaint(rectangle=(8, 8, 9, 24)).marked.any()


@pytest.fixture(scope="module")
def ladder() -> MarkovGenPipeline:
    return tiny_ladder()


def blocks(flags: torch.Tensor) -> torch.Tensor:
    """(16,) flags of 4 x 4 tokens as (64,) flags of the 8 x 8 tokens under them."""
    return flags.view(4, 1, 4, 1).expand(4, 2, 4, 2).reshape(64)


def test_pictures_climb_as_far_as_they_have_detail(ladder: MarkovGenPipeline) -> None:
    for size, fit, stages in (((32, 32), "crop", 1), ((33, 32), "letterbox", 2), ((60, 32), "crop", 1)):
        request = inpaint(image=noise(*size), fit=fit, super_resolution_steps=2)
        *steps, result = ladder.run(request)
        assert len(ladder.stages_for(request)) == stages
        assert steps[-1].label == ("base 4/4" if stages == 1 else "base 4/4 · super-resolution 2/2")
        assert result.images[0].image.size == size and steps[-1].fraction == 1
        assert result.images[0].transformer_calls == result.images[0].planned_calls == 4 + 2 * (stages - 1)
        assert [image.tobytes() for image in steps[-1].images] == pixels(result)


def test_known_tokens_of_every_stage_stay(ladder: MarkovGenPipeline) -> None:
    picture = noise(64, 64)
    request = inpaint(image=picture, rectangle=(17, 17, 40, 40), super_resolution_steps=3, count=2)
    *steps, result = ladder.run(request)
    patch = steps[-1].patch
    is_open = torch.from_numpy(patch.open_tokens((64, 64), (8, 8)))
    assert is_open.view(8, 8)[2:5, 2:5].all() and is_open.sum() == 9
    whole = ladder.encode([picture])
    for tokens in result.frames[-1]:
        assert tokens[~is_open].equal(whole[0, ~is_open])
    for seed in (3, 4):
        alone = ladder.result(request.model_copy(update={"count": 1, "seed": seed}))
        assert pixels(alone)[0] == pixels(result)[seed - 3]


def test_details_stay_where_an_edit_changed_nothing(ladder: MarkovGenPipeline) -> None:
    picture = noise(64, 64)
    *steps, result = ladder.run(edit(image=picture, strength=0.02, super_resolution_steps=2))
    rounds = [event for event in steps if isinstance(event, StepEvent) and event.stage.number == 0]
    assert [event.label for event in rounds] == ["round 1/2", "round 2/2"]
    coarse = picture.resize((32, 32), Image.Resampling.LANCZOS)
    changed = rounds[-1].step.tokens[0] != ladder.encode([coarse])[0]
    stayed = ~blocks(changed)
    assert 0 < changed.sum() <= 2 and result.frames[-1][0, stayed].equal(ladder.encode([picture])[0, stayed])
    assert result.images[0].transformer_calls == 4


def test_windows_climb_one_after_the_other(ladder: MarkovGenPipeline) -> None:
    *steps, result = ladder.run(outpaint(image=noise(64, 64), left=64, steps=1, super_resolution_steps=1))
    assert [event.label for event in steps] == [
        "window 1/2 · base 1/1",
        "window 1/2 · base 1/1 · super-resolution 1/1",
        "window 2/2 · base 1/1",
        "window 2/2 · base 1/1 · super-resolution 1/1",
    ]
    assert steps[-1].fraction == 1 and result.images[0].image.size == (128, 64) and len(result.frames) == 2
