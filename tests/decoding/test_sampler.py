"""Properties of the decoding loop, on a tiny model whose logits depend on the tokens around each position."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from markovgen_app.decoding.draws import draw_tokens, gumbel_noise, lowest
from markovgen_app.decoding.finalise import FINALISE, evenly
from markovgen_app.decoding.order import ORDERS
from markovgen_app.decoding.sampler import (
    CONFIDENCE,
    METHODS,
    DecodingSettings,
    DecodingStep,
    decode,
    default_exit_step,
    method_settings,
)
from markovgen_app.decoding.schedule import SCHEDULES, mask_counts
from markovgen_app.errors import UserError

GRID = (4, 6)
POSITIONS = 24
CODES = 12
MASK = CODES

TABLES = torch.randn(3, CODES + 1, CODES, generator=torch.Generator().manual_seed(7)) * 2


def bigram(tokens: Tensor, step: int) -> Tensor:
    """Logits from each position's token and those at its left and above; exact and the same in every batch."""
    return TABLES[0][tokens] + TABLES[1][tokens.roll(1, 1)] + TABLES[2][tokens.roll(GRID[1], 1)]  # (B, n, V)


def partly_masked(unknown: list[int], seed: int = 0) -> Tensor:
    """Grids with the given numbers of masked tokens, at random places."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (len(unknown), POSITIONS), generator=generator)
    for row, count in zip(tokens, unknown, strict=True):
        row[torch.randperm(POSITIONS, generator=generator)[:count]] = MASK
    return tokens


def run(
    tokens: Tensor,
    settings: DecodingSettings,
    seeds: list[int] | None = None,
    model: Callable[[Tensor, int], Tensor] = bigram,
    refine: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    tell: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> list[DecodingStep]:
    generators = [torch.Generator().manual_seed(seed) for seed in (seeds or range(len(tokens)))]

    def change(logits: Tensor, tokens: Tensor, fixed: Tensor, undecided: Tensor) -> Tensor:
        assert refine is not None
        return (refine(logits, tokens, undecided) - refine(logits, tokens, undecided | fixed))[undecided]

    def expect(logits: Tensor, undecided: Tensor) -> Tensor:
        return logits  # what `tell` here computes from

    field = SimpleNamespace(refine=refine, expect=expect, tell=tell or change) if refine or tell else None
    return list(decode(model, tokens, MASK, settings, generators, grid=GRID, inference=field))


def hearing_the_left(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """A field in which a committed token speaks to the next one."""
    return logits / 2 + TABLES[1][tokens.masked_fill(mask, MASK).roll(1, 1)]  # (B, n, V)


unknowns = st.lists(st.integers(0, POSITIONS), min_size=1, max_size=4)


@st.composite
def any_settings(draw: st.DrawFn) -> DecodingSettings:
    steps = draw(st.integers(1, POSITIONS + 4))
    return DecodingSettings(
        steps=steps,
        exit_step=draw(st.none() | st.integers(1, steps)),
        schedule=draw(st.sampled_from(sorted(SCHEDULES))),
        temperature=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        annealing=draw(st.sampled_from([0.0, 0.75, 1.0])),
        exit_temperature=draw(st.sampled_from([None, 0.0, 0.5])),
        choice_temperature=draw(st.sampled_from([0.0, 4.5])),
        top_k=draw(st.none() | st.integers(1, CODES + 3)),
        order=draw(st.sampled_from([CONFIDENCE, *sorted(ORDERS)])),
        finalise=draw(st.sampled_from(FINALISE)),
    )


@given(unknown=unknowns, settings=any_settings(), seed=st.integers(0, 99))
def test_masks_follow_the_schedule_of_every_row(unknown: list[int], settings: DecodingSettings, seed: int) -> None:
    steps = run(partly_masked(unknown, seed), settings)
    expected = torch.tensor([mask_counts(count, settings.steps, settings.schedule) for count in unknown])
    for step in steps[:-1]:
        assert step.mask.sum(1).equal(expected[:, step.index - 1])
        assert not step.final
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].final
    assert len(steps) <= (settings.exit_step or settings.steps)
    assert len(steps) == min(settings.exit_step or settings.steps, max(1, *unknown))


@given(unknown=unknowns, settings=any_settings(), seed=st.integers(0, 99))
def test_committed_tokens_never_change(unknown: list[int], settings: DecodingSettings, seed: int) -> None:
    tokens = partly_masked(unknown, seed)
    before, known = tokens, tokens != MASK
    for step in run(tokens, settings):
        assert step.tokens[known].equal(before[known])
        assert step.predicted[known].equal(before[known])
        assert not step.mask[known].any()
        before, known = step.tokens, ~step.mask


@given(unknown=unknowns, settings=any_settings())
def test_a_step_is_consistent(unknown: list[int], settings: DecodingSettings) -> None:
    tokens = partly_masked(unknown)
    steps = run(tokens, settings)
    for step in steps:
        assert step.mask.equal(step.tokens == MASK)
        assert step.predicted[~step.mask].equal(step.tokens[~step.mask])
        assert ((step.predicted >= 0) & (step.predicted < CODES)).all()
        assert step.confidence.shape == tokens.shape
        assert ((step.confidence >= 0) & (step.confidence <= 1)).all()
        assert (step.confidence[tokens != MASK] == 1).all()
        assert step.logits.dtype == torch.float32
    assert steps[-1].tokens.equal(steps[-1].predicted)
    assert not steps[-1].mask.any()
    assert tokens.equal(partly_masked(unknown)), "the input is left alone"


@given(unknown=unknowns, settings=any_settings(), seed=st.integers(0, 2**32 - 1))
def test_same_seed_same_tokens(unknown: list[int], settings: DecodingSettings, seed: int) -> None:
    tokens = partly_masked(unknown)
    seeds = [seed + row for row in range(len(unknown))]
    for first, second in zip(run(tokens, settings, seeds), run(tokens, settings, seeds), strict=True):
        assert first.tokens.equal(second.tokens)
        assert first.predicted.equal(second.predicted)


@given(unknown=unknowns, settings=any_settings(), refined=st.booleans())
def test_a_row_alone_is_the_row_in_a_batch(unknown: list[int], settings: DecodingSettings, refined: bool) -> None:
    refine = hearing_the_left if refined else None
    tokens = partly_masked(unknown)
    seeds = [100 + row for row in range(len(unknown))]
    together = run(tokens, settings, seeds, refine=refine)
    for row, seed in enumerate(seeds):
        alone = run(tokens[row : row + 1], settings, [seed], refine=refine)
        assert alone[-1].tokens[0].equal(together[-1].tokens[row])
        assert alone[-1].confidence[0].equal(together[-1].confidence[row])
        for one, all_ in zip(alone[:-1], together, strict=False):
            assert one.tokens[0].equal(all_.tokens[row])


def test_other_seeds_give_other_tokens() -> None:
    ends = run(partly_masked([POSITIONS] * 4), DecodingSettings(steps=6), [1, 2, 3, 1])[-1].tokens
    assert not ends[0].equal(ends[1])
    assert not ends[1].equal(ends[2])
    assert ends[0].equal(ends[3])


@given(unknown=unknowns, settings=any_settings())
def test_early_exit_is_the_full_run_cut_short_with_its_predictions(
    unknown: list[int], settings: DecodingSettings
) -> None:
    tokens, settings = partly_masked(unknown), dataclasses.replace(settings, finalise="sample", exit_temperature=None)
    full = run(tokens, dataclasses.replace(settings, exit_step=None))
    cut = run(tokens, settings)
    assert cut[-1].tokens.equal(full[len(cut) - 1].predicted)
    for one, other in zip(cut[:-1], full, strict=False):
        assert one.tokens.equal(other.tokens)


@given(top_k=st.integers(1, CODES - 1), settings=any_settings(), seed=st.integers(0, 99))
def test_top_k_is_respected(top_k: int, settings: DecodingSettings, seed: int) -> None:
    settings = dataclasses.replace(settings, top_k=top_k)
    known = torch.zeros(1, POSITIONS, dtype=torch.bool)
    for step in run(partly_masked([POSITIONS]), settings, [seed]):
        allowed = step.logits.topk(top_k).indices  # (1, n, k)
        drawn_from_top = (allowed == step.predicted.unsqueeze(2)).any(2)
        assert (drawn_from_top | known).all()
        known = ~step.mask


@given(settings=any_settings())
def test_cold_sampling_and_top_1_take_the_most_likely(settings: DecodingSettings) -> None:
    tokens = partly_masked([POSITIONS])
    for changes in ({"temperature": 0.0, "exit_temperature": None}, {"top_k": 1}):
        first = run(tokens, dataclasses.replace(settings, **changes))[0]
        assert first.predicted.equal(first.logits.argmax(-1))


@given(settings=any_settings(), chance=st.sampled_from([0.0, 0.5]))
def test_the_exit_may_be_drawn_at_a_temperature_of_its_own(settings: DecodingSettings, chance: float) -> None:
    """What is drawn before is the same; without chance the likeliest are taken, with some as at that temperature."""
    tokens = partly_masked([POSITIONS])
    settings = dataclasses.replace(settings, steps=6, exit_step=3)
    usual, own = (run(tokens, dataclasses.replace(settings, exit_temperature=heat)) for heat in (None, chance))
    assert all(one.predicted.equal(other.predicted) for one, other in zip(usual[:2], own[:2], strict=True))
    likeliest = own[2].predicted.equal(own[1].tokens.where(~own[1].mask, own[2].logits.argmax(-1)))
    assert likeliest or chance
    at = dataclasses.replace(settings, steps=1, exit_step=1, finalise="sample")
    alone, told = (
        run(tokens, dataclasses.replace(at, **how))[-1].predicted
        for how in ({"temperature": chance, "exit_temperature": None}, {"temperature": 7.0, "exit_temperature": chance})
    )
    assert alone.equal(told)


def test_annealing_takes_chance_away_evenly() -> None:
    settings = DecodingSettings(steps=5, temperature=2.0, annealing=0.75)
    assert [settings.temperature_at(step) for step in range(1, 6)] == [2.0, 1.625, 1.25, 0.875, 0.5]
    assert dataclasses.replace(settings, exit_step=3, exit_temperature=0.1).temperature_at(3) == 0.1
    assert dataclasses.replace(settings, steps=1).temperature_at(1) == 2.0
    tokens = partly_masked([POSITIONS])
    usual, annealed = (run(tokens, dataclasses.replace(settings, annealing=share)) for share in (0.0, 1.0))
    assert annealed[0].predicted.equal(usual[0].predicted), "the first draws are as hot as ever"
    left = annealed[-2].mask
    assert annealed[-1].predicted[left].equal(annealed[-1].logits.argmax(-1)[left]), "the last ones are no draws"
    assert not annealed[1].predicted.equal(annealed[1].logits.argmax(-1))


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_one_token_a_step_is_autoregressive_in_that_order(order: str) -> None:
    steps = run(partly_masked([POSITIONS]), DecodingSettings(steps=POSITIONS, order=order))
    masks = [torch.ones(1, POSITIONS, dtype=torch.bool)] + [step.mask for step in steps]
    decided = [(before & ~after).nonzero()[:, 1].tolist() for before, after in pairwise(masks)]
    assert decided == [[position] for position in ORDERS[order](*GRID).tolist()]


def test_a_fixed_order_skips_what_is_known() -> None:
    tokens = partly_masked([7])
    steps = run(tokens, DecodingSettings(steps=7, order="spiral_in"))
    unknown = set((tokens[0] == MASK).nonzero().flatten().tolist())
    expected = [position for position in ORDERS["spiral_in"](*GRID).tolist() if position in unknown]
    for step, later in zip(steps, range(1, 8), strict=True):
        assert set(step.mask[0].nonzero().flatten().tolist()) == set(expected[later:])


def test_without_noise_the_most_confident_draws_are_committed() -> None:
    first = run(partly_masked([POSITIONS]), DecodingSettings(steps=4, order=CONFIDENCE, choice_temperature=0))[0]
    assert first.confidence[~first.mask].min() >= first.confidence[first.mask].max()
    expected = first.logits.softmax(-1).gather(2, first.predicted.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(first.confidence, expected)


def test_choice_noise_changes_the_order() -> None:
    tokens = partly_masked([POSITIONS])
    calm, wild = (
        run(tokens, DecodingSettings(steps=6, order=CONFIDENCE, choice_temperature=heat)) for heat in (0.0, 100.0)
    )
    assert calm[0].predicted.equal(wild[0].predicted)
    assert not calm[0].mask.equal(wild[0].mask)


@given(steps=st.integers(2, POSITIONS), heat=st.sampled_from([0.5, 4.5, 20.0]), seed=st.integers(0, 99))
def test_choice_noise_fades_evenly_until_it_is_gone_at_the_last_step(steps: int, heat: float, seed: int) -> None:
    """The same noise drawn once more: each step commits what it ranks highest, at heat · (steps left / steps)."""
    generator = torch.Generator().manual_seed(seed)
    undecided = torch.ones(POSITIONS, dtype=torch.bool)
    settings = DecodingSettings(steps=steps, order=CONFIDENCE, choice_temperature=heat)
    for step in run(partly_masked([POSITIONS]), settings, [seed]):
        left = int(undecided.sum())
        gumbel_noise([left], CODES, [generator])  # what the tokens were drawn with
        noise = gumbel_noise([left], 1, [generator]).squeeze(1)
        scores = step.confidence[0, undecided].log() + heat * (steps - step.index) / steps * noise
        kept = int(step.mask.sum())
        expected = undecided.nonzero().squeeze(1)[scores.argsort()[:kept]]
        assert set(step.mask[0].nonzero().squeeze(1).tolist()) == set(expected.tolist())
        undecided = step.mask[0]


def test_nothing_masked_is_one_step_without_a_change() -> None:
    tokens = partly_masked([0, 0])
    steps = run(tokens, DecodingSettings(steps=8))
    assert len(steps) == 1
    assert steps[0].final
    assert steps[0].tokens.equal(tokens)


def test_half_precision_logits_are_sampled_in_float32() -> None:
    """In float16 the tail of 12 logits 20 apart would round to probability 0; the draw must be that of float32."""

    def half(tokens: Tensor, step: int) -> Tensor:
        return (bigram(tokens, step) * 4).half()

    def single(tokens: Tensor, step: int) -> Tensor:
        return half(tokens, step).float()

    tokens = partly_masked([POSITIONS])
    low, high = (run(tokens, DecodingSettings(steps=5), model=model) for model in (half, single))
    assert low[-1].logits.dtype == torch.float32
    assert low[-1].tokens.equal(high[-1].tokens)


@given(unknown=unknowns, settings=any_settings())
def test_refining_by_nothing_is_plain_decoding(unknown: list[int], settings: DecodingSettings) -> None:
    tokens = partly_masked(unknown)
    plain = run(tokens, settings)
    refined = run(tokens, settings, refine=lambda logits, tokens, mask: logits)
    assert len(plain) == len(refined)
    assert plain[-1].tokens.equal(refined[-1].tokens)
    assert plain[-1].confidence.equal(refined[-1].confidence)


@given(unknown=unknowns, settings=any_settings(), seed=st.integers(0, 99))
def test_a_refined_exit_tells_what_the_plain_one_would_have_taken(
    unknown: list[int], settings: DecodingSettings, seed: int
) -> None:
    tokens = partly_masked(unknown, seed)
    plain = run(tokens, settings)
    refined = run(tokens, settings, refine=lambda logits, tokens, mask: logits.flip(2))
    assert all(step.plain is None and step.unary is None for step in [*plain, *refined[:-1]])
    if refined[-1].plain is not None:
        assert refined[-1].plain.equal(plain[-1].predicted)
        assert refined[-1].unary is not None and refined[-1].unary.equal(plain[-1].logits)


def test_the_ways_to_finalise() -> None:
    tokens = partly_masked([POSITIONS])
    settings = DecodingSettings(steps=6, exit_step=2)
    sampled, likeliest, perturbed, decimated = (
        run(tokens, dataclasses.replace(settings, finalise=how))[-1] for how in FINALISE
    )
    left = run(tokens, settings)[0].mask
    assert perturbed.tokens.equal(sampled.tokens) and decimated.tokens.equal(sampled.tokens)
    assert likeliest.tokens[left].equal(likeliest.logits[left].argmax(-1))
    assert not likeliest.tokens.equal(sampled.tokens)


def test_perturbed_logits_are_what_the_field_sees_and_decides_by() -> None:
    """Perturb and MAP: the noise is on the logits before the field, and the field's answer is taken as it is."""
    seen = []

    def echo(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen.append(logits)
        return logits * 3

    tokens, settings = partly_masked([POSITIONS]), DecodingSettings(steps=6, exit_step=2, finalise="perturb")
    first, last = run(tokens, settings, refine=echo)
    assert last.unary is not None
    noise = (seen[0] - last.unary)[first.mask]
    assert noise.std() > 0.5
    assert seen[0][~first.mask].equal(last.unary[~first.mask])
    assert last.predicted[first.mask].equal(seen[0][first.mask].argmax(-1))


def agreeing(logits: Tensor, tokens: Tensor, fixed: Tensor, undecided: Tensor) -> Tensor:
    """A field of pairs of neighbours that are always alike: what is fixed of one is told to the other."""
    partner = torch.arange(POSITIONS).view(-1, 2).flip(1).flatten()  # (n/2, 2) -> (n,)
    says = torch.nn.functional.one_hot(tokens.masked_fill(~fixed, 0), CODES) * fixed.unsqueeze(-1) * 100.0  # (B, n, V)
    return says[:, partner][undecided]


def test_decimation_agrees_where_independent_draws_do_not_and_keeps_the_marginals() -> None:
    """All labels are alike likely, neighbours must be alike: one draw of both, every label as often as by itself."""
    tokens = torch.full((1, POSITIONS), MASK)
    settings = DecodingSettings(
        steps=POSITIONS, exit_step=1, schedule="linear", choice_temperature=0, order="row_major"
    )
    flat = torch.zeros(1, POSITIONS, CODES)
    drawn = {}
    for how in ("sample", "decimate"):
        chosen = dataclasses.replace(settings, finalise=how)
        runs = (
            run(tokens, chosen, [seed], lambda *_: flat, lambda logits, *_: logits, agreeing)[-1] for seed in range(200)
        )
        drawn[how] = torch.cat([step.tokens for step in runs])
    pairs = {how: each.view(-1, 2) for how, each in drawn.items()}  # (runs, n) -> (runs · n/2, 2)
    assert (pairs["sample"][:, 0] == pairs["sample"][:, 1]).float().mean() < 0.2
    assert (pairs["decimate"][:, 0] == pairs["decimate"][:, 1]).all()
    shares = pairs["decimate"][:, 1].bincount(minlength=CODES) / len(pairs["decimate"])
    assert shares.sub(1 / CODES).abs().max() < 0.03


@given(unknown=unknowns, settings=any_settings(), seed=st.integers(0, 99), updates=st.none() | st.integers(1, 9))
def test_decimation_follows_the_schedule_and_starts_as_the_plain_exit_does(
    unknown: list[int], settings: DecodingSettings, seed: int, updates: int | None
) -> None:
    """The most confident tokens of the exit are those of the early exit; every round hears of one more step's worth."""
    asked: list[Tensor] = []

    def watched(logits: Tensor, tokens: Tensor, fixed: Tensor, undecided: Tensor) -> Tensor:
        asked[:] = asked or [fixed | undecided]
        assert (asked[-1] & ~undecided).equal(fixed), "each token is told of once"
        asked.append(undecided)
        return (hearing_the_left(logits, tokens, undecided) - logits)[undecided]

    tokens = partly_masked(unknown)
    exit_step = max(1, settings.steps // 2)
    settings = dataclasses.replace(settings, exit_step=exit_step, finalise="decimate", mrf_iterations=updates)
    *before, last = run(tokens, settings, [seed + row for row in range(len(tokens))], tell=watched)
    left = [mask_counts(count, settings.steps, settings.schedule) for count in unknown]
    rounds = evenly(exit_step, settings.steps, updates)[:-1]
    wanted = [[each[step - 1] for each in left] for step in rounds if len(before) == exit_step - 1]
    assert [mask.sum(1).tolist() for mask in asked[1:]] == [each for each in wanted if any(each)]
    assert last.tokens.lt(MASK).all()
    if not asked:
        assert last.plain is None or last.predicted.equal(last.plain)
        return
    assert last.plain is not None
    first_fixed = asked[0] & ~asked[1]
    assert last.predicted[first_fixed].equal(last.plain[first_fixed])
    assert last.predicted[~asked[0]].equal(last.plain[~asked[0]])


def test_strides_are_even_and_reach_the_end() -> None:
    assert evenly(12, 24, None) == list(range(12, 25)) == evenly(12, 24, 99)
    assert evenly(12, 24, 3) == [12, 16, 20, 24] and evenly(3, 8, 2) == [3, 5, 8] and evenly(7, 7, 4) == [7]


def test_refine_sees_the_exit_and_decides_what_is_left_only() -> None:
    seen = []

    def all_fives(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen.append((tokens, mask))
        return torch.full_like(logits, -1e4).index_fill(2, torch.tensor([5]), 0.0)

    settings = DecodingSettings(steps=8, exit_step=3)
    tokens = partly_masked([POSITIONS, 10])
    steps = run(tokens, settings, refine=all_fives)
    assert len(seen) == 1
    assert seen[0][0].equal(steps[1].tokens)
    assert seen[0][1].equal(steps[1].mask)
    assert (steps[2].tokens[steps[1].mask] == 5).all()
    assert steps[2].tokens[~steps[1].mask].equal(steps[1].tokens[~steps[1].mask])


def test_closing_the_generator_stops_the_model() -> None:
    calls = []

    def counted(tokens: Tensor, step: int) -> Tensor:
        calls.append(step)
        return bigram(tokens, step)

    loop = decode(counted, partly_masked([POSITIONS]), MASK, DecodingSettings(), [torch.Generator()], grid=GRID)
    next(loop)
    next(loop)
    loop.close()
    assert calls == [1, 2]


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(1, 20_000, 4)
    mask = torch.ones(1, 20_000, dtype=torch.bool)
    for temperature in (0.5, 1.0):
        noise = gumbel_noise([20_000], 4, [torch.Generator().manual_seed(3)]) * temperature
        drawn, log_probability = draw_tokens(logits, mask, noise)
        shares = drawn.bincount(minlength=4) / 20_000
        torch.testing.assert_close(shares, (logits[0, 0] / temperature).softmax(-1), atol=0.012, rtol=0)
        torch.testing.assert_close(log_probability, logits[0, 0].log_softmax(-1)[drawn])


def test_noise_of_a_row_is_its_generators_alone() -> None:
    together = gumbel_noise([3, 0, 5], 7, [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    assert together[:3].equal(gumbel_noise([3], 7, [torch.Generator().manual_seed(1)]))
    assert together[3:].equal(gumbel_noise([5], 7, [torch.Generator().manual_seed(3)]))
    many = gumbel_noise([1000], 200, [torch.Generator().manual_seed(0)])
    assert many.isfinite().all()
    assert many.mean() == pytest.approx(0.5772, abs=0.01)
    assert many.var() == pytest.approx(torch.pi**2 / 6, abs=0.03)


@given(data=st.data())
def test_lowest_keeps_exactly_as_many_as_asked_even_among_equals(data: st.DataObject) -> None:
    mask = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3)))
    scores = torch.tensor([float(data.draw(st.integers(0, 2))) for _ in range(int(mask.sum()))])
    counts = [data.draw(st.integers(0, int(row.sum()))) for row in mask]
    kept = lowest(scores, mask, counts)
    assert kept.sum(1).tolist() == counts
    assert not (kept & ~mask).any()
    grid_scores = torch.zeros(mask.shape).masked_scatter(mask, scores)
    for row, row_mask, row_scores in zip(kept, mask, grid_scores, strict=True):
        if row.any() and (row_mask & ~row).any():
            assert row_scores[row].max() <= row_scores[row_mask & ~row].min()


def test_methods_are_presets_of_one_loop() -> None:
    full, early, markovgen, rescheduled, halton = (method_settings(name, 24, 8, top_k=3) for name in METHODS)
    assert full == DecodingSettings(steps=24, top_k=3)
    assert early == markovgen == DecodingSettings(steps=24, exit_step=8, top_k=3)
    assert rescheduled == DecodingSettings(steps=8, top_k=3)
    assert (halton.steps, halton.exit_step, halton.order, halton.schedule) == (8, None, "halton", "arccos")
    assert method_settings("full", order="z_curve").order == "z_curve"
    assert method_settings("halton", order=CONFIDENCE).order == "halton"
    assert method_settings("early-exit", 24).exit_step == default_exit_step(24) == 18
    assert default_exit_step(1) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"steps": 8, "exit_step": 9},
        {"exit_step": 0},
        {"top_k": 0},
        {"temperature": -1.0},
        {"exit_temperature": -0.1},
        {"annealing": 1.5},
        {"guidance_scale": float("nan")},
        {"choice_temperature": float("inf")},
        {"schedule": "cubist"},
        {"order": "sideways"},
        {"finalise": "prayer"},
        {"method": "magic"},
    ],
)
def test_settings_out_of_range_are_one_readable_line(fields: dict) -> None:
    with pytest.raises(UserError) as caught:
        method_settings(**{"method": "early-exit", **fields})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_shapes_that_do_not_fit_are_refused() -> None:
    settings, generator = DecodingSettings(steps=2), torch.Generator()
    with pytest.raises(ValueError, match="grids"):
        next(decode(bigram, torch.full((1, 5), MASK), MASK, settings, [generator], grid=GRID))
    with pytest.raises(ValueError, match="generators"):
        next(decode(bigram, torch.full((2, POSITIONS), MASK), MASK, settings, [generator], grid=GRID))
