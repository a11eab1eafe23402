"""The super-resolution transformer: shapes, what it may and may not look at, other ladders, saving."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.models.super_resolution import SuperResolutionTransformer, blocks_to_rows, rows_to_blocks

CODES = 20


def build(grid=(8, 8), coarse_grid=(4, 4), merge=2, **options):
    torch.manual_seed(0)
    model = SuperResolutionTransformer(
        CODES,
        grid,
        coarse_grid,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2.0,
        fine_size=16,
        merge=merge,
        text_width=12,
        **{"levels": (4, 5), **options},
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def inputs(batch=2, length=5, fine=64, coarse=16):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0, -1] = False
    return {
        "tokens": torch.randint(0, CODES + 1, (batch, fine), generator=generator),
        "text_states": torch.randn(batch, length, 12, generator=generator),
        "text_mask": mask,
        "pooled_text": torch.randn(batch, 12, generator=generator),
        "coarse_tokens": torch.randint(0, CODES, (batch, coarse), generator=generator),
    }


@pytest.fixture(scope="module")
def model():
    return build()


def test_logits_cover_the_codebook_without_the_mask_token(model):
    logits = model(**inputs())
    assert logits.shape == (2, 64, CODES) and torch.isfinite(logits).all()
    assert model.mask_token_id == CODES and model.grid == (8, 8) and model.coarse_grid == (4, 4)


def test_logits_may_be_computed_at_some_positions_only(model):
    given_inputs = inputs()
    some = torch.rand(2, 64, generator=torch.Generator().manual_seed(2)) < 0.3
    hidden = model.hidden(**given_inputs)
    assert torch.allclose(model.logits(hidden[some]), model(**given_inputs)[some], atol=1e-5)


def test_padding_of_the_text_changes_nothing(model):
    plain = inputs()
    longer = {
        **plain,
        "text_states": torch.cat([plain["text_states"], torch.full((2, 3, 12), 9.0)], dim=1),
        "text_mask": torch.cat([plain["text_mask"], torch.zeros(2, 3, dtype=torch.bool)], dim=1),
    }
    assert torch.allclose(model(**plain), model(**longer), atol=1e-5)


def test_rows_of_a_batch_do_not_see_each_other(model):
    both = inputs()
    alone = {name: value[:1] for name, value in both.items()}
    assert torch.allclose(model(**both)[:1], model(**alone), atol=1e-5)


@pytest.mark.parametrize("part", ["tokens", "text_states", "pooled_text", "coarse_tokens"])
def test_every_input_matters(model, part):
    before = inputs()
    changed = {**before, part: before[part].flip(1)}
    assert not torch.allclose(model(**before), model(**changed), atol=1e-3)


def test_a_coarse_token_speaks_to_the_fine_tokens_that_it_covers_first():
    model = build()
    for block in model.blocks:  # what is left is the path of the added states
        torch.nn.init.zeros_(block.cross.out.weight)
    before = inputs(batch=1)
    changed = {**before, "coarse_tokens": before["coarse_tokens"].clone()}
    changed["coarse_tokens"][0, 6] = (before["coarse_tokens"][0, 6] + 1) % CODES  # row 1, column 2
    torch.nn.init.zeros_(model.coarse_blocks[0].attention.out.weight)
    torch.nn.init.zeros_(model.spread_out.weight)
    for block in (*model.fine_before, *model.fine_after):
        torch.nn.init.zeros_(block.mix.weight)
    moved = (model(**before) - model(**changed)).abs().amax(-1).view(8, 8) > 1e-5
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[2:4, 4:6] = True
    assert torch.equal(moved, wanted)


def test_a_token_hears_the_other_end_of_the_grid(model):
    before = inputs(batch=1)
    changed = {**before, "tokens": before["tokens"].clone()}
    changed["tokens"][0, 0] = (before["tokens"][0, 0] + 1) % CODES
    moved = (model(**before) - model(**changed)).abs().amax(-1)
    assert (moved > 1e-6).all()


def test_a_window_is_where_its_places_say(model):
    """The whole grid as a window changes nothing; a smaller one differs where what it lacks would be heard."""
    given_inputs = inputs()
    tokens = given_inputs.pop("tokens")
    whole = model.hidden(tokens, **given_inputs)
    everywhere = torch.arange(64).expand(2, -1)
    assert torch.allclose(model.hidden(tokens, **given_inputs, places=everywhere, window=(8, 8)), whole, atol=1e-5)

    model = build()
    for block in (*model.fine_before, *model.fine_after):  # what is left hears nothing beyond a merged token
        torch.nn.init.zeros_(block.mix.weight)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
    whole = model.hidden(tokens, **given_inputs)
    places = torch.stack([torch.arange(64).view(8, 8)[2:6, 4:8], torch.arange(64).view(8, 8)[4:8, 0:4]]).flatten(1)
    seen = model.hidden(tokens.gather(1, places), **given_inputs, places=places, window=(4, 4))
    assert torch.allclose(seen, whole.gather(1, places[..., None].expand(-1, -1, 16)), atol=1e-5)


@pytest.fixture(scope="module")
def reader():
    """A transformer that reads the enlarged coarse picture, too."""
    return build(enlarged=True)


def test_the_enlarged_picture_matters_and_is_not_forgotten(model, reader):
    given_inputs = inputs()
    enlarged = torch.randint(0, CODES, (2, 64), generator=torch.Generator().manual_seed(3))
    wanted = reader(**given_inputs, enlarged_tokens=enlarged)
    assert not torch.allclose(wanted, reader(**given_inputs, enlarged_tokens=enlarged.flip(1)), atol=1e-3)
    coarse = given_inputs.pop("coarse_tokens")
    settled = reader.given(coarse, enlarged)
    twice = {name: torch.cat([value, value]) for name, value in given_inputs.items()}
    assert torch.allclose(settled(**twice), torch.cat([wanted, wanted]), atol=1e-5)
    with pytest.raises(ValueError, match="wants the tokens of the enlarged"):
        reader.given(coarse)(**given_inputs)
    with pytest.raises(ValueError, match="does not read the tokens of the enlarged"):
        model(**given_inputs, coarse_tokens=coarse, enlarged_tokens=enlarged)


def test_coarse_tokens_settled_once_give_the_same_logits_for_one_or_several_rows_of_each(model):
    given_inputs = inputs()
    coarse = given_inputs.pop("coarse_tokens")
    settled = model.given(coarse)
    wanted = model(**given_inputs, coarse_tokens=coarse)
    assert torch.allclose(settled(**given_inputs), wanted, atol=1e-5)
    twice = {name: torch.cat([value, value]) for name, value in given_inputs.items()}
    assert torch.allclose(settled(**twice), torch.cat([wanted, wanted]), atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "coarse_grid", "merge"), [((16, 16), (8, 8), 4), ((12, 12), (4, 4), 2), ((4, 8), (2, 4), 1)]
)
def test_other_ladders(grid, coarse_grid, merge):
    model = build(grid, coarse_grid, merge)
    fine, coarse = grid[0] * grid[1], coarse_grid[0] * coarse_grid[1]
    assert model(**inputs(fine=fine, coarse=coarse)).shape == (2, fine, CODES)


def test_grids_that_do_not_fit_are_named(model):
    with pytest.raises(ValueError, match="whole multiple of 3 × 3"):
        build((8, 8), (3, 3))
    with pytest.raises(ValueError, match="merged 3 × 3"):
        build((8, 8), (4, 4), merge=3)
    with pytest.raises(ValueError, match="8 × 8 tokens, not on 16"):
        model(**inputs(fine=16))
    with pytest.raises(ValueError, match="4 × 4 coarse tokens, not 64"):
        model(**inputs(coarse=64))
    with pytest.raises(ValueError, match="4 × 4 coarse tokens, not 64"):
        model.given(torch.zeros(1, 64, dtype=torch.long))


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_blocks_are_cut_as_they_lie_and_put_back(side, rows, columns, width):
    height, breadth = rows * side, columns * side
    x = torch.arange(height * breadth * width).view(1, height * breadth, width)
    blocks = rows_to_blocks(x, (height, breadth), side)
    assert blocks.shape == (1, rows * columns, side * side * width)
    picture = x.view(height, breadth, width)
    assert torch.equal(blocks[0, -1], picture[-side:, -side:].flatten())
    assert torch.equal(blocks[0, 0], picture[:side, :side].flatten())
    assert torch.equal(blocks_to_rows(blocks, (rows, columns), side), x)


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SuperResolutionTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**inputs()), model(**inputs()))
