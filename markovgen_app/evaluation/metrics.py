"""Measures of quality: pure functions of numbers, tokens, and of what the scorer reads in a picture.

Distances are between sets of scorer features, hence "scene-FD" and not FID. Intervals are 95 % bootstrap intervals over
prompts, paired: every method is resampled with the same prompts. A resample is a row of weights (how often each prompt
was drawn), so that means, Fréchet and kernel distances are matrix products.

    P prompts · M pictures · F features · R resamples
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from ..data.scenes import PLACES, Scene, SceneObject
from ..models.scorer import Detection, Reading

_NEAR = 0.15
"""How far from a named place, along each axis, an object may be (units of the picture's side)."""

_APART = 0.1
"""How much further left (or up) "left of" (or "above") asks for."""

_AXES = 4
"""Axes along which codes are grouped at most: with 3 parts each 81 groups, and 6561 pairs of neighbours."""


class Interval(TypedDict):
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True)
class Judgement:
    """What a picture got right of its prompt.

    Attributes:
        objects: the named nouns, each in the named number and nothing else, and arranged as named.
        style: the named one (none named: none seen).
        background: the named one; None where none is named, and any is right.
        nouns: as `objects`, wherever they are.
        place: they are where the prompt says; None where the nouns are wrong.
        colour: the named tints are there; None where no tint is named or the nouns are wrong.
    """

    objects: bool
    background: bool | None
    style: bool
    nouns: bool
    place: bool | None
    colour: bool | None

    @property
    def prompt(self) -> bool:
        """Objects, background and style right together, as far as they are named."""
        return self.objects and self.background is not False and self.style


def judge(scene: Scene, reading: Reading) -> Judgement:
    """Compare what a picture shows with the scene that its prompt describes.

    Only what the prompt says counts: of a "panda next to a pizza" either may be on the left, a lone panda may stand
    anywhere unless a place is named, a 2×2 grid may hold its four nouns in any order.
    """
    nouns = Counter(item.noun for item in reading.objects) == Counter(scene.nouns)
    place = _place_right(scene, reading.objects) if nouns else None
    tints = Counter((item.noun, item.colour) for item in scene.objects if item.colour)
    seen = Counter((item.noun, item.colour) for item in reading.objects)
    return Judgement(
        objects=nouns and bool(place),
        background=reading.background == scene.background if scene.says_background else None,
        style=reading.style == scene.style,
        nouns=nouns,
        place=place,
        colour=tints <= seen if nouns and tints else None,
    )


def _place_right(scene: Scene, found: Sequence[Detection]) -> bool:
    """Whether objects of the right nouns stand as the prompt says."""
    if scene.layout == "single" and scene.place:
        x, y = PLACES[scene.place]
        return abs(found[0].x - x) <= _NEAR and abs(found[0].y - y) <= _NEAR
    if scene.layout == "pair":
        first, second = (_named(item, found) for item in scene.objects)
        return {
            "left of": second.x - first.x > _APART,
            "right of": first.x - second.x > _APART,
            "above": second.y - first.y > _APART,
            "below": first.y - second.y > _APART,
        }.get(scene.relation or "", True)
    if scene.layout == "row":
        return max(item.y for item in found) - min(item.y for item in found) <= 2 * _NEAR
    if scene.layout == "grid":
        return len({(item.x > 0.5, item.y > 0.5) for item in found}) == len(found)
    return True


def _named(item: SceneObject, found: Sequence[Detection]) -> Detection:
    return next(detection for detection in found if detection.noun == item.noun)


def moments(features: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and covariance (F, F), normalised by M, of features (M, F) with weights (M,) that sum to one."""
    features = np.asarray(features, dtype=np.float64)
    weights = np.full(len(features), 1 / len(features)) if weights is None else weights
    mean = weights @ features
    centred = features - mean
    return mean, (centred * weights[:, None]).T @ centred


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix; rounding errors below zero count as zero."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def frechet_distance(mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """|μa − μb|² + tr(Σa + Σb − 2 (Σb^½ Σa Σb^½)^½), Dowson and Landau (1982), with `root_b` = Σb^½.

    The inner matrix is symmetric, so its root's trace comes from real eigenvalues, singular covariances included.
    """
    inner = np.linalg.eigvalsh(root_b @ covariance_a @ root_b)
    traces = np.trace(covariance_a) + np.square(root_b).sum() - 2 * np.sqrt(inner.clip(0)).sum()
    return float(np.square(mean_a - mean_b).sum() + traces)


def scene_fd(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features (M, F) of two sets of pictures; smaller is closer."""
    mean_b, covariance_b = moments(features_b)
    return frechet_distance(*moments(features_a), mean_b, symmetric_root(covariance_b))


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)


def _kernel(x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    """exp(−|x − y|² / 2σ²) of all pairs of vectors of length one."""
    return np.exp((x @ y.T - 1) / sigma**2)


def cmmd(x: np.ndarray, y: np.ndarray, sigma: float = 10.0, scale: float = 1000.0) -> float:
    """CMMD's estimator (arXiv 2401.09603) on features (M, F): scale · MMD² with a Gaussian kernel.

    As in the authors' code: vectors of length one (what their CLIP returns; ours are normalised here), σ = 10, the
    V-statistic (pairs of a picture with itself included), times 1000.
    """
    x, y = _unit(x), _unit(y)
    within = _kernel(x, x, sigma).mean() + _kernel(y, y, sigma).mean()
    return float(scale * (within - 2 * _kernel(x, y, sigma).mean()))


def psnr(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (B,); pictures in [-1, 1], clamped before."""
    error = (reconstruction.clamp(-1, 1) - pixels).square().flatten(1).mean(dim=1)  # (B, 3, H, W) -> (B, 3HW)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def coarse_codes(codebook: Tensor, levels: int = 3) -> Tensor:
    """Group of each code, (V,) long: each of the D dimensions of codes (V, D) in [-1, 1] cut into `levels` parts.

    Wider codes, of D > 4 as aMUSEd's 64, would have more groups than there are neighbours to count, and lie anywhere:
    they are cut along four fixed random directions instead, each into `levels` parts of equally many codes.
    """
    if codebook.shape[1] > _AXES:
        directions = torch.randn(codebook.shape[1], _AXES, generator=torch.Generator().manual_seed(0))
        along = codebook.float() @ directions.to(codebook.device)  # (V, D) -> (V, 4)
        cuts = along.quantile(torch.arange(1, levels, device=along.device) / levels, dim=0)  # (levels - 1, 4)
        parts = (along > cuts.unsqueeze(1)).sum(dim=0)  # (levels - 1, V, 4) -> (V, 4)
    else:
        parts = ((codebook + 1) / 2 * levels).floor().clamp(0, levels - 1).long()  # (V, D)
    return (parts * levels ** torch.arange(parts.shape[1], device=parts.device)).sum(dim=1)


def bigram_counts(tokens: Tensor, grid: tuple[int, int], groups: Tensor) -> Tensor:
    """How often each pair of groups are neighbours in each picture, (M, 2, K²) float32: left–right, upper–lower.

    Args:
        tokens: (M, n) long, row-major.
        grid: rows and columns.
        groups: (V,) long in [0, K), the group of each code.
    """
    labels = groups[tokens].unflatten(1, grid)  # (M, n) -> (M, h, w)
    k = int(groups.max()) + 1
    pairs = (labels[:, :, :-1] * k + labels[:, :, 1:], labels[:, :-1] * k + labels[:, 1:])
    counts = torch.zeros(len(tokens), 2, k * k)
    for direction, pair in enumerate(pairs):
        pair = pair.flatten(1)  # (M, h, w - 1) or (M, h - 1, w) -> (M, pairs)
        counts[:, direction].scatter_add_(1, pair, torch.ones(pair.shape))
    return counts


def bigram_divergence(counts: Tensor, reference: Tensor) -> Tensor:
    """Jensen–Shannon divergence of tables of neighbours, averaged over the directions, in bits (0 … 1).

    Small tables make it larger than it is: compare methods at the same number of pictures.

    Args:
        counts: (…, 2, K²) as in `bigram_counts`, summed or averaged over pictures.
        reference: (2, K²).

    Returns:
        one divergence a table, (…).
    """
    p, q = (table.double() / table.double().sum(dim=-1, keepdim=True) for table in (counts, reference))
    middle = ((p + q) / 2).clamp_min(1e-300)
    terms = [torch.special.xlogy(side, side / middle).sum(dim=-1) for side in (p, q)]
    return ((terms[0] + terms[1]) / (2 * math.log(2))).mean(dim=-1)


def resamples(prompts: int, count: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap weights (R, P): each row draws P prompts with replacement and sums to one."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=count) / prompts


def percentiles(value: float, resampled: np.ndarray) -> Interval:
    """Percentile interval."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return {"value": float(value), "low": float(low), "high": float(high)}


def centred(value: float, resampled: np.ndarray) -> Interval:
    """Interval of a distance between sets.

    A resample holds fewer different pictures, which pushes every distance up by about the same amount: the resampled
    distances are shifted so that their mean is the distance itself.
    """
    return percentiles(value, resampled - resampled.mean() + value)


def quotient(value: float, resampled: np.ndarray, other: float, resampled_other: np.ndarray) -> Interval:
    """Interval of one distance as a share of another, over the same resamples, both shifted as `centred` does."""
    over = resampled - resampled.mean() + value
    under = resampled_other - resampled_other.mean() + other
    return percentiles(value / other, over / under)


def mean_interval(values: np.ndarray, weights: np.ndarray) -> Interval:
    """Mean of (P,) values with its interval; NaN marks prompts that do not take part (NaN if none does)."""
    mean, resampled = resampled_means(values, weights)
    return percentiles(mean, resampled)


def resampled_means(values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of (P,) values without the NaNs, and the means (R,) under weights (R, P)."""
    values = np.asarray(values, dtype=np.float64)
    counts = ~np.isnan(values)
    if not counts.any():
        return float("nan"), np.full(len(weights), np.nan)
    filled = np.where(counts, values, 0)
    share = weights @ counts
    resampled = np.divide(
        weights @ filled, share, out=np.full(len(weights), filled.sum() / counts.sum()), where=share > 0
    )
    return float(filled.sum() / counts.sum()), resampled


class FrechetReference:
    """Scene-FD to one fixed set of real pictures, of a set and of its resamples.

    Args:
        features: (M, F) of the real pictures.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.mean, covariance = moments(features)
        self.root = symmetric_root(covariance)

    def __call__(self, features: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Distance of features (M, F), each picture weighted by (M,)."""
        return frechet_distance(*moments(features, weights), self.mean, self.root)


class KernelReference:
    """CMMD's estimator against one fixed set of real pictures.

    Args:
        features: (M, F) of the real pictures.
    """

    def __init__(self, features: np.ndarray, sigma: float = 10.0, scale: float = 1000.0) -> None:
        self.features, self.sigma, self.scale = _unit(features), sigma, scale
        self.within = float(_kernel(self.features, self.features, sigma).mean())

    def resampled(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Distances (R,) of features (M, F) under weights (R, M)."""
        features = _unit(features)
        own = np.einsum("rm,rm->r", weights @ _kernel(features, features, self.sigma), weights)
        cross = weights @ _kernel(features, self.features, self.sigma).mean(axis=1)
        return self.scale * (own + self.within - 2 * cross)


class UnbiasedKernelReference:
    """KID (Bińkowski et al., ICLR 2018, arXiv 1801.01401) to one fixed set of real pictures, times 1000.

    The squared MMD with kernel (cos(x, y) + 1)³, pairs of a picture with itself left out: it is near 0, above or below,
    for pictures that are as good as real ones, however few there are, which a Fréchet distance is not. So quotients
    of it say how much nearer one method is than another. The authors' x · y / F is the cosine for features of length
    √F; ours are brought to it, else the cube of the few longest is all that counts.

    Args:
        features: (M, F) of the real pictures.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = _unit(features)
        self.within = float(self._within(self.features, np.full((1, len(features)), 1 / len(features)))[0])

    def resampled(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Distances (R,) of features (M, F) under weights (R, M), each row of which sums to one."""
        features = _unit(features)
        cross = weights @ _cubic(features, self.features).mean(axis=1)
        return 1000 * (self._within(features, weights) + self.within - 2 * cross)

    @staticmethod
    def _within(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        kernel = _cubic(features, features)
        squares = np.square(weights)
        pairs = np.einsum("rm,rm->r", weights @ kernel, weights) - squares @ np.diagonal(kernel)
        return pairs / (1 - squares.sum(axis=1)).clip(1e-12)  # one picture drawn every time has no pairs: 0


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T + 1) ** 3


def over_pictures(weights: np.ndarray, seeds: int) -> np.ndarray:
    """Weights (R, P) of prompts as weights (R, seeds · P) of pictures that lie seed by seed."""
    return np.tile(weights, (1, seeds)) / seeds


def distances(
    distance: Callable[[np.ndarray, np.ndarray], float], features: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """`distance` of features (M, F) under each row of weights (R, M), (R,)."""
    return np.array([distance(features, row) for row in weights])
