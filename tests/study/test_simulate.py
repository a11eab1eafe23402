"""Simulated studies: marked as such, as the world says, and what the analysis makes of them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import run_command
from studies import a_plan, a_study

from markovgen_app.errors import UserError
from markovgen_app.study.coverage import coverage
from markovgen_app.study.design import raters_needed
from markovgen_app.study.simulate import OUTCOMES, WORLDS, World, keep, plan_for_simulation, simulate, truth
from markovgen_app.study.statistics import analyse
from markovgen_app.study.store import Store
from markovgen_app.study.votes import Rules

NAIVE = ("wilson", "bootstrap")
"""How the kinds of intervals begin that are there for comparison."""


def test_every_vote_says_that_it_is_simulated() -> None:
    plan = plan_for_simulation(20)
    votes = simulate(plan, World(), 0)
    assert votes and all(vote.simulated and vote.rater.startswith("simulated-") for vote in votes)
    assert analyse(votes, plan, 0).simulated
    assert votes == simulate(plan, World(), 0) != simulate(plan, World(), 1)


def test_the_truth_without_differences_is_a_third_formula() -> None:
    """One rater like another and no tremble: the choice is logistic, with closed shares."""
    still = replace(WORLDS["independent"], tremble_sd=0.0, strengths=(0.0, 0.5, 1.0))
    true = truth(plan_for_simulation(2), still)
    better, width = 0.5, still.indifference
    first = 1 / (1 + np.exp(better + width))
    second = 1 / (1 + np.exp(width - better))
    assert true.raw[0] == pytest.approx([first, 1 - first - second, second], abs=2e-3)
    assert true.sided[0] == pytest.approx(first / (first + second), abs=2e-3)
    likely = first**3 + 3 * first**2 * (1 - first)
    assert true.majority[0, 0] == pytest.approx(likely, abs=2e-3)
    assert true.strengths.sum() == pytest.approx(0, abs=1e-9) and true.strengths.argsort().tolist() == [0, 1, 2]


def test_large_studies_find_the_truth() -> None:
    plan = plan_for_simulation(600, session_length=60)
    world = replace(World(), inattentive_share=0.0)
    true, results = truth(plan, world), analyse(simulate(plan, world, 0), plan, 0)
    for number, pair in enumerate(results.pairs):
        found = [share.value for share in (pair.raw.first, pair.raw.indifferent, pair.raw.second)]
        assert found == pytest.approx(true.raw[number].tolist(), abs=0.06)
    assert results.strengths[0].method == "markovgen"


@pytest.mark.parametrize("exposure", [0.0, 1.0, 3.0])
def test_raters_who_click_at_random_are_left_out(exposure: float) -> None:
    """By the rule on haste, too, although nobody answers before the page lets them."""
    plan = plan_for_simulation(60, rules=Rules.after(exposure))
    raters = {vote.rater for vote in simulate(plan, World(), 0)}
    for share, hasty in ((1.0, raters), (0.0, set())):
        votes = simulate(plan, replace(World(), inattentive_share=share), 0, exposure=exposure)
        assert min(vote.seconds for vote in votes) >= exposure
        results = analyse(votes, plan, 0)
        found = {exclusion.rule: set(exclusion.raters) for exclusion in results.exclusions}
        assert found["min_median_seconds"] == hasty
        assert results.raters_left_out - len(hasty) <= 1


def test_the_side_bias_is_found() -> None:
    plan = plan_for_simulation(100)
    results = analyse(simulate(plan, replace(World(), side_bias=1.5), 0), plan, 0)
    assert results.left_share.low is not None and results.left_share.low > 0.6


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A smaller run of the command whose 500 studies docs/study.md reports, with intervals neither too narrow nor wide.

    Of 300 intervals at 95 %, by three a study, the share that holds has a standard error of up to 2.2 points. With
    intervals as if votes were independent it is 82 to 92 % for votes, sided votes and strengths; majorities, on which
    raters weigh less, tell the two apart by their width.
    """
    kinds = coverage(100, plan_for_simulation(80), draws=100)["coverage"]
    for kind, found in kinds.items():
        if not kind.startswith(NAIVE):
            assert found["intervals"] == 300
            assert 0.92 < found["held"] < 0.995, kind

    def width(of: str) -> float:
        return float(np.mean([kinds[f"{of}_{outcome}"]["mean_width"] for outcome in OUTCOMES]))

    assert 1.2 * kinds["wilson_votes"]["mean_width"] < width("votes") < 0.9 * kinds["bootstrap_votes"]["mean_width"]
    assert 1.07 < width("majority") / kinds["wilson_majority"]["mean_width"] < 1.2
    assert kinds["wilson_votes"]["held"] < 0.9 and kinds["bootstrap_votes"]["held"] > 0.98


def test_simulated_votes_have_a_database_of_their_own(tmp_path: Path) -> None:
    plan = plan_for_simulation(10)
    votes, path = simulate(plan, World(), 0), tmp_path / "simulated" / "votes.db"
    keep(votes, plan, path)
    store = Store(path, plan, plan.digest())
    assert sorted(store.votes(), key=lambda vote: (vote.rater, vote.trial)) == sorted(
        votes, key=lambda vote: (vote.rater, vote.trial)
    )
    store.dispose()
    with pytest.raises(UserError, match="a database of their own"):
        keep(votes, plan, path)


def test_the_command_reports_its_own_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "coverage.json"
    arguments = ["study", "simulate", "--studies", "2", "--prompts", "12", "--worlds", "independent", "--out", str(out)]
    assert run_command(*arguments, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert report["simulated"] is True and "--studies 2 --worlds independent --prompts 12" in report["command"]
    assert report["worlds"]["independent"]["studies"] == 2


def test_a_study_is_rehearsed_in_a_database_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own plan, of any number of methods, and all commands read what came out."""
    plan = a_plan(8, methods=("a", "b", "c", "d"), session_length=16)
    bundle = a_study(tmp_path / "study", plan, exposure_seconds=4.0)
    database = tmp_path / "rehearsal.db"

    run = partial(run_command, "study")
    rehearse = ["simulate", "--study", str(bundle.folder), "--database", str(database)]
    assert run(*rehearse, "--studies", "1", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert f"--study {bundle.folder}" in report["command"]
    assert report["worlds"]["default"]["plan"]["methods"] == ["a", "b", "c", "d"]
    assert run("status", str(bundle.folder), "--database", str(database), "--json") == 0
    assert json.loads(capsys.readouterr().out)["votes"]["pair"] == 8 * 6 * 3
    assert run("export", str(bundle.folder), "--database", str(database), "--out", str(tmp_path / "methods.txt")) == 0
    assert (tmp_path / "methods.txt").read_text().startswith("SIMULATED")
    store = Store(database, plan, bundle.digest)
    assert min(vote.seconds for vote in store.votes()) >= 4.0, "its pairs stand so long before one may answer"
    store.dispose()
    assert not (bundle.folder / "study.db").exists(), "the study itself is untouched"
    for wrong, says in (
        (rehearse, "a database of their own"),
        (["simulate", "--study", str(tmp_path / "none")], "There is no study"),
        (["simulate", "--study", str(bundle.folder), "--prompts", "5"], "frozen"),
        (["simulate", "--studies", "0"], "--database"),
    ):
        assert run(*wrong) == 2
        assert says in capsys.readouterr().err


ROWS = {
    "votes, first method": "votes_first",
    "votes, indifferent": "votes_indifferent",
    "votes, second method": "votes_second",
    "majorities, first method": "majority_first",
    "majorities, indifferent": "majority_indifferent",
    "majorities, second method": "majority_second",
    "first method, of sided votes": "sided",
    "Bradley–Terry strength": "strength",
    "*for comparison:* plain Wilson, votes": "wilson_votes",
    "*for comparison:* plain Wilson, majorities": "wilson_majority",
    "*for comparison:* bootstrap, votes": "bootstrap_votes",
}


def test_the_documentation_reports_what_its_command_wrote() -> None:
    """docs/study.md, assets/results/study-coverage.json, and the worlds and plan that the command has now."""
    root = Path(__file__).parents[2]
    section = (root / "docs/study.md").read_text().partition("**Intervals cover what they claim.**")[2]
    report = json.loads((root / "assets/results/study-coverage.json").read_text())
    (command,) = re.findall("^(markovgen study simulate .*) --out assets/results/study-coverage.json$", section, re.M)
    assert report["command"].startswith(command)
    (studies, prompts) = map(int, re.findall(r"in (\d+) studies of (\d+) prompts", section)[0])
    plan = plan_for_simulation(prompts)
    for name, world in report["worlds"].items():
        assert world["world"] == asdict(WORLDS[name]) | {"strengths": list(WORLDS[name].strengths)}
        assert (world["studies"], world["plan"]["prompts"]) == (studies, prompts)
        assert (world["plan"]["methods"], world["plan"]["raters"]) == ([*plan.methods], raters_needed(plan))

    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", section, re.M)]
    head, _, *rows = table[: len(ROWS) + 2]
    assert head == ["interval", *report["worlds"]] and list(report["worlds"]) == list(WORLDS)
    assert [name for name, *_ in rows] == list(ROWS)
    for name, *shares in rows:
        held = [world["coverage"][ROWS[name]]["held"] for world in report["worlds"].values()]
        assert shares == [f"{share:.1%}".replace("%", " %") for share in held], name
        assert ROWS[name].startswith(NAIVE) or all(0.93 <= share <= 0.97 for share in held), "as they claim"


def test_an_unknown_world_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("study", "simulate", "--worlds", "flat") == 2
    assert "default, independent, divided" in capsys.readouterr().err
