"""Simulated studies of which the truth is known.

No vote made here comes from a person; all of them say so (`Vote.simulated`). The simulated raters differ in taste, in
their leaning to a side and in how readily they see no difference; prompts differ in how well each method does on them;
and some raters click at random, as soon as they may. What a study should find is the preference of the attentive
raters, over all the raters, prompts and sides that it could have had.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..pictures import write_error
from .design import assign
from .intervals import Array
from .majority import FIRST, INDIFFERENT, SECOND, verdicts
from .power import planned
from .ranking import bradley_terry
from .votes import CORRUPTED, EXPOSURE_SECONDS, Choice, Plan, Prompt, Trial, Vote

LEFT, TIE, RIGHT, BAD, SKIP = range(5)
CHOICES: tuple[Choice, ...] = ("left", "tie", "right", "bad", "skip")
OUTCOMES = ("first", "indifferent", "second")
_LOOK_SECONDS, _CLICK_SECONDS = 4.0, 0.25  # from when one may answer, at the median: attentive raters, and others
KEY = b"simulated"
_AT = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class World:
    """How simulated raters answer. All but the shares are in the log-odds of a logistic choice.

    Attributes:
        strengths: how good the methods are.
        prompt_sd: how far a method's quality varies from prompt to prompt.
        taste_sd: how far raters differ in what they think of a method.
        side_bias: what being on the left is worth to the average rater; raters vary by `side_sd`.
        indifference: how small a difference raters call none; it varies by a factor of about exp(`indifference_sd`).
        tremble_sd: how far a rater's view of one pair of pictures varies from one look to the next.
        bad_share: of the indifferent answers, those that say both bad.
        skip_share: of all answers.
        inattentive_share: of the raters, those who click at random, as soon as they may.
        slip_share: of the attention checks, those that attentive raters do not get right by knowing.
    """

    strengths: tuple[float, ...] = (0.0, -0.2, 0.4)
    prompt_sd: float = 0.6
    taste_sd: float = 0.4
    side_bias: float = 0.1
    side_sd: float = 0.3
    indifference: float = 0.4
    indifference_sd: float = 0.5
    tremble_sd: float = 0.7
    bad_share: float = 0.2
    skip_share: float = 0.01
    inattentive_share: float = 0.05
    slip_share: float = 0.02


WORLDS = {
    "default": World(),
    "independent": World(prompt_sd=0, taste_sd=0, side_bias=0, side_sd=0, indifference_sd=0, inattentive_share=0),
    "divided": World(prompt_sd=1.0, taste_sd=0.8, side_sd=0.6),
}
"""Beside the default: one in which raters and prompts do not differ, and one in which they differ a lot."""


@dataclass(frozen=True)
class Truth:
    """What the intervals should hold: for each pair of methods the shares (pairs, 3) of votes and of majorities, and
    the first method's share (pairs,) of sided votes; and the methods' strengths."""

    raw: Array
    majority: Array
    sided: Array
    strengths: Array


def plan_for_simulation(prompts: int = 150, categories: int = 4, **settings: Any) -> Plan:
    """A plan of three methods on prompts without pictures."""
    rows = tuple(
        Prompt(id=f"p{number:04d}", text=f"simulated prompt {number}", category=f"category {number % categories + 1}")
        for number in range(prompts)
    )
    methods = ("full", "early-exit", "markovgen")
    return planned(Plan(title="Simulated study", prompts=rows, methods=methods, **settings))


def for_methods(world: World, methods: int) -> World:
    """The world with a strength for each of so many methods: its own, over and over."""
    return replace(world, strengths=tuple(world.strengths[i % len(world.strengths)] for i in range(methods)))


def simulate(
    plan: Plan,
    world: World,
    seed: int,
    sessions: Sequence[Sequence[Trial]] | None = None,
    exposure: float = EXPOSURE_SECONDS,
) -> list[Vote]:
    """The votes of one study in which all raters of the design finish. `sessions` saves making the design again.

    As on the rater's page, no answer comes before both pictures stood for `exposure` seconds.
    """
    sessions = assign(plan, KEY) if sessions is None else sessions
    rng = np.random.default_rng(seed)
    trials = [(number, trial) for number, session in enumerate(sessions) for trial in session]
    trials = [(number, trial) for number, trial in trials if trial.kind != "practice"]
    raters = np.array([number for number, _ in trials])
    prompt_number = {prompt.id: number for number, prompt in enumerate(plan.prompts)}
    prompts = np.array([prompt_number[trial.prompt] for _, trial in trials])
    method_number = {method: number for number, method in enumerate((*plan.methods, CORRUPTED))}
    sides = np.array([[method_number[trial.left], method_number[trial.right]] for _, trial in trials])
    expected = np.array([{"left": LEFT, "right": RIGHT}.get(trial.expected or "", -1) for _, trial in trials])
    impressions = rng.logistic(size=len(trials))
    place = {(number, trial.id): row for row, (number, trial) in enumerate(trials)}
    for row, (number, trial) in enumerate(trials):
        if trial.repeat_of:
            impressions[row] = -impressions[place[number, trial.repeat_of]]

    people = _People(world, rng, len(sessions), len(plan.prompts))
    choices = people.choices(raters, prompts, np.where(expected[:, None] >= 0, 0, sides), impressions)
    knows = rng.random(len(trials)) >= world.slip_share
    choices = np.where((expected >= 0) & knows, expected, choices)
    attentive = (rng.random(len(sessions)) >= world.inattentive_share)[raters]
    choices = np.where(attentive, choices, rng.choice([LEFT, TIE, RIGHT], len(trials)))
    choices = np.where(rng.random(len(trials)) < world.skip_share, SKIP, choices)
    hesitation = rng.lognormal(np.log(np.where(attentive, _LOOK_SECONDS, _CLICK_SECONDS)), 0.5)
    seconds = (exposure + hesitation).round(3)
    category = {prompt.id: prompt.category for prompt in plan.prompts}
    return [
        Vote(
            rater=f"simulated-{number + 1:03d}",
            trial=trial.id,
            prompt=trial.prompt,
            category=category[trial.prompt],
            left=trial.left,
            right=trial.right,
            choice=CHOICES[choice],
            seconds=time,
            kind=trial.kind,
            repeat_of=trial.repeat_of,
            expected=trial.expected,
            simulated=True,
            at=_AT,
        )
        for (number, trial), choice, time in zip(trials, choices.tolist(), seconds.tolist(), strict=True)
    ]


class _People:
    """Attentive raters, and prompts, drawn once."""

    def __init__(self, world: World, rng: np.random.Generator, raters: int, prompts: int) -> None:
        methods = len(world.strengths)
        self.world, self.rng = world, rng
        self.quality = np.array(world.strengths) + rng.normal(0, world.prompt_sd, (prompts, methods))
        self.taste = rng.normal(0, world.taste_sd, (raters, methods))
        self.leaning = rng.normal(world.side_bias, world.side_sd, raters)
        self.width = world.indifference * np.exp(rng.normal(0, world.indifference_sd, raters))

    def choices(self, raters: Array, prompts: Array, sides: Array, impressions: Array) -> Array:
        """The answers (n,) to trials with the methods `sides` (n, 2) on left and right.

        `impressions` (n,), logistic, is what speaks for the left picture in this rater's eyes besides everything else.
        """
        left, right = sides.T
        better = self.quality[prompts, left] - self.quality[prompts, right]
        nicer = self.taste[raters, left] - self.taste[raters, right]
        tremble = self.rng.normal(0, self.world.tremble_sd, len(raters))
        felt = better + nicer + self.leaning[raters] + impressions + tremble
        indifferent = np.where(self.rng.random(len(felt)) < self.world.bad_share, BAD, TIE)
        return np.where(felt > self.width[raters], LEFT, np.where(felt < -self.width[raters], RIGHT, indifferent))


def truth(plan: Plan, world: World, prompts: int = 400_000, seed: int = 0) -> Truth:
    """What a study without end would find, from so many drawn prompts, each with raters of its own.

    Each prompt is judged by `raters_per_pair` raters with the sides as balanced as the design has them.
    """
    each = plan.raters_per_pair
    rng = np.random.default_rng([seed, 1])
    number = {method: place for place, method in enumerate(plan.methods)}
    places = np.repeat(np.arange(prompts), each)
    straight = (places + np.tile(np.arange(each), prompts)) % 2 == 0
    raw, majority = [], []
    for first, second in plan.pairs:
        people = _People(world, rng, prompts * each, prompts)
        pair = np.array([number[first], number[second]])
        sides = np.where(straight[:, None], pair, pair[::-1])
        choices = people.choices(np.arange(prompts * each), places, sides, rng.logistic(size=prompts * each))
        left = np.select([choices == LEFT, choices == RIGHT], [1, -1])
        outcomes = (INDIFFERENT - np.where(straight, left, -left)).reshape(prompts, each)
        counts = np.stack([(outcomes == outcome).sum(axis=1) for outcome in range(3)], axis=1)  # (prompts, 3)
        raw.append(counts.sum(axis=0) / counts.sum())
        majority.append(np.bincount(verdicts(counts), minlength=3) / prompts)
    shares = np.array(raw)
    ends = np.array([[number[first], number[second]] for first, second in plan.pairs])
    strengths = bradley_terry(ends[:, 0], ends[:, 1], shares[:, FIRST] + shares[:, INDIFFERENT] / 2)
    if strengths is None:
        raise ValueError("in this world a method always wins: its strength has no bound")
    sided = shares[:, FIRST] / (shares[:, FIRST] + shares[:, SECOND])
    return Truth(shares, np.array(majority), sided, strengths)


def keep(votes: Sequence[Vote], plan: Plan, database: Path, digest: str | None = None) -> int:
    """Put simulated votes into a new database, which takes no others; returns how many they are.

    It belongs to the study with that `digest`, or to their plan alone.

    Raises:
        UserError: there is something already.
    """
    from .store import Store

    if database.exists():
        raise UserError(f"{database} exists: simulated votes get a database of their own, give a new file.")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(database.parent, error) from error
    store = Store(database, plan, digest or plan.digest())
    try:
        store.add_votes(votes, lambda rater: secrets.token_hex(32))
    finally:
        store.dispose()
    return len(votes)
