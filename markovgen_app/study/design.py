"""Who is shown what, on which side: a pure function of the plan and of what has been answered so far.

Raters arrive one by one and may leave at any time, so sessions are made on arrival, out of the items that have been
judged least. Where nobody leaves, the same rule gives the balanced design in full:

- every item (a prompt and a pair of methods) is judged by exactly `raters_per_pair` raters, none of them twice;
- a rater's items are spread over the pairs of methods as evenly as their number allows;
- each method of a pair is on the left half of the time, up to one trial, for every rater and also for every item.

The two side rules meet because each session takes, for a pair of methods, its sides in turn: an item that had its
first method on the left gets it on the right next, and the session takes such items alternately from both heaps.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from .votes import CORRUPTED, Kind, Plan, Side, Trial

Pair = tuple[str, str]
Item = tuple[str, Pair]
"""A prompt's id and two methods in the plan's order."""
_Row = tuple[str, str, str]
"""Prompt, method on the left, method on the right."""


def next_session(
    plan: Plan, key: bytes, rater: str, counted: Iterable[Trial], shown: Sequence[Trial] = ()
) -> list[Trial]:
    """The trials of a rater's next session, in order. Empty when nothing is left for this rater.

    `key` is the study's secret: without it nobody can tell an id's meaning. `counted` are the trials, of all raters,
    that fill a place: answered with a judgement, or waiting in a session that is still open. Leave out skipped trials,
    those of abandoned sessions and of raters who failed their checks, and their items are given to the next rater.
    `shown` are all the trials this rater was ever given, answered or not; practice comes only before the first.
    """
    coverage = _Coverage(plan)
    for trial in counted:
        if trial.kind == "pair":
            coverage.add(trial)
    return _session(plan, key, rater, coverage, shown)


def assign(plan: Plan, key: bytes, raters: Sequence[str] | None = None) -> list[list[Trial]]:
    """One session for each rater, as if they came one after the other and all finished.

    Without `raters` there are as many as it takes to judge every item `raters_per_pair` times: see `raters_needed`.
    """
    coverage = _Coverage(plan)
    sessions = []
    for rater in raters if raters is not None else [str(number + 1) for number in range(raters_needed(plan))]:
        sessions.append(_session(plan, key, rater, coverage, ()))
        for trial in sessions[-1]:
            if trial.kind == "pair":
                coverage.add(trial)
    return sessions


def raters_needed(plan: Plan) -> int:
    """How many raters, one session each, judge every item `raters_per_pair` times."""
    items = len(plan.prompts) * len(plan.pairs)
    return -(-items * plan.raters_per_pair // min(plan.session_length, items))


def spoilt_pictures(plan: Plan) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pictures, as (prompt, method), of which the study needs a corrupted version: for practice, for checks.

    Four times as many for checks as one session has, where the study has that many pictures, so that raters who come
    again or talk to each other do not know them all.
    """
    prompts = [prompt.id for prompt in plan.prompts]
    random.Random(plan.seed).shuffle(prompts)
    methods = plan.methods
    pictures = [
        (prompt, methods[(i + turn) % len(methods)]) for turn in range(len(methods)) for i, prompt in enumerate(prompts)
    ]
    practice = pictures[: plan.practice]
    others = pictures[plan.practice :] or pictures
    return practice, others[: 4 * plan.checks]


@dataclass
class _Judged:
    """How often an item was judged, and how much more often with its first method on the left than on the right."""

    times: int = 0
    lead: int = 0


class _Coverage:
    """What has been judged so far, by item; and each pair's total and lead over all items."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.places = {(prompt.id, pair): _Judged() for prompt in plan.prompts for pair in plan.pairs}
        self.totals: Counter[Pair] = Counter()
        self.leads: Counter[Pair] = Counter()

    def add(self, trial: Trial) -> None:
        pair = self.plan.pair_of(trial.left, trial.right)
        lead = 1 if trial.left == pair[0] else -1
        place = self.places[trial.prompt, pair]
        place.times += 1
        place.lead += lead
        self.totals[pair] += 1
        self.leads[pair] += lead


def _session(plan: Plan, key: bytes, rater: str, coverage: _Coverage, shown: Sequence[Trial]) -> list[Trial]:
    rng = random.Random(_keyed(key, [plan.seed, rater, len(shown)]))
    seen = {(trial.prompt, plan.pair_of(trial.left, trial.right)) for trial in shown if trial.kind == "pair"}
    chosen = _choose(plan, rng, coverage, seen)
    if not chosen:
        return []
    serial = count(len(shown))

    def trial(kind: Kind, row: _Row, repeat_of: str | None = None, expected: Side | None = None) -> Trial:
        name = _keyed(key, [rater, next(serial), kind, *row])
        return Trial(f"{name:064x}"[:20], *row, kind, repeat_of, expected)

    trials = [trial("pair", row) for row in _spread(rng, _take_sides(rng, coverage, chosen))]
    for original, position in _repeats(rng, trials, round(plan.repeat_share * len(trials))):
        row = (original.prompt, original.right, original.left)
        trials.insert(position, trial("repeat", row, repeat_of=original.id))
    practice, checks = spoilt_pictures(plan)
    known = Counter(_whole(trial) for trial in shown if trial.kind == "check")
    prompts = {prompt for prompt, _ in chosen}
    rng.shuffle(checks)
    checks.sort(key=lambda picture: (known[picture], picture[0] in prompts))
    length = len(trials)
    for number, (row, expected) in enumerate(_sides(rng, checks, plan.checks)):
        start, stop = (length * block // plan.checks + number for block in (number, number + 1))
        trials.insert(rng.randint(max(start, 1), max(stop, 1)), trial("check", row, expected=expected))
    if not shown:
        trials[:0] = [
            trial("practice", row, expected=expected) for row, expected in _sides(rng, practice, plan.practice)
        ]
    return trials


def _choose(plan: Plan, rng: random.Random, coverage: _Coverage, seen: set[Item]) -> list[Item]:
    """Up to `session_length` different items, least judged first.

    Of the items that owe a side, a pair's are taken from both heaps in turn (the larger first), so that the session can
    pay all it takes and stay balanced itself.
    """
    open_items: dict[Pair, dict[int, list[str]]] = {pair: {} for pair in plan.pairs}
    for (prompt, pair), place in coverage.places.items():
        if place.times < plan.raters_per_pair and (prompt, pair) not in seen:
            open_items[pair].setdefault(place.times, []).append(prompt)
    for heaps in open_items.values():
        for heap in heaps.values():
            rng.shuffle(heap)
    given: Counter[Pair] = Counter()
    owed: Counter[Pair] = Counter()
    uses: Counter[str] = Counter()
    chosen: list[Item] = []

    def urgency(pair: Pair) -> tuple[int, int, int]:
        return min(open_items[pair]), given[pair], coverage.totals[pair]

    while len(chosen) < plan.session_length and any(open_items.values()):
        pairs = [pair for pair in plan.pairs if open_items[pair]]
        rng.shuffle(pairs)
        pair = min(pairs, key=urgency)
        judged = min(open_items[pair])
        heap = open_items[pair][judged]
        signs = {prompt: _sign(coverage.places[prompt, pair].lead) for prompt in heap}
        unwanted = _sign(owed[pair]) or -_sign(sum(signs.values()))
        prompt = min(heap, key=lambda prompt: (bool(unwanted) and signs[prompt] == unwanted, uses[prompt]))
        heap.remove(prompt)
        if not heap:
            del open_items[pair][judged]
        given[pair] += 1
        owed[pair] += signs[prompt]
        uses[prompt] += 1
        chosen.append((prompt, pair))
    return chosen


def _take_sides(rng: random.Random, coverage: _Coverage, items: Sequence[Item]) -> list[_Row]:
    """A side for each method: what the items owe first, then what balances the session, then what balances the pair."""
    rows: list[_Row] = []
    for pair in sorted({pair for _, pair in items}):
        prompts = [prompt for prompt, other in items if other == pair]
        owed = {prompt: -_sign(coverage.places[prompt, pair].lead) for prompt in prompts}
        free = [prompt for prompt in prompts if not owed[prompt]]
        rng.shuffle(free)
        lead = sum(owed.values())
        for prompt in free:
            owed[prompt] = -_sign(lead) or -_sign(coverage.leads[pair]) or rng.choice((-1, 1))
            lead += owed[prompt]
        rows += [(prompt, *pair) if owed[prompt] > 0 else (prompt, pair[1], pair[0]) for prompt in prompts]
    return rows


def _spread(rng: random.Random, rows: Sequence[_Row]) -> list[_Row]:
    """Shuffled, with the rows of one prompt far apart."""
    rows = rng.sample(rows, len(rows))
    total = Counter(prompt for prompt, _, _ in rows)
    past: Counter[str] = Counter()
    places = []
    for prompt, _, _ in rows:
        places.append((past[prompt] + rng.random()) / total[prompt])
        past[prompt] += 1
    return [row for _, row in sorted(zip(places, rows, strict=True))]


def _repeats(rng: random.Random, trials: Sequence[Trial], number: int) -> list[tuple[Trial, int]]:
    """Trials of the first half and the places of their repeats, half a session later or more, last place first."""
    half = len(trials) // 2
    originals = rng.sample(range(len(trials) - half), number)
    places = [(rng.randint(original + half, len(trials) - 1) + 1, original) for original in originals]
    return [(trials[original], place) for place, original in sorted(places, reverse=True)]


def _sides(rng: random.Random, pictures: Sequence[tuple[str, str]], length: int) -> Iterator[tuple[_Row, Side]]:
    """`length` pictures against their corrupted versions, the good one on either side in turn."""
    side = rng.randrange(2)
    for number in range(length):
        prompt, method = pictures[number % len(pictures)]
        if (number + side) % 2:
            yield (prompt, method, CORRUPTED), "left"
        else:
            yield (prompt, CORRUPTED, method), "right"


def _whole(trial: Trial) -> tuple[str, str]:
    """The picture of a check that is not corrupted, as (prompt, method)."""
    return trial.prompt, trial.right if trial.left == CORRUPTED else trial.left


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _keyed(key: bytes, value: object) -> int:
    """HMAC-SHA256 of a value: nobody without the key can compute or undo it."""
    return int.from_bytes(hmac.digest(key, json.dumps(value).encode(), hashlib.sha256), "big")
