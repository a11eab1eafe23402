"""aMUSEd: token for token what diffusers' own pipelines give where they are right, and the four places where not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amused import CODES, MASK_TOKEN, amused_checkpoint, tiny_amused
from diffusers import AmusedImg2ImgPipeline, AmusedInpaintPipeline, AmusedPipeline
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from markovgen_app.decoding.guidance import guided_logits
from markovgen_app.decoding.masks import any_coverage, feather, paste_back
from markovgen_app.decoding.sampler import DecodingSettings, decode
from markovgen_app.errors import UserError
from markovgen_app.models.amused import (
    AmusedScheme,
    AmusedTokenizer,
    AmusedTransformer,
    ClipTextEncoder,
    amused_defaults,
    load_amused,
)

Parts = tuple[AmusedTransformer, AmusedTokenizer, ClipTextEncoder]
PROMPT = "a cat, 2 hats"


def loaded(folder: Path, **options: Any) -> tuple[Any, Parts]:
    """The reference, and our parts of the same checkpoint."""
    reference = tiny_amused(**options)
    reference.save_pretrained(folder)
    return reference, load_amused(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Parts]:
    return loaded(tmp_path_factory.mktemp("amused"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings_of(steps: int, guidance_scale: float = 4.5, schedule: str = "cosine") -> DecodingSettings:
    return DecodingSettings(
        **{**amused_defaults(steps), "guidance_scale": guidance_scale, "schedule": schedule}  # type: ignore[arg-type]
    )


def ours(
    parts: Parts, prompts: Sequence[str], settings: DecodingSettings, tokens: Tensor | None = None, negative: str = ""
) -> Tensor:
    """Tokens (B, n) by our loop, drawn as diffusers draws."""
    transformer, _, text_encoder = parts
    height, width = transformer.grid
    if tokens is None:
        tokens = torch.full((len(prompts), height * width), transformer.mask_token_id)
    logits = guided_logits(transformer, text_encoder.encode(prompts), text_encoder.encode([negative]), settings)
    *_, last = decode(
        logits, tokens, transformer.mask_token_id, settings, AmusedScheme(generator()), grid=transformer.grid
    )
    return last.tokens


@pytest.mark.parametrize(
    ("side", "steps", "resample"), [(4, 1, False), (4, 12, False), (6, 5, False), (8, 12, True), (16, 12, False)]
)
def test_full_gives_the_tokens_of_diffusers(side: int, steps: int, resample: bool, tmp_path: Path) -> None:
    reference, parts = loaded(tmp_path, sample_size=side, resample=resample)
    theirs = reference(
        PROMPT, num_inference_steps=steps, guidance_scale=4.5, generator=generator(), output_type="latent"
    ).images
    mine = ours(parts, [PROMPT], settings_of(steps))
    assert mine.equal(theirs.flatten(1))
    assert mine.unique().numel() > 5


@pytest.mark.parametrize("guidance_scale", [1.0, 10.0])
def test_so_does_a_batch_with_and_without_guidance(both: tuple[Any, Parts], guidance_scale: float) -> None:
    reference, parts = both
    prompts = [PROMPT, "a dog"]
    theirs = reference(
        prompts, num_inference_steps=7, guidance_scale=guidance_scale, negative_prompt=["rain", "rain"],
        generator=generator(), output_type="latent",
    ).images  # fmt: skip
    assert ours(parts, prompts, settings_of(7, guidance_scale), negative="rain").equal(theirs.flatten(1))


def test_pictures_are_those_of_diffusers_too(both: tuple[Any, Parts]) -> None:
    reference, (_, tokenizer, _) = both
    tokens = torch.randint(CODES, (2, 64), generator=generator())
    shape = (2, 8, 8, reference.vqvae.config.latent_channels)
    with torch.no_grad():
        theirs = reference.vqvae.decode(tokens.view(2, 8, 8), force_not_quantize=True, shape=shape).sample.clip(0, 1)
    pixels = tokenizer.decode(tokens)
    torch.testing.assert_close((pixels + 1) / 2, theirs)
    with torch.no_grad():
        latents = reference.vqvae.encode(theirs).latents
        wanted = reference.vqvae.quantize(latents)[2][2].view(2, 64)
    assert tokenizer.encode(theirs * 2 - 1).equal(wanted)
    assert (tokenizer.factor, tokenizer.codebook_size, len(tokenizer.codebook)) == (4, CODES, CODES)
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        tokenizer.encode(torch.zeros(1, 3, 6, 8))
    with pytest.raises(ValueError, match="do not fill a grid of 3 × 3"):
        tokenizer.decode(tokens, (3, 3))


def test_the_interface_is_that_of_our_transformer(both: tuple[Any, Parts]) -> None:
    _, (transformer, _, text_encoder) = both
    assert (transformer.grid, transformer.mask_token_id, transformer.config.codebook_size) == (
        (8, 8),
        MASK_TOKEN,
        CODES,
    )
    text = text_encoder.encode([PROMPT])
    assert text.states.shape == (1, 16, text_encoder.width) and text.mask.all() and len(text.pooled[0]) == 12
    tokens = torch.full((1, 64), MASK_TOKEN)
    hidden = transformer.hidden(tokens, text.states, text.mask, text.pooled)
    logits = transformer(tokens, text.states, text.mask, text.pooled)
    assert logits.shape == (1, 64, CODES) and logits.equal(transformer.logits(hidden))
    flat = transformer.logits(2 * hidden) - 2 * transformer.logits(hidden)
    assert flat.abs().max() < 1e-4  # linear, so that guided hidden states give guided logits
    with pytest.raises(ValueError, match="works on 8 × 8 tokens, not on 9"):
        transformer(tokens[:, :9], text.states, text.mask, text.pooled)
    assert text_encoder.token_count("a " * 30) == 32 > text_encoder.max_length == 16
    words = ["cat", "hat", "dog"]
    assert text_encoder.nearest("hat", words, text_encoder.embed(words), 1) == ["hat"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_samples_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    transformer, tokenizer, text_encoder = load_amused(amused_checkpoint(tmp_path))
    transformer.to(dtype), tokenizer.to(dtype)
    settings = settings_of(4)
    logits = guided_logits(transformer, text_encoder.encode([PROMPT]), text_encoder.encode([""]), settings)
    tokens = torch.full((1, 64), MASK_TOKEN)
    steps = list(decode(logits, tokens, MASK_TOKEN, settings, [generator()], grid=(8, 8)))
    assert all(step.logits.dtype == torch.float32 and step.logits.isfinite().all() for step in steps)
    assert transformer.dtype == tokenizer.dtype == dtype and text_encoder.model.dtype == torch.float32
    assert tokenizer.decode(steps[-1].tokens).isfinite().all()
    tokenizer.model.register_to_config(force_upcast=True)
    forced = AmusedTokenizer(tokenizer.model)
    forced.decode(steps[-1].tokens)
    assert forced.dtype == (torch.float32 if dtype == torch.float16 else dtype)


@pytest.fixture(scope="module")
def inpaint(both: tuple[Any, Parts]) -> Any:
    """The reference for inpainting, with a scheduler of its own."""
    pipeline = AmusedInpaintPipeline(**{**both[0].components, "scheduler": type(both[0].scheduler)(MASK_TOKEN)})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """(1, 3, 32, 32) in [0, 1], as theirs wants it."""
    return F.interpolate(torch.rand(1, 3, 8, 8, generator=generator(3)), size=32, mode="bilinear")


class TestWhereTheirsIsWrong:
    """Inpainting agrees with diffusers' where that is right; four times it is not."""

    @pytest.mark.parametrize("steps", [4, 12])
    def test_on_whole_tokens_and_its_schedule_they_agree(
        self, both: tuple[Any, Parts], inpaint: Any, picture: Tensor, steps: int
    ) -> None:
        mask = np.zeros((32, 32), dtype=np.float32)
        mask[8:24, 4:28] = 1
        theirs = inpaint(
            PROMPT, picture, torch.from_numpy(mask)[None, None], num_inference_steps=steps, guidance_scale=4.5,
            generator=generator(), output_type="latent",
        ).images  # fmt: skip
        transformer, tokenizer, _ = both[1]
        edges = [(start, start + 4) for start in range(0, 32, 4)]
        hidden = torch.from_numpy(any_coverage(mask, edges, edges)).view(1, -1)
        tokens = tokenizer.encode(picture * 2 - 1).masked_fill(hidden, transformer.mask_token_id)
        mine = ours(both[1], [PROMPT], settings_of(steps, schedule="linear"), tokens)
        assert mine.equal(theirs.flatten(1)) and mine[~hidden].equal(tokens[~hidden])

    def test_one_it_leaves_the_shared_scheduler_on_another_schedule(self, both: tuple[Any, Parts]) -> None:
        reference, parts = both
        scheduler = type(reference.scheduler)(MASK_TOKEN)
        shared = {**reference.components, "scheduler": scheduler}
        AmusedInpaintPipeline(**shared)
        assert scheduler.config.masking_schedule == "linear"
        spoiled = AmusedPipeline(**shared)
        spoiled.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": 12, "guidance_scale": 4.5, "output_type": "latent"}
        theirs, after = (each(PROMPT, generator=generator(), **options).images for each in (reference, spoiled))
        mine = ours(parts, [PROMPT], settings_of(12))
        assert mine.equal(theirs.flatten(1)) and not mine.equal(after.flatten(1))

    def test_two_thin_strokes_vanish_from_its_mask(self, inpaint: Any) -> None:
        stroke = np.zeros((32, 32), dtype=np.float32)
        stroke[:, 17] = 1
        theirs = inpaint.mask_processor.preprocess(Image.fromarray((stroke * 255).astype(np.uint8)), 8, 8)
        assert not theirs.any()
        edges = [(start, start + 4) for start in range(0, 32, 4)]
        assert any_coverage(stroke, edges, edges).sum() == 8

    def test_three_full_strength_gives_the_picture_back(self, both: tuple[Any, Parts], picture: Tensor) -> None:
        reference, parts = both
        pipeline = AmusedImg2ImgPipeline(**{**reference.components, "scheduler": type(reference.scheduler)(MASK_TOKEN)})
        pipeline.set_progress_bar_config(disable=True)
        before = parts[1].encode(picture * 2 - 1)
        theirs = pipeline(
            PROMPT, picture, strength=1.0, num_inference_steps=6, generator=generator(), output_type="latent"
        ).images
        changed = (theirs.flatten(1) != before).sum()
        assert changed <= 6 - 1  # of 64: each step but the last hides one token for want of masked ones
        assert (ours(parts, [PROMPT], settings_of(6)) != before).sum() > 30

    def test_four_it_repaints_what_was_not_masked(self, inpaint: Any, picture: Tensor) -> None:
        mask = np.zeros((32, 32), dtype=np.float32)
        mask[:8, :8] = 1
        made = inpaint(
            PROMPT, picture, torch.from_numpy(mask)[None, None], num_inference_steps=2, generator=generator(),
            output_type="np",
        ).images[0]  # fmt: skip
        before, after = (
            np.rint(255 * each).astype(np.uint8) for each in (picture[0].permute(1, 2, 0).numpy(), made)
        )  # (32, 32, 3) each
        kept = mask == 0
        assert (before != after)[kept].mean() > 0.5
        assert (paste_back(before, after, feather(mask, 0))[kept] == before[kept]).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "vqvae/config.json").unlink(), "vqvae/config.json is missing"),
        (lambda folder: (folder / "text_encoder/model.safetensors").unlink(), "text_encoder/model.safetensors is miss"),
        (lambda folder: cut(folder / "transformer/diffusion_pytorch_model.safetensors"), "truncated or damaged"),
        (lambda folder: swap(folder / "model_index.json", "UVit2DModel", "UNet2DModel"), "transformer .* no UVit2DM"),
        (lambda folder: swap(folder / "transformer/config.json", '"hidden_size": 16', '"hidden_size": 32'), "loaded"),
        (lambda folder: swap(folder / "transformer/config.json", '_layers": 2', '_layers": 3'), "do not fit its conf"),
        (lambda folder: swap(folder / "scheduler/scheduler_config.json", "31", "7"), "names 7 as the mask token"),
        (lambda folder: (folder / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json is missing"),
        (lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{"), "cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(damage: Any, message: str, tmp_path: Path) -> None:
    folder = amused_checkpoint(tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_amused(folder)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_half_precision_alone_is_read(tmp_path: Path) -> None:
    tiny_amused().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.glob("*/diffusion_pytorch_model.safetensors"))
    transformer, tokenizer, text_encoder = load_amused(tmp_path)
    assert transformer.dtype == tokenizer.dtype == text_encoder.model.dtype == torch.float32


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
