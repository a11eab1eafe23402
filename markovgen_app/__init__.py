"""MarkovGen: Muse-style text-to-image, faster and better by a learned Markov random field over image tokens.

The names below are loaded when they are first used, so that `import markovgen_app` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import UserError
    from .events import Result, StepEvent
    from .models.mrf import MarkovRandomField
    from .models.super_resolution import SuperResolutionTransformer
    from .models.text import TextEncoder
    from .models.tokenizer import ImageTokenizer
    from .models.transformer import MuseTransformer
    from .picture_requests import EditRequest, InpaintRequest, OutpaintRequest
    from .pictures import Picture, read_settings
    from .pipeline import MarkovGenPipeline
    from .requests import GenerateRequest
    from .runtime import Runtime, load_runtime
    from .settings import Settings
    from .vocabulary import Vocabulary

_HOMES = {
    "EditRequest": "picture_requests",
    "GenerateRequest": "requests",
    "ImageTokenizer": "models.tokenizer",
    "InpaintRequest": "picture_requests",
    "MarkovGenPipeline": "pipeline",
    "MarkovRandomField": "models.mrf",
    "MuseTransformer": "models.transformer",
    "OutpaintRequest": "picture_requests",
    "Picture": "pictures",
    "Result": "events",
    "Runtime": "runtime",
    "Settings": "settings",
    "StepEvent": "events",
    "SuperResolutionTransformer": "models.super_resolution",
    "TextEncoder": "models.text",
    "UserError": "errors",
    "Vocabulary": "vocabulary",
    "load_runtime": "runtime",
    "read_settings": "pictures",
}

__all__ = [
    "EditRequest",
    "GenerateRequest",
    "ImageTokenizer",
    "InpaintRequest",
    "MarkovGenPipeline",
    "MarkovRandomField",
    "MuseTransformer",
    "OutpaintRequest",
    "Picture",
    "Result",
    "Runtime",
    "Settings",
    "StepEvent",
    "SuperResolutionTransformer",
    "TextEncoder",
    "UserError",
    "Vocabulary",
    "load_runtime",
    "read_settings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
