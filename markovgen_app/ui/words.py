"""Words: what the model knows, as chips that go into the prompt, and what to say about a word it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from markovgen_app.data.vocabulary import BACKGROUNDS, COLOURS, NOUN_BY_NAME, article

_SHOWN_UNKNOWN = 3


def _chip(kind: str, word: str, phrase: str, mark: str = "", search: Iterable[str] = ()) -> str:
    found_by = " ".join([word, phrase, *search]).lower()
    return (
        f'<button type="button" class="mg-word-chip" data-kind="{kind}" data-word="{escape(word)}" '
        f'data-phrase="{escape(phrase)}" data-search="{escape(found_by)}">{mark}{escape(word)}</button>'
    )


def _noun_phrase(name: str) -> str:
    noun = NOUN_BY_NAME.get(name)
    return name if noun and noun.plural_only else f"{article(name)} {name}"


def _background_phrase(name: str) -> str:
    return BACKGROUNDS[name][0] if name in BACKGROUNDS else f"on {article(name)} {name}"


def _swatch(name: str) -> str:
    return f'<i class="mg-swatch" style="background: rgb{COLOURS[name]}"></i>' if name in COLOURS else ""


def knows_html(knows: Mapping[str, Any]) -> str:
    """The searchable list of all that the weights know (`weights/vocabulary.json`)."""
    synonyms = knows.get("synonyms", {})
    sections = {
        "Things": [
            _chip("noun", name, _noun_phrase(name), f'<span aria-hidden="true">{emoji}</span>', synonyms.get(name, ()))
            for name, emoji in knows["nouns"].items()
        ],
        "Backgrounds": [_chip("background", name, _background_phrase(name)) for name in knows["backgrounds"]],
        "Styles": [_chip("style", name, name) for name in knows["styles"]],
        "Colours": [_chip("colour", name, name, _swatch(name)) for name in knows["colours"]],
    }
    listed = "".join(
        f"<section><h3>{title}</h3><div>{''.join(chips)}</div></section>" for title, chips in sections.items() if chips
    )
    total = sum(map(len, sections.values()))
    return (
        f'<input type="search" class="mg-search" aria-label="Search the words this model knows" '
        f'placeholder="Search {total} words, or tap one to use it">'
        f'<div class="mg-list" role="group" aria-label="Words this model knows" tabindex="0">{listed}'
        '<p class="mg-none" hidden>No such word here. Other words work as far as they are close to these.</p></div>'
    )


def hints_html(unknown: Mapping[str, Sequence[str]]) -> str:
    """A quiet line for each word that the model has never seen, with the nearest words it knows as chips to swap."""
    lines = []
    for word, nearest in list(unknown.items())[:_SHOWN_UNKNOWN]:
        chips = "".join(
            f'<button type="button" class="mg-word-chip" data-unknown="{escape(word)}" data-known="{escape(known)}" '
            f'aria-label="Replace {escape(word)} by {escape(known)}">{escape(known)}</button>'
            for known in nearest
        )
        lines.append(f'<p class="mg-hint"><span><b>{escape(word)}</b> is new to this model. Nearest:</span>{chips}</p>')
    return "".join(lines)


def notice_html(message: str, field: str | None = None) -> str:
    """One line that says what to do next; empty for an empty message. `page.js` leads to the field that it is about."""
    about = f' data-field="{escape(field)}"' if field else ""
    return f'<p class="mg-notice" role="alert"{about}>{escape(message)}</p>' if message else ""
