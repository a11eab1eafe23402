"""What the tabs that change pictures make of their controls."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from builders import runtime_of, tiny_field, tiny_tokenizer, tiny_transformer
from PIL import Image

from markovgen_app.errors import UserError
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.ui.changes import ChangeHandlers
from markovgen_app.ui.edit import EditHandlers, edit_tab
from markovgen_app.ui.inpaint import InpaintHandlers, inpaint_tab
from markovgen_app.ui.source import editor_value, painted
from markovgen_app.ui.stage import preview_url
from markovgen_app.visitors import VisitorLimit


@pytest.fixture(scope="module")
def tabs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChangeHandlers]:
    """Both tabs, with a picture of 32 x 32 pixels."""
    first = tmp_path_factory.mktemp("first") / "example-1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(first)
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), mrf=tiny_field())
    runtime = runtime_of(pipeline)
    with gr.Blocks():
        made = [make(runtime, VisitorLimit(0, 1), first, metadata=True) for make in (inpaint_tab, edit_tab)]
    assert isinstance(made[0], InpaintHandlers) and isinstance(made[1], EditHandlers)
    return {handlers.tab: handlers for handlers in made}  # type: ignore[misc]


def values(handlers: ChangeHandlers, mask: np.ndarray | None = None, **fields: Any) -> dict[Any, Any]:
    """What a run reads, with some controls set and a mask painted."""
    read = {part: getattr(part, "value", None) for part in handlers.inputs}
    read[handlers.easel.editor] = editor_value(read[handlers.easel.source], mask)
    named = {**handlers.controls, **{name: part for own in handlers.own.values() for name, part in own.items()}}
    return read | {named[name]: value for name, value in fields.items()}


def mask_in(handlers: ChangeHandlers, answer: dict[Any, Any]) -> np.ndarray:
    """The mask that an answer has the editor show."""
    easel = handlers.easel
    shown = answer.get(easel.due) or answer[easel.editor]
    return painted(shown.get("value", shown), answer.get(easel.source, easel.source.value))


def half() -> np.ndarray:
    mask = np.zeros((32, 32), np.float32)
    mask[:, :16] = 1
    return mask


def test_the_painted_part_is_inpainted(tabs: dict[str, ChangeHandlers]) -> None:
    (request,) = tabs["inpaint"].requests(values(tabs["inpaint"], half(), prompt="an owl", seed="7", strength=0.5))
    assert isinstance(request, InpaintRequest) and (request.seed, request.strength) == (7, 0.5)
    assert np.array_equal(request.marked, half())
    for mask, says in ((None, "The mask is empty"), (np.ones((32, 32), np.float32), "covers the whole picture")):
        with pytest.raises(UserError, match=says):
            tabs["inpaint"].requests(values(tabs["inpaint"], mask, prompt="an owl"))


def test_without_a_picture_a_line_says_so(tabs: dict[str, ChangeHandlers]) -> None:
    for handlers in tabs.values():
        empty = values(handlers, prompt="an owl") | {handlers.easel.source: None, handlers.easel.editor: None}
        with pytest.raises(UserError, match="There is no picture yet"):
            handlers.requests(empty)
        assert "There is no picture yet" in handlers.easel.download(empty)[handlers.easel.notice]


def test_the_other_mode_widens(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["inpaint"]
    assert isinstance(handlers, InpaintHandlers)
    asked = values(handlers, prompt="an owl", left=8, feather=0) | {handlers.choice: "outpaint"}
    (request,) = handlers.requests(asked)
    assert isinstance(request, OutpaintRequest) and request.padding.left == 8 and request.fit == "crop"
    assert "32 × 32 → 40 × 32 pixels" in handlers.frame(asked)
    assert "32 × 32 → 64 × 32 pixels" in handlers.frame(values(handlers, aspect="2:1"))
    assert "Left must be between 0 and" in handlers.frame(values(handlers, left=99))
    assert "alert" not in handlers.frame(values(handlers))


def test_three_strengths_are_one_way(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["edit"]
    assert isinstance(handlers, EditHandlers)
    asked = values(handlers, half(), prompt="an owl", count=4) | {handlers.choice: "strip"}
    requests = handlers.requests(asked)
    assert [request.strength for request in requests if isinstance(request, EditRequest)] == [0.25, 0.5, 1.0]
    assert len({request.seed for request in requests}) == 1 and requests[0].seed is not None
    assert all(request.count == 1 for request in requests)
    assert handlers.captions(requests) == ["Subtle", "Medium", "Strong"]
    (alone,) = handlers.requests(values(handlers, half(), prompt="an owl", strength=0.3))
    assert isinstance(alone, EditRequest) and alone.strength == 0.3 and handlers.captions([alone]) == ()
    assert alone.marked is not None and np.array_equal(alone.marked, 1 - half()), "what is painted stays"


def test_an_edit_may_see_a_square_and_redraw_all_of_it(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["edit"]
    for fields in ({"fit": "letterbox", "keep_outside": True}, {"fit": "crop", "keep_outside": False}):
        (request,) = handlers.requests(values(handlers, prompt="an owl", **fields))
        assert {name: getattr(request, name) for name in fields} == fields
        filled = handlers.settings({**request.model_dump(), "task": "edit"})
        assert {name: filled[handlers.own["edit"][name]] for name in fields} == fields
    shown = handlers.show_tokens(values(handlers, half(), keep_outside=False))[handlers.easel.shown]
    assert "are drawn again" in shown["says"]


def test_a_picture_from_another_tab_brings_its_words_and_seed(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["edit"]
    image = Image.new("RGB", (32, 32), "red")
    event = SimpleNamespace(settings=json.dumps({"prompt": "two owls", "seed": 12, "steps": 3}), src=preview_url(image))
    filled = handlers.receive(values(handlers, half()), event)  # type: ignore[arg-type]
    assert filled[handlers.controls["prompt"]] == "two owls" and filled[handlers.controls["seed"]] == 12
    assert handlers.own["edit"]["strength"] not in filled
    assert filled[handlers.easel.source].image.tobytes() == image.tobytes()
    assert not mask_in(handlers, filled).any(), "its mask was for another picture"
    event = SimpleNamespace(settings=json.dumps({"prompt": "an owl", "seed": 3}), src=preview_url(image))  # stopped
    filled = handlers.receive(values(handlers, half()), event)  # type: ignore[arg-type]
    assert filled[handlers.controls["prompt"]] == "an owl" and filled[handlers.easel.source].size == (32, 32)
    event = SimpleNamespace(settings=None, src=preview_url(image))
    filled = handlers.receive(values(handlers, half()), event)  # type: ignore[arg-type]
    assert np.array_equal(mask_in(handlers, filled), half()), "a result as the next input keeps the mask"
    event = SimpleNamespace(settings=None, src=preview_url(image.resize((48, 32))))
    filled = handlers.receive(values(handlers, half()), event)  # type: ignore[arg-type]
    assert not mask_in(handlers, filled).any(), "which does not fit another size"
    event = SimpleNamespace(settings=None, src="data:image/png;base64,AAAA")
    assert set(handlers.receive(values(handlers), event)) == {handlers.easel.notice}  # type: ignore[arg-type]


def test_a_large_picture_is_worked_on_at_its_own_size(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["inpaint"]
    large = Image.fromarray(np.random.default_rng(1).integers(0, 256, (320, 2304, 3), dtype=np.uint8))
    event = SimpleNamespace(settings=None, src=preview_url(large))
    filled = handlers.receive(values(handlers), event)  # type: ignore[arg-type]
    source = filled[handlers.easel.source]
    assert source.size == (2304, 320) and filled[handlers.easel.due]["background"].size == source.shown == (1024, 142)
    mask = np.zeros((320, 2304), np.float32)
    mask[:, 1152:] = 1
    there = values(handlers, prompt="an owl", steps=1, feather=0)
    there |= {handlers.easel.source: source, handlers.easel.editor: editor_value(source, mask)}
    *_, result = handlers.runtime.run(handlers.requests(there)[0])
    made = np.asarray(result.images[0].image)  # type: ignore[union-attr]
    assert made.shape == (320, 2304, 3) and np.array_equal(made[:, :1150], np.asarray(large)[:, :1150])
    assert not np.array_equal(made[:, 1154:], np.asarray(large)[:, 1154:])
    stays = handlers.receive(there, event)  # type: ignore[arg-type]
    assert np.array_equal(mask_in(handlers, stays), handlers.easel.mask(there)), "used as input, it keeps its mask"


def test_a_new_picture_has_no_mask_of_the_one_before(tabs: dict[str, ChangeHandlers], tmp_path: Path) -> None:
    """Whoever is quick presses while the editor still holds what was painted on another picture."""
    easel = tabs["edit"].easel
    there = values(tabs["edit"], half()) | {easel.shown: None}
    Image.new("RGB", (48, 64)).save(tmp_path / "other.png")
    answer = easel.open(there, str(tmp_path / "other.png"))
    soon = there | {easel.source: answer[easel.source], easel.last: answer[easel.last]}
    mask = easel.mask(soon)
    assert mask.shape == (64, 48) and not mask.any() and easel.mask(there).any()
    assert set(easel.download(soon)[easel.shown]["save"]) == {"src", "name", "ticket"}
    marked = easel.mark(soon | dict(zip(easel.edges, (0, 0, 9, 9), strict=True)))
    assert mask_in(tabs["edit"], marked | {easel.source: soon[easel.source]}).sum() == 81


def test_a_picture_made_here_gives_back_all_its_settings(tabs: dict[str, ChangeHandlers]) -> None:
    handlers = tabs["inpaint"]
    assert isinstance(handlers, InpaintHandlers)
    asked = values(handlers, prompt="an owl", left=8, steps=1) | {handlers.choice: "outpaint"}
    *_, result = handlers.runtime.run(handlers.requests(asked)[0])
    filled = handlers.settings(result.images[0].settings)  # type: ignore[union-attr]
    assert filled[handlers.choice] == "outpaint" and filled[handlers.own["outpaint"]["left"]] == 8
    assert filled[handlers.controls["steps"]] == 1


def test_a_broken_file_changes_nothing(tabs: dict[str, ChangeHandlers], tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    huge = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(huge, "PNG")
    (tmp_path / "huge.png").write_bytes(huge.getvalue())
    easel = tabs["edit"].easel
    for name, says in (("words.png", "no picture that can be read"), ("huge.png", "shrink it")):
        there = values(tabs["edit"]) | {easel.shown: None}
        for answer in (easel.open(there, str(tmp_path / name)), easel.load(there, str(tmp_path / name))):
            assert set(answer) == {easel.notice, easel.shown} and says in answer[easel.notice]


def test_every_change_can_be_undone(tabs: dict[str, ChangeHandlers], tmp_path: Path) -> None:
    handlers = tabs["inpaint"]
    easel = handlers.easel
    Image.new("RGB", (48, 32), "teal").save(tmp_path / "other.png")
    Image.fromarray(np.uint8(255 * (1 - half()))).save(tmp_path / "mask.png")
    there = values(handlers, half()) | {easel.shown: None, **dict.fromkeys(easel.edges, 9)}
    there[easel.edges[2]] = there[easel.edges[3]] = 32
    sent = SimpleNamespace(settings=None, src=preview_url(Image.new("RGB", (48, 32), "red")))
    changes = {
        "clear": easel.changed(there, lambda mask, source: None),
        "mark": easel.mark(there),
        "load": easel.load(there, str(tmp_path / "mask.png")),
        "open": easel.open(there, str(tmp_path / "other.png")),
        "receive": handlers.receive(there, sent),  # type: ignore[arg-type]
    }
    for name, changed in changes.items():
        after = mask_in(handlers, changed)
        assert not np.array_equal(after, half()), name
        source = changed.get(easel.source, there[easel.source])
        now = {easel.source: source, easel.editor: editor_value(source, after), easel.last: changed[easel.last]}
        back = easel.undo(now)
        assert back[easel.source] is there[easel.source], name
        assert np.array_equal(mask_in(handlers, back), half()) and back[easel.shown]["painted"], name
        if source.size != (32, 32):
            assert back[easel.editor]["value"] is None, "the editor is emptied for a picture of another size"
        again = easel.undo({**back, easel.editor: editor_value(back[easel.source], half())})
        assert again[easel.source] is source and np.array_equal(mask_in(handlers, again), after), name
    assert "nothing to undo" in easel.undo(there | {easel.last: None})[easel.notice]
    assert set(easel.open(there, str(tmp_path / "nowhere.png"))) == {easel.notice, easel.shown}, "no step of its own"


def test_a_picture_that_the_page_shrunk_has_its_own_size(tabs: dict[str, ChangeHandlers], tmp_path: Path) -> None:
    easel = tabs["edit"].easel
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    for told, given in (({"given": [5712, 4284]}, (5712, 4284)), ({"given": ["x", 1]}, (64, 48)), (None, (64, 48))):
        answer = easel.open(values(tabs["edit"]) | {easel.shown: told}, str(tmp_path / "photo.png"))
        assert answer[easel.source].given == given
        loaded = easel.load({**values(tabs["edit"]), easel.shown: told}, str(tmp_path / "photo.png"))
        assert f"The mask is {given[0]} × {given[1]} pixels and the picture 32 × 32" in loaded[easel.notice]
        assert ("Shrunk from 5,712 × 4,284 to 64 × 48 pixels" in answer[easel.notice]) == (given == (5712, 4284))
