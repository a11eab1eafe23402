"""Tokens, invitations and codes: only the key's holder can make one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.errors import UserError
from markovgen_app.study.identity import Keys

KEYS, OTHERS = Keys(bytes(32)), Keys(bytes([1]) * 32)


def test_a_token_is_a_rater_and_only_here() -> None:
    token = KEYS.new_token()
    assert KEYS.rater(token) == KEYS.rater(token) != KEYS.rater(KEYS.new_token())
    assert token.split(".")[0] not in KEYS.rater(token)
    with pytest.raises(UserError, match="not one of this study"):
        OTHERS.rater(token)


@given(st.integers(0, 60), st.characters())
def test_a_changed_token_is_forged(place: int, letter: str) -> None:
    token = KEYS._signed("token", "AAAAAAAAAAAAAAAAAAAAAA")
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(UserError):
            KEYS.rater(changed)


@pytest.mark.parametrize("forged", ["", ".", "a", "a.b", "ä.ö", "\ud800.x".encode("utf-8", "replace").decode()])
def test_rubbish_is_refused(forged: str) -> None:
    with pytest.raises(UserError):
        KEYS.rater(forged)
    with pytest.raises(UserError):
        KEYS.invited_token(forged)


def test_an_invitation_is_the_same_rater_everywhere_and_no_token() -> None:
    token = KEYS.invited_token(KEYS.invitation(7))
    assert token == KEYS.invited_token(KEYS.invitation(7)) != KEYS.invited_token(KEYS.invitation(8))
    KEYS.rater(token)
    with pytest.raises(UserError):
        KEYS.rater(KEYS.invitation(7))
    with pytest.raises(UserError):
        KEYS.invited_token(token)


@given(st.text(max_size=30))
def test_codes_are_read_as_people_type_them(rater: str) -> None:
    code = KEYS.withdrawal_code(rater)
    assert len(code) == 19
    plain = KEYS.withdrawal_hash(code)
    for typed in (code.lower(), code.replace("-", " "), f"  {code.replace('-', '')}\n", code.replace("O", "0")):
        assert KEYS.withdrawal_hash(typed) == plain
    assert KEYS.withdrawal_hash(KEYS.withdrawal_code(rater + "x")) != plain


def test_file_names_tell_nothing() -> None:
    names = {KEYS.picture_name(f"{n}", method) for n in range(50) for method in ("full", "early-exit")}
    assert len(names) == 100
    assert all(len(name) == 36 and "full" not in name for name in names)
    assert OTHERS.picture_name("0", "full") not in names


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Keys(bytes(31))
