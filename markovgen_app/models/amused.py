"""aMUSEd, the open Muse, behind the interfaces of this project's own models.

aMUSEd (Patil et al., arXiv 2401.01808; `amused/amused-256`, `amused/amused-512`) is a U-ViT over VQ tokens that reads
CLIP's states of the text. Checkpoints come in diffusers' format; its classes for the parts are used as they are, its
pipelines (deprecated since 0.33) are not: pictures are decoded by this project's own loop.

    B pictures · n = h · w tokens, row-major · V = 8192 codes · L = 77 text tokens · d = 768 width of both
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.uvit_2d import UVit2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import read_json, tensor_names, variant_of
from ..errors import UserError, first_line
from .text import TextEncoder, TextStates

_PARTS = {
    "transformer": ("diffusers", "UVit2DModel"),
    "vqvae": ("diffusers", "VQModel"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "AmusedScheduler"),
}
_WEIGHTS = {"transformer": "diffusion_pytorch_model", "vqvae": "diffusion_pytorch_model", "text_encoder": "model"}
_CROP = (0, 0)
_AESTHETIC_SCORE = 6


def amused_defaults(steps: int = 12) -> dict[str, Any]:
    """Decoding settings that aMUSEd was published with, but for the guidance.

    The noise on the order falls linearly from 2 at the first of n steps to 0 at the last, which in this project's loop
    (falling to 0 after the last) is one that starts at 2 · n / (n − 1). Guidance is diffusers' 10 no more: the paper's
    own table for the 256 px model has FID 59 there and 39 at 4, and the best CLIP score at 5.
    """
    noise = round(2 * steps / max(1, steps - 1), 4)
    return {
        "steps": steps,
        "guidance_scale": 4.5,
        "guidance_ramp": False,
        "temperature": 1.0,
        "annealing": 0.0,
        "choice_temperature": noise,
        "order": "confidence",
    }


class AmusedTransformer(nn.Module):
    """`UVit2DModel` with the interface of `MuseTransformer`.

    Args:
        model: the U-ViT; its last layer becomes this module's `head`.
        mask_token_id: the token that stands for "not decided yet".
        factor: pixels a token, along a side.
        grid: rows and columns of tokens; those that it was trained for if not given.
    """

    def __init__(
        self, model: UVit2DModel, mask_token_id: int, factor: int, grid: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        given: Any = model.config
        self.grid = grid or (given.sample_size, given.sample_size)
        self.config: Any = FrozenDict({**given, "text_width": given.encoder_hidden_size})
        self.mask_token_id = mask_token_id
        self.head = model.mlm_layer.conv2
        model.mlm_layer.conv2 = nn.Identity()  # type: ignore[assignment]
        self.body = model
        height, width = self.grid
        size = (float(width * factor), float(height * factor), *map(float, _CROP), float(_AESTHETIC_SCORE))
        self.register_buffer("micro_conditions", torch.tensor(size), persistent=False)  # (5,)

    micro_conditions: Tensor

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.head.weight.dtype

    def hidden(self, tokens: Tensor, text_states: Tensor, text_mask: Tensor, pooled_text: Tensor) -> Tensor:
        """Last hidden states of the image tokens, normalised, (B, n, d); arguments as in `forward`."""
        maps = self.body(
            tokens.unflatten(1, self.grid),  # (B, n) -> (B, h, w)
            encoder_hidden_states=text_states.to(self.dtype),
            pooled_text_emb=pooled_text.to(self.dtype),
            micro_conds=self.micro_conditions.to(self.dtype).expand(len(tokens), -1),  # (B, 5)
        )
        return maps.flatten(2).transpose(1, 2)  # (B, d, h, w) -> (B, n, d)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, d)."""
        return F.linear(hidden, self.head.weight.flatten(1), self.head.bias)  # weight (V, d, 1, 1) -> (V, d)

    def forward(self, tokens: Tensor, text_states: Tensor, text_mask: Tensor, pooled_text: Tensor) -> Tensor:
        """Predict every token.

        Args:
            tokens: (B, n) long, `mask_token_id` where undecided.
            text_states: (B, L, d), CLIP's last states but one.
            text_mask: (B, L) bool; not read, aMUSEd was trained with all of them.
            pooled_text: (B, d), CLIP's projected text.

        Returns:
            logits (B, n, V).

        Raises:
            ValueError: the number of tokens is not the grid's.
        """
        height, width = self.grid
        if tokens.shape[1] != height * width:
            raise ValueError(f"This transformer works on {height} × {width} tokens, not on {tokens.shape[1]}.")
        return self.logits(self.hidden(tokens, text_states, text_mask, pooled_text))


class AmusedTokenizer(nn.Module):
    """`VQModel` with the interface of `ImageTokenizer`. Where its config asks for it, float32 replaces float16."""

    def __init__(self, model: VQModel) -> None:
        super().__init__()
        self.model = model
        given: Any = model.config
        self.config = given
        self.factor: int = 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        return self.codebook.device

    @property
    def dtype(self) -> torch.dtype:
        return self.codebook.dtype

    @property
    def codebook(self) -> Tensor:
        """Latents of the codes, (V, D)."""
        return self.model.quantize.embedding.weight

    @property
    def codebook_size(self) -> int:
        """V, the number of codes."""
        return self.codebook.shape[0]

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Tokens of pictures.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, n) long, row-major.

        Raises:
            ValueError: H or W is no multiple of the factor.
        """
        if pixels.shape[-1] % self.factor or pixels.shape[-2] % self.factor:
            raise ValueError(
                f"The picture's sides are multiples of {self.factor} pixels, not {tuple(pixels.shape[-2:])}."
            )
        self._settle_dtype()
        latents = self.model.encode((pixels.to(self.dtype) + 1) / 2).latents  # (B, D, h, w), pixels in [0, 1]
        return self.model.quantize(latents)[2][2].view(len(pixels), -1)  # (B · h · w,) -> (B, n)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Pictures of tokens.

        Args:
            tokens: (B, n) long in [0, V).
            grid: (height, width) in tokens; a square by default.

        Returns:
            (B, 3, factor · height, factor · width) in [-1, 1].

        Raises:
            ValueError: the tokens do not fill the grid.
        """
        side = math.isqrt(tokens.shape[1])
        height, width = grid or (side, side)
        if height * width != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {height} × {width}.")
        self._settle_dtype()
        latents = self.codebook[tokens].transpose(1, 2).unflatten(2, (height, width))  # (B, n, D) -> (B, D, h, w)
        return self.model.decoder(self.model.post_quant_conv(latents.contiguous())).clamp(0, 1) * 2 - 1

    def _settle_dtype(self) -> None:
        if self.config.force_upcast and self.dtype == torch.float16:
            self.model.float()


class ClipTextEncoder(TextEncoder):
    """CLIP's text tower as aMUSEd reads it: always 77 tokens, padding included, the last states but one."""

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts: states (B, L, d), all of which count, and the projected text (B, d)."""
        pieces = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        output = self.model(input_ids=pieces.input_ids.to(self.device), output_hidden_states=True)
        states = output.hidden_states[-2].float()
        return TextStates(
            states, torch.ones(states.shape[:2], dtype=torch.bool, device=self.device), output.text_embeds
        )


class AmusedScheme:
    """How diffusers' `AmusedScheduler` counts and draws: decoding with it gives its pictures, token for token.

    One generator for the whole batch; noise for all positions, decided ones included, in the order in which
    `torch.multinomial` and the scheduler ask for it; counts in float32, so that ⌊256 · cos(π/3)⌋ is 127, and never
    below 1 before the last step.

    Args:
        generator: on the CPU.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def left(self, unknown: int, positions: int, settings: _Schedule) -> Sequence[int]:
        """Tokens still undecided after every step, see `decoding.sampler.Scheme`."""
        progress = torch.arange(1, settings.steps) / settings.steps  # (steps − 1,)
        shares = {"cosine": torch.cos(progress * math.pi / 2), "linear": 1 - progress}[settings.schedule]
        wanted = (positions * (torch.tensor(unknown) / positions * shares)).floor().int().tolist()
        counts: list[int] = []
        for count in wanted:
            counts.append(max(1, min((counts[-1] if counts else unknown) - 1, count)))
        return [*counts, 0]

    def token_noise(self, mask: Tensor, undecided: Sequence[int], width: int) -> Tensor:
        """−log of exponential variates: `torch.multinomial` takes the largest of p / e."""
        noise = torch.empty(mask.numel(), width).exponential_(1, generator=self.generator)  # (B · n, width)
        return noise[mask.flatten().cpu()].log_().neg_()

    def order_noise(self, mask: Tensor, undecided: Sequence[int]) -> Tensor:
        """−log(−log u) of uniform u."""
        noise = torch.empty(mask.shape).uniform_(generator=self.generator)[mask.cpu()]  # (M,)
        return -torch.log((-torch.log(noise.clamp(1e-20))).clamp(1e-20))


class _Schedule(Protocol):
    @property
    def steps(self) -> int: ...

    @property
    def schedule(self) -> str: ...


def _check(folder: Path) -> None:
    """Make sure that a checkpoint's parts are aMUSEd's, there and whole; raises UserError."""
    index = read_json(folder / "model_index.json")
    for name, (library, kind) in _PARTS.items():
        if index.get(name) != [library, kind]:
            raise UserError(f"The {name} in {folder} is no {kind}: choose another checkpoint.")
        if name in _WEIGHTS:
            read_json(folder / name / "config.json")
            tensor_names(folder / name, _WEIGHTS[name])


def load_amused(folder: Path) -> tuple[AmusedTransformer, AmusedTokenizer, ClipTextEncoder]:
    """The parts of a checkpoint in aMUSEd's format, in float32.

    Raises:
        UserError: a part is missing, damaged, or of another kind.
    """
    _check(folder)
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer  # seconds to import

    def part(kind: Any, name: str) -> Any:
        model, found = kind.from_pretrained(
            folder / name, variant=variant_of(folder / name, _WEIGHTS[name]), use_safetensors=True,
            local_files_only=True, torch_dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
        if missing := sorted(found["missing_keys"]):
            raise UserError(
                f"The weights in {folder / name} do not fit its config.json ({missing[0]}): copy both from one"
                " checkpoint."
            )
        if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
            raise UserError(
                f"The weights in {folder / name} are damaged (not all numbers are finite): copy them again."
            )
        return model.eval().requires_grad_(False)

    shape = read_json(folder / "transformer" / "config.json")
    codes, vocabulary = shape.get("codebook_size", 0), shape.get("vocab_size", 0)
    mask_token_id = read_json(folder / "scheduler" / "scheduler_config.json").get("mask_token_id")
    if not isinstance(mask_token_id, int) or not codes <= mask_token_id < vocabulary:
        raise UserError(
            f"The scheduler in {folder} names {mask_token_id} as the mask token, and the transformer knows {codes} to"
            f" {vocabulary - 1}: take both from one checkpoint."
        )
    try:
        tokenizer = AmusedTokenizer(part(VQModel, "vqvae"))
        transformer = AmusedTransformer(part(UVit2DModel, "transformer"), mask_token_id, tokenizer.factor)
        words = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        text = ClipTextEncoder(part(CLIPTextModelWithProjection, "text_encoder"), words, words.model_max_length)
    except UserError:
        raise
    except Exception as error:  # a config and weights that do not fit fail in as many ways as there are mistakes
        raise UserError(
            f"The checkpoint {folder} cannot be loaded: copy or download it again ({first_line(error)})."
        ) from error
    return transformer, tokenizer, text
