"""What the weights know: unknown words, plural forms, and the file."""

from pathlib import Path

import pytest
from builders import tiny_vocabulary

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.data.vocabulary import NOUNS, plural
from markovgen_app.errors import UserError
from markovgen_app.vocabulary import FILE, Vocabulary, forms, split_words


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a panda next to a pizza on a brick wall", []),
        ("Two PANDAS, three mice and the puppy's bunnies", []),
        ("four grey foxes in the woods, 8-bit", []),
        ("a zorblax beside a quux, and the zorblax", ["zorblax", "quux"]),
        ("ein Panda neben einer Pizza", ["ein", "neben", "einer"]),
        ("T-Rex with jack-o-lantern", []),
        ("🐼 2x2 !!", []),
        ("", []),
    ],
)
def test_unknown_words(prompt: str, unknown: list[str]) -> None:
    assert tiny_vocabulary().unknown_words(prompt) == unknown


def test_captions_of_the_world_hold_hardly_an_unknown_word() -> None:
    vocabulary = tiny_vocabulary()
    scenes = SceneDataset(vocabulary="frequent")
    unknown = {word for index in range(200) for word in vocabulary.unknown_words(scenes.scene(index).caption)}
    assert unknown <= {"resting", "empty", "nothing"}


def test_the_plural_of_every_noun_is_known() -> None:
    for noun in NOUNS:
        assert set(split_words(noun.name)) <= {form for word in split_words(plural(noun.name)) for form in forms(word)}


@pytest.mark.parametrize(
    ("prompt", "known"),
    [("a panda", True), ("ein Panda", True), ("ピザの隣のパンダ", False), ("the of and", False), ("zorblax", False)],
)
def test_whether_any_word_is_known(prompt: str, known: bool) -> None:
    assert tiny_vocabulary().knows_any(prompt) is known
    assert Vocabulary().knows_any(prompt) and Vocabulary().unknown_words(prompt) == []


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    assert Vocabulary.load(tmp_path) == Vocabulary()
    tiny_vocabulary().save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded == tiny_vocabulary() and loaded.nouns["panda"] == "🐼" and "puppy" in loaded.synonyms["dog"]
    for damaged in ("{", '{"nouns": 3}', "[]"):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            Vocabulary.load(tmp_path)
