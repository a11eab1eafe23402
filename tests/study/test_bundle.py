"""A study on disk: made once, resumable, frozen, blind, and closed to tricks with paths."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from studies import METHODS, SIZE, a_plan, a_request, a_study, draw

from markovgen_app.errors import UserError
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.creation import Request, create, default_consent
from markovgen_app.study.design import next_session, spoilt_pictures
from markovgen_app.study.identity import Keys
from markovgen_app.study.pictures import chunks
from markovgen_app.study.votes import CORRUPTED, Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_study(tmp_path_factory.mktemp("made") / "study").folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "study"))


def test_every_trial_has_its_two_pictures(made: Path) -> None:
    bundle = Bundle.open(made)
    bundle.verify()
    trials = next_session(bundle.plan, b"key", "rater", [])
    assert {trial.kind for trial in trials} == {"pair", "repeat", "check", "practice"}
    for trial in trials:
        left, right = bundle.files(trial)
        assert left.file != right.file
        if CORRUPTED in (trial.left, trial.right):
            whole = trial.right if trial.left == CORRUPTED else trial.left
            assert (right if trial.left == CORRUPTED else left) == bundle.manifest.pictures[trial.prompt][whole]


def test_pictures_are_the_methods_own_with_one_seed_a_prompt(tmp_path: Path) -> None:
    asked: list[tuple[str, str, int]] = []

    def watched(method: str, text: str, seed: int) -> Image.Image:
        asked.append((method, text, seed))
        return draw(method, text, seed)

    bundle = create(a_request(), tmp_path / "study", watched)
    assert len(asked) == 12 * 3
    for start in range(0, len(asked), 3):
        assert [method for method, _, _ in asked[start : start + 3]] == list(METHODS)
        assert len({(text, seed) for _, text, seed in asked[start : start + 3]}) == 1
    assert len({seed for _, _, seed in asked}) == 12
    name = bundle.manifest.pictures["0001"][METHODS[0]]
    (tmp_path / "x.png").write_bytes(bundle.picture(name))
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.convert("RGB").tobytes() == draw(*asked[0]).tobytes()


def test_files_tell_nothing(made: Path) -> None:
    files = list((made / "pictures").iterdir())
    assert len(files) == 36 + len({picture for part in spoilt_pictures(a_plan()) for picture in part})
    assert len({file.stat().st_size for file in files}) == 1
    assert len({file.stat().st_mtime for file in files}) == 1
    for file in files:
        assert {kind for kind, _ in chunks(file.read_bytes())} == {b"IHDR", b"IDAT", b"fiLl", b"IEND"}
        assert not any(method.encode() in file.read_bytes() for method in METHODS)
    assert oct((made / "secret.key").stat().st_mode & 0o777) == "0o600"


def test_raters_are_told_how_long_it_takes() -> None:
    """12 s for each of 30 pairs, 3 repeats, 2 checks and 3 examples; never more pairs than there are."""
    assert "about 8 minutes" in default_consent(a_plan(100, session_length=30))
    assert "about 2 minutes" in default_consent(a_plan(1, session_length=30))


def test_the_published_digest_is_the_file_s(made: Path) -> None:
    bundle = Bundle.open(made)
    assert hashlib.sha256((made / "plan.json").read_bytes()).hexdigest() == bundle.plan.digest()
    assert bundle.plan == a_plan()


def test_an_older_plan_keeps_its_rules_and_its_digest() -> None:
    """As it was frozen when haste was a median under 1 s, whatever the exposure."""
    frozen = (
        '{"title":"Preference study","question":"Which image is of higher quality?",'
        '"prompts":[{"id":"1","text":"a panda","category":""}],"methods":["a","b"],"pairs":[["a","b"]],'
        '"raters_per_pair":3,"session_length":30,"repeat_share":0.1,"checks":2,"practice":3,"seed":0,'
        '"rules":{"max_failed_checks":1,"min_median_seconds":1.0,"min_repeat_agreement":0.2,"min_repeats":10,'
        '"max_side_share":0.9,"min_sided":15,"min_votes":1},'
        '"power":{"preference":0.6,"ties":0.2,"alpha":0.05,"power":0.8,"prompt_correlation":0.1,'
        '"rater_correlation":0.05},"target_n":0}'
    )
    plan = Plan.model_validate_json(frozen)
    assert plan.rules.min_median_seconds == 1.0
    assert plan.digest() == hashlib.sha256(frozen.encode()).hexdigest()


def test_an_interrupted_creation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    calls = 0

    def failing(method: str, text: str, seed: int) -> Image.Image:
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        return draw(method, text, seed)

    with pytest.raises(KeyboardInterrupt):
        create(a_request(), tmp_path / "study", failing)
    with pytest.raises(UserError, match="is half made: run the command that began it once more"):
        Bundle.open(tmp_path / "study")
    with pytest.raises(UserError, match="holds a half-made study with other settings"):
        create(a_request(a_plan(seed=1)), tmp_path / "study", draw)
    with pytest.raises(UserError, match="so far come from other weights"):
        create(a_request(made_with={"weights": "other"}), tmp_path / "study", draw)
    keys = Keys(bytes.fromhex((tmp_path / "study" / "secret.key").read_text()))
    half = tmp_path / "study" / "drafts" / keys.picture_name("0002", METHODS[1])
    half.write_bytes(half.read_bytes()[:-5])  # as after a power failure
    done: list[tuple[int, int]] = []
    resumed = create(a_request(), tmp_path / "study", failing, lambda *at: done.append(at))
    assert calls == 11 + 27, "nine were whole and kept"
    assert done[0] == (0, 36) and done[-1] == (36, 36)
    assert sorted(p.name for p in resumed.folder.iterdir()) == ["pictures", "pictures.json", "plan.json", "secret.key"]
    whole = a_study(tmp_path / "whole")
    for prompt, by_method in whole.manifest.pictures.items():
        for method, picture in by_method.items():
            assert picture.sha256 == resumed.manifest.pictures[prompt][method].sha256
    with pytest.raises(UserError, match="is frozen already"):
        create(a_request(), tmp_path / "study", draw)


def test_a_folder_of_pictures_is_a_method(tmp_path: Path) -> None:
    plan = a_plan(3, methods=(METHODS[0], "elsewhere"), checks=1)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for number, ending in enumerate(("png", "jpg", "webp"), start=1):
        Image.new("RGB", (96, 96), (number, 0, 0)).save(folder / f"{number:04d}.{ending}")
    request = Request(plan, {METHODS[0]: {}}, {"elsewhere": folder}, SIZE)
    bundle = create(request, tmp_path / "study", draw)
    assert (bundle.manifest.width, bundle.manifest.height) == (96, 96), "the larger size, for all"
    for path in bundle.folder.joinpath("pictures").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (96, 96)
    assert bundle.manifest.made["elsewhere"] == {"folder": "elsewhere"}, "no path of the maker's machine"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"0001.png": SIZE, "0002.png": SIZE}, "has no picture named 0003"),
        ({"0001.png": SIZE, "0001.jpg": SIZE, "0002.png": SIZE, "0003.png": SIZE}, "has more than one picture"),
        ({"0001.png": SIZE, "0002.png": SIZE, "0003.png": (48, 30)}, "pictures of all methods must have one shape"),
        ({"0001.png": None, "0002.png": SIZE, "0003.png": SIZE}, "is no picture that can be read"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path: Path, files: dict[str, tuple[int, int] | None], says: str) -> None:
    folder = tmp_path / "arm"
    folder.mkdir()
    for name, size in files.items():
        if size:
            Image.new("RGB", size).save(folder / name)
        else:
            (folder / name).write_bytes(b"rubbish")
    plan = a_plan(3, methods=(METHODS[0], "arm"))
    with pytest.raises(UserError, match=says):
        create(Request(plan, {METHODS[0]: {}}, {"arm": folder}, SIZE), tmp_path / "study", draw)
    with pytest.raises(UserError, match="There is no folder"):
        create(Request(plan, {METHODS[0]: {}}, {"arm": tmp_path / "no"}, SIZE), tmp_path / "study", draw)


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "arm"
    folder.mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "private.png")
    for number in (1, 2, 3):
        (folder / f"{number:04d}.png").symlink_to(tmp_path / "private.png")
    plan = a_plan(3, methods=(METHODS[0], "arm"))
    with pytest.raises(UserError, match="has no picture named 0001"):
        create(Request(plan, {METHODS[0]: {}}, {"arm": folder}, SIZE), tmp_path / "study", draw)


def test_names_that_would_unblind_or_break(tmp_path: Path) -> None:
    for name in ("../up", "a/b", "", "x\n", "é"):
        plan = a_plan(3, methods=(METHODS[0], name))
        with pytest.raises(UserError, match="cannot name a method"):
            create(Request(plan, {METHODS[0]: {}, name: {}}, {}, SIZE), tmp_path / "study", draw)
    plan = a_plan(3, title=f"Is {METHODS[1]} better?")
    with pytest.raises(UserError, match=r"The title names decoder-beta, which raters would read"):
        create(a_request(plan), tmp_path / "study", draw)
    with pytest.raises(UserError, match=r"The consent names decoder-gamma, which raters would read"):
        create(a_request(a_plan(3), consent="We compare others with Decoder-Gamma."), tmp_path / "study", draw)
    assert not (tmp_path / "study").exists()
    plan = a_plan(3, methods=("A", "B"))
    create(a_request(plan, consent="A few questions, a few minutes."), tmp_path / "study", draw)


def change(path: Path, text: str, by: str) -> None:
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, by, 1))


def test_a_changed_plan_is_refused(study: Path) -> None:
    change(study / "plan.json", '"raters_per_pair":3', '"raters_per_pair":1')
    with pytest.raises(UserError, match="was changed after it was frozen"):
        Bundle.open(study)


def test_a_changed_picture_is_refused(study: Path) -> None:
    path = next((study / "pictures").iterdir())
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="was changed after it was frozen"):
        Bundle.open(study).verify()
    path.unlink()
    with pytest.raises(UserError, match="Cannot read"):
        Bundle.open(study).verify()


@pytest.mark.parametrize("name", ["../secret.key", "/etc/passwd", "..", "x/../../y.png", "A" * 32 + ".png", "%2e%2e"])
def test_names_that_lead_elsewhere_are_refused(study: Path, name: str) -> None:
    manifest = json.loads((study / "pictures.json").read_text())
    manifest["pictures"]["0001"][METHODS[0]]["file"] = name
    (study / "pictures.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"pictures\.json is damaged \(pictures\.0001\.decoder-alpha\.file"):
        Bundle.open(study)


def test_links_and_devices_are_refused(study: Path, tmp_path: Path) -> None:
    picture = next((study / "pictures").iterdir())
    outside = tmp_path / "outside.png"
    shutil.move(picture, outside)
    picture.symlink_to(outside)
    with pytest.raises(UserError, match="is a link: put the file itself there"):
        Bundle.open(study).verify()
    picture.unlink()
    os.mkfifo(picture)
    with pytest.raises(UserError, match="is no file of a study"):
        Bundle.open(study).verify()


def test_a_folder_that_is_a_link_is_refused(study: Path, tmp_path: Path) -> None:
    shutil.move(study / "pictures", tmp_path / "outside")
    (study / "pictures").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of the study"):
        Bundle.open(study).verify()


@pytest.mark.parametrize("name", ["plan.json", "pictures.json", "secret.key"])
def test_what_is_missing_or_damaged_is_one_line(study: Path, name: str) -> None:
    (study / name).write_bytes(b"\xff{")
    with pytest.raises(UserError) as caught:
        Bundle.open(study)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    (study / name).unlink()
    with pytest.raises(UserError) as caught:
        Bundle.open(study)
    assert "\n" not in str(caught.value)


def test_a_manifest_without_a_picture_is_refused(study: Path) -> None:
    manifest = json.loads((study / "pictures.json").read_text())
    del manifest["pictures"]["0002"]
    (study / "pictures.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"has no picture of 0002 by decoder-alpha"):
        Bundle.open(study)
