"""A stopped evaluation goes on where it was, and ends as one that was not stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import tiny_ladder, tiny_pipeline
from scorers import tiny_scorer

from markovgen_app.data.scenes import SceneDataset
from markovgen_app.errors import UserError
from markovgen_app.evaluation import generation
from markovgen_app.evaluation.kept import Kept

METHODS = generation.parse_methods("full:steps=2,early-exit:steps=2:exit_step=1")


def test_a_stopped_evaluation_goes_on_and_makes_the_same(tmp_path, monkeypatch, capsys):
    ladder, scorer = tiny_ladder(), tiny_scorer()
    scenes = [SceneDataset().scene(index) for index in range(3)]
    whole, whole_enlarged = generation.generate(ladder, scorer, scenes, (0,), METHODS)
    run, asked = type(ladder).run, []

    def stopped(pipeline, request):
        asked.append(request)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return run(pipeline, request)

    monkeypatch.setattr(type(ladder), "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        generation.generate(ladder, scorer, scenes, (0,), METHODS, Kept.of(ladder, scorer, METHODS, tmp_path))
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('0123456789abcdef\t{"full:steps=2": {"tok')  # killed while it wrote

    kept = Kept.of(ladder, scorer, METHODS, tmp_path)
    assert "Goes on" in capsys.readouterr().err
    made, enlarged = generation.generate(ladder, scorer, scenes, (0,), METHODS, kept)
    assert len(asked) == 4 + 4  # one prompt was done, by two methods
    for name in METHODS:
        assert made[name].tokens.equal(whole[name].tokens)
        assert np.array_equal(made[name].seen.features, whole[name].seen.features)
        assert np.array_equal(made[name].seen.details, whole[name].seen.details)
        assert made[name].seen.readings == whole[name].seen.readings
        assert made[name].transformer_calls == whole[name].transformer_calls
        assert len(made[name].model_seconds) == 3
    assert enlarged is not None and whole_enlarged is not None and enlarged.tokens.equal(whole_enlarged.tokens)

    again = Kept(path)
    generation.generate(ladder, scorer, scenes, (0,), METHODS, again)
    assert len(asked) == 4 + 4
    again.remove()
    assert not list(tmp_path.iterdir())


def test_what_is_kept_belongs_to_its_weights_scorer_methods_and_defaults(tmp_path):
    pipeline, scorer = tiny_pipeline(), tiny_scorer()
    paths = {Kept.of(pipeline, scorer, METHODS, tmp_path).path, Kept.of(pipeline, scorer, METHODS, tmp_path).path}
    assert len(paths) == 1
    paths.add(Kept.of(tiny_ladder(), scorer, METHODS, tmp_path).path)
    paths.add(Kept.of(pipeline, tiny_scorer(64), METHODS, tmp_path).path)
    paths.add(Kept.of(pipeline, scorer, generation.parse_methods("full:steps=2"), tmp_path).path)
    pipeline.defaults["temperature"] = 0.7
    paths.add(Kept.of(pipeline, scorer, METHODS, tmp_path).path)
    assert len(paths) == 5


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Kept(tmp_path / "file/unfinished.jsonl")
