"""Settings of the app and the command line, from the environment: MARKOVGEN_MODEL, MARKOVGEN_DEVICE, …"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import UserError

DEFAULT_MODEL = "weights"
_SECRET = ("ADMIN_PASSWORD", "DATABASE")  # never repeated in a message


class Settings(BaseSettings):
    """Every field can be set by the environment variable MARKOVGEN_ + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="MARKOVGEN_", extra="ignore")

    model: str = Field(default=DEFAULT_MODEL, min_length=1, description="checkpoint: a folder or a hub id")
    text_encoder: str | None = Field(
        default=None, description="text encoder: a folder or a hub id; the checkpoint's own if not given"
    )
    mrf: str | None = Field(
        default=None, description="folder or hub id of a random field; the checkpoint's own if not given"
    )
    device: str = Field(default="auto", min_length=1, description="auto, cpu, cuda, cuda:1, mps …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="of the image models")
    low_memory: bool = Field(
        default=False, description="keep the models in main memory, on the device only while they work"
    )
    host: str = Field(
        default_factory=lambda: "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1",
        min_length=1,
        description="address that the app listens on; all of them in a Space, whose proxy comes from outside",
    )
    port: int = Field(default=7860, ge=1, le=65535, description="port that the app listens on")
    queue_size: int = Field(default=32, ge=1, description="visitors who may wait in line")
    visitor_burst: int = Field(default=12, ge=0, description="pictures a visitor may ask for at once; 0 for no limit")
    visitor_per_minute: float = Field(default=6, gt=0, description="pictures that a visitor gets back every minute")
    mcp: bool = Field(default=False, description="offer the API as tools of the Model Context Protocol, too")
    code_url: str | None = Field(default=None, description="where the code is, for the header's link")
    save_metadata: bool = Field(default=True, description="write the settings into PNG files")
    study: Path | None = Field(default=None, description="folder of a preference study to serve at /rate and /results")
    database: str | None = Field(
        default=None, description="URL of the study's database; the file study.db in its folder if not given"
    )
    admin_password: SecretStr | None = Field(default=None, min_length=8, description="opens the study's /results")
    study_invite_only: bool = Field(default=False, description="only people with an invitation may rate")
    study_shards: Path | None = Field(
        default=None, description="folder that keeps the study's answers, such as a mounted bucket; no database then"
    )
    study_repository: str | None = Field(
        default=None, min_length=1, description="data set of the hub that the study's answers are sent to, owner/name"
    )
    study_repository_minutes: float = Field(default=10, gt=0, description="between two of these commits")
    study_public: bool = Field(default=False, description="show /results without the password once the study is closed")


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with overrides; None leaves a field alone.

    Raises:
        UserError: one line on the first value that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else ""
        given = "" if name in _SECRET else f", not {first['input']!r}"
        raise UserError(f"MARKOVGEN_{name}: {first['msg']}{given}.") from None


def model_path(model: str) -> str:
    """Where a checkpoint lies: the default one is found from any working directory of a source checkout."""
    if model == DEFAULT_MODEL and not Path(model).exists():
        beside_package = Path(__file__).resolve().parent.parent / DEFAULT_MODEL
        if beside_package.is_dir():
            return str(beside_package)
    return model
