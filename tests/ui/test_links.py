"""A link leads back to the request that it was made from."""

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.requests import MAX_SEED, GenerateRequest
from markovgen_app.ui.handlers import request_from
from markovgen_app.ui.links import comparison_link, fields_of, link


@given(
    prompt=st.text(min_size=1, max_size=50).filter(lambda text: text.strip() and text.isprintable()),
    negative=st.sampled_from(["", "a red & blue car?"]),
    seed=st.integers(0, MAX_SEED),
    method=st.sampled_from(["full", "early-exit", "halton"]),
    exit_step=st.none() | st.integers(1, 10),
    temperature=st.floats(0, 10),
    ramp=st.booleans(),
)
def test_round_trip(
    prompt: str, negative: str, seed: int, method: str, exit_step: int | None, temperature: float, ramp: bool
) -> None:
    request = GenerateRequest.validated(
        prompt=prompt,
        negative_prompt=negative,
        seed=seed,
        method=method,
        exit_step=exit_step,
        temperature=temperature,
        guidance_ramp=ramp,
    )
    query = dict(parse_qsl(link(request, seed).removeprefix("?")))
    assert request_from(fields_of(query)) == request


def test_a_link_is_short_and_to_one_picture() -> None:
    request = GenerateRequest(prompt="an owl", count=4, seed=7)
    assert link(request, 9) == "?p=an+owl&m=full&seed=9"


def test_what_is_not_ours_is_left_out() -> None:
    assert fields_of({"__theme": "dark", "count": "64", "p": "an owl", "seed": ""}) == {"prompt": "an owl"}


def test_a_link_to_a_comparison_names_its_tab_and_methods() -> None:
    request = GenerateRequest(prompt="an owl & a fox", seed=7, steps=10)
    assert (
        comparison_link(request, ["full", "halton"]) == "?tab=compare&p=an+owl+%26+a+fox&m=full,halton&steps=10&seed=7"
    )
    query = dict(parse_qsl(comparison_link(request, ["full", "halton"]).removeprefix("?")))
    assert fields_of(query) == {"prompt": "an owl & a fox", "method": "full,halton", "steps": "10", "seed": "7"}
