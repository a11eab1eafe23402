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


def test_parts_cover_a_picture():
    picture = np.arange(300 * 300, dtype=np.int64).reshape(300, 300)
    seen = np.concatenate([part.ravel() for part in judging.parts(picture, 128)])
    assert set(seen) == set(picture.ravel()) and len(seen) == 9 * 128 * 128
    four = judging.parts(picture[:256, :256], 128)
    assert [part[0, 0] for part in four] == [0, 128, 128 * 300, 128 * 301] and four[3].shape == (128, 128)
    (itself,) = judging.parts(picture[:64, :64], 128)
    assert np.array_equal(itself, picture[:64, :64])


def test_a_scorer_reads_at_its_own_size_and_its_features_are_as_fine_as_the_picture():
    chequered = (np.indices((256, 256)).sum(axis=0)[:, :, None].repeat(3, axis=2) % 2 * 254).astype(np.uint8)
    grey = np.full((256, 256, 3), 127, np.uint8)
    scorer = tiny_scorer(128)
    seen = judging.look(scorer, [chequered, grey, Image.fromarray(chequered[:128, :128])])
    assert seen.readings[0] == seen.readings[1]  # both are grey, averaged down
    assert not np.allclose(seen.features[0], seen.features[1])
    assert np.allclose(seen.features[0], seen.features[2], atol=1e-5)  # its four parts are all like this one
    scene = SceneDataset(0, 256)[0][1]
    whole, by_part = judging.look(scorer, [scene, grey]), judging.look(scorer, judging.parts(scene, 128))
    assert np.allclose(whole.features[0], by_part.features.mean(axis=0), atol=1e-5)
    assert np.allclose(whole.details[0], by_part.details.mean(axis=0), atol=1e-5)


def test_details_tell_enlarged_pictures_from_sharp_ones():
    sharp, others = ([SceneDataset(seed, 256)[index][1] for index in range(24)] for seed in (0, 1))
    small = [Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX) for picture in sharp]
    enlarged = [picture.resize((256, 256), Image.Resampling.LANCZOS) for picture in small]
    scorer, equal = judging.load_scorer(), np.full((1, 24), 1 / 24)
    reference = metrics.UnbiasedKernelReference(judging.look(scorer, others).details)
    of_sharp, of_enlarged = (
        float(reference.resampled(judging.look(scorer, pictures).details, equal)[0]) for pictures in (sharp, enlarged)
    )
    assert of_enlarged > of_sharp + 10


def test_reconstructions_are_judged_at_the_size_of_the_scorer(monkeypatch):
    sizes = []

    def look(scorer, pictures):
        sizes.append({np.asarray(picture).shape[0] for picture in pictures})
        return judging.look(scorer, pictures)

    monkeypatch.setattr(quality, "look", look)
    for size in (128, 256):
        scenes = SceneDataset(0, size)
        quality.reconstruction(tiny_tokenizer(), tiny_scorer(size), scenes, 2, metrics.resamples(2, 5))
    assert sizes == [{128}, {128}, {256}, {256}]
