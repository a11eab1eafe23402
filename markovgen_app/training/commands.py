"""`markovgen train …`: the models, the checkpoint they make, and what training on another machine takes along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError

train_app = typer.Typer(help="Train the models.", no_args_is_help=True, rich_markup_mode=None)

ConfigOption = Annotated[Path, typer.Option("--config", help="configuration file, see configs/")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint of the run")]
DataOption = Annotated[
    str | None, typer.Option("--data", help="pictures with captions, in place of rendered scenes: a folder or a hub id")
]


@train_app.command("tokenizer")
def train_tokenizer(config: ConfigOption, resume: ResumeOption = False, data: DataOption = None) -> None:
    """Train the image tokenizer."""
    from .tokenizer import train

    train(config, resume, data=data)


@train_app.command("base")
def train_base(config: ConfigOption, resume: ResumeOption = False, data: DataOption = None) -> None:
    """Train the base transformer."""
    from .base import train

    train(config, resume, data=data)


@train_app.command("super-resolution")
def train_super_resolution(config: ConfigOption, resume: ResumeOption = False, data: DataOption = None) -> None:
    """Train the super-resolution transformer."""
    from .super_resolution import train

    train(config, resume, data=data)


@train_app.command("scorer")
def train_scorer(config: ConfigOption, resume: ResumeOption = False) -> None:
    """Train the scorer, which recognises what is in a picture."""
    from .scorer import train

    train(config, resume)


@train_app.command("mrf")
def train_mrf(
    config: ConfigOption,
    resume: ResumeOption = False,
    model: Annotated[str | None, typer.Option("--model", help="checkpoint, in place of the file's")] = None,
    data: DataOption = None,
) -> None:
    """Train the random field on a checkpoint's half-decoded pictures."""
    from .mrf import train

    train(config, resume, model=model, data=data)


@train_app.command("export")
def export_weights(
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="folder of trained tokenizer weights")],
    base: Annotated[Path, typer.Option("--base", help="folder of trained base transformer weights")],
    mrf: Annotated[Path | None, typer.Option("--mrf", help="folder of a trained random field")] = None,
    super_resolution: Annotated[
        list[Path] | None,
        typer.Option("--super-resolution", help="folder of a super-resolution transformer; again for a stage above it"),
    ] = None,
    super_resolution_mrf: Annotated[
        list[Path] | None,
        typer.Option("--super-resolution-mrf", help="folder of the random field of that stage; again, in that order"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="the checkpoint's folder")] = Path("weights"),
    vocabulary: Annotated[
        str, typer.Option("--vocabulary", help="that they were trained on: full, frequent, or none (own pictures)")
    ] = "full",
) -> None:
    """Put trained parts together into one checkpoint that every command and the app can load."""
    from .export import export

    export(
        tokenizer,
        base,
        out,
        vocabulary,
        mrf=mrf,
        super_resolution=super_resolution or (),
        super_resolution_mrf=super_resolution_mrf or (),
    )
    print(out)


@train_app.command("text-encoder")
def trim_text_encoder(out: Annotated[Path, typer.Option("--out", help="folder to write")]) -> None:
    """Cut the text encoder down to the captions' words (22 MB), for training on machines without the package."""
    from .text import trim

    print(f"{out}: {trim(out)} word pieces")


@train_app.command("sprites")
def save_sprites(out: Annotated[Path, typer.Option("--out", help="PNG file to write")]) -> None:
    """Draw every sprite into one picture, for training on machines without the emoji font."""
    from ..data.sprites import save_sheet

    save_sheet(out)
    print(out)


@train_app.command("preview-data")
def preview_data(
    out: Annotated[Path, typer.Option("--out", help="PNG file to write")] = Path("out/scenes.png"),
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="scenes")] = 48,
    seed: Annotated[int, typer.Option("--seed", min=0, help="another seed, other scenes")] = 0,
    split: Annotated[str, typer.Option("--split", help="train, tune or test")] = "train",
    vocabulary: Annotated[str, typer.Option("--vocabulary", help="full or frequent")] = "full",
    open_backgrounds: Annotated[
        float, typer.Option("--open-backgrounds", min=0, max=1, help="share of captions without a background")
    ] = 0.0,
) -> None:
    """Draw a contact sheet of training scenes with their captions."""
    from ..data.scenes import SceneDataset, contact_sheet
    from ..pictures import write_error

    try:
        scenes = SceneDataset(seed, 128, split, vocabulary, None, open_backgrounds)  # type: ignore[arg-type]
        contact_sheet(out, scenes, count)
    except OSError as error:
        raise write_error(out.parent, error) from error
    except ValueError as error:
        raise UserError(str(error)) from error
    print(out)
