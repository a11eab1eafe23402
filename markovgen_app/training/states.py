"""Half-decoded pictures for the random field to learn from, sampled once and kept on disk.

A state is what the field meets at the exit of the decoding loop: the tokens before step k, what the backbone says about
the undecided ones (its guided logits, kept as the hidden states that its head turns into them, which is eight times
smaller), and what should come of them. Two kinds:

    own     the backbone decodes a caption from nothing to the end, with guidance; the target is its own final token
            (MarkovGen, arXiv 2308.10997, section 4: "match its final predictions"). States of one decoding are pairs,
            too: what the backbone says before and after some more tokens are fixed (`StateSource.pairs`).
    real    the tokens of a real picture are uncovered in the order in which the loop would commit them, so that masks
            look as they do at run time; the target is the picture's token.

States of a stage above the base are given coarse tokens: own ones what the stages below make of the caption, real ones
those of the same picture drawn small, with errors as in the stage's own training.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..data.own import OwnPictures
from ..decoding.draws import draw_tokens, gumbel_noise, lowest
from ..decoding.guidance import guided_logits
from ..decoding.sampler import DecodingSettings, decode
from ..decoding.schedule import mask_counts
from ..errors import UserError
from ..ladder import Stage
from ..loading import tensors_digest
from ..models.super_resolution import SuperResolutionTransformer
from ..models.text import TextEncoder
from ..models.tokenizer import ImageTokenizer
from ..models.transformer import MuseTransformer
from ..pixels import stacked, to_pixels
from ..tensor_files import save_whole
from .coarse import CoarseTokens
from .data import Pictures

if TYPE_CHECKING:
    from ..models.amused import AmusedTokenizer, AmusedTransformer

Kind = Literal["own", "real"]
_BATCH = 16  # pictures of up to 256 tokens, fewer of larger ones
_SHARD = 64  # pictures


@dataclass(frozen=True, eq=False)
class States:
    """S states over n tokens.

    Attributes:
        tokens: (S, n) long, the mask token where undecided.
        hidden: (S, n, d), `transformer.logits(hidden)` are the guided logits.
        targets: (S, n) long, the token that every position gets in the end.
        steps: (S,) long, the step k at which the loop would leave.
        target_hidden: (S, n, d), the guided hidden state that each token was drawn from; of own states, if asked for.
    """

    tokens: Tensor
    hidden: Tensor
    targets: Tensor
    steps: Tensor
    target_hidden: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> States:
        return States(**{name: value[rows] for name, value in self.tensors().items()})

    def to(self, device: torch.device) -> States:
        """Ready for computing: on a device, integers long, hidden states float32."""
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return States(
            **{name: value.float() if value.is_floating_point() else value.long() for name, value in moved.items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """The attributes that are there, by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    @staticmethod
    def cat(parts: Sequence[States]) -> States:
        """All states of several lots of one kind."""
        return States(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})


@dataclass(frozen=True, eq=False)
class Backbone:
    """What states are sampled with: the frozen models, the loop's settings and the exit steps k, in rising order.

    `coarse` is where a stage above the base gets its coarse tokens from; None for the base.
    """

    transformer: MuseTransformer | AmusedTransformer | SuperResolutionTransformer
    tokenizer: ImageTokenizer | AmusedTokenizer
    text_encoder: TextEncoder
    settings: DecodingSettings
    exit_steps: tuple[int, ...]
    coarse: CoarseTokens | None = None

    def __post_init__(self) -> None:
        if not self.exit_steps or not 1 <= min(self.exit_steps) <= max(self.exit_steps) <= self.settings.steps:
            raise ValueError(f"exit steps {self.exit_steps} must be between 1 and the {self.settings.steps} steps")

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def to(self, device: torch.device) -> None:
        """Move all models, in place."""
        parts: tuple[Any, ...] = (self.transformer, self.tokenizer, self.text_encoder)
        for part in parts:
            part.to(device)
        if self.coarse is not None:
            self.coarse.pipeline.to(device)

    def generators(self, seeds: Sequence[int]) -> list[torch.Generator]:
        """The stage's source of noise for each picture."""
        stage = Stage(0, self.transformer) if self.coarse is None else self.coarse.stage
        return stage.generators(seeds)

    def guided_hidden(self, captions: Sequence[str], coarse: Tensor | None = None) -> Callable[[Tensor, int], Tensor]:
        """(tokens (B, n), step) → guided hidden states (B, n, d): guidance and the head are linear, so they commute.

        Args:
            coarse: (B, n') tokens of the stage below; None for the base.
        """
        text, empty = (self.text_encoder.encode(words).to(self.device) for words in (captions, [""]))
        model: Callable[..., Tensor] = self.transformer.hidden
        if coarse is not None:
            assert isinstance(self.transformer, SuperResolutionTransformer), "the base refines nothing"
            assert self.coarse is not None, "coarse tokens have come from somewhere"
            model = self.transformer.hidden_given(coarse, self.coarse.stage.enlarged(coarse))
        return guided_logits(model, text, empty, self.settings)


@torch.no_grad()
def own_states(
    backbone: Backbone,
    captions: Sequence[str],
    seeds: Sequence[int],
    *,
    distributions: bool = False,
    coarse: Tensor | None = None,
) -> States:
    """States of len(captions) decodings at every exit step, exit step by exit step.

    Args:
        distributions: also keep what every token was drawn from.
        coarse: see `Backbone.guided_hidden`.
    """
    hidden_at = backbone.guided_hidden(captions, coarse)
    transformer = backbone.transformer
    latest: list[Tensor] = []

    def logits(tokens: Tensor, step: int) -> Tensor:
        latest[:] = [hidden_at(tokens, step)]
        return transformer.logits(latest[0])

    positions = transformer.grid[0] * transformer.grid[1]
    before = torch.full((len(captions), positions), transformer.mask_token_id, device=backbone.device)
    final_hidden: Tensor | None = None
    kept: list[tuple[int, Tensor, Tensor]] = []
    generators = backbone.generators(seeds)
    loop = decode(logits, before, transformer.mask_token_id, backbone.settings, generators, grid=transformer.grid)
    for step in loop:
        undecided = before == transformer.mask_token_id  # (B, n)
        if step.index in backbone.exit_steps:
            kept.append((step.index, before, latest[0]))
        final_hidden = latest[0] if final_hidden is None else final_hidden
        final_hidden = torch.where(undecided.unsqueeze(-1), latest[0], final_hidden)
        before = step.tokens
    assert final_hidden is not None
    target_hidden = final_hidden if distributions else None
    return States.cat([_states(index, tokens, hidden, before, target_hidden) for index, tokens, hidden in kept])


@torch.no_grad()
def real_states(
    backbone: Backbone,
    captions: Sequence[str],
    targets: Tensor,
    seeds: Sequence[int],
    *,
    coarse: Tensor | None = None,
) -> States:
    """States of pictures with tokens `targets` (B, n), uncovered as the loop would commit them, at every exit step.

    Args:
        coarse: see `Backbone.guided_hidden`.
    """
    hidden_at = backbone.guided_hidden(captions, coarse)
    transformer, settings = backbone.transformer, backbone.settings
    generators = backbone.generators(seeds)
    count, positions = targets.shape
    left = mask_counts(positions, settings.steps, settings.schedule)
    mask = torch.ones_like(targets, dtype=torch.bool)  # (B, n)
    fixed_scores = settings.fixed_scores(transformer.grid, targets.device)
    if fixed_scores is None:
        hidden = hidden_at(torch.full_like(targets, transformer.mask_token_id), 1)
    parts = []
    for step in backbone.exit_steps:
        wanted = left[step - 2] if step > 1 else positions
        if fixed_scores is None:
            undecided = mask.sum(1).tolist()
            logits = transformer.logits(hidden).float()
            draws = (
                gumbel_noise(undecided, logits.shape[2], generators)
                .mul_(settings.temperature_at(step - 1))
                .to(backbone.device)
            )
            noise = gumbel_noise(undecided, 1, generators).squeeze(1).to(backbone.device)  # (M,)
            _, log_probability = draw_tokens(logits, mask, draws)
            # what is met before step k is what step k − 1 left
            scores = settings.confidence_scores(log_probability, noise, step - 1)
        else:
            scores = fixed_scores.expand_as(mask)[mask]  # (M,)
        mask = lowest(scores, mask, [wanted] * count)
        tokens = targets.masked_fill(mask, transformer.mask_token_id)
        hidden = hidden_at(tokens, step)
        parts.append(_states(step, tokens, hidden, targets))
    return States.cat(parts)


def _states(step: int, tokens: Tensor, hidden: Tensor, targets: Tensor, target_hidden: Tensor | None = None) -> States:
    return States(
        tokens.short().cpu(),
        hidden.half().cpu(),
        targets.short().cpu(),
        torch.full((len(tokens),), step, dtype=torch.int16),
        None if target_hidden is None else target_hidden.half().cpu(),
    )


class StateSource:
    """States of the scenes of one split, sampled when they are first asked for.

    Args:
        backbone: what they are sampled with.
        scenes: captions, and pictures for the kind "real".
        kind: see the module's text.
        pictures: how many scenes are used, in whole shards of 64; then the same states come again.
        distributions: see `own_states`.
        folder: where shards are kept; those of other weights or settings are never mixed up with these.
    """

    def __init__(
        self,
        backbone: Backbone,
        scenes: Pictures,
        kind: Kind,
        pictures: int,
        folder: Path,
        *,
        distributions: bool = False,
    ) -> None:
        self.backbone, self.scenes, self.kind, self.distributions = backbone, scenes, kind, distributions
        self.shards = max(1, pictures // _SHARD)
        encoder = backbone.text_encoder
        tokenizer: torch.nn.Module = backbone.tokenizer
        if isinstance(tokenizer, ImageTokenizer) and backbone.coarse is None:
            tokenizer = tokenizer.encoder  # the base's states are the same with any decoder
        weights = tensors_digest(backbone.transformer, tokenizer, encoder.model)
        told = [weights, encoder.max_length, backbone.settings, backbone.exit_steps, kind, distributions]
        size = backbone.transformer.grid[0] * backbone.tokenizer.factor
        drawn = b"".join(scenes.render(scenes.scene(index), size).tobytes() for index in range(4))
        sample = [*(scenes.scene(index).caption for index in range(16)), hashlib.blake2b(drawn).hexdigest()]
        if isinstance(scenes, OwnPictures):
            sample += scenes.identity
        if backbone.coarse is not None:
            told += backbone.coarse.identity
        key = hashlib.blake2b(f"{told} {sample}".encode(), digest_size=8).hexdigest()
        self.folder = folder / key

    def shard(self, number: int) -> States:
        """States of pictures number · 64 …"""
        path = self._path(number)
        if not path.is_file():
            indices = range(number * _SHARD, (number + 1) * _SHARD)
            size = self._together
            parts = [self._sample(indices[start : start + size]) for start in range(0, _SHARD, size)]
            states = States.cat(parts)
            save_whole(states.tensors(), path)
        return States(**load_file(path))

    @property
    def _together(self) -> int:
        """Pictures that are sampled at once: their states lie exit step by exit step."""
        positions = self.backbone.transformer.grid[0] * self.backbone.transformer.grid[1]
        return max(1, _BATCH * 256 // max(256, positions))

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not on disk yet."""
        return [number for number in range(self.shards) if not self._path(number).is_file()]

    @property
    def shard_bytes(self) -> int:
        """Bytes of a shard's tensors: two for each token, target and step, and for each number of a hidden state."""
        transformer = self.backbone.transformer
        positions, width = transformer.grid[0] * transformer.grid[1], transformer.head.weight.shape[1]
        kept = 2 if self.kind == "own" and self.distributions else 1  # hidden states of each position
        return _SHARD * len(self.backbone.exit_steps) * 2 * (positions * (2 + kept * width) + 1)

    def _sample(self, indices: Sequence[int]) -> States:
        backbone, below = self.backbone, self.backbone.coarse
        scenes = [self.scenes.scene(index) for index in indices]
        captions = [scene.caption for scene in scenes]
        if self.kind == "own":
            coarse = below.decoded(captions, indices) if below else None
            return own_states(backbone, captions, indices, distributions=self.distributions, coarse=coarse)

        def pixels(side: int) -> Tensor:
            return to_pixels(stacked([self.scenes.render(scene, side) for scene in scenes]), backbone.device)

        coarse = below.encoded(pixels(below.side), indices) if below else None
        tokens = backbone.tokenizer.encode(pixels(self.scenes.size))
        return real_states(backbone, captions, tokens, indices, coarse=coarse)

    def prepare(self, process: int = 0, processes: int = 1) -> None:
        """Sample what is not on disk yet, so that training's minutes are spent on training.

        Args:
            process: this one of `processes`, which share the work.
        """
        missing = [number for number in self.missing if number % processes == process]
        for done, number in enumerate(missing, 1):
            self.shard(number)
            print(f"{self.kind} states: {done}/{len(missing)} shards", file=sys.stderr, flush=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def batch(self, size: int, number: int, seed: int) -> States:
        """Batch `number`: random states of one shard, on the backbone's device."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        rows = torch.randint(_SHARD * len(self.backbone.exit_steps), (size,), generator=generator)
        return self._rows(number, rows)

    def pairs(self, size: int, number: int, seed: int) -> tuple[States, States]:
        """Batch `number` of pairs: states, and others of the same decodings at random later exit steps."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        exits, together = len(self.backbone.exit_steps), self._together
        picture = torch.randint(_SHARD, (size,), generator=generator)
        chance = torch.rand(2, size, generator=generator)
        earlier = (chance[0] * (exits - 1)).long()
        later = earlier + 1 + (chance[1] * (exits - 1 - earlier)).long()
        first = picture // together * together * exits + picture % together  # row of the picture's first state
        before, after = (self._rows(number, first + step * together) for step in (earlier, later))
        return before, after

    def _rows(self, number: int, rows: Tensor) -> States:
        path = self._path(number % self.shards)
        if not path.is_file():
            self.shard(number % self.shards)
        with safe_open(path, framework="pt") as file:
            columns = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
            picked = {name: torch.stack([column[row] for row in rows.tolist()]) for name, column in columns.items()}
        return States(**picked).to(self.backbone.device)


def check_room(sources: Sequence[StateSource], *, tell: bool = True) -> None:
    """Make sure that the disk has room for the states that are still to be sampled.

    Args:
        sources: of one folder.
        tell: say on standard error how much it will be.

    Raises:
        UserError: it has not.
    """
    needed = sum(len(source.missing) * source.shard_bytes for source in sources)
    if not needed:
        return
    folder = sources[0].folder.parent
    if tell:
        print(f"states: {_size(needed)} of them will be kept in {folder}", file=sys.stderr, flush=True)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"The half-decoded states need {_size(needed)} in {folder}, and its disk has {_size(free)} left: free some,"
            " ask for fewer `pictures:`, or name a folder on another disk as `runs:`."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
