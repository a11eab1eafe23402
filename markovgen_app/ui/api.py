"""What programs can call by `gradio_client`: `/generate` and `/compare`, and how any such call is answered.

Endpoints are generators, which Gradio ends between two steps when a call is cancelled or its caller has gone. Before
the answer they yield None for every step.
"""

from __future__ import annotations

import functools
import inspect
import io
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, TypeVar, get_args

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache

from markovgen_app.compare import Comparison, comparing
from markovgen_app.errors import UserError
from markovgen_app.events import Result
from markovgen_app.methods import chosen_methods, default_methods
from markovgen_app.requests import DecodingRequest, Finalise, GenerateRequest, Method, Order, Schedule
from markovgen_app.runtime import Runtime
from markovgen_app.sheets import comparison_report, entry_report, methods_sheet
from markovgen_app.visitors import VisitorLimit

from .limits import comparison_worth, pictures_worth, visitor

EventT = TypeVar("EventT")
Answer = tuple[FileData, dict[str, Any]]
"""A picture's file, and its settings, with `notes` for the person who asked where there are any."""

_Comparison = tuple[FileData, list[FileData], dict[str, Any]]
_DEFAULTS = {name: field.default for name, field in GenerateRequest.model_fields.items()}


def generate_endpoint(
    runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., Iterator[Any]]:
    """The function behind `/generate`.

    Args:
        cache: folder of the files, Gradio's own, which is emptied after a while.
        metadata: whether the files carry their settings.
    """
    defaults = {**_DEFAULTS, **runtime.pipeline.defaults}
    picture_of = partial(one_picture, runtime, limit, cache, metadata)

    def generate(
        prompt: str,
        negative_prompt: str = defaults["negative_prompt"],
        method: Method = defaults["method"],
        steps: int = defaults["steps"],
        exit_step: int | None = None,
        guidance_scale: float = defaults["guidance_scale"],
        temperature: float = defaults["temperature"],
        annealing: float = defaults["annealing"],
        choice_temperature: float = defaults["choice_temperature"],
        top_k: int | None = None,
        order: Order = defaults["order"],
        finalise: Finalise = defaults["finalise"],
        exit_temperature: float | None = defaults["exit_temperature"],
        mrf_iterations: int | None = None,
        mrf_clamp: bool = defaults["mrf_clamp"],
        seed: int | None = None,
        size: int | None = None,
        super_resolution_steps: int = defaults["super_resolution_steps"],
        super_resolution_exit_step: int | None = None,
        super_resolution_guidance_scale: float = defaults["super_resolution_guidance_scale"],
        super_resolution_temperature: float = defaults["super_resolution_temperature"],
        super_resolution_exit_temperature: float | None = None,
        super_resolution_finalise: Finalise | None = None,
        guidance_ramp: bool = defaults["guidance_ramp"],
        schedule: Schedule = defaults["schedule"],
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Iterator[Answer | None]:
        """Makes one picture: its PNG file, and the settings that make it again (the seed among them)."""
        fields = {name: value for name, value in locals().items() if name in _DEFAULTS}
        yield from picture_of(GenerateRequest.validated(**fields), request)

    return answering(generate, Answer)


def compare_endpoint(
    runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., Iterator[Any]]:
    """The function behind `/compare`; arguments as for `generate_endpoint`."""
    defaults = {**_DEFAULTS, **runtime.pipeline.defaults}
    available = runtime.pipeline.methods
    usual = list(default_methods(available))
    run = comparing(runtime)

    def compare(
        prompt: str,
        methods: list[str] = usual,
        negative_prompt: str = defaults["negative_prompt"],
        steps: int = defaults["steps"],
        exit_step: int | None = None,
        guidance_scale: float = defaults["guidance_scale"],
        temperature: float = defaults["temperature"],
        annealing: float = defaults["annealing"],
        finalise: Finalise = defaults["finalise"],
        exit_temperature: float | None = defaults["exit_temperature"],
        mrf_iterations: int | None = None,
        mrf_clamp: bool = defaults["mrf_clamp"],
        seed: int | None = None,
        size: int | None = None,
        super_resolution_steps: int = defaults["super_resolution_steps"],
        super_resolution_exit_step: int | None = None,
        super_resolution_guidance_scale: float = defaults["super_resolution_guidance_scale"],
        super_resolution_temperature: float = defaults["super_resolution_temperature"],
        super_resolution_exit_temperature: float | None = None,
        super_resolution_finalise: Finalise | None = None,
        guidance_ramp: bool = defaults["guidance_ramp"],
        schedule: Schedule = defaults["schedule"],
        order: Order = defaults["order"],
        top_k: int | None = None,
        choice_temperature: float = defaults["choice_temperature"],
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Iterator[_Comparison | None]:
        """Runs methods on one prompt and seed: a labelled grid, a picture a method, and what each took."""
        fields = {name: value for name, value in locals().items() if name in _DEFAULTS}
        wanted = GenerateRequest.validated(**fields)
        chosen = chosen_methods([str(name) for name in methods], available)
        limit.take(visitor(request), comparison_worth(runtime, wanted, chosen))
        comparison = yield from to_the_end(run(wanted, chosen))
        assert isinstance(comparison, Comparison)
        pictures = [entry.picture for entry in comparison.entries.values()]
        files = [png_file(picture.png(metadata=metadata), picture.name, cache) for picture in pictures]
        grid = io.BytesIO()
        methods_sheet(comparison).save(grid, "PNG")
        report = {entry.method: entry_report(entry) for entry in comparison.entries.values()}
        yield png_file(grid.getvalue(), "grid", cache), files, {**comparison_report(comparison), "methods": report}

    return answering(compare, _Comparison)


def one_picture(
    runtime: Runtime, limit: VisitorLimit, cache: str, metadata: bool, wanted: DecodingRequest, caller: gr.Request
) -> Iterator[Answer | None]:
    """Makes the picture of a request, a file to download, and its settings and notes; counts for the caller's limit.

    Raises:
        UserError: these weights cannot do that, or the caller asked for too much.
    """
    limit.take(visitor(caller), pictures_worth(runtime, wanted))
    result = yield from to_the_end(runtime.run(wanted))
    assert isinstance(result, Result)
    picture = result.images[0]
    notes = {"notes": result.notes} if result.notes else {}
    yield png_file(picture.png(metadata=metadata), picture.name, cache), {**picture.settings, **notes}


def to_the_end(events: Iterator[EventT]) -> Generator[None, None, EventT]:
    """Yields None for every event; returns the last one."""
    for event in events:
        last = event
        yield None
    return last


def png_file(png: bytes, name: str, cache: str) -> FileData:
    """A PNG file for the caller to download."""
    path = save_bytes_to_cache(png, f"{name}.png", cache_dir=cache)
    file = FileData(path=path, orig_name=f"{name}.png", mime_type="image/png")
    return file.model_dump()  # type: ignore[return-value]


def answering(endpoint: Callable[..., Iterator[Any]], answer: Any) -> Callable[..., Iterator[Any]]:
    """An endpoint as `gr.api` takes it: of its answer's type, as if that were all it gave, and with errors in one line.

    Args:
        endpoint: yields None for every step, then its answer.
        answer: type of that, a tuple.
    """
    nothing = (None,) * len(get_args(answer))

    @functools.wraps(endpoint)
    def steps(*given: Any, **named: Any) -> Iterator[Any]:
        try:
            for answered in endpoint(*given, **named):
                yield answered or nothing
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    steps.__signature__ = inspect.signature(endpoint).replace(return_annotation=answer)  # type: ignore[attr-defined]
    return steps
