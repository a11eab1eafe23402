"""Short ways to write votes down, for tests."""

from __future__ import annotations

from itertools import count
from typing import Any

from markovgen_app.study.votes import Choice, Plan, Prompt, Rules, Vote

METHODS = ("full", "early-exit", "markovgen")
LENIENT = Rules(max_failed_checks=1000, min_median_seconds=0, min_repeat_agreement=0, max_side_share=1)
_numbers = count()


def plan_of(prompts: int = 10, methods: tuple[str, ...] = METHODS, rules: Rules = LENIENT, **others: Any) -> Plan:
    """A plan on prompts p0, p1, … of the categories "even" and "odd", that leaves out nobody."""
    rows = tuple(
        Prompt(id=f"p{number}", text=f"prompt {number}", category=("even", "odd")[number % 2])
        for number in range(prompts)
    )
    return Plan(prompts=rows, methods=methods, rules=rules, **others)


def vote(rater: str, prompt: str, left: str, right: str, choice: Choice, **others: Any) -> Vote:
    """An answer to a trial of its own."""
    fields: dict[str, Any] = {
        "trial": f"t{next(_numbers)}",
        "category": "",
        "seconds": 4.0,
        "kind": "pair",
        "repeat_of": None,
        "expected": None,
        "simulated": False,
        "at": "2026-01-01T00:00:00+00:00",
    }
    return Vote(rater=rater, prompt=prompt, left=left, right=right, choice=choice, **(fields | others))
