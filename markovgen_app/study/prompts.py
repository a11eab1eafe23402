"""Prompt files: text (a prompt a line), CSV with a header, and TSV with a header as the Parti prompts have it."""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..requests import MAX_PROMPT
from .votes import Prompt

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST_FILE = 20_000_000
_TEXT_COLUMNS = ("prompt", "text", "caption")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file: .csv and .tsv by their header (prompt, and if there: id, category), else a line each.

    Prompts without an id are numbered: 0001, 0002, …

    Raises:
        UserError: one line on the first thing that is wrong.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} is larger than {_LARGEST_FILE // 1_000_000} MB: give a file of prompts.")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file of prompts.") from None
    delimiter = _DELIMITERS.get(path.suffix.lower())
    rows = _table(text, delimiter, path) if delimiter else [("", line, "") for line in text.splitlines()]
    width = max(4, len(str(len(rows))))
    prompts = [
        _prompt(name.strip() or f"{number:0{width}d}", prompt, category, f"{path}, prompt {number}")
        for number, (name, prompt, category) in enumerate(
            [row for row in rows if any(cell.strip() for cell in row)], start=1
        )
    ]
    if not prompts:
        raise UserError(f"{path} holds no prompts: write one a line.")
    twice = [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if twice:
        raise UserError(f"{path}: the id {twice[0]!r} is there twice: give every prompt its own.")
    return prompts


def sample(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """A random sample of the prompts, in their order; the same seed gives the same.

    Raises:
        UserError: there are not that many.
    """
    if count > len(prompts):
        raise UserError(f"There are {len(prompts)} prompts: sample {len(prompts)} or fewer, not {count}.")
    chosen = sorted(random.Random(f"prompts {seed}").sample(range(len(prompts)), count))
    return [prompts[index] for index in chosen]


def _table(text: str, delimiter: str, path: Path) -> list[tuple[str, str, str]]:
    """Rows of (id, prompt, category). Quotes are read in CSV files; in TSV files they are letters like any other."""
    try:
        if delimiter == "\t":
            rows = [line.split("\t") for line in text.splitlines()]
        else:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is no table that can be read: save it again ({error}).") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _TEXT_COLUMNS if name in header), None)
    if column is None:
        raise UserError(
            f"{path} has no column called prompt: put a header line first, such as prompt{delimiter}category."
        )
    places = [header.index(name) if name in header else None for name in ("id", header[column], "category")]

    def cell(row: list[str], place: int | None) -> str:
        return row[place] if place is not None and place < len(row) else ""

    return [(cell(row, places[0]), cell(row, places[1]), cell(row, places[2])) for row in rows[1:]]


def _prompt(name: str, text: str, category: str, where: str) -> Prompt:
    text, category = " ".join(text.split()), " ".join(category.split())
    if not _ID.fullmatch(name):
        raise UserError(f"{where}: the id {name[:80]!r} must be letters, digits, dots and dashes, 64 at most.")
    if not text:
        raise UserError(f"{where}: there is no prompt in this line: write one, or delete the line.")
    if len(text) > MAX_PROMPT:
        raise UserError(f"{where} has {len(text):,} characters: shorten it to {MAX_PROMPT:,} or fewer.")
    if not text.isprintable() or not category.isprintable():
        raise UserError(f"{where} holds characters that are no text: type it again.")
    return Prompt(id=name, text=text, category=category[:100])
