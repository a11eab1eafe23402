"""Comparing: every method really run, in step, and a filmstrip that is what the methods would have given."""

from __future__ import annotations

import sys

import pytest
import torch
from builders import runtime_of, text_encoder, tiny_ladder, tiny_pipeline, tiny_tokenizer, tiny_transformer
from test_zero_gpu import forked

from markovgen_app.compare import FILM_COLUMNS, Column, Comparison, Turn, compare, comparing, film_steps
from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.methods import NAMES
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime

REQUEST = GenerateRequest(prompt="a panda", steps=8, exit_step=3, seed=5)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return runtime_of(tiny_pipeline())


def last_of(runtime: Runtime, request: GenerateRequest, methods: tuple[str, ...]) -> Comparison:
    *_, comparison = compare(runtime, request, methods)
    assert isinstance(comparison, Comparison)
    return comparison


def test_every_method_gives_the_picture_that_it_gives_alone(runtime: Runtime) -> None:
    comparison = last_of(runtime, REQUEST, NAMES)
    assert tuple(comparison.entries) == NAMES and comparison.exit_step == 3
    for name, entry in comparison.entries.items():
        alone = runtime.pipeline(**{**REQUEST.model_dump(), "method": name})
        assert entry.picture.image.tobytes() == alone.images[0].image.tobytes(), name
        assert entry.picture.settings == alone.images[0].settings
        assert entry.picture.transformer_calls == (8 if name == "full" else 3)
        assert entry.tokens.equal(alone.frames[-1][0]) and entry.stage.grid == (4, 4)
        assert entry.confidence.shape == (16,) and 0 <= entry.confidence.min() <= entry.confidence.max() <= 1
        assert entry.speedup == pytest.approx(
            comparison.entries["full"].picture.model_seconds / entry.picture.model_seconds
        )


def test_methods_take_turns_step_by_step(runtime: Runtime) -> None:
    turns = [event for event in compare(runtime, REQUEST, ("full", "markovgen")) if isinstance(event, Turn)]
    assert [turn.label for turn in turns[:8]] == [
        *("full: base 1/8", "markovgen: base 1/3", "markovgen: base 2/3", "full: base 2/8"),
        *("full: base 3/8", "markovgen: base 3/3", "markovgen: ready", "full: base 4/8"),
    ]
    assert all(turn.method == "full" for turn in turns[8:]) and isinstance(turns[-1].event, Result)
    assert sum(isinstance(turn.event, StepEvent) for turn in turns) == 8 + 3


def test_what_the_field_changed_is_said_in_tokens_and_nats(runtime: Runtime) -> None:
    comparison = last_of(runtime, REQUEST, ("early-exit", "markovgen"))
    early, refined = comparison.entries["early-exit"], comparison.entries["markovgen"]
    made = refined.refinement
    assert made is not None and early.refinement is None and refined.speedup is None
    assert made.changed.equal(early.tokens != refined.tokens) and made.changed.any()
    assert made.plain.tobytes() == early.picture.image.tobytes()
    steps = list(runtime.pipeline.run(REQUEST.model_copy(update={"method": "markovgen"})))
    last, before = steps[-2], steps[-3]
    assert isinstance(last, StepEvent) and isinstance(before, StepEvent) and last.step.unary is not None
    assert made.step == 3 and made.undecided == int(before.step.mask.sum())
    field = runtime.pipeline.mrf
    assert field is not None
    energies = [float(field.energy(entry.tokens[None], last.step.unary)) for entry in (early, refined)]
    assert [made.energy_before, made.energy_after] == pytest.approx(energies)


def test_the_energy_of_a_decimation_counts_messages_as_it_does(runtime: Runtime) -> None:
    """Its first messages are part of the unaries: where nothing is fixed, plain marginals are what is left."""
    request = REQUEST.model_copy(update={"finalise": "decimate"})
    made = last_of(runtime, request, ("early-exit", "markovgen")).entries["markovgen"].refinement
    *_, before, last, _ = runtime.pipeline.run(request.model_copy(update={"method": "markovgen"}))
    field = runtime.pipeline.mrf
    assert made is not None and field is not None and isinstance(before, StepEvent) and isinstance(last, StepEvent)
    assert last.step.unary is not None and last.step.plain is not None
    mask = before.step.mask
    first = field(last.step.unary, before.step.tokens, ~mask, iterations=1, damping=0.0) - last.step.unary
    for told, tokens in ((made.energy_before, last.step.plain), (made.energy_after, last.step.predicted)):
        assert told == pytest.approx(float(field.energy(tokens, last.step.unary - first)), rel=1e-4)
    assert made.undecided == int(mask.sum())


@pytest.mark.parametrize(
    "options", [{}, {"finalise": "perturb"}, {"finalise": "decimate"}, {"finalise": "argmax", "mrf_clamp": False}]
)
@pytest.mark.parametrize("top_k", [None, 5])
def test_the_filmstrip_is_what_the_methods_give_with_that_exit_step(
    runtime: Runtime, options: dict, top_k: int | None
) -> None:
    request = GenerateRequest(prompt="a panda", steps=8, seed=5, top_k=top_k, **options)
    comparison = last_of(runtime, request, ("full", "rescheduled"))
    assert [column.step for column in comparison.film] == [1, 2, 3, 4, 5, 6, 7, 8]
    for column in comparison.film:
        for method, picture in (("early-exit", column.plain), ("markovgen", column.refined)):
            fields = {**request.model_dump(), "method": method, "exit_step": column.step}
            assert picture is not None
            assert picture.tobytes() == runtime.pipeline(**fields).images[0].image.tobytes(), (method, column.step)
    assert any(column.changed for column in comparison.film)


def test_of_several_stages_the_last_one_is_compared() -> None:
    ladder = runtime_of(tiny_ladder())
    comparison = last_of(ladder, REQUEST, ("full", "early-exit", "markovgen"))
    for name, entry in comparison.entries.items():
        alone = ladder.pipeline(**{**REQUEST.model_dump(), "method": name})
        assert entry.picture.image.tobytes() == alone.images[0].image.tobytes() and entry.stage.grid == (8, 8)
        assert entry.tokens.equal(alone.frames[-1][0]) and entry.confidence.shape == (64,)
    refined = comparison.entries["markovgen"]
    base, fine = refined.refinements
    assert (base.stage.number, base.step, len(base.changed)) == (0, 3, 16)
    assert (fine.stage.number, fine.step, len(fine.changed)) == (1, 3, 64) and refined.refinement is fine
    assert fine.refined.tobytes() == refined.picture.image.tobytes() and base.refined.size == (32, 32)
    assert fine.changed.any() and fine.plain.tobytes() != fine.refined.tobytes()
    events = list(ladder.pipeline.run(REQUEST.model_copy(update={"method": "markovgen"})))
    exit_step, before = events[-2], events[-3]
    assert isinstance(exit_step, StepEvent) and isinstance(before, StepEvent) and exit_step.step.unary is not None
    assert fine.undecided == int(before.step.mask.sum())
    field = ladder.pipeline.stages[1].mrf
    assert field is not None
    assert fine.energy_after == pytest.approx(float(field.energy(refined.tokens[None], exit_step.step.unary)))


def test_the_filmstrip_goes_through_every_stage() -> None:
    ladder = runtime_of(tiny_ladder())
    comparison = last_of(ladder, REQUEST, ("full", "early-exit"))
    base, fine = ([each for each in comparison.film if each.stage.number == number] for number in (0, 1))
    assert comparison.film == base + fine and [each.step for each in base] == [2, 3, 4, 6, 8]
    assert [(each.step, each.is_exit) for each in fine] == [(2, False), (3, True), (4, False), (6, False), (8, False)]
    assert fine[0].label == "filmstrip: super-resolution step 2"
    assert fine[-1].plain.tobytes() == comparison.entries["full"].picture.image.tobytes()
    asked = {**REQUEST.model_dump(), "method": "early-exit"}
    for column in base:
        alone = ladder.pipeline(**{**asked, "exit_step": column.step, "size": 32})
        assert column.plain.tobytes() == alone.images[0].image.tobytes()
    for column in fine:
        alone = ladder.pipeline(**{**asked, "exit_step": 8, "super_resolution_exit_step": column.step})
        assert column.plain.tobytes() == alone.images[0].image.tobytes()
        assert column.refined is not None
        assert (column.changed > 0) == (column.refined.tobytes() != column.plain.tobytes())
    assert any(column.changed for column in fine)


def test_a_stage_without_a_field_leaves_the_finding_to_the_one_below() -> None:
    comparison = last_of(runtime_of(tiny_ladder(field=False)), REQUEST, ("full", "markovgen"))
    entry = comparison.entries["markovgen"]
    assert [each.stage.number for each in entry.refinements] == [0] and entry.stage.number == 1
    assert [column.refined is None for column in comparison.film] == [False] * 5 + [True] * 5


def test_the_filmstrip_has_few_columns_the_exit_and_the_end_among_them() -> None:
    for steps in range(1, 60):
        for exit_step in range(1, steps + 1):
            columns = film_steps(steps, exit_step)
            assert columns == sorted(set(columns)) and columns[0] >= 1 and columns[-1] == steps
            assert exit_step in columns and len(columns) <= FILM_COLUMNS + 1
    assert film_steps(24, 18) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert film_steps(4, 9) == [1, 2, 3, 4]


def test_logits_that_wait_for_the_filmstrip_are_bounded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_step = 16 * 240 * 4
    for kept, last in ((3 * of_a_step, [1, 2, 3]), (0, [])):
        monkeypatch.setattr("markovgen_app.compare._KEPT_BYTES", kept)
        comparison = last_of(runtime, REQUEST, ("full", "early-exit"))
        assert [column.step for column in comparison.film] == last


def test_without_a_field_the_others_are_compared() -> None:
    bare = runtime_of(MarkovGenPipeline(tiny_transformer(), tiny_tokenizer(), text_encoder()))
    with pytest.raises(UserError, match="hold no random field"):
        next(compare(bare, REQUEST, ("full", "markovgen")))
    comparison = last_of(bare, REQUEST, ("full", "early-exit"))
    assert all(column.refined is None for column in comparison.film) and len(comparison.film) == 8
    assert comparison.film[2].plain.tobytes() == comparison.entries["early-exit"].picture.image.tobytes()


def test_one_picture_a_method_and_the_same_seed_for_all(runtime: Runtime) -> None:
    request = GenerateRequest(prompt="a panda", steps=2, count=3)
    comparison = last_of(runtime, request, ("full", "early-exit"))
    seeds = {entry.picture.seed for entry in comparison.entries.values()}
    assert seeds == {comparison.request.seed} and comparison.request.count == 1


def test_closing_a_comparison_cancels_every_run(runtime: Runtime) -> None:
    calls = []
    handle = runtime.pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    try:
        events = compare(runtime, REQUEST, ("full", "early-exit", "markovgen"))
        for _ in range(4):
            next(events)
        done = len(calls)
        events.close()  # type: ignore[attr-defined]
    finally:
        handle.remove()
    assert len(calls) == done and not runtime.lock.locked()


def test_notes_come_once(runtime: Runtime) -> None:
    comparison = last_of(runtime, GenerateRequest(prompt="猫", steps=2, seed=0), ("full", "early-exit", "halton"))
    assert len(comparison.notes) == 1 and "knows no word" in comparison.notes[0]


def test_columns_name_themselves(runtime: Runtime) -> None:
    columns = [event for event in compare(runtime, REQUEST, ("full", "halton")) if isinstance(event, Column)]
    assert [column.label for column in columns[:2]] == ["filmstrip: step 1", "filmstrip: step 2"]


def test_all_methods_run_on_one_device_which_counts_as_busy() -> None:
    second = runtime_of(tiny_pipeline())
    first = Runtime(tiny_pipeline(), torch.device("cpu"), torch.float32, 0.1, 0.1, (second,))
    used = []
    for replica in (first, second):
        replica.pipeline.transformer.register_forward_hook(lambda *_, replica=replica: used.append(replica))
    events = [compare(first, REQUEST, ("full", "markovgen")) for _ in range(2)]
    for comparison in events:
        list(zip(range(6), comparison, strict=False))
    assert used[: len(used) // 2] == [first] * (len(used) // 2) and used[len(used) // 2 :] == [second] * (
        len(used) // 2
    )


def test_on_zero_gpu_one_gpu_is_borrowed_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    borrowed: list[int] = []
    monkeypatch.setitem(sys.modules, "spaces", forked(borrowed))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    runtime = runtime_of(tiny_pipeline())
    *turns, comparison = comparing(runtime)(REQUEST, ("full", "markovgen"))
    assert isinstance(comparison, Comparison) and len(borrowed) == 1
    steps = [turn.event for turn in turns if isinstance(turn, Turn) and isinstance(turn.event, StepEvent)]
    assert len(steps) == 8 + 3 and all(step.step.logits.numel() == 0 and step.images for step in steps)
    monkeypatch.delenv("SPACES_ZERO_GPU")
    wanted = last_of(runtime_of(runtime.pipeline), REQUEST, ("full", "markovgen"))
    for name, entry in wanted.entries.items():
        assert entry.picture.image.tobytes() == comparison.entries[name].picture.image.tobytes()
    assert [column.changed for column in wanted.film] == [column.changed for column in comparison.film]
