"""Simulated studies: marked as such, as the world says, and what the analysis makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import run_command
from studies import a_plan, a_study

from markovgen_app.errors import UserError
from markovgen_app.study.design import assign
from markovgen_app.study.simulate import WORLDS, World, coverage, keep, plan_for_simulation, simulate, truth
from markovgen_app.study.statistics import analyse
from markovgen_app.study.store import Store


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


def test_raters_who_click_at_random_are_left_out() -> None:
    plan = plan_for_simulation(60)
    votes = simulate(plan, replace(World(), inattentive_share=1.0), 0)
    results = analyse(votes, plan, 0)
    assert results.raters_left_out >= 0.8 * len(assign(plan, b"any"))
    assert analyse(simulate(plan, replace(World(), inattentive_share=0.0), 0), plan, 0).raters_left_out <= 1


def test_the_side_bias_is_found() -> None:
    plan = plan_for_simulation(100)
    results = analyse(simulate(plan, replace(World(), side_bias=1.5), 0), plan, 0)
    assert results.left_share.low is not None and results.left_share.low > 0.6


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A smaller run of the command whose 500 studies docs/study.md reports: wide enough bounds never to fail by chance.

    A hundred studies have a standard error of 2.2 points at 95 %, less for kinds with three intervals a study.
    """
    report = coverage(100, plan_for_simulation(80), draws=0)
    kinds = report["coverage"]
    for kind in ("votes_first", "votes_second", "majority_first", "sided", "strength"):
        assert 0.87 < kinds[kind]["held"] <= 1, kind
    assert kinds["wilson_votes"]["held"] < kinds["votes_first"]["held"]
    assert kinds["votes_first"]["intervals"] == 300


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
    bundle = a_study(tmp_path / "study", plan)
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
    assert not (bundle.folder / "study.db").exists(), "the study itself is untouched"
    for wrong, says in (
        (rehearse, "a database of their own"),
        (["simulate", "--study", str(tmp_path / "none")], "There is no study"),
        (["simulate", "--study", str(bundle.folder), "--prompts", "5"], "frozen"),
        (["simulate", "--studies", "0"], "--database"),
    ):
        assert run(*wrong) == 2
        assert says in capsys.readouterr().err


def test_the_reported_intervals_cover_what_they_claim() -> None:
    """What docs/study.md says of assets/results/study-coverage.json, as it was written by its command."""
    report = json.loads((Path(__file__).parents[2] / "assets/results/study-coverage.json").read_text())
    assert "--studies 500" in report["command"] and set(report["worlds"]) == set(WORLDS)
    for world in report["worlds"].values():
        for kind, found in world["coverage"].items():
            if not kind.startswith(("wilson", "bootstrap")):
                assert 0.93 <= found["held"] <= 0.97, kind


def test_an_unknown_world_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("study", "simulate", "--worlds", "flat") == 2
    assert "default, independent, divided" in capsys.readouterr().err
