"""Train the image tokenizer on rendered scenes.

Loss: L1 + squared error + L1 of image gradients + L1 at half and quarter resolution. Squared error is what PSNR
measures; the gradient term keeps outlines crisp; the coarse terms keep flat colours exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes import SceneDataset
from ..models.tokenizer import ImageTokenizer
from .data import scene_batches
from .loop import LoopConfig, Trainer, copy_half, read_config


class TokenizerConfig(LoopConfig):
    """Settings of a tokenizer run."""

    learning_rate: float = Field(1e-3, gt=0)
    size: int = Field(128, ge=32, description="side of the training pictures in pixels")
    vocabulary: str = Field("full", pattern="^(full|frequent)$")
    levels: tuple[int, ...] = (8, 8, 8, 4)
    channels: tuple[int, int, int] = (64, 128, 192)
    encoder_blocks: tuple[int, int] = (2, 3)
    decoder_blocks: tuple[int, int, int] = (4, 3, 1)
    squared_weight: float = Field(4.0, ge=0)
    edge_weight: float = Field(1.0, ge=0)
    export: Path | None = Field(None, description="folder for the exported weights")


def _gradients(pixels: Tensor) -> tuple[Tensor, Tensor]:
    return pixels.diff(dim=-1), pixels.diff(dim=-2)


def reconstruction_loss(reconstruction: Tensor, pixels: Tensor, squared_weight: float, edge_weight: float) -> Tensor:
    """The loss above; pictures (B, 3, H, W) in [-1, 1]."""
    total = F.l1_loss(reconstruction, pixels) + squared_weight * F.mse_loss(reconstruction, pixels)
    pairs = zip(_gradients(reconstruction), _gradients(pixels), strict=True)
    total = total + edge_weight * torch.stack([F.l1_loss(a, b) for a, b in pairs]).sum()
    for factor in (2, 4):
        total = total + 0.5 * F.l1_loss(F.avg_pool2d(reconstruction, factor), F.avg_pool2d(pixels, factor))
    return total


def psnr(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (B,); pictures in [-1, 1], clamped before."""
    error = (reconstruction.clamp(-1, 1) - pixels).square().flatten(1).mean(dim=1)  # (B, 3, H, W) -> (B, 3HW)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def pairs_sheet(tokenizer: ImageTokenizer, scenes: SceneDataset, path: Path, count: int = 16) -> None:
    """Originals above their reconstructions, as one PNG."""
    pictures = np.stack([scenes[index][1] for index in range(count)])  # (count, H, W, 3)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1  # (count, 3, H, W)
    device = next(tokenizer.parameters()).device
    decoded = tokenizer.decode(tokenizer.encode(pixels.to(device))).cpu()
    shown = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()  # (count, H, W, 3)
    columns = min(8, count)
    rows = []
    for start in range(0, count, columns):
        rows += [np.concatenate(list(block[start : start + columns]), axis=1) for block in (pictures, shown)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


def measure(
    tokenizer: ImageTokenizer, scenes: SceneDataset, indices: Sequence[int], batch_size: int = 32
) -> dict[str, float]:
    """Mean PSNR in dB, and the share of the codebook in use, over scenes."""
    values, used = [], torch.zeros(tokenizer.codebook_size, dtype=torch.bool)
    device = next(tokenizer.parameters()).device
    for start in range(0, len(indices), batch_size):
        pictures = np.stack([scenes[index][1] for index in indices[start : start + batch_size]])
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1  # (B, 3, H, W)
        tokens = tokenizer.encode(pixels)
        values.append(psnr(tokenizer.decode(tokens), pixels).cpu())
        used[tokens.cpu().unique()] = True
    return {"psnr": float(torch.cat(values).mean()), "codebook_use": float(used.float().mean())}


def train(config_path: Path, resume: bool = False) -> None:
    """Train by the configuration file; export after every checkpoint where it names a folder."""
    config = read_config(config_path, TokenizerConfig)
    torch.manual_seed(config.seed)
    model = ImageTokenizer(config.levels, config.channels, config.encoder_blocks, config.decoder_blocks)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    trainer = Trainer(config, model, [optimizer])
    if resume:
        trainer.resume()
    scenes = SceneDataset(config.seed, config.size, "train", config.vocabulary)  # type: ignore[arg-type]
    fresh = SceneDataset(config.seed + 1, config.size, "train", config.vocabulary)  # type: ignore[arg-type]
    forward = torch.compile(model) if config.compile else model

    def loss(batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        pixels = batch.pixels(trainer.device)
        reconstruction, _ = forward(pixels)
        value = reconstruction_loss(reconstruction, pixels, config.squared_weight, config.edge_weight)
        return value, {"loss": value.detach(), "psnr": psnr(reconstruction.detach(), pixels).mean()}

    def on_checkpoint() -> None:
        average: ImageTokenizer = trainer.average  # type: ignore[assignment]
        trainer.log({"step": trainer.step, **measure(average, fresh, range(256))})
        pairs_sheet(average, fresh, config.folder / "pairs.png")
        if config.export:
            copy_half(average, config.export)

    trainer.fit(scene_batches(scenes, config.batch_size, trainer.step, config.workers), loss, on_checkpoint)
