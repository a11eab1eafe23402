"""Between pictures as bytes and pixels as the models see them: (B, 3, H, W) in [-1, 1], channels last in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_pixels(pictures: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Pictures (B, 3, H, W) uint8 as float32 pixels on the device."""
    pixels = pictures.to(device).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def stacked(pictures: list[np.ndarray]) -> Tensor:
    """Pictures, each (H, W, 3) uint8, as one tensor (B, 3, H, W) uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)


def to_levels(pixels: Tensor) -> np.ndarray:
    """Pixels in [-1, 1] as pictures (B, H, W, 3) uint8."""
    levels = ((pixels.float() + 1) * 127.5).round().byte()
    return levels.permute(0, 2, 3, 1).cpu().numpy()  # (B, 3, H, W) -> (B, H, W, 3)
