"""Tiny random text encoders in transformers' format, other than the published one: T5's, CLIP's and BERT's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from amused import tiny_clip_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz,."
KINDS = ("t5", "clip", "whole-clip", "bert")
WIDTHS = {"t5": 24, "clip": 20, "whole-clip": 20, "bert": 16}


def tiny_encoder(folder: Path, kind: str) -> Path:
    """One of the KINDS with random weights, saved as its publishers save it: T5 with its decoder, CLIP with or without
    its picture half."""
    torch.manual_seed(0)
    if kind == "t5":
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
        words: Any = T5Tokenizer(vocab=pieces, extra_ids=0)
        shape = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": len(words)}
        model: Any = T5ForConditionalGeneration(T5Config(**shape))
    elif kind == "bert":
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        words = BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)})
        model = BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1,
                                     num_attention_heads=2, intermediate_size=24))  # fmt: skip
    else:
        words = tiny_clip_tokenizer(20)
        shape = {"hidden_size": 20, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
        text = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=20, bos_token_id=words.bos_token_id,
                              eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, **shape)  # fmt: skip
        if kind == "clip":
            model = CLIPTextModel(text)
        else:
            sight = CLIPVisionConfig(image_size=8, patch_size=4, **shape)
            model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=sight.to_dict(), projection_dim=12))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
