"""The proofs themselves, in small: `python -m markovgen_app.study.stress` runs them in full."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import answered, join

from markovgen_app.study.site import open_store
from markovgen_app.study.stress import Client, check, durability, load, server, stress_study


def test_no_acknowledged_vote_is_lost_and_none_counts_twice() -> None:
    told = durability(rounds=3, clients=20, seed=1)
    assert told["kills"] == 3 and told["acknowledged"] >= 60
    assert (told["lost"], told["twice"], told["unasked"]) == (0, 0, 0)
    assert told["sent_again_after_a_kill"] > 0, "some answers were under way when the server died"


def test_a_server_that_is_told_to_end_lets_go_of_its_database(tmp_path: Path) -> None:
    bundle = stress_study(tmp_path / "study", side=8, prompts=20)
    beside = bundle.folder / "study.db-wal"  # SQLite keeps it until the database is closed in good order
    with server(bundle.folder) as (_, process):
        assert beside.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert (bundle.folder / "study.db").exists() and not beside.exists()


@pytest.fixture
def own_cores() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


def test_raters_at_once_are_served(own_cores: None) -> None:
    told = load(raters=8, seconds=3, think=0.2, side=32)
    assert told["answers"] >= 8 and (told["lost"], told["twice"], told["unasked"]) == (0, 0, 0)
    assert set(told["answer_ms"]) == {"median", "p95", "p99", "max"}


def test_the_check_would_notice(tmp_path: Path) -> None:
    """A vote that is missing, one that is another, and one that nobody gave."""
    bundle = stress_study(tmp_path / "study", side=8, prompts=20)
    store = open_store(bundle, None)
    clients = []
    for _ in range(3):
        token, session = join(store, bundle)
        answered(store, session)
        trials = [trial.id for trial in session.trials]
        clients.append(Client(random.Random(0), token, trials, len(trials), dict.fromkeys(trials, "left")))
    store.dispose()
    assert check(bundle, clients) == {"lost": 0, "twice": 0, "unasked": 0}
    first, second, third = clients
    first.stored["f" * 20] = "left"
    second.stored[second.trials[0]] = "right"
    del third.stored[third.trials[0]]
    assert check(bundle, clients) == {"lost": 2, "twice": 0, "unasked": 1}
    third.pending = {"action": "vote", "trial": third.trials[0], "choice": "left"}
    assert check(bundle, clients)["unasked"] == 0, "an answer whose acknowledgement was lost may be stored"
