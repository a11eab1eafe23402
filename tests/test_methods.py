"""The methods' names are the loop's, and a comparison needs two that the weights can run."""

import pytest

from markovgen_app.decoding.sampler import METHODS
from markovgen_app.errors import UserError
from markovgen_app.methods import EXPLAINED, NAMES, TITLES, chosen_methods, default_methods

BARE = tuple(name for name in NAMES if name != "markovgen")


def test_every_method_of_the_loop_has_its_words() -> None:
    assert tuple(TITLES) == tuple(EXPLAINED) == NAMES == METHODS


def test_methods_come_in_one_order_and_once() -> None:
    assert chosen_methods(["markovgen", "full", "markovgen"], NAMES) == ("full", "markovgen")
    assert chosen_methods(default_methods(NAMES), NAMES) == ("full", "early-exit", "markovgen")
    assert chosen_methods(default_methods(BARE), BARE) == ("full", "early-exit", "rescheduled")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "Choose two methods or more"),
        (["full", "full"], "Choose two methods or more"),
        (["full", "magic"], "No method is called 'magic': choose among full, early-exit, rescheduled, halton."),
        (["full", "markovgen"], "hold no random field, so markovgen cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_said(names: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        chosen_methods(names, BARE)
    assert says in str(error.value) and "\n" not in str(error.value)
