"""Who is left out, and that only the plan's rules decide it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from voting import LENIENT, plan_of, vote

from markovgen_app.study.bundle import Manifest
from markovgen_app.study.exclusions import exclusions, repeated
from markovgen_app.study.statistics import analyse
from markovgen_app.study.votes import CORRUPTED, Choice, Rules, Vote


def answers(rater: str, choices: Sequence[Choice], **others: object) -> list[Vote]:
    return [vote(rater, f"p{place}", "full", "markovgen", choice, **others) for place, choice in enumerate(choices)]


def checks(rater: str, choices: Sequence[Choice]) -> list[Vote]:
    return [vote(rater, "p0", "full", CORRUPTED, choice, kind="check", expected="left") for choice in choices]


def with_repeats(rater: str, choices: Sequence[tuple[Choice, Choice]]) -> list[Vote]:
    found = []
    for place, (first, again) in enumerate(choices):
        original = vote(rater, f"p{place}", "full", "markovgen", first)
        repeat = vote(rater, f"p{place}", "markovgen", "full", again, kind="repeat", repeat_of=original.trial)
        found += [original, repeat]
    return found


def out_by(votes: list[Vote], rules: Rules) -> dict[str, tuple[str, ...]]:
    return {exclusion.rule: exclusion.raters for exclusion in exclusions(votes, rules) if exclusion.raters}


def test_failed_checks() -> None:
    rules = LENIENT.model_copy(update={"max_failed_checks": 1})
    votes = [*checks("anna", ["right", "left"]), *checks("ben", ["right", "tie"]), *checks("cleo", ["skip", "right"])]
    assert out_by(votes + answers("anna", ["left"]) + answers("ben", ["left"]) + answers("cleo", ["left"]), rules) == {
        "max_failed_checks": ("ben",)
    }


def test_haste_counts_pairs_and_not_checks() -> None:
    rules = LENIENT.model_copy(update={"min_median_seconds": 1.0})
    slow_at_checks = [vote("ben", "p0", "full", CORRUPTED, "left", kind="check", expected="left", seconds=9.0)] * 9
    votes = answers("anna", ["left"] * 3, seconds=1.0) + answers("ben", ["left"] * 3, seconds=0.9) + slow_at_checks
    assert out_by(votes, rules) == {"min_median_seconds": ("ben",)}


def test_haste_is_what_the_page_allows() -> None:
    """Seconds count from both pictures being shown, and nobody answers before they stood for the exposure."""
    for exposure in (0.0, 1.0, 2.2):
        haste = Rules.after(exposure).min_median_seconds
        rules = LENIENT.model_copy(update={"min_median_seconds": haste})
        anna = answers("anna", ["left"] * 3, seconds=exposure + 0.6)
        assert out_by(anna + answers("ben", ["left"] * 3, seconds=exposure + 0.3), rules) == {
            "min_median_seconds": ("ben",)
        }
    assert Rules() == Rules.after(Manifest.model_fields["exposure_seconds"].default)
    (told,) = [each.reason for each in exclusions([], Rules.after(2.2)) if each.rule == "min_median_seconds"]
    assert told == "answered in under 2.7 s at the median"


def test_repeats_agree_by_method_not_by_side() -> None:
    votes = with_repeats("anna", [("left", "right"), ("tie", "bad"), ("left", "left"), ("left", "skip")])
    assert [agrees for _, agrees in repeated(votes)] == [True, True, False]


def test_contradicting_oneself_needs_enough_repeats() -> None:
    rules = LENIENT.model_copy(update={"min_repeat_agreement": 0.5, "min_repeats": 3})
    votes = with_repeats("anna", [("left", "left")] * 2) + with_repeats("ben", [("left", "left")] * 3)
    assert out_by(votes, rules) == {"min_repeat_agreement": ("ben",)}


def test_keeping_to_a_side_ignores_indifference() -> None:
    rules = LENIENT.model_copy(update={"max_side_share": 0.8, "min_sided": 5})
    votes = answers("anna", ["right"] * 4 + ["tie"] * 20) + answers("ben", ["right"] * 5 + ["tie"] * 20)
    votes += answers("cleo", ["right"] * 4 + ["left"])
    assert out_by(votes, rules) == {"max_side_share": ("ben",)}


def test_too_few_answers() -> None:
    rules = LENIENT.model_copy(update={"min_votes": 2})
    votes = answers("anna", ["left", "skip"]) + answers("ben", ["left", "tie"])
    assert out_by(votes, rules) == {"min_votes": ("anna",)}


def test_a_rater_under_two_rules_is_left_out_once_and_told_twice() -> None:
    rules = LENIENT.model_copy(update={"max_failed_checks": 0, "min_median_seconds": 2.0})
    votes = answers("anna", ["left", "right"], seconds=1.0) + checks("anna", ["right"]) + answers("ben", ["right"])
    results = analyse(votes, plan_of(rules=rules))
    assert results.raters_left_out == 1 and results.raters == 1 and results.votes == 1
    told = {exclusion.rule: (exclusion.raters, exclusion.votes) for exclusion in results.exclusions}
    assert told["max_failed_checks"] == told["min_median_seconds"] == (("anna",), 2)
    assert told["min_votes"] == ((), 0)


def test_the_documented_rules_are_the_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs/study.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert yaml.safe_load(block) == Rules().model_dump()
