"""Pictures to change, of which the right result is known: held-out scenes in which one thing becomes another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Literal

import numpy as np

from ..data.scenes import Scene, SceneDataset, combination_splits, render
from ..data.vocabulary import BACKGROUNDS, NOUN_BY_NAME, STYLES, article
from ..decoding import masks

Task = Literal["inpaint", "edit"]
Change = Literal["replaced", "removed", "noun", "background"]
CHANGES: dict[Task, tuple[Change, ...]] = {"inpaint": ("replaced", "removed"), "edit": ("noun", "background")}
_MARGIN = 0.03  # of the picture's side: how much a mask reaches beyond the object that it covers


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to change, and what it should become.

    Attributes:
        scene, picture: before, (H, W, 3) uint8.
        target, truth: after.
        prompt: what it shows after; `source_prompt` says what it shows before.
        mask: (H, W) float32 over the object.
    """

    scene: Scene
    picture: np.ndarray
    target: Scene
    truth: np.ndarray
    prompt: str
    source_prompt: str
    mask: np.ndarray


def cases(scenes: SceneDataset, change: Change, number: int, size: int) -> list[Case]:
    """The first cases of one kind; where the scene after has a combination to hold out, it is of the split too."""
    single = (scene for scene in map(scenes.scene, count()) if scene.layout == "single")
    return [_case(scene, change, index, scenes, size) for index, scene in enumerate(islice(single, number))]


def _case(scene: Scene, change: Change, index: int, scenes: SceneDataset, size: int) -> Case:
    generator = np.random.default_rng((scenes.seed, index, 7))
    item = scene.objects[0]
    if change == "removed":
        target = replace(scene, objects=())
    elif change == "background":
        others = [name for name in BACKGROUNDS if name != scene.background]
        target = _held_out([replace(scene, background=name) for name in others], scenes, generator)
    else:
        others = [noun.name for noun in scenes.nouns if noun.name != item.noun]
        changed = [replace(scene, objects=(replace(item, noun=name, colour=None),)) for name in others]
        target = _held_out(changed, scenes, generator)
    half = item.size / 2 + _MARGIN
    box = [round(edge * size) for edge in (item.x - half, item.y - half, item.x + half, item.y + half)]
    mask = masks.rectangle(size, size, (max(0, box[0]), max(0, box[1]), min(size, box[2]), min(size, box[3])))
    return Case(scene, render(scene, size), target, render(target, size), _said(target), _said(scene), mask)


def _held_out(options: Sequence[Scene], scenes: SceneDataset, generator: np.random.Generator) -> Scene:
    fitting = [scene for scene in options if combination_splits(scene) == {scenes.split}] or options
    return fitting[int(generator.integers(len(fitting)))]


def _said(scene: Scene) -> str:
    """A scene of one object, or none, in its plainest words."""
    where = BACKGROUNDS[scene.background][0]
    if not scene.objects:
        text = f"nothing {where}"
    else:
        item = scene.objects[0]
        words = f"{item.colour} {item.noun}" if item.colour else item.noun
        text = f"{words if NOUN_BY_NAME[item.noun].plural_only else f'{article(words)} {words}'} {where}"
    return STYLES[scene.style][0].format(text) if scene.style else text
