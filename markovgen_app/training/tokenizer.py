"""Train the image tokenizer on rendered scenes.

Reconstruction loss: L1 + squared error + L1 of image gradients + L1 at half and quarter resolution. Squared error is
what PSNR measures; the gradient term keeps outlines crisp; the coarse terms keep flat colours exact.

A second run polishes the decoder alone, as Muse does (section 2.6 of arXiv 2301.00704): encoder and codebook frozen, so
tokens stay what they are, and a patch discriminator with hinge loss and feature matching (VQGAN, arXiv 2012.09841;
pix2pixHD, arXiv 1711.11585) added, which turns blur into edges. The decoder may grow by blocks that change nothing
until they are trained: what a token's eleven bits do not say, it has to know of the things that there are. A
perceptual loss (`perceptual`) tells it which of its errors make a thing look like another.

A tokenizer of another encoder learns from a teacher: the decoder starts as the teacher's, and the encoder is drawn to
the teacher's digits, less and less, until half of the run is over. Tokens then mean what they meant, and a transformer
for the teacher's can be trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.own import Split
from ..data.scenes import Vocabulary
from ..evaluation.metrics import psnr
from ..evaluation.output import pairs_sheet
from ..models.tokenizer import ImageTokenizer, ResidualBlock
from ..pixels import stacked, to_pixels
from .data import Pictures, PicturesConfig, SceneBatch, open_pictures, scene_batches
from .loop import Trainer, copy_half, grown, read_config, start_from, without_denormals
from .masked import place_weights
from .muon import Muon
from .perceptual import load_network, perceptual_loss

_MEASURED = 256 * 128**2  # pixels of the pictures that a checkpoint is measured on


class TokenizerConfig(PicturesConfig):
    """Settings of a tokenizer run."""

    learning_rate: float = Field(1e-3, gt=0, description="AdamW's")
    matrix_rate: float | None = Field(None, gt=0, description="Muon's, for kernels of blocks; none: all are AdamW's")
    size: int = Field(128, ge=32, description="side of the training pictures in pixels")
    crop: int | None = Field(None, ge=32, description="train on squares of this side cut from them")
    finer_every: int | None = Field(None, ge=2, description="each n-th batch: squares cut from twice the size")
    vocabulary: Vocabulary = Field("full", description="of the scenes")
    levels: tuple[int, ...] = (8, 8, 8, 4)
    channels: tuple[int, int, int] = (64, 128, 192)
    encoder_blocks: tuple[int, int] = (2, 3)
    decoder_blocks: tuple[int, int, int] = (4, 3, 1)
    encoder_kernel: Literal[1, 3] = Field(3, description="1: tokens of their own 8 × 8 pixels alone")
    squared_weight: float = Field(4.0, ge=0)
    edge_weight: float = Field(1.0, ge=0)
    object_weight: float = Field(1.0, gt=0, description="how much more an error on an object counts than another")
    start_from: Path | None = Field(None, description="folder of exported weights to start from")
    teacher: Path | None = Field(None, description="folder of an exported tokenizer to learn the digits from")
    teacher_weight: float = Field(4.0, ge=0, description="of the distance to the teacher's digits at the start")
    freeze_encoder: bool = Field(False, description="train the decoder alone; tokens stay what they are")
    added_blocks: tuple[int, int, int] = Field((0, 0, 0), description="more decoder blocks than start_from has")
    adversarial_weight: float = Field(0.0, ge=0, description="of the discriminator's opinion; 0: no discriminator")
    adversarial_from: float = Field(0.0, ge=0, lt=1, description="share of the time that is over when it starts")
    feature_weight: float = Field(4.0, ge=0, description="of feature matching, where there is a discriminator")
    perceptual: Path | None = Field(None, description="folder of a network to compare pictures through; not the scorer")
    perceptual_weight: float = Field(0.1, ge=0, description="of what it sees differently, where there is one")

    @model_validator(mode="after")
    def _crop_fits(self) -> TokenizerConfig:
        if self.crop is not None and (self.crop > self.size or self.crop % ImageTokenizer.factor):
            raise ValueError(f"crop is a multiple of {ImageTokenizer.factor} up to the size {self.size}")
        if self.crop is not None and self.finer_every is not None:
            raise ValueError("finer_every cuts squares itself: leave crop out")
        if self.crop is not None and self.perceptual is not None:
            raise ValueError("perceptual looks at whole pictures: leave crop out")
        if any(self.added_blocks) and self.start_from is None:
            raise ValueError("added_blocks are added to a decoder: name its folder as start_from")
        return self


class PatchDiscriminator(nn.Module):
    """Says of every patch whether it is drawn or decoded; returns its hidden features and the opinions."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = (3 * 4, width, width * 2, width * 3)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, stride=2 if index else 1, padding=1))
            for index, (a, b) in enumerate(pairwise(sizes))
        )
        self.unshuffle = nn.PixelUnshuffle(2)
        self.opinion = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        features, x = [], self.unshuffle(pixels)  # (B, 3, H, W) -> (B, 12, H/2, W/2)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return features, self.opinion(x)


def adversarial_losses(
    judge: PatchDiscriminator, reconstruction: Tensor, pixels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(discriminator's hinge loss, generator's hinge loss, feature matching).

    One backward pass of their sum trains both sides: the first sees the reconstruction detached, the others see the
    discriminator's parameters detached.
    """
    real_features, real = judge(pixels)
    _, fake = judge(reconstruction.detach())
    frozen = {name: value.detach() for name, value in [*judge.named_parameters(), *judge.named_buffers()]}
    fake_features, opinion = torch.func.functional_call(judge, frozen, (reconstruction,))
    matching = torch.stack([F.l1_loss(a, b.detach()) for a, b in zip(fake_features, real_features, strict=True)]).sum()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -opinion.mean(), matching


def deepened(model: ImageTokenizer, blocks: Sequence[int]) -> ImageTokenizer:
    """The same function with more decoder blocks at 1/8, 1/4 and 1/2, which add nothing until trained."""
    more = [old + new for old, new in zip(model.config.decoder_blocks, blocks, strict=True)]
    return grown(model, decoder_blocks=more)


def build_optimizers(module: nn.Module, config: TokenizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW for what is trained; Muon for the kernels of the tokenizer's residual blocks if there is a rate for it."""
    kernels: list[Tensor] = []
    others: list[Tensor] = []
    blocks = [block for block in module.modules() if isinstance(block, ResidualBlock)]
    inside = {id(kernel) for block in blocks for kernel in (block.spatial.weight, block.mix.weight)}
    for parameter in module.parameters():
        if parameter.requires_grad:
            (kernels if config.matrix_rate and id(parameter) in inside else others).append(parameter)
    first = 0.5 if config.adversarial_weight else 0.9
    adam = torch.optim.AdamW(others, config.learning_rate, betas=(first, 0.98), weight_decay=0.01)
    return [adam, *([Muon(kernels, config.matrix_rate)] if config.matrix_rate else [])]


def load_teacher(model: ImageTokenizer, folder: Path) -> ImageTokenizer:
    """The frozen teacher; the decoder of `model` becomes a copy of its.

    Raises:
        UserError: no such tokenizer, or one of other codes or another decoder.
    """
    sizes = {name: model.config[name] for name in ("levels", "channels", "decoder_blocks")}
    teacher = start_from(ImageTokenizer, folder, None, **sizes)
    model.decoder.load_state_dict(teacher.decoder.state_dict())
    return teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def teacher_loss(tokenizer: ImageTokenizer, teacher: ImageTokenizer, pixels: Tensor) -> Tensor:
    """Mean squared distance of the two's latents, in [-1, 1] before rounding, of pixels (B, 3, H, W)."""
    scale = 2 / tokenizer.top_digit[:, None, None]
    with torch.no_grad():
        wanted = teacher.digits(pixels) * scale
    return F.mse_loss(tokenizer.digits(pixels) * scale, wanted)


def reconstruction_loss(
    reconstruction: Tensor, pixels: Tensor, squared_weight: float, edge_weight: float, weights: Tensor | None = None
) -> Tensor:
    """The loss above; pictures (B, 3, H, W) in [-1, 1], and what each pixel counts, (B, 1, H, W), if not the same."""
    error = reconstruction - pixels
    counts = torch.ones_like(pixels[:, :1]) if weights is None else weights
    total = (counts * (error.abs() + squared_weight * error.square())).mean()
    for axis in (-1, -2):
        pairs = counts.narrow(axis, 1, counts.shape[axis] - 1)
        total = total + edge_weight * (pairs * error.diff(dim=axis).abs()).mean()
    for factor in (2, 4):
        total = total + 0.5 * (F.avg_pool2d(counts, factor) * F.avg_pool2d(error, factor).abs()).mean()
    return total


def pixel_weights(scenes: Sequence[Any], size: int, weight: float) -> Tensor:
    """What each pixel counts, (B, 1, H, W), 1 in the mean of each picture: `weight` times as much on its objects."""
    side = size // ImageTokenizer.factor
    places = place_weights(scenes, (side, side), weight).view(-1, 1, side, side)  # (B, n) -> (B, 1, h, w)
    return F.interpolate(places / places.mean((2, 3), keepdim=True), scale_factor=ImageTokenizer.factor)


def random_crop(pixels: Tensor, side: int, step: int, generator: torch.Generator) -> Tensor:
    """The same square of pictures (B, 3, H, W), `side` pixels wide; its corner is a multiple of `step`."""
    height, width = pixels.shape[-2:]
    top, left = (
        int(torch.randint((room - side) // step + 1, (), generator=generator)) * step for room in (height, width)
    )
    return pixels[..., top : top + side, left : left + side].contiguous(memory_format=torch.channels_last)


def training_batches(scenes: Pictures, config: TokenizerConfig, trainer: Trainer) -> Iterator[SceneBatch]:
    """Batches of the run's size, each `finer_every`-th of twice that size."""

    def of_size(size: int) -> Iterator[SceneBatch]:
        return scene_batches(scenes, config.batch_size, trainer.stream, config.workers, (size,), trainer.processes)

    coarse = of_size(config.size)
    if config.finer_every is None:
        yield from coarse
    else:
        fine = of_size(2 * config.size)  # with workers of its own, which begin at once
        for number in count(trainer.stream, trainer.processes):
            yield next(coarse if number % config.finer_every else fine)


def measure(
    tokenizer: ImageTokenizer, scenes: Pictures, indices: Sequence[int], batch_size: int = 32
) -> dict[str, float]:
    """Mean PSNR in dB, and the share of the codebook in use, over scenes."""
    values, used = [], torch.zeros(tokenizer.codebook_size, dtype=torch.bool)
    for start in range(0, len(indices), batch_size):
        pictures = [scenes[index][1] for index in indices[start : start + batch_size]]
        pixels = to_pixels(stacked(pictures), tokenizer.device)
        tokens = tokenizer.encode(pixels)
        values.append(psnr(tokenizer.decode(tokens), pixels).cpu())
        used[tokens.cpu().unique()] = True
    return {"psnr": float(torch.cat(values).mean()), "codebook_use": float(used.float().mean())}


@without_denormals
def train(config_path: Path, resume: bool = False, data: str | None = None) -> None:
    """Train by the configuration file; the averaged weights go to runs/NAME/weights at every checkpoint.

    Args:
        data: folder of pictures, in place of the file's.
    """
    config = read_config(config_path, TokenizerConfig, data=data)
    torch.manual_seed(config.seed)
    model = ImageTokenizer(
        config.levels, config.channels, config.encoder_blocks, config.decoder_blocks, config.encoder_kernel
    )
    if config.start_from:
        model = deepened(start_from(ImageTokenizer, config.start_from, config), config.added_blocks)
    model = model.to(memory_format=torch.channels_last)
    model.encoder.requires_grad_(not config.freeze_encoder)
    judge = PatchDiscriminator() if config.adversarial_weight else None
    module = nn.ModuleDict({"tokenizer": model, **({"judge": judge} if judge else {})})
    teacher = load_teacher(model, config.teacher) if config.teacher else None
    network = load_network(config.perceptual, config.size) if config.perceptual else None
    trainer = Trainer(config, module, build_optimizers(module, config))
    if resume:
        trainer.resume()
    if teacher is not None:
        teacher.to(trainer.device)
    if network is not None:
        network.to(trainer.device)
    scenes = open_pictures(config, config.size, "train")
    unseen: Split = "train" if config.data is None else "tune"
    fresh = open_pictures(config, config.size, unseen, config.seed + 1)
    forward = torch.compile(model) if config.compile else model

    def loss(batch: SceneBatch, number: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        pixels = batch.pixels(trainer.device)
        weights = pixel_weights(batch.scenes, pixels.shape[-1], config.object_weight).to(trainer.device)
        side = config.crop or config.size
        whole = pixels.shape[-1] <= side
        if not whole:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
            both = random_crop(torch.cat([pixels, weights], 1), side, model.factor, generator)  # (B, 4, H, W)
            pixels, weights = both[:, :3].contiguous(memory_format=torch.channels_last), both[:, 3:]
        reconstruction, _ = forward(pixels)
        value = reconstruction_loss(reconstruction, pixels, config.squared_weight, config.edge_weight, weights)
        shown: dict[str, Tensor | float] = {
            "loss": value.detach(),
            "psnr": psnr(reconstruction.detach(), pixels).mean(),
        }
        weight = config.teacher_weight * max(0.0, 1 - 2 * trainer.minutes / config.minutes)
        if teacher is not None and weight:
            distance = teacher_loss(model, teacher, pixels)
            shown["teacher"] = distance.detach()
            value = value + weight * distance
        if network is not None and whole:
            seen = perceptual_loss(network, reconstruction, pixels)
            shown["perceptual"] = seen.detach()
            value = value + config.perceptual_weight * seen
        if judge is not None and trainer.minutes >= config.adversarial_from * config.minutes:
            judged, generated, matched = adversarial_losses(judge, reconstruction, pixels)
            shown |= {"judge": judged.detach(), "generator": generated.detach(), "matching": matched.detach()}
            value = value + judged + config.adversarial_weight * (generated + config.feature_weight * matched)
        return value, shown

    def on_checkpoint() -> None:
        average: ImageTokenizer = trainer.average["tokenizer"]  # type: ignore[index]
        trainer.log({"step": trainer.step, **measure(average, fresh, range(max(1, _MEASURED // config.size**2)))})
        pairs_sheet(average, [fresh[index][1] for index in range(16)], config.folder / "pairs.png")
        copy_half(average, config.folder / "weights")

    trainer.fit(training_batches(scenes, config, trainer), loss, on_checkpoint)
