"""The commands, from prompts to exported results, with a real pipeline of tiny random models."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from builders import text_encoder, tiny_ladder, tiny_pipeline, tiny_tokenizer, tiny_transformer, tiny_vocabulary
from commands import run_command
from PIL import Image
from studies import answered, join, vote

from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.study import commands
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.site import open_store
from markovgen_app.study.store import Answer
from markovgen_app.study.votes import Rules

run = partial(run_command, "study")


@pytest.fixture(autouse=True)
def prompts(elsewhere: Path) -> None:
    Path("prompts.txt").write_text("a panda\na pizza\na robot on a beach\n")


def make(weights: str, *others: str) -> int:
    options = ("--prompts", "prompts.txt", "--methods", "full:steps=2,early-exit:steps=2:exit_step=1", "--seed", "4")
    return run("create", *options, "--model", weights, "--out", "study", *others)


def test_a_study_from_prompts_to_results(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(weights, "--title", "Two ways", "--power", "0.9", "--exposure", "2.2", "--json") == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    bundle = Bundle.open(Path("study"))
    assert told["plan_sha256"] == bundle.plan.digest() and told["prompts"] == 3
    assert told["methods"] == ["full:steps=2", "early-exit:steps=2:exit_step=1"]
    assert told["votes_planned_per_pair"] == bundle.plan.target_n > 100
    assert "6 of 6 pictures" in captured.err
    assert (bundle.plan.title, bundle.plan.power.power, bundle.plan.seed) == ("Two ways", 0.9, 4)
    assert (bundle.manifest.exposure_seconds, bundle.plan.rules.min_median_seconds) == (2.2, 2.7)
    assert bundle.manifest.made["full:steps=2"]["steps"] == "2"
    assert (bundle.manifest.width, bundle.manifest.height) == (32, 32)

    store = open_store(bundle, None, taking_votes=True)
    session = join(store, bundle)[1]
    answered(store, session)
    store.dispose()
    assert run("status", "study", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["raters"], told["finished"], told["votes"]["pair"]) == (1, 1, 3) and told["closed_at"] is None

    assert run("close", "study") == 0
    assert capsys.readouterr().out.startswith("20")
    assert run("status", "study") == 0
    assert "closed: 20" in capsys.readouterr().out
    assert run("close", "study", "--reopen") == 0
    assert capsys.readouterr().out == "open\n"

    assert run("export", "study", "--out", "all") == 0
    written = capsys.readouterr().out.split()
    assert written == [f"all/{name}" for name in (
        "votes.csv", "votes.jsonl", "votes.parquet", "results.json", "methods.txt",
        "preference.png", "preference.svg", "strength.png", "strength.svg",
    )]  # fmt: skip
    assert run("export", "study", "--out", "only/that.csv") == 0
    rows = list(csv.DictReader(Path("only/that.csv").read_text().splitlines()))
    assert len(rows) == len(session.trials) and {row["rater"] for row in rows} == {session.rater}

    for file in ("all/votes.jsonl", "all/votes.parquet", "only/that.csv", "study/answers.jsonl"):
        capsys.readouterr()
        database = f"sqlite:///{Path(file).name}.db"
        assert run("import", "study", file, "--database", database) == 0, capsys.readouterr()
        assert capsys.readouterr().out == f"{len(rows)} votes\n"
        copy = open_store(bundle, database)
        assert {(v.rater, v.trial, v.choice) for v in copy.votes()} == {
            (row["rater"], row["trial"], row["choice"]) for row in rows
        }
        copy.dispose()


def test_a_lost_database_comes_back_from_the_answers_beside_it(weights: str) -> None:
    assert make(weights) == 0
    bundle = Bundle.open(Path("study"))
    store = open_store(bundle, None, taking_votes=True)
    session = join(store, bundle)[1]
    trial = session.trials[0]
    store.record([vote(session, 0), Answer(session.rater, 2, "undo", trial.id), vote(session, 0, "tie", number=3)])
    store.record([vote(session, 1, number=4), Answer(session.rater, 5, "undo", session.trials[1].id)])
    before = store.votes()
    store.dispose()
    for file in Path("study").glob("study.db*"):
        file.unlink()
    assert run("import", "study", "study/answers.jsonl") == 0
    store = open_store(bundle, None)
    assert store.votes() == before and before[0].choice == "tie"
    store.dispose()


def test_pictures_from_elsewhere_need_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    arms_of("ours", "theirs")
    Path("consent.txt").write_text("We keep answers.\n\nThank you.\n")
    arms = ("--arm", "A=ours", "--arm", "B=theirs", "--consent", "consent.txt")
    assert run("create", "--prompts", "prompts.txt", "--methods", "", *arms, "--sample", "2", "--out", "study") == 0
    captured = capsys.readouterr()
    assert captured.out == "study\n" and "SHA-256" in captured.err and "its results stay preliminary" in captured.err
    bundle = Bundle.open(Path("study"))
    assert len(bundle.plan.prompts) == 2 and bundle.manifest.consent == "We keep answers.\n\nThank you."


def arms_of(*names: str) -> list[str]:
    """Options for methods whose pictures are there already."""
    for name in names:
        Path(name).mkdir(exist_ok=True)
        for number in (1, 2, 3):
            Image.new("RGB", (40, 40), (number, 0, ord(name[0]))).save(f"{name}/000{number}.png")
    return ["--methods", "", *(f"--arm={name}={name}" for name in names)]


def test_all_of_the_plan_can_be_said() -> None:
    Path("rules.yaml").write_text("max_failed_checks: 0\nmin_votes: 4\n")
    options = ("--pairs", "x:y,y:z:1", "--repeats", "0", "--checks", "1", "--practice", "0", "--rules", "rules.yaml")
    arms = arms_of("x", "y", "z:1")
    assert run("create", "--prompts", "prompts.txt", *arms, *options, "--exposure", "2", "--out", "study") == 0
    plan = Bundle.open(Path("study")).plan
    assert plan.pairs == (("x", "y"), ("y", "z:1"))
    assert (plan.repeat_share, plan.checks, plan.practice) == (0, 1, 0)
    assert plan.rules == Rules.after(2).model_copy(update={"max_failed_checks": 0, "min_votes": 4})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--pairs", "x:w", "'x:w' in --pairs is no pair of this study's methods (x, y): write two of them"),
        ("--pairs", "x:x", "'x:x' in --pairs is no pair"),
        ("--pairs", "x:y,y:x", "a pair of methods is there twice"),
        ("--repeats", "0.6", "--repeats"),
        ("--rules", "no.yaml", "Cannot read no.yaml"),
        ("--rules", "prompts.txt", "prompts.txt holds no rules"),
        ("--rules", "wrong.json", "Max failed checks"),
        ("--rules", "unknown.json", "There is no setting called 'max_failed_cheques'"),
    ],
)
def test_what_is_wrong_with_a_plan_is_one_line(
    option: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.json").write_text('{"max_failed_checks": -1}')
    Path("unknown.json").write_text('{"max_failed_cheques": 1}')
    assert run("create", "--prompts", "prompts.txt", *arms_of("x", "y"), option, value, "--out", "study") == 2
    told = capsys.readouterr().err
    assert says in told and len(told.strip().splitlines()) == 1
    assert not Path("study").exists()


def test_a_database_that_is_not_there_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "--prompts", "prompts.txt", *arms_of("x", "y"), "--out", "study") == 0
    assert run("status", "study") == 0, "a study that was never served has no votes"
    for command in (["status"], ["export", "--out", "all"], ["close"]):
        for database in ("mistyped.db", "sqlite:///mistyped.db"):
            capsys.readouterr()
            assert run(command[0], "study", *command[1:], "--database", database) == 2
            assert "There is no database mistyped.db: check --database" in capsys.readouterr().err
    assert not Path("mistyped.db").exists()


def test_pictures_stay_in_the_size_that_they_are_made_in() -> None:
    tiny_ladder().save_pretrained("ladder")
    for size, side in (("", 64), (":size=32", 32)):
        methods = ",".join(f"{name}:steps=2:super_resolution_steps=1{size}" for name in ("full", "halton"))
        options = ("--prompts", "prompts.txt", "--sample", "1", "--methods", methods, "--model", "ladder")
        assert run("create", *options, "--out", f"study-{side}") == 0
        manifest = Bundle.open(Path(f"study-{side}")).manifest
        assert (manifest.width, manifest.height) == (side, side)


def test_a_half_made_study_goes_on_with_its_own_weights_only(
    weights: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that writes to the same folder meanwhile would put pictures of two models under one method's name."""

    def interrupted(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    shutil.copytree(weights, "model")
    with monkeypatch.context() as patch:
        patch.setattr(commands, "_shown", interrupted)
        assert make("model") == 130
    trained = tiny_pipeline()
    next(trained.transformer.parameters()).add_(0.1)
    trained.save_pretrained("model")
    assert make("model") == 2
    assert "The pictures that study holds so far come from other weights" in capsys.readouterr().err
    shutil.rmtree("model")
    shutil.copytree(weights, "model")
    assert make("model") == 0
    assert "weights" in Bundle.open(Path("study")).manifest.made["full:steps=2"]


def test_invitations_are_links_that_work(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(weights) == 0
    capsys.readouterr()
    assert run("invite", "study", "--count", "3", "--url", "https://example.org/") == 0
    links = capsys.readouterr().out.split()
    assert len(set(links)) == 3
    keys = Bundle.open(Path("study")).keys
    for link in links:
        start, _, invitation = link.partition("#")
        assert start == "https://example.org/rate"
        keys.rater(keys.invited_token(invitation))
    assert run("invite", "study", "--first", "3") == 0
    assert capsys.readouterr().out.strip().endswith(links[2].partition("#")[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--prompts", "nothing.txt", "--out", "x"], "Cannot read nothing.txt"),
        (["create", "--out", "x"], "--prompts"),
        (["create", "--prompts", "prompts.txt", "--methods", "magic", "--out", "x"], "Method must be one of"),
        (["create", "--prompts", "prompts.txt", "--methods", "", "--out", "x"], "at least 2"),
        (["create", "--prompts", "prompts.txt", "--methods", "", "--arm", "A", "--out", "x"],
         "write --arm NAME=FOLDER"),
        (["create", "--prompts", "prompts.txt", "--methods", "", "--arm", "A=no", "--arm", "B=no", "--out", "x"],
         "There is no folder no"),
        (["create", "--prompts", "prompts.txt", "--sample", "9", "--out", "x"], "There are 3 prompts"),
        (["create", "--prompts", "prompts.txt", "--power", "2", "--out", "x"], "Power"),
        (["create", "--prompts", "prompts.txt", "--consent", "no.txt", "--methods", "", "--arm", "A=a", "--arm", "B=b",
          "--out", "x"], "Cannot read no.txt"),
        (["status", "nowhere"], "There is no study in nowhere"),
        (["serve", "nowhere"], "There is no study in nowhere"),
        (["export", "nowhere", "--out", "x"], "There is no study in nowhere"),
        (["close", "nowhere"], "There is no study in nowhere"),
        (["invite", "nowhere"], "There is no study in nowhere"),
        (["import", "nowhere", "votes.csv"], "There is no study in nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err
    assert len(captured.err.strip().splitlines()) == 1 and "Traceback" not in captured.err


def test_what_is_wrong_with_a_file_of_votes(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(weights) == 0
    for name, content in (
        ("votes.csv", "x"),
        ("answers.jsonl", '{"action": 1}\n'),
        ("votes.txt", ""),
        ("no.csv", None),
    ):
        if content is not None:
            Path(name).write_text(content)
        capsys.readouterr()
        assert run("import", "study", name) == 2
        assert name in capsys.readouterr().err
    assert run("serve", "study", "--database", "mysql://x") == 2


def test_weights_without_a_random_field_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder(), tiny_vocabulary()).save_pretrained("plain")
    capsys.readouterr()
    assert run("create", "--prompts", "prompts.txt", "--out", "x", "--model", "plain") == 2
    assert "These weights cannot run markovgen: choose other --methods" in capsys.readouterr().err
    assert not Path("x").exists(), "nothing is begun that cannot be finished"
