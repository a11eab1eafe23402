"""Tiny random checkpoints in aMUSEd's format, made of diffusers' and transformers' own classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

CODES = 24
MASK_TOKEN = 31


def tiny_amused(sample_size: int = 8, *, resample: bool = False, clip_length: int = 16) -> Any:
    """The deprecated pipeline over random models: `sample_size`² tokens of 4 × 4 pixels.

    Args:
        resample: down- and upsampling inside the transformer, as amused-512 has it.
    """
    torch.manual_seed(sample_size)
    transformer = UVit2DModel(
        hidden_size=16, cond_embed_dim=12, micro_cond_encode_dim=4, micro_cond_embed_dim=20, encoder_hidden_size=8,
        vocab_size=32, codebook_size=CODES, in_channels=16, block_out_channels=16, num_res_blocks=1,
        downsample=resample, upsample=resample, block_num_heads=2, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, sample_size=sample_size,
    )  # fmt: skip
    vqvae = VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8, 8, 8], latent_channels=4, norm_num_groups=4, num_vq_embeddings=CODES,
        mid_block_add_attention=False, lookup_from_codebook=True,
    )  # fmt: skip
    with torch.no_grad():
        vqvae.quantize.embedding.weight.mul_(40)
    words = tiny_clip_tokenizer(clip_length)
    text_encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, projection_dim=12,
            vocab_size=len(words), max_position_embeddings=clip_length, bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = AmusedPipeline(vqvae, words, text_encoder.eval(), transformer.eval(), AmusedScheduler(MASK_TOKEN))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_clip_tokenizer(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with letters for word pieces."""
    letters = [letter + ending for letter in "abcdefghijklmnopqrstuvwxyz0123456789,." for ending in ("", "</w>")]
    vocabulary = {piece: number for number, piece in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def amused_checkpoint(folder: Path, **options: Any) -> Path:
    """`tiny_amused`, saved."""
    tiny_amused(**options).save_pretrained(folder)
    return folder
