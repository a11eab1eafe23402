"""Answers that go to the hub while a study is served: what is sent, how often, and nothing unless it was asked for."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from studies import a_study, answered, join

from markovgen_app.errors import UserError
from markovgen_app.settings import Settings
from markovgen_app.study import hub_export
from markovgen_app.study.mirror import read_mirror
from markovgen_app.study.site import Site, open_store
from markovgen_app.study.store import MIRROR

SETTINGS = Settings(study_repository="someone/answers", study_repository_minutes=1000)


class Hub:
    """A data set of the hub that is not there: the calls that went to it, and its files."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        self.calls.append(("create", repo_id, options["repo_type"], options["private"]))
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> str:
        sent = {
            each.path_in_repo: each.path_or_fileobj.read() for each in operations if hasattr(each, "path_or_fileobj")
        }
        removed = [each.path_in_repo for each in operations if each.path_in_repo not in sent]
        self.calls.append(("commit", sent) if sent else ("remove", *removed))
        self.files.update(sent)
        for path in removed:
            del self.files[path]
        return "done"

    def list_repo_files(self, repo_id: str, **options: Any) -> list[str]:
        return list(self.files)

    def hf_hub_download(self, repo_id: str, filename: str, *, local_dir: str, **options: Any) -> str:
        file = Path(local_dir) / "downloaded"
        file.write_bytes(self.files[filename])
        return str(file)

    def super_squash_history(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("squash", repo_id))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [rest for each, *rest in self.calls if each == kind]


def refused(*_: Any, **__: Any) -> None:
    raise OSError("no route")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    for name in ("create_repo", "create_commit", "list_repo_files", "hf_hub_download", "super_squash_history"):
        monkeypatch.setattr(HfApi, name, getattr(hub, name))
    return hub


def test_every_answer_is_sent_and_nothing_but_answers(tmp_path: Path, hub: Hub) -> None:
    bundle = a_study(tmp_path / "faces")
    for start in (1, 2):
        site = Site.open(bundle.folder, SETTINGS)
        _, session = join(site.store, bundle)
        answered(site.store, session)
        site.close()
        told = (bundle.folder / MIRROR).read_bytes()
        assert hub.calls[0] == ("create", "someone/answers", "dataset", True) and told.count(b"\n") == start * len(
            session.trials
        )
        sent = hub.of("commit")
        assert [list(files[0].values()) for files in sent][-1] == [told]
        assert all(name.startswith("faces/20") and name.endswith(MIRROR) for (files,) in sent for name in files)
        assert len(hub.of("squash")) == len(sent), "withdrawn answers leave the history"
        hub.calls.clear()


def test_withdrawn_answers_stay_nowhere_though_the_server_was_restarted(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = iter(("2026-01-01T000000Z", "2026-01-02T000000Z"))
    monkeypatch.setattr(hub_export, "_started", lambda: next(starts))
    hub.files["README.md"] = hub.files["moons/2026-01-01T000000Z/answers.jsonl"] = b""
    bundle = a_study(tmp_path / "faces")
    site = Site.open(bundle.folder, SETTINGS)
    token, session = join(site.store, bundle)
    answered(site.store, session)
    site.close()
    assert f"faces/2026-01-01T000000Z/{MIRROR}" in hub.files

    site = Site.open(bundle.folder, SETTINGS)
    answered(site.store, join(site.store, bundle)[1])
    assert site.export is not None
    site.export._scheduler.trigger().result()
    site.store.withdraw(bundle.keys.withdrawal_hash(bundle.keys.withdrawal_code(bundle.keys.rater(token))))
    site.close()
    (path,) = set(hub.files) - {"README.md", "moons/2026-01-01T000000Z/answers.jsonl"}
    assert path == f"faces/2026-01-02T000000Z/{MIRROR}"
    assert hub.files[path] == (bundle.folder / MIRROR).read_bytes() != b""
    assert session.rater.encode() not in hub.files[path]
    assert hub.calls[-1][0] == "squash"


def test_answers_of_a_lost_disk_stay_until_they_were_given_back(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = iter("abc")
    monkeypatch.setattr(hub_export, "_started", lambda: next(starts))
    bundle = a_study(tmp_path / "faces")
    for start in ("a", "b"):
        site = Site.open(bundle.folder, SETTINGS)
        answered(site.store, join(site.store, bundle)[1])
        site.close()
        if start == "a":
            for file in bundle.folder.glob("study.db*"):
                file.unlink()
            (bundle.folder / MIRROR).rename(tmp_path / MIRROR)
    assert set(hub.files) == {f"faces/{start}/{MIRROR}" for start in "ab"}
    assert f"holds answers that this study's database does not, in faces/a/{MIRROR}: " in capsys.readouterr().err

    store, keys = open_store(bundle, None), bundle.keys
    store.add_votes(read_mirror(tmp_path / MIRROR), lambda rater: keys.withdrawal_hash(keys.withdrawal_code(rater)))
    store.dispose()
    Site.open(bundle.folder, SETTINGS).close()
    assert set(hub.files) == {f"faces/c/{MIRROR}"}


def test_a_hub_that_lists_nothing_gets_the_answers_all_the_same(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HfApi, "list_repo_files", refused)
    bundle = a_study(tmp_path / "faces")
    site = Site.open(bundle.folder, SETTINGS)
    answered(site.store, join(site.store, bundle)[1])
    site.close()
    assert list(hub.files.values()) == [(bundle.folder / MIRROR).read_bytes()]
    assert "someone/answers were not looked at (no route)" in capsys.readouterr().err and hub.of("squash")


def test_a_squash_that_failed_is_made_up_for_without_another_answer(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = a_study(tmp_path / "faces")
    site = Site.open(bundle.folder, SETTINGS)
    assert site.export is not None
    scheduler = site.export._scheduler
    while not hasattr(scheduler, "last_future"):  # its own first push, of nothing
        time.sleep(0.01)
    scheduler.last_future.result()
    hub.calls.clear()
    answered(site.store, join(site.store, bundle)[1])
    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "super_squash_history", refused)
        with pytest.raises(OSError, match="no route"):
            scheduler.trigger().result()
    assert len(hub.of("commit")) == 1 and not hub.of("squash")
    scheduler.trigger().result()
    assert (len(hub.of("commit")), len(hub.of("squash"))) == (1, 1)
    site.close()


def test_the_hub_is_not_asked_for_anything_unless_the_settings_do(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site.open(a_study(tmp_path / "faces").folder, Settings())
    site.close()
    assert hub.calls == [] and site.export is None and Settings().study_repository is None


def test_what_cannot_be_sent_is_said(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_study(tmp_path / "faces").folder

    monkeypatch.setattr(HfApi, "create_commit", refused)
    site = Site.open(folder, SETTINGS)
    site.close()
    assert "The last answers were not sent to someone/answers (no route)." in capsys.readouterr().err
    with pytest.raises(UserError, match="leave one of them out"):
        Site.open(folder, SETTINGS.model_copy(update={"database": str(tmp_path / "votes.db")}))
    monkeypatch.setattr(HfApi, "create_repo", refused)
    with pytest.raises(UserError, match="cannot be sent to the hub's data set someone/answers: check the connection"):
        Site.open(folder, SETTINGS)
