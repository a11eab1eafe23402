"""The picture-book world: scenes of emoji sprites on drawn backgrounds, rendered, captioned and checkable.

A scene is a pure function of (seed, split, index). Sprites stand on a lattice of 16 × 16 cells, the token grid of a
picture of 128 px, are whole cells wide, and have their place by the caption: a small model then meets a sprite as the
same tokens again and again.
Held-out combinations, chosen by hash, appear in no training scene: pairs of nouns, and noun × background × style
triples. The "test" split holds one part of them, "tune" another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from . import styles
from .backgrounds import VARIANTS, background
from .sprites import sized_sprite
from .vocabulary import BACKGROUNDS, COLOURS, FREQUENT_NOUNS, NOUN_BY_NAME, NOUNS, STYLES, Noun, article, plural

Split = Literal["train", "test", "tune"]
Vocabulary = Literal["full", "frequent"]
_SPLITS: tuple[Split, ...] = ("train", "test", "tune")
VOCABULARIES: dict[str, tuple[Noun, ...]] = {"full": NOUNS, "frequent": FREQUENT_NOUNS}
LATTICE = 16  # cells a side
_HELD_OUT_ONE_IN = 24  # share of combinations that goes to each of "test" and "tune"

Layout = Literal["single", "pair", "count", "row", "grid", "empty"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_LAYOUT_SHARES = (0.50, 0.25, 0.08, 0.06, 0.07, 0.04)

STYLED = 0.22
"""Share of the scenes that are drawn in a style, if their layout can be."""

TINTED = 0.1
"""Share of the objects that are in a colour which is not their own."""
RELATIONS = ("next to", "left of", "right of", "above", "below")
_NUMBERS = {2: "two", 3: "three", 4: "four"}
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (0.27, 0.5),
    "on the right": (0.73, 0.5),
    "at the top": (0.5, 0.28),
    "at the bottom": (0.5, 0.72),
    "in the top left corner": (0.27, 0.27),
    "in the top right corner": (0.73, 0.27),
    "in the bottom left corner": (0.27, 0.73),
    "in the bottom right corner": (0.73, 0.73),
}


@dataclass(frozen=True)
class SceneObject:
    """One sprite: centre (x, y) and size in units of the picture's side, edges on the lattice; a tint or None."""

    noun: str
    x: float
    y: float
    size: float
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows, and the caption that says it, all but the background if that is left open."""

    objects: tuple[SceneObject, ...]
    background: str
    variant: int
    style: str | None
    layout: str
    relation: str | None = None
    place: str | None = None
    caption: str = ""
    says_background: bool = True

    @property
    def nouns(self) -> tuple[str, ...]:
        return tuple(item.noun for item in self.objects)


@lru_cache(maxsize=1 << 20)
def _bucket(*words: str) -> int:
    digest = hashlib.blake2b("\x1f".join(words).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % _HELD_OUT_ONE_IN


def combination_splits(scene: Scene) -> set[Split]:
    """The splits that the scene's combinations belong to; {"train"} where none is held out."""
    nouns = sorted(set(scene.nouns))
    buckets = {_bucket("pair", *pair) for pair in combinations(nouns, 2)}
    buckets |= {_bucket("triple", noun, scene.background, scene.style or "plain") for noun in nouns}
    found: set[Split] = {split for value, split in ((0, "test"), (1, "tune")) if value in buckets}  # type: ignore[misc]
    return found or {"train"}


def covered(scene: Scene, cells: int = LATTICE) -> np.ndarray:
    """(cells, cells) bool: where on a grid over the picture the squares of its objects are."""
    grid = np.zeros((cells, cells), dtype=bool)
    for item in scene.objects:
        left, top = (math.floor(cells * (centre - item.size / 2) + 0.5) for centre in (item.x, item.y))
        side = round(cells * item.size)
        grid[max(top, 0) : top + side, max(left, 0) : left + side] = True
    return grid


class SceneDataset:
    """An endless, deterministic stream of scenes.

    Args:
        seed: another seed, another stream.
        size: side of the rendered pictures in pixels.
        split: "train" never shows a held-out combination; every "test" and "tune" scene shows at least one of its own
            (pictures without objects hold no combination and stay in "train"). Layouts are as frequent in every split.
        vocabulary: "frequent" (the first nouns of the table) or "full".
        layout_shares: how frequent layouts are among each other, each from 0; those not named stay as they are.
        open_backgrounds: share of captions that say nothing of the background, as in "a panda": any will do.
        styled: share of the scenes that are drawn in a style; rows and grids never are.
        tinted: share of the objects that are in a colour which is not their own.

    Raises:
        ValueError: no such split, vocabulary or layout, shares below 0 or all 0, or a share that is not within 0 … 1.
    """

    def __init__(
        self,
        seed: int = 0,
        size: int = 128,
        split: Split = "train",
        vocabulary: Vocabulary = "frequent",
        layout_shares: Mapping[Layout, float] | None = None,
        open_backgrounds: float = 0.0,
        styled: float = STYLED,
        tinted: float = TINTED,
    ) -> None:
        if split not in _SPLITS or vocabulary not in VOCABULARIES:
            raise ValueError(f"split is one of {_SPLITS}, vocabulary one of {tuple(VOCABULARIES)}")
        shares = dict(zip(LAYOUTS, _LAYOUT_SHARES, strict=True)) | dict(layout_shares or {})
        if tuple(shares) != LAYOUTS or min(shares.values()) < 0 or not any(shares.values()):
            raise ValueError(f"layout_shares are from 0, not all 0, of {', '.join(LAYOUTS)}")
        for name, share in {"open_backgrounds": open_backgrounds, "styled": styled, "tinted": tinted}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {share}")
        self.open_backgrounds, self.styled, self.tinted = open_backgrounds, styled, tinted
        self._shares = np.array(list(shares.values()))
        if split != "train":
            self._shares[LAYOUTS.index("empty")] = 0
        self.seed, self.size, self.split = seed, size, split
        self.vocabulary: Vocabulary = vocabulary
        self.nouns = VOCABULARIES[vocabulary]

    def scene(self, index: int) -> Scene:
        """Scene `index`: of its own random stream, a layout, then the first draw of it that belongs to this split."""
        generator = np.random.default_rng((self.seed, _SPLITS.index(self.split), index))
        layout = LAYOUTS[int(generator.choice(len(LAYOUTS), p=self._shares / self._shares.sum()))]
        while True:
            scene = _draw_scene(generator, self.nouns, layout, self.styled, self.tinted)
            if combination_splits(scene) == {self.split}:
                if scene.objects and self.open_backgrounds:
                    scene = replace(scene, says_background=bool(generator.random() >= self.open_backgrounds))
                return replace(scene, caption=_caption(scene, generator))

    def render(self, scene: Scene, size: int | None = None) -> np.ndarray:
        """The scene's picture, (size, size, 3) uint8."""
        return render(scene, size or self.size)

    def __getitem__(self, index: int) -> tuple[Scene, np.ndarray]:
        scene = self.scene(index)
        return scene, self.render(scene)


def _choose(generator: np.random.Generator, options: Iterable):
    options = tuple(options)
    return options[int(generator.integers(len(options)))]


def _different(generator: np.random.Generator, nouns: tuple[Noun, ...], count: int) -> list[str]:
    return [nouns[int(i)].name for i in generator.choice(len(nouns), count, replace=False)]


def _draw_scene(
    generator: np.random.Generator, nouns: tuple[Noun, ...], layout: str, styled: float, tinted: float
) -> Scene:
    has_style = generator.random() < styled and layout in ("single", "pair", "count", "empty")
    style = _choose(generator, STYLES) if has_style else None
    scenery = _choose(generator, BACKGROUNDS)
    relation = place = None

    def thing(x: float, y: float, cells: int, noun: str | None = None) -> SceneObject:
        colour = _choose(generator, COLOURS) if generator.random() < tinted else None
        left, top = (min(max(round(LATTICE * each - cells / 2), 0), LATTICE - cells) for each in (x, y))
        return SceneObject(
            noun=noun or _choose(generator, nouns).name,
            x=(left + cells / 2) / LATTICE,
            y=(top + cells / 2) / LATTICE,
            size=cells / LATTICE,
            colour=colour,
        )

    if layout == "single":
        if generator.random() < 0.25:
            place = _choose(generator, PLACES)
            objects = [thing(*PLACES[place], 7)]
        else:
            objects = [thing(0.5, 0.52, _choose(generator, (10, 12)))]
    elif layout == "pair":
        relation = _choose(generator, RELATIONS)
        first, second = {
            "next to": ((0.27, 0.52), (0.73, 0.52)),
            "left of": ((0.27, 0.52), (0.73, 0.52)),
            "right of": ((0.73, 0.52), (0.27, 0.52)),
            "above": ((0.5, 0.27), (0.5, 0.73)),
            "below": ((0.5, 0.73), (0.5, 0.27)),
        }[relation]
        if relation == "next to" and generator.random() < 0.5:
            first, second = second, first
        one, two = _different(generator, nouns, 2)
        objects = [thing(*first, 7, one), thing(*second, 7, two)]
    elif layout == "count":
        number = int(generator.integers(2, 5))
        centres = {
            2: [(0.27, 0.52), (0.73, 0.52)],
            3: [(0.5, 0.27), (0.27, 0.72), (0.73, 0.72)],
            4: [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)],
        }[number]
        template = thing(0.5, 0.5, 7)
        objects = [replace(thing(x, y, 7, template.noun), colour=template.colour) for x, y in centres]
    elif layout == "row":
        names = _different(generator, nouns, 3)
        objects = [thing(x, 0.55, 5, name) for x, name in zip((0.17, 0.5, 0.83), names, strict=True)]
    elif layout == "grid":
        faces = tuple(noun for noun in nouns if noun.name.endswith("face"))
        names = _different(generator, faces if generator.random() < 0.3 else nouns, 4)
        centres = [(x, y) for y in (0.27, 0.73) for x in (0.27, 0.73)]
        objects = [thing(x, y, 7, name) for (x, y), name in zip(centres, names, strict=True)]
    else:
        objects = []
    return Scene(tuple(objects), scenery, int(generator.integers(VARIANTS)), style, layout, relation, place)


def _phrase(item: SceneObject, generator: np.random.Generator, *, with_article: bool = True, many: bool = False) -> str:
    noun = NOUN_BY_NAME[item.noun]
    name = noun.name if generator.random() < 0.7 else _choose(generator, noun.names)
    if many and not noun.plural_only:
        name = plural(name)
    words = f"{item.colour} {name}" if item.colour else name
    if not with_article or many or (noun.plural_only and name == noun.name):
        return words
    return f"{'the' if generator.random() < 0.08 else article(words)} {words}"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _caption(scene: Scene, generator: np.random.Generator) -> str:
    """One of many ways to say the scene."""
    ways = BACKGROUNDS[scene.background]
    where = ways[0] if generator.random() < 0.5 else _choose(generator, ways)
    where = where if scene.says_background else ""
    items = scene.objects
    if scene.layout == "empty":
        scenery = _choose(generator, (f"nothing {where}", f"an empty scene {where}", f"just the background, {where}"))
        return _choose(generator, STYLES[scene.style]).format(scenery) if scene.style else scenery
    if scene.layout == "single":
        what = _phrase(items[0], generator)
        if scene.place:
            what = f"{what} {scene.place}"
        elif generator.random() < 0.12:
            verb = _choose(generator, ("standing", "sitting", "resting", "alone", "in the middle"))
            what = f"{what} {verb}" if not where.startswith("cooking") else what
        elif generator.random() < 0.12:
            what = _choose(generator, ("a picture of {}", "a photo of {}", "an image of {}", "there is {}")).format(
                what
            )
    elif scene.layout == "pair":
        first, second = (_phrase(item, generator) for item in items)
        relation = {
            "next to": ("next to", "beside", "and"),
            "left of": ("to the left of", "left of"),
            "right of": ("to the right of", "right of"),
            "above": ("above", "over", "on top of"),
            "below": ("below", "under", "beneath"),
        }[scene.relation or "next to"]
        what = f"{first} {_choose(generator, relation)} {second}"
    elif scene.layout == "count":
        what = f"{_NUMBERS[len(items)]} {_phrase(items[0], generator, many=True)}"
    elif scene.layout == "row":
        phrases = [_phrase(item, generator) for item in items]
        what = _choose(generator, ("{} in a row", "{}", "{} side by side")).format(_listed(phrases))
    elif all(item.noun.endswith("face") and not item.colour for item in items) and generator.random() < 0.6:
        moods = _listed([item.noun.removesuffix(" face") for item in items])
        what = f"{_choose(generator, ('a set of 2x2 emoji icons with', 'four emoji', 'a grid of'))} {moods} faces"
    else:
        names = _listed([_phrase(item, generator) for item in items])
        what = f"{_choose(generator, ('a set of 2x2 emoji icons with', 'a grid of', 'a 2x2 grid with'))} {names}"
    swapped = generator.random() < 0.15 and where and ". " not in where
    text = f"{where}, {what}" if swapped else f"{what} {where}".rstrip()
    if scene.style:
        template = _choose(generator, STYLES[scene.style])
        before_where = template.startswith("{}") and text.startswith(what) and generator.random() < 0.5
        text = f"{template.format(what)} {where}".rstrip() if before_where else template.format(text)
    return _finished(text, generator)


def _finished(text: str, generator: np.random.Generator) -> str:
    text = text[0].upper() + text[1:] if generator.random() < 0.5 else text
    return text + "." if generator.random() < 0.3 else text


def render(scene: Scene, size: int) -> np.ndarray:
    """Draw a scene: (size, size, 3) uint8."""
    scenery = background(scene.background, scene.variant, size)
    layer = Image.new("RGBA", (size, size)) if scene.style == "graffiti" else scenery.copy()
    for item in scene.objects:
        pixels = max(2, round(item.size * size / 2) * 2)
        picture = sized_sprite(item.noun, pixels, item.colour)
        corner = (max(0, round(item.x * size - pixels / 2)), max(0, round(item.y * size - pixels / 2)))
        if layer.mode == "RGBA":
            layer.alpha_composite(picture, corner)
        else:
            layer.paste(picture, corner, picture)
    if scene.style == "graffiti":
        layer = styles.graffiti(scenery, layer)
    elif scene.style is not None:
        layer = styles.STYLE_FILTERS[scene.style](layer)
    return np.asarray(layer)


def contact_sheet(path: Path, dataset: SceneDataset, count: int = 48, columns: int = 8) -> None:
    """Write the first `count` scenes with their captions as one PNG."""
    cell, text_height = dataset.size, 44
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (cell + 8), rows * (cell + text_height)), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        scene, picture = dataset[index]
        x, y = (index % columns) * (cell + 8), (index // columns) * (cell + text_height)
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.multiline_text((x, y + cell + 1), wrapped(scene.caption, cell // 6), fill="black", spacing=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Text cut into at most `lines` lines of at most `width` characters."""
    out, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            out.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*out, line][:lines])
