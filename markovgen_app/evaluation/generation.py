"""What is asked of methods, as typed or prompt by prompt, and the pictures that they make of it.

A method is a name, with options after colons where it departs from the defaults: `full`, `early-exit:exit_step=12`,
`full:guidance_scale=2:temperature=0.8`. Pictures are made one by one, as the app makes them, the methods in turn, so
that their times are comparable.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from PIL import Image
from torch import Tensor

from ..data.scenes import Scene
from ..errors import UserError
from ..events import Result
from ..models.scorer import Scorer
from ..pipeline import MarkovGenPipeline
from ..requests import MAX_SEED, GenerateRequest
from .exits import EARLY_EXIT, Variant, finalised
from .judging import look
from .kept import Kept, Made, Shown, settled_requests
from .output import progress

_TIMED = 12
_ENLARGED = "enlarged"  # no method's name
_THE_SAME_FOR_ALL = {"prompt", "source_prompt", "seed", "count", "method", "image", "mask", "rectangle", "keep"}


def parse_methods(text: str) -> dict[str, dict[str, Any]]:
    """Methods as typed → fields of a request. "full,early-exit:exit_step=8" has two.

    Raises:
        UserError: one line on what is wrong.
    """
    found = {name: method_typed(name, "early-exit:exit_step=12") for name in (part.strip() for part in text.split(","))}
    for fields in found.values():
        GenerateRequest.validated(prompt="a panda", **fields)
    return found


def method_typed(text: str, example: str) -> dict[str, Any]:
    """One method with its options as typed, "early-exit:exit_step=8" → fields of a request, unchecked.

    Raises:
        UserError: not written like the example, or an option that is not the method's to choose.
    """
    method, *options = text.split(":")
    pairs = [option.partition("=") for option in options]
    if any(not value for _, _, value in pairs):
        raise UserError(f"{text!r} is no method: write options as in {example}.")
    if taken := [key for key, _, _ in pairs if key in _THE_SAME_FOR_ALL]:
        raise UserError(f"{text!r}: {taken[0]} is the same for all methods, leave it out.")
    return {"method": method, **{key: value for key, _, value in pairs}}


def available(methods: Mapping[str, dict[str, Any]], pipeline: MarkovGenPipeline) -> dict[str, dict[str, Any]]:
    """The methods that a pipeline can do; those it cannot are named on standard error.

    Raises:
        UserError: it can do none.
    """
    left_out = [name for name, fields in methods.items() if fields["method"] not in pipeline.methods]
    if len(left_out) == len(methods):
        raise UserError("All of these methods need a random field, and there is none: name one with --mrf.")
    if left_out:
        print(f"Left out for want of a random field: {', '.join(left_out)}.", file=sys.stderr)
    return {name: fields for name, fields in methods.items() if name not in left_out}


def parse_seeds(text: str) -> list[int]:
    """Seeds as typed: "0,1,2".

    Raises:
        UserError: not whole numbers, or none.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Seeds are whole numbers parted by commas, such as 0,1,2, not {text!r}.") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError("Seeds are different whole numbers of 0 or more.")
    return seeds


def grid_of(pipeline: MarkovGenPipeline, fields: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of the tokens that a method's pictures are made of: those of its last stage.

    Raises:
        UserError: no stage makes pictures of the size that it asks for.
    """
    return pipeline.stages_for(GenerateRequest.validated(prompt="-", **fields))[-1].grid


def steps_of(pipeline: MarkovGenPipeline, fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Decoding steps that a method takes in each of its stages, from the base up.

    Raises:
        UserError: no stage makes pictures of the size that it asks for.
    """
    request = pipeline.settled(GenerateRequest.validated(prompt="-", **fields))
    loops = [stage.settings(request) for stage in pipeline.stages_for(request)]
    return tuple(loop.exit_step or loop.steps for loop in loops)


def counterparts(pipeline: MarkovGenPipeline, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The methods that each one is compared with: all with the first, and markovgen with what takes as many steps."""
    first = next(iter(methods))
    found: dict[str, list[str]] = {name: [first] for name in methods if name != first}
    steps = {name: steps_of(pipeline, fields) for name, fields in methods.items()}
    for name, others in found.items():
        if methods[name]["method"] == "markovgen":
            others += [
                other
                for other, fields in methods.items()
                if other != first and fields["method"] != "markovgen" and steps[other] == steps[name]
            ]
    return found


def request_for(scene: Scene, seed: int, index: int, fields: Mapping[str, Any]) -> GenerateRequest:
    """The request for prompt `index`: its noise is its own, and the same for every method."""
    noise = (seed * 1_000_003 + index) % (MAX_SEED + 1)
    return GenerateRequest.validated(prompt=scene.caption, seed=noise, **fields)


def generate(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    scenes: Sequence[Scene],
    seeds: Sequence[int],
    methods: Mapping[str, Mapping[str, Any]],
    kept: Kept | None = None,
) -> tuple[dict[str, Made], Made | None]:
    """Pictures of every scene's caption, with every seed, by every method in turn.

    The first `_TIMED` prompts of each seed are run method by method, which is where times and calls come from. After
    them, methods that leave the loop of `full` early get their pictures from one run of it (see `exits`).

    Args:
        kept: prompts that a stopped evaluation was done with; those that are done now are added.

    Returns:
        what each method made; and the first method's base pictures enlarged to its size, with the base's tokens, where
        it goes on to finer stages.

    Raises:
        UserError: what is done cannot be kept.
    """
    made: dict[str, Made] = {}
    shared = exits_of_full(pipeline, methods)
    for seed, index in progress(list(product(seeds, range(len(scenes)))), "prompts"):
        requests = {name: request_for(scenes[index], seed, index, fields) for name, fields in methods.items()}
        key = next(iter(requests.values()))
        shown = kept.get(key) if kept else None
        if shown is None:
            shown = _shown_of_prompt(pipeline, scorer, requests, shared if index >= _TIMED else {})
            if kept:
                kept.add(key, shown)
        for name, each in shown.items():
            made.setdefault(name, Made()).shown.append(each)
    return {name: made[name] for name in methods}, made.get(_ENLARGED)


def _shown_of_prompt(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    requests: Mapping[str, GenerateRequest],
    together: Mapping[str, Variant | None],
) -> dict[str, Shown]:
    """What every method makes of one prompt, and the first one's base picture enlarged, by name."""
    shown = {
        name: _shown(scorer, picture_of(pipeline, tokens), tokens)
        for name, tokens in tokens_of_exits(pipeline, requests, together).items()
    }
    first = next(iter(requests))
    for name, request in requests.items():
        if name in together:
            continue
        result, base = _run(pipeline, request)
        picture = result.images[0]
        tokens = result.frames[-1][0].cpu()  # (1, n) -> (n,)
        shown[name] = _shown(scorer, picture.image, tokens, picture.model_seconds, picture.transformer_calls)
        if name == first and base is not None:
            shown[_ENLARGED] = _shown(scorer, enlarged_picture(pipeline, base, picture.width), base)
    return shown


def _run(pipeline: MarkovGenPipeline, request: GenerateRequest) -> tuple[Result, Tensor | None]:
    """A run by itself, and the base's tokens (n,) where there are stages above it."""
    base, above = None, False
    for event in pipeline.run(request):
        if isinstance(event, Result):
            return event, base if above else None
        above = event.stage.number > 0
        if not above:
            base = event.step.predicted[0].cpu()  # (1, n) -> (n,)
    raise AssertionError("a run ends with its result")


def tokens_of_exits(
    pipeline: MarkovGenPipeline, requests: Mapping[str, GenerateRequest], together: Mapping[str, Variant | None]
) -> dict[str, Tensor]:
    """Tokens (n,) of the methods of `exits_of_full`, from one run of their loop; none of none."""
    if not together:
        return {}
    fields = {} if pipeline.mrf is None else {"mrf": pipeline.mrf}
    longest = next(name for name in together if requests[name].method == "full")
    variants = [variant for variant in together.values() if variant is not None]
    whole, left = finalised(pipeline, fields, variants, requests[longest])
    tokens = dict(zip(variants, left, strict=True))
    return {name: whole if variant is None else tokens[variant] for name, variant in together.items()}


def _shown(
    scorer: Scorer, image: Image.Image, tokens: Tensor, seconds: float | None = None, calls: int | None = None
) -> Shown:
    seen = look(scorer, [image])
    return Shown(tokens, seen.features[0], seen.details[0], seen.readings[0], seconds, calls)


def picture_of(pipeline: MarkovGenPipeline, tokens: Tensor) -> Image.Image:
    """The picture of tokens (n,) of any stage."""
    return pipeline.to_images(tokens.unsqueeze(0).to(pipeline.device))[0]  # (n,) -> (1, n)


def enlarged_picture(pipeline: MarkovGenPipeline, tokens: Tensor, size: int) -> Image.Image:
    """The picture of tokens (n,), brought to `size` pixels by Lanczos' filter."""
    return picture_of(pipeline, tokens).resize((size, size), Image.Resampling.LANCZOS)


def exits_of_full(pipeline: MarkovGenPipeline, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Variant | None]:
    """Methods that share every step with a `full` among them, and how each leaves its loop; None: at the end.

    Empty where there is no such pair.
    """
    own = {"method", "exit_step", "finalise", "exit_temperature", "mrf_iterations", "mrf_clamp"}
    requests = settled_requests(pipeline, methods)
    full = next((request for request in requests.values() if request.method == "full"), None)
    found: dict[str, Variant | None] = {}
    for name, request in requests.items():
        if len(pipeline.stages_for(request)) > 1:  # what the finer stages add is each method's own
            continue
        if full is None or request.model_dump(exclude=own) != full.model_dump(exclude=own):
            continue
        if request.method == "full":
            found[name] = None
        elif request.method in ("early-exit", "markovgen"):
            step = pipeline.decoding_settings(request).exit_step
            assert step is not None
            field = "mrf" if request.method == "markovgen" else EARLY_EXIT
            found[name] = Variant(
                step, field, request.mrf_iterations, request.mrf_clamp, request.finalise, request.exit_temperature
            )
    return found if len(found) > 1 else {}
