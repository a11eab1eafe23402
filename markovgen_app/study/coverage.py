"""Do the 95 % intervals hold the truth in 95 of 100 studies? Simulated ones tell (see `simulate`).

markovgen study simulate --studies 500
markovgen study simulate --study FOLDER --database rehearsal.db     a real study's plan, and votes to look at
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..pictures import write_error
from .design import assign
from .results import Results
from .simulate import KEY, OUTCOMES, WORLDS, Truth, World, for_methods, keep, plan_for_simulation, simulate, truth
from .statistics import analyse
from .votes import EXPOSURE_SECONDS, Plan


def coverage(
    studies: int = 500,
    plan: Plan | None = None,
    world: World | None = None,
    *,
    seed: int = 0,
    draws: int = 200,
    exposure: float = EXPOSURE_SECONDS,
    done: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """How often the 95 % intervals of that many simulated studies hold the truth, by kind of estimate.

    The kinds that begin with wilson and bootstrap are there for comparison, the others are the intervals to report.
    `done` is told the number of studies so far.
    """
    plan = plan or plan_for_simulation()
    world = world or World()
    sessions = assign(plan, KEY)
    true = truth(plan, world)
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    left_out = 0
    for study in range(studies):
        results = analyse(simulate(plan, world, seed + study, sessions, exposure), plan, draws)
        left_out += results.raters_left_out
        for kind, interval, value in _intervals(results, true, plan.methods):
            held.setdefault(kind, []).append(interval[0] <= value <= interval[1])
            widths.setdefault(kind, []).append(interval[1] - interval[0])
        if done:
            done(study + 1)
    return {
        "studies": studies,
        "seed": seed,
        "bootstrap_draws": draws,
        "plan": {
            "prompts": len(plan.prompts),
            "methods": list(plan.methods),
            "raters": len(sessions),
            "raters_per_pair": plan.raters_per_pair,
            "session_length": plan.session_length,
        },
        "world": asdict(world),
        "truth": {name: values.round(4).tolist() for name, values in vars(true).items()},
        "raters_left_out_per_study": round(left_out / studies, 3),
        "coverage": {
            kind: {
                "held": round(float(np.mean(held[kind])), 4),
                "intervals": len(held[kind]),
                "mean_width": round(float(np.mean(widths[kind])), 4),
            }
            for kind in held
        },
    }


def _intervals(
    results: Results, true: Truth, methods: Sequence[str]
) -> Iterator[tuple[str, tuple[float, float], float]]:
    """Every estimate's kind, interval and truth."""
    for number, pair in enumerate(results.pairs):
        for kind, preference, values in (
            ("votes", pair.raw, true.raw[number]),
            ("majority", pair.majority, true.majority[number]),
        ):
            for name, value in zip(OUTCOMES, values, strict=True):
                share = getattr(preference, name)
                yield f"{kind}_{name}", (share.low, share.high), value
                yield f"wilson_{kind}", share.wilson, value
                if share.bootstrap:
                    yield f"bootstrap_{kind}", share.bootstrap, value
        yield "sided", (pair.sided.low or 0.0, pair.sided.high or 1.0), true.sided[number]
    for row in results.strengths:
        if row.low is not None and row.high is not None:
            yield "strength", (row.low, row.high), true.strengths[methods.index(row.method)]


def main(
    studies: int = 500,
    worlds: str = "default",
    study: Path | None = None,
    prompts: int | None = None,
    raters_per_pair: int | None = None,
    session_length: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    database: Path | None = None,
    as_json: bool = False,
) -> None:
    """Measure coverage, print it, and write it to `out`; keep the first study's votes in a new `database` of their own.

    The plan is that of `study`, or one of so many prompts, raters and pairs (150, 3 and 30 if not given).

    Raises:
        UserError: there is no such world or study, or a file cannot be written, or the database is there already.
    """
    names = [name.strip() for name in worlds.split(",")]
    if unknown := [name for name in names if name not in WORLDS]:
        raise UserError(f"There is no world {unknown[0]!r}: use {', '.join(WORLDS)}.")
    if not studies and not database:
        raise UserError("With --studies 0 only votes are made: say where to keep them (--database).")
    plan, digest, exposure, settings = _plan(study, prompts, raters_per_pair, session_length, seed)
    chosen = {name: for_methods(WORLDS[name], len(plan.methods)) for name in names}
    if database:
        count = keep(simulate(plan, chosen[names[0]], seed, exposure=exposure), plan, database, digest)
        print(f"{database}: {count:,} simulated votes", file=sys.stderr)
    if not studies:
        return
    report: dict[str, Any] = {
        "command": f"markovgen study simulate --studies {studies} --worlds {','.join(names)} {settings} --seed {seed}",
        "simulated": True,
        "worlds": {
            name: coverage(studies, plan, world, seed=seed, exposure=exposure, done=_progress(name, studies))
            for name, world in chosen.items()
        },
    }
    if out:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=1) + "\n")
        except OSError as error:
            raise write_error(out.parent, error) from error
    print(json.dumps(report, indent=2) if as_json else _table(report["worlds"]))


def _plan(
    study: Path | None, prompts: int | None, raters_per_pair: int | None, session_length: int | None, seed: int
) -> tuple[Plan, str, float, str]:
    """The plan to simulate, what identifies it, the seconds before one may answer, and the settings that ask for it."""
    if study:
        if prompts or raters_per_pair or session_length:
            raise UserError("A study's plan is frozen: give --study, or --prompts and the like, not both.")
        from .bundle import Bundle

        bundle = Bundle.open(study)
        return bundle.plan, bundle.digest, bundle.manifest.exposure_seconds, f"--study {study}"
    prompts, each, length = prompts or 150, raters_per_pair or 3, session_length or 30
    plan = plan_for_simulation(prompts, raters_per_pair=each, session_length=length, seed=seed)
    settings = f"--prompts {prompts} --raters-per-pair {each} --session-length {length}"
    return plan, plan.digest(), EXPOSURE_SECONDS, settings


def _table(worlds: dict[str, dict[str, Any]]) -> str:
    """How many intervals hold the truth, a column for each world: those to report first, then the naive ones."""
    studies = {report["studies"] for report in worlds.values()}
    kinds = list(next(iter(worlds.values()))["coverage"])
    naive = [kind for kind in kinds if kind.startswith(("wilson", "bootstrap"))]
    lines = [f"SIMULATED: share of 95% intervals that hold the truth, in {studies.pop():,} studies"]
    for title, group in (
        ("intervals to report", [kind for kind in kinds if kind not in naive]),
        ("for comparison", naive),
    ):
        lines.append(f"{title:23}" + "".join(f"{name:>13}" for name in worlds))
        for kind in group:
            held = (report["coverage"].get(kind, {}).get("held") for report in worlds.values())
            lines.append(f"  {kind:21}" + "".join(f"{'–' if share is None else f'{share:.1%}':>13}" for share in held))
    return "\n".join(lines)


def _progress(world: str, studies: int) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == studies else ""
            print(f"\r{world}: {done} of {studies} studies", end=end, file=sys.stderr, flush=True)

    return tell
