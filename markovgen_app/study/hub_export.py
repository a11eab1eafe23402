"""A study's answers, sent to a repository of the hub every few minutes: for places whose disk does not stay.

What is sent is the file of answers beside the database (see `mirror`), by huggingface_hub's CommitScheduler. Each start
of the server has a folder of its own in the repository, so that one whose disk was emptied overwrites nothing. The
repository's history is squashed after every commit: answers that were withdrawn leave it, too. A folder of an earlier
start goes as soon as all of its answers are in this start's, lest answers that are withdrawn later stay there.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationDelete, CommitScheduler

from ..errors import UserError
from ..settings import Settings
from .mirror import known
from .store import MIRROR


class _Scheduler(CommitScheduler):
    """Commits what has changed, and squashes until that is done; looks once at what earlier starts left."""

    _looked = False
    _to_squash = False  # also where squashing failed last time, though nothing has changed since

    def push_to_hub(self) -> Any:
        commit = super().push_to_hub()
        self._to_squash = self._to_squash or commit is not None
        if commit is not None and not self._looked:
            try:
                self._remove_covered()
                self._looked = True
            except Exception as error:  # whatever keeps the hub from answering: the answers are there, so go on
                print(
                    f"Answers of earlier starts in {self.repo_id} were not looked at ({_reason(error)}).",
                    file=sys.stderr,
                )
        if self._to_squash:
            self.api.super_squash_history(repo_id=self.repo_id, repo_type=self.repo_type)
            self._to_squash = False
        return commit

    def _remove_covered(self) -> None:
        """Remove the files of earlier starts whose answers are all in this start's, which has just been sent."""
        study, own = self.path_in_repo.rpartition("/")[0], f"{self.path_in_repo}/{MIRROR}"
        here = known((self.folder_path / MIRROR).read_bytes())
        covered: list[str] = []
        others: list[str] = []
        for path in self.api.list_repo_files(self.repo_id, repo_type=self.repo_type):
            if path == own or not (path.startswith(f"{study}/") and path.endswith(f"/{MIRROR}")):
                continue
            with TemporaryDirectory() as folder:
                file = self.api.hf_hub_download(self.repo_id, path, repo_type=self.repo_type, local_dir=folder)
                (covered if known(Path(file).read_bytes()) <= here else others).append(path)
        if covered:
            self.api.create_commit(
                self.repo_id,
                [CommitOperationDelete(path) for path in covered],
                repo_type=self.repo_type,
                commit_message="Remove what the last start's answers hold, too",
            )
        if others:
            print(
                f"The hub's data set {self.repo_id} holds answers that this study's database does not, in"
                f" {', '.join(others)}: give them to it with `markovgen study import`, or delete them if they were"
                " withdrawn.",
                file=sys.stderr,
            )


class HubExport:
    """Sends a study's answers while it is served.

    Args:
        folder: of the study, which has its file of answers.
        repository: hub id of a data set, made if it is not there, then a private one.
        minutes: between two commits.

    Raises:
        UserError: the hub cannot be reached, or does not let us write there.
    """

    def __init__(self, folder: Path, repository: str, minutes: float) -> None:
        try:
            self._scheduler = _Scheduler(
                repo_id=repository,
                repo_type="dataset",
                private=True,
                folder_path=folder,
                allow_patterns=MIRROR,
                path_in_repo=f"{folder.resolve().name}/{_started()}",
                every=minutes,
            )
        except Exception as error:  # whatever keeps the hub from answering
            raise UserError(
                f"The study's answers cannot be sent to the hub's data set {repository}: check the connection,"
                " MARKOVGEN_STUDY_REPOSITORY, and that HF_TOKEN may write there."
            ) from error

    @classmethod
    def of(cls, folder: Path, settings: Settings) -> HubExport | None:
        """The export that the settings ask for; None where they do not, and then the hub is not asked for anything.

        Raises:
            UserError: as above, or the votes are not in the study's folder.
        """
        if settings.study_repository is None:
            return None
        for name in ("database", "study_shards"):
            if getattr(settings, name) is not None:
                raise UserError(
                    "MARKOVGEN_STUDY_REPOSITORY sends the file of answers in the study's folder, and there is none with"
                    f" MARKOVGEN_{name.upper()}: leave one of them out."
                )
        return cls(folder, settings.study_repository, settings.study_repository_minutes)

    def close(self) -> None:
        """Send what is left."""
        try:
            self._scheduler.trigger().result(timeout=60)
        except Exception as error:  # votes are safe in the database
            print(f"The last answers were not sent to {self._scheduler.repo_id} ({_reason(error)}).", file=sys.stderr)
        self._scheduler.stop()


def _started() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
