"""Times as they are kept: `2026-11-22T20:22:00.123456Z`. Fixed width, always UTC, so text order is time order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """`at` must know its zone."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def stamp_unix(seconds: float) -> str:
    """Of Unix seconds, as engines send them."""
    return stamp(datetime.fromtimestamp(seconds, UTC))
