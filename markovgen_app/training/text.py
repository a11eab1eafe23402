"""Cut the text encoder down to the word pieces of the captions, for training on a machine without the package.

Most of all-MiniLM-L6-v2 is its table of 30,522 word pieces; the captions use about a thousand. Word pieces are matched
greedily, longest first, and every piece that the full vocabulary would match is kept, so that captions are cut into the
same pieces and get the same states, up to half precision.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..data.scenes import SceneDataset
from ..data.vocabulary import BACKGROUNDS, COLOURS, NOUNS, STYLES, plural
from ..models.text import HUB_ID, TextEncoder

_BLOCK = 512


def word_pieces(encoder: TextEncoder, scenes: int) -> list[int]:
    """Ids of the vocabulary's word pieces, of those in the captions of `scenes` scenes a split, and of special ones."""
    used = set(encoder.tokenizer.all_special_ids)
    phrases = [form for noun in NOUNS for name in noun.names for form in (name, plural(name))]
    phrases += [*COLOURS, *(way for table in (BACKGROUNDS, STYLES) for ways in table.values() for way in ways)]
    used.update(*encoder.tokenizer(phrases).input_ids)
    for split in ("train", "tune", "test"):
        dataset = SceneDataset(split=split, vocabulary="full")
        for start in range(0, scenes, _BLOCK):
            captions = [dataset.scene(index).caption for index in range(start, min(start + _BLOCK, scenes))]
            used.update(*encoder.tokenizer(captions).input_ids)
    return sorted(used)


def trim(out: Path, scenes: int = 2000) -> int:
    """Write the trimmed encoder to a folder that `TextEncoder.from_pretrained` takes; returns the word pieces kept.

    Names, plurals, colours, backgrounds and styles are all kept; `scenes` scenes of every split add the words between.
    """
    from transformers import BertTokenizer  # seconds to import

    encoder = TextEncoder.from_pretrained()
    kept = word_pieces(encoder, scenes)
    pieces = encoder.tokenizer.convert_ids_to_tokens(kept)
    embeddings = encoder.model.get_input_embeddings().weight[torch.tensor(kept)].clone()  # (kept, d)
    encoder.model.resize_token_embeddings(len(kept))
    encoder.model.get_input_embeddings().weight.data.copy_(embeddings)
    encoder.model.config.pad_token_id = pieces.index(encoder.tokenizer.pad_token)
    encoder.model.config.cut_from = HUB_ID  # what is trained with it needs the whole one, or this one
    out.mkdir(parents=True, exist_ok=True)
    encoder.model.half().save_pretrained(out)
    (out / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizer(vocab=str(out / "vocab.txt")).save_pretrained(out)
    return len(kept)
