"""Tables of codes that share what their digits share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.training.digits import digit_features, tie, untied

LEVELS, CODES, GRID = (4, 3), 12, (4, 4)


def field(parametrisation: str = "directional") -> MarkovRandomField:
    torch.manual_seed(0)
    return MarkovRandomField(parametrisation, CODES, GRID, rank=5, neighbourhood=3)  # type: ignore[arg-type]


def test_digits_are_those_of_the_tokenizers_codes() -> None:
    codebook = ImageTokenizer(
        levels=LEVELS, channels=(4, 4, 4), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)
    ).codebook
    features = digit_features(LEVELS)
    assert features.sum(1).eq(2).all()
    same_first = codebook[:, None, 0] == codebook[None, :, 0]
    assert ((features[:, :4] @ features[:, :4].T) == 1).equal(same_first)


@pytest.mark.parametrize("parametrisation", ["low-rank", "directional"])
def test_a_tied_field_learns_by_digits_and_is_saved_plain(parametrisation: str) -> None:
    tied = field(parametrisation)
    tie(tied, LEVELS)
    trained = {name for name, parameter in tied.named_parameters() if parameter.requires_grad}
    assert trained == {"spatial", "parametrizations.sender.0.rows", "parametrizations.receiver.0.rows"}
    logits, tokens = torch.randn(2, 16, CODES), torch.randint(CODES, (2, 16))
    assert tied.conditional_logits(logits, tokens).equal(logits)
    optimizer = torch.optim.Adam((p for p in tied.parameters() if p.requires_grad), 0.05)
    for _ in range(3):
        nn.functional.cross_entropy(tied.conditional_logits(logits, tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    plain = untied(tied)
    assert type(plain) is MarkovRandomField and set(plain.state_dict()) == set(field(parametrisation).state_dict())
    torch.testing.assert_close(plain.conditional_logits(logits, tokens), tied.conditional_logits(logits, tokens))
    assert not plain.conditional_logits(logits, tokens).equal(logits)
    rows = plain.receiver.unflatten(0, LEVELS)  # (V, d) -> (4, 3, d)
    torch.testing.assert_close(rows[1:] - rows[:1], (rows[1:, :1] - rows[:1, :1]).expand(3, 3, 5))


def test_a_field_to_go_on_from_is_kept() -> None:
    start = field()
    nn.init.normal_(start.receiver)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    tie(start, LEVELS)
    for name, value in untied(start).state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_what_cannot_be_tied_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows to share"):
        tie(MarkovRandomField("dense", CODES, GRID), LEVELS)
    with pytest.raises(ValueError, match="make 20 codes"):
        tie(field(), (5, 4))
