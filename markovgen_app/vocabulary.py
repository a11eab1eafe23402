"""What a checkpoint's weights know: the words of the world they were trained on, stored in vocabulary.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError

FILE = "vocabulary.json"

_WORD = re.compile(r"[^\W\d_]+")
_IRREGULAR = {"mice": "mouse", "dice": "die", "geese": "goose", "teeth": "tooth", "feet": "foot", "men": "man"}


def split_words(text: str) -> list[str]:
    """Words of letters, lower case; hyphens and apostrophes part them."""
    return _WORD.findall(text.lower())


_GRAMMAR = frozenset(
    split_words("""
    a an the this that these those some any no not every each all both many much few several more most other
    another one two three four five six seven eight nine ten first second i you he she it we they me him her us
    them my your his its our their who whose which what where there here is are was were be been being am has
    have having had do does doing can could will would should may might let of in on at to from by with without
    for as into onto out off over under above below beside besides between behind before after near next left
    right top bottom corner middle center centre front back side inside outside across around through along against
    among up down beneath underneath together alone upon via like than and or but nor so if then while when very
    too also just only quite really big large huge giant small little tiny tall short long wide great good nice
    cute pretty beautiful lovely funny picture image photo photograph drawing painting illustration icon icons
    emoji set scene view background style grid row color colour colored coloured showing shows show made looking
    look wearing holding standing sitting lying walking s t x please
    """)
)  # words that say nothing about what is in the picture


class NamedThing(Protocol):
    """A noun of a world: its name, its emoji, other names."""

    @property
    def name(self) -> str: ...
    @property
    def emoji(self) -> str: ...
    @property
    def synonyms(self) -> tuple[str, ...]: ...


class Vocabulary(BaseModel):
    """The words that weights know; one without nouns stands for "not said", and then no word counts as unknown.

    Attributes:
        nouns: name → emoji.
        synonyms: name → other names.
        backgrounds, styles, colours: names.
        words: other words of the captions that the weights were trained on.
    """

    model_config = ConfigDict(frozen=True)

    nouns: dict[str, str] = {}
    synonyms: dict[str, list[str]] = {}
    backgrounds: list[str] = []
    styles: list[str] = []
    colours: list[str] = []
    words: list[str] = []

    @classmethod
    def of(
        cls,
        nouns: Iterable[NamedThing],
        backgrounds: Mapping[str, Iterable[str]],
        styles: Mapping[str, Iterable[str]],
        colours: Iterable[str],
    ) -> Vocabulary:
        """The vocabulary of a rendered world; backgrounds and styles map a name to the ways of saying it."""
        nouns = list(nouns)
        ways = [way for table in (backgrounds, styles) for each in table.values() for way in each]
        return cls(
            nouns={noun.name: noun.emoji for noun in nouns},
            synonyms={noun.name: list(noun.synonyms) for noun in nouns if noun.synonyms},
            backgrounds=list(backgrounds),
            styles=list(styles),
            colours=list(colours),
            words=sorted({word for way in ways for word in split_words(way)} - _GRAMMAR),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Vocabulary:
        """Read vocabulary.json of a checkpoint; empty where there is none.

        Raises:
            UserError: the file is damaged.
        """
        path = Path(folder) / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} cannot be read: copy the checkpoint again, or remove the file.") from error

    def save(self, folder: str | Path) -> None:
        """Write vocabulary.json."""
        content: dict[str, Any] = self.model_dump()
        (Path(folder) / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @cached_property
    def _known(self) -> frozenset[str]:
        names = [*self.nouns, *self.backgrounds, *self.styles, *self.colours, *self.words]
        names += [name for other in self.synonyms.values() for name in other]
        return frozenset(form for name in names for word in split_words(name) for form in forms(word))

    def unknown_words(self, prompt: str) -> list[str]:
        """Content words of a prompt that the weights never saw, in order, each once."""
        if not self.nouns:
            return []
        words = dict.fromkeys(split_words(prompt))
        return [word for word in words if word not in _GRAMMAR and self._known.isdisjoint(forms(word))]

    def knows_any(self, prompt: str) -> bool:
        """Whether the prompt holds at least one content word that the weights know."""
        if not self.nouns:
            return True
        return any(not self._known.isdisjoint(forms(word)) for word in split_words(prompt) if word not in _GRAMMAR)


def forms(word: str) -> set[str]:
    """A word and what it may be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            found.add(word.removesuffix(ending) + singular)
    return found
