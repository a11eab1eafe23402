"""The base transformer: shapes, what it may and may not look at, saving."""

import pytest
import torch

from markovgen_app.models.transformer import MuseTransformer


def build(conditioning="prefix", levels=(4, 5)):
    torch.manual_seed(0)
    model = MuseTransformer(20, (4, 4), 32, 2, 2, 2.0, 12, conditioning, levels).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(params=["prefix", "cross-attention"])
def model(request):
    return build(request.param)


def inputs(batch=2, length=5):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 21, (batch, 16), generator=generator)
    states = torch.randn(batch, length, 12, generator=generator)
    mask = torch.ones(batch, length, dtype=torch.bool)
    return tokens, states, mask, torch.randn(batch, 12, generator=generator)


def test_logits_cover_the_codebook_without_the_mask_token(model):
    logits = model(*inputs())
    assert logits.shape == (2, 16, 20) and torch.isfinite(logits).all()
    assert model.mask_token_id == 20 and model.grid == (4, 4)


def test_padding_of_the_text_changes_nothing(model):
    tokens, states, mask, pooled = inputs()
    padded = torch.cat([states, torch.full((2, 3, 12), 9.0)], dim=1)
    longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    assert torch.allclose(model(tokens, states, mask, pooled), model(tokens, padded, longer, pooled), atol=1e-5)


def test_places_say_where_tokens_are(model):
    tokens, states, mask, pooled = inputs()
    whole = model.hidden(tokens, states, mask, pooled)
    places = torch.stack([torch.randperm(16), torch.randperm(16)])
    shuffled = model.hidden(tokens.gather(1, places), states, mask, pooled, places)
    assert torch.allclose(shuffled, whole.gather(1, places[..., None].expand(-1, -1, 32)), atol=1e-4)
    part = model.hidden(tokens[:, :5], states, mask, pooled, torch.arange(5).expand(2, -1))
    assert part.shape == (2, 5, 32) and not torch.allclose(part, whole[:, :5], atol=1e-3)


def test_inner_states_are_those_after_so_many_blocks(model):
    """The last blocks say nothing about them, the first ones do; the last states are as ever."""
    given = inputs()
    last, inner = model.hidden_after(*given, blocks=1)
    assert last.equal(model.hidden(*given)) and inner.shape == last.shape
    assert not inner.equal(model.hidden_after(*given)[1]), "after no block they are the embeddings"
    with torch.no_grad():
        model.blocks[1].up.weight.add_(1)
    assert inner.equal(model.hidden_after(*given, blocks=1)[1]) and not last.equal(model.hidden(*given))
    with torch.no_grad():
        model.blocks[0].up.weight.add_(1)
    assert not inner.equal(model.hidden_after(*given, blocks=1)[1])


def test_rows_of_a_batch_do_not_see_each_other(model):
    tokens, states, mask, pooled = inputs()
    alone = model(tokens[:1], states[:1], mask[:1], pooled[:1])
    assert torch.allclose(model(tokens, states, mask, pooled)[:1], alone, atol=1e-5)


@pytest.mark.parametrize("part", ["states", "pooled", "tokens"])
def test_every_input_matters(model, part):
    tokens, states, mask, pooled = inputs()
    before = model(tokens, states, mask, pooled)
    if part == "states":
        states = states + 1
    elif part == "pooled":
        pooled = pooled + 1
    else:
        tokens = tokens.flip(1)
    assert not torch.allclose(before, model(tokens, states, mask, pooled), atol=1e-3)


def test_positions_matter():
    model = build()
    tokens, states, mask, pooled = inputs()
    same = torch.full_like(tokens, 3)
    logits = model(same, states, mask, pooled)
    assert not torch.allclose(logits[:, 0], logits[:, 5], atol=1e-3)


def test_codes_with_a_digit_in_common_share_a_part_of_their_embedding():
    model = build()
    with torch.no_grad():
        model.token_embedding.weight.zero_()
    table = model._embedding()
    assert torch.allclose(table[0] - table[1], table[5] - table[6], atol=1e-6)
    assert torch.equal(table[20], torch.zeros(32))


def test_wrong_grid_is_refused(model):
    tokens, states, mask, pooled = inputs()
    with pytest.raises(ValueError, match="4 × 4 tokens"):
        model(tokens[:, :9], states, mask, pooled)


def test_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = MuseTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(again(*inputs()), model(*inputs()))
