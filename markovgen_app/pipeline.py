"""The pipeline: requests in, events out. Loads and saves checkpoints in diffusers' folder format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from .checkpoint import check_checkpoint, class_of, find_checkpoint
from .decoding.sampler import METHODS, DecodingSettings
from .errors import UserError, first_line
from .events import Result, StepEvent
from .ladder import STAGES, Finer, Stage, check_ladder, further_parts, part_names
from .loading import added_fields, check_complete, load_field, load_finer, remove_parts, storable
from .models.mrf import MarkovRandomField
from .models.super_resolution import SuperResolutionTransformer
from .models.text import TextEncoder
from .models.tokenizer import ImageTokenizer
from .models.transformer import MuseTransformer
from .offload import one_at_a_time
from .patches import working_side
from .picture_requests import EditRequest, PictureRequest, away_from
from .pictures import write_error
from .pixels import stacked, to_levels, to_pixels
from .requests import DecodingRequest, GenerateRequest
from .run import Run
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .models.amused import AmusedTokenizer, AmusedTransformer

_PARTS = {"transformer": MuseTransformer, "tokenizer": ImageTokenizer}
_TEMPERATURES = {"temperature", "super_resolution_temperature"}
_OPTIONAL_PARTS = {
    "mrf": MarkovRandomField,
    "super_resolution": SuperResolutionTransformer,
    "super_resolution_mrf": MarkovRandomField,
}
_SHARD_SIZE = "9MB"
_NEAREST = 3
_AMUSED = "AmusedPipeline"  # the class that checkpoints of aMUSEd name

RequestT = TypeVar("RequestT", bound=DecodingRequest)


class MarkovGenPipeline(DiffusionPipeline):
    """Text to pictures by decoding masked image tokens.

    Args:
        transformer: predicts tokens.
        tokenizer: turns tokens into pictures.
        text_encoder: reads prompts, always in float32; the published one is loaded at first use if not given. It is
            stored with the weights only if it is neither that one nor one of the hub's.
        vocabulary: the words that the weights know.
        mrf: the random field over the transformer's tokens, what the method markovgen needs.
        super_resolution: makes larger pictures of the transformer's tokens.
        super_resolution_mrf: the random field over its tokens.
        further: stages above that, from the lowest up: transformer and random field, or None.
        defaults: what a request of these weights asks for where it does not say, if not the request's own defaults.

    Raises:
        UserError: the parts do not fit each other.
    """

    _optional_components = list(_OPTIONAL_PARTS)  # noqa: RUF012, as the base class has it

    transformer: MuseTransformer | AmusedTransformer
    tokenizer: ImageTokenizer | AmusedTokenizer
    mrf: MarkovRandomField | None
    super_resolution: SuperResolutionTransformer | None
    super_resolution_mrf: MarkovRandomField | None

    def __init__(
        self,
        transformer: MuseTransformer | AmusedTransformer,
        tokenizer: ImageTokenizer | AmusedTokenizer,
        text_encoder: TextEncoder | None = None,
        vocabulary: Vocabulary | None = None,
        mrf: MarkovRandomField | None = None,
        super_resolution: SuperResolutionTransformer | None = None,
        super_resolution_mrf: MarkovRandomField | None = None,
        further: Sequence[Finer] = (),
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
        if super_resolution is None and (super_resolution_mrf is not None or further):
            raise UserError("There is no super-resolution transformer for what stands above it: give it, too.")
        self.register_modules(
            transformer=transformer,
            tokenizer=tokenizer,
            mrf=mrf,
            super_resolution=super_resolution,
            super_resolution_mrf=super_resolution_mrf,
        )
        self._further = tuple(further)
        for part in self._parts().values():
            part.eval().requires_grad_(False)
        check_ladder(self.stages)
        self._text_encoder = text_encoder
        self.vocabulary = vocabulary or Vocabulary()
        best = {} if mrf is None else {name: mrf.config.get(name) for name in ("finalise", "exit_temperature")}
        own = {name: value for name, value in best.items() if value != DecodingRequest.model_fields[name].default}
        self.defaults = {**own, **(defaults or {})}
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
            text_encoder: the one that the checkpoint names or brings, else the published one, if not given.
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
        text_encoder = text_encoder or TextEncoder.beside(folder)
        given: dict[str, Any] = {"text_encoder": text_encoder, "vocabulary": vocabulary, "use_safetensors": True}
        if mrf is not None:
            given["mrf"] = load_field(mrf)
            present.discard("mrf")
        given |= added_fields(folder, {*present, *given}, dtype)
        given["further"] = [load_finer(folder, *names, dtype) for names in further_parts(folder)]
        try:
            pipeline = super().from_pretrained(str(folder), dtype=dtype, local_files_only=True, **given, **options)
        except UserError:
            raise
        except Exception as error:  # a config and weights that do not fit fail in as many ways as there are mistakes
            raise UserError(
                f"The checkpoint {folder} cannot be loaded: copy or download it again ({first_line(error)})."
            ) from error
        for part in present:
            check_complete(getattr(pipeline, part), folder / part)
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

        A text encoder that is in no package and not on the hub is stored, too, as it is. Stages and random fields of a
        checkpoint that was in the folder before are removed.

        Raises:
            UserError: the folder cannot be written to, the disk is full, or the weights are aMUSEd's.
        """
        if not isinstance(self.transformer, MuseTransformer):
            raise UserError(
                "aMUSEd's weights stay as they are: copy its folder, and put a random field into mrf/ there."
            )
        parts = {name: storable(part) for name, part in self._parts().items()}
        above = {name: parts.pop(name) for name in list(parts) if name not in (*_PARTS, *_OPTIONAL_PARTS)}
        stored = type(self)(**parts)
        stored.register_to_config(**{STAGES: [stage.name for stage in self.stages]})
        options = {"max_shard_size": _SHARD_SIZE, **options, "safe_serialization": True}
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            super(MarkovGenPipeline, stored).save_pretrained(str(folder), **options)
            for name, part in above.items():
                part.save_pretrained(str(folder / name), **options)
            remove_parts(folder, {*parts, *above})
            self.vocabulary.save(folder)
            if self._text_encoder is not None:
                self._text_encoder.save_beside(folder)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error

    def to(self, *args: Any, **options: Any) -> MarkovGenPipeline:
        """Move the image models to a device or a dtype, in place; the text encoder moves along and stays float32."""
        self._noun_states = None  # where the text encoder was
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
        for number, parts in enumerate(self._further, 2):
            named |= dict(zip(part_names(number), parts, strict=True))
        return {name: part for name, part in named.items() if part is not None}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the checkpoint has, from the base up."""
        finer = [] if self.super_resolution is None else [(self.super_resolution, self.super_resolution_mrf)]
        above = (Stage(number, *parts, self.tokenizer) for number, parts in enumerate([*finer, *self._further], 1))
        return (Stage(0, self.transformer, self.mrf), *above)

    def stage(self, number: int) -> Stage:
        """A stage by its number, 0 being the base; raises UserError where the checkpoint has no such stage."""
        stages = self.stages
        if not 0 <= number < len(stages):
            there = ", ".join(f"{stage.number} ({stage.name})" for stage in stages)
            raise UserError(
                f"These weights have no stage {number}, only {there}: choose one of those, or add a stage with"
                " `markovgen train export --super-resolution FOLDER`."
            )
        return stages[number]

    @property
    def text_encoder(self) -> TextEncoder:
        """Reads prompts; on the device of the other parts."""
        if self._text_encoder is None:
            self._text_encoder = TextEncoder.from_pretrained(device=super().device)
        return self._text_encoder

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the base's tokens."""
        return self.transformer.grid

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the pictures that the base makes and changes."""
        height, width = self.grid
        return width * self.tokenizer.factor, height * self.tokenizer.factor

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the pictures that can be asked for in pixels, from the base's up."""
        return tuple(max(stage.grid) * self.tokenizer.factor for stage in self.stages)

    def stages_for(self, request: DecodingRequest) -> tuple[Stage, ...]:
        """The stages that a request goes through: all up to its size, or as many as a picture there has detail for.

        Raises:
            UserError: no stage makes pictures of that size.
        """
        if isinstance(request, PictureRequest):
            coarser = sum(size < working_side(request) for size in self.sizes)
            return self.stages[: coarser + 1]
        if not isinstance(request, GenerateRequest) or request.size is None:
            return self.stages
        if request.size not in self.sizes:
            sides = " or ".join(f"{side}" for side in self.sizes)
            raise UserError(
                f"These weights make pictures of {sides} pixels, not of {request.size}: choose such a size."
            )
        return self.stages[: self.sizes.index(request.size) + 1]

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
        texts = {"prompt": request.prompt, "negative prompt": request.negative_prompt}
        if isinstance(request, EditRequest) and request.source_prompt:
            name = "source prompt with the negative prompt" if request.negative_prompt else "source prompt"
            texts = {"prompt": request.prompt, name: away_from(request)}
        for name, text in texts.items():
            pieces = self.text_encoder.token_count(text)
            if pieces > self.text_encoder.max_length:
                lines.append(
                    f"The {name} has {pieces} word pieces and the model reads the first"
                    f" {self.text_encoder.max_length}: put what matters first, or shorten it."
                )
        if not self.vocabulary.knows_any(request.prompt):
            lines.append(
                "This model knows no word of the prompt, so the picture is a guess: describe it in English, for example"
                f" “a {next(iter(self.vocabulary.nouns))}”."
            )
        return lines

    def settled(self, request: RequestT) -> RequestT:
        """A request with the checkpoint's size and defaults where neither it nor its kind of request says otherwise.

        A temperature that is asked for holds at the exit, too, unless there is another for that.
        """
        own, common, said = type(request).model_fields, DecodingRequest.model_fields, request.model_fields_set
        said = said | {name.replace("temperature", "exit_temperature") for name in said & _TEMPERATURES}
        missing = {
            name: value
            for name, value in self.defaults.items()
            if name not in said and own[name].default == common[name].default
        }
        if isinstance(request, GenerateRequest) and request.size is None:
            missing["size"] = self.sizes[-1]
        return request.model_copy(update=missing) if missing else request

    def decoding_settings(self, request: DecodingRequest) -> DecodingSettings:
        """The base's settings of the loop for a request."""
        return self.stages[0].settings(self.settled(request))

    def run(self, request: DecodingRequest) -> Iterator[StepEvent | Result]:
        """Make pictures, or change them: a `StepEvent` after every decoding step, then one `Result`.

        All pictures of a request are one batch, each with its own seed: on a CPU a seed gives the same picture, to the
        bit, in any batch. Closing the generator cancels.

        Raises:
            UserError: the method needs a random field, and there is none; or what is to change does not fit into the
                window that was asked for.
        """
        yield from Run(self, request).events()

    def result(self, request: DecodingRequest) -> Result:
        """What a request leads to, without the steps on the way; raises UserError as `run` does."""
        *_, result = self.run(request)
        assert isinstance(result, Result), "a run ends with its result"
        return result

    def coarse_tokens(self, stage: Stage, request: GenerateRequest) -> Tensor | None:
        """Tokens (count, n') that the stages below one make of a request; None for the base.

        Raises:
            UserError: as `run` does.
        """
        if stage.number == 0:
            return None
        below = self.result(request.model_copy(update={"size": self.sizes[stage.number - 1]}))
        return below.frames[-1]

    def __call__(self, prompt: str, **fields: Any) -> Result:
        """Make pictures of a prompt; `fields` are those of `GenerateRequest`.

        Raises:
            UserError: one line on the first field that is wrong.
        """
        return self.result(GenerateRequest.validated(prompt=prompt, **fields))

    def to_images(self, tokens: Tensor) -> list[Image.Image]:
        """Pictures of tokens (B, n) of any stage."""
        grid = next(stage.grid for stage in self.stages if stage.positions == tokens.shape[1])
        one_by_one = tokens.split(1) if tokens.device.type == "cpu" else [tokens]
        pixels = torch.cat([self.tokenizer.decode(part, grid) for part in one_by_one])  # (B, 3, H, W)
        return [Image.fromarray(picture) for picture in to_levels(pixels)]

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Tokens (B, n) of pictures of the model's size; on a CPU picture by picture, as `Stage.model`."""
        pixels = to_pixels(stacked([np.asarray(picture) for picture in pictures]), self.device)  # (B, 3, H, W)
        batches = pixels.split(1) if self.device.type == "cpu" else [pixels]
        return torch.cat([self.tokenizer.encode(batch) for batch in batches])
