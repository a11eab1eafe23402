"""From votes to results: what a study says, with intervals, and whose votes it leaves out.

Every figure is explained in docs/study.md. Nothing here changes a vote, and the same votes and plan give the same
results to the last digit, whatever the votes' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from scipy.special import bdtr

from ..errors import UserError
from .agreement import alpha, alpha_interval
from .exclusions import exclusions, repeated
from .intervals import Array, bootstrap_shares, clustered_shares, wilson
from .majority import FIRST, INDIFFERENT, SECOND, bootstrap_majorities, majority_intervals, verdicts
from .power import planned
from .ranking import bradley_terry, strength_intervals
from .results import Agreement, CategoryResult, PairResult, Planned, Preference, Results, Share, SignTest, Strength
from .votes import Plan, Vote


def analyse(votes: Sequence[Vote], plan: Plan, draws: int = 1000) -> Results:
    """The results of a study. `draws` is the number of bootstrap samples; 0 leaves those intervals out.

    Raises:
        UserError: a vote is on something that the plan does not have.
    """
    _check_plan(votes, plan)
    votes = sorted(votes, key=lambda vote: (vote.rater, vote.trial))
    left_out = exclusions(votes, plan.rules)
    names_out = {rater for exclusion in left_out for rater in exclusion.raters}
    kept = [vote for vote in votes if vote.rater not in names_out]
    judged = [vote for vote in kept if vote.kind == "pair" and vote.choice != "skip"]
    table = _table(judged, plan)
    rng = np.random.default_rng(plan.seed)
    target = plan.target_n or len(plan.prompts) * plan.raters_per_pair
    pairs = _holm([_pair(table.of_pair(pair), plan, pair, target, rng, draws) for pair in range(len(plan.pairs))])
    strengths, note = _strengths(table, plan)
    sided = [vote for vote in kept if vote.kind in ("pair", "repeat") and vote.choice in ("left", "right")]
    repeats = repeated(kept)
    checks = [vote for vote in kept if vote.kind == "check" and vote.choice != "skip"]
    return Results(
        title=plan.title,
        question=plan.question,
        plan_digest=plan.digest(),
        simulated=any(vote.simulated for vote in votes),
        preliminary=any(pair.preliminary for pair in pairs),
        methods=plan.methods,
        raters_per_pair=plan.raters_per_pair,
        target=target,
        planned=Planned(
            prompts=len(plan.prompts),
            session_length=plan.session_length,
            repeat_share=plan.repeat_share,
            checks=plan.checks,
            preference=plan.power.preference,
            power=plan.power.power,
            alpha=plan.power.alpha,
            by_power=plan.target_n == planned(plan).target_n,
        ),
        votes=len(judged),
        skipped=sum(vote.kind == "pair" and vote.choice == "skip" for vote in kept),
        raters=len({vote.rater for vote in judged}),
        raters_left_out=len(names_out),
        prompts=len({vote.prompt for vote in judged}),
        first_at=min((vote.at for vote in judged), default=None),
        last_at=max((vote.at for vote in judged), default=None),
        median_seconds=median(vote.seconds for vote in judged) if judged else None,
        pairs=tuple(pairs),
        categories=tuple(_categories(table, plan)),
        strengths=strengths,
        strengths_note=note,
        agreement=_agreement(table, rng, draws),
        left_share=_vote_share(sided, [vote.choice == "left" for vote in sided]),
        repeats=_vote_share([vote for vote, _ in repeats], [agrees for _, agrees in repeats]),
        checks=_vote_share(checks, [vote.choice == vote.expected for vote in checks]),
        exclusions=left_out,
    )


@dataclass(frozen=True)
class _Table:
    """The judgements as columns (votes,) of numbers; `outcomes` are FIRST, INDIFFERENT or SECOND."""

    raters: Array
    prompts: Array
    pairs: Array
    outcomes: Array
    bad: Array
    categories: Array

    def __len__(self) -> int:
        return len(self.outcomes)

    def of_pair(self, pair: int) -> _Table:
        return self.where(self.pairs == pair)

    def where(self, rows: Array) -> _Table:
        columns = (self.raters, self.prompts, self.pairs, self.outcomes, self.bad, self.categories)
        return _Table(*(column[rows] for column in columns))

    def items(self) -> tuple[Array, Array]:
        """How often each outcome was given to each item, (items, 3), and the items' prompts (items,)."""
        keys, places = np.unique(np.stack([self.prompts, self.pairs]), axis=1, return_inverse=True)
        counts = np.zeros((keys.shape[1], 3), int)
        np.add.at(counts, (places, self.outcomes), 1)
        return counts, keys[0]


def _check_plan(votes: Sequence[Vote], plan: Plan) -> None:
    prompts = {prompt.id for prompt in plan.prompts}
    for vote in votes:
        if vote.kind in ("pair", "repeat"):
            if vote.prompt not in prompts:
                raise UserError(f"A vote is on the prompt {vote.prompt!r}, which is not in the plan: check its file.")
            try:
                plan.pair_of(vote.left, vote.right)
            except KeyError:
                raise UserError(
                    f"A vote compares {vote.left} and {vote.right}, which the plan does not: check its file."
                ) from None


def _table(judged: Sequence[Vote], plan: Plan) -> _Table:
    place = {pair: number for number, pair in enumerate(plan.pairs)}
    category = {prompt.id: prompt.category for prompt in plan.prompts}
    pairs = [plan.pair_of(vote.left, vote.right) for vote in judged]
    first_left = np.array([vote.left == pair[0] for vote, pair in zip(judged, pairs, strict=True)], bool)
    left = np.array([{"left": 1, "right": -1}.get(vote.choice, 0) for vote in judged], int)
    return _Table(
        raters=_numbered([vote.rater for vote in judged]),
        prompts=_numbered([vote.prompt for vote in judged]),
        pairs=np.array([place[pair] for pair in pairs], int),
        outcomes=INDIFFERENT - np.where(first_left, left, -left),
        bad=np.array([vote.choice == "bad" for vote in judged], bool),
        categories=np.array([category[vote.prompt] for vote in judged], object),
    )


def _numbered(names: Sequence[str]) -> Array:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], int)


def _share(hits: Array, interval: tuple[float, float] | None, bootstrap: tuple[float, float] | None = None) -> Share:
    count, total = int(hits.sum()), len(hits)
    if not total:
        return Share(0, 0)
    low, high = interval or (None, None)
    return Share(count, total, count / total, low, high, wilson(count / total, total), bootstrap if interval else None)


def _vote_share(votes: Sequence[Vote], hits: Sequence[bool]) -> Share:
    """The share of hits among votes."""
    raters, prompts = _numbered([vote.rater for vote in votes]), _numbered([vote.prompt for vote in votes])
    return _single_share(np.array(hits, bool), raters, prompts)


def _single_share(hits: Array, raters: Array, prompts: Array) -> Share:
    return _share(hits, clustered_shares(hits[:, None], raters, prompts)[0] if len(hits) else None)


def _raw(table: _Table, rng: np.random.Generator | None = None, draws: int = 0) -> Preference:
    """Of all votes."""
    outcomes = np.eye(3, dtype=bool)[table.outcomes]  # (votes, 3)
    intervals: Sequence[tuple[float, float] | None] = [None] * 3
    drawn: Sequence[tuple[float, float] | None] = [None] * 3
    if len(table):
        intervals = clustered_shares(outcomes, table.raters, table.prompts)
    if len(table) and rng is not None and draws:
        drawn = bootstrap_shares(outcomes, table.raters, table.prompts, rng, draws)
    return Preference(*map(_share, outcomes.T, intervals, drawn))


def _whole_items(table: _Table, needed: int) -> tuple[_Table, Array]:
    """The votes of one pair on prompts with `needed` votes or more, and those prompts' counts (prompts, 3)."""
    names, places = np.unique(table.prompts, return_inverse=True)
    whole = np.bincount(places, minlength=len(names)) >= needed
    votes = table.where(whole[places])
    return votes, votes.items()[0]


def _majority(
    table: _Table, votes: _Table, counts: Array, needed: int, rng: np.random.Generator | None = None, draws: int = 0
) -> Preference:
    """Of the verdicts on `_whole_items`, `votes` and `counts`, of a table."""
    hits = np.eye(3, dtype=bool)[verdicts(counts)]  # (prompts, 3)
    intervals = majority_intervals(counts, votes.outcomes, votes.raters)
    drawn: Sequence[tuple[float, float] | None] = [None] * 3
    if len(votes) and rng is not None and draws:
        drawn = bootstrap_majorities(table.outcomes, table.raters, table.prompts, needed, rng, draws)
    return Preference(*map(_share, hits.T, intervals, drawn))


def _sign_test(outcomes: Array) -> SignTest:
    first, second = int((outcomes == FIRST).sum()), int((outcomes == SECOND).sum())
    p = sign_test_p(first, second)
    return SignTest(first, second, p, p)


def sign_test_p(first: int, second: int) -> float:
    """The exact two-sided p-value of so many wins each way under even chances."""
    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def _pair(table: _Table, plan: Plan, pair: int, target: int, rng: np.random.Generator, draws: int) -> PairResult:
    votes, counts = _whole_items(table, plan.raters_per_pair)
    sided = table.where(table.outcomes != INDIFFERENT)
    hits = sided.outcomes == FIRST
    value = alpha(table.items()[0]) if len(table) else np.nan
    return PairResult(
        first=plan.pairs[pair][0],
        second=plan.pairs[pair][1],
        votes=len(table),
        target=target,
        preliminary=len(table) < target,
        raters=len(np.unique(table.raters)),
        prompts=len(np.unique(table.prompts)),
        tied=int(((table.outcomes == INDIFFERENT) & ~table.bad).sum()),
        bad=int(table.bad.sum()),
        raw=_raw(table, rng, draws),
        majority=_majority(table, votes, counts, plan.raters_per_pair, rng.spawn(1)[0], draws),
        sided=_single_share(hits, sided.raters, sided.prompts),
        sign_raw=_sign_test(table.outcomes),
        sign_majority=_sign_test(verdicts(counts)),
        alpha=float(value) if np.isfinite(value) else None,
    )


def _holm(pairs: Sequence[PairResult]) -> list[PairResult]:
    """The same with the sign tests' p-values corrected for the number of pairs (Holm 1979)."""
    raw = holm_corrected([pair.sign_raw.p for pair in pairs])
    majority = holm_corrected([pair.sign_majority.p for pair in pairs])
    return [
        replace(
            pair,
            sign_raw=replace(pair.sign_raw, holm=raw[number]),
            sign_majority=replace(pair.sign_majority, holm=majority[number]),
        )
        for number, pair in enumerate(pairs)
    ]


def holm_corrected(values: Sequence[float]) -> list[float]:
    """P-values that hold for all of them together."""
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(np.array(values)[order] * factors))
    return [float(corrected[place]) for place in np.argsort(order)]


def _categories(table: _Table, plan: Plan) -> list[CategoryResult]:
    names = sorted({prompt.category for prompt in plan.prompts if prompt.category})
    found = []
    for name in names:
        for number, (first, second) in enumerate(plan.pairs):
            rows = table.where((table.categories == name) & (table.pairs == number))
            majority = _majority(rows, *_whole_items(rows, plan.raters_per_pair), plan.raters_per_pair)
            found.append(CategoryResult(name, first, second, _raw(rows), majority))
    return found


def _strengths(table: _Table, plan: Plan) -> tuple[tuple[Strength, ...], str]:
    """The methods' strengths, best first, and why there are none if there are none."""
    number = {method: place for place, method in enumerate(plan.methods)}
    ends = np.array([[number[first], number[second]] for first, second in plan.pairs])[table.pairs]
    first, second, wins = ends[:, 0], ends[:, 1], 1 - table.outcomes / 2
    if len(set(ends.flat)) < len(plan.methods):
        return (), "Some methods have no votes yet."
    values = bradley_terry(first, second, wins)
    if values is None:
        return (), "Some methods never lost, or never won, against the others: their strengths have no bound."
    intervals = strength_intervals(values, first, second, wins, table.raters, table.prompts)
    rows = [
        Strength(method, float(values[place]), *(intervals[place] if intervals else (None, None)))
        for method, place in number.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.value)), ""


def _agreement(table: _Table, rng: np.random.Generator, draws: int) -> Agreement:
    counts, prompts = table.items()
    value = float(alpha(counts)) if len(counts) else np.nan
    interval = alpha_interval(counts, prompts, rng, draws) if len(counts) else None
    low, high = interval or (None, None)
    items = int((counts.sum(axis=1) >= 2).sum())
    return Agreement(value if np.isfinite(value) else None, low, high, items)
