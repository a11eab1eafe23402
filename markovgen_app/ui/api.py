"""What programs can call by `gradio_client`: `/generate` and `/compare`, and how any such call is answered."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache

from markovgen_app.compare import Comparison, comparing
from markovgen_app.errors import UserError
from markovgen_app.events import Result
from markovgen_app.methods import chosen_methods, default_methods
from markovgen_app.requests import DecodingRequest, Finalise, GenerateRequest, Method, Order
from markovgen_app.runtime import Runtime
from markovgen_app.sheets import comparison_report, entry_report, methods_sheet

from .limits import VisitorLimit, visitor

_DEFAULTS = {name: field.default for name, field in GenerateRequest.model_fields.items()}


def generate_endpoint(
    runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., tuple[FileData, dict[str, Any]]]:
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
        choice_temperature: float = defaults["choice_temperature"],
        top_k: int | None = None,
        order: Order = defaults["order"],
        finalise: Finalise = defaults["finalise"],
        mrf_iterations: int | None = None,
        mrf_clamp: bool = defaults["mrf_clamp"],
        seed: int | None = None,
        size: int | None = None,
        super_resolution_steps: int = defaults["super_resolution_steps"],
        super_resolution_exit_step: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[FileData, dict[str, Any]]:
        """Makes one picture: its PNG file, and the settings that make it again (the seed among them)."""
        fields = {name: value for name, value in locals().items() if name in _DEFAULTS}
        with errors_said():
            return picture_of(GenerateRequest.validated(**fields), request)

    return generate


def compare_endpoint(
    runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., tuple[FileData, list[FileData], dict[str, Any]]]:
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
        finalise: Finalise = defaults["finalise"],
        mrf_iterations: int | None = None,
        mrf_clamp: bool = defaults["mrf_clamp"],
        seed: int | None = None,
        size: int | None = None,
        super_resolution_steps: int = defaults["super_resolution_steps"],
        super_resolution_exit_step: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[FileData, list[FileData], dict[str, Any]]:
        """Runs methods on one prompt and seed: a labelled grid, a picture a method, and what each took."""
        fields = {name: value for name, value in locals().items() if name in _DEFAULTS}
        with errors_said():
            wanted = GenerateRequest.validated(**fields)
            chosen = chosen_methods([str(name) for name in methods], available)
            limit.take(visitor(request), len(chosen))
            *_, comparison = run(wanted, chosen)
        assert isinstance(comparison, Comparison)
        pictures = [entry.picture for entry in comparison.entries.values()]
        files = [png_file(picture.png(metadata=metadata), picture.name, cache) for picture in pictures]
        grid = io.BytesIO()
        methods_sheet(comparison).save(grid, "PNG")
        report = {entry.method: entry_report(entry) for entry in comparison.entries.values()}
        return png_file(grid.getvalue(), "grid", cache), files, {**comparison_report(comparison), "methods": report}

    return compare


def one_picture(
    runtime: Runtime, limit: VisitorLimit, cache: str, metadata: bool, wanted: DecodingRequest, caller: gr.Request
) -> tuple[FileData, dict[str, Any]]:
    """The picture of a request, as a file to download, and its settings; it counts for the caller's limit.

    Raises:
        UserError: these weights cannot do that, or the caller asked for too many pictures.
    """
    limit.take(visitor(caller), 1)
    *_, result = runtime.run(wanted)
    assert isinstance(result, Result)
    picture = result.images[0]
    return png_file(picture.png(metadata=metadata), picture.name, cache), picture.settings


def png_file(png: bytes, name: str, cache: str) -> FileData:
    """A PNG file for the caller to download."""
    path = save_bytes_to_cache(png, f"{name}.png", cache_dir=cache)
    file = FileData(path=path, orig_name=f"{name}.png", mime_type="image/png")
    return file.model_dump()  # type: ignore[return-value]


@contextmanager
def errors_said() -> Iterator[None]:
    """Tells the caller what is wrong with what was asked for, in one line."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
