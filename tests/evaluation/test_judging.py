"""The scorer at work: which one, on which scenes, and what its readings are worth."""

import numpy as np
import pytest
import torch
from builders import tiny_pipeline, tiny_tokenizer, tiny_transformer
from PIL import Image
from scorers import tiny_scorer

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.data.vocabulary import NOUNS
from markovgen_app.errors import UserError
from markovgen_app.evaluation import judging, metrics, quality
from markovgen_app.models.scorer import Reading
from markovgen_app.vocabulary import Vocabulary


def test_averages_over_seeds_keep_prompts_apart():
    scenes = [SceneDataset().scene(index) for index in range(3)]
    right = Reading((), scenes[1].background, scenes[1].style)
    wrong = Reading((), "nowhere", "none")
    values = judging.judged_values(scenes, [wrong, right, wrong, wrong, wrong, wrong])
    assert values["background_accuracy"].tolist() == [0, 0.5, 0]
    assert np.isnan(values["place_accuracy"]).any()


def test_a_missing_or_damaged_scorer_is_named(tmp_path):
    with pytest.raises(UserError, match="markovgen train scorer"):
        judging.load_scorer(tmp_path)
    tiny_scorer().save_pretrained(tmp_path)
    assert judging.load_scorer(tmp_path).config.size == 128
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="truncated or damaged"):
        judging.load_scorer(tmp_path)


def test_a_scorer_that_knows_too_little_is_named():
    pipeline = tiny_pipeline()
    everything = Vocabulary(nouns={noun.name: noun.emoji for noun in NOUNS})
    larger = type(pipeline)(tiny_transformer(), pipeline.tokenizer, pipeline.text_encoder, everything)
    with pytest.raises(UserError, match="vocabulary: full"):
        judging.scenes_for(larger, tiny_scorer(), "test")
    assert len(judging.scenes_for(pipeline, tiny_scorer(), "tune").nouns) == len(tiny_scorer().config.nouns)
    with pytest.raises(UserError, match="split"):
        judging.scenes_for(pipeline, tiny_scorer(), "best")


def test_pictures_of_other_sizes_are_brought_to_the_scorers():
    small, large = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (256, 256), (255, 0, 0))
    pixels = judging.to_pixels([small, large], 128, "cpu")
    assert pixels.shape == (2, 3, 128, 128)
    assert torch.equal(pixels[0], pixels[1]) and pixels[0, 0].min() == 1 and pixels[0, 1].max() == -1
    chequered = np.indices((256, 256)).sum(axis=0)[:, :, None].repeat(3, axis=2) % 2 * np.uint8(254)
    assert judging.to_pixels([chequered.astype(np.uint8)], 128, "cpu").unique().tolist() == pytest.approx(
        [127 / 127.5 - 1]
    )


def test_what_a_scorer_judges_is_as_fine_as_its_own_size(monkeypatch):
    chequered = (np.indices((256, 256)).sum(axis=0)[:, :, None].repeat(3, axis=2) % 2 * 254).astype(np.uint8)
    grey = np.full((256, 256, 3), 127, np.uint8)
    coarse, fine = (judging.look(tiny_scorer(size), [chequered, grey]).features for size in (128, 256))
    assert np.array_equal(coarse[0], coarse[1]) and not np.allclose(fine[0], fine[1])
    sizes = []

    def look(scorer, pictures):
        sizes.append({np.asarray(picture).shape[0] for picture in pictures})
        return judging.look(scorer, pictures)

    monkeypatch.setattr(quality, "look", look)
    for size in (128, 256):
        scenes = SceneDataset(0, size)
        quality.reconstruction(tiny_tokenizer(), tiny_scorer(size), scenes, 2, metrics.resamples(2, 5))
    assert sizes == [{128}, {128}, {256}, {256}]
