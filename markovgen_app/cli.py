"""The `markovgen` command. Every command imports what it needs when it runs, so that `--help` is quick.

Results go to standard output, everything else to standard error. Exit status: 0, or 2 for bad input with one line that
says what to do, or 130 when interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from .address import check_address
from .errors import UserError
from .methods import COMPARED, NAMES, chosen_methods, default_methods
from .options import (
    DeviceOption,
    FolderOption,
    GuidanceOption,
    HostOption,
    JsonOption,
    MetadataOption,
    ModelOption,
    MrfOption,
    PortOption,
    request_of,
    run_and_save,
    taking,
    watched,
)
from .picture_commands import picture_app
from .requests import GenerateRequest
from .study.commands import study_app
from .training.commands import train_app

app = typer.Typer(
    help="Text to pictures by decoding masked image tokens.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(picture_app)
app.add_typer(train_app, name="train")
app.add_typer(study_app, name="study")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` are those of the process if not given. Ends with SystemExit."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        result = app(arguments, prog_name="markovgen", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TyperException as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130


@app.command()
@taking(GenerateRequest, "prompt")
def generate(
    given: Mapping[str, Any],
    model: ModelOption = None,
    mrf: MrfOption = None,
    device: DeviceOption = None,
    out: FolderOption = Path("out"),
    metadata: MetadataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pictures of a prompt."""
    request = request_of(GenerateRequest, given)
    run_and_save(request, out, as_json, model=model, mrf=mrf, device=device, metadata=metadata)


@app.command()
@taking(GenerateRequest, "prompt", without=("method", "count"))
def compare(
    given: Mapping[str, Any],
    out: Annotated[Path, typer.Option("--out", help="folder for the files; an earlier comparison there is replaced")],
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="two or more, parted by commas [default: full,early-exit,markovgen]",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    mrf: MrfOption = None,
    device: DeviceOption = None,
    metadata: MetadataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put methods side by side on one prompt and seed: pictures, grid, changed tokens, filmstrip, times."""
    request = request_of(GenerateRequest, given)
    names = None if methods is None else chosen_methods([name.strip() for name in methods.split(",")], NAMES)
    with redirect_stdout(sys.stderr):
        from .pictures import writable_folder
        from .settings import load_settings

        settings = load_settings(model=model, mrf=mrf, device=device, save_metadata=metadata)
        writable_folder(out)
        from .compare import compare as run
        from .runtime import load_runtime
        from .sheets import cost_text, write

        runtime = load_runtime(settings)
        comparison = watched(run(runtime, request, names or default_methods(runtime.pipeline.methods)))
        report = write(comparison, out, metadata=settings.save_metadata)
        for note in comparison.notes:
            print(note)
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for image, entry in zip(report["images"], comparison.entries.values(), strict=True):
        print(f"{image['path']}  {cost_text(entry)}")
    print(*(report[name] for name in ("grid", "token_changes", "filmstrip") if report[name]), sep="\n")


@app.command("app")
def serve(
    model: ModelOption = None,
    device: DeviceOption = None,
    host: HostOption = None,
    port: PortOption = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="a study to serve at /rate and /results", show_default=False)
    ] = None,
) -> None:
    """Serve the app."""
    from .settings import load_settings

    settings = load_settings(model=model, device=device, host=host, port=port, study=study)
    check_address(settings.host, settings.port)
    from .runtime import load_runtime

    runtime = load_runtime(settings, every_gpu=True)
    from .stopping import end_by_sigterm
    from .ui.build import build, launch

    end_by_sigterm()
    launch(build(runtime, settings), settings)


MethodsOption = Annotated[
    str, typer.Option("--methods", help="parted by commas, with options such as early-exit:exit_step=12")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="also write the JSON object to this file")]
_EDITING = {
    "inpaint": "full,early-exit,markovgen",
    "edit": "full:strength=0.25,full,full:strength=1,early-exit,markovgen",
}
OpenOption = Annotated[
    float,
    typer.Option("--open-backgrounds", min=0, max=1, help="share of prompts that leave the background open (generate)"),
]
ScorerOption = Annotated[
    Path | None,
    typer.Option("--scorer", help="folder of the scorer [default: weights/scorer]", show_default=False),
]


@app.command()
def evaluate(
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="parted by commas, with options as in early-exit:exit_step=12 [default: what suits the task]",
            show_default=False,
        ),
    ] = None,
    task: Annotated[str, typer.Option("--task", help="generate, inpaint or edit")] = "generate",
    images: Annotated[int, typer.Option("--images", help="held-out prompts")] = 500,
    seeds: Annotated[str, typer.Option("--seeds", help="seeds a prompt, parted by commas (generate)")] = "0",
    split: Annotated[str, typer.Option("--split", help="test, or tune to choose settings on")] = "test",
    open_backgrounds: OpenOption = 0.0,
    references: Annotated[
        int, typer.Option("--references", min=2, help="real pictures to measure distances to (generate)")
    ] = 2048,
    reconstructions: Annotated[
        int, typer.Option("--reconstructions", min=0, help="pictures to judge the tokenizer on, too (generate)")
    ] = 0,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="file (.png, .webp) for the first 16 pictures")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="file for 16 scenes above their reconstructions (generate)"),
    ] = None,
    side_by_side: Annotated[
        Path | None,
        typer.Option("--side-by-side", help="file for 8 prompts: enlarged, methods and real in columns (generate)"),
    ] = None,
    scorer: ScorerOption = None,
    model: ModelOption = None,
    mrf: MrfOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the quality table of methods, with intervals."""
    if task in _EDITING:
        from .evaluation.editing import main as editing_report

        editing_report(
            model,
            task,  # type: ignore[arg-type]
            methods or _EDITING[task],
            images,
            as_json,
            mrf=mrf,
            device=device,
            split=split,
            scorer_folder=scorer,
            sheet_path=sheet,
            out=out,
        )
        return
    if task != "generate":
        raise UserError(f"No task is called {task!r}: choose generate, inpaint or edit.")
    from .evaluation.report import main as report

    report(
        model,
        methods or COMPARED,
        images,
        seeds,
        as_json,
        mrf=mrf,
        device=device,
        split=split,
        open_backgrounds=open_backgrounds,
        scorer_folder=scorer,
        references=references,
        reconstructions=reconstructions,
        sheet_path=sheet,
        pairs_path=pairs,
        columns_path=side_by_side,
        out=out,
    )


@app.command()
def sweep(
    fields: Annotated[
        str, typer.Option("--fields", help="folders of random fields, parted by commas [default: the checkpoint's own]")
    ] = "",
    images: Annotated[int, typer.Option("--images", help="prompts")] = 200,
    stage: Annotated[int, typer.Option("--stage", min=0, help="0 the base, 1 the first super-resolution stage")] = 0,
    exit_steps: Annotated[
        str | None, typer.Option("--exit-steps", help="parted by commas [default: 6 to 20; above the base 2 to 6]")
    ] = None,
    iterations: Annotated[
        str, typer.Option("--iterations", help="parted by commas, the usual one first")
    ] = "3,1,2,5,8",
    temperatures: Annotated[
        str | None,
        typer.Option(
            "--temperatures", help="of the draws at the exit, parted by commas [default: the field's own, and others]"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="of the full run [default: 24; above the base 8]")
    ] = None,
    guidance_scale: GuidanceOption = None,
    grid: Annotated[bool, typer.Option("--grid", help="cross all knobs instead of turning one at a time")] = False,
    split: Annotated[str, typer.Option("--split", help="tune, or test to confirm")] = "tune",
    open_backgrounds: OpenOption = 0.0,
    references: Annotated[
        int, typer.Option("--references", min=2, help="real pictures to measure distances to")
    ] = 2048,
    plot: Annotated[Path | None, typer.Option("--plot", help="PNG or SVG file for the curves")] = None,
    scorer: ScorerOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try the random field's knobs at every exit step, all on the same half-decoded pictures."""
    from .evaluation.sweep import main as report

    report(
        model,
        fields,
        images,
        as_json,
        stage=stage,
        exit_steps=exit_steps,
        iterations=iterations,
        temperatures=temperatures,
        steps=steps,
        guidance_scale=guidance_scale,
        grid=grid,
        split=split,
        open_backgrounds=open_backgrounds,
        references=references,
        device=device,
        scorer_folder=scorer,
        plot_path=plot,
        out=out,
    )


@app.command()
def benchmark(
    methods: MethodsOption = COMPARED,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="measurements of each, medians are printed")] = 5,
    amused: Annotated[
        bool,
        typer.Option("--amused-size", help="also measure random weights of aMUSEd's size (minutes, 4 GB in $TMPDIR)"),
    ] = False,
    with_app: Annotated[bool, typer.Option("--app", help="also time how long the app takes to be ready")] = False,
    model: ModelOption = None,
    mrf: MrfOption = None,
    device: DeviceOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the latency table of parts and methods."""
    from .evaluation.benchmark import main as report

    report(model, as_json, methods=methods, rounds=rounds, mrf=mrf, amused=amused, app=with_app, device=device, out=out)
