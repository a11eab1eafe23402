"""A study on disk: pictures made beforehand, and the plan, frozen and hashed before the first vote.

    plan.json       what is settled before the first vote; its SHA-256 is the plan's digest, to publish
    pictures.json   which file shows which prompt by which method, every file's SHA-256, how they were made
    pictures/       PNG files of one size in pixels and in bytes, under names that tell nothing
    secret.key      names, tokens and codes are derived from it; whoever has it can tell methods apart
    study.db        the votes, once the study is served (store.py)

Nothing here is ever sent to a rater except single pictures, under addresses of their own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError
from .design import spoilt_pictures
from .identity import Keys
from .votes import CORRUPTED, EXPOSURE_SECONDS, Plan, Trial

PLAN, MANIFEST, PICTURES, SECRET, DRAFT, DRAFTS = (
    "plan.json",
    "pictures.json",
    "pictures",
    "secret.key",
    "draft.json",
    "drafts",
)
_LARGEST_FILE = 64_000_000

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PictureFile(_Strict):
    """One picture: its name in the folder of pictures and its SHA-256."""

    file: str = Field(pattern=r"^[0-9a-f]{32}\.png$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(_Strict):
    """Which file shows what. `pictures` and `spoilt` go from a prompt's id to a method's name to the file."""

    plan: str = Field(description="the plan's digest")
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    bytes: int = Field(ge=1, description="of every file")
    pictures: dict[str, dict[str, PictureFile]]
    spoilt: dict[str, dict[str, PictureFile]]
    made: dict[str, dict[str, Any]] = Field(description="how each method's pictures were made")
    consent: str
    exposure_seconds: float = Field(
        EXPOSURE_SECONDS, ge=0, le=60, description="how long both pictures stand before one may answer"
    )


@dataclass(frozen=True)
class Bundle:
    """A frozen study, checked when it was opened.

    Attributes:
        folder: where it lies.
        plan, manifest: what is frozen.
        keys: everything derived from its secret.
        digest: SHA-256 of pictures.json, which holds the plan's digest: identifies all that is frozen.
    """

    folder: Path
    plan: Plan
    manifest: Manifest
    keys: Keys
    digest: str

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read a study and check that nothing of it was changed since it was frozen, file contents excepted.

        Raises:
            UserError: there is no study, or one that was changed, or one with names that lead elsewhere.
        """
        folder = Path(folder)
        if not (folder / PLAN).exists():
            unfinished = (folder / DRAFT).exists()
            raise UserError(
                f"The study in {folder} is half made: run the command that began it once more."
                if unfinished
                else f"There is no study in {folder}: make one with `markovgen study create`."
            )
        plan_bytes, manifest_bytes = (_read_inside(folder, name) for name in (PLAN, MANIFEST))
        plan = _parsed(Plan, plan_bytes, folder / PLAN)
        manifest = _parsed(Manifest, manifest_bytes, folder / MANIFEST)
        if hashlib.sha256(plan_bytes).hexdigest() != manifest.plan:
            raise UserError(
                f"{folder / PLAN} was changed after it was frozen: bring the original back, or create a new study."
            )
        bundle = cls(folder, plan, manifest, read_keys(folder), hashlib.sha256(manifest_bytes).hexdigest())
        bundle._check_complete()
        return bundle

    def files(self, trial: Trial) -> tuple[PictureFile, PictureFile]:
        """The left and the right picture of a trial."""
        if CORRUPTED in (trial.left, trial.right):
            whole = trial.right if trial.left == CORRUPTED else trial.left
            spoilt = self.manifest.spoilt[trial.prompt][whole]
            good = self.manifest.pictures[trial.prompt][whole]
            return (spoilt, good) if trial.left == CORRUPTED else (good, spoilt)
        of_prompt = self.manifest.pictures[trial.prompt]
        return of_prompt[trial.left], of_prompt[trial.right]

    def picture(self, picture: PictureFile) -> bytes:
        """The file's content.

        Raises:
            UserError: it is missing or was changed.
        """
        content = _read_inside(self.folder / PICTURES, picture.file)
        if hashlib.sha256(content).hexdigest() != picture.sha256:
            raise UserError(
                f"{self.folder / PICTURES / picture.file} was changed after it was frozen: bring the original back."
            )
        return content

    def pictures(self) -> Iterator[PictureFile]:
        """Every picture, corrupted ones included."""
        for table in (self.manifest.pictures, self.manifest.spoilt):
            for by_method in table.values():
                yield from by_method.values()

    def verify(self) -> None:
        """Read every picture; UserError on the first that is missing or changed."""
        for picture in self.pictures():
            self.picture(picture)

    def _check_complete(self) -> None:
        spoilt = {picture for part in spoilt_pictures(self.plan) for picture in part}
        wanted = [(self.manifest.pictures, p.id, method) for p in self.plan.prompts for method in self.plan.methods]
        wanted += [(self.manifest.spoilt, prompt, method) for prompt, method in spoilt]
        for table, prompt, method in wanted:
            if method not in table.get(prompt, {}):
                raise UserError(f"{self.folder / MANIFEST} has no picture of {prompt} by {method}: bring it back.")


def _read_inside(folder: Path, name: str) -> bytes:
    """A file's content, of that folder itself: links, devices and names that lead elsewhere are refused."""
    path = folder / name
    if Path(name).name != name or name.startswith(".") or folder.is_symlink():
        raise UserError(f"{path} leads out of the study: bring the original files back.")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link: put the file itself there.") from None
        raise UserError(f"Cannot read {path} ({error.strerror}): bring the study's files back.") from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            raise UserError(f"{path} is no file of a study: bring the original back.")
        return file.read()


def _parsed(kind: type[ModelT], content: bytes, path: Path) -> ModelT:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is damaged ({place}: {first['msg']}): bring the original back.") from None


def read_keys(folder: Path) -> Keys:
    try:
        return Keys(bytes.fromhex(_read_inside(folder, SECRET).decode().strip()))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder / SECRET} is damaged: bring the original back from where you keep it.") from None
