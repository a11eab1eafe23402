"""A study made from its plan: every picture drawn or taken over, then all of it frozen before the first vote.

What comes of it, and how that is read again, is in `bundle`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError
from ..pictures import writable_folder, write_error
from ..requests import MAX_SEED
from .bundle import DRAFT, DRAFTS, MANIFEST, PICTURES, PLAN, SECRET, Bundle, Manifest, PictureFile, read_keys
from .design import spoilt_pictures
from .identity import KEY_BYTES, Keys
from .pictures import PNG_END, Size, common_size, corrupted, encoded, filled, filled_size, fitted, read_picture
from .votes import CORRUPTED, EXPOSURE_SECONDS, Plan, Prompt

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:=+-]{0,63}")

_CONSENT = """
You will see pairs of pictures that computers made from a short text, and say which of the two is better. There are no
right answers. It takes about {minutes} minutes, and you may stop at any time.

We keep your answers, when you gave them and how long you looked. We keep no name, no address, nothing about your
device. Your answers are stored under a random number, are analysed together with those of others, and may be published
in that form.

Taking part is voluntary. At the end, or whenever you stop, you get a withdrawal code: with it, all of your answers can
be deleted, now or later, without giving a reason.
""".strip()

_TRIAL_SECONDS = 12  # instructions and hesitation included


def default_consent(plan: Plan) -> str:
    """What raters read first, with how long a session takes."""
    pairs = min(plan.session_length, len(plan.prompts) * len(plan.pairs))
    trials = pairs * (1 + plan.repeat_share) + plan.checks + plan.practice
    minutes = max(2, round(trials * _TRIAL_SECONDS / 60))
    return _CONSENT.format(minutes=minutes)


Make = Callable[[str, str, int], Image.Image]
"""A picture by a method's name, a prompt's text and a seed."""
Progress = Callable[[int, int], None]
"""Is told how many pictures are done, of how many."""


@dataclass(frozen=True)
class Request:
    """What to make a study of.

    Attributes:
        plan: complete but for nothing; its methods are those of `generated` and `arms`.
        generated: method → the settings that the pipeline makes its pictures with, recorded in pictures.json.
        arms: method → folder of pictures named by prompt id, made elsewhere.
        size: of the pictures that are generated; None if there are none.
        consent: what raters read first, instead of `default_consent`.
        exposure_seconds: how long both pictures stand before one may answer.
        made_with: the weights of the generated pictures; a study that is half made goes on with the same ones only.
    """

    plan: Plan
    generated: Mapping[str, Mapping[str, Any]]
    arms: Mapping[str, Path]
    size: Size | None
    consent: str | None = None
    exposure_seconds: float = EXPOSURE_SECONDS
    made_with: Mapping[str, Any] = field(default_factory=dict)


def picture_seed(seed: int, index: int) -> int:
    """The seed of prompt `index`: its own, and the same for every method."""
    return (seed * 1_000_003 + index) % (MAX_SEED + 1)


def create(request: Request, folder: Path, make: Make, progress: Progress = lambda done, total: None) -> Bundle:
    """Make all pictures, then freeze the study. Interrupted, the same call goes on where it stopped.

    Args:
        make: draws a picture by one of the `generated` methods.

    Raises:
        UserError: a picture is missing or of another shape, another study is there or one begun with other weights, or
            the folder cannot be written.
    """
    plan = request.plan
    _check_methods(request)
    found = {name: _arm_files(path, name, plan.prompts) for name, path in request.arms.items()}
    sizes = {_size(path) for files in found.values() for path in files.values()}
    size = common_size(sizes | ({request.size} if request.size else set()))
    writable_folder(folder)
    try:
        keys = _begin(request, folder, size)
        spoilt = {picture for part in spoilt_pictures(plan) for picture in part}
        total = len(plan.prompts) * len(plan.methods)
        progress(0, total)
        for index, prompt in enumerate(plan.prompts):
            for turn, method in enumerate(plan.methods):
                path = _draft(folder, keys.picture_name(prompt.id, method))
                if not _is_whole(path):
                    if method in found:
                        picture = read_picture(found[method][prompt.id])
                    else:
                        picture = make(method, prompt.text, picture_seed(plan.seed, index))
                    drawn = encoded(fitted(picture, size, f"The picture of {prompt.id} by {method}"))
                    _write(path, drawn, sync=False)
                if (prompt.id, method) in spoilt:
                    _spoil(path, _draft(folder, keys.picture_name(prompt.id, _spoilt_name(method))))
                progress(index * len(plan.methods) + turn + 1, total)
        _freeze(request, folder, keys, size, spoilt)
    except OSError as error:
        raise write_error(folder, error) from error
    return Bundle.open(folder)


def _check_methods(request: Request) -> None:
    plan, made = request.plan, {*request.generated, *request.arms}
    if set(plan.methods) != made or len(made) != len(request.generated) + len(request.arms):
        raise UserError("Every method of the plan needs its pictures from one place: name each method once.")
    for name in plan.methods:
        if not _METHOD.fullmatch(name):
            raise UserError(f"{name!r} cannot name a method: use letters, digits, dots and dashes, 64 at most.")
        read = {"title": plan.title, "question": plan.question}
        if len(name) > 1:  # "A" is also a word, and no text for raters does without it
            read["consent"] = request.consent or ""
        for place, text in read.items():
            if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE):
                raise UserError(f"The {place} names {name}, which raters would read: leave the methods out of it.")


def _arm_files(folder: Path, method: str, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Prompt id → picture file. Links are not followed, so that no file from elsewhere gets into a study."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give one with the pictures of {method}, named by prompt id.")
    files = {}
    for prompt in prompts:
        paths = [folder / (prompt.id + ending) for ending in _ENDINGS]
        paths = [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(paths) != 1:
            problem = "no picture" if not paths else "more than one picture"
            raise UserError(
                f"{folder} has {problem} named {prompt.id} (.png, .jpg or .webp): give one a prompt for {method}."
            )
        files[prompt.id] = paths[0]
    return files


def _size(path: Path) -> Size:
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 lie on their side
            return (picture.height, picture.width) if turned else picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no picture that can be read: replace it ({error}).") from None


def _begin(request: Request, folder: Path, size: Size) -> Keys:
    """The key of a study that is begun here, or was: with the same settings and not frozen yet."""
    if (folder / PLAN).exists():
        raise UserError(f"{folder} holds a study that is frozen already: choose another folder.")
    draft = {
        "plan": request.plan.digest(),
        "generated": {name: dict(settings) for name, settings in request.generated.items()},
        "arms": {name: str(path.resolve()) for name, path in request.arms.items()},
        "size": list(size),
        "made_with": dict(request.made_with),
    }
    text = json.dumps(draft, sort_keys=True).encode()
    if (folder / DRAFT).exists():
        begun = (folder / DRAFT).read_bytes()
        if begun != text and {**json.loads(begun), "made_with": draft["made_with"]} == json.loads(text):
            raise UserError(
                f"The pictures that {folder} holds so far come from other weights, or from another precision: go on"
                " with those, or choose another folder."
            )
        if begun != text:
            raise UserError(f"{folder} holds a half-made study with other settings: choose another folder.")
        return read_keys(folder)
    (folder / DRAFTS).mkdir(exist_ok=True)
    _write(folder / SECRET, secrets.token_hex(KEY_BYTES).encode(), mode=0o600)
    _write(folder / DRAFT, text)
    return read_keys(folder)


def _draft(folder: Path, name: str) -> Path:
    return folder / DRAFTS / name


def _spoilt_name(method: str) -> str:
    return f"{CORRUPTED}\0{method}"


def _spoil(path: Path, spoilt: Path) -> None:
    if not _is_whole(spoilt):
        with Image.open(path) as picture:
            _write(spoilt, encoded(corrupted(picture, path.name)), sync=False)


def _is_whole(path: Path) -> bool:
    """Whether a draft is there to its last byte: drafts are not synced, and the power may have gone."""
    return path.exists() and path.read_bytes()[-len(PNG_END) :] == PNG_END


def _freeze(request: Request, folder: Path, keys: Keys, size: Size, spoilt: set[tuple[str, str]]) -> None:
    """Fill all files up to one number of bytes, then write the manifest and the plan, the plan last."""
    plan = request.plan
    names = {(p.id, method): keys.picture_name(p.id, method) for p in plan.prompts for method in plan.methods}
    spoilt_names = {(prompt, method): keys.picture_name(prompt, _spoilt_name(method)) for prompt, method in spoilt}
    everything = [*names.values(), *spoilt_names.values()]
    bytes_each = filled_size({_draft(folder, name).stat().st_size for name in everything})
    (folder / PICTURES).mkdir(exist_ok=True)
    digests = {}
    for name in sorted(everything):
        content = filled(_draft(folder, name).read_bytes(), bytes_each)
        digests[name] = hashlib.sha256(content).hexdigest()
        _write(folder / PICTURES / name, content)
        os.utime(folder / PICTURES / name, (0, 0))  # a time would tell the order in which they were made

    def table(of: Mapping[tuple[str, str], str]) -> dict[str, dict[str, PictureFile]]:
        found: dict[str, dict[str, PictureFile]] = {}
        for (prompt, method), name in sorted(of.items()):
            found.setdefault(prompt, {})[method] = PictureFile(file=name, sha256=digests[name])
        return found

    manifest = Manifest(
        plan=plan.digest(),
        width=size[0],
        height=size[1],
        bytes=bytes_each,
        pictures=table(names),
        spoilt=table(spoilt_names),
        made={
            **{name: {**settings, **request.made_with} for name, settings in request.generated.items()},
            **{name: {"folder": path.name} for name, path in request.arms.items()},
        },
        consent=request.consent or default_consent(plan),
        exposure_seconds=request.exposure_seconds,
    )
    _write(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    _write(folder / PLAN, plan.model_dump_json().encode())
    shutil.rmtree(folder / DRAFTS)
    (folder / DRAFT).unlink()


def _write(path: Path, content: bytes, mode: int = 0o644, *, sync: bool = True) -> None:
    """Write a file whole, or not at all; durably with `sync`."""
    temporary = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    os.replace(temporary, path)
