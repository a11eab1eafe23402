"""Whose votes are left out, by the plan's rules. Applied at analysis: the votes themselves stay in the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from .results import Exclusion
from .votes import Rules, Vote


def outcome(vote: Vote) -> str:
    """What a vote says about the methods: the preferred one's name, or nothing if it is indifferent."""
    return {"left": vote.left, "right": vote.right}.get(vote.choice, "")


def exclusions(votes: Sequence[Vote], rules: Rules) -> tuple[Exclusion, ...]:
    """The raters that each rule leaves out; a rater may be under several. Rules that leave out nobody are there too."""
    by_rater: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote)
    tests = {
        "max_failed_checks": (f"failed more than {counted(rules.max_failed_checks, 'attention check')}", _fails_checks),
        "min_median_seconds": (f"answered in under {rules.min_median_seconds:g} s at the median", _hurries),
        "min_repeat_agreement": (
            f"repeated under {rules.min_repeat_agreement:.0%} of {rules.min_repeats:,} or more own answers",
            _contradicts_self,
        ),
        "max_side_share": (
            f"chose one side in more than {rules.max_side_share:.0%} of {rules.min_sided:,} or more sided answers",
            _keeps_a_side,
        ),
        "min_votes": (f"answered fewer than {counted(rules.min_votes, 'pair')}", _answers_too_few),
    }
    found = []
    for rule, (reason, test) in tests.items():
        raters = tuple(sorted(rater for rater, own in by_rater.items() if test(own, rules)))
        lost = sum(_judges(vote) for rater in raters for vote in by_rater[rater])
        found.append(Exclusion(rule, reason, raters, lost))
    return tuple(found)


def counted(number: int, noun: str) -> str:
    """ "1 pair", "2 pairs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def repeated(votes: Sequence[Vote]) -> list[tuple[Vote, bool]]:
    """The answered repeats, and whether each says the same as its original. Skips on either side do not count."""
    originals = {(vote.rater, vote.trial): vote for vote in votes if vote.kind == "pair" and vote.choice != "skip"}
    found = []
    for vote in votes:
        original = originals.get((vote.rater, vote.repeat_of or ""))
        if vote.kind == "repeat" and vote.choice != "skip" and original is not None:
            found.append((vote, outcome(vote) == outcome(original)))
    return found


def _judges(vote: Vote) -> bool:
    return vote.kind == "pair" and vote.choice != "skip"


def _fails_checks(votes: Sequence[Vote], rules: Rules) -> bool:
    checks = [vote for vote in votes if vote.kind == "check" and vote.choice != "skip"]
    return sum(vote.choice != vote.expected for vote in checks) > rules.max_failed_checks


def _hurries(votes: Sequence[Vote], rules: Rules) -> bool:
    seconds = [vote.seconds for vote in votes if vote.kind in ("pair", "repeat")]
    return bool(seconds) and median(seconds) < rules.min_median_seconds


def _contradicts_self(votes: Sequence[Vote], rules: Rules) -> bool:
    same = [agrees for _, agrees in repeated(votes)]
    return len(same) >= rules.min_repeats and sum(same) < rules.min_repeat_agreement * len(same)


def _keeps_a_side(votes: Sequence[Vote], rules: Rules) -> bool:
    sided = [vote.choice for vote in votes if vote.kind in ("pair", "repeat") and vote.choice in ("left", "right")]
    most = max(sided.count("left"), sided.count("right"))
    return len(sided) >= rules.min_sided and most > rules.max_side_share * len(sided)


def _answers_too_few(votes: Sequence[Vote], rules: Rules) -> bool:
    return sum(_judges(vote) for vote in votes) < rules.min_votes
