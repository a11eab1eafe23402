"""Train the base transformer to predict masked tokens of captioned scenes.

The recipe: masked-token cross-entropy; `full_mask_share` of the samples fully masked, the rest at the rate
cos(π/2 · u), u uniform, whose density is Muse's (2/π)(1 − r²)^(−1/2); captions replaced by the empty text with
probability `drop_text`; Muon for the blocks' matrices, AdamW for everything else; exponential moving average.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.scenes import SceneDataset, Vocabulary
from ..decoding.guidance import guided_logits
from ..decoding.sampler import decode, method_settings
from ..models.text import TextEncoder, TextStates
from ..models.tokenizer import ImageTokenizer
from ..models.transformer import MuseTransformer
from ..pixels import stacked, to_levels, to_pixels
from .data import scene_batches
from .loop import LoopConfig, Trainer, copy_half, read_config, start_from, without_denormals
from .muon import Muon

_SHARD = 4096


class BaseConfig(LoopConfig):
    """Settings of a base transformer run."""

    matrix_rate: float = Field(0.02, gt=0, description="Muon's learning rate")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's learning rate")
    vocabulary: Vocabulary = "frequent"
    tokenizer: Path = Path("weights/tokenizer")
    text_encoder: str | None = Field(None, description="folder of the text encoder; the installed package by default")
    cached_scenes: int = Field(0, ge=0, description="scenes tokenized once and used again; 0: fresh ones without end")
    drop_text: float = Field(0.1, ge=0, le=1)
    full_mask_share: float = Field(0.3, ge=0, le=1)
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    text_conditioning: Literal["prefix", "cross-attention"] = "prefix"
    start_from: Path | None = Field(None, description="folder of exported weights to start from")


def mask_rates(count: int, full_mask_share: float, generator: torch.Generator) -> Tensor:
    """Share of tokens to mask in each sample, (count,): 1 with probability `full_mask_share`, else cos(π/2 · u)."""
    draws = torch.rand(2, count, generator=generator)
    return torch.where(draws[0] < full_mask_share, 1.0, torch.cos(math.pi / 2 * draws[1]))


def random_mask(rates: Tensor, positions: int, generator: torch.Generator) -> Tensor:
    """(B, positions) bool with max(1, ⌊rate · positions⌉) random positions set in each row."""
    counts = (rates * positions).round().clamp(1, positions)
    rank = torch.rand(len(rates), positions, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank < counts[:, None]


def drop_captions(captions: Sequence[str], probability: float, generator: torch.Generator) -> list[str]:
    """Captions, each replaced by the empty text where rand < `probability`."""
    draws = torch.rand(len(captions), generator=generator)
    return ["" if draw < probability else text for text, draw in zip(captions, draws.tolist(), strict=True)]


@dataclass(frozen=True)
class TokenBatch:
    """Captions and the image tokens (B, n) of their pictures."""

    captions: list[str]
    tokens: Tensor


class TokenSource:
    """Captioned tokens of scenes: fresh ones, or a fixed number of them tokenized once and kept on disk."""

    def __init__(
        self, scenes: SceneDataset, tokenizer: ImageTokenizer, config: BaseConfig, device: torch.device
    ) -> None:
        self.scenes, self.tokenizer, self.config, self.device = scenes, tokenizer, config, device
        self._shards: dict[int, Tensor] = {}
        weights = float(sum(parameter.detach().double().abs().sum() for parameter in tokenizer.parameters()))
        sample = [scenes.scene(index).caption for index in range(64)]
        key = hashlib.blake2b(f"{weights:.6f} {sample}".encode(), digest_size=8).hexdigest()
        self._folder = config.runs / "tokens" / key

    def _shard(self, number: int) -> Tensor:
        """Tokens of scenes number·4096 …, (4096, n) int16."""
        if number not in self._shards:
            path = self._folder / f"{number:05d}.safetensors"
            if not path.is_file():
                batches = scene_batches(self.scenes, 32, number * _SHARD // 32, self.config.workers)
                parts = [self.tokenizer.encode(next(batches).pixels(self.device)).cpu() for _ in range(_SHARD // 32)]
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file({"tokens": torch.cat(parts).short()}, path)
            self._shards[number] = load_file(path)["tokens"]
        return self._shards[number]

    def batches(self, first: int) -> Iterator[TokenBatch]:
        """Batches from number `first` on."""
        size, cached = self.config.batch_size, self.config.cached_scenes
        if not cached:
            for batch in scene_batches(self.scenes, size, first, self.config.workers):
                yield TokenBatch([s.caption for s in batch.scenes], self.tokenizer.encode(batch.pixels(self.device)))
        number = first
        while True:
            indices = [(number * size + offset) % cached for offset in range(size)]
            tokens = torch.stack([self._shard(index // _SHARD)[index % _SHARD] for index in indices])  # (B, n)
            yield TokenBatch([self.scenes.scene(index).caption for index in indices], tokens.long().to(self.device))
            number += 1


def build_optimizers(model: nn.Module, matrix_rate: float, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms, modulation and the head."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        inside = name.startswith("blocks.") and parameter.ndim == 2 and "modulation" not in name
        (matrices if inside else others).append(parameter)
    adam = torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    return [Muon(matrices, matrix_rate), adam]


def masked_loss(
    model: MuseTransformer,
    tokens: Tensor,
    mask: Tensor,
    text: TextStates,
    hidden_states: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Cross-entropy of the masked tokens in nats a token; `hidden_states`: `model.hidden`, compiled say."""
    seen = tokens.masked_fill(mask, model.mask_token_id)
    hidden = (hidden_states or model.hidden)(seen, text.states, text.mask, text.pooled)
    return F.cross_entropy(model.logits(hidden[mask]).float(), tokens[mask])


@torch.no_grad()
def sample_sheet(
    model: MuseTransformer, tokenizer: ImageTokenizer, text_encoder: TextEncoder, captions: Sequence[str], path: Path
) -> None:
    """One picture a caption, `full` method, as one PNG."""
    settings = method_settings("full", steps=16)
    device = next(model.parameters()).device
    text, empty = (text_encoder.encode(words).to(device) for words in (captions, [""]))
    n = model.grid[0] * model.grid[1]
    tokens = torch.full((len(captions), n), model.mask_token_id, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    logits = guided_logits(model, text, empty, settings)
    for step in decode(logits, tokens, model.mask_token_id, settings, generators, grid=model.grid):
        tokens = step.predicted
    pictures = list(to_levels(tokenizer.decode(tokens, model.grid)))
    columns = 8
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(captions), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


@without_denormals
def train(config_path: Path, resume: bool = False) -> None:
    """Train by the configuration file; the averaged weights go to runs/NAME/weights at every checkpoint."""
    config = read_config(config_path, BaseConfig)
    torch.manual_seed(config.seed)
    tokenizer = ImageTokenizer.from_pretrained(config.tokenizer, torch_dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = tokenizer.to(memory_format=torch.channels_last)
    text_encoder = TextEncoder.from_pretrained(config.text_encoder)
    model = MuseTransformer(
        tokenizer.codebook_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        text_conditioning=config.text_conditioning,
        levels=tokenizer.config.levels,
    )
    if config.start_from:
        codes = {"codebook_size": tokenizer.codebook_size, "levels": tokenizer.config.levels}
        model = start_from(MuseTransformer, config.start_from, config, **codes)
    trainer = Trainer(config, model, build_optimizers(model, config.matrix_rate, config.learning_rate))
    if resume:
        trainer.resume()
    device = trainer.device
    tokenizer.to(device)
    text_encoder.to(device)
    scenes = SceneDataset(config.seed, 128, "train", config.vocabulary)
    source = TokenSource(scenes, tokenizer, config, device)
    forward = torch.compile(model.hidden) if config.compile else model.hidden

    held_out = SceneDataset(config.seed, 128, "tune", config.vocabulary)
    shown = [held_out[index] for index in range(64)]
    captions = [scene.caption for scene, _ in shown]
    held_out_tokens = tokenizer.encode(to_pixels(stacked([picture for _, picture in shown]), device))

    def loss(batch: TokenBatch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        count, n = batch.tokens.shape
        mask = random_mask(mask_rates(count, config.full_mask_share, generator), n, generator).to(device)
        text = text_encoder.encode(drop_captions(batch.captions, config.drop_text, generator)).to(device)
        value = masked_loss(model, batch.tokens, mask, text, forward)
        return value, {"loss": value.detach()}

    def on_checkpoint() -> None:
        average: MuseTransformer = trainer.average  # type: ignore[assignment]
        everything = torch.ones_like(held_out_tokens, dtype=torch.bool)
        with torch.no_grad():
            with_text, without_text = (
                float(masked_loss(average, held_out_tokens, everything, text_encoder.encode(words).to(device)))
                for words in (captions, [""] * len(captions))
            )
        trainer.log({"step": trainer.step, "full_mask_loss": with_text, "full_mask_loss_without_text": without_text})
        sample_sheet(average, tokenizer, text_encoder, captions[:16], config.folder / "samples.png")
        (config.folder / "samples.txt").write_text("\n".join(captions[:16]) + "\n")
        copy_half(average, config.folder / "weights")

    trainer.fit(source.batches(trainer.step), loss, on_checkpoint)
