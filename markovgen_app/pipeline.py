"""The pipeline: requests in, events out. Loads and saves checkpoints in diffusers' folder format."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from .checkpoint import check_checkpoint, check_model, class_of, download, find_checkpoint, is_hub_id, tensor_names
from .decoding.editing import EditSettings, edit, rounds_of
from .decoding.guidance import guided_logits
from .decoding.sampler import (
    METHODS,
    DecodingSettings,
    DecodingStep,
    Refine,
    TokensToLogits,
    decode,
    hide,
    method_settings,
)
from .errors import UserError
from .models.mrf import MarkovRandomField
from .models.text import TextEncoder
from .models.tokenizer import ImageTokenizer
from .models.transformer import MuseTransformer
from .offload import one_at_a_time
from .patches import Patch, patches
from .pictures import Picture, read_settings, write_error
from .pixels import stacked, to_levels, to_pixels
from .requests import DecodingRequest, EditRequest, GenerateRequest, PictureRequest
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .models.amused import AmusedTokenizer, AmusedTransformer

__all__ = ["MarkovGenPipeline", "Picture", "Result", "StepEvent", "read_settings"]

_PARTS = {"transformer": MuseTransformer, "tokenizer": ImageTokenizer}
_OPTIONAL_PARTS = {"mrf": MarkovRandomField}
_SHARD_SIZE = "9MB"
_NEAREST = 3
_AMUSED = "AmusedPipeline"  # the class that checkpoints of aMUSEd name

RequestT = TypeVar("RequestT", bound=DecodingRequest)


class TokensToImages(Protocol):
    """Pictures of tokens (B, n); `rows` says which candidate each row is, if they are not all, in order."""

    def __call__(self, tokens: Tensor, rows: Sequence[int] | None = None) -> list[Image.Image]: ...


@dataclass(frozen=True, eq=False)
class StepEvent:
    """One decoding step is done.

    Attributes:
        step: the state of the loop.
        fraction: of the steps that will be done, in (0, 1].
        label: "base 7/24".
        patch: where the loop works.
    """

    step: DecodingStep
    fraction: float
    label: str
    patch: Patch
    _to_images: TokensToImages = field(repr=False)

    @cached_property
    def images(self) -> list[Image.Image]:
        """Previews of what is predicted so far, one a picture; decoded when first asked for."""
        return self._to_images(self.step.predicted)


@dataclass(frozen=True, eq=False)
class Result:
    """The pictures are done.

    Attributes:
        images: the pictures, in the order of their seeds.
        request: what was asked for, with the seed settled.
        notes: lines for the person who asked, such as on a prompt that is too long to be read to its end.
        frames: predicted tokens after every step, each (count, n).
    """

    images: list[Picture]
    request: DecodingRequest
    notes: list[str]
    frames: list[Tensor]
    _to_images: Sequence[TokensToImages] = field(repr=False)  # one a frame

    def frame(self, step: int, index: int = 0) -> Image.Image:
        """One picture as it was predicted after a step, counted from 0."""
        return self._to_images[step](self.frames[step][index : index + 1], [index])[0]

    def filmstrip(self, index: int = 0) -> list[Image.Image]:
        """One picture as it was predicted after every step, the last one being the result."""
        return [self.frame(step, index) for step in range(len(self.frames))]


class MarkovGenPipeline(DiffusionPipeline):
    """Text to pictures by decoding masked image tokens.

    Args:
        transformer: predicts tokens.
        tokenizer: turns tokens into pictures.
        text_encoder: reads prompts; the published one is loaded at first use if not given. It is not stored with the
            weights, and always works in float32.
        vocabulary: the words that the weights know.
        mrf: the random field over the transformer's tokens, what the method markovgen needs.
        defaults: what a request of these weights asks for where it does not say, if not the request's own defaults.

    Raises:
        UserError: the parts do not fit each other.
    """

    _optional_components = list(_OPTIONAL_PARTS)  # noqa: RUF012, as the base class has it

    transformer: MuseTransformer | AmusedTransformer
    tokenizer: ImageTokenizer | AmusedTokenizer
    mrf: MarkovRandomField | None

    def __init__(
        self,
        transformer: MuseTransformer | AmusedTransformer,
        tokenizer: ImageTokenizer | AmusedTokenizer,
        text_encoder: TextEncoder | None = None,
        vocabulary: Vocabulary | None = None,
        mrf: MarkovRandomField | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        codes, known = transformer.config.codebook_size, tokenizer.codebook_size
        if codes != known:
            raise UserError(
                f"The transformer has {codes} tokens, the tokenizer {known}: take both from one checkpoint."
            )
        if text_encoder is not None and text_encoder.width != transformer.config.text_width:
            raise UserError(
                f"The text encoder's states are {text_encoder.width} wide, the transformer reads"
                f" {transformer.config.text_width}: choose the text encoder that it was trained with."
            )
        if mrf is not None:
            check_field(mrf, transformer)
        self.register_modules(
            transformer=transformer.eval().requires_grad_(False),
            tokenizer=tokenizer.eval().requires_grad_(False),
            mrf=None if mrf is None else mrf.eval().requires_grad_(False),
        )
        self._text_encoder = text_encoder
        self.vocabulary = vocabulary or Vocabulary()
        self.defaults = dict(defaults or {})
        self._works_on: torch.device | None = None
        self._noun_states: Tensor | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[Any] = "weights",
        *,
        text_encoder: TextEncoder | None = None,
        mrf: str | os.PathLike[Any] | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> MarkovGenPipeline:
        """Load a checkpoint of this project's or of aMUSEd's format, from a folder or the hub, on the CPU.

        Args:
            pretrained_model_name_or_path: folder or hub id.
            text_encoder: the published one, or what an aMUSEd checkpoint brings, if not given.
            mrf: folder or hub id of a random field to use instead of the checkpoint's own (its folder mrf).
            dtype: of the image models.
            options: go to diffusers.

        Raises:
            UserError: the checkpoint, or the text encoder, is missing, damaged, or of another kind.
        """
        folder = find_checkpoint(pretrained_model_name_or_path)
        if class_of(folder) == _AMUSED:
            return cls._of_amused(folder, text_encoder, mrf).to(dtype)
        present = check_checkpoint(folder, cls.__name__, _PARTS, _OPTIONAL_PARTS)
        vocabulary = Vocabulary.load(folder)
        text_encoder = text_encoder or TextEncoder.from_pretrained()
        given: dict[str, Any] = {"text_encoder": text_encoder, "vocabulary": vocabulary, "use_safetensors": True}
        if mrf is not None:
            given["mrf"] = load_field(mrf)
            present.discard("mrf")
        try:
            pipeline = super().from_pretrained(str(folder), dtype=dtype, local_files_only=True, **given, **options)
        except UserError:
            raise
        except Exception as error:  # a config and weights that do not fit fail in as many ways as there are mistakes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
            raise UserError(
                f"The checkpoint {folder} cannot be loaded: copy or download it again ({reason})."
            ) from error
        for part in present:
            _check_complete(getattr(pipeline, part), folder / part)
        return pipeline

    @classmethod
    def _of_amused(
        cls, folder: Path, text_encoder: TextEncoder | None, mrf: str | os.PathLike[Any] | None
    ) -> MarkovGenPipeline:
        """The pipeline over a checkpoint in aMUSEd's format, with the field in its folder mrf if it has one."""
        from .models.amused import amused_defaults, load_amused

        transformer, tokenizer, own_text_encoder = load_amused(folder)
        if mrf is None and (folder / "mrf").is_dir():
            mrf = folder / "mrf"
        random_field = None if mrf is None else load_field(mrf)
        return cls(
            transformer, tokenizer, text_encoder or own_text_encoder, mrf=random_field, defaults=amused_defaults()
        )

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[Any], **options: Any
    ) -> None:
        """Write the checkpoint in half precision, in files under 10 MB, with vocabulary.json.

        Raises:
            UserError: the folder cannot be written to, the disk is full, or the weights are aMUSEd's.
        """
        if not isinstance(self.transformer, MuseTransformer):
            raise UserError(
                "aMUSEd's weights stay as they are: copy its folder, and put a random field into mrf/ there."
            )
        parts = {name: _to_store(part) for name, part in self._parts().items()}
        stored = type(self)(**parts)
        options = {"max_shard_size": _SHARD_SIZE, **options, "safe_serialization": True}
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            super(MarkovGenPipeline, stored).save_pretrained(str(folder), **options)
            self.vocabulary.save(folder)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error

    def to(self, *args: Any, **options: Any) -> MarkovGenPipeline:
        """Move the image models to a device or a dtype, in place; the text encoder moves along and stays float32."""
        for part in self._parts().values():
            torch.nn.Module.to(part, *args, **options)
        if self._text_encoder is not None:
            self._text_encoder.to(super().device)
        return self

    def offload(self, device: torch.device) -> MarkovGenPipeline:
        """Keep the models in main memory, and bring each to the device only while it works; the text encoder stays."""
        self.to("cpu")
        one_at_a_time(list(self._parts().values()), device)
        self._works_on = device
        return self

    @property
    def offloaded(self) -> bool:
        """Whether the models wait in main memory."""
        return self._works_on is not None

    @property
    def device(self) -> torch.device:
        """Where pictures are computed."""
        return self._works_on or super().device

    def _parts(self) -> dict[str, torch.nn.Module]:
        """The image models that are there, by name."""
        named = {name: getattr(self, name) for name in [*_PARTS, *_OPTIONAL_PARTS]}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def text_encoder(self) -> TextEncoder:
        """Reads prompts; on the device of the other parts."""
        if self._text_encoder is None:
            self._text_encoder = TextEncoder.from_pretrained(device=super().device)
        return self._text_encoder

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.transformer.grid

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures in pixels."""
        height, width = self.grid
        return width * self.tokenizer.factor, height * self.tokenizer.factor

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that can be asked for: all, but for markovgen where there is no random field."""
        return METHODS if self.mrf is not None else tuple(name for name in METHODS if name != "markovgen")

    @property
    def knows(self) -> dict[str, Any]:
        """The vocabulary as plain values: nouns, synonyms, backgrounds, styles, colours, words."""
        return self.vocabulary.model_dump()

    def unknown_words(self, prompt: str) -> dict[str, list[str]]:
        """Content words of a prompt that the weights never saw, each with the nearest nouns they know."""
        unknown = self.vocabulary.unknown_words(prompt)
        if not unknown:
            return {}
        nouns = list(self.vocabulary.nouns)
        if self._noun_states is None:
            self._noun_states = self.text_encoder.embed(nouns)  # (nouns, width)
        return {word: self.text_encoder.nearest(word, nouns, self._noun_states, _NEAREST) for word in unknown}

    def notes(self, request: DecodingRequest) -> list[str]:
        """What to tell the person who asked before they wonder: lines, most often none."""
        lines = list(request.image.notes) if isinstance(request, PictureRequest) else []
        for name in ("prompt", "negative_prompt"):
            pieces = self.text_encoder.token_count(getattr(request, name))
            if pieces > self.text_encoder.max_length:
                lines.append(
                    f"The {name.replace('_', ' ')} has {pieces} word pieces and the model reads the first"
                    f" {self.text_encoder.max_length}: put what matters first, or shorten it."
                )
        if not self.vocabulary.knows_any(request.prompt):
            lines.append(
                "This model knows no word of the prompt, so the picture is a guess: describe it in English, for example"
                f" “a {next(iter(self.vocabulary.nouns))}”."
            )
        return lines

    def settled(self, request: RequestT) -> RequestT:
        """A request with the checkpoint's defaults where neither it nor its kind of request says otherwise."""
        own, common = type(request).model_fields, DecodingRequest.model_fields
        missing = {
            name: value
            for name, value in self.defaults.items()
            if name not in request.model_fields_set and own[name].default == common[name].default
        }
        return request.model_copy(update=missing) if missing else request

    def decoding_settings(self, request: DecodingRequest) -> DecodingSettings:
        """The loop's settings for a request."""
        request = self.settled(request)
        options = request.model_dump(include=set(DecodingSettings.__dataclass_fields__) - {"steps", "exit_step"})
        return method_settings(request.method, request.steps, request.exit_step, **options)

    def run(self, request: DecodingRequest) -> Iterator[StepEvent | Result]:
        """Make pictures, or change them: a `StepEvent` after every decoding step, then one `Result`.

        All pictures of a request are one batch, each with its own seed: on a CPU a seed gives the same picture, to the
        bit, in any batch. Closing the generator cancels.

        Raises:
            UserError: the method needs a random field, and there is none; or what is to change does not fit into the
                window that was asked for.
        """
        started = time.perf_counter()
        request = self.settled(request).with_seed()
        settings = self.decoding_settings(request)
        refine = self._refine(request)
        watch = _Stopwatch(self.device)
        with watch:
            texts = self.text_encoder.encode([request.prompt, _away_from(request)]).to(self.device)
            logits = guided_logits(
                self._model(request.count), texts[[0]].repeat_interleave(request.count), texts[[1]], settings
            )
        generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        frames: list[Tensor] = []
        views: list[TokensToImages] = []
        calls = 0
        passes = patches(request, self.size, self.grid)
        patch = next(passes)
        while True:
            with watch:
                tokens, is_open = self._start(patch, request.count)
                steps, total = self._steps(request, patch, logits, tokens, is_open, settings, generators, refine)
            while True:
                with watch:
                    step = next(steps, None)
                if step is None:
                    break
                frames.append(step.predicted)
                views.append(self._view(patch.preview))
                calls += request.steps if isinstance(request, EditRequest) else 1
                fraction = (patch.number - 1 + step.index / total) / patch.total
                yield StepEvent(step, fraction, _label(request, patch, step.index, total), patch, views[-1])
            with watch:
                images = self._view(patch)(frames[-1])
            try:
                patch = passes.send(images)
            except StopIteration:
                break
        seconds = time.perf_counter() - started
        kind = {} if isinstance(request, GenerateRequest) else {"task": request.task}
        pictures = [
            Picture(
                image=image,
                settings={**kind, **request.model_dump(), "seed": seed, "count": 1},
                seed=seed,
                method=request.method,
                steps=request.steps,
                seconds=seconds,
                model_seconds=watch.seconds,
                transformer_calls=calls,
                prompt=request.prompt,
            )
            for image, seed in zip(images, request.seeds, strict=True)
        ]
        yield Result(pictures, request, self.notes(request), frames, views)

    def result(self, request: DecodingRequest) -> Result:
        """What a request leads to, without the steps on the way; raises UserError as `run` does."""
        *_, result = self.run(request)
        assert isinstance(result, Result), "a run ends with its result"
        return result

    def __call__(self, prompt: str, **fields: Any) -> Result:
        """Make pictures of a prompt; `fields` are those of `GenerateRequest`.

        Raises:
            UserError: one line on the first field that is wrong.
        """
        return self.result(GenerateRequest.validated(prompt=prompt, **fields))

    def to_images(self, tokens: Tensor) -> list[Image.Image]:
        """Pictures of tokens (B, n)."""
        one_by_one = tokens.split(1) if tokens.device.type == "cpu" else [tokens]
        pixels = torch.cat([self.tokenizer.decode(part, self.grid) for part in one_by_one])  # (B, 3, H, W)
        return [Image.fromarray(picture) for picture in to_levels(pixels)]

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Tokens (B, n) of pictures of the model's size; on a CPU picture by picture, as `_model`."""
        pixels = to_pixels(stacked([np.asarray(picture) for picture in pictures]), self.device)  # (B, 3, H, W)
        batches = pixels.split(1) if self.device.type == "cpu" else [pixels]
        return torch.cat([self.tokenizer.encode(batch) for batch in batches])

    def _start(self, patch: Patch, count: int) -> tuple[Tensor, Tensor]:
        """Tokens (count, n) to start from, and which of them are open to change, (count, n) bool."""
        is_open = torch.from_numpy(patch.open_tokens(self.size, self.grid)).to(self.device).repeat(count, 1)
        if patch.geometry is None:
            return torch.full(is_open.shape, self.transformer.mask_token_id, device=self.device), is_open
        views = patch.views(self.size)
        if all(picture is patch.pictures[0] for picture in patch.pictures):
            return self.encode(views[:1]).repeat(count, 1), is_open
        return self.encode(views), is_open

    def _steps(
        self,
        request: DecodingRequest,
        patch: Patch,
        logits: TokensToLogits,
        tokens: Tensor,
        is_open: Tensor,
        settings: DecodingSettings,
        generators: Sequence[torch.Generator],
        refine: Refine | None,
    ) -> tuple[Iterator[DecodingStep], int]:
        """The loop over one patch, and how many steps it takes at most."""
        mask_id = self.transformer.mask_token_id
        if isinstance(request, EditRequest):
            edits = EditSettings(rounds_of(request.strength), request.share)
            rounds = edit(
                logits, tokens, mask_id, settings, generators,
                grid=self.grid, edit_settings=edits, editable=is_open, refine=refine,
            )  # fmt: skip
            return rounds, edits.rounds
        hidden = hide(tokens, mask_id, is_open, patch.share, generators)
        steps = decode(logits, hidden, mask_id, settings, generators, grid=self.grid, refine=refine)
        unknown = int((hidden == mask_id).sum(dim=1).max())
        return steps, min(settings.exit_step or settings.steps, max(1, unknown))

    def _view(self, patch: Patch) -> TokensToImages:
        def images(tokens: Tensor, rows: Sequence[int] | None = None) -> list[Image.Image]:
            return patch.finished(self.to_images(tokens), rows)

        return images

    def _refine(self, request: DecodingRequest) -> Refine | None:
        """What the random field does at the exit of the method markovgen; on a CPU picture by picture, as `_model`."""
        if request.method != "markovgen":
            return None
        if self.mrf is None:
            raise UserError(
                "This checkpoint has no random field: choose another method, name a field's folder (--mrf), or train"
                " one with `markovgen train mrf`."
            )
        refine = self.mrf.refine(request.mrf_iterations, clamp=request.mrf_clamp)
        if self.device.type != "cpu":
            return refine

        def each_alone(logits: Tensor, tokens: Tensor, undecided: Tensor) -> Tensor:
            rows = zip(logits.split(1), tokens.split(1), undecided.split(1), strict=True)
            return torch.cat([refine(*row) for row in rows])

        return each_alone

    def _model(self, batch: int) -> Callable[..., Tensor]:
        """The transformer, for a batch of pictures or twice as many rows; on a CPU picture by picture.

        Kernels choose their order of summation by the size of the batch, and the last bit of a logit can decide a
        token: fixed shapes make a picture independent of its batch. Batching would gain a CPU little.
        """
        if self.device.type != "cpu":
            return self.transformer

        def each_alone(*inputs: Tensor) -> Tensor:
            rows = [self.transformer(*(each[index::batch] for each in inputs)) for index in range(batch)]
            return torch.stack(rows, dim=1).flatten(0, 1)  # (1 or 2, batch, n, V) -> (rows, n, V)

        return each_alone


def _away_from(request: DecodingRequest) -> str:
    """The text that guidance leads away from."""
    source = request.source_prompt if isinstance(request, EditRequest) else ""
    return ", ".join(text for text in (source, request.negative_prompt) if text)


def _label(request: DecodingRequest, patch: Patch, index: int, total: int) -> str:
    """ "base 7/24", "round 7/50", "window 2/3 · base 7/24"."""
    window = f"window {patch.number}/{patch.total} · " if patch.total > 1 else ""
    return f"{window}{'round' if isinstance(request, EditRequest) else 'base'} {index}/{total}"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class _Stopwatch:
    """Adds up the seconds spent inside `with`, work that was queued on the device included."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        synchronize(self._device)
        self.seconds += time.perf_counter() - self._started


def load_field(source: str | os.PathLike[Any]) -> MarkovRandomField:
    """A random field in float32, from the folder that its training writes, or from the hub.

    Raises:
        UserError: it is not there, damaged, or something else.
    """
    folder = Path(source)
    if not folder.exists() and is_hub_id(source):
        folder = download(str(source))
    if not (folder / "config.json").is_file():
        raise UserError(f"There is no random field in {folder}: train one with `markovgen train mrf`.")
    check_model(folder, MarkovRandomField)
    field_of_folder = MarkovRandomField.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    _check_complete(field_of_folder, folder)
    return field_of_folder


def check_field(mrf: MarkovRandomField, transformer: MuseTransformer | AmusedTransformer) -> None:
    """Raise UserError where a random field is over other tokens than the transformer's."""
    own, wanted = (*mrf.grid, mrf.config.codebook_size), (*transformer.grid, transformer.config.codebook_size)
    if own != wanted:
        raise UserError(
            f"The random field is over {own[0]} × {own[1]} tokens of {own[2]} codes, the transformer's are"
            f" {wanted[0]} × {wanted[1]} of {wanted[2]}: take the field that was trained for this checkpoint."
        )


def _to_store(model: Any) -> Any:
    """A model's copy in half precision that does not tell where it was loaded from."""
    stored: Any = torch.nn.Module.half(copy.deepcopy(model).cpu())
    stored._internal_dict = FrozenDict({key: value for key, value in model.config.items() if key != "_name_or_path"})
    return stored


def _check_complete(model: torch.nn.Module, folder: Path) -> None:
    """Raise UserError where a model was not filled from its files to the last tensor, with finite values."""
    stored, wanted = tensor_names(folder), set(model.state_dict())
    if stored != wanted:
        odd = sorted(stored ^ wanted)
        raise UserError(
            f"The weights in {folder} do not fit its config.json ({odd[0]}): copy both from one checkpoint."
        )
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise UserError(f"The weights in {folder} are damaged (not all numbers are finite): copy them again.")
