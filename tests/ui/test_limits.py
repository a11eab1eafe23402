"""The politeness limit."""

import pytest

from markovgen_app.errors import UserError
from markovgen_app.visitors import VisitorLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_refills() -> None:
    clock = Clock()
    limit = VisitorLimit(burst=4, per_minute=60, clock=clock)
    limit.take("a", 4)
    with pytest.raises(UserError, match="try again in 2 seconds"):
        limit.take("a", 2)
    limit.take("b", 4)
    clock.now = 2
    limit.take("a", 2)
    with pytest.raises(UserError):
        limit.take("a", 1)


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    clock = Clock()
    limit = VisitorLimit(burst=4, per_minute=60, clock=clock)
    limit.take("a", 1)
    clock.now = 1000
    limit.take("a", 4)
    with pytest.raises(UserError):
        limit.take("a", 1)


def test_a_request_larger_than_the_bucket_waits_for_a_full_one() -> None:
    limit = VisitorLimit(burst=2, per_minute=60, clock=Clock())
    limit.take("a", 4)
    with pytest.raises(UserError, match="try again in 4 seconds"):
        limit.take("a", 4)


def test_no_limit() -> None:
    VisitorLimit(burst=0, per_minute=1).take("a", 1000)
    VisitorLimit(burst=1, per_minute=1).take(None, 1000)


def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    limit = VisitorLimit(burst=4, per_minute=60, clock=clock)
    for name in range(5000):
        clock.now += 1
        limit.take(str(name), 1)
    assert len(limit._buckets) < 5000
