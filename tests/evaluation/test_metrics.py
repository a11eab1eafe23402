"""Metrics against closed forms, scipy, and each other."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from markovgen_app.data.scenes import Scene, SceneObject
from markovgen_app.evaluation import metrics
from markovgen_app.models.scorer import Detection, Reading
from markovgen_app.models.tokenizer import ImageTokenizer

seeds = st.integers(0, 2**32 - 1)


def features(seed, count=200, width=6, shift=0.0, scale=1.0):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(width, width))
    return generator.normal(size=(count, width)) @ mixing * scale + shift


@given(seed=seeds)
def test_frechet_distance_agrees_with_scipy(seed):
    a, b = features(seed), features(seed + 1, shift=0.5)
    (mean_a, cov_a), (mean_b, cov_b) = metrics.moments(a), metrics.moments(b)
    root = sqrtm(cov_a @ cov_b).real
    expected = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.scene_fd(a, b) == pytest.approx(expected, rel=1e-6)


def test_moments_agree_with_numpy():
    x = features(0)
    mean, covariance = metrics.moments(x)
    assert np.allclose(mean, x.mean(axis=0)) and np.allclose(covariance, np.cov(x.T, bias=True))


@given(seed=seeds)
def test_distances_are_zero_for_equal_sets_and_symmetric(seed):
    a, b = features(seed), features(seed + 1, shift=1)
    assert metrics.scene_fd(a, a) == pytest.approx(0, abs=1e-6)
    assert metrics.scene_fd(a, b) == pytest.approx(metrics.scene_fd(b, a), rel=1e-6)
    assert metrics.cmmd(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.cmmd(a, b) == pytest.approx(metrics.cmmd(b, a))
    assert metrics.cmmd(a, b) > 0


def test_frechet_distance_of_a_shift_is_its_square_even_with_singular_covariances():
    a = np.zeros((50, 8))
    a[:, :2] = features(0, 50, 2)
    assert metrics.scene_fd(a, a + 2) == pytest.approx(8 * 4)


def test_cmmd_by_the_sum_over_pairs():
    x, y = features(1, 7), features(2, 5, shift=0.3)
    unit_x, unit_y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))

    def mean_kernel(a, b):
        return np.mean([[np.exp(-np.square(p - q).sum() / (2 * 10**2)) for q in b] for p in a])

    expected = mean_kernel(unit_x, unit_x) + mean_kernel(unit_y, unit_y) - 2 * mean_kernel(unit_x, unit_y)
    assert metrics.cmmd(x, y) == pytest.approx(1000 * expected)
    assert metrics.cmmd(3 * x, y) == pytest.approx(metrics.cmmd(x, y))


@given(seed=seeds)
def test_weighted_distances_equal_those_of_repeated_pictures(seed):
    a, b = features(seed, 12), features(seed + 1, 30, shift=0.4)
    counts = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12))
    repeated, weights = np.repeat(a, counts, axis=0), counts[None] / 12
    assert metrics.FrechetReference(b)(a, weights[0]) == pytest.approx(metrics.scene_fd(repeated, b), abs=1e-6)
    assert metrics.KernelReference(b).resampled(a, weights)[0] == pytest.approx(metrics.cmmd(repeated, b), abs=1e-9)


@given(seed=seeds)
def test_kid_by_the_sum_over_pairs(seed):
    a, b = features(seed, 7), features(seed + 1, 9, shift=0.4)

    def kernel(p, q):
        return (p @ q / np.linalg.norm(p) / np.linalg.norm(q) + 1) ** 3

    def within(x):
        return np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j])

    expected = 1000 * (within(a) + within(b) - 2 * np.mean([[kernel(p, q) for q in b] for p in a]))
    reference, equal = metrics.UnbiasedKernelReference(b), np.full((1, 7), 1 / 7)
    assert reference.resampled(a, equal)[0] == pytest.approx(expected)
    left_out = np.array([[1 / 6] * 6 + [0]])
    assert reference.resampled(a, left_out)[0] == pytest.approx(reference.resampled(a[:6], np.full((1, 6), 1 / 6))[0])
    assert np.isfinite(reference.resampled(a, np.eye(7))).all()


def test_kid_has_no_bias_where_few_pictures_are_as_good_as_real_ones():
    trials, equal, draw = 300, np.full((1, 20), 1 / 20), np.random.default_rng(0)
    found = np.empty((2, trials))
    for trial in range(trials):
        real, as_good = draw.normal(size=(60, 6)), draw.normal(size=(20, 6))
        reference = metrics.UnbiasedKernelReference(real)
        found[:, trial] = [reference.resampled(each, equal)[0] for each in (as_good, as_good + 0.5)]
    errors = found.std(axis=1) / trials**0.5
    assert abs(found[0].mean()) < 4 * errors[0] and found[1].mean() > 10 * errors[1]


def test_bootstrap_interval_of_a_mean_covers_as_often_as_it_says():
    covered, trials = 0, 200
    for trial in range(trials):
        values = np.random.default_rng(trial).normal(3, 2, size=80)
        found = metrics.mean_interval(values, metrics.resamples(80, 400, seed=trial))
        covered += found["low"] <= 3 <= found["high"]
        assert found["low"] <= found["value"] <= found["high"]
    assert 0.88 <= covered / trials <= 0.99


def test_bootstrap_is_seeded_and_draws_whole_prompts():
    weights = metrics.resamples(10, 50, seed=3)
    assert np.array_equal(weights, metrics.resamples(10, 50, seed=3))
    assert weights.shape == (50, 10) and np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights * 10, np.round(weights * 10))
    pictures = metrics.over_pictures(weights, 3)
    assert pictures.shape == (50, 30) and np.allclose(pictures.sum(axis=1), 1)


def test_means_leave_out_what_does_not_apply():
    values, weights = np.array([1.0, np.nan, 0.0, np.nan]), metrics.resamples(4, 100)
    found = metrics.mean_interval(values, weights)
    assert found["value"] == 0.5 and 0 <= found["low"] <= found["high"] <= 1
    assert np.isnan(metrics.mean_interval(np.full(4, np.nan), weights)["value"])


def test_centred_intervals_hold_their_value():
    found = metrics.centred(2.0, np.random.default_rng(0).normal(5, 1, 1000))
    assert found["low"] < found["value"] == 2.0 < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96, rel=0.1)


def test_bigram_counts_by_hand():
    tokens = torch.tensor([[0, 1, 2, 1]])  # rows 0 1 / 2 1
    counts = metrics.bigram_counts(tokens, (2, 2), torch.arange(3)).unflatten(2, (3, 3))[0]
    assert counts.sum(dim=(1, 2)).tolist() == [2, 2]
    assert counts[0, 0, 1] == counts[0, 2, 1] == 1  # left, right
    assert counts[1, 0, 2] == counts[1, 1, 1] == 1  # upper, lower


def test_bigram_divergence_is_zero_for_equal_and_one_for_disjoint_tables():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 4, (20, 16), generator=generator)
    each = metrics.bigram_counts(tokens, (4, 4), torch.arange(8))
    counts, groups = each.sum(dim=0), torch.arange(8)
    other = metrics.bigram_counts(tokens + 4, (4, 4), groups).sum(dim=0)
    shuffled = metrics.bigram_counts(tokens.sort(dim=1).values, (4, 4), groups).sum(dim=0)
    assert metrics.bigram_divergence(counts, counts * 3) == pytest.approx(0, abs=1e-12)
    assert metrics.bigram_divergence(counts, other) == pytest.approx(1)
    assert 0 < metrics.bigram_divergence(shuffled, counts) < 1
    several = metrics.bigram_divergence(torch.stack([counts, other, shuffled]), counts)
    assert several.tolist() == [float(metrics.bigram_divergence(t, counts)) for t in (counts, other, shuffled)]


def test_coarse_codes_part_each_dimension():
    codebook = torch.cartesian_prod(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 4))
    groups = metrics.coarse_codes(codebook)
    assert set(groups.tolist()) == set(range(9))
    assert groups[0] == 0 and groups[-1] == 8


def test_codes_of_digits_are_grouped_by_all_of_them():
    levels = (8, 8, 8, 4)
    groups = metrics.coarse_codes(ImageTokenizer(levels=levels).codebook)
    for code, digits in enumerate(product(*map(range, levels))):
        low, high = (
            [min(2, int(3 * digit / (level - 1) + nudge)) for digit, level in zip(digits, levels, strict=True)]
            for nudge in (-1e-5, 1e-5)
        )
        found = [int(groups[code]) // 3**place % 3 for place in range(4)]
        assert all(part in both for part, *both in zip(found, low, high, strict=True))


def test_wide_codes_fall_into_few_groups_of_like_codes():
    codebook = torch.randn(8192, 64, generator=torch.Generator().manual_seed(1)) * 0.02
    groups = metrics.coarse_codes(codebook)
    sizes = groups.bincount()
    assert len(sizes) == 81 and sizes.min() > 30 and sizes.max() < 300  # 101 each on average
    assert metrics.coarse_codes(codebook * 50 + 3).eq(groups).float().mean() > 0.99, "wherever the codes lie"
    moved = codebook + torch.randn(8192, 64, generator=torch.Generator().manual_seed(2)) * 1e-4
    assert metrics.coarse_codes(moved).eq(groups).float().mean() > 0.95
    tokens = torch.randint(8192, (3, 256), generator=torch.Generator().manual_seed(3))
    counts = metrics.bigram_counts(tokens, (16, 16), groups)
    assert counts.shape == (3, 2, 81**2) and counts.sum(dim=2).eq(240).all()


def scene(layout, *objects, **more):
    items = tuple(SceneObject(noun, x, y, 0.4, colour) for noun, x, y, colour in objects)
    return Scene(items, "snow", 0, more.pop("style", None), layout, **more)


def reading(*objects, background="snow", style=None):
    return Reading(tuple(Detection(n, x, y, 0.4, colour, 1.0) for n, x, y, colour in objects), background, style)


PANDA, PIZZA = ("panda", 0.27, 0.5, None), ("pizza", 0.73, 0.5, None)
SWAPPED = ("panda", 0.73, 0.5, None), ("pizza", 0.27, 0.5, None)


@pytest.mark.parametrize(
    ("wanted", "seen", "nouns", "objects"),
    [
        (scene("single", ("panda", 0.5, 0.5, None)), reading(PANDA), True, True),
        (scene("single", PANDA, place="on the left"), reading(PANDA), True, True),
        (scene("single", PANDA, place="on the left"), reading(SWAPPED[0]), True, False),
        (scene("single", PANDA), reading(PANDA, PANDA), False, False),
        (scene("single", PANDA), reading(PIZZA), False, False),
        (scene("single", PANDA), reading(), False, False),
        (scene("empty"), reading(), True, True),
        (scene("pair", PANDA, PIZZA, relation="left of"), reading(PIZZA, PANDA), True, True),
        (scene("pair", PANDA, PIZZA, relation="left of"), reading(*SWAPPED), True, False),
        (scene("pair", PANDA, PIZZA, relation="next to"), reading(*SWAPPED), True, True),
        (scene("pair", PANDA, PIZZA, relation="above"), reading(PANDA, PIZZA), True, False),
        (scene("count", PANDA, SWAPPED[0]), reading(PANDA, SWAPPED[0]), True, True),
        (scene("count", PANDA, SWAPPED[0]), reading(PANDA), False, False),
        (scene("row", PANDA, PIZZA), reading(PANDA, ("pizza", 0.7, 0.9, None)), True, False),
        (scene("grid", PANDA, PIZZA), reading(PANDA, ("pizza", 0.3, 0.3, None)), True, False),
    ],
)
def test_objects_are_judged_by_noun_number_and_named_place(wanted, seen, nouns, objects):
    judged = metrics.judge(wanted, seen)
    assert (judged.nouns, judged.objects) == (nouns, objects)
    assert judged.prompt == objects  # background and style agree
    assert judged.place is None or nouns


def test_background_style_and_colour_are_judged_apart():
    blue = ("panda", 0.5, 0.5, "blue")
    wanted = scene("single", blue, style="neon")
    judged = metrics.judge(wanted, reading(blue, background="sea", style="neon"))
    assert (judged.objects, judged.background, judged.style, judged.colour) == (True, False, True, True)
    assert not judged.prompt
    judged = metrics.judge(wanted, reading(("panda", 0.5, 0.5, None), style=None))
    assert (judged.background, judged.style, judged.colour) == (True, False, False)
    assert metrics.judge(replace(wanted, style=None), reading(blue)).prompt
    judged = metrics.judge(replace(wanted, says_background=False), reading(blue, background="sea", style="neon"))
    assert judged.background is None and judged.prompt
    assert metrics.judge(scene("single", PANDA), reading(PANDA)).colour is None
