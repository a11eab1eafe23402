"""Requests: bounds, defaults, one line for everything that is wrong, and agreement with the decoding loop."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.decoding.order import ORDERS
from markovgen_app.decoding.sampler import CONFIDENCE, METHODS, DecodingSettings
from markovgen_app.decoding.schedule import SCHEDULES
from markovgen_app.errors import UserError
from markovgen_app.requests import MAX_SEED, GenerateRequest, Method, Order, Schedule


def test_choices_are_those_of_the_decoding_loop() -> None:
    assert set(get_args(Method)) == set(METHODS)
    assert set(get_args(Order)) == {CONFIDENCE, *ORDERS}
    assert set(get_args(Schedule)) == set(SCHEDULES)


def test_every_knob_of_the_loop_can_be_asked_for_with_the_same_default() -> None:
    request, settings = GenerateRequest(prompt="a panda"), DecodingSettings()
    for name in DecodingSettings.__dataclass_fields__:
        assert getattr(request, name) == getattr(settings, name), name


def test_every_field_is_described() -> None:
    for name, field in GenerateRequest.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": "  \n "}, "The prompt is empty"),
        ({}, "Prompt is missing"),
        ({"prompt": "p" * 5000}, "Prompt has 5,000 characters: shorten it to 1,000 or fewer."),
        ({"prompt": "a\udcff"}, "Prompt holds characters that are no text"),
        ({"prompt": 3}, "Prompt: Input should be a valid string."),
        ({"prompt": "a", "negative_prompt": "n" * 1001}, "Negative prompt has 1,001 characters"),
        ({"prompt": "a", "steps": 0}, "Steps must be a whole number between 1 and 256, not 0."),
        ({"prompt": "a", "steps": 257}, "Steps must be a whole number between 1 and 256, not 257."),
        ({"prompt": "a", "steps": "many"}, "Steps must be a whole number between 1 and 256, not 'many'."),
        ({"prompt": "a", "steps": 2.5}, "Steps must be a whole number between 1 and 256, not 2.5."),
        ({"prompt": "a", "steps": None}, "Steps must be a whole number between 1 and 256, not None."),
        ({"prompt": "a", "seed": -1}, "Seed must be a whole number between 0 and 4294967295, not -1."),
        ({"prompt": "a", "seed": 2**32}, "Seed must be a whole number between 0 and 4294967295, not 4294967296."),
        ({"prompt": "a", "seed": 10**60}, "not 100000"),
        ({"prompt": "a", "exit_step": 25}, "Exit step must be between 1 and the 24 steps, not 25."),
        ({"prompt": "a", "exit_step": 0}, "Exit step must be a whole number between 1 and 256, not 0."),
        (
            {"prompt": "a", "method": "magic"},
            "Method must be one of full, early-exit, markovgen, rescheduled or halton",
        ),
        ({"prompt": "a", "order": "random"}, "Order must be one of confidence, halton, row_major, "),
        ({"prompt": "a", "guidance_scale": float("nan")}, "Guidance scale must be a number between 0 and 30, not nan."),
        ({"prompt": "a", "temperature": -0.1}, "Temperature must be a number between 0 and 10, not -0.1."),
        ({"prompt": "a", "top_k": 0}, "Top k must be a whole number of at least 1, not 0."),
        ({"prompt": "a", "count": 65}, "Count must be a whole number between 1 and 64, not 65."),
        ({"prompt": "a", "colour": "red"}, "There is no setting called 'colour': choose among prompt, "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        GenerateRequest.validated(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.field == (list(fields)[-1] if fields else "prompt")


@given(
    st.dictionaries(
        st.sampled_from([*GenerateRequest.model_fields, "bogus"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), st.text(max_size=20)),
    )
)
def test_any_input_makes_a_request_or_one_line(fields: dict[str, Any]) -> None:
    try:
        GenerateRequest.validated(**{"prompt": "a panda", **fields})
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_text_from_forms_and_links_is_read() -> None:
    request = GenerateRequest.validated(prompt=" a\n panda ", steps="8", seed="7", guidance_scale="2.5", top_k=4.0)
    assert (request.prompt, request.steps, request.seed, request.guidance_scale) == ("a panda", 8, 7, 2.5)
    assert request.top_k == 4


def test_a_seed_is_drawn_once_and_kept() -> None:
    request = GenerateRequest(prompt="a panda")
    with pytest.raises(ValueError, match="with_seed"):
        _ = request.seeds
    settled = request.with_seed()
    assert settled.seed is not None and settled.with_seed() is settled
    assert {request.with_seed().seed for _ in range(8)} != {settled.seed}


@given(st.integers(0, MAX_SEED), st.integers(1, 64))
def test_seeds_count_up_from_the_first(seed: int, count: int) -> None:
    seeds = GenerateRequest(prompt="a", seed=seed, count=count).seeds
    assert seeds[0] == seed and len(set(seeds)) == count
    assert all(0 <= each <= MAX_SEED and (each - seed) % 2**32 == index for index, each in enumerate(seeds))
