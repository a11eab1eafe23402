"""The scorer network: shapes, save and load, and reading objects out of its maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.evaluation.metrics import judge
from markovgen_app.models.scorer import Scorer, cell_centres
from markovgen_app.training.scorer import labels
from tests.scorers import perfect_output, tiny_scorer


def test_shapes_and_finite_gradients():
    scorer = tiny_scorer()
    pixels = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = scorer(pixels)
    nouns, colours = len(scorer.config.nouns), len(scorer.config.colours)
    assert out.nouns.shape == (2, 64, nouns + 1) and out.colours.shape == (2, 64, colours + 1)
    assert out.boxes.shape == (2, 64, 3) and out.features.shape == (2, 16)
    assert out.styles.shape == (2, len(scorer.config.styles) + 1) and out.presence.shape == (2, nouns)
    assert torch.equal(out.details, out.maps[0].mean((2, 3))), "what it saw at 1/8 of the side"
    assert [tuple(each.shape[2:]) for each in out.maps] == [(16, 16), (8, 8)]
    rest = {name: value for name, value in vars(out).items() if name != "maps"}
    assert all(value.isfinite().all() for value in [*out.maps, *rest.values()])


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="128"):
        tiny_scorer()(torch.zeros(1, 3, 64, 64))


def test_save_and_load(tmp_path):
    scorer = tiny_scorer()
    scorer.save_pretrained(tmp_path)
    again = Scorer.from_pretrained(tmp_path).eval()
    pixels = torch.zeros(1, 3, 128, 128)
    assert torch.equal(scorer(pixels).nouns, again(pixels).nouns)
    assert list(again.config.nouns) == list(scorer.config.nouns)
    assert not list(tmp_path.glob("*.bin"))


@given(index=st.integers(0, 10_000), split=st.sampled_from(["train", "test"]))
def test_every_scene_can_be_read_back_from_perfect_maps(index, split):
    """The 8 × 8 map is fine enough for every layout: nothing merges, nothing is lost."""
    scorer = tiny_scorer()
    scene = SceneDataset(5, split=split).scene(index)
    (reading,) = scorer.readings(perfect_output(scorer, labels([scene], scorer)))
    judged = judge(scene, reading)
    assert judged.prompt and judged.colour in (None, True)
    wanted = sorted((item.noun, round(item.x, 4), round(item.y, 4), item.colour or "") for item in scene.objects)
    found = sorted((item.noun, round(item.x, 4), round(item.y, 4), item.colour or "") for item in reading.objects)
    assert wanted == found


def test_one_stray_cell_is_no_object():
    scorer = tiny_scorer()
    scene = next(s for s in map(SceneDataset(0).scene, range(50)) if s.layout == "single" and not s.place)
    output = perfect_output(scorer, labels([scene], scorer))
    output.nouns[0, 0, 1] = 40
    output.boxes[0, 0] = torch.tensor([0.0, 0.0, 0.6])
    (reading,) = scorer.readings(output)
    assert [item.noun for item in reading.objects] == list(scene.nouns)


def test_cells_that_disagree_on_the_noun_vote():
    scorer = tiny_scorer()
    scene = next(s for s in map(SceneDataset(0).scene, range(50)) if s.layout == "single" and not s.place)
    output = perfect_output(scorer, labels([scene], scorer))
    filled = output.nouns[0, :, 0] == 0
    first = int(filled.nonzero()[0])
    output.nouns[0, first] = 0
    output.nouns[0, first, 7] = 20
    (reading,) = scorer.readings(output)
    assert [item.noun for item in reading.objects] == list(scene.nouns)
    assert reading.objects[0].certainty < 1


def test_cell_centres():
    assert cell_centres(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
