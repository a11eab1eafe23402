"""The super-resolution transformer: predicts masked tokens of a fine grid from the tokens of a coarse one and a text.

Muse's second stage (Chang et al., ICML 2023, arXiv 2301.00704, section 2.4), made affordable on a CPU. A small encoder
reads the coarse tokens; its states join the text as cross-attention context, as in the paper, and are also added, each
spread over the fine tokens that it covers, to their embeddings. With `enlarged`, so are the tokens of the coarse
picture enlarged to the fine grid: what need not become sharper is right from the start. Attention does not run over the
fine grid: as in aMUSEd's 512 px model (arXiv 2401.01808), fine tokens are merged m × m into the fewer, wider ones of a
trunk, and spread out again beside a skip; convolutions on the fine grid settle what lies inside a merged block and
across its border.

    fine tokens (B, n) --embed, convolve--> (B, n, f) --merge--> (B, n/m², d) --trunk--> --spread, skip, convolve-->
    (B, n, f) --head--> logits (B, n, V)            coarse tokens (B, n') --encoder--> (B, n', d)

    B pictures · n fine and n' coarse tokens, row-major · L text tokens · f, d widths of fine grid and trunk · V codes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from .transformer import Block, TokenTransformer


class FineBlock(nn.Module):
    """What a token hears from its eight neighbours on the grid: x + W₂ gelu(conv3×3(rms(x))), W₂ starting at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        normed = F.rms_norm(x, (x.shape[-1],))
        image = normed.unflatten(1, grid).permute(0, 3, 1, 2)  # (B, n, f) -> (B, f, h, w), channels last
        heard = self.spatial(image).permute(0, 2, 3, 1).flatten(1, 2)  # (B, f, h, w) -> (B, n, f)
        return x + self.mix(F.gelu(heard))


class SuperResolutionTransformer(TokenTransformer, ModelMixin, ConfigMixin):
    """Masked fine tokens, coarse tokens and a text to logits over the codebook.

    Args:
        codebook_size: V, the same codes on both grids.
        grid: rows and columns of fine tokens.
        coarse_grid: rows and columns of coarse tokens; `grid` is a whole multiple of it.
        hidden_size, num_layers, num_heads, mlp_ratio: d, depth, heads and feed-forward width of the trunk and of the
            coarse tokens' encoder.
        coarse_layers: depth of that encoder.
        fine_size: f.
        fine_layers: convolutional blocks before and after the trunk.
        merge: m.
        text_width: width of the text encoder's states.
        levels: digits of the codes, as in `MuseTransformer`.
        enlarged: whether it also reads the fine tokens of the coarse picture enlarged (see `ladder.enlarged_tokens`).

    Raises:
        ValueError: the grids do not divide by each other, or by `merge`.
    """

    config_name = "config.json"  # type: ignore[assignment]
    config: Any

    @register_to_config
    def __init__(
        self,
        codebook_size: int = 2048,
        grid: Sequence[int] = (32, 32),
        coarse_grid: Sequence[int] = (16, 16),
        hidden_size: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        coarse_layers: int = 1,
        fine_size: int = 192,
        fine_layers: Sequence[int] = (1, 2),
        merge: int = 2,
        text_width: int = 384,
        levels: Sequence[int] = (),
        enlarged: bool = False,
    ) -> None:
        super().__init__()
        height, width = grid
        rows, columns = coarse_grid
        if height % rows or width % columns or height // rows != width // columns:
            raise ValueError(f"A grid of {height} × {width} tokens is no whole multiple of {rows} × {columns}.")
        if height % merge or width % merge:
            raise ValueError(f"A grid of {height} × {width} tokens cannot be merged {merge} × {merge}.")
        self._ratio = height // rows
        self._add_embeddings(codebook_size, grid, fine_size, levels)
        self.text_in = nn.Linear(text_width, hidden_size)
        self.pooled_in = nn.Linear(text_width, hidden_size)
        self.coarse_in = nn.Linear(fine_size, hidden_size, bias=False)
        self.coarse_row_embedding = nn.Parameter(torch.randn(rows, 1, hidden_size) * 0.02)
        self.coarse_column_embedding = nn.Parameter(torch.randn(1, columns, hidden_size) * 0.02)
        self.coarse_blocks = nn.ModuleList(
            Block(hidden_size, num_heads, mlp_ratio, cross=False, modulated=False) for _ in range(coarse_layers)
        )
        self.coarse_norm = nn.RMSNorm(hidden_size)
        self.coarse_spread = nn.Linear(hidden_size, self._ratio**2 * fine_size, bias=False)
        self.enlarged_in = nn.Linear(fine_size, fine_size, bias=False) if enlarged else None
        before, after = fine_layers
        self.fine_before = nn.ModuleList(FineBlock(fine_size) for _ in range(before))
        self.merge_in = nn.Linear(merge**2 * fine_size, hidden_size, bias=False)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio, cross=True) for _ in range(num_layers))
        self.spread_out = nn.Linear(hidden_size, merge**2 * fine_size, bias=False)
        self.fine_after = nn.ModuleList(FineBlock(fine_size) for _ in range(after))
        self._add_head(codebook_size, fine_size, levels)

    @property
    def coarse_grid(self) -> tuple[int, int]:
        """Rows and columns of coarse tokens."""
        rows, columns = self.config.coarse_grid
        return rows, columns

    def coarse_states(self, coarse_tokens: Tensor) -> Tensor:
        """What the encoder reads in coarse tokens (B, n'): (B, n', d)."""
        rows, columns = self.coarse_grid
        if coarse_tokens.shape[1] != rows * columns:
            raise ValueError(
                f"This transformer refines {rows} × {columns} coarse tokens, not {coarse_tokens.shape[1]}."
            )
        places = (self.coarse_row_embedding + self.coarse_column_embedding).flatten(0, 1)  # (h', w', d) -> (n', d)
        x = self.coarse_in(F.embedding(coarse_tokens, self._embedding())) + places
        for block in self.coarse_blocks:
            x = block(x)
        return self.coarse_norm(x)

    def fine_states(
        self,
        tokens: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        coarse_states: Tensor,
        enlarged_tokens: Tensor | None = None,
        places: Tensor | None = None,
        window: tuple[int, int] | None = None,
    ) -> Tensor:
        """Last hidden states of the fine tokens, normalised, (B, n, f), given the states of the coarse ones.

        Args:
            enlarged_tokens, places, window: as in `hidden`.
        """
        if (enlarged_tokens is None) != (self.enlarged_in is None):
            wanted = "wants" if enlarged_tokens is None else "does not read"
            raise ValueError(f"This transformer {wanted} the tokens of the enlarged coarse picture.")
        positions = self._places()
        spread = blocks_to_rows(self.coarse_spread(coarse_states), self.coarse_grid, self._ratio)  # (B, n, f)
        if places is not None:
            positions = positions[places]  # (B, n, f)
            spread = spread.gather(1, places.unsqueeze(-1).expand(-1, -1, spread.shape[-1]))
        table = self._embedding()
        x = F.embedding(tokens, table) + positions + spread
        if self.enlarged_in is not None and enlarged_tokens is not None:
            x = x + self.enlarged_in(F.embedding(enlarged_tokens, table))
        merge, (height, width) = self.config.merge, window or self.grid
        for block in self.fine_before:
            x = block(x, (height, width))
        text = self.text_in(text_states.to(x.dtype))
        pooled = F.silu(self.pooled_in(pooled_text.to(x.dtype)))
        context = torch.cat([text, coarse_states], dim=1)  # (B, L + n', d)
        keys = F.pad(text_mask, (0, coarse_states.shape[1]), value=True)[:, None, None, :]  # (B, 1, 1, L + n')
        merged = self.merge_in(rows_to_blocks(x, (height, width), merge))  # (B, n/m², d)
        for block in self.blocks:
            merged = block(merged, pooled, None, context, keys)
        x = x + blocks_to_rows(self.spread_out(merged), (height // merge, width // merge), merge)
        for block in self.fine_after:
            x = block(x, (height, width))
        return self.out_norm(x)

    def hidden(
        self,
        tokens: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        coarse_tokens: Tensor,
        enlarged_tokens: Tensor | None = None,
        places: Tensor | None = None,
        window: tuple[int, int] | None = None,
    ) -> Tensor:
        """Last hidden states of the fine tokens, normalised, (B, n, f).

        Args:
            tokens, text_states, text_mask, pooled_text, coarse_tokens, enlarged_tokens: as in `forward`.
            places: (B, n) long, where on the grid the tokens are, if they are not all of it but a window each.
            window: its rows and columns, multiples of `merge`; its corner is at a multiple of that, too.
        """
        coarse_states = self.coarse_states(coarse_tokens)
        texts = text_states, text_mask, pooled_text
        return self.fine_states(tokens, *texts, coarse_states, enlarged_tokens, places, window)

    def hidden_given(
        self, coarse_tokens: Tensor, enlarged_tokens: Tensor | None = None
    ) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """`hidden` with its coarse tokens (B, n') settled, called as the base transformer's is.

        They are read once, however many decoding steps follow. The rows of a call are those of `coarse_tokens`, or
        several times those one after another, as guidance has it.

        Args:
            enlarged_tokens: (B, n), as in `forward`.
        """
        coarse_states = self.coarse_states(coarse_tokens)

        def hidden(tokens: Tensor, text_states: Tensor, text_mask: Tensor, pooled_text: Tensor) -> Tensor:
            self._check_fits(tokens)
            times = len(tokens) // len(coarse_states)
            enlarged = None if enlarged_tokens is None else enlarged_tokens.repeat(times, 1)
            texts = text_states, text_mask, pooled_text
            return self.fine_states(tokens, *texts, coarse_states.repeat(times, 1, 1), enlarged)

        return hidden

    def given(
        self, coarse_tokens: Tensor, enlarged_tokens: Tensor | None = None
    ) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The model with its coarse tokens (B, n') settled, called as the base transformer is; see `hidden_given`."""
        hidden = self.hidden_given(coarse_tokens, enlarged_tokens)

        def model(tokens: Tensor, text_states: Tensor, text_mask: Tensor, pooled_text: Tensor) -> Tensor:
            return self.logits(hidden(tokens, text_states, text_mask, pooled_text))

        return model

    def forward(
        self,
        tokens: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        pooled_text: Tensor,
        coarse_tokens: Tensor,
        enlarged_tokens: Tensor | None = None,
    ) -> Tensor:
        """Predict every fine token.

        Args:
            tokens: (B, n) long, `mask_token_id` where undecided.
            text_states: (B, L, text_width).
            text_mask: (B, L) bool, True where `text_states` holds a real token.
            pooled_text: (B, text_width).
            coarse_tokens: (B, n') long, `mask_token_id` where unknown.
            enlarged_tokens: (B, n) long, of the coarse picture enlarged, `mask_token_id` where unknown; for a
                transformer that reads them, None for one that does not.

        Returns:
            logits (B, n, V).

        Raises:
            ValueError: the number of tokens is not the grid's, or enlarged ones are missing or not read.
        """
        self._check_fits(tokens)
        return self.logits(self.hidden(tokens, text_states, text_mask, pooled_text, coarse_tokens, enlarged_tokens))


def rows_to_blocks(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Row-major tokens of a grid, every `side` × `side` of them joined into one: (B, n, f) -> (B, n/side², side²·f)."""
    height, width = grid
    x = x.unflatten(1, (height // side, side, width // side, side))  # (B, n, f) -> (B, h/s, s, w/s, s, f)
    return x.transpose(2, 3).flatten(3).flatten(1, 2)  # -> (B, h/s, w/s, s, s, f) -> (B, n/s², s²·f)


def blocks_to_rows(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The way back, `grid` being that of the blocks: (B, n, side²·f) -> (B, n·side², f)."""
    x = x.unflatten(2, (side, side, -1)).unflatten(1, grid)  # (B, n, s²·f) -> (B, h, w, s, s, f)
    return x.transpose(2, 3).flatten(1, 4)  # -> (B, h, s, w, s, f) -> (B, n·s², f)
