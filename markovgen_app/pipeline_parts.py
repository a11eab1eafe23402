"""The parts of a pipeline: checkpoints in diffusers' folder format, or aMUSEd's, become models and folders again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor

from .checkpoint import check_checkpoint, class_of, find_checkpoint
from .errors import UserError, first_line
from .ladder import STAGES, Finer, Stage, check_ladder, further_parts, part_names
from .loading import added_fields, check_complete, load_field, load_finer, remove_parts, storable
from .models.mrf import MarkovRandomField
from .models.super_resolution import SuperResolutionTransformer
from .models.text import TextEncoder
from .models.tokenizer import ImageTokenizer
from .models.transformer import MuseTransformer
from .offload import one_at_a_time
from .pictures import write_error
from .requests import DecodingRequest
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

    from .models.amused import AmusedTokenizer, AmusedTransformer

_PARTS = {"transformer": MuseTransformer, "tokenizer": ImageTokenizer}
_OPTIONAL_PARTS = {
    "mrf": MarkovRandomField,
    "super_resolution": SuperResolutionTransformer,
    "super_resolution_mrf": MarkovRandomField,
}
_SHARD_SIZE = "9MB"
_AMUSED = "AmusedPipeline"  # the class that checkpoints of aMUSEd name


class PipelineParts(DiffusionPipeline):
    """The models of a pipeline that fit each other: loaded, saved, moved to a device, asked what they are.

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
    ) -> Self:
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
    def _of_amused(cls, folder: Path, text_encoder: TextEncoder | None, mrf: str | os.PathLike[Any] | None) -> Self:
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
            super(PipelineParts, stored).save_pretrained(str(folder), **options)
            for name, part in above.items():
                part.save_pretrained(str(folder / name), **options)
            remove_parts(folder, {*parts, *above})
            self.vocabulary.save(folder)
            if self._text_encoder is not None:
                self._text_encoder.save_beside(folder)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error

    def to(self, *args: Any, **options: Any) -> Self:
        """Move the image models to a device or a dtype, in place; the text encoder moves along and stays float32."""
        self._noun_states = None  # where the text encoder was
        for part in self._parts().values():
            torch.nn.Module.to(part, *args, **options)
        if self._text_encoder is not None:
            self._text_encoder.to(super().device)
        return self

    def offload(self, device: torch.device) -> Self:
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
