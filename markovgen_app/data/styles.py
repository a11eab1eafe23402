"""Picture styles: each a function from a plain picture to a stylised one of the same size.

`graffiti` is the exception: it paints the objects onto the background's texture, so it needs both layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps


def _unit(picture: Image.Image) -> int:
    """One 128th of the picture's side, in pixels: 1 at 128 px, 2 at 256 px."""
    return max(1, picture.width // 128)


def pixel_art(picture: Image.Image) -> Image.Image:
    small = picture.resize((32, 32), Image.Resampling.BOX)
    return ImageOps.posterize(small, 4).resize(picture.size, Image.Resampling.NEAREST)


def pencil_sketch(picture: Image.Image) -> Image.Image:
    gray = ImageOps.grayscale(picture)
    blurred = gray.filter(ImageFilter.GaussianBlur(3 * _unit(picture)))
    base = np.asarray(gray, dtype=np.float32)
    dodge = base * 255 / np.maximum(np.asarray(blurred, dtype=np.float32), 1)
    shaded = np.clip(0.75 * np.minimum(dodge, 255) + 0.25 * base, 0, 255)
    return Image.fromarray(shaded.astype(np.uint8)).convert("RGB")


def oil_painting(picture: Image.Image) -> Image.Image:
    unit = _unit(picture)
    rough = picture.filter(ImageFilter.MedianFilter(5 if unit == 1 else 9))
    relief = ImageOps.grayscale(rough).filter(ImageFilter.GaussianBlur(unit))
    shifted = ImageChops.offset(relief, unit, unit)
    slope = np.asarray(relief, dtype=np.float32) - np.asarray(shifted, dtype=np.float32)
    colours = np.asarray(ImageEnhance.Color(rough).enhance(1.5), dtype=np.float32)
    warm = np.array([1.04, 0.98, 0.86], dtype=np.float32)
    return Image.fromarray(np.clip(colours * warm + 1.2 * slope[..., None], 0, 255).astype(np.uint8))


def watercolor(picture: Image.Image) -> Image.Image:
    unit = _unit(picture)
    soft = picture.filter(ImageFilter.GaussianBlur(1.6 * unit))
    edges = np.asarray(ImageOps.grayscale(soft).filter(ImageFilter.FIND_EDGES), dtype=np.float32)[..., None]
    pale = 255 - (255 - np.asarray(soft, dtype=np.float32)) * 0.62
    ys, xs = np.mgrid[0 : picture.height, 0 : picture.width] / picture.width - 0.5
    paper = np.clip((np.maximum(abs(xs), abs(ys)) - 0.42) / 0.08, 0, 1)[..., None]
    washed = np.clip(pale - 0.8 * edges, 0, 255)
    return Image.fromarray((washed * (1 - paper) + np.array([252, 250, 244]) * paper).astype(np.uint8))


def mosaic(picture: Image.Image) -> Image.Image:
    tiles = picture.resize((32, 32), Image.Resampling.BOX)
    tiles = ImageEnhance.Color(tiles).enhance(1.3)
    out = np.asarray(tiles.resize(picture.size, Image.Resampling.NEAREST)).copy()
    step, unit = picture.width // 32, _unit(picture)
    for offset in range(unit):
        out[offset::step] = (56, 54, 60)
        out[:, offset::step] = (56, 54, 60)
    return Image.fromarray(out)


def neon(picture: Image.Image) -> Image.Image:
    unit = _unit(picture)
    smooth = picture.filter(ImageFilter.GaussianBlur(0.8 * unit))
    gray = np.asarray(ImageOps.grayscale(smooth), dtype=np.float32)
    dy, dx = np.gradient(gray)
    edge = np.clip(np.hypot(dx, dy) * unit / 22, 0, 1)[..., None]
    hue = np.asarray(ImageEnhance.Color(smooth).enhance(2.0), dtype=np.float32)
    bright = hue / np.maximum(hue.max(axis=-1, keepdims=True), 60) * 255
    lines = Image.fromarray((bright * edge).astype(np.uint8))
    glow = np.asarray(lines.filter(ImageFilter.GaussianBlur(2.5 * unit)), dtype=np.float32)
    dark = np.asarray(picture, dtype=np.float32) * 0.16
    return Image.fromarray(np.clip(dark + np.asarray(lines, dtype=np.float32) + 1.3 * glow, 0, 255).astype(np.uint8))


STYLE_FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "pixel art": pixel_art,
    "pencil sketch": pencil_sketch,
    "oil painting": oil_painting,
    "watercolor": watercolor,
    "mosaic": mosaic,
    "neon": neon,
}


def graffiti(background: Image.Image, objects: Image.Image) -> Image.Image:
    """Objects (RGBA layer) sprayed onto the background: loud colours, two outlines, the texture showing through."""
    unit = _unit(background)
    alpha = objects.getchannel("A")
    halo = alpha.filter(ImageFilter.MaxFilter(4 * unit + 1))
    rim = alpha.filter(ImageFilter.MaxFilter(8 * unit + 1)).filter(ImageFilter.GaussianBlur(0.7 * unit))
    paint = ImageOps.posterize(ImageEnhance.Color(objects.convert("RGB")).enhance(2.2), 3)
    sprayed = background.copy()
    sprayed.paste((235, 40, 160), mask=rim)
    sprayed.paste((250, 250, 120), mask=halo)
    sprayed.paste(paint, mask=alpha)
    texture = np.asarray(ImageOps.grayscale(background), dtype=np.float32)[..., None]
    shade = np.clip(texture / max(float(texture.mean()), 24.0), 0.75, 1.12)
    cover = np.asarray(rim, dtype=np.float32)[..., None] / 255
    pixels = np.asarray(sprayed, dtype=np.float32)
    return Image.fromarray(np.clip(pixels * (1 - cover + cover * shade), 0, 255).astype(np.uint8))
