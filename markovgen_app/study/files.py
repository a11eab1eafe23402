"""What can be taken away from a study: its votes, its results, its paragraph for a paper and its figures.

Everything that is imported to make a file is imported when it is made: serving votes needs no matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .results import Results
from .votes import Vote


@dataclass(frozen=True)
class File:
    """A file of a study; `make` is given all votes and what they say."""

    title: str
    media_type: str
    make: Callable[[Sequence[Vote], Results], bytes]


def _votes(form: Literal["csv", "jsonl", "parquet"]) -> Callable[[Sequence[Vote], Results], bytes]:
    def make(votes: Sequence[Vote], results: Results) -> bytes:
        from . import export

        writers = {"csv": export.to_csv, "jsonl": export.to_jsonl, "parquet": export.to_parquet}
        return writers[form](votes)

    return make


def _results(votes: Sequence[Vote], results: Results) -> bytes:
    from .export import results_json

    return results_json(results)


def _methods(votes: Sequence[Vote], results: Results) -> bytes:
    from .export import methods_paragraph

    return (methods_paragraph(results) + "\n").encode()


def _figure(name: Literal["preference", "strength"], form: Literal["png", "svg"]) -> Callable[..., bytes]:
    def make(votes: Sequence[Vote], results: Results) -> bytes:
        from . import plots

        draw = plots.preference_figure if name == "preference" else plots.strength_figure
        return plots.render(draw(results), form)

    return make


FILES = {
    "votes.csv": File("Votes, CSV", "text/csv", _votes("csv")),
    "votes.jsonl": File("Votes, JSON Lines", "application/x-ndjson", _votes("jsonl")),
    "votes.parquet": File("Votes, Parquet", "application/vnd.apache.parquet", _votes("parquet")),
    "results.json": File("Results, JSON", "application/json", _results),
    "methods.txt": File("Methods paragraph", "text/plain", _methods),
    "preference.png": File("Preference, PNG", "image/png", _figure("preference", "png")),
    "preference.svg": File("Preference, SVG", "image/svg+xml", _figure("preference", "svg")),
    "strength.png": File("Strength, PNG", "image/png", _figure("strength", "png")),
    "strength.svg": File("Strength, SVG", "image/svg+xml", _figure("strength", "svg")),
}
"""Everything, by file name."""
