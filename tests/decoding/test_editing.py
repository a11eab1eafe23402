"""Editing by words: what words speak against; and rounds over the one loop, on a model that knows what it wants."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from markovgen_app.decoding.editing import (
    ROUNDS,
    STRENGTHS,
    EditSettings,
    edit,
    evidence,
    rounds_of,
    threshold_of,
)
from markovgen_app.decoding.sampler import DecodingSettings, DecodingStep
from markovgen_app.errors import UserError

GRID = (4, 6)
POSITIONS = 24
CODES = 12
MASK = CODES
WANTED = 7

TABLE = torch.randn(CODES + 1, CODES, generator=torch.Generator().manual_seed(7)) * 2


def neighbours(tokens: Tensor, step: int) -> Tensor:
    """Logits from each position's left neighbour."""
    return TABLE[tokens.roll(1, 1)]  # (B, n, V)


def stubborn(tokens: Tensor, step: int) -> Tensor:
    """Sure of one token everywhere."""
    return F.one_hot(torch.full_like(tokens, WANTED), CODES) * 50.0  # (B, n, V)


def pictures(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(CODES, (rows, POSITIONS), generator=torch.Generator().manual_seed(seed))


def run(
    tokens: Tensor, rounds: int, share: float = 0.25, model=neighbours, seeds=None, **options
) -> list[DecodingStep]:
    generators = [torch.Generator().manual_seed(seed) for seed in (seeds or range(len(tokens)))]
    settings = DecodingSettings(steps=1, guidance_ramp=False, top_k=3)
    edit_settings = EditSettings(rounds, share)
    return list(edit(model, tokens, MASK, settings, generators, grid=GRID, edit_settings=edit_settings, **options))


@given(st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 99))
def test_every_round_redraws_its_share_and_leaves_the_rest(rounds: int, share: float, seed: int) -> None:
    before = pictures(3, seed)
    steps = run(before, rounds, share)
    assert [step.index for step in steps] == list(range(1, rounds + 1))
    assert [step.final for step in steps] == [False] * (rounds - 1) + [True]
    for step in steps:
        assert (step.mask.sum(1) == max(1, round(share * POSITIONS))).all()
        assert step.tokens[~step.mask].equal(before[~step.mask])
        assert (step.tokens != MASK).all() and step.tokens.equal(step.predicted)
        before = step.tokens


@given(st.integers(1, 8), st.integers(0, 99))
def test_what_may_not_change_never_does(rounds: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    editable = torch.rand(3, POSITIONS, generator=generator) < 0.4
    editable[2] = False
    tokens = pictures(3, seed)
    for step in run(tokens, rounds, model=stubborn, editable=editable):
        assert step.tokens[~editable].equal(tokens[~editable])
        assert not step.mask[~editable].any()
        assert (step.confidence[~editable] == 1).all()


def test_the_picture_moves_towards_what_the_words_want() -> None:
    reached = [int((step.tokens == WANTED).sum()) for step in run(pictures(1), 60, model=stubborn)]
    assert reached == sorted(reached) and reached[5] < POSITIONS and reached[-1] == POSITIONS


def test_a_weak_edit_is_the_start_of_a_strong_one() -> None:
    for weak, strong in zip(run(pictures(2), 4), run(pictures(2), 9), strict=False):
        assert weak.tokens.equal(strong.tokens) and weak.confidence.equal(strong.confidence)


def test_one_seed_gives_one_edit_in_any_batch() -> None:
    tokens = pictures(3)
    editable = torch.ones_like(tokens, dtype=torch.bool)
    editable[1, :9] = False
    together = run(tokens, 5, seeds=[4, 5, 6], editable=editable)[-1].tokens
    for row in range(3):
        part = slice(row, row + 1)
        assert run(tokens[part], 5, seeds=[4 + row], editable=editable[part])[-1].tokens.equal(together[part])
    assert len({tuple(row) for row in run(tokens[[0, 0]], 5)[-1].tokens.tolist()}) == 2, "each seed its own edit"


def test_the_last_round_can_be_refined_with_the_rest_known() -> None:
    seen = []

    def refine(logits: Tensor, tokens: Tensor, undecided: Tensor) -> Tensor:
        seen.append((tokens == MASK).equal(undecided))
        return F.one_hot(torch.zeros_like(tokens), CODES) * 50.0

    *_, last = run(pictures(2), 3, inference=SimpleNamespace(refine=refine))
    assert seen == [True]
    assert (last.tokens[last.mask] == 0).all()


def test_an_edit_starts_from_a_whole_picture() -> None:
    tokens = pictures(1)
    tokens[0, 3] = MASK
    with pytest.raises(ValueError, match="whole picture"):
        run(tokens, 2)


def test_stopping_early_costs_nothing_more() -> None:
    calls = []
    steps = edit(
        lambda tokens, step: calls.append(1) or neighbours(tokens, step),
        pictures(1),
        MASK,
        DecodingSettings(steps=1, guidance_ramp=False),
        [torch.Generator()],
        grid=GRID,
        edit_settings=EditSettings(),
    )
    next(steps)
    steps.close()
    assert len(calls) == 1


def test_words_that_say_nothing_speak_against_nothing() -> None:
    logits = torch.randn(1, POSITIONS, CODES)
    shifted = logits + torch.randn(1, POSITIONS, 1)  # the same distributions
    assert evidence(shifted, logits, pictures(3), GRID).abs().max() < 1e-5


@given(st.integers(0, 99))
def test_evidence_is_the_mean_information_around_a_token(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text, none = (torch.randn(1, POSITIONS, CODES, generator=generator) for _ in range(2))
    tokens = pictures(2, seed)
    found = evidence(text, none, tokens, GRID)
    gain = (text.softmax(-1) / none.softmax(-1)).log()[0]  # (n, V)
    height, width = GRID
    for row in range(2):
        for place in range(POSITIONS):
            y, x = divmod(place, width)
            near = [
                gain[i * width + j, tokens[row, i * width + j]]
                for i in range(max(0, y - 1), min(height, y + 2))
                for j in range(max(0, x - 1), min(width, x + 2))
            ]
            assert found[row, place] == pytest.approx(float(torch.stack(near).mean()), abs=1e-4)


def test_words_speak_against_the_part_that_they_do_not_name() -> None:
    """The text wants token 7 on the left and says nothing of the right; the picture has 7 on half of the left."""
    none = torch.zeros(1, 4, 6, CODES)
    text = none.clone()
    text[:, :, :3, WANTED] = 4
    tokens = torch.full((1, 4, 6), 2)
    tokens[:, :2, :3] = WANTED
    found = evidence(text.flatten(1, 2), none.flatten(1, 2), tokens.flatten(1), GRID).view(4, 6)
    assert (found[:1, :2] > 0.5).all() and (found[3, :3] < -0.5).all() and (found[:, 4:].abs() < 1e-5).all()


def test_stronger_edits_draw_more_anew() -> None:
    thresholds = [threshold_of(strength) for strength in STRENGTHS.values()]
    assert thresholds == sorted(set(thresholds)) and thresholds[0] == 0


def test_strengths_are_rounds() -> None:
    assert rounds_of(1) == ROUNDS == EditSettings().rounds and rounds_of(0.001) == 1
    assert [rounds_of(strength) for strength in STRENGTHS.values()] == sorted(map(rounds_of, STRENGTHS.values()))


@pytest.mark.parametrize(
    ("fields", "says"), [({"rounds": 0}, "Rounds"), ({"share": 0}, "share of tokens"), ({"share": 1.1}, "at most 1")]
)
def test_settings_out_of_range_are_said(fields: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        EditSettings(**fields)
