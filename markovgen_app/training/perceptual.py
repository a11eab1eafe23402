"""A perceptual loss without a downloaded network: pictures are compared as a network that knows the nouns sees them.

LPIPS (arXiv 1801.03924) compares the features of a network that was trained on photographs; VQGAN's decoder learns
from it. Here the network is one that was trained on rendered scenes (`configs/perceptual.yaml`), and what it reads is
compared, too. It is not the scorer, but of other sizes, another start and other scenes: the scorer never judges what
was trained to please it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.scorer import Scorer, ScorerOutput
from .loop import start_from

_READING = 0.2  # what the difference of the readings, in nats, counts beside that of the features


def load_network(folder: Path, size: int) -> Scorer:
    """The frozen network of an exported scorer's folder; raises UserError if it is not one for pictures of `size`."""
    network = start_from(Scorer, folder, None, size=size)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _divergence(seen: Tensor, wanted: Tensor) -> Tensor:
    """KL divergence in nats of logits (…, K) from the wanted ones, the mean over all but the last axis."""
    classes = seen.shape[-1]
    own, other = (each.reshape(-1, classes).log_softmax(-1) for each in (seen, wanted))  # (…, K) -> (M, K)
    return F.kl_div(own, other, reduction="batchmean", log_target=True)


def difference(seen: ScorerOutput, wanted: ScorerOutput) -> Tensor:
    """How differently two pictures are seen.

    Feature vectors are brought to length 1 at every place, so each block's squared distance is between 0 and 4; the
    blocks' mean is taken, and what is read as nouns, background and style added.
    """
    distances = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean()
        for a, b in zip(seen.maps, wanted.maps, strict=True)
    ]
    readings = [
        _divergence(a, b)
        for a, b in (
            (seen.nouns, wanted.nouns),
            (seen.styles, wanted.styles),
            (seen.backgrounds, wanted.backgrounds),
        )
    ]
    return torch.stack(distances).mean() + _READING * torch.stack(readings).sum()


def perceptual_loss(network: Scorer, reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """The difference between reconstructions and pictures (B, 3, H, W) in [-1, 1], as the frozen network sees them."""
    with torch.no_grad():
        wanted = network(pixels)
    return difference(network(reconstruction), wanted)
