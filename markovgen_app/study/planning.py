"""What the command line says of a plan: pairs of methods, and when a rater's votes are left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from ..errors import UserError
from ..validation import validated
from .votes import Rules


def parsed_pairs(text: str, methods: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of methods out of "a:b,c:d"; a method's name may have colons of its own, as in early-exit:exit_step=12.

    Raises:
        UserError: one of them is no pair of these methods.
    """
    found = []
    for part in text.split(","):
        ends = [(part[:place].strip(), part[place + 1 :].strip()) for place, sign in enumerate(part) if sign == ":"]
        pairs = [(first, second) for first, second in ends if {first, second} <= {*methods} and first != second]
        if len(pairs) != 1:
            raise UserError(
                f"{part.strip()!r} in --pairs is no pair of this study's methods ({', '.join(methods)}): write two of"
                " them with a colon between."
            )
        found += pairs
    return tuple(found)


def read_rules(path: Path, exposure: float) -> Rules:
    """The rules of a YAML or JSON file; what it does not say is as it would be without it.

    Args:
        exposure: seconds that a pair stands before one may answer.

    Raises:
        UserError: the file cannot be read, or one of its rules is wrong or unknown.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
    except (OSError, UnicodeDecodeError):
        raise UserError(f"Cannot read {path}: give a file of rules in YAML or JSON.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise UserError(f"{path} holds no rules: write lines such as `max_failed_checks: 1`.")
    return validated(Rules, Rules.after(exposure).model_dump() | given)
