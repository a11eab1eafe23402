"""Results of small studies worked out by hand, and what must hold for every study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from voting import METHODS, plan_of, vote

from markovgen_app.errors import UserError
from markovgen_app.study.results import PairResult, Share
from markovgen_app.study.statistics import analyse, holm_corrected, sign_test_p
from markovgen_app.study.votes import CORRUPTED, Choice, Vote

CHOICES: tuple[Choice, ...] = ("left", "tie", "right", "bad", "skip")


def study(seed: int, length: int) -> list[Vote]:
    """Votes of up to six raters on up to ten prompts."""
    random = Random(seed)
    found = {}
    for number in range(length):
        rater, prompt = f"r{random.randrange(6)}", f"p{random.randrange(10)}"
        left, right = random.sample(METHODS, 2)
        key = (rater, prompt, frozenset((left, right)))
        found[key] = vote(rater, prompt, left, right, random.choice(CHOICES), trial=f"t{number}")
    return list(found.values())


studies = st.builds(study, st.integers(0, 2**32), st.integers(0, 80))


def of_items(choices: Sequence[Sequence[Choice]]) -> list[Vote]:
    """Items of full against markovgen, each judged by raters a, b, c, …, who see full on the left."""
    return [
        vote("abcdefgh"[rater], f"p{item}", "full", "markovgen", choice)
        for item, row in enumerate(choices)
        for rater, choice in enumerate(row)
    ]


def pair_of(votes: list[Vote], draws: int = 0) -> PairResult:
    return analyse(votes, plan_of(methods=("full", "markovgen")), draws).pairs[0]


def test_shares_by_hand() -> None:
    pair = pair_of(of_items([["left", "left", "tie"], ["right", "bad", "tie"], ["right", "right", "left"]]))
    assert [share.count for share in (pair.raw.first, pair.raw.indifferent, pair.raw.second)] == [3, 3, 3]
    assert [share.count for share in (pair.majority.first, pair.majority.indifferent, pair.majority.second)] == [
        1,
        1,
        1,
    ]
    assert (pair.tied, pair.bad, pair.votes, pair.raters, pair.prompts) == (2, 1, 9, 3, 3)
    assert (pair.sided.count, pair.sided.total) == (3, 6)


def test_sides_are_resolved_to_methods() -> None:
    votes = [vote("a", "p0", "markovgen", "full", "left"), vote("b", "p0", "full", "markovgen", "right")]
    assert pair_of(votes).raw.second.value == 1


def test_items_without_all_their_votes_have_no_majority_yet() -> None:
    pair = pair_of(of_items([["left", "left"], ["left", "skip", "left"], ["left", "left", "left"]]))
    assert pair.majority.first.total == 1
    assert pair.votes == 7


def test_sign_tests_are_scipys_and_corrected_by_holm() -> None:
    rows: list[list[Choice]] = [["left", "left", "right"]] * 8 + [["right", "right", "tie"]] + [["tie"] * 3]
    pair = pair_of(of_items(rows))
    assert (pair.sign_majority.first, pair.sign_majority.second) == (8, 1)
    assert pair.sign_majority.p == pytest.approx(binomtest(8, 9).pvalue)
    assert (pair.sign_raw.first, pair.sign_raw.second) == (16, 10)
    assert pair.sign_raw.p == pytest.approx(binomtest(16, 26).pvalue)
    assert pair.sign_raw.holm == pair.sign_raw.p
    three = analyse(of_items(rows), plan_of()).pairs
    assert [row.sign_majority.p for row in three] == [1, pytest.approx(binomtest(8, 9).pvalue), 1]
    assert three[1].sign_majority.holm == pytest.approx(3 * binomtest(8, 9).pvalue)


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_sign_test_is_binomtest(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1
    assert sign_test_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_holm_steps_down() -> None:
    assert holm_corrected([0.03, 0.01, 0.02, 0.5]) == pytest.approx([0.06, 0.04, 0.06, 0.5])


def test_a_side_bias_shows_and_does_not_favour_a_method() -> None:
    votes = []
    for item in range(10):
        for rater in range(4):
            sides = ("full", "markovgen") if (item + rater) % 2 else ("markovgen", "full")
            votes.append(vote(f"r{rater}", f"p{item}", *sides, "left"))
    results = analyse(votes, plan_of(methods=("full", "markovgen")))
    assert results.left_share.value == 1
    assert results.pairs[0].sided.value == 0.5


def test_repeats_and_checks_are_counted_apart() -> None:
    original = vote("a", "p0", "full", "markovgen", "left")
    repeat = vote("a", "p0", "markovgen", "full", "right", kind="repeat", repeat_of=original.trial)
    check = vote("a", "p1", CORRUPTED, "full", "right", kind="check", expected="right")
    practice = vote("a", "p2", CORRUPTED, "full", "left", kind="practice", expected="right")
    results = analyse([original, repeat, check, practice], plan_of())
    assert results.votes == 1 and results.pairs[1].raw.first.count == 1
    assert (results.repeats.count, results.repeats.total) == (1, 1)
    assert (results.checks.count, results.checks.total) == (1, 1)


def test_categories_add_up() -> None:
    votes = of_items([["left", "left", "tie"]] * 4 + [["right", "right", "right"]] * 5)
    results = analyse(votes, plan_of(methods=("full", "markovgen")))
    assert [row.category for row in results.categories] == ["even", "odd"]
    for name in ("first", "indifferent", "second"):
        parts = [getattr(row.raw, name).count for row in results.categories]
        assert sum(parts) == getattr(results.pairs[0].raw, name).count


def test_preliminary_until_the_planned_number() -> None:
    votes = of_items([["left", "right", "tie"]] * 10)
    plan = plan_of(methods=("full", "markovgen"))
    assert not analyse(votes, plan).preliminary
    assert analyse(votes[1:], plan).preliminary
    assert analyse(votes, plan.model_copy(update={"target_n": 31})).preliminary
    assert not analyse(votes[1:], plan.model_copy(update={"target_n": 29})).preliminary


def test_strengths_say_why_there_are_none() -> None:
    assert "no votes" in analyse([], plan_of()).strengths_note
    one_sided = analyse(of_items([["left"] * 3] * 3), plan_of(methods=("full", "markovgen")))
    assert "no bound" in one_sided.strengths_note and not one_sided.strengths


def test_a_vote_from_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match="not in the plan"):
        analyse([vote("a", "p99", "full", "markovgen", "left")], plan_of())
    with pytest.raises(UserError, match="compares full and other"):
        analyse([vote("a", "p0", "full", "other", "left")], plan_of())


@given(studies)
def test_every_study_gives_whole_results(votes: list[Vote]) -> None:
    results = analyse(votes, plan_of(), draws=20)
    json.dumps(results.as_json(), allow_nan=False)
    for pair in results.pairs:
        for preference in (pair.raw, pair.majority):
            shares = (preference.first, preference.indifferent, preference.second)
            assert sum(share.count for share in shares) == shares[0].total
            for share in (*shares, pair.sided):
                _within(share)
    assert results.votes == sum(pair.votes for pair in results.pairs) == sum(v.choice != "skip" for v in votes)
    if results.strengths:
        assert sum(row.value for row in results.strengths) == pytest.approx(0, abs=1e-9)


def _within(share: Share) -> None:
    if share.value is None:
        assert share.total == 0 and share.low is share.high is share.wilson is None
        return
    for low, high in filter(None, (share.wilson, (share.low, share.high) if share.low is not None else None)):
        assert high is not None and 0 <= low <= share.value + 1e-12 and share.value - 1e-12 <= high <= 1


@given(studies, st.integers(0, 2**32))
def test_the_order_of_votes_does_not_matter(votes: list[Vote], seed: int) -> None:
    shuffled = Random(seed).sample(votes, len(votes))
    assert analyse(shuffled, plan_of(), 20) == analyse(votes, plan_of(), 20)


@given(studies)
def test_swapping_all_sides_changes_nothing_but_the_side_bias(votes: list[Vote]) -> None:
    mirrored = {"left": "right", "right": "left"}
    swapped = [
        replace(v, left=v.right, right=v.left, choice=mirrored.get(v.choice, v.choice))  # type: ignore[arg-type]
        for v in votes
    ]
    ours, theirs = analyse(votes, plan_of(), 0), analyse(swapped, plan_of(), 0)
    assert ours.pairs == theirs.pairs and ours.strengths == theirs.strengths
    assert ours.left_share.count == theirs.left_share.total - theirs.left_share.count


@given(studies)
def test_naming_the_methods_the_other_way_round_mirrors_the_results(votes: list[Vote]) -> None:
    ours = analyse(votes, plan_of(), 0).pairs
    theirs = analyse(votes, plan_of(methods=METHODS[::-1]), 0).pairs
    for pair, mirrored in zip(ours, theirs[::-1], strict=True):
        assert (pair.first, pair.second) == (mirrored.second, mirrored.first)
        assert pair.raw.first.count == mirrored.raw.second.count
        assert pair.raw.first.low == pytest.approx(mirrored.raw.second.low)
        assert pair.sign_majority.holm == pytest.approx(mirrored.sign_majority.holm)
