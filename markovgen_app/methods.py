"""The decoding methods: what people are told about them, and which of them a comparison shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from .errors import UserError
from .requests import Method

NAMES: tuple[str, ...] = get_args(Method)
COMPARED = (  # side by side, as typed: besides the methods, early exit with a colder last draw
    "full,early-exit,early-exit:finalise=argmax,early-exit:exit_temperature=0.25,markovgen,rescheduled,halton"
)
TITLES = {
    "full": "Full",
    "early-exit": "Early exit",
    "markovgen": "MarkovGen",
    "rescheduled": "Rescheduled",
    "halton": "Halton",
}
EXPLAINED = {
    "full": "every step, the reference",
    "early-exit": "stop before the end and take the best guess for the rest",
    "markovgen": "stop before the end and let the random field settle the rest",
    "rescheduled": "as few steps, but planned that way from the start",
    "halton": "as few steps, in the order and by the schedule of the Halton paper",
}


def default_methods(available: Sequence[str]) -> tuple[str, ...]:
    """Full, early exit and MarkovGen; where there is no random field, the early exit's best rival instead."""
    return ("full", "early-exit", "markovgen" if "markovgen" in available else "rescheduled")


def chosen_methods(names: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """The methods to compare, in the order of `NAMES`, each once.

    Args:
        available: those that the weights can run (`MarkovGenPipeline.methods`).

    Raises:
        UserError: a name is no method, the weights cannot run it, or there are fewer than two.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"No method is called {name[:40]!r}: choose among {', '.join(available)}.")
        if name not in available:
            raise UserError(
                f"These weights hold no random field, so {name} cannot be compared: choose among"
                f" {', '.join(available)}, or name a field's folder (--mrf)."
            )
    if len(set(names)) < 2:
        raise UserError("Choose two methods or more to compare.")
    return tuple(name for name in NAMES if name in names)
