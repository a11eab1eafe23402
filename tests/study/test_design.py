"""The balance that raters and items are promised, on plans of every size."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from markovgen_app.study.design import assign, next_session, raters_needed, spoilt_pictures
from markovgen_app.study.votes import CORRUPTED, Plan, Prompt, Trial

KEY = b"a study's secret"

plans = st.builds(
    lambda prompts, methods, **others: Plan(
        prompts=tuple(Prompt(id=f"p{i}", text=f"prompt {i}") for i in range(prompts)),
        methods=("full", "early-exit", "markovgen", "other")[:methods],
        **others,
    ),
    prompts=st.integers(1, 25),
    methods=st.integers(2, 4),
    raters_per_pair=st.integers(1, 5),
    session_length=st.integers(1, 40),
    repeat_share=st.sampled_from((0.0, 0.1, 0.25, 0.5)),
    checks=st.integers(0, 4),
    practice=st.integers(0, 3),
    seed=st.integers(0, 1000),
)


def a_plan(prompts: int = 30, **others: object) -> Plan:
    rows = tuple(Prompt(id=f"p{i}", text=f"prompt {i}") for i in range(prompts))
    return Plan(prompts=rows, methods=("full", "early-exit", "markovgen"), **others)  # type: ignore[arg-type]


def items_of(plan: Plan, trials: list[Trial]) -> list[tuple[str, tuple[str, str]]]:
    return [(trial.prompt, plan.pair_of(trial.left, trial.right)) for trial in trials if trial.kind == "pair"]


def leads(plan: Plan, trials: list[Trial], by: str) -> Counter[object]:
    """How much more often the pair's first method was on the left, by pair or by item."""
    counter: Counter[object] = Counter()
    for trial in trials:
        if trial.kind == "pair":
            pair = plan.pair_of(trial.left, trial.right)
            counter[pair if by == "pair" else (trial.prompt, pair)] += 1 if trial.left == pair[0] else -1
    return counter


@given(plans)
def test_every_item_gets_its_raters_none_of_them_twice(plan: Plan) -> None:
    sessions = assign(plan, KEY)
    assert len(sessions) == raters_needed(plan)
    judged = Counter(item for session in sessions for item in items_of(plan, session))
    assert set(judged) == {(prompt.id, pair) for prompt in plan.prompts for pair in plan.pairs}
    assert set(judged.values()) == {plan.raters_per_pair}
    for session in sessions:
        items = items_of(plan, session)
        assert len(set(items)) == len(items) <= plan.session_length


@given(plans)
def test_sides_are_balanced_for_every_rater_and_for_every_item(plan: Plan) -> None:
    sessions = assign(plan, KEY)
    for session in sessions:
        assert all(abs(lead) <= 1 for lead in leads(plan, session, "pair").values())
    together = [trial for session in sessions for trial in session]
    assert all(abs(lead) <= 1 for lead in leads(plan, together, "item").values())


@given(plans)
def test_pairs_of_methods_are_spread_evenly_over_raters(plan: Plan) -> None:
    for session in assign(plan, KEY)[:-1]:
        counts = Counter(pair for _, pair in items_of(plan, session))
        shares = [counts[pair] for pair in plan.pairs]
        assert max(shares) - min(shares) <= 1


@given(plans)
def test_after_any_number_of_raters_no_item_is_two_judgements_behind(plan: Plan) -> None:
    judged = Counter({(prompt.id, pair): 0 for prompt in plan.prompts for pair in plan.pairs})
    for session in assign(plan, KEY):
        judged.update(items_of(plan, session))
        assert max(judged.values()) - min(judged.values()) <= 1


@given(plans)
def test_repeats_swap_the_sides_far_from_the_original(plan: Plan) -> None:
    for session in assign(plan, KEY):
        place = {trial.id: i for i, trial in enumerate(session)}
        pairs = {trial.id: trial for trial in session if trial.kind == "pair"}
        repeats = [trial for trial in session if trial.kind == "repeat"]
        assert len(repeats) == round(plan.repeat_share * len(pairs))
        assert len({trial.repeat_of for trial in repeats}) == len(repeats)
        for repeat in repeats:
            original = pairs[repeat.repeat_of or ""]
            assert (repeat.prompt, repeat.left, repeat.right) == (original.prompt, original.right, original.left)
            assert place[repeat.id] - place[original.id] > len(pairs) // 2


@given(plans)
def test_practice_comes_first_and_checks_are_answerable(plan: Plan) -> None:
    practice, checks = spoilt_pictures(plan)
    for session in assign(plan, KEY):
        kinds = [trial.kind for trial in session]
        assert kinds[: plan.practice] == ["practice"] * plan.practice
        assert "practice" not in kinds[plan.practice :]
        assert kinds.count("check") == plan.checks
        assert kinds[plan.practice] != "check"
        for trial in session:
            if trial.kind in ("check", "practice"):
                assert (trial.left == CORRUPTED) == (trial.expected == "right")
                assert (trial.right == CORRUPTED) == (trial.expected == "left")
                whole = trial.right if trial.left == CORRUPTED else trial.left
                assert (trial.prompt, whole) in (checks if trial.kind == "check" else practice)
            else:
                assert trial.expected is None


@given(plans)
def test_the_seed_and_the_key_decide_everything(plan: Plan) -> None:
    assert assign(plan, KEY) == assign(plan, KEY)
    ids = [trial.id for session in assign(plan, KEY) for trial in session]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {trial.id for session in assign(plan, b"another") for trial in session}


def test_another_seed_is_another_design() -> None:
    rows = [[(trial.prompt, trial.left) for trial in assign(a_plan(seed=seed), KEY)[0]] for seed in (0, 1)]
    assert rows[0] != rows[1]


@given(plans, st.integers(0, 2**32))
def test_the_places_of_raters_who_leave_are_given_again(plan: Plan, seed: int) -> None:
    """Whoever leaves and whatever they skip, every item ends with its raters, and nobody judges one twice."""
    random = Random(seed)
    done: list[Trial] = []
    shown: dict[str, list[Trial]] = {}
    for number in range(400):
        # Half of the raters stop somewhere; one in four has been here before.
        rater = random.choice(sorted(shown)) if shown and random.random() < 0.25 else f"rater {number}"
        session = next_session(plan, KEY, rater, done, shown.get(rater, ()))
        if not session:
            if rater not in shown:
                break
            continue
        shown.setdefault(rater, []).extend(session)
        items = items_of(plan, shown[rater])
        assert len(set(items)) == len(items)
        done += session[: random.randrange(len(session))] if random.random() < 0.5 else session
        ids = [trial.id for trials in shown.values() for trial in trials]
        assert len(set(ids)) == len(ids)
    else:
        return  # four hundred visits were not enough for this plan
    judged = Counter(items_of(plan, done))
    assert set(judged.values()) == {plan.raters_per_pair}
    assert len(judged) == len(plan.prompts) * len(plan.pairs)


def test_sides_stay_balanced_over_items_though_raters_leave() -> None:
    plan = a_plan(40, raters_per_pair=4)
    done: list[Trial] = []
    number = 0
    while session := next_session(plan, KEY, str(number), done):
        done += session[: len(session) // 2] if number % 2 else session
        number += 1
    assert all(lead in (-1, 0, 1) or abs(lead) == 2 for lead in leads(plan, done, "item").values())
    assert sum(lead == 0 for lead in leads(plan, done, "item").values()) == len(plan.prompts) * len(plan.pairs)


def test_the_pictures_of_one_prompt_do_not_follow_each_other() -> None:
    plan = a_plan(10, session_length=30, checks=0, practice=0, repeat_share=0)
    for session in assign(plan, KEY):
        prompts = [trial.prompt for trial in session]
        assert sum(a == b for a, b in pairwise(prompts)) <= 3


def test_a_small_session_shows_hardly_a_prompt_twice() -> None:
    for session in assign(a_plan(60, session_length=20), KEY)[:-1]:
        prompts = [trial.prompt for trial in session if trial.kind == "pair"]
        assert len(set(prompts)) >= len(prompts) - 2


def test_a_second_session_brings_other_checks_and_no_practice() -> None:
    plan = a_plan(60)
    first = next_session(plan, KEY, "anna", [])
    second = next_session(plan, KEY, "anna", first, first)
    assert "practice" not in {trial.kind for trial in second}
    checks = [
        {(trial.prompt, trial.left, trial.right) for trial in s if trial.kind == "check"} for s in (first, second)
    ]
    assert not {frozenset(row) for row in checks[0]} & {frozenset(row) for row in checks[1]}


def test_checks_avoid_the_prompts_of_the_session() -> None:
    for session in assign(a_plan(200), KEY):
        rated = {trial.prompt for trial in session if trial.kind == "pair"}
        assert not rated & {trial.prompt for trial in session if trial.kind == "check"}


def test_spoilt_pictures_are_different_pictures() -> None:
    practice, checks = spoilt_pictures(a_plan(3, checks=3))
    assert len(practice) == 3 and len(set(practice + checks)) == len(practice + checks) == 9
