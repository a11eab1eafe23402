"""How reports leave the commands: numbers for JSON and for tables."""

import math
from typing import Any

import pytest

from markovgen_app.evaluation import output


def test_numbers_are_plain_in_json():
    found = output.plain({"a": math.nan, "b": [1 / 3, 2], "c": {"d": math.inf}, "e": "x"})
    assert found == {"a": None, "b": [0.33333, 2], "c": {"d": None}, "e": "x"}


def test_a_command_names_what_is_unusual_and_quotes_it():
    options = (
        ("--images", 9, None),
        ("--split", "test", "test"),
        ("--model", "a b", "weights"),
        ("--grid", True, False),
    )
    assert output.command_line("sweep", *options) == "markovgen sweep --images 9 --model 'a b' --grid"
    assert output.command_line("sweep", ("--steps", 1, 24), ("--grid", False, False)) == "markovgen sweep --steps 1"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.12345, "0.123"),
        (math.nan, "–"),
        ({"value": 2.0, "low": 1.0, "high": 3.0}, "2 (1 … 3)"),
        ({"value": 2.0, "low": math.nan, "high": math.nan}, "2 (–)"),
        ({"value": math.nan, "low": math.nan, "high": math.nan}, "–"),
    ],
)
def test_a_table_shows_what_is_defined(value: Any, cell: str) -> None:
    assert output.cell(value) == output.cell(output.plain(value)) == cell
