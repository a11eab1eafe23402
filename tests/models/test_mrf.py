"""The Markov random field against brute force on tiny grids, its algebra, and its place in the decoding loop."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from markovgen_app.decoding.finalise import MeanField
from markovgen_app.decoding.sampler import decode, method_settings
from markovgen_app.models.mrf import PARAMETRISATIONS, MarkovRandomField

GRID = (2, 2)
LABELS = 3
FAR = "directional with far kernels"
every_form = pytest.mark.parametrize("form", (*PARAMETRISATIONS, FAR))


def new_field(form, *sizes, **options):
    if form == FAR:
        form, options = "directional", {"far_kernels": 2, "far_rank": 2, **options}
    return MarkovRandomField(form, *sizes, **options)


def field(form, labels=LABELS, grid=GRID, rank=2, neighbourhood=3, scale=0.7, seed=0, **options):
    """A field with random weights (no symmetry) in float64."""
    generator = torch.Generator().manual_seed(seed)
    mrf = new_field(form, labels, grid, rank, neighbourhood, **options).double()
    with torch.no_grad():
        for parameter in mrf.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return mrf.requires_grad_(False)


def symmetric_field(seed=0, scale=1.0):
    """A dense field with w_ij(l, l') = w_ji(l', l), whose largest |eigenvalue| is `scale`."""
    mrf = field("dense", seed=seed)
    with torch.no_grad():
        for matrix in (mrf.spatial, mrf.sender):
            matrix.copy_((matrix + matrix.T) / 2)
        mrf.spatial.fill_diagonal_(0)
        for matrix in (mrf.spatial, mrf.sender):
            matrix.div_(torch.linalg.matrix_norm(matrix, ord=2) / scale**0.5)
    return mrf


def random_logits(batch=1, sites=4, labels=LABELS, seed=1):
    return torch.randn(batch, sites, labels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coupling(mrf, i, j, label, other):
    """w_ij(l, l') from the formulas, number by number."""
    if i == j:
        return 0.0
    form = mrf.config.parametrisation
    if form == "dense":
        return float(mrf.spatial[i, j] * mrf.sender[other, label])
    if form == "low-rank":
        return float(mrf.spatial[i, j] * (mrf.receiver[label] * mrf.sender[other]).sum())
    width, rank = mrf.grid[1], mrf.config.rank
    reach = mrf.config.neighbourhood // 2
    down, right = j // width - i // width, j % width - i % width
    heard, sent, total = mrf.receiver[label], mrf.sender[other], 0.0
    if max(abs(down), abs(right)) <= reach:
        total += float(heard[:rank] @ mrf.spatial[:, down + reach, right + reach] @ sent[:rank])
    for kernel in range(mrf.config.far_kernels):
        part = slice(rank + kernel * mrf.config.far_rank, rank + (kernel + 1) * mrf.config.far_rank)
        total += float(mrf.far[kernel, i, j] * (heard[part] @ sent[part]))
    return total


def coupling_table(mrf):
    """w as (i, l, j, l')."""
    sites, labels = mrf.grid[0] * mrf.grid[1], mrf.config.codebook_size
    table = torch.zeros(sites, labels, sites, labels, dtype=torch.float64)
    for i, k, j, m in itertools.product(range(sites), range(labels), range(sites), range(labels)):
        table[i, k, j, m] = coupling(mrf, i, j, k, m)
    return table


def all_states(sites=4, labels=LABELS):
    return torch.tensor(list(itertools.product(range(labels), repeat=sites)))


def brute_energy(table, state, logits):
    """E(x) of one state under logits (n, V), by the double sum."""
    sites = range(len(state))
    unary = sum(logits[i, state[i]] for i in sites)
    pairs = sum(table[i, state[i], j, state[j]] for i, j in itertools.product(sites, sites))
    return -unary - pairs / 2


@every_form
def test_energy_is_the_double_sum(form):
    mrf, logits, states = field(form), random_logits(), all_states()
    table = coupling_table(mrf)
    expected = torch.stack([brute_energy(table, state, logits[0]) for state in states])
    torch.testing.assert_close(mrf.energy(states, logits.expand(len(states), -1, -1)), expected)


@every_form
@pytest.mark.parametrize("grid", [(2, 2), (1, 4), (3, 2)])
def test_conditionals_and_updates_are_sums_over_the_neighbours(form, grid):
    sites = grid[0] * grid[1]
    mrf, logits = field(form, grid=grid), random_logits(2, sites)
    table = coupling_table(mrf)
    tokens = torch.randint(LABELS, (2, sites), generator=torch.Generator().manual_seed(2))
    one_hot = torch.nn.functional.one_hot(tokens, LABELS).double()
    heard = torch.einsum("ikjm,bjm->bik", table, one_hot)
    torch.testing.assert_close(mrf.conditional_logits(logits, tokens), logits + heard)
    for damping in (0.0, 0.4):
        refined = logits
        for iterations in range(1, 4):
            update = logits + torch.einsum("ikjm,bjm->bik", table, refined.softmax(-1))
            refined = damping * refined + (1 - damping) * update
            torch.testing.assert_close(mrf(logits, iterations=iterations, damping=damping), refined)


def test_conditionals_are_those_of_the_energy_where_weights_are_symmetric():
    mrf, logits, states = symmetric_field(scale=3.0), random_logits(), all_states()
    table = coupling_table(mrf)
    weights = torch.stack([-brute_energy(table, state, logits[0]) for state in states]).exp()
    conditional = mrf.conditional_logits(logits.expand(len(states), -1, -1), states).softmax(-1)
    for site in range(4):
        others = [place for place in range(4) if place != site]
        for row, state in enumerate(states):
            alike = (states[:, others] == state[others]).all(1)  # one state a label of `site`, in the labels' order
            torch.testing.assert_close(conditional[row, site], weights[alike] / weights[alike].sum())


@every_form
def test_a_token_does_not_see_itself(form):
    mrf, logits = field(form, grid=(2, 3)), random_logits(sites=6)
    tokens = torch.tensor([[0, 1, 2, 2, 1, 0]])
    before = mrf.conditional_logits(logits, tokens)
    for site in range(6):
        changed = tokens.clone()
        changed[0, site] = (tokens[0, site] + 1) % LABELS
        after = mrf.conditional_logits(logits, changed)
        assert torch.equal(before[0, site], after[0, site]) and not torch.equal(before, after)


def test_free_energy_is_the_mean_energy_less_the_entropy_and_bounds_the_partition_function():
    mrf, logits, states = symmetric_field(scale=2.0), random_logits(), all_states()
    table = coupling_table(mrf)
    energies = torch.stack([brute_energy(table, state, logits[0]) for state in states])
    marginals = random_logits(seed=5).softmax(-1)
    chance = marginals[0, torch.arange(4), states].prod(1)  # (states,)
    expected = (chance * (energies + chance.log())).sum()
    torch.testing.assert_close(mrf.free_energy(marginals, logits)[0], expected)
    assert expected > -(-energies).logsumexp(0)
    sharp = torch.nn.functional.one_hot(states[7:8], LABELS).double()
    torch.testing.assert_close(mrf.free_energy(sharp, logits)[0], energies[7])


def test_mean_field_ends_in_a_stationary_point_of_the_free_energy():
    mrf, logits = symmetric_field(scale=2.0), random_logits()
    refined = mrf(logits, iterations=500, damping=0.7)
    torch.testing.assert_close(mrf(logits, iterations=501, damping=0.7), refined)
    free = refined.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mrf.free_energy(free.softmax(-1), logits).sum(), free)
    assert slope.abs().max() < 1e-9


def test_marginals_come_nearer_to_the_exact_ones_and_meet_them_as_couplings_weaken():
    logits, states = random_logits(), all_states()
    gaps = []
    for scale in (0.4, 0.2):
        mrf = symmetric_field(seed=3, scale=scale)
        table = coupling_table(mrf)
        chance = torch.stack([-brute_energy(table, state, logits[0]) for state in states]).softmax(0)
        one_hot = torch.nn.functional.one_hot(states, LABELS).double()  # (states, n, V)
        exact = torch.einsum("s,snv->nv", chance, one_hot)
        gap = (mrf(logits, iterations=50)[0].softmax(-1) - exact).abs().max()
        assert gap < 0.5 * (logits[0].softmax(-1) - exact).abs().max()
        gaps.append(gap)
    assert gaps[1] < 0.3 * gaps[0]  # the error of mean field is of second order in the couplings


@given(
    seed=st.integers(0, 10_000),
    damping=st.floats(0.3, 0.9),
    temperature=st.floats(0.1, 5.0),
    repulsive=st.booleans(),
)
def test_free_energy_does_not_rise_under_damped_updates(seed, damping, temperature, repulsive):
    mrf, scale = symmetric_field(seed=seed), damping / (1 - damping)
    if repulsive:  # all tokens want to differ from all others: parallel updates without damping swing
        mrf.spatial.copy_((1 - torch.eye(4)) / 3)
        mrf.sender.copy_(-torch.eye(LABELS))
    mrf.sender.mul_(scale)  # the largest |eigenvalue| of w
    logits = random_logits(seed=seed + 1) / temperature
    path = [logits] + [mrf(logits, iterations=count, damping=damping) for count in range(1, 9)]
    energies = torch.cat([mrf.free_energy(step.softmax(-1), logits) for step in path])
    assert (energies.diff() <= 1e-10).all()


def test_damping_settles_what_oscillates_without_it():
    mrf = field("dense", labels=2, grid=(1, 2))
    mrf.spatial.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    mrf.sender.copy_(-6 * torch.eye(2))  # two neighbours that both lean to label 0 and must not agree
    logits = torch.tensor([[[0.5, 0.0], [0.5, 0.0]]], dtype=torch.float64)

    def late_change(damping):
        late = [mrf(logits, iterations=count, damping=damping).softmax(-1) for count in (60, 61)]
        return (late[0] - late[1]).abs().max()

    assert late_change(0.0) > 0.5 and late_change(0.8) < 1e-6


@every_form
@pytest.mark.parametrize("job", ["mean field", "shortlist", "conditionals", "energies"])
def test_gradients_are_right(form, job):
    mrf = field(form, iterations=2, damping=0.3)
    weights = {name: parameter.clone().requires_grad_() for name, parameter in mrf.named_parameters()}
    tokens = torch.tensor([[0, 2, 1, 0]])
    fixed = torch.tensor([[True, False, False, False]])

    class Job(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mrf = mrf

        def forward(self, logits):
            if job == "conditionals":
                return self.mrf.conditional_logits(logits, tokens)
            if job == "energies":
                return self.mrf.energy(tokens, logits) + self.mrf.free_energy(logits.softmax(-1), logits)
            return self.mrf(logits, tokens, fixed, top_k=2 if job == "shortlist" else None)

    def value(logits, *values):
        return functional_call(
            Job(), {f"mrf.{name}": tensor for name, tensor in zip(weights, values, strict=True)}, logits
        )

    assert torch.autograd.gradcheck(value, (random_logits().requires_grad_(), *weights.values()))


def test_low_rank_is_dense_at_full_rank():
    dense, low = field("dense", labels=5, grid=(2, 3)), field("low-rank", labels=5, grid=(2, 3), rank=5)
    left, values, right = torch.linalg.svd(
        dense.sender
    )  # c(l, l') = sum over r of B_lr A_l'r, sender[l', l] = c(l, l')
    low.spatial.copy_(dense.spatial)
    low.sender.copy_(left * values)
    low.receiver.copy_(right.T)
    same_field(dense, low)


def test_directional_is_dense_where_the_kernel_is_a_product():
    dense, directional = (field(form, grid=(2, 3), rank=LABELS, neighbourhood=5) for form in ("dense", "directional"))
    weight = torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)  # of every offset
    for i, j in itertools.product(range(6), range(6)):
        dense.spatial[i, j] = weight[j // 3 - i // 3 + 2, j % 3 - i % 3 + 2]
    directional.sender.copy_(torch.eye(LABELS))
    directional.receiver.copy_(torch.eye(LABELS))
    directional.spatial.copy_(torch.einsum("ml,rc->lrcm", dense.sender, weight))
    same_field(dense, directional)


def same_field(one, other):
    sites, labels = one.grid[0] * one.grid[1], one.config.codebook_size
    logits = random_logits(2, sites, labels)
    tokens = torch.randint(labels, (2, sites), generator=torch.Generator().manual_seed(6))
    fixed = torch.rand(2, sites, generator=torch.Generator().manual_seed(7)) < 0.4
    for options in ({}, {"damping": 0.5}, {"top_k": 2}):
        torch.testing.assert_close(one(logits, tokens, fixed, **options), other(logits, tokens, fixed, **options))
    torch.testing.assert_close(one.conditional_logits(logits, tokens), other.conditional_logits(logits, tokens))
    torch.testing.assert_close(one.energy(tokens, logits), other.energy(tokens, logits))
    marginals = logits.softmax(-1)
    torch.testing.assert_close(one.free_energy(marginals, logits), other.free_energy(marginals, logits))


@every_form
def test_committed_tokens_send_their_label_and_receive_nothing(form):
    mrf, logits = field(form), random_logits()
    mask_token = LABELS
    tokens = torch.tensor([[1, mask_token, mask_token, 0]])
    fixed = tokens != mask_token
    refined = mrf(logits, tokens, fixed)
    assert torch.equal(refined[fixed], logits[fixed])
    other = tokens.clone()
    other[0, 0] = 2
    assert (mrf(logits, other, fixed) - refined)[~fixed].abs().min() > 1e-4
    certain = torch.full_like(logits[0, :1], -1e4)
    certain[0, 1] = 0.0  # a committed token is one whose logits leave no doubt
    sure = logits.clone()
    sure[0, 0] = certain
    only_first = torch.tensor([[True, False, False, False]])
    torch.testing.assert_close(
        mrf(logits, tokens, only_first, iterations=1)[0, 1:], mrf(sure, iterations=1)[0, 1:], atol=1e-9, rtol=0
    )


@every_form
@pytest.mark.parametrize("top_k", [None, 2])
def test_what_fixing_tells_is_the_change_of_one_update_and_adds_up(form, top_k):
    mrf, logits = field(form), random_logits(3)
    tokens = torch.tensor([[1, 2, 0, 0], [0, 1, 2, 2], [2, 2, 1, 0]])
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    first, second = (
        nothing.index_put((torch.arange(2), torch.tensor(at)), torch.tensor(True)) for at in ([0, 3], [1, 0])
    )
    undecided = ~(first | second)  # 2 of the first two rows, all of the third

    def heard(fixed):
        return (mrf(logits, tokens, fixed, iterations=1, top_k=top_k) - logits)[undecided]

    def told(fixed):
        return mrf.told(mrf.expected(logits, ~nothing, top_k), tokens, fixed, undecided)

    torch.testing.assert_close(told(first), heard(first) - heard(nothing))
    torch.testing.assert_close(told(first | second), heard(first | second) - heard(nothing))
    torch.testing.assert_close(told(first) + told(second), told(first | second))
    assert told(nothing).abs().max() == 0 and told(first).abs().max() > 1e-3


@every_form
def test_all_or_nothing_committed(form):
    mrf, logits = field(form), random_logits(2)
    tokens = torch.zeros(2, 4, dtype=torch.long)
    for top_k in (None, 2):
        all_fixed = mrf(logits, tokens, torch.ones(2, 4, dtype=torch.bool), top_k=top_k)
        assert torch.equal(all_fixed, logits)
        none_fixed = mrf(logits, tokens + LABELS, torch.zeros(2, 4, dtype=torch.bool), top_k=top_k)
        assert torch.equal(none_fixed, mrf(logits, top_k=top_k))


@every_form
def test_shortlist_is_exact_where_it_holds_all_the_mass(form):
    mrf, logits = field(form, labels=6), random_logits(2, labels=6)
    logits[..., [1, 4]] -= 1e4  # and no coupling brings these back
    exact = mrf(logits, iterations=4, damping=0.2)
    torch.testing.assert_close(mrf(logits, iterations=4, damping=0.2, top_k=4), exact)
    assert torch.equal(mrf(logits, iterations=4, damping=0.2, top_k=6), exact)
    assert not torch.allclose(mrf(logits, iterations=4, damping=0.2, top_k=2), exact)


@every_form
def test_rows_of_a_batch_do_not_see_each_other(form):
    mrf, logits = field(form), random_logits(3)
    tokens = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1], [0, 0, 0, 1]])
    fixed = torch.tensor([[True, False, False, False], [False] * 4, [True, True, False, True]])
    together = mrf(logits, tokens, fixed, top_k=2)
    for row in range(3):
        one = slice(row, row + 1)
        torch.testing.assert_close(mrf(logits[one], tokens[one], fixed[one], top_k=2), together[one])


@every_form
def test_a_new_field_is_silent_and_can_learn(form):
    mrf = new_field(form, LABELS, GRID, 2, 3)
    logits = random_logits().float()
    assert torch.equal(mrf(logits), logits)
    tokens = torch.tensor([[0, 1, 2, 0]])
    optimiser = torch.optim.Adam(mrf.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(mrf.conditional_logits(logits, tokens)[0], tokens[0])
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def decoded(transformer, inference, seed=3, **options):
    generator = torch.Generator().manual_seed(9)
    states, pooled = torch.randn(2, 5, 384, generator=generator), torch.randn(2, 384, generator=generator)
    real = torch.ones(2, 5, dtype=torch.bool)
    tokens = torch.full((2, 16), transformer.mask_token_id)
    tokens[1, :5] = torch.arange(5)  # the second row is an inpainting job
    return list(
        decode(
            lambda tokens, step: transformer(tokens, states, real, pooled),
            tokens,
            transformer.mask_token_id,
            method_settings("early-exit", 8, 4, **options),
            [torch.Generator().manual_seed(seed + row) for row in range(2)],
            grid=transformer.grid,
            inference=inference,
        )
    )


@every_form
@pytest.mark.parametrize("clamp", [True, False])
def test_zero_weights_reproduce_early_exit_bit_for_bit(form, clamp, tiny_transformer):
    mrf = new_field(form, 240, (4, 4), 8, 3)
    plain = decoded(tiny_transformer, None)
    for top_k, damping in ((None, 0.0), (5, 0.5)):
        refined = decoded(tiny_transformer, MeanField(mrf, iterations=3, damping=damping, top_k=top_k, clamp=clamp))
        for before, after in zip(plain, refined, strict=True):
            for name in ("tokens", "predicted", "mask", "confidence", "logits"):
                assert torch.equal(getattr(before, name), getattr(after, name))


@every_form
@pytest.mark.parametrize("alone", [True, False])
def test_a_decimation_is_what_one_update_after_each_round_makes_of_it(form, alone, tiny_transformer):
    """By the definition: messages after what was fixed, less those from before the exit, of rows with other counts."""
    mrf = field(form, labels=240, grid=(4, 4), rank=8, scale=1.5)
    options = {"finalise": "decimate", "mrf_iterations": 3}
    told = decoded(tiny_transformer, MeanField(mrf, alone=alone), **options)[-1]
    before = decoded(tiny_transformer, None)[-2].mask
    fixed_before = []

    class Defined:
        def expect(self, logits, undecided):
            return logits

        def tell(self, logits, tokens, fixed, undecided):
            fixed_before.append(fixed)
            gone = torch.stack(fixed_before).any(0)
            new = mrf(logits, tokens, ~before | gone, iterations=1) - mrf(logits, tokens, ~before, iterations=1)
            total.append(new)
            return (new - (total[-2] if len(total) > 1 else 0))[undecided]

    total = []
    defined = decoded(tiny_transformer, Defined(), **options)[-1]
    assert len(total) == 3 and before.sum(1)[0] != before.sum(1)[1]
    assert told.tokens.equal(defined.tokens) and not told.tokens.equal(told.plain)
    torch.testing.assert_close(told.logits, defined.logits, atol=1e-4, rtol=1e-4)


@every_form
@pytest.mark.parametrize("clamp", [True, False])
def test_the_field_changes_undecided_tokens_at_the_exit_alone(form, clamp, tiny_transformer):
    mrf = field(form, labels=240, grid=(4, 4), rank=8, scale=1.5)
    plain, refined = decoded(tiny_transformer, None), decoded(tiny_transformer, MeanField(mrf, clamp=clamp))
    for before, after in zip(plain[:-1], refined[:-1], strict=True):
        assert torch.equal(before.predicted, after.predicted)
    undecided = plain[-2].mask
    changed = plain[-1].tokens != refined[-1].tokens
    assert changed.any() and not (changed & ~undecided).any()
    assert torch.equal(plain[-1].logits[~undecided], refined[-1].logits[~undecided])


@every_form
def test_save_and_load(form, tmp_path):
    mrf = field(form, iterations=4, damping=0.25).float()
    mrf.save_pretrained(tmp_path)
    again = MarkovRandomField.from_pretrained(tmp_path)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    assert again.grid == GRID and again.config.iterations == 4
    kept, loaded = mrf.state_dict(), again.state_dict()
    assert kept.keys() == loaded.keys() and all(torch.equal(kept[name], loaded[name]) for name in kept)
    logits = random_logits().float()
    torch.testing.assert_close(again(logits), mrf(logits, iterations=4, damping=0.25))


@every_form
def test_half_precision_is_computed_in_float32(form):
    mrf, logits = field(form).float(), random_logits().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mrf(logits)
    assert torch.equal(inside, mrf(logits))
    half = mrf.to(torch.bfloat16)(logits.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, inside, atol=0.1, rtol=0)


def test_what_does_not_fit_is_refused_in_one_line():
    mrf = field("low-rank")
    logits, tokens, fixed = random_logits(), torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool)
    refused = {
        "2 × 2 tokens of 3 codes": [
            lambda: mrf(random_logits(sites=6)),
            lambda: mrf(random_logits(labels=5)),
            lambda: mrf(logits[0]),
            lambda: mrf.conditional_logits(random_logits(labels=5), tokens),
            lambda: mrf.energy(tokens, random_logits(sites=6)),
            lambda: mrf.free_energy(random_logits(labels=5), logits),
        ],
        "do not fit": [lambda: mrf(logits, tokens[:, :3], fixed[:, :3]), lambda: mrf.energy(tokens[:, :3], logits)],
        "does not fit": [
            lambda: mrf(logits, tokens, fixed[:, :1]),
            lambda: mrf.told(mrf.expected(logits, fixed), tokens, fixed[:, :1], fixed),
            lambda: mrf.told(mrf.expected(logits, fixed), tokens, fixed, fixed[:, :1]),
        ],
        "go together": [lambda: mrf(logits, tokens), lambda: mrf(logits, fixed_mask=fixed)],
        "0 to 2": [lambda: mrf(logits, tokens + 3, fixed), lambda: mrf.conditional_logits(logits, tokens - 1)],
        "iterations": [
            lambda: mrf(logits, iterations=0),
            lambda: MeanField(mrf, iterations=-1),
            lambda: field("dense", iterations=0),
        ],
        "damping": [lambda: mrf(logits, damping=1.0), lambda: MeanField(mrf, damping=-0.1)],
        "Top-k": [
            lambda: mrf(logits, top_k=0),
            lambda: MeanField(mrf, top_k=0),
            lambda: mrf.expected(logits, fixed, top_k=0),
        ],
        "dense, low-rank, directional": [lambda: field("potts")],
        "Far kernels": [lambda: field("dense", far_kernels=1), lambda: field("directional", far_kernels=-1)],
        "odd": [lambda: field("directional", neighbourhood=4), lambda: field("low-rank", rank=0)],
    }
    for words, calls in refused.items():
        for call in calls:
            with pytest.raises(ValueError, match=words) as caught:
                call()
            assert "\n" not in str(caught.value)
