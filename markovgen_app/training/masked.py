"""What the stages share that learn to predict masked tokens of captioned scenes.

Cross-entropy of the masked tokens; `full_mask_share` of the samples fully masked, the rest at the rate cos(π/2 · u), u
uniform, whose density is Muse's (2/π)(1 − r²)^(−1/2); captions replaced by the empty text with probability `drop_text`;
Muon for the blocks' matrices, AdamW for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.scenes import Scene, covered
from ..loading import load_model
from ..models.text import TextEncoder, TextStates
from ..models.tokenizer import ImageTokenizer
from .data import PicturesConfig
from .muon import Muon

_LENGTHS = 16  # captions are padded to multiples of so many word pieces


class MaskedConfig(PicturesConfig):
    """Settings that these stages have in common."""

    matrix_rate: float = Field(0.02, gt=0, description="Muon's learning rate")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's learning rate")
    tokenizer: Path = Path("weights/tokenizer")
    text_encoder: str | None = Field(
        None, description="T5, CLIP or one of BERT's kind: a folder or a hub id; all-MiniLM-L6-v2 by default"
    )
    cached_scenes: int = Field(0, ge=0, description="scenes tokenized once and used again; 0: fresh ones without end")
    reuse: int = Field(1, ge=1, description="steps in a row on the same fresh scenes, each with other masks")
    drop_text: float = Field(0.1, ge=0, le=1)
    full_mask_share: float = Field(0.3, ge=0, le=1)
    start_from: Path | None = Field(None, description="folder of exported weights to start from")


def load_tokenizer(folder: Path) -> ImageTokenizer:
    """The frozen tokenizer, in float32, channels last in memory.

    Raises:
        UserError: it is not there, or damaged.
    """
    absent = f"There is no tokenizer in {folder}: train it first (`markovgen train tokenizer`), or correct `tokenizer`."
    tokenizer = load_model(ImageTokenizer, folder, absent).eval().requires_grad_(False)
    return tokenizer.to(memory_format=torch.channels_last)


def load_text_encoder(config: MaskedConfig) -> TextEncoder:
    """The frozen text encoder of a run: as configured, else that of the weights to start from."""
    if config.text_encoder is None and config.start_from is not None:
        return TextEncoder.beside(config.start_from)
    return TextEncoder.from_pretrained(config.text_encoder)


class TokenModel(Protocol):
    """A transformer whose logits can be computed at some positions only."""

    @property
    def mask_token_id(self) -> int: ...

    @property
    def hidden(self) -> Callable[..., Tensor]: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


def read_captions(encoder: TextEncoder, captions: Sequence[str]) -> TextStates:
    """Text states on the encoder's device, in float32 as at run time, whatever the precision of the training step.

    They are padded to a multiple of 16 word pieces: a compiled model is compiled anew for every length, and gives up
    after a few.
    """
    with torch.autocast(encoder.device.type, enabled=False):
        text = encoder.encode(captions)
    return text.padded(-(-text.mask.shape[1] // _LENGTHS) * _LENGTHS)


def mask_rates(count: int, full_mask_share: float, generator: torch.Generator) -> Tensor:
    """Share of tokens to mask in each sample, (count,): 1 with probability `full_mask_share`, else cos(π/2 · u)."""
    draws = torch.rand(2, count, generator=generator)
    return torch.where(draws[0] < full_mask_share, 1.0, torch.cos(math.pi / 2 * draws[1]))


def random_mask(rates: Tensor, positions: int, generator: torch.Generator) -> Tensor:
    """(B, positions) bool with max(1, ⌊rate · positions⌉) random positions set in each row."""
    counts = (rates * positions).round().clamp(1, positions)
    rank = torch.rand(len(rates), positions, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank < counts[:, None]


def mask_patches(
    rates: Tensor, grid: tuple[int, int], share: float, generator: torch.Generator, coarse: int = 4
) -> Tensor:
    """Masks of `random_mask`'s counts, (B, n); with probability `share` a row's are regions: where smooth noise is low.

    Decoding commits the surest tokens first, which stand together: a model that has only seen scattered ones never
    met one thing drawn and its neighbour not begun, and draws the first one twice.

    Args:
        coarse: cells a side of the noise before it is interpolated.
    """
    scattered = random_mask(rates, grid[0] * grid[1], generator)
    noise = torch.randn(len(rates), 1, coarse, coarse, generator=generator)
    smooth = F.interpolate(noise, grid, mode="bicubic").flatten(1)  # (B, 1, h, w) -> (B, n)
    regions = smooth.argsort(dim=1).argsort(dim=1) < scattered.sum(dim=1, keepdim=True)
    return torch.where(torch.rand(len(rates), 1, generator=generator) < share, regions, scattered)


def place_weights(scenes: Sequence[Any], grid: tuple[int, int], weight: float) -> Tensor:
    """How likely a place is to be looked at, (B, n): `weight` on a scene's objects, if it has any, 1 elsewhere."""
    weights = torch.ones(len(scenes), grid[0] * grid[1])
    for row, scene in enumerate(scenes):
        if isinstance(scene, Scene):
            weights[row, torch.from_numpy(covered(scene, grid[0]).ravel())] = weight
    return weights


def drop_captions(captions: Sequence[str], probability: float, generator: torch.Generator) -> list[str]:
    """Captions, each replaced by the empty text where rand < `probability`."""
    draws = torch.rand(len(captions), generator=generator)
    return ["" if draw < probability else text for text, draw in zip(captions, draws.tolist(), strict=True)]


def build_optimizers(
    model: nn.Module, matrix_rate: float, learning_rate: float, inner: tuple[str, ...] = ("blocks.",)
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms, modulation, convolutions and the head.

    Args:
        inner: how the names of the parameters inside begin.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        inside = name.startswith(inner) and parameter.ndim == 2 and "modulation" not in name
        (matrices if inside else others).append(parameter)
    adam = torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    return [Muon(matrices, matrix_rate), adam]


def token_loss(model: TokenModel, hidden: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens in nats a token; hidden (B, n, d), tokens (B, n) long, mask (B, n) bool."""
    return F.cross_entropy(model.logits(hidden[mask]).float(), tokens[mask])


def masked_loss(
    model: TokenModel,
    tokens: Tensor,
    mask: Tensor,
    text: TextStates,
    *context: Tensor,
    hidden_states: Callable[..., Tensor] | None = None,
) -> Tensor:
    """`token_loss` of what the model makes of the tokens that are not masked.

    Args:
        tokens, mask: (B, n) long, and bool.
        context: what the model is given beside tokens and text.
        hidden_states: `model.hidden`, or that compiled.
    """
    seen = tokens.masked_fill(mask, model.mask_token_id)
    hidden = (hidden_states or model.hidden)(seen, text.states, text.mask, text.pooled, *context)
    return token_loss(model, hidden, tokens, mask)


def write_sheet(pictures: Sequence[np.ndarray], columns: int, path: Path) -> None:
    """Pictures of one size, (H, W, 3) uint8 each, row by row as one PNG; the last row must be full."""
    rows = [np.concatenate(pictures[start : start + columns], axis=1) for start in range(0, len(pictures), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
