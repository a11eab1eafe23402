"""A comparison on paper, and in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import runtime_of, text_encoder, tiny_ladder, tiny_pipeline, tiny_tokenizer, tiny_transformer
from PIL import Image

from markovgen_app import sheets
from markovgen_app.compare import Comparison, compare
from markovgen_app.errors import UserError
from markovgen_app.methods import NAMES
from markovgen_app.palette import ACCENT, PAPER
from markovgen_app.pictures import read_settings
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest


def compared(
    *methods: str, field: bool = True, prompt: str = "a panda", pipeline: MarkovGenPipeline | None = None
) -> Comparison:
    bare = None if field else MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder())
    runtime = runtime_of(pipeline or bare or tiny_pipeline())
    *_, comparison = compare(runtime, GenerateRequest(prompt=prompt, steps=8, exit_step=3, seed=5), methods)
    assert isinstance(comparison, Comparison)
    return comparison


@pytest.fixture(scope="module")
def all_methods() -> Comparison:
    return compared(*NAMES)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


def holds(page: Image.Image, picture: Image.Image, side: int) -> bool:
    """Whether a picture, enlarged to `side`, is anywhere on the page."""
    wanted = pixels(picture.resize((side, side), Image.Resampling.LANCZOS))
    shown = pixels(page)
    for y, x in np.argwhere((shown[: -side + 1, : -side + 1] == wanted[0, 0]).all(axis=-1)):
        if np.array_equal(shown[y : y + side, x : x + side], wanted):
            return True
    return False


def test_the_grid_shows_every_method_unretouched(all_methods: Comparison) -> None:
    page = sheets.methods_sheet(all_methods)
    assert all(holds(page, entry.picture.image, 384) for entry in all_methods.entries.values())
    assert page.getpixel((2, 2)) == tuple(bytes.fromhex(PAPER[0][1:]))


def test_the_words_of_a_method(all_methods: Comparison) -> None:
    entries = all_methods.entries
    assert [sheets.steps_text(entries[name]) for name in ("full", "markovgen", "halton")] == [
        *("8 of 8", "3 of 8", "3 of 3"),
    ]
    assert sheets.cost_text(entries["full"]).startswith("8 transformer calls · ")
    assert sheets.cost_text(entries["full"]).endswith(" s · the reference")
    assert f"· {entries['halton'].speedup:.2f}× full" in sheets.cost_text(entries["halton"])
    alone = compared("early-exit", "markovgen").entries["markovgen"]
    assert "×" not in sheets.cost_text(alone), "no ratio to a run that was not made"
    made = alone.refinement
    assert made is not None
    assert sheets.energy_text(made) == f"Energy {made.energy_before:,.1f} → {made.energy_after:,.1f} nats".replace(
        "-", "−"
    )


def test_the_map_frames_what_changed_and_fades_the_rest() -> None:
    image = Image.new("RGB", (32, 32), (0, 90, 200))
    changed = np.zeros((4, 4), dtype=bool)
    changed[1, 2] = True
    panel = pixels(sheets.token_map(image, changed, side=64))
    accent = tuple(bytes.fromhex(ACCENT[0][1:]))
    framed = (panel == accent).all(axis=-1)
    assert framed[16:32, 32:48].sum() == 16**2 - 12**2 and framed.sum() == 16**2 - 12**2
    assert tuple(panel[24, 40]) == (0, 90, 200) and not (panel[:16] == (0, 90, 200)).all(axis=-1).any()


def test_changes_and_film_are_there_only_where_something_is_to_show(all_methods: Comparison) -> None:
    changes, film = sheets.changes_sheet(all_methods), sheets.film_sheet(all_methods)
    made = all_methods.entries["markovgen"].refinement
    assert changes is not None and made is not None and holds(changes, made.plain, 384)
    assert film is not None
    for column in all_methods.film:
        assert column.refined is not None
        assert holds(film, column.plain, 160) and holds(film, column.refined, 160)
    bare = compared("full", "halton", field=False)
    assert sheets.changes_sheet(bare) is None
    strip = sheets.film_sheet(bare)
    assert strip is not None and strip.height < film.height, "one row without a field"
    assert sheets.film_sheet(compared("early-exit", "halton")) is None


def test_of_several_stages_the_last_one_with_a_field_is_shown() -> None:
    comparison = compared("full", "markovgen", pipeline=tiny_ladder())
    made = comparison.entries["markovgen"].refinement
    page = sheets.changes_sheet(comparison)
    assert made is not None and page is not None and holds(page, made.refined, 384) and made.refined.size == (64, 64)
    assert sheets.changed_text(made).endswith(" tokens left at super-resolution step 3 came out differently")
    report = sheets.entry_report(comparison.entries["markovgen"])
    assert list(report["random_field_by_stage"]) == ["base", "super-resolution"]
    assert report["random_field"] == report["random_field_by_stage"]["super-resolution"]
    lacking = compared("full", "markovgen", pipeline=tiny_ladder(field=False))
    made, film = lacking.entries["markovgen"].refinement, sheets.film_sheet(lacking)
    page = sheets.changes_sheet(lacking)
    assert made is not None and page is not None and holds(page, made.plain, 384) and made.plain.size == (32, 32)
    assert film is not None and all(holds(film, column.plain, 160) for column in lacking.film)


def test_a_folder_holds_one_comparison(all_methods: Comparison, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"not ours")
    report = sheets.write(all_methods, tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == report
    assert [image["method"] for image in report["images"]] == list(NAMES)
    for image in report["images"]:
        settings = read_settings(image["path"])
        assert (settings.method, settings.seed, settings.steps) == (image["method"], 5, 8)
        with Image.open(image["path"]) as picture:
            assert picture.size == (image["width"], image["height"])
    made = all_methods.entries["markovgen"].refinement
    assert made is not None and report["images"][2]["random_field"] == {
        "tokens_undecided": made.undecided,
        "tokens_changed": int(made.changed.sum()),
        "energy_before": pytest.approx(made.energy_before, abs=1e-3),
        "energy_after": pytest.approx(made.energy_after, abs=1e-3),
    }
    sheets.write(compared("full", "halton", field=False), tmp_path, metadata=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("full.png", "halton.png", "grid.png", "filmstrip.png", "comparison.json", "mine.png")
    }
    assert not Image.open(tmp_path / "full.png").info


def test_a_folder_that_cannot_be_written_is_said(all_methods: Comparison, tmp_path: Path) -> None:
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(UserError, match="choose another folder"):
        sheets.write(all_methods, tmp_path)


def test_long_and_foreign_prompts_fit_on_the_page() -> None:
    comparison = compared("full", "halton", prompt="猫 " + "panda " * 160)
    page = sheets.methods_sheet(comparison)
    margin = pixels(page)[:, -20:]
    assert (margin == np.array(tuple(bytes.fromhex(PAPER[0][1:])))).all(), "nothing runs over the right margin"
