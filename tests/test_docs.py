"""The documentation's examples: Python runs on tiny weights, commands have the options that they are shown with."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from builders import tiny_checkpoint
from documents import blocks, python_blocks
from packaging.specifiers import SpecifierSet
from PIL import Image

from markovgen_app.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVED = {"hosting.md"}  # its examples call an app, which test_hosting.py serves
COMMAND = typer.main.get_command(app)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_the_examples_in_python_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in SERVED:
        for example in python_blocks(page):
            compile(example, page.name, "exec")
        return
    tiny_checkpoint(tmp_path / "weights")
    Image.new("RGB", (128, 128), "teal").save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in python_blocks(page):
        exec(example, names)
    assert list(Path("pictures").glob("*.png"))


def commands(page: Path) -> list[list[str]]:
    """The words of every `markovgen …` line in a page's plain blocks, without the environment before it."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    found = [re.fullmatch(r"(?:\w+=\S+ )*markovgen (.*)", line) for line in lines]
    return [shlex.split(line[1], comments=True) for line in found if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_that_it_is_shown_with(page: Path) -> None:
    for words in commands(page):
        command, given = COMMAND, list(words)
        while given and given[0] in getattr(command, "commands", {}):
            command = command.commands[given.pop(0)]
        known = {"--help", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}
        options = [word.partition("=")[0] for word in given if word.startswith("--")]
        assert command is not COMMAND and set(options) <= known, shlex.join(words)


def test_one_range_of_pythons_is_named_everywhere_and_the_packages_take_it() -> None:
    found = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found, "pyproject.toml names the oldest and the first too new"
    oldest, newest = int(found[1]), int(found[2]) - 1
    makefile, readme = ((ROOT / name).read_text() for name in ("Makefile", "README.md"))
    assert f"(3, {oldest}) <= sys.version_info[:2] <= (3, {newest})" in makefile
    assert f"Python 3.{oldest} or 3.{newest}" in readme and f"Python 3.{oldest} or 3.{newest}" in makefile
    for line in (ROOT / "requirements.txt").read_text().split():
        asked = metadata(re.split("[=<>]", line)[0]).get("Requires-Python") or ""
        assert all(f"3.{minor}.5" in SpecifierSet(asked) for minor in (oldest, newest)), line
