"""The Markov random field over image tokens, and mean-field inference in it: the layer that gives MarkovGen its name.

MarkovGen (Jayasumana et al., CVPR 2024, arXiv 2308.10997) lets tokens i and j with labels l and l' agree or disagree:

    E(x) = − Σ_i f_i(x_i) − ½ Σ_i Σ_{j≠i} w_ij(x_i, x_j)        p(x) ∝ exp(−E(x))
    p(x_i | x_−i) = softmax_l(f_i(l) + m_i(l)),   m_i(l) = Σ_{j≠i} w_ij(l, x_j)                       (conditionals)
    Q_i = softmax_l(f_i(l) + m_i(l)),             m_i(l) = Σ_{j≠i} Σ_l' w_ij(l, l') Q_j(l')           (mean field)

f are the backbone's logits, w is learned, and the mean-field update is the paper's Algorithm 1 for all i at once.
The paper writes Σ_i Σ_j, its algorithm is that of an energy with each pair once: hence the ½, which learned weights
absorb. The paper leaves open whether w is symmetric, w_ij(l, l') = w_ji(l', l), and what the diagonal does. Here no
token sees itself, and w is free: both formulas belong to E if w is symmetric (else E is that of its symmetric part):

    dense         s(i, j) c(l, l')           the paper's: W^s is n × n, W^c is V × V
    low-rank      s(i, j) (B_l · A_l')       W^c = B Aᵀ: a label sends d numbers (A), W^s spreads them, B receives them
    directional   B_lᵀ K_r A_l', r = j − i   ours: a d × d matrix for every offset r, so that "what may stand to my
                                             right" differs from "what may stand below me", anywhere in the picture
      + Σ_h s_h(i, j) (B_lh · A_l'h)         and, if asked for, H low-rank ones for what a whole picture has in common

    B pictures · n = h · w tokens, row-major · V codebook size · d rank (V for dense) · M tokens to infer · T updates
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from .couplings import gaussian, heard_far, heard_near, likeliest, random_offsets, wider_and_wider

PARAMETRISATIONS = ("dense", "low-rank", "directional")


class MarkovRandomField(ModelMixin, ConfigMixin):
    """Logits of independent tokens to logits of tokens that have heard their neighbours.

    A new field says nothing: it returns the logits that it is given, but every weight that has to move first has a
    gradient. It computes in float32 (float64 for float64 logits), whatever its own type.

    Args:
        parametrisation: "dense", "low-rank" or "directional", see the module's text.
        codebook_size: V.
        grid: rows and columns of tokens.
        rank: d of "low-rank" and "directional".
        neighbourhood: K of "directional", odd: a token hears the K × K tokens around it. The others hear all tokens.
        far_kernels, far_rank: H of "directional", and the numbers that a label sends through each, beside its d.
        iterations: mean-field updates T, unless a call says otherwise.
        damping: share of the old messages in [0, 1) that an update keeps, unless a call says otherwise.
        finalise, exit_temperature, exit_share: how, and after which share of the steps, an exit is best left to it.

    Raises:
        ValueError: a value is out of its range.
    """

    config_name = "config.json"  # type: ignore[assignment]
    config: Any

    @register_to_config
    def __init__(
        self,
        parametrisation: Literal["dense", "low-rank", "directional"] = "directional",
        codebook_size: int = 2048,
        grid: Sequence[int] = (16, 16),
        rank: int = 64,
        neighbourhood: int = 7,
        iterations: int = 3,
        damping: float = 0.0,
        finalise: str = "sample",
        exit_temperature: float | None = None,
        exit_share: float | None = None,
        far_kernels: int = 0,
        far_rank: int = 4,
    ) -> None:
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"No random field is called {parametrisation!r}: choose {', '.join(PARAMETRISATIONS)}.")
        if min(rank, far_rank) < 1 or neighbourhood < 3 or neighbourhood % 2 == 0:
            raise ValueError(f"Rank {rank} must be 1 or more, the neighbourhood {neighbourhood} odd and 3 or more.")
        if far_kernels < 0 or (far_kernels and parametrisation != "directional"):
            raise ValueError(f"Far kernels are 0 or more, and of a directional field: not {far_kernels}.")
        self.options(iterations, damping, None)
        spatial = random_offsets(rank, neighbourhood) if parametrisation == "directional" else gaussian(grid)
        dense, width = parametrisation == "dense", rank + far_kernels * far_rank
        sender = torch.zeros(codebook_size, codebook_size) if dense else torch.randn(codebook_size, width) * rank**-0.5
        self.spatial = nn.Parameter(spatial)  # K_r (d out, K, K, d in), or W^s (n, n)
        self.far = nn.Parameter(wider_and_wider(grid, far_kernels)) if far_kernels else None  # s_h (H, n, n)
        self.sender = nn.Parameter(sender)  # A (V, d), or the transpose of W^c (V, V)
        self.receiver = None if dense else nn.Parameter(torch.zeros(codebook_size, width))  # B (V, d)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.config.grid[0], self.config.grid[1]

    def forward(
        self,
        logits: Tensor,
        tokens: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        iterations: int | None = None,
        damping: float | None = None,
        top_k: int | None = None,
    ) -> Tensor:
        """Mean field: log marginals, up to a constant a token, after T parallel updates from Q = softmax(f).

        An update keeps `damping` of the old messages: m ← damping · m + (1 − damping) · m', starting from m = 0: mirror
        descent on the free energy, which cannot rise if no eigenvalue of −w exceeds damping / (1 − damping).

        Args:
            logits: (B, n, V), f.
            tokens: (B, n) long, read where `fixed_mask` is set.
            fixed_mask: (B, n) bool, True where a token is committed: it sends its label and receives nothing.
            iterations, damping: None: the configuration's.
            top_k: marginals are kept on the k likeliest labels of f alone while iterating; the result covers all V.

        Returns:
            (B, n, V): f + m where tokens are to be inferred, f where they are fixed.

        Raises:
            ValueError: the shapes do not fit this field or each other, or an option is out of its range.
        """
        steps, kept = self.options(iterations, damping, top_k)
        logits = self._fitting(logits)
        if (tokens is None) != (fixed_mask is None):
            raise ValueError("Committed tokens and the mask that says where they are go together.")
        if tokens is None or fixed_mask is None:
            tokens = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)  # (B, n)
            fixed_mask = torch.zeros_like(tokens, dtype=torch.bool)  # (B, n)
        sent = self._features(tokens, logits, fixed_mask).flatten(0, 1)  # (B·n, d)
        free = (~fixed_mask).flatten().nonzero().squeeze(1)  # (B, n) -> (M,)
        flat = logits.flatten(0, 1)  # (B, n, V) -> (B·n, V)
        unary, support = likeliest(flat[free], top_k)
        heard = sent.new_zeros(len(free), sent.shape[1])  # (M, d)
        for step in range(steps):
            scores = unary + self._receive(heard, support) if step else unary
            features = sent.index_copy(0, free, self._send(scores.softmax(-1), support))  # (B·n, d)
            update = self._spread(features.unflatten(0, logits.shape[:2])).flatten(0, 1)[free]  # (M, d)
            heard = torch.lerp(update, heard, kept)
        return flat.index_add(0, free, self._receive(heard)).view_as(logits)

    def conditional_logits(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits of p(x_i | x_−i, f) at every i at once, (B, n, V), in one pass: what pseudo-likelihood trains.

        Of logits (B, n, V) and all labels (B, n); position i does not depend on token i. Raises ValueError as above.
        """
        logits = self._fitting(logits)
        return logits + self._receive(self._spread(self._features(tokens, logits)))

    def energy(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """E(x) (B,), in nats, of tokens (B, n) under logits (B, n, V). Raises ValueError where shapes do not fit."""
        logits = self._fitting(logits)
        heard = self._spread(self._features(tokens, logits)).flatten(0, 1)  # (B, n, d) -> (B·n, d)
        names = tokens.unsqueeze(-1)  # (B, n, 1)
        pairs = self._receive(heard, names.flatten(0, 1)).view_as(names)  # (B·n, 1) -> (B, n, 1)
        return -(logits.gather(-1, names) + pairs / 2).sum((1, 2))

    def free_energy(self, marginals: Tensor, logits: Tensor) -> Tensor:
        """Mean of E under independent tokens, less their entropy (B,), in nats: what mean field lowers.

        KL(Q ‖ p) − log Z of Q and finite f, both (B, n, V); E(x) where Q is one-hot on x, as it is where tokens are
        committed. Raises ValueError where shapes do not fit.
        """
        logits, marginals = self._fitting(logits), self._fitting(marginals)
        message = self._receive(self._spread(self._send(marginals)))
        return -(marginals * (logits + message / 2) + torch.special.entr(marginals)).sum((1, 2))

    def expected(self, logits: Tensor, undecided: Tensor, top_k: int | None = None) -> Tensor:
        """What undecided tokens send before any is fixed, softmax(f) of each, (B, n, d); zeros elsewhere.

        Of logits f, their mask (B, n), and `top_k`; raises ValueError as `forward` does.
        """
        self.options(None, None, top_k)
        logits = self._fitting(logits)
        before, support = likeliest(logits[undecided], top_k)
        sent = self._send(before.softmax(-1), support)  # (M, d)
        return sent.new_zeros(*undecided.shape, sent.shape[1]).masked_scatter(undecided.unsqueeze(-1), sent)

    def told(self, expected: Tensor, tokens: Tensor, fixed_mask: Tensor, undecided: Tensor) -> Tensor:
        """What fixing tokens tells M undecided ones: m − m⁰, (M, V), with messages m after and m⁰ before it.

        Both are of one undamped update from softmax(f), so only what the fixed tokens send differs: labels, no longer
        what was `expected` of them (B, n, d). Of labels (B, n) and both masks (B, n); raises ValueError as `forward`.
        """
        labels = self._features(tokens, expected, fixed_mask, undecided)  # (B, n, d)
        news = (labels - expected).masked_fill(~fixed_mask.unsqueeze(-1), 0)  # (B, n, d)
        return self._receive(self._spread(news)[undecided])

    def options(self, iterations: int | None, damping: float | None, top_k: int | None) -> tuple[int, float]:
        """Updates and damping of a call; ValueError if an option is out of its range."""
        steps = self.config.iterations if iterations is None else iterations
        kept = self.config.damping if damping is None else damping
        if steps < 1:
            raise ValueError(f"Mean-field iterations must be 1 or more, not {steps}.")
        if not 0 <= kept < 1:
            raise ValueError(f"Mean-field damping must be 0 or more and less than 1, not {kept}.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"Top-k must be 1 or more, not {top_k}.")
        return steps, kept

    def _fitting(self, logits: Tensor) -> Tensor:
        height, width = self.grid
        if logits.dim() != 3 or logits.shape[1:] != (height * width, self.config.codebook_size):
            field = f"{height} × {width} tokens of {self.config.codebook_size} codes"
            raise ValueError(f"This random field works on {field}, not on logits of shape {tuple(logits.shape)}.")
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _features(self, tokens: Tensor, like: Tensor, *masks: Tensor) -> Tensor:
        """What tokens (B, n) send, (B, n, d), beside (B, n, …); of masks (B, n), the first says where they count."""
        if tokens.shape != like.shape[:2]:
            raise ValueError(f"Tokens of shape {tuple(tokens.shape)} do not fit shape {tuple(like.shape)}.")
        if wrong := [tuple(mask.shape) for mask in masks if mask.shape != tokens.shape]:
            raise ValueError(f"A mask of shape {wrong[0]} does not fit tokens {tuple(tokens.shape)}.")
        tokens = tokens.masked_fill(~masks[0], 0) if masks else tokens
        if tokens.numel() and not 0 <= tokens.min() <= tokens.max() < self.config.codebook_size:
            raise ValueError(f"Committed tokens must be 0 to {self.config.codebook_size - 1}: undecided have no label.")
        return F.embedding(tokens, self.sender).to(like.dtype)

    def _send(self, marginals: Tensor, support: Tensor | None = None) -> Tensor:
        """Marginals (…, V), or (M, k) on the labels `support` (M, k), to what they send, (…, d)."""
        table = self.sender.to(marginals.dtype)
        if support is not None:
            return F.embedding_bag(support, table, per_sample_weights=marginals, mode="sum")
        with torch.autocast(marginals.device.type, enabled=False):
            return marginals @ table

    def _spread(self, features: Tensor) -> Tensor:
        """What all tokens send, (B, n, d), to what each hears from all the others, (B, n, d)."""
        with torch.autocast(features.device.type, enabled=False):
            spatial = self.spatial.to(features.dtype)
            if self.config.parametrisation != "directional":
                return heard_far(features, spatial.unsqueeze(0))  # (n, n) -> (1, n, n)
            near = heard_near(features[..., : self.config.rank], spatial, self.grid)
            far = None if self.far is None else heard_far(features[..., self.config.rank :], self.far.to(near.dtype))
            return near if far is None else torch.cat([near, far], -1)

    def _receive(self, heard: Tensor, support: Tensor | None = None) -> Tensor:
        """What tokens hear, (…, d), to messages (…, V), or (M, d) to those for the labels `support`, (M, k)."""
        if self.receiver is None:
            return heard if support is None else heard.gather(1, support)
        receiver = self.receiver.to(heard.dtype)
        with torch.autocast(heard.device.type, enabled=False):
            if support is None:
                return heard @ receiver.T
            return (F.embedding(support, receiver) @ heard.unsqueeze(-1)).squeeze(-1)  # (M, k, d) · (M, d, 1) -> (M, k)
