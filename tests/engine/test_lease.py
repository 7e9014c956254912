"""An engine is stopped when nobody uses it, and at no other time."""

from __future__ import annotations

from rootlink.engine.lease import Lease


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_open_call_or_stream_keeps_an_engine_running() -> None:
    clock = Clock()
    lease = Lease(clock)
    with lease.call():
        clock.now = 100
        assert not lease.agree_to_stop(0)
        with lease.stream():
            clock.now = 200
            assert (lease.calls, lease.streams) == (0, 1)
            assert not lease.agree_to_stop(0)
    assert lease.agree_to_stop(0)


def test_idle_time_counts_from_the_end_of_the_last_call() -> None:
    clock = Clock()
    lease = Lease(clock)
    with lease.call():
        clock.now = 50
    clock.now = 59
    assert not lease.agree_to_stop(10)
    clock.now = 60
    assert lease.agree_to_stop(10)


def test_an_engine_that_agreed_to_stop_stays_agreed() -> None:
    lease = Lease(Clock())
    assert lease.agree_to_stop(0)
    with lease.call():
        assert lease.agree_to_stop(0)
