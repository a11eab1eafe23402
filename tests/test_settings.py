"""Settings from the environment."""

from pathlib import Path

import pytest

from markovgen_app.errors import UserError
from markovgen_app.settings import Settings, load_settings, model_path


def test_defaults_serve_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.model, settings.device, settings.dtype) == ("weights", "auto", "auto")
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)


def test_the_environment_is_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKOVGEN_MODEL", "somewhere")
    monkeypatch.setenv("MARKOVGEN_PORT", "8000")
    monkeypatch.setenv("PORT", "9000")
    settings = load_settings(port=8001, device=None)
    assert (settings.model, settings.port, settings.device) == ("somewhere", 8001, "auto")


def test_what_is_wrong_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKOVGEN_PORT", "http")
    with pytest.raises(UserError, match=r"MARKOVGEN_PORT: .*'http'") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_secrets_are_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKOVGEN_ADMIN_PASSWORD", "short")
    with pytest.raises(UserError, match=r"MARKOVGEN_ADMIN_PASSWORD: .*at least 8") as caught:
        load_settings()
    assert "short" not in str(caught.value)
    assert "long enough" not in repr(load_settings(admin_password="long enough"))


def test_the_default_checkpoint_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Path(__file__).parent.parent
    monkeypatch.chdir(tmp_path)
    expected = str(repository / "weights") if (repository / "weights").is_dir() else "weights"
    assert model_path(Settings().model) == expected
    (tmp_path / "weights").mkdir()
    assert model_path("weights") == "weights"
    assert model_path("elsewhere") == "elsewhere"
