"""Prompt files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from markovgen_app.errors import UserError
from markovgen_app.study.prompts import read_prompts, sample
from markovgen_app.study.votes import Prompt


def read(folder: Path, name: str, content: str | bytes) -> list[Prompt]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(path)


def test_text_is_a_prompt_a_line(tmp_path: Path) -> None:
    found = read(tmp_path, "p.txt", "\ufeffa panda\r\n\r\n  a  robot, painted\n")
    assert found == [Prompt(id="0001", text="a panda"), Prompt(id="0002", text="a robot, painted")]


def test_csv_by_its_header(tmp_path: Path) -> None:
    text = 'Category,ID,Prompt\nanimals,x-1,"a panda, eating"\n,x-2,"says ""hi"""\n'
    assert read(tmp_path, "p.csv", text) == [
        Prompt(id="x-1", text="a panda, eating", category="animals"),
        Prompt(id="x-2", text='says "hi"'),
    ]


def test_parti_tsv_keeps_its_quotes(tmp_path: Path) -> None:
    text = (
        "Prompt\tCategory\tChallenge\tNote\n"
        'A robot on a wall. The words "Fly an airplane" are written on it.\tOutdoor Scenes\tComplex\t\n'
        '"Sunset\tArts\tBasic\t\n'
    )
    found = read(tmp_path, "PartiPrompts.tsv", text)
    assert [prompt.id for prompt in found] == ["0001", "0002"]
    assert found[0].text.endswith('The words "Fly an airplane" are written on it.')
    assert [prompt.category for prompt in found] == ["Outdoor Scenes", "Arts"]
    assert found[1].text == '"Sunset'


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "", "holds no prompts"),
        ("p.txt", "x" * 1001, "prompt 1 has 1,001 characters: shorten it to 1,000"),
        ("p.txt", "a\u0007panda", "holds characters that are no text"),
        ("p.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("p.csv", "a panda\n", "has no column called prompt"),
        ("p.csv", "", "has no column called prompt"),
        ("p.csv", "id,prompt\na,one\na,two\n", "the id 'a' is there twice"),
        ("p.csv", "id,prompt\n../../etc/passwd,one\n", "must be letters, digits"),
        ("p.csv", "id,prompt\n.hidden,one\n", "must be letters, digits"),
        ("p.csv", "id,prompt\na,\n", "there is no prompt in this line"),
        ("p.csv", 'id,prompt\na,"open\n', "is no table that can be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, name, content)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        read_prompts(tmp_path / "nowhere.txt")


def test_a_sample_is_seeded_and_keeps_its_order() -> None:
    prompts = [Prompt(id=f"{n:04d}", text="a") for n in range(100)]
    chosen = sample(prompts, 30, seed=1)
    assert chosen == sample(prompts, 30, seed=1) != sample(prompts, 30, seed=2)
    assert len(chosen) == 30 and chosen == sorted(chosen, key=lambda prompt: prompt.id)
    with pytest.raises(UserError, match="There are 100 prompts"):
        sample(prompts, 101, seed=0)
