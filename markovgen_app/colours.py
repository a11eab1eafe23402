"""Colour profiles: pictures that were stored in other colours are brought to sRGB, which everything here is in."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

_ROUNDING = 2  # levels of 255


def in_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """An RGB or CMYK picture in RGB with sRGB's colours, and whether its profile changed them.

    A profile that is damaged, or meant for another kind of picture, is ignored. One that says no more than sRGB, but
    for rounding, leaves every pixel as it is.
    """
    plain = picture.convert("RGB")
    if not isinstance(profile, bytes):
        return plain, False
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return plain, False
    if converted is None or np.asarray(ImageChops.difference(plain, converted)).max() <= _ROUNDING:
        return plain, False
    return converted, True
