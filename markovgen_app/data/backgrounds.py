"""Drawn backgrounds: one small function each, from a seeded generator to a picture of any size.

Every drawing uses units of one picture side, so that 128 and 256 px versions of one variant show the same scene.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .vocabulary import BACKGROUNDS

VARIANTS = 12
_SUPERSAMPLING = 2

Colour = tuple[int, int, int]


class Canvas:
    """A square picture drawn in units of its side, `_SUPERSAMPLING` times finer than the result."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self.size = size
        self.generator = generator
        self.image = Image.new("RGB", (size * _SUPERSAMPLING,) * 2)
        self.draw = ImageDraw.Draw(self.image)

    def jitter(self, colour: Colour, amount: int = 10) -> Colour:
        shift = self.generator.integers(-amount, amount + 1, 3) + self.generator.integers(-amount, amount + 1)
        red, green, blue = np.clip(np.array(colour) + shift, 0, 255).tolist()
        return red, green, blue

    def between(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def pixels(self, *values: float) -> list[float]:
        return [value * self.image.width for value in values]

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        x0, y0, x1, y1 = self.pixels(x0, y0, x1, y1)
        self.draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, squash: float = 1.0) -> None:
        bounds = self.pixels(x - radius, y - radius * squash, x + radius, y + radius * squash)
        self.draw.ellipse(tuple(bounds), fill=colour)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([tuple(self.pixels(x, y)) for x, y in points], fill=colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        thickness = max(1, round(width * self.image.width))
        self.draw.line([tuple(self.pixels(x, y)) for x, y in points], fill=colour, width=thickness, joint="curve")

    def gradient(self, top: Colour, bottom: Colour, y0: float = 0.0, y1: float = 1.0) -> None:
        start, stop = (round(v) for v in self.pixels(y0, y1))
        ramp = np.linspace(top, bottom, max(1, stop - start))[:, None, :].astype(np.uint8)
        self.image.paste(Image.fromarray(ramp).resize((self.image.width, max(1, stop - start))), (0, start))

    def wave(self, level: float, height: float, colour: Colour, waves: float = 2.0, base: float = 1.0) -> None:
        """Everything from a wavy line at `level` down to `base`."""
        phase = self.between(0, 2 * np.pi)
        xs = np.linspace(0, 1, 33)
        ys = level + height * np.sin(2 * np.pi * waves * xs + phase)
        self.polygon([(0, base), *zip(xs.tolist(), ys.tolist(), strict=True), (1, base)], colour)

    def finished(self) -> Image.Image:
        return self.image.resize((self.size, self.size), Image.Resampling.BOX)


def _plain(colour: Colour) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.box(0, 0, 1, 1, canvas.jitter(colour, 6))

    return draw


def _sunset(c: Canvas) -> None:
    c.gradient(c.jitter((90, 60, 140)), c.jitter((255, 150, 70)), 0, 0.75)
    c.disc(c.between(0.25, 0.75), 0.72, 0.13, (255, 225, 120))
    c.box(0, 0.75, 1, 1, c.jitter((80, 50, 90)))


def _rainbow(c: Canvas) -> None:
    hues = (np.linspace(0, 255, c.image.width) + c.between(0, 255)).astype(np.uint8) % 255
    hsv = np.stack(np.broadcast_arrays(hues[None, :], np.uint8(130), np.uint8(245)), axis=-1)
    c.image.paste(Image.fromarray(np.ascontiguousarray(hsv), "HSV").convert("RGB").resize(c.image.size))


def _bricks(c: Canvas, top: float = 0.0, bottom: float = 1.0, brick: Colour = (178, 84, 62)) -> None:
    c.box(0, top, 1, bottom, (208, 196, 184))
    height, width, gap = 0.125, 0.25, 0.014
    base = c.jitter(brick, 12)
    for row in range(round((bottom - top) / height)):
        for column in range(-1, 5):
            x, y = (column + 0.5 * (row % 2)) * width, top + row * height
            c.box(x + gap, y + gap, x + width, min(y + height, bottom), c.jitter(base, 9))


def _meadow(c: Canvas) -> None:
    horizon = c.between(0.4, 0.55)
    c.gradient(c.jitter((120, 190, 245)), (215, 238, 252), 0, horizon)
    c.wave(horizon, 0.02, c.jitter((95, 180, 75)), c.between(0.7, 1.5))
    c.wave(horizon + 0.2, 0.03, c.jitter((75, 160, 60)), c.between(0.7, 1.5))


def _sea(c: Canvas) -> None:
    horizon = c.between(0.38, 0.5)
    c.gradient(c.jitter((130, 200, 245)), (220, 240, 250), 0, horizon)
    for index, colour in enumerate([(60, 140, 205), (48, 122, 190), (38, 105, 175), (28, 88, 160)]):
        c.wave(horizon + 0.02 + 0.15 * index, 0.018, c.jitter(colour, 5), 3 + (index % 2))


def _underwater(c: Canvas) -> None:
    c.gradient(c.jitter((70, 190, 215)), c.jitter((15, 70, 140)))
    for _ in range(9):
        x, y, r = c.between(0, 1), c.between(0, 0.9), c.between(0.012, 0.03)
        c.disc(x, y, r, (190, 232, 245))
        c.disc(x, y, r * 0.6, (110, 190, 222))
    c.wave(0.9, 0.02, c.jitter((215, 195, 140)), 1.5)


def _desert(c: Canvas) -> None:
    c.gradient(c.jitter((130, 200, 240)), (250, 235, 200), 0, 0.6)
    c.wave(0.5, 0.05, c.jitter((235, 195, 120)), 1.0)
    c.wave(0.68, 0.05, c.jitter((222, 175, 98)), 0.8)
    c.wave(0.85, 0.03, c.jitter((205, 155, 80)), 1.2)


def _snow(c: Canvas) -> None:
    c.gradient(c.jitter((150, 180, 210)), (205, 222, 238), 0, 0.6)
    c.wave(0.55, 0.03, (232, 240, 248), 1.0)
    c.wave(0.75, 0.03, (248, 250, 253), 0.8)
    for _ in range(26):
        c.disc(c.between(0, 1), c.between(0, 1), c.between(0.008, 0.016), (255, 255, 255))


def _night(c: Canvas) -> None:
    c.gradient(c.jitter((12, 14, 45), 6), c.jitter((38, 34, 92), 8))
    for _ in range(40):
        c.disc(c.between(0, 1), c.between(0, 1), c.between(0.005, 0.012), (255, 250, 210))


def _wood(c: Canvas) -> None:
    base = c.jitter((165, 110, 62), 12)
    for index in range(4):
        y = index * 0.25
        c.box(0, y, 1, y + 0.25, c.jitter(base, 8))
        for grain in (0.07, 0.13, 0.19):
            c.line([(0, y + grain), (1, y + grain + c.between(-0.015, 0.015))], c.jitter((140, 90, 48), 5), 0.008)
        c.box(0, y, 1, y + 0.012, (92, 58, 30))


def _checkerboard(c: Canvas) -> None:
    light, dark = c.jitter((238, 232, 218)), c.jitter((70, 70, 78), 14)
    for row in range(8):
        for column in range(8):
            c.box(column / 8, row / 8, (column + 1) / 8, (row + 1) / 8, dark if (row + column) % 2 else light)


def _stripes(c: Canvas) -> None:
    first, second = (
        c.jitter((245, 240, 230), 6),
        c.jitter(((90, 160, 220), (230, 110, 110), (120, 190, 120))[int(c.generator.integers(3))]),
    )
    for index in range(8):
        c.box(index / 8, 0, (index + 1) / 8, 1, second if index % 2 else first)


def _dots(c: Canvas) -> None:
    base = ((250, 225, 235), (225, 240, 252), (250, 243, 215))[int(c.generator.integers(3))]
    dot = ((225, 90, 130), (60, 120, 200), (230, 150, 40))[int(c.generator.integers(3))]
    c.box(0, 0, 1, 1, base)
    for row in range(9):
        for column in range(5):
            c.disc(column / 4 + (row % 2) / 8, row / 8, 0.035, dot)


def _kitchen(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (188, 202, 206))
    tile = c.jitter((232, 240, 240), 8)
    for row in range(6):
        for column in range(8):
            c.box(column / 8 + 0.008, row / 8 + 0.008, (column + 1) / 8, (row + 1) / 8, tile)
    counter = c.jitter((150, 105, 70), 10)
    c.box(0, 0.75, 1, 0.8, (90, 92, 98))
    c.box(0, 0.8, 1, 1, counter)
    for x in (0.25, 0.5, 0.75):
        c.box(x - 0.006, 0.8, x + 0.006, 1, (100, 68, 42))
    c.box(0.02, 0.04, 0.2, 0.26, c.jitter((120, 150, 160)))
    c.box(0.03, 0.05, 0.19, 0.25, c.jitter((168, 190, 196)))


def _city(c: Canvas) -> None:
    c.gradient(c.jitter((150, 190, 225)), (235, 225, 215), 0, 0.8)
    x = -0.02
    while x < 1:
        width, height = c.between(0.13, 0.2), c.between(0.3, 0.62)
        c.box(x, 0.8 - height, x + width, 0.8, c.jitter((105, 112, 130), 16))
        for row in range(int(height / 0.09)):
            for column in (0.3, 0.7):
                left, top = x + width * column - 0.015, 0.83 - height + row * 0.09
                c.box(left, top, left + 0.03, top + 0.045, (250, 226, 140))
        x += width + 0.005
    c.box(0, 0.8, 1, 1, (82, 84, 90))
    for x in (0.05, 0.3, 0.55, 0.8):
        c.box(x, 0.89, x + 0.15, 0.91, (240, 225, 120))


def _mountains(c: Canvas) -> None:
    c.gradient(c.jitter((130, 185, 235)), (225, 238, 250), 0, 0.85)
    for x, height in ((c.between(0.1, 0.3), 0.5), (c.between(0.65, 0.9), 0.56), (c.between(0.4, 0.6), 0.4)):
        top, rock = 0.75 - height, c.jitter((118, 122, 142), 8)
        c.polygon([(x - height * 0.75, 0.75), (x, top), (x + height * 0.75, 0.75)], rock)
        c.polygon(
            [(x - height * 0.24, top + height * 0.32), (x, top), (x + height * 0.24, top + height * 0.32)],
            (246, 249, 253),
        )
    c.wave(0.76, 0.015, c.jitter((96, 160, 88)), 1.2)


def _forest(c: Canvas) -> None:
    c.gradient(c.jitter((190, 222, 200)), c.jitter((120, 170, 130)), 0, 0.9)
    for index in range(7):
        x, width = (index + c.between(0.2, 0.8)) / 7, c.between(0.035, 0.06)
        c.box(x - width / 2, 0, x + width / 2, 0.8, c.jitter((96, 70, 48), 10))
    for index in range(8):
        c.disc(index / 7, c.between(0.02, 0.1), c.between(0.13, 0.18), c.jitter((52, 120, 58), 12))
    c.wave(0.8, 0.015, c.jitter((70, 112, 50)), 2)


def _beach(c: Canvas) -> None:
    c.gradient(c.jitter((120, 195, 245)), (222, 242, 252), 0, 0.4)
    c.box(0, 0.38, 1, 0.65, c.jitter((55, 150, 205)))
    c.wave(0.58, 0.012, (235, 246, 250), 2)
    c.wave(0.62, 0.012, c.jitter((240, 215, 155)), 2)


def _sidewalk(c: Canvas) -> None:
    _bricks(c, 0, 0.625)
    c.box(0, 0.625, 1, 1, c.jitter((178, 178, 174), 6))
    joints: list[list[tuple[float, float]]]
    joints = [[(0, 0.8), (1, 0.8)], [(0.3, 0.63), (0.2, 0.8)], [(0.75, 0.63), (0.82, 0.8)], [(0.5, 0.8), (0.47, 1)]]
    for joint in joints:
        c.line(joint, (120, 120, 116), 0.012)
    for x, y in ((0.08, 0.8), (0.24, 0.72), (0.42, 0.8), (0.64, 0.8), (0.79, 0.74), (0.92, 0.8), (0.48, 0.92)):
        x += c.between(-0.02, 0.02)
        for lean in (-0.03, -0.01, 0.012, 0.03):
            c.line([(x, y), (x + lean, y - c.between(0.05, 0.08))], c.jitter((70, 150, 55), 10), 0.014)


def _chalkboard(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (150, 105, 62))
    c.box(0.06, 0.06, 0.94, 0.94, c.jitter((44, 82, 66), 8))
    for y in (0.18, 0.3, 0.82):
        start = c.between(0.12, 0.3)
        c.line([(start, y), (start + c.between(0.2, 0.4), y)], (205, 218, 210), 0.012)


def _living_room(c: Canvas) -> None:
    c.box(0, 0, 1, 0.7, c.jitter((238, 220, 190), 10))
    c.box(0, 0.7, 1, 1, c.jitter((172, 92, 84), 12))
    c.box(0, 0.68, 1, 0.71, (250, 246, 238))
    x = 0.08 if c.between(0, 1) < 0.5 else 0.62
    c.box(x, 0.1, x + 0.3, 0.48, (250, 246, 238))
    c.box(x + 0.02, 0.12, x + 0.28, 0.46, c.jitter((150, 205, 240)))
    c.box(x + 0.14, 0.12, x + 0.16, 0.46, (250, 246, 238))
    c.box(x + 0.02, 0.28, x + 0.28, 0.3, (250, 246, 238))


_DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "white": _plain((250, 250, 250)),
    "yellow": _plain((252, 222, 90)),
    "pink": _plain((250, 175, 205)),
    "light blue": _plain((165, 212, 245)),
    "green": _plain((120, 190, 110)),
    "gray": _plain((158, 160, 165)),
    "black": _plain((28, 28, 32)),
    "sunset": _sunset,
    "rainbow gradient": _rainbow,
    "brick wall": _bricks,
    "meadow": _meadow,
    "sea": _sea,
    "underwater": _underwater,
    "desert": _desert,
    "snow": _snow,
    "night sky": _night,
    "wooden table": _wood,
    "checkerboard": _checkerboard,
    "stripes": _stripes,
    "polka dots": _dots,
    "kitchen": _kitchen,
    "city": _city,
    "mountains": _mountains,
    "forest": _forest,
    "beach": _beach,
    "sidewalk": _sidewalk,
    "chalkboard": _chalkboard,
    "living room": _living_room,
}
assert _DRAWINGS.keys() == BACKGROUNDS.keys()


@lru_cache(maxsize=4096)
def background(name: str, variant: int, size: int) -> Image.Image:
    """Variant 0 … VARIANTS − 1 of a background, `size` × `size` RGB; cached, so never draw on it."""
    generator = np.random.default_rng((list(_DRAWINGS).index(name), variant))
    canvas = Canvas(size, generator)
    _DRAWINGS[name](canvas)
    picture = canvas.finished()
    return picture.filter(ImageFilter.GaussianBlur(size / 400)) if name == "night sky" else picture
