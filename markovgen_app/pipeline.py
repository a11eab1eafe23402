"""The pipeline: requests in, events out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .decoding.sampler import METHODS, DecodingSettings
from .errors import UserError
from .events import Result, StepEvent
from .ladder import Stage
from .patches import working_side
from .picture_requests import EditRequest, PictureRequest, away_from
from .pipeline_parts import PipelineParts
from .pixels import stacked, to_levels, to_pixels
from .requests import DecodingRequest, GenerateRequest
from .run import Run

_TEMPERATURES = {"temperature", "super_resolution_temperature"}
_NEAREST = 3

RequestT = TypeVar("RequestT", bound=DecodingRequest)


class MarkovGenPipeline(PipelineParts):
    """Text to pictures by decoding masked image tokens, with the models that `PipelineParts` loads and holds."""

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
