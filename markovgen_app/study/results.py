"""What the analysis of a study says, as plain data: the results page, the exports and the plots read only this."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """A share of answers. `value` is None where there are none.

    `low` and `high` are the 95 % interval to report: it knows that answers of one rater, and answers to one prompt,
    hang together. None where fewer than two raters or prompts answered. `wilson` takes all answers for independent;
    `bootstrap` draws raters and prompts anew, which is known to be too wide (None if it was not asked for).
    """

    count: int
    total: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    wilson: tuple[float, float] | None = None
    bootstrap: tuple[float, float] | None = None


@dataclass(frozen=True)
class Preference:
    """The three bars of the MarkovGen paper's Figure 5. They add up to one."""

    first: Share
    indifferent: Share
    second: Share


@dataclass(frozen=True)
class SignTest:
    """Exact two-sided test that both sides win equally often; indifferent answers are left out.

    `holm` is the p-value corrected, by Holm's method, for the number of pairs of methods.
    """

    first: int
    second: int
    p: float
    holm: float


@dataclass(frozen=True)
class PairResult:
    """Two methods against each other.

    `raw` counts every answer; `majority` counts items, and a side wins an item that more than half of its raters gave
    to it. Items with fewer answers than planned are not in it. `sided` is the first method's share of the answers that
    took a side. `votes` is preliminary below `target`. `tied` and `bad` are what `indifferent` is made of.
    """

    first: str
    second: str
    votes: int
    target: int
    preliminary: bool
    raters: int
    prompts: int
    tied: int
    bad: int
    raw: Preference
    majority: Preference
    sided: Share
    sign_raw: SignTest
    sign_majority: SignTest
    alpha: float | None


@dataclass(frozen=True)
class CategoryResult:
    """One pair of methods on the prompts of one category."""

    category: str
    first: str
    second: str
    raw: Preference
    majority: Preference


@dataclass(frozen=True)
class Strength:
    """A method's Bradley–Terry strength, in log-odds against the average method, with its 95 % interval."""

    method: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Exclusion:
    """The raters that a rule of the plan leaves out, and how many of their answers go with them."""

    rule: str
    reason: str
    raters: tuple[str, ...]
    votes: int


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over all items: 1 is full agreement, 0 what chance gives. None where it is undefined."""

    alpha: float | None
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True)
class Planned:
    """What the plan settled and the methods paragraph tells.

    `by_power`: whether the number of votes is the one that the plan's power calculation asks for.
    """

    prompts: int
    session_length: int
    repeat_share: float
    checks: int
    preference: float
    power: float
    alpha: float
    by_power: bool


@dataclass(frozen=True)
class Results:
    """The whole analysis. Counts of answers are those that were analysed, after exclusions, if not said otherwise."""

    title: str
    question: str
    plan_digest: str
    simulated: bool
    preliminary: bool
    methods: tuple[str, ...]
    raters_per_pair: int
    target: int
    planned: Planned
    votes: int
    skipped: int
    raters: int
    raters_left_out: int
    prompts: int
    first_at: str | None
    last_at: str | None
    median_seconds: float | None
    pairs: tuple[PairResult, ...]
    categories: tuple[CategoryResult, ...]
    strengths: tuple[Strength, ...]
    strengths_note: str
    agreement: Agreement
    left_share: Share
    repeats: Share
    checks: Share
    exclusions: tuple[Exclusion, ...]

    def as_json(self) -> dict[str, Any]:
        """Of plain dictionaries, lists, numbers and text."""
        return asdict(self)
