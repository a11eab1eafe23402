"""The scorer: reads what a picture of the picture-book world shows. Evaluation only; generation never sees it.

At 128 px; a scorer of another size has as many more cells:

    pixels (B, 3, 128, 128)  --convolutions-->  map (B, 256, 8, 8)  --1×1-->  per cell: noun, colour, centre, size
                                                     |
                                                  mean, max  -->  features (B, 256)  -->  background, style, presence

Objects are found as in anchor-free detectors (FCOS, arXiv 1904.01355): every cell inside the middle of an object says
which noun it sees and where the object's centre is; cells that point to one centre vote together. So one map answers
"which nouns", "how many" and "where". The features, which must know nouns, background and style at once, serve the
Fréchet distance and the kernel distance of `evaluation.metrics`.

    B pictures · G × G cells, row-major · N nouns · C colours
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

FOOTPRINT = 0.3
"""Cells whose centre is within FOOTPRINT · size of an object's centre, along both axes, belong to it."""


@dataclass(frozen=True)
class Detection:
    """One object that was found: centre (x, y) and size in units of the picture's side, tint or None, certainty."""

    noun: str
    x: float
    y: float
    size: float
    colour: str | None
    certainty: float


@dataclass(frozen=True)
class Reading:
    """What a picture shows, as the scorer sees it."""

    objects: tuple[Detection, ...]
    background: str
    style: str | None


@dataclass(frozen=True, eq=False)
class ScorerOutput:
    """Raw outputs of the network.

    Attributes:
        nouns: (B, G², N + 1) logits a cell; 0 is "no object here".
        colours: (B, G², C + 1) logits a cell; 0 is "its own colours".
        boxes: (B, G², 3) offset (x, y) from the cell's centre to the object's, and the object's size.
        backgrounds: (B, number of backgrounds) logits.
        styles: (B, number of styles + 1) logits; 0 is "no style".
        presence: (B, N) logits of "at least one of this noun".
        features: (B, width).
        details: (B, C) mean of the last map at 1/8 of the side: small shapes and edges, before they are read as things.
        maps: what each residual block returns, (B, C, h, w).
    """

    nouns: Tensor
    colours: Tensor
    boxes: Tensor
    backgrounds: Tensor
    styles: Tensor
    presence: Tensor
    features: Tensor
    details: Tensor
    maps: tuple[Tensor, ...] = ()


class _Spatial(nn.Module):
    """3×3 convolution whose kernel is kept as a matrix (out, in · 9), the shape that Muon can orthogonalise."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in * 9) * (channels_in * 9) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.unflatten(1, (-1, 3, 3))  # (out, in · 9) -> (out, in, 3, 3)
        return F.conv2d(x, kernel.contiguous(memory_format=torch.channels_last), self.bias, padding=1)


class _Mix(nn.Linear):
    """1×1 convolution, as a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, C, h, w) -> (B, h, w, C) and back


class _Residual(nn.Module):
    """x + 1×1(gelu(3×3(norm(x)))), normalised over channels at each place, the last convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels)
        self.spatial = _Spatial(channels, channels)
        self.mix = _Mix(channels, channels)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, C, h, w) -> (B, h, w, C) and back
        return x + self.mix(F.gelu(self.spatial(normed)))


class Scorer(ModelMixin, ConfigMixin):
    """Pictures to nouns with places, background, style, and features.

    Args:
        nouns, backgrounds, styles, colours: the names that it knows, in the order of its outputs.
        size: side of the pictures in pixels, a multiple of 16.
        channels: widths at 1/4, 1/8 and 1/16 of the picture's side.
        blocks: residual blocks there.
        width: of the features.
    """

    config_name = "config.json"  # type: ignore[assignment]
    config: Any

    @register_to_config
    def __init__(
        self,
        nouns: Sequence[str],
        backgrounds: Sequence[str],
        styles: Sequence[str],
        colours: Sequence[str],
        size: int = 128,
        channels: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (1, 2, 2),
        width: int = 256,
    ) -> None:
        super().__init__()
        quarter, eighth, sixteenth = channels
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            _Spatial(3 * 16, quarter),
            *(_Residual(quarter) for _ in range(blocks[0])),
            nn.PixelUnshuffle(2),
            _Mix(quarter * 4, eighth),
            *(_Residual(eighth) for _ in range(blocks[1])),
            nn.PixelUnshuffle(2),
            _Mix(eighth * 4, sixteenth),
            *(_Residual(sixteenth) for _ in range(blocks[2])),
        )
        self.cell_norm = nn.RMSNorm(sixteenth)
        self.noun_head = nn.Linear(sixteenth, len(nouns) + 1)
        self.colour_head = nn.Linear(sixteenth, len(colours) + 1)
        self.box_head = nn.Linear(sixteenth, 3)
        self.feature_layer = nn.Linear(2 * sixteenth, width)
        self.presence_head = nn.Linear(width, len(nouns))
        self.background_head = nn.Linear(width, len(backgrounds))
        self.style_head = nn.Linear(width, len(styles) + 1)
        for name in ("noun", "colour", "box", "presence", "background", "style"):
            nn.init.zeros_(getattr(self, f"{name}_head").weight)
        nn.init.constant_(self.presence_head.bias, -4.0)  # most nouns are absent
        self.register_buffer("cells", cell_centres(size // 16), persistent=False)

    cells: Tensor

    def forward(self, pixels: Tensor) -> ScorerOutput:
        """Look at pictures.

        Args:
            pixels: (B, 3, size, size) in [-1, 1].

        Raises:
            ValueError: pictures of another size.
        """
        size = self.config.size
        if tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"The scorer reads pictures of 3 × {size} × {size}, not {tuple(pixels.shape[1:])}.")
        x, maps = pixels.to(self.dtype), []
        for layer in self.body:
            x = layer(x)
            if isinstance(layer, _Residual):
                maps.append(x)
        x = self.cell_norm(x.flatten(2).transpose(1, 2))  # (B, C, G, G) -> (B, G², C)
        features = F.gelu(self.feature_layer(torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=-1)))  # (B, width)
        return ScorerOutput(
            nouns=self.noun_head(x),
            colours=self.colour_head(x),
            boxes=self.box_head(x),
            backgrounds=self.background_head(features),
            styles=self.style_head(features),
            presence=self.presence_head(features),
            features=features,
            details=maps[sum(self.config.blocks[:2]) - 1].mean(dim=(2, 3)),
            maps=tuple(maps),
        )

    @torch.no_grad()
    def read(self, pixels: Tensor) -> list[Reading]:
        """What each picture shows; arguments and errors as in `forward`."""
        return self.readings(self.forward(pixels))

    @torch.no_grad()
    def readings(self, output: ScorerOutput) -> list[Reading]:
        """What each picture shows, from the network's outputs."""
        nouns, colours = output.nouns.float().softmax(-1).cpu(), output.colours.float().softmax(-1).cpu()
        boxes, cells = output.boxes.float().cpu(), self.cells.cpu()
        backgrounds, styles = output.backgrounds.argmax(-1).tolist(), output.styles.argmax(-1).tolist()
        return [
            Reading(
                objects=self._detections(nouns[row], colours[row], cells + boxes[row, :, :2], boxes[row, :, 2]),
                background=self.config.backgrounds[backgrounds[row]],
                style=(None, *self.config.styles)[styles[row]],
            )
            for row in range(len(nouns))
        ]

    def _detections(self, nouns: Tensor, colours: Tensor, centres: Tensor, sizes: Tensor) -> tuple[Detection, ...]:
        """Objects of one picture; probabilities (G², N + 1) and (G², C + 1), centres (G², 2), sizes (G²,)."""
        certainty = 1 - nouns[:, 0]  # (G²,)
        left = certainty > 0.5
        found = []
        while left.any():
            seed = int((certainty * left).argmax())
            size = float(sizes[seed].clamp(0.1, 1.0))
            near = left & ((centres - centres[seed]).norm(dim=1) <= size / 2)  # the seed itself included
            left = left & ~near
            footprint = (2 * FOOTPRINT * size) ** 2 * len(nouns)  # cells that an object of this size claims
            mass = float(certainty[near].sum())
            if mass < footprint / 3:  # a few stray cells, no object
                continue
            votes = nouns[near, 1:].sum(dim=0)  # (N,)
            weight = (certainty[near] / mass)[:, None]
            x, y = (centres[near] * weight).sum(dim=0).tolist()
            colour = int((colours[near] * weight).sum(dim=0).argmax())
            found.append(
                Detection(
                    noun=self.config.nouns[int(votes.argmax())],
                    x=x,
                    y=y,
                    size=float((sizes[near] * weight[:, 0]).sum()),
                    colour=(None, *self.config.colours)[colour],
                    certainty=float(votes.max()) / int(near.sum()),
                )
            )
        return tuple(found)


def cell_centres(side: int) -> Tensor:
    """(x, y) of the centres of side × side cells in units of the picture's side, row-major, (side², 2)."""
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)  # (side, side, 2) -> (side², 2)
