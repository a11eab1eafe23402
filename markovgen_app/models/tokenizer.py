"""Image tokenizer: a small convolutional autoencoder with finite scalar quantisation (FSQ).

    pixels (B, 3, H, W)  --encoder-->  latents (B, D, H/8, W/8)  --round-->  tokens (B, n)  --decoder-->  pixels

FSQ (Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024, arXiv 2309.15505) squashes each of D
latent channels to one of L_d levels; a token is the mixed-radix number of its D digits, so the codebook is a fixed
table of prod(L_d) points and no code can die. Blocks have no normalisation over space: a token depends on the pixels
near it alone, at any picture size, which is what inpainting and the 256 px stage rely on. With an encoder of 1 × 1
convolutions a token depends on its own 8 × 8 pixels only: a sprite has the same tokens in front of any background, and
a transformer learns them much faster; the decoder, whose kernels overlap, still draws across the borders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + 1×1(gelu(k×k(gelu(x)))), the last convolution starting at zero."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.spatial(F.gelu(x))))


def _blocks(channels: int, count: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, kernel) for _ in range(count)))


class ImageTokenizer(ModelMixin, ConfigMixin):
    """Pictures to tokens and back, one token for 8 × 8 pixels.

    Args:
        levels: FSQ levels a latent channel; the codebook has their product.
        channels: widths at 1/2, 1/4 and 1/8 of the picture's side.
        encoder_blocks: residual blocks at 1/4 and 1/8.
        decoder_blocks: residual blocks at 1/8, 1/4 and 1/2.
        encoder_kernel: side of the encoder's convolutions: 3, or 1 for tokens of their own 8 × 8 pixels alone.
    """

    factor = 8
    config_name = "config.json"  # type: ignore[assignment]
    config: Any

    @register_to_config
    def __init__(
        self,
        levels: Sequence[int] = (8, 8, 8, 4),
        channels: Sequence[int] = (64, 128, 192),
        encoder_blocks: Sequence[int] = (2, 3),
        decoder_blocks: Sequence[int] = (4, 3, 1),
        encoder_kernel: int = 3,
    ) -> None:
        super().__init__()
        half, quarter, eighth = channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(3 * 16, quarter, encoder_kernel, padding=encoder_kernel // 2),
            _blocks(quarter, encoder_blocks[0], encoder_kernel),
            nn.PixelUnshuffle(2),
            nn.Conv2d(quarter * 4, eighth, 1),
            _blocks(eighth, encoder_blocks[1], encoder_kernel),
            nn.Conv2d(eighth, len(levels), 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), eighth, 3, padding=1),
            _blocks(eighth, decoder_blocks[0]),
            nn.Conv2d(eighth, quarter * 4, 1),
            nn.PixelShuffle(2),
            _blocks(quarter, decoder_blocks[1]),
            nn.Conv2d(quarter, half * 4, 1),
            nn.PixelShuffle(2),
            _blocks(half, decoder_blocks[2]),
            nn.Conv2d(half, 3 * 4, 3, padding=1),
            nn.PixelShuffle(2),
        )
        codes = torch.cartesian_prod(*(torch.arange(level) for level in levels)).float()  # (V, D)
        self.register_buffer("top_digit", torch.tensor([level - 1.0 for level in levels]), persistent=False)
        self.register_buffer("codebook", codes / self.top_digit * 2 - 1, persistent=False)  # (V, D) in [-1, 1]
        place = [math.prod(levels[i + 1 :]) for i in range(len(levels))]
        self.register_buffer("place_value", torch.tensor(place), persistent=False)

    top_digit: Tensor
    codebook: Tensor
    place_value: Tensor

    @property
    def codebook_size(self) -> int:
        """V, the number of codes."""
        return self.codebook.shape[0]

    def digits(self, pixels: Tensor) -> Tensor:
        """Continuous digits in [0, L_d − 1], (B, D, h, w), of pixels (B, 3, H, W) in [-1, 1]."""
        return torch.sigmoid(self.encoder(pixels)) * self.top_digit[:, None, None]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct with straight-through rounding.

        Args:
            pixels: (B, 3, H, W) in [-1, 1], H and W multiples of 8.

        Returns:
            the reconstruction (B, 3, H, W), unclamped, and the tokens (B, n).
        """
        digits = self.digits(pixels)
        rounded = digits + (digits.round() - digits).detach()
        latents = rounded / self.top_digit[:, None, None] * 2 - 1
        return self.decoder(latents), self._tokens(digits)

    def _tokens(self, digits: Tensor) -> Tensor:
        return (digits.round().long() * self.place_value[:, None, None]).sum(dim=1).flatten(1)  # (B, h, w) -> (B, n)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Tokens of pictures.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, n) long, row-major, n = H/8 · W/8.

        Raises:
            ValueError: H or W is no multiple of 8.
        """
        if pixels.shape[-1] % self.factor or pixels.shape[-2] % self.factor:
            raise ValueError(
                f"The picture's sides are multiples of {self.factor} pixels, not {tuple(pixels.shape[-2:])}."
            )
        return self._tokens(self.digits(pixels.to(self.dtype)))

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Pictures of tokens.

        Args:
            tokens: (B, n) long in [0, V).
            grid: (height, width) in tokens; a square by default.

        Returns:
            (B, 3, 8·height, 8·width) in [-1, 1].

        Raises:
            ValueError: the tokens do not fill the grid.
        """
        side = math.isqrt(tokens.shape[1])
        height, width = grid or (side, side)
        if height * width != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {height} × {width}.")
        latents = self.codebook[tokens]  # (B, n, D)
        latents = latents.transpose(1, 2).unflatten(2, (height, width))  # (B, n, D) -> (B, D, h, w)
        return self.decoder(latents.to(self.dtype)).clamp(-1, 1)
