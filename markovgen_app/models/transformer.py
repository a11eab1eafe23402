"""The base transformer: a bidirectional transformer that predicts masked image tokens from visible ones and a text.

Muse (Chang et al., ICML 2023, arXiv 2301.00704) with a recipe that trains in minutes on small machines: the text's
token states are projected and put in front of the image tokens ("prefix", joint attention), or attended to by
cross-attention as in the paper; the mean-pooled text sets a zero-initialised scale and shift of every normalisation.
RMS norms, query-key norms, factorised row + column positions, squared ReLU.

    B pictures · n image tokens, row-major · L text tokens · d width · V codebook size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with query-key norms; queries from `x`, keys and values from `context`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, S, d) -> (B, heads, S, d/heads)
            for layer, source in ((self.query, x), (self.key, context), (self.value, context))
        )
        attended = F.scaled_dot_product_attention(self.query_norm(q), self.key_norm(k), v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))  # (B, heads, S, d/heads) -> (B, S, d)


class Block(nn.Module):
    """Attention, cross-attention where a context comes that way, a feed-forward net; modulated by the text or not."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, cross: bool, modulated: bool = True) -> None:
        super().__init__()
        inner = int(width * mlp_ratio)
        self.attention = Attention(width, heads)
        self.cross = Attention(width, heads) if cross else None
        self.cross_norm = nn.RMSNorm(width) if cross else None
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.modulation = nn.Linear(width, 4 * width) if modulated else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        pooled: Tensor | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        width = (x.shape[-1],)
        modulation = x.new_zeros(4, 1, 1) if self.modulation is None else self.modulation(pooled)[:, None].chunk(4, -1)
        scale_1, shift_1, scale_2, shift_2 = modulation  # each (B, 1, d), or zeros (1, 1)
        normed = F.rms_norm(x, width) * (1 + scale_1) + shift_1
        x = x + self.attention(normed, normed, mask)
        if self.cross is not None and self.cross_norm is not None and context is not None:
            x = x + self.cross(self.cross_norm(x), context, context_mask)
        normed = F.rms_norm(x, width) * (1 + scale_2) + shift_2
        return x + self.down(F.relu(self.up(normed)).square())


class TokenTransformer(nn.Module):
    """What transformers over a grid of tokens have in common: embeddings of tokens and places, and logits.

    Its parts are the model's own attributes, so that each model's weights keep their names. The models are diffusers'
    as well (`ModelMixin`, `ConfigMixin`), which is where their `config` comes from.
    """

    config: Any
    digits: Tensor

    def _add_embeddings(self, codebook_size: int, grid: Sequence[int], width: int, levels: Sequence[int]) -> None:
        """Of V tokens and the mask, of rows and of columns; and what the embeddings of codes with a digit share."""
        self.token_embedding = nn.Embedding(codebook_size + 1, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.row_embedding = nn.Parameter(torch.randn(grid[0], 1, width) * 0.02)
        self.column_embedding = nn.Parameter(torch.randn(1, grid[1], width) * 0.02)
        self.digit_embedding = None
        if levels:
            codes = torch.cartesian_prod(*(torch.arange(level) for level in levels))  # (V, D)
            one_hot = [F.one_hot(codes[:, place], level) for place, level in enumerate(levels)]
            self.register_buffer("digits", torch.cat(one_hot, dim=1).float(), persistent=False)  # (V, sum of levels)
            self.digit_embedding = nn.Parameter(torch.randn(sum(levels), width) * 0.02)

    def _add_head(self, codebook_size: int, width: int, levels: Sequence[int]) -> None:
        """The last norm, the logits' weights, and what those of codes with a digit share."""
        self.out_norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, codebook_size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.digit_head = nn.Parameter(torch.zeros(sum(levels), width)) if levels else None

    @property
    def mask_token_id(self) -> int:
        """The token that stands for "not decided yet": V."""
        return self.config.codebook_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        height, width = self.config.grid
        return height, width

    def _embedding(self) -> Tensor:
        """The table of token embeddings, (V + 1, d)."""
        table = self.token_embedding.weight
        if self.digit_embedding is None:
            return table
        return table + F.pad(self.digits @ self.digit_embedding, (0, 0, 0, 1))  # (V, d) -> (V + 1, d)

    def _places(self) -> Tensor:
        """Embeddings of the places, (n, d)."""
        return (self.row_embedding + self.column_embedding).flatten(0, 1)  # (h, w, d) -> (n, d)

    def _head_weight(self) -> Tensor:
        """Weights of the logits, (V, d)."""
        return self.head.weight if self.digit_head is None else self.head.weight + self.digits @ self.digit_head

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, d)."""
        return F.linear(hidden, self._head_weight(), self.head.bias)

    def _check_fits(self, tokens: Tensor) -> None:
        """Raise ValueError where the number of tokens (B, n) is not the grid's."""
        height, width = self.grid
        if tokens.shape[1] != height * width:
            raise ValueError(f"This transformer works on {height} × {width} tokens, not on {tokens.shape[1]}.")


class MuseTransformer(TokenTransformer, ModelMixin, ConfigMixin):
    """Masked image tokens and a text to logits over the codebook.

    Args:
        codebook_size: V.
        grid: rows and columns of tokens.
        hidden_size, num_layers, num_heads, mlp_ratio: d, depth, heads, feed-forward width in units of d.
        text_width: width of the text encoder's states.
        text_conditioning: "prefix" (joint attention) or "cross-attention" (Muse's layout).
        levels: digits of the codes where the tokenizer is a product of small alphabets (FSQ): codes that share a digit
            then share a part of their embeddings and of their logits, which learns faster; empty for none.
    """

    config_name = "config.json"  # type: ignore[assignment]
    config: Any

    @register_to_config
    def __init__(
        self,
        codebook_size: int = 2048,
        grid: Sequence[int] = (16, 16),
        hidden_size: int = 256,
        num_layers: int = 6,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        text_width: int = 384,
        text_conditioning: Literal["prefix", "cross-attention"] = "prefix",
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        width = hidden_size
        self._add_embeddings(codebook_size, grid, width, levels)
        self.text_in = nn.Linear(text_width, width)
        self.pooled_in = nn.Linear(text_width, width)
        cross = text_conditioning == "cross-attention"
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio, cross) for _ in range(num_layers))
        self._add_head(codebook_size, width, levels)

    def hidden(
        self,
        tokens: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        places: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of the image tokens, normalised, (B, n, d).

        Args:
            tokens, text_states, text_mask, pooled_text: as in `forward`.
            places: (B, n) long, where on the grid the tokens are, if they are not all of it.
        """
        return self.hidden_after(tokens, text_states, text_mask, pooled_text, places)[0]

    def hidden_after(
        self,
        tokens: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        places: Tensor | None = None,
        blocks: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Last hidden states as `hidden` gives them, and those of the image tokens after so many blocks, (B, n, d)."""
        positions = self._places()
        x = F.embedding(tokens, self._embedding()) + (positions if places is None else positions[places])
        text = self.text_in(text_states.to(x.dtype))
        pooled = F.silu(self.pooled_in(pooled_text.to(x.dtype)))
        length = 0
        text_keys = text_mask[:, None, None, :]  # (B, 1, 1, L)
        mask = None
        if self.config.text_conditioning == "prefix":
            length = text.shape[1]
            x = torch.cat([text, x], dim=1)  # (B, L + n, d)
            mask = F.pad(text_mask, (0, tokens.shape[1]), value=True)[:, None, None, :]  # (B, 1, 1, L + n)
        inner = x
        for number, block in enumerate(self.blocks, 1):
            x = block(x, pooled, mask, text, text_keys)
            inner = x if number == blocks else inner
        return self.out_norm(x[:, length:]), inner[:, length:]

    def forward(self, tokens: Tensor, text_states: Tensor, text_mask: Tensor, pooled_text: Tensor) -> Tensor:
        """Predict every token.

        Args:
            tokens: (B, n) long, `mask_token_id` where undecided.
            text_states: (B, L, text_width).
            text_mask: (B, L) bool, True where `text_states` holds a real token.
            pooled_text: (B, text_width).

        Returns:
            logits (B, n, V).

        Raises:
            ValueError: the number of tokens is not the grid's.
        """
        self._check_fits(tokens)
        return self.logits(self.hidden(tokens, text_states, text_mask, pooled_text))
