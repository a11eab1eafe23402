"""How reports leave the commands."""

import math

from markovgen_app.evaluation import output


def test_numbers_are_plain_in_json():
    found = output.plain({"a": math.nan, "b": [1 / 3, 2], "c": {"d": math.inf}, "e": "x"})
    assert found == {"a": None, "b": [0.33333, 2], "c": {"d": None}, "e": "x"}
