"""Chips: what is inserted, and that nothing is taken for markup."""

from builders import tiny_vocabulary

from markovgen_app.ui.words import hints_html, knows_html, notice_html


def test_every_word_is_listed_with_its_phrase() -> None:
    vocabulary = tiny_vocabulary()
    html = knows_html(vocabulary.model_dump())
    words = [*vocabulary.nouns, *vocabulary.backgrounds, *vocabulary.styles, *vocabulary.colours]
    assert html.count('class="mg-word-chip"') == len(words)
    for phrase in ("an owl", "grapes", "on a brick wall", "watercolor"):
        assert f'data-phrase="{phrase}"' in html
    assert 'data-search="dog a dog puppy hound"' in html


def test_a_world_of_its_own_needs_no_table_of_ours() -> None:
    knows = {"nouns": {"gadget": "⚙️"}, "backgrounds": ["office"], "styles": [], "colours": ["mauve"]}
    html = knows_html(knows)
    assert 'data-phrase="a gadget"' in html and 'data-phrase="on an office"' in html and "Styles" not in html


def test_words_are_escaped() -> None:
    html = hints_html({'<b onclick="x">': ["fox & co"]}) + notice_html("<script>")
    assert "<b onclick" not in html and "<script>" not in html and "fox &amp; co" in html


def test_only_the_first_unknown_words_are_shown() -> None:
    assert hints_html({}) == ""
    assert hints_html({str(index): ["fox"] for index in range(9)}).count("mg-hint") == 3
