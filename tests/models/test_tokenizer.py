"""The image tokenizer: codebook arithmetic, locality, round trips."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.models.tokenizer import ImageTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    model = ImageTokenizer((4, 3, 5), (8, 8, 8), (1, 1), (1, 1, 1)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_codebook_has_every_combination_of_levels_once(tokenizer):
    assert tokenizer.codebook_size == 60
    assert len(tokenizer.codebook.unique(dim=0)) == 60
    assert tokenizer.codebook.min() == -1 and tokenizer.codebook.max() == 1


@given(token=st.integers(0, 59))
def test_a_code_encodes_to_its_own_number(
    token,
):
    model = ImageTokenizer((4, 3, 5), (8, 8, 8), (1, 1), (1, 1, 1))
    digits = (model.codebook[token] + 1) / 2 * model.top_digit
    assert model._tokens(digits[None, :, None, None]).item() == token


@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 256), (64, 96)])
def test_shapes(tokenizer, height, width):
    pixels = torch.rand(2, 3, height, width) * 2 - 1
    tokens = tokenizer.encode(pixels)
    assert tokens.shape == (2, height * width // 64) and tokens.dtype == torch.long
    assert tokens.min() >= 0 and tokens.max() < 60
    out = tokenizer.decode(tokens, (height // 8, width // 8))
    assert out.shape == pixels.shape and out.abs().max() <= 1


def test_forward_decodes_the_tokens_that_it_returns(tokenizer):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reconstruction, tokens = tokenizer(pixels)
    assert torch.equal(tokens, tokenizer.encode(pixels))
    assert torch.allclose(reconstruction.clamp(-1, 1), tokenizer.decode(tokens), atol=1e-5)


def test_gradients_pass_the_rounding(tokenizer):
    reconstruction, _ = tokenizer(torch.rand(1, 3, 32, 32))
    reconstruction.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tokenizer.encoder.parameters())


def test_tokens_depend_on_near_pixels_only(tokenizer):
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    changed = pixels.clone()
    changed[..., :8, :8] = 1 - changed[..., :8, :8]
    different = (tokenizer.encode(pixels) != tokenizer.encode(changed)).reshape(16, 16)  # (1, 256) -> (16, 16)
    assert not different[8:].any() and not different[:, 8:].any()


def test_tokens_of_a_local_encoder_depend_on_their_own_pixels_alone():
    torch.manual_seed(0)
    model = ImageTokenizer((4, 3, 5), (8, 8, 8), (2, 2), (1, 1, 1), encoder_kernel=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    changed = torch.rand(1, 3, 64, 64) * 2 - 1
    changed[..., 8:16, 24:32] = pixels[..., 8:16, 24:32]
    same = (model.encode(pixels) == model.encode(changed)).reshape(8, 8)  # (1, 64) -> (8, 8)
    assert same[1, 3] and not same.all()
    alone = model.encode(pixels[..., 8:16, 24:32].contiguous())
    assert alone.item() == model.encode(pixels)[0, 8 + 3]


def test_bad_sizes_are_refused(tokenizer):
    with pytest.raises(ValueError, match="multiples of 8"):
        tokenizer.encode(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match="do not fill"):
        tokenizer.decode(torch.zeros(1, 6, dtype=torch.long))


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = ImageTokenizer.from_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.encode(pixels), tokenizer.encode(pixels))
    assert torch.equal(again.decode(again.encode(pixels)), tokenizer.decode(tokenizer.encode(pixels)))
