"""Token buckets, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from rootlink.errors import RateLimited
from rootlink.gateway.ratelimit import Buckets


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3.0, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == 0.5
    clock.now += 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == 0.5


def test_each_caller_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(1.0, 1.0, clock=Clock())
    assert [buckets.take("a"), buckets.take("b")] == [0, 0]
    assert buckets.take("a") > 0


def test_a_bucket_never_holds_more_than_the_burst() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 2.0, clock=clock)
    buckets.take("a")
    clock.now += 1_000_000
    assert [buckets.take("a") > 0 for _ in range(3)] == [False, False, True]


def test_refusing_costs_nothing() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 1.0, clock=clock)
    for _ in range(100):
        buckets.take("a")
    clock.now += 1
    assert buckets.take("a") == 0


def test_whoever_is_refused_is_told_when_to_come_again() -> None:
    buckets = Buckets(0.1, 1.0, clock=Clock())
    buckets.spend("a", "calls")
    with pytest.raises(RateLimited, match="Too many calls; try again in 10 s") as refused:
        buckets.spend("a", "calls")
    assert refused.value.retry_after == 10


def test_the_number_of_buckets_is_bounded_and_the_full_ones_go_first() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 2.0, clock=clock, most=100)
    for n in range(99):
        buckets.take(f"old{n}")
    clock.now += 10
    for n in range(1000):
        buckets.take(f"new{n % 50}")
    assert buckets.take("new0") > 0
    for n in range(1000):
        buckets.take(f"flood{n}")
    assert len(buckets._buckets) <= 100


def test_an_infinite_rate_is_no_limit() -> None:
    buckets = Buckets(math.inf, math.inf, clock=Clock())
    assert all(buckets.take("a") == 0 for _ in range(1000))
