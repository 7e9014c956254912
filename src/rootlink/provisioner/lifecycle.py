"""An engine's life, as a table. No I/O here, no clock, no locks: `engines.py` does things, this says what they mean.

    stopped  ──START──► starting ──READY──► running ──STOP──► stopping ──GONE──► stopped
                            │                  ├──────────────GONE─────────────► stopped
    stopped  ──FOUND────────┼─────────────► running
    failed   ──START──► starting
                            └──BROKE──► failed

Rule 1. Only a pair in `NEXT` may happen; any other is a bug of ours and raises.
Rule 2. An engine that ends by itself while running is `stopped`, not `failed`: the next call starts it again at once.
        Only an engine that never got ready is `failed`, and is tried again no sooner than `delay` says.
"""

from __future__ import annotations

from enum import StrEnum

from rootlink.errors import Internal

LONGEST_DELAY = 30.0


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(StrEnum):
    START = "start"  # someone needs it
    READY = "ready"  # it answers
    BROKE = "broke"  # it did not become ready
    STOP = "stop"  # it was told to end, or agreed to
    GONE = "gone"  # its process has ended
    FOUND = "found"  # it ran before we did, and is ours


NEXT: dict[tuple[State, Event], State] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.FAILED, Event.START): State.STARTING,
    (State.STARTING, Event.READY): State.RUNNING,
    (State.STARTING, Event.BROKE): State.FAILED,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.RUNNING, Event.GONE): State.STOPPED,
    (State.STOPPING, Event.GONE): State.STOPPED,
    (State.STOPPED, Event.FOUND): State.RUNNING,
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises Internal when nothing may."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise Internal(f"an engine that is {state} can't take the event {event}") from None


def delay(failures: int) -> float:
    """Seconds to wait after so many failed starts in a row: 1, 2, 4, 8, 16, 30, 30…"""
    return min(2.0 ** (failures - 1), LONGEST_DELAY) if failures > 0 else 0.0
