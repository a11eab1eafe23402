"""A tiny scorer with random weights, and the outputs of one that makes no error, shared by tests."""

import torch
from torch.nn import functional as F

from markovgen_app.data.vocabulary import BACKGROUNDS, COLOURS, FREQUENT_NOUNS, STYLES
from markovgen_app.models.scorer import Scorer, ScorerOutput
from markovgen_app.training.scorer import Labels, cell_targets


def tiny_scorer(size: int = 128) -> Scorer:
    """A scorer of the frequent-noun world that has learned nothing, for pictures of `size` pixels."""
    torch.manual_seed(0)
    scorer = Scorer(
        nouns=[noun.name for noun in FREQUENT_NOUNS],
        backgrounds=list(BACKGROUNDS),
        styles=list(STYLES),
        colours=list(COLOURS),
        size=size,
        channels=(8, 12, 16),
        blocks=(0, 1, 1),
        width=16,
    )
    return scorer.eval()


def perfect_output(scorer: Scorer, known: Labels) -> ScorerOutput:
    """What a scorer without error would put out."""
    target = cell_targets(known.objects, scorer.cells)
    names, count = scorer.config, len(known.styles)

    def sure(values: torch.Tensor, classes: int) -> torch.Tensor:
        return F.one_hot(values, classes).float() * 20

    return ScorerOutput(
        nouns=sure(target.nouns, len(names.nouns) + 1),
        colours=sure(target.colours, len(names.colours) + 1),
        boxes=target.boxes,
        backgrounds=sure(known.backgrounds, len(names.backgrounds)),
        styles=sure(known.styles, len(names.styles) + 1),
        presence=torch.zeros(count, len(names.nouns)),
        features=torch.zeros(count, 4),
        details=torch.zeros(count, 4),
    )
