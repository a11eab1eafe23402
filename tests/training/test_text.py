"""The trimmed text encoder reads captions as the whole one does."""

import torch
from builders import text_encoder

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.data.vocabulary import NOUNS, plural
from markovgen_app.models.text import HUB_ID, TextEncoder
from markovgen_app.training.text import trim


def test_captions_get_the_same_states(tmp_path):
    kept = trim(tmp_path, scenes=200)
    whole, small = text_encoder(), TextEncoder.from_pretrained(tmp_path)
    assert small.source == whole.source == HUB_ID, "weights trained with it are read with the whole one"
    assert kept < 3000 and (tmp_path / "model.safetensors").stat().st_size < 26_000_000
    dataset = SceneDataset(seed=5, split="test", vocabulary="full")
    captions = [dataset.scene(index).caption for index in range(40)]
    captions += [f"a {noun.name} and two {plural(noun.name)}" for noun in NOUNS[::7]] + [""]
    one, other = whole.encode(captions), small.encode(captions)
    assert torch.equal(one.mask, other.mask)
    assert (one.states - other.states).abs().max() < 0.05
