"""What a preference study is made of: the frozen plan, the trials that raters answer, and their votes.

The plan, the store, the rater's page and the statistics share these definitions and nothing else. A *pair* is two
methods in the plan's order; an *item* is a prompt and a pair; a *trial* shows one item to one rater with a fixed side
for each method.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Choice = Literal["left", "tie", "right", "bad", "skip"]
Kind = Literal["pair", "repeat", "check", "practice"]
Side = Literal["left", "right"]

CORRUPTED = "corrupted"
"""Stands for a method in checks and practice: the other side's picture, spoilt so that nobody should prefer it."""

EXPOSURE_SECONDS = 1.0
"""How long both pictures stand before one may answer, unless the study says otherwise. Part of a vote's `seconds`."""
HASTE_SECONDS = 0.5
"""Who answers sooner than this after one may, at the median, has hardly compared the pictures."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One question to one rater: two pictures of a prompt, made by the methods `left` and `right`.

    `id` is opaque: it tells nothing without the study's key. `repeat_of` is the id of the trial, of the same session,
    that a repeat shows again with its sides swapped. `expected` is the right answer to a check or practice trial.
    """

    id: str
    prompt: str
    left: str
    right: str
    kind: Kind = "pair"
    repeat_of: str | None = None
    expected: Side | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer, with its trial resolved: `left` and `right` are method names, which raters never see.

    `prompt` is the prompt's id, `seconds` the time from both pictures being shown to the answer, `at` the moment of the
    answer in UTC (ISO 8601). `simulated` marks answers that no person gave.
    """

    rater: str
    trial: str
    prompt: str
    category: str
    left: str
    right: str
    choice: Choice
    seconds: float
    kind: Kind
    repeat_of: str | None
    expected: Side | None
    simulated: bool
    at: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rules(_Frozen):
    """When a rater's votes are left out of the analysis. Frozen with the plan, applied only at analysis."""

    max_failed_checks: int = Field(default=1, ge=0, description="a rater who fails more attention checks is left out")
    min_median_seconds: float = Field(
        default=EXPOSURE_SECONDS + HASTE_SECONDS, ge=0, description="a rater whose median answer is quicker is left out"
    )
    min_repeat_agreement: float = Field(
        default=0.2, ge=0, le=1, description="a rater who repeats fewer of their own answers is left out"
    )
    min_repeats: int = Field(default=10, ge=1, description="repeats before their agreement is judged")
    max_side_share: float = Field(
        default=0.9,
        gt=0.5,
        le=1,
        description="a rater who chooses one side in more of the left-or-right answers is left out",
    )
    min_sided: int = Field(default=15, ge=1, description="left-or-right answers before their sides are judged")
    min_votes: int = Field(default=1, ge=1, description="a rater with fewer answered pairs is left out")

    @classmethod
    def after(cls, exposure: float) -> Rules:
        """The rules where both pictures stand for so many seconds before one may answer."""
        return cls(min_median_seconds=round(exposure + HASTE_SECONDS, 3))


class Power(_Frozen):
    """What the number of votes was planned for: see `power.target_votes`."""

    preference: float = Field(default=0.6, gt=0.5, lt=1, description="share of the sided votes for the better method")
    ties: float = Field(default=0.2, ge=0, lt=1, description="expected share of votes that take no side")
    alpha: float = Field(default=0.05, gt=0, lt=1, description="two-sided level of the test")
    power: float = Field(default=0.8, gt=0, lt=1, description="chance of finding that preference")
    prompt_correlation: float = Field(default=0.1, ge=0, lt=1, description="between two votes on one item")
    rater_correlation: float = Field(default=0.05, ge=0, lt=1, description="between two votes of one rater on one pair")


class Prompt(_Frozen):
    """What the pictures of an item show. The id names it in votes and exports."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    category: str = ""


class Plan(_Frozen):
    """Everything that is settled before the first vote.

    `target_n` is the number of votes on each pair of methods, after exclusions, below which results are preliminary;
    0 if none was planned. `session_length` counts the items of one session; repeats, checks and practice come on top.
    """

    title: str = "Preference study"
    question: str = "Which image is of higher quality?"
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(min_length=2)
    pairs: tuple[tuple[str, str], ...] = Field(
        default=(), description="pairs of methods to compare; all of them if empty"
    )
    raters_per_pair: int = Field(default=3, ge=1)
    session_length: int = Field(default=30, ge=1)
    repeat_share: float = Field(default=0.1, ge=0, le=0.5, description="repeats, as a share of the session's items")
    checks: int = Field(default=2, ge=0, description="attention checks a session")
    practice: int = Field(default=3, ge=0, description="practice trials before a rater's first session")
    seed: int = Field(default=0, ge=0)
    rules: Rules = Rules()
    power: Power = Power()
    target_n: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _all_pairs(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("pairs"):
            return {**values, "pairs": tuple(combinations(values.get("methods", ()), 2))}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if len({prompt.id for prompt in self.prompts}) < len(self.prompts):
            raise ValueError("two prompts have the same id")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("two methods have the same name")
        if CORRUPTED in self.methods:
            raise ValueError(f"{CORRUPTED!r} is the name of the attention checks' pictures, give the method another")
        if len({frozenset(pair) for pair in self.pairs}) < len(self.pairs):
            raise ValueError("a pair of methods is there twice")
        for pair in self.pairs:
            if pair[0] == pair[1] or not set(pair) <= set(self.methods):
                raise ValueError(f"{pair[0]} against {pair[1]} is no pair of the study's methods")
        return self

    def pair_of(self, left: str, right: str) -> tuple[str, str]:
        """The pair, in the plan's order, of two methods. KeyError if the plan does not compare them."""
        for pair in self.pairs:
            if pair in ((left, right), (right, left)):
                return pair
        raise KeyError((left, right))

    def digest(self) -> str:
        """SHA-256 of the plan, to publish before the first vote."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
