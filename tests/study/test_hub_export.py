"""Answers that go to the hub while a study is served: what is sent, how often, and nothing unless it was asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from studies import a_study, answered, join

from markovgen_app.errors import UserError
from markovgen_app.settings import Settings
from markovgen_app.study.site import Site
from markovgen_app.study.store import MIRROR


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls that went to the hub, which is not there."""
    calls: list[tuple[Any, ...]] = []

    def create_repo(api: HfApi, repo_id: str, **options: Any) -> SimpleNamespace:
        calls.append(("create", repo_id, options["repo_type"], options["private"]))
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(api: HfApi, repo_id: str, operations: Any, **options: Any) -> str:
        calls.append(("commit", {each.path_in_repo: each.path_or_fileobj.read() for each in operations}))
        return "done"

    def squash(api: HfApi, repo_id: str, **options: Any) -> None:
        calls.append(("squash", repo_id))

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr(HfApi, "super_squash_history", squash)
    return calls


def test_every_answer_is_sent_and_nothing_but_answers(tmp_path: Path, hub: list[tuple[Any, ...]]) -> None:
    bundle = a_study(tmp_path / "faces")
    for start in (1, 2):
        site = Site.open(bundle.folder, Settings(study_repository="someone/answers", study_repository_minutes=1000))
        _, session = join(site.store, bundle)
        answered(site.store, session)
        site.close()
        told = (bundle.folder / MIRROR).read_bytes()
        assert hub[0] == ("create", "someone/answers", "dataset", True) and told.count(b"\n") == start * len(
            session.trials
        )
        sent = [files for kind, *files in hub if kind == "commit"]
        assert [list(files[0].values()) for files in sent][-1] == [told]
        assert all(name.startswith("faces/20") and name.endswith(MIRROR) for (files,) in sent for name in files)
        assert len([call for call in hub if call[0] == "squash"]) == len(sent), "withdrawn answers leave the history"
        hub.clear()


def test_the_hub_is_not_asked_for_anything_unless_the_settings_do(
    tmp_path: Path, hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site.open(a_study(tmp_path / "faces").folder, Settings())
    site.close()
    assert hub == [] and site.export is None and Settings().study_repository is None


def test_what_cannot_be_sent_is_said(
    tmp_path: Path, hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_study(tmp_path / "faces").folder
    settings = Settings(study_repository="someone/answers", study_repository_minutes=1000)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(HfApi, "create_commit", refused)
    site = Site.open(folder, settings)
    site.close()
    assert "The last answers were not sent to someone/answers (no route)." in capsys.readouterr().err
    with pytest.raises(UserError, match="leave one of them out"):
        Site.open(folder, settings.model_copy(update={"database": str(tmp_path / "votes.db")}))
    monkeypatch.setattr(HfApi, "create_repo", refused)
    with pytest.raises(UserError, match="cannot be sent to the hub's data set someone/answers: check the connection"):
        Site.open(folder, settings)
