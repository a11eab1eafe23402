"""What programs can call: `/generate` for `gradio_client`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache

from markovgen_app.errors import UserError
from markovgen_app.pipeline import Result
from markovgen_app.requests import GenerateRequest, Method, Order
from markovgen_app.runtime import Runtime

from .limits import VisitorLimit, visitor


def generate_endpoint(
    runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., tuple[FileData, dict[str, Any]]]:
    """The function behind `/generate`.

    Args:
        cache: folder of the files, Gradio's own, which is emptied after a while.
        metadata: whether the files carry their settings.
    """
    defaults = {name: field.default for name, field in GenerateRequest.model_fields.items()}

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
        seed: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[FileData, dict[str, Any]]:
        """Makes one picture: its PNG file, and the settings that make it again (the seed among them)."""
        fields = {name: value for name, value in locals().items() if name in defaults}
        try:
            wanted = GenerateRequest.validated(**fields)
            limit.take(visitor(request), 1)
            *_, result = runtime.run(wanted)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        assert isinstance(result, Result)
        picture = result.images[0]
        name = f"{picture.name}.png"
        path = save_bytes_to_cache(picture.png(metadata=metadata), name, cache_dir=cache)
        file = FileData(path=path, orig_name=name, mime_type="image/png")
        return file.model_dump(), picture.settings  # type: ignore[return-value]

    return generate
