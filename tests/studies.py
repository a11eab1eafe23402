"""Small studies for tests: pictures whose methods an eye could tell apart at once, so that leaks would show."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from markovgen_app.study.bundle import Bundle
from markovgen_app.study.creation import Request, create
from markovgen_app.study.design import next_session
from markovgen_app.study.store import Answer, Receipt, Session, Store
from markovgen_app.study.votes import Plan, Prompt

METHODS = ("decoder-alpha", "decoder-beta", "decoder-gamma")
SIZE = (48, 48)


def a_plan(prompts: int = 12, **others: Any) -> Plan:
    """A plan of so many prompts in two categories."""
    rows = tuple(
        Prompt(id=f"{n:04d}", text=f"a picture of thing {n}", category=("odd", "even")[n % 2])
        for n in range(1, prompts + 1)
    )
    return Plan(prompts=rows, **{"methods": METHODS, "session_length": 6, "target_n": 12, **others})


def draw(method: str, text: str, seed: int) -> Image.Image:
    """Noise of the prompt's seed, which the second method blurs and the third makes flat: very different PNG sizes."""
    noise = Image.frombytes("RGB", SIZE, random.Random(seed).randbytes(3 * SIZE[0] * SIZE[1]))
    if method == METHODS[1]:
        return noise.filter(ImageFilter.GaussianBlur(3))
    if method == METHODS[2]:
        return noise.resize((4, 4)).resize(SIZE, Image.Resampling.NEAREST)
    return noise


def a_request(plan: Plan | None = None, **others: Any) -> Request:
    """What `create` needs to make a study of `draw`'s pictures."""
    plan = plan or a_plan()
    return Request(plan, {method: {"method": method} for method in plan.methods}, {}, SIZE, **others)


def a_study(folder: Path, plan: Plan | None = None, **others: Any) -> Bundle:
    """A frozen study on disk."""
    return create(a_request(plan, **others), folder, draw)


def join(store: Store, bundle: Bundle, token: str | None = None) -> tuple[str, Session]:
    """A rater's token and session."""
    keys = bundle.keys
    token = token or keys.new_token()
    rater = keys.rater(token)
    build = partial(next_session, bundle.plan, keys.derive("trials"), rater)
    return token, store.join(rater, keys.withdrawal_hash(keys.withdrawal_code(rater)), build)


def vote(session: Session, place: int, choice: Any = "left", number: int | None = None) -> Answer:
    """The answer to the trial at a place."""
    return Answer(session.rater, number or place + 1, "vote", session.trials[place].id, choice, 1.5)


def answered(store: Store, session: Session, choice: Any = "left") -> None:
    """Answer the whole session."""
    for place in range(len(session.trials)):
        (receipt,) = store.record([vote(session, place, choice)])
        assert isinstance(receipt, Receipt), receipt
