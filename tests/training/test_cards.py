"""What a random field's model card tells, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from amused import MASK_TOKEN, tiny_amused
from builders import tiny_field, tiny_transformer

from markovgen_app.models.amused import AmusedTransformer
from markovgen_app.training.cards import write_card


def test_of_the_trainers_machine_only_last_parts_of_paths_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone/pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    settings = {
        "model": str(tmp_path / "my-weights"),
        "data": "someone/pictures",  # a folder here, whatever the hub has
        "runs": "../elsewhere/runs",
        "start_from": None,
        "text_encoder": "google/flan-t5-base",
        "rank": 64,
        "stages": [{"objective": "conditional"}],
    }
    write_card(tmp_path / "field", tiny_field(), tiny_transformer(), settings, {"plain": 1.0})
    card = (tmp_path / "field/README.md").read_text()
    told = json.loads(card.partition("```json\n")[2].partition("```")[0])
    wanted = {"model": "my-weights", "data": "pictures", "runs": "runs"}
    assert told == {**settings, **wanted}
    assert str(tmp_path.parent) not in card and "elsewhere" not in card and "--model my-weights " in card


@pytest.mark.parametrize(("model", "base"), [("owner/amused", "base_model: owner/amused\n"), ("/home/me/amused", "")])
def test_a_checkpoint_of_the_hub_is_named_as_the_base_model(tmp_path: Path, model: str, base: str) -> None:
    transformer = AmusedTransformer(tiny_amused(4).transformer, MASK_TOKEN, 4)
    write_card(tmp_path, tiny_field(), transformer, {"model": model}, {"plain": 1.0})
    card = (tmp_path / "README.md").read_text()
    assert card.startswith(f"---\nlicense: openrail++\n{base}library_name: ") and "/home" not in card
