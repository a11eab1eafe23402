"""Emoji pictures as sprites: rendered from the Noto Color Emoji font, or read from a sprite sheet made beforehand."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from .vocabulary import COLOURS, NOUN_BY_NAME, NOUNS

FONT_PATHS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/Library/Fonts/NotoColorEmoji.ttf",
)
SHEET_VARIABLE = "MARKOVGEN_SPRITE_SHEET"
CELL = 128
_COLUMNS = 16
_BITMAP_SIZE = 109  # the one size at which the font's bitmaps exist


def _font() -> ImageFont.FreeTypeFont:
    for path in FONT_PATHS:
        if Path(path).is_file():
            return ImageFont.truetype(path, _BITMAP_SIZE)
    raise UserError(
        "The Noto Color Emoji font is not installed: run `apt-get install fonts-noto-color-emoji`, "
        f"or put NotoColorEmoji.ttf into /Library/Fonts, or point {SHEET_VARIABLE} to a sprite sheet."
    )


def _cropped_square(sprite: Image.Image) -> Image.Image:
    """The sprite's visible part, centred in a CELL × CELL square that it fills along its longer side."""
    sprite = sprite.crop(sprite.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = CELL / max(sprite.size)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    square = Image.new("RGBA", (CELL, CELL))
    square.paste(sprite.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return square


@lru_cache(maxsize=1)
def _sheet() -> Image.Image | None:
    path = os.environ.get(SHEET_VARIABLE)
    return Image.open(path).convert("RGBA") if path else None


@lru_cache(maxsize=len(NOUNS))
def sprite(noun: str) -> Image.Image:
    """The noun's picture: RGBA, CELL × CELL, visible part centred and filling one side.

    Raises `UserError` where neither the font nor a sprite sheet is at hand.
    """
    if (sheet := _sheet()) is not None:
        row, column = divmod(NOUNS.index(NOUN_BY_NAME[noun]), _COLUMNS)
        return sheet.crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), NOUN_BY_NAME[noun].emoji, font=_font(), embedded_color=True)
    return _cropped_square(canvas)


def save_sheet(path: Path) -> None:
    """Write every sprite into one PNG, for machines without the font (set MARKOVGEN_SPRITE_SHEET to it there)."""
    rows = -(-len(NOUNS) // _COLUMNS)
    sheet = Image.new("RGBA", (_COLUMNS * CELL, rows * CELL))
    for index, noun in enumerate(NOUNS):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(sprite(noun.name), (column * CELL, row * CELL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def tinted(picture: Image.Image, colour: str) -> Image.Image:
    """The picture recoloured: its luminance, median moved to one half, on a ramp dark → colour → light."""
    pixels = np.asarray(picture, dtype=np.float32)
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    visible = luminance[pixels[..., 3] > 64]
    low, middle, high = np.percentile(visible, (2, 50, 98)) if visible.size else (0.0, 0.5, 1.0)
    span = max(high - low, 0.15)
    gamma = np.log(0.5) / np.log(np.clip((middle - low) / span, 0.1, 0.9))
    level = (np.clip((luminance - low) / span, 0, 1) ** gamma)[..., None]
    target = np.array(COLOURS[colour], dtype=np.float32)
    dark, light = target * 0.25, target + (255 - target) * 0.55
    ramp = np.where(level < 0.5, dark + (target - dark) * level * 2, target + (light - target) * (level * 2 - 1))
    out = np.concatenate([ramp, pixels[..., 3:]], axis=-1)
    return Image.fromarray(out.clip(0, 255).astype(np.uint8), "RGBA")


@lru_cache(maxsize=8192)
def sized_sprite(noun: str, pixels: int, colour: str | None = None) -> Image.Image:
    """The noun's picture at `pixels` × `pixels`, recoloured on request; cached."""
    picture = sprite(noun)
    if colour is not None:
        picture = tinted(picture, colour)
    return picture.resize((pixels, pixels), Image.Resampling.LANCZOS)
