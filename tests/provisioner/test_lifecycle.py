from __future__ import annotations

import itertools

import pytest

from rootlink.errors import Internal
from rootlink.provisioner.lifecycle import NEXT, Event, State, after, delay


def test_every_state_can_be_reached_and_left() -> None:
    assert {State.STOPPED, *NEXT.values()} == set(State)
    assert {state for state, _ in NEXT} == set(State)


def test_only_what_the_table_says_may_happen() -> None:
    for pair in itertools.product(State, Event):
        if pair in NEXT:
            assert after(*pair) is NEXT[pair]
        else:
            with pytest.raises(Internal):
                after(*pair)


def test_an_engine_is_started_from_rest_only() -> None:
    assert {state for state, event in NEXT if event is Event.START} == {State.STOPPED, State.FAILED}


def test_the_delay_doubles_up_to_half_a_minute() -> None:
    assert [delay(failures) for failures in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_failing_starts_costs_at_most_six_tries() -> None:
    at, tries = 0.0, 0
    while at < 60.0:
        tries += 1
        at += delay(tries)
    assert tries <= 6
