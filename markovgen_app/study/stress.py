"""Two proofs against a real server in a process of its own, each printed as one JSON object:

    python -m markovgen_app.study.stress durability --rounds 200     killed with SIGKILL while 20 clients vote
    python -m markovgen_app.study.stress load --raters 100           how quickly votes are acknowledged

The clients do what the rater's page does: they number their answers, send an answer again until it is acknowledged, and
fetch both pictures before they answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from .bundle import Bundle
from .creation import Request, create
from .site import open_store
from .store import FILE, MIRROR
from .votes import Plan, Prompt

_METHODS = ("one", "two", "three")
_CHOICES = ("left", "tie", "right", "bad", "skip")
_PATIENCE = 60.0  # seconds until a server must answer
_LIFE = 10  # rounds after which the votes are checked once more and a new database is begun
_UNDONE = 0.05  # share of votes that are taken back
_HERE: dict[str, Any] = {"timeout": _PATIENCE, "verify": False, "trust_env": False}  # plain HTTP to this very machine


def stress_study(folder: Path, side: int, prompts: int = 60) -> Bundle:
    """A study of noise, which compresses worse than any picture; every rater is welcome."""
    plan = Plan(
        prompts=tuple(Prompt(id=f"{n:04d}", text=f"noise {n}") for n in range(prompts)),
        methods=_METHODS,
        raters_per_pair=100_000,
        target_n=1,
    )

    def make(method: str, text: str, seed: int) -> Image.Image:
        generator = np.random.default_rng((seed, _METHODS.index(method)))
        return Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))

    return create(Request(plan, {method: {} for method in _METHODS}, {}, (side, side)), folder, make)


@contextmanager
def server(folder: Path, cores: Sequence[int] | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`markovgen study serve` on a free port, in a process of its own; killed at the end if it still runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "markovgen_app", "study", "serve", str(folder), "--port", str(port)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)
    try:
        if cores is not None:
            os.sched_setaffinity(process.pid, cores)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _PATIENCE
        with httpx.Client(**_HERE) as http:
            while True:
                try:
                    http.get(f"{url}/rate")
                    break
                except httpx.TransportError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the server did not start: {' '.join(command)}") from None
                    time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()


@dataclass
class Client:
    """A rater's browser: what it was told, and what it knows to be stored.

    Attributes:
        stored: trial → choice, as acknowledged.
        pending: the answer that was sent and is not acknowledged.
    """

    random: random.Random
    token: str = ""
    trials: list[str] = field(default_factory=list)
    number: int = 0
    stored: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Any] | None = None
    acknowledged: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def join(self, http: httpx.AsyncClient) -> None:
        """Begin, or begin another session."""
        reply = await http.post("/rate/api/start", json={"consent": True}, headers=self.headers)
        told = reply.raise_for_status().json()
        self.token, self.number = told["token"], told["number"]
        self.trials = [trial["id"] for trial in told["trials"]]

    def next_answer(self) -> dict[str, Any] | None:
        """The answer to send: the one that is pending, or a new one, or None at the end of a session."""
        if self.pending is None:
            place = len(self.stored)
            if place and self.random.random() < _UNDONE:
                self.pending = {"number": self.number + 1, "action": "undo", "trial": self.trials[place - 1]}
            elif place < len(self.trials):
                choice = self.random.choice(_CHOICES)
                said = {"trial": self.trials[place], "choice": choice, "seconds": 1.5}
                self.pending = {"number": self.number + 1, "action": "vote", **said}
        return self.pending

    async def send(self, http: httpx.AsyncClient, answer: dict[str, Any]) -> None:
        """Send an answer; returns once it is acknowledged."""
        reply = await http.post("/rate/api/answers", json=answer, headers=self.headers)
        told = reply.raise_for_status().json()
        self.number = answer["number"]
        if answer["action"] == "vote":
            self.stored[answer["trial"]] = answer["choice"]
        else:
            del self.stored[answer["trial"]]
        self.pending = None
        self.acknowledged += 1
        if (told["number"], told["answered"]) != (self.number, len(self.stored)):
            raise AssertionError(f"the server stands elsewhere: {told}, not {self.number}, {len(self.stored)}")


def check(bundle: Bundle, clients: Sequence[Client]) -> dict[str, int]:
    """Compare the database with what clients know: {"lost", "twice", "unasked"}, all of them 0 where it is right."""
    store = open_store(bundle, None)
    try:
        votes = store.votes()
    finally:
        store.dispose()
    found: dict[str, dict[str, str]] = {}
    twice = 0
    for vote in votes:
        own = found.setdefault(vote.rater, {})
        twice += vote.trial in own
        own[vote.trial] = vote.choice
    lost = unasked = 0
    for client in clients:
        if not client.token:
            continue
        have = found.pop(bundle.keys.rater(client.token), {})
        pending = client.pending or {}
        for trial, choice in client.stored.items():
            taken_back = pending.get("action") == "undo" and pending["trial"] == trial  # or not yet
            lost += have.pop(trial, choice if taken_back else None) != choice
        if pending.get("action") == "vote" and have.get(pending["trial"]) == pending["choice"]:
            del have[pending["trial"]]  # stored, and only the acknowledgement was lost
        unasked += len(have)
    return {"lost": lost, "twice": twice, "unasked": unasked + sum(map(len, found.values()))}


async def _vote_until_killed(
    url: str, clients: Sequence[Client], process: subprocess.Popen[bytes], wait: float
) -> None:
    """All clients vote as fast as they can; a moment after each has voted the server is killed under them."""
    voting: set[int] = set()
    all_vote = asyncio.Event()

    async def vote(client: Client) -> None:
        async with httpx.AsyncClient(base_url=url, **_HERE) as http:
            while True:
                try:
                    if client.next_answer() is None:
                        await client.join(http)
                    elif client.pending:
                        await client.send(http, client.pending)
                        voting.add(id(client))
                        if len(voting) == len(clients):
                            all_vote.set()
                except httpx.TransportError:
                    if process.poll() is not None:
                        return
                    await asyncio.sleep(0.1)  # a busy machine: the page, too, sends again

    async def kill() -> None:
        await all_vote.wait()
        await asyncio.sleep(wait)
        process.send_signal(signal.SIGKILL)

    await asyncio.gather(kill(), *(vote(client) for client in clients))


def durability(rounds: int, clients: int = 20, seed: int = 0) -> dict[str, Any]:
    """Kill the server so many times while clients vote, and compare its database with every acknowledgement."""
    rng = random.Random(seed)
    total = {"lost": 0, "twice": 0, "unasked": 0}
    acknowledged = resent = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="study-stress-") as temporary:
        bundle = stress_study(Path(temporary) / "study", side=16)
        people: list[Client] = []
        for number in range(rounds):
            if number % _LIFE == 0:
                for path in bundle.folder.glob(f"{FILE}*"):
                    path.unlink()
                (bundle.folder / MIRROR).unlink(missing_ok=True)
                people = [Client(random.Random(rng.random())) for _ in range(clients)]
            resent += sum(client.pending is not None for client in people)
            before = sum(client.acknowledged for client in people)
            with server(bundle.folder) as (url, process):
                asyncio.run(_vote_until_killed(url, people, process, rng.uniform(0, 1)))
            acknowledged += sum(client.acknowledged for client in people) - before
            for name, count in check(bundle, people).items():
                total[name] += count
            wrong = ", ".join(f"{count} {name}" for name, count in total.items())
            print(f"\r{number + 1} of {rounds} killed, {acknowledged:,} answers, {wrong}", end="", file=sys.stderr)
            sys.stderr.flush()
    print(file=sys.stderr)
    return {
        "kills": rounds,
        "clients": clients,
        "acknowledged": acknowledged,
        "sent_again_after_a_kill": resent,
        **total,
        "seconds": round(time.monotonic() - started, 1),
        "seed": seed,
    }


async def _rate(url: str, client: Client, until: float, think: float, times: dict[str, list[float]]) -> None:
    """A person: looks at both pictures for a while, then answers."""
    async with httpx.AsyncClient(base_url=url, **_HERE) as http:
        while time.monotonic() < until:
            answer = client.next_answer()
            if answer is None:
                await client.join(http)
                continue
            if answer["action"] == "vote":
                began = time.perf_counter()
                sides = (f"/rate/pictures/{answer['trial']}/{side}" for side in ("left", "right"))
                replies = await asyncio.gather(*(http.get(side, headers=client.headers) for side in sides))
                times["pictures"].append(time.perf_counter() - began)
                assert all(reply.raise_for_status().content[:4] == b"\x89PNG" for reply in replies)
            await asyncio.sleep(client.random.uniform(0.5, 1.5) * think)
            began = time.perf_counter()
            await client.send(http, answer)
            times["answers"].append(time.perf_counter() - began)


def load(raters: int, seconds: float = 60.0, think: float = 2.0, side: int = 256, seed: int = 0) -> dict[str, Any]:
    """So many raters at once, with the server on two cores and the clients on the others."""
    cores = sorted(os.sched_getaffinity(0))
    own, others = cores[:2], cores[2:] or cores
    rng = random.Random(seed)
    times: dict[str, list[float]] = {"answers": [], "pictures": []}
    people = [Client(random.Random(rng.random())) for _ in range(raters)]
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="study-stress-") as temporary:
        bundle = stress_study(Path(temporary) / "study", side=side)
        with server(bundle.folder, own) as (url, _):
            os.sched_setaffinity(0, others)

            async def run() -> None:
                async with httpx.AsyncClient(base_url=url, **_HERE) as http:
                    for client in people:
                        await client.join(http)
                until = time.monotonic() + seconds
                await asyncio.gather(*(_rate(url, client, until, think, times) for client in people))

            asyncio.run(run())
        return {
            "raters": raters,
            "seconds": seconds,
            "think_seconds": think,
            "answers": len(times["answers"]),
            "answer_ms": _spread(times["answers"]),
            "both_pictures_ms": _spread(times["pictures"]),
            "picture_bytes": bundle.manifest.bytes,
            "server_cores": len(own),
            "client_cores": len(others),
            "cores_shared": not set(own).isdisjoint(others),
            "load_average_before": round(busy, 2),
            **check(bundle, people),
        }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and the largest, in milliseconds."""
    found = np.percentile(seconds, (50, 95, 99, 100)) * 1000
    return {name: round(float(value), 1) for name, value in zip(("median", "p95", "p99", "max"), found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m markovgen_app.study.stress", description="Prove a study's server.")
    proofs = parser.add_subparsers(dest="proof", required=True)
    killed = proofs.add_parser("durability", help="kill the server while clients vote")
    killed.add_argument("--rounds", type=int, default=200)
    killed.add_argument("--clients", type=int, default=20)
    killed.add_argument("--seed", type=int, default=0)
    loaded = proofs.add_parser("load", help="measure how quickly votes are acknowledged")
    loaded.add_argument("--raters", type=int, default=100)
    loaded.add_argument("--seconds", type=float, default=60.0)
    loaded.add_argument("--think", type=float, default=2.0, help="mean seconds that a rater looks at a pair")
    loaded.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    loaded.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    proof = durability if options.pop("proof") == "durability" else load
    print(json.dumps(proof(**options)))


if __name__ == "__main__":
    main()
