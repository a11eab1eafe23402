"""`markovgen study …`: from prompts to pictures, from a link to votes, from votes to results."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..options import DeviceOption, HostOption, JsonOption, ModelOption, MrfOption, PortOption

if TYPE_CHECKING:
    from .bundle import Bundle
    from .store import Store

study_app = typer.Typer(
    help="Ask people which pictures are better, blind and side by side.", no_args_is_help=True, rich_markup_mode=None
)

FolderArgument = Annotated[Path, typer.Argument(help="the study's folder", show_default=False)]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="file or URL of its votes [default: MARKOVGEN_DATABASE, or study.db in it]",
        show_default=False,
    ),
]


@study_app.command()
def create(
    prompts: Annotated[Path, typer.Option("--prompts", help="text (a prompt a line), CSV or TSV with a header")],
    out: Annotated[Path, typer.Option("--out", help="folder of the new study")] = Path("study"),
    methods: Annotated[
        str,
        typer.Option("--methods", help="parted by commas, with options such as early-exit:exit_step=12; '' for none"),
    ] = "full,early-exit,markovgen",
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="NAME=FOLDER: pictures made elsewhere, named by prompt id", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the pictures and of who sees what")] = 0,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="take so many prompts at random", show_default=False)
    ] = None,
    title: Annotated[str, typer.Option("--title", help="that raters see")] = "Preference study",
    question: Annotated[
        str, typer.Option("--question", help="that raters answer")
    ] = "Which image is of higher quality?",
    consent: Annotated[
        Path | None,
        typer.Option("--consent", help="text file that raters read first, instead of ours", show_default=False),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", help="a:b,c:d, methods to compare [default: every two]", show_default=False),
    ] = None,
    raters_per_pair: Annotated[int, typer.Option("--raters-per-pair", min=1, help="who judge each pair")] = 3,
    session_length: Annotated[int, typer.Option("--session-length", min=1, help="pairs a rater judges at a time")] = 30,
    repeats: Annotated[
        float, typer.Option("--repeats", min=0, max=0.5, help="share of them that comes again, sides swapped")
    ] = 0.1,
    checks: Annotated[int, typer.Option("--checks", min=0, help="attention checks a session")] = 2,
    practice: Annotated[int, typer.Option("--practice", min=0, help="examples before a rater's first session")] = 3,
    exposure: Annotated[
        float, typer.Option("--exposure", min=0, max=60, help="seconds that a pair stands before one may answer")
    ] = 1.0,
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules", help="YAML or JSON file: when a rater's votes are left out, instead of ours", show_default=False
        ),
    ] = None,
    preference: Annotated[
        float, typer.Option("--preference", help="smallest share of sided votes that the study should find")
    ] = 0.6,
    power: Annotated[
        float, typer.Option("--power", help="chance of finding it, for the planned number of votes")
    ] = 0.8,
    model: ModelOption = None,
    mrf: MrfOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make all pictures and freeze the plan. Interrupted, the same command goes on where it stopped."""
    with redirect_stdout(sys.stderr):
        from ..validation import validated
        from .creation import Request
        from .creation import create as make_study
        from .design import raters_needed
        from .making import arms_of, consent_text, maker_of, parsed_methods
        from .planning import parsed_pairs, read_rules
        from .power import planned
        from .prompts import read_prompts
        from .prompts import sample as sampled
        from .votes import Plan, Power, Rules

        found = read_prompts(prompts)
        rows = sampled(found, sample, seed) if sample else found
        arms = arms_of(arm or [])
        generated = parsed_methods(methods)
        all_methods = (*generated, *arms)
        fields: dict[str, Any] = {
            "title": title,
            "question": question,
            "prompts": tuple(rows),
            "methods": all_methods,
            "pairs": parsed_pairs(pairs, all_methods) if pairs else (),
            "raters_per_pair": raters_per_pair,
            "session_length": session_length,
            "repeat_share": repeats,
            "checks": checks,
            "practice": practice,
            "seed": seed,
            "rules": read_rules(rules, exposure) if rules else Rules.after(exposure),
            "power": validated(Power, {"preference": preference, "power": power}),
        }
        plan = planned(validated(Plan, fields))
        read_first = consent_text(consent) if consent else None
        size, make, made_with = maker_of(generated, model, mrf, device)
        request = Request(
            plan,
            generated,
            arms,
            size,
            consent=read_first,
            exposure_seconds=exposure,
            made_with=made_with,
        )
        bundle = make_study(request, out, make, _shown)
    told = {
        "study": str(out),
        "plan_sha256": plan.digest(),
        "prompts": len(plan.prompts),
        "methods": list(plan.methods),
        "pictures": sum(1 for _ in bundle.pictures()),
        "votes_planned_per_pair": plan.target_n,
        "votes_available_per_pair": len(plan.prompts) * plan.raters_per_pair,
        "raters_needed": raters_needed(plan),
    }
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=2))
        return
    print(out)
    length = min(plan.session_length, len(plan.prompts) * len(plan.pairs))
    print(
        f"Plan, to publish before the first vote: SHA-256 {plan.digest()}\n"
        f"Raters needed, a session of {length} pairs each: {told['raters_needed']:,}",
        file=sys.stderr,
    )
    if plan.target_n > len(plan.prompts) * plan.raters_per_pair:
        print(
            f"To find a preference of {preference:.0%}, {plan.target_n:,} votes a pair of methods are planned, and this"
            f" study gives {len(plan.prompts) * plan.raters_per_pair:,}: its results stay preliminary.",
            file=sys.stderr,
        )


@study_app.command()
def serve(
    folder: FolderArgument,
    host: HostOption = None,
    port: PortOption = None,
    database: DatabaseOption = None,
    invite_only: Annotated[
        bool | None, typer.Option("--invite-only", help="only people with an invitation may rate", show_default=False)
    ] = None,
    public: Annotated[
        bool | None,
        typer.Option("--public", help="show /results without the password once it is closed", show_default=False),
    ] = None,
) -> None:
    """Serve /rate and /results, without the app and its model. MARKOVGEN_ADMIN_PASSWORD opens /results."""
    from ..settings import load_settings

    settings = load_settings(
        host=host, port=port, database=database, study_invite_only=invite_only, study_public=public
    )
    from ..stopping import end_by_sigterm
    from .site import serve as serve_site

    end_by_sigterm()
    serve_site(folder, settings)


@study_app.command()
def status(folder: FolderArgument, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """How far the study is."""
    bundle, store = _opened(folder, database)
    plan, now = bundle.plan, store.status()
    told = {
        "title": plan.title,
        "plan_sha256": plan.digest(),
        "methods": list(plan.methods),
        "raters": now.raters,
        "finished": now.finished,
        "withdrawn": now.withdrawn,
        "votes": now.votes,
        "votes_planned_per_pair": plan.target_n,
        "votes_wanted": len(plan.prompts) * len(plan.pairs) * plan.raters_per_pair,
        "closed_at": now.closed_at,
        "last_answer_at": now.last_answer_at,
    }
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=2))
        return
    print(f"{plan.title}: {', '.join(plan.methods)} on {len(plan.prompts):,} prompts")
    print(
        f"votes: {now.votes.get('pair', 0):,} of {told['votes_wanted']:,}, {plan.target_n:,} planned a pair of methods"
    )
    print(f"raters: {now.raters:,}, of whom {now.finished:,} finished; {now.withdrawn:,} withdrew")
    print(f"closed: {now.closed_at}" if now.closed_at else f"open, last answer {now.last_answer_at or 'never'}")


@study_app.command("close")
def close_study(
    folder: FolderArgument,
    database: DatabaseOption = None,
    reopen: Annotated[bool, typer.Option("--reopen", help="take answers again")] = False,
) -> None:
    """Take no more answers, also where the study is being served now."""
    _, store = _opened(folder, database)
    if reopen:
        store.reopen()
    else:
        store.close()
    print(store.status().closed_at or "open")


@study_app.command()
def invite(
    folder: FolderArgument,
    count: Annotated[int, typer.Option("--count", min=1, max=100_000, help="how many")] = 1,
    first: Annotated[
        int, typer.Option("--first", min=1, help="number of the first: the same number, the same link")
    ] = 1,
    url: Annotated[str, typer.Option("--url", help="where raters find the study")] = "http://127.0.0.1:7860",
) -> None:
    """Print invitation links, one a rater. A link goes on where it stopped, on every device."""
    from .bundle import Bundle

    keys = Bundle.open(folder).keys
    for number in range(first, first + count):
        print(f"{url.rstrip('/')}/rate#{keys.invitation(number)}")


@study_app.command("export")
def export_study(
    folder: FolderArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="a file (.csv, .jsonl, .parquet, .json, .txt, .png, .svg), or a folder for everything"
        ),
    ],
    database: DatabaseOption = None,
) -> None:
    """Write the votes, the results, the methods paragraph and the figures. Exclusions are the analysis's: all votes."""
    with redirect_stdout(sys.stderr):
        from ..pictures import writable_folder, write_error
        from .files import FILES
        from .statistics import analyse

        by_ending = {".csv": "votes.csv", ".jsonl": "votes.jsonl", ".parquet": "votes.parquet", ".json": "results.json"}
        by_ending |= {".txt": "methods.txt", ".png": "preference.png", ".svg": "preference.svg"}
        bundle, store = _opened(folder, database)
        one = by_ending.get(out.suffix.lower())
        wanted = {out: FILES[one]} if one else {out / name: file for name, file in FILES.items()}
        writable_folder(out.parent if one else out)
        votes = store.votes()
        results = analyse(votes, bundle.plan)
        for path, file in wanted.items():
            try:
                path.write_bytes(file.make(votes, results))
            except OSError as error:
                raise write_error(path.parent, error) from error
    print(*wanted, sep="\n")


@study_app.command("import")
def import_votes(
    folder: FolderArgument,
    file: Annotated[
        Path, typer.Argument(help="votes as exported (.csv, .jsonl, .parquet), or answers.jsonl of a study")
    ],
    database: DatabaseOption = None,
) -> None:
    """Take over votes of this study from a file, for another analysis, or where its database was lost."""
    with redirect_stdout(sys.stderr):
        from .export import read_votes
        from .mirror import read_mirror
        from .store import MIRROR

        bundle, store = _opened(folder, database, new=True)
        votes = read_mirror(file) if file.name == MIRROR else read_votes(file)
        if not votes:
            raise UserError(f"{file} holds no votes: give another file.")
        keys = bundle.keys
        store.add_votes(votes, lambda rater: keys.withdrawal_hash(keys.withdrawal_code(rater)))
    print(f"{len(votes):,} votes")


@study_app.command("simulate")
def simulate_studies(
    studies: Annotated[int, typer.Option("--studies", min=0, help="how many; 0 only fills --database")] = 500,
    worlds: Annotated[
        str, typer.Option("--worlds", help="how raters differ, parted by commas: default, independent, divided")
    ] = "default",
    study: Annotated[
        Path | None, typer.Option("--study", help="folder of a study, to rehearse its plan", show_default=False)
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", min=2, help="of each study [default: 150]", show_default=False)
    ] = None,
    raters_per_pair: Annotated[
        int | None,
        typer.Option("--raters-per-pair", min=1, help="who judge each pair [default: 3]", show_default=False),
    ] = None,
    session_length: Annotated[
        int | None,
        typer.Option("--session-length", min=1, help="pairs a rater judges [default: 30]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="other studies")] = 0,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database", help="new file for the first study's votes, marked as simulated", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="also write the JSON object to this file", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate studies with known preferences, and count how many of the 95 % intervals hold them."""
    from .coverage import main

    main(studies, worlds, study, prompts, raters_per_pair, session_length, seed, out, database, as_json)


def _opened(folder: Path, database: str | None, *, new: bool = False) -> tuple[Bundle, Store]:
    """A study and its votes, to look at; or, with `new`, a place for votes that need not be there yet."""
    from ..settings import load_settings
    from .bundle import Bundle
    from .site import open_store
    from .tables import database_file

    bundle = Bundle.open(folder)
    settings = load_settings(database=database)
    file = database_file(settings.database) if settings.database and not settings.study_shards else None
    if file and not new and not file.exists():
        raise UserError(f"There is no database {file}: check --database, or MARKOVGEN_DATABASE.")
    return bundle, open_store(bundle, settings.database, shards=settings.study_shards)


def _shown(done: int, total: int) -> None:
    """The count on a terminal, and otherwise a line every tenth."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done and (done == total or done * 10 // total > (done - 1) * 10 // total):
        print(f"{done} of {total} pictures", file=sys.stderr, flush=True)
