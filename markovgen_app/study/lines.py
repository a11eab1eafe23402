"""Files of JSON Lines, kept so that whoever is killed while writing tears no more than the last line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def encoded(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def whole_rows(content: bytes) -> list[Any]:
    """The rows of a file, without what was torn at its end. ValueError where any other line is no JSON."""
    whole, _, _ = content.rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def append(path: Path, content: bytes) -> None:
    """Add lines, durably: they are synced, and the file is closed. OSError where some of them are not in it."""
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file anew: the whole of it, or OSError and the old one stays."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
