"""Scenes: determinism, captions that agree with what is drawn, held-out combinations that stay held out."""

from dataclasses import replace
from hashlib import blake2b
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.data.backgrounds import VARIANTS, background
from markovgen_app.data.scenes import (
    LATTICE,
    LAYOUTS,
    Scene,
    SceneDataset,
    SceneObject,
    combination_splits,
    contact_sheet,
    covered,
    render,
)
from markovgen_app.data.sprites import save_sheet, sized_sprite, sprite, tinted
from markovgen_app.data.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    FREQUENT_NOUNS,
    NOUN_BY_NAME,
    NOUNS,
    STYLES,
    article,
    plural,
)

indices = st.integers(0, 2**40)


def test_the_vocabulary_is_as_large_as_promised_and_unambiguous():
    names = [name for noun in NOUNS for name in noun.names]
    assert len(NOUNS) >= 300 and len(FREQUENT_NOUNS) >= 120
    assert len(names) == len(set(names))
    assert len({noun.emoji for noun in NOUNS}) == len(NOUNS)
    assert len(BACKGROUNDS) >= 20 and len(STYLES) >= 7 and len(COLOURS) >= 12


def test_sprites_are_distinct_pictures():
    small = np.stack([np.asarray(sized_sprite(noun.name, 16), dtype=float).ravel() for noun in NOUNS])
    for first, second in combinations(range(len(NOUNS)), 2):
        assert abs(small[first] - small[second]).mean() > 1.0, (NOUNS[first].name, NOUNS[second].name)


@given(
    index=indices, split=st.sampled_from(["train", "test", "tune"]), vocabulary=st.sampled_from(["full", "frequent"])
)
def test_a_scene_is_a_pure_function_of_seed_split_and_index(index, split, vocabulary):
    scene = SceneDataset(3, 128, split, vocabulary).scene(index)
    assert scene == SceneDataset(3, 128, split, vocabulary).scene(index)
    assert np.array_equal(render(scene, 64), render(scene, 64))


def test_other_seeds_give_other_scenes():
    assert [SceneDataset(0).scene(i).caption for i in range(20)] != [
        SceneDataset(1).scene(i).caption for i in range(20)
    ]


def held_out(scene: Scene) -> set[str]:
    """Splits that combinations of a scene are held out for: that of every two nouns, of a noun in its surroundings.

    Trained weights have seen what this leaves to "train", so it must never change.
    """
    nouns = set(scene.nouns)
    keys = {("pair", *sorted(pair)) for pair in combinations(nouns, 2)}
    keys |= {("triple", noun, scene.background, scene.style or "plain") for noun in nouns}
    digests = {blake2b("\x1f".join(key).encode(), digest_size=4).hexdigest() for key in keys}
    return {split for digest in digests for part, split in ((0, "test"), (1, "tune")) if int(digest, 16) % 24 == part}


@given(index=indices)
def test_held_out_combinations_never_appear_in_training(index):
    scene = SceneDataset(split="train").scene(index)
    assert not held_out(scene) and combination_splits(scene) == {"train"}
    for noun in set(scene.nouns):
        alone = scene.__class__((scene.objects[scene.nouns.index(noun)],), scene.background, 0, scene.style, "single")
        assert combination_splits(alone) == {"train"}


@given(index=indices, split=st.sampled_from(["test", "tune"]))
def test_evaluation_scenes_hold_a_combination_of_their_own_split(index, split):
    scene = SceneDataset(split=split).scene(index)
    assert held_out(scene) == {split} == combination_splits(scene)


def test_about_a_twelfth_of_all_combinations_is_held_out():
    """One in 24 for each split; no training would be left if most were, no test if none were."""
    alone = [
        Scene((SceneObject(noun.name, 0.5, 0.5, 0.5),), place, 0, None, "single")
        for noun in NOUNS
        for place in BACKGROUNDS
    ]
    for split in ("test", "tune"):
        assert sum(combination_splits(scene) == {split} for scene in alone) / len(alone) == pytest.approx(
            1 / 24, rel=0.2
        )


@given(index=indices, vocabulary=st.sampled_from(["full", "frequent"]))
def test_the_caption_says_the_scene(index, vocabulary):
    scene = SceneDataset(7, vocabulary=vocabulary).scene(index)
    caption = scene.caption.lower()
    assert any(way.lower() in caption for way in BACKGROUNDS[scene.background])
    for item in scene.objects:
        noun = NOUN_BY_NAME[item.noun]
        said = [form for name in noun.names for form in (name, plural(name), name.removesuffix(" face"))]
        assert any(form.lower() in caption for form in said), (noun, caption)
        assert item.colour is None or item.colour in caption
    if scene.style:
        words = {
            "oil painting": "oil",
            "watercolor": "watercolo",
            "pencil sketch": "pencil",
            "pixel art": ("pixel", "8-bit"),
        }
        wanted = words.get(scene.style, scene.style)
        assert any(word in caption for word in ([wanted] if isinstance(wanted, str) else wanted))
    if scene.layout == "count":
        assert {2: "two", 3: "three", 4: "four"}[len(scene.objects)] in caption
    if scene.place:
        assert scene.place in caption
    assert "  " not in caption and "{" not in caption


@given(index=indices)
def test_a_caption_may_leave_the_background_open_and_then_says_the_rest(index):
    told, left = (SceneDataset(7, open_backgrounds=share).scene(index) for share in (0, 1))
    same = {"caption": "", "says_background": True}
    assert replace(told, **same) == replace(left, **same)
    if not left.objects:
        assert left == told
        return
    assert told.says_background and not left.says_background
    caption = left.caption.lower()
    assert not any(way.lower() in caption for way in BACKGROUNDS[left.background])
    assert caption == caption.strip() and "  " not in caption and "{" not in caption and not caption.startswith(",")
    for item in left.objects:
        names = NOUN_BY_NAME[item.noun].names
        assert any(
            form.lower() in caption for name in names for form in (name, plural(name), name.removesuffix(" face"))
        )


def test_the_share_of_open_backgrounds_is_met_and_checked():
    scenes = [SceneDataset(1, split="tune", open_backgrounds=0.3).scene(index) for index in range(600)]
    assert np.mean([not scene.says_background for scene in scenes]) == pytest.approx(0.3, abs=0.06)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        SceneDataset(open_backgrounds=1.5)


@given(index=indices)
def test_relations_say_where_things_are(index):
    scene = SceneDataset(9).scene(index)
    if scene.relation is None:
        return
    first, second = scene.objects
    assert {
        "next to": abs(first.x - second.x) > 0.2,
        "left of": first.x < second.x,
        "right of": first.x > second.x,
        "above": first.y < second.y,
        "below": first.y > second.y,
    }[scene.relation]


@given(index=indices)
def test_objects_lie_inside_the_picture_and_on_its_lattice(index):
    for item in SceneDataset(11, vocabulary="full").scene(index).objects:
        half = item.size / 2
        edges = [LATTICE * edge for edge in (item.x - half, item.y - half, item.x + half, item.y + half)]
        assert all(edge == int(edge) and 0 <= edge <= LATTICE for edge in edges)


def test_a_sprite_is_the_same_pixels_wherever_it_stands_on_the_lattice():
    def drawn(x: float, y: float) -> np.ndarray:
        scene = Scene((SceneObject("panda", x, y, 7 / LATTICE),), "white", 0, None, "single")
        left, top = round(128 * x) - 28, round(128 * y) - 28
        return render(scene, 128)[top : top + 56, left : left + 56]

    assert np.array_equal(drawn(3.5 / LATTICE, 3.5 / LATTICE), drawn(8.5 / LATTICE, 11.5 / LATTICE))


def test_every_layout_background_and_style_occurs():
    scenes = [SceneDataset(0).scene(i) for i in range(3000)]
    assert {s.layout for s in scenes} == set(LAYOUTS)
    assert {s.background for s in scenes} == set(BACKGROUNDS)
    assert {s.style for s in scenes} == {None, *STYLES}
    assert {s.style for s in scenes if s.layout == "empty"} > {None}


def test_layouts_are_as_frequent_as_asked_for():
    rows = SceneDataset(0, layout_shares=dict.fromkeys(LAYOUTS, 0) | {"row": 1, "pair": 3})
    found = [rows.scene(index).layout for index in range(400)]
    assert set(found) == {"pair", "row"} and 0.68 < found.count("pair") / 400 < 0.82
    same = SceneDataset(0, layout_shares={"single": 0.5})
    assert [same.scene(index) for index in range(20)] == [SceneDataset(0).scene(index) for index in range(20)]
    for wrong in ({"spiral": 1.0}, {"pair": -0.1}, dict.fromkeys(LAYOUTS, 0.0)):
        with pytest.raises(ValueError, match="layout_shares"):
            SceneDataset(0, layout_shares=wrong)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_agree_at_both_sizes(name):
    for variant in (0, VARIANTS - 1):
        small = np.asarray(background(name, variant, 128), dtype=float)
        large = np.asarray(background(name, variant, 256).resize((128, 128), 4), dtype=float)
        assert small.shape == (128, 128, 3)
        assert abs(small - large).mean() < 12


@pytest.mark.parametrize("style", STYLES)
def test_styles_change_the_picture_and_keep_its_size(style):
    dataset = SceneDataset(0)
    scene = next(s for s in map(dataset.scene, range(100)) if s.layout == "single" and s.style is None)
    styled = scene.__class__(**{**scene.__dict__, "style": style})
    for size in (128, 256):
        before, after = render(scene, size), render(styled, size)
        assert after.shape == (size, size, 3) and after.dtype == np.uint8
        assert abs(before.astype(int) - after.astype(int)).mean() > 2


def test_tints_turn_a_sprite_into_its_colour():
    for colour, target in COLOURS.items():
        pixels = np.asarray(tinted(sprite("car"), colour), dtype=float)
        mean = pixels[pixels[..., 3] > 128][:, :3].mean(axis=0)
        nearest = min(COLOURS, key=lambda name: abs(mean - np.array(COLOURS[name])).sum())
        assert nearest == colour or abs(mean - np.array(target)).mean() < 45


def test_the_sprite_sheet_stands_in_for_the_font(tmp_path, monkeypatch):
    from markovgen_app.data import sprites

    before = {name: np.asarray(sprite(name)) for name in ("panda", NOUNS[-1].name)}
    save_sheet(tmp_path / "sheet.png")
    monkeypatch.setenv(sprites.SHEET_VARIABLE, str(tmp_path / "sheet.png"))
    sprites._sheet.cache_clear()
    sprite.cache_clear()
    try:
        for name, pixels in before.items():
            assert np.array_equal(np.asarray(sprite(name)), pixels)
    finally:
        monkeypatch.undo()
        sprites._sheet.cache_clear()
        sprite.cache_clear()


def test_contact_sheet(tmp_path):
    contact_sheet(tmp_path / "new" / "sheet.png", SceneDataset(0), count=4, columns=2)
    assert (tmp_path / "new" / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "expected"), [("panda", "a"), ("owl", "an"), ("unicorn", "a"), ("UFO", "a"), ("hour", "a"), ("axe", "an")]
)
def test_articles(words, expected):
    assert article(words) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("panda", "pandas"),
        ("bus", "buses"),
        ("cherry blossom", "cherry blossoms"),
        ("slice of pizza", "slices of pizza"),
        ("maple leaf", "maple leaves"),
        ("mouse", "mice"),
        ("giraffe", "giraffes"),
        ("knife", "knives"),
        ("ladybug", "ladybugs"),
        ("face with heart eyes", "faces with heart eyes"),
    ],
)
def test_plurals(name, expected):
    assert plural(name) == expected


@given(index=indices)
def test_what_objects_cover_holds_everything_that_they_draw(index):
    scene = SceneDataset(3).scene(index)
    plain = replace(scene, style=None)
    drawn = (render(plain, 128) != render(replace(plain, objects=()), 128)).any(axis=-1)
    cells = drawn.reshape(16, 8, 16, 8).any(axis=(1, 3))  # (128, 128) -> (16, 16)
    inside = covered(scene)
    assert not (cells & ~inside).any()
    area = sum(round(16 * item.size) ** 2 for item in scene.objects)
    assert inside.sum() == area


def test_shares_of_styles_and_tints_are_met_and_checked():
    scenes = [SceneDataset(1, styled=0.6, tinted=0.4).scene(index) for index in range(600)]
    styled = [scene.style is not None for scene in scenes if scene.layout not in ("row", "grid")]
    tinted = [item.colour is not None for scene in scenes for item in scene.objects if scene.layout != "count"]
    assert 0.5 < np.mean(styled) < 0.7 and 0.34 < np.mean(tinted) < 0.46
    with pytest.raises(ValueError, match="tinted is a share from 0 to 1"):
        SceneDataset(tinted=1.2)
