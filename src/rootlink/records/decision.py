"""What the egress policy decided: one row for each connection, host, port, verdict and reason, with a count and the latest time.

Hosts come from untrusted code, so a project's decisions are bounded: beyond `MOST_KEPT` the oldest go.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

Verdict = Literal["allowed", "denied"]
MOST_KEPT = 5_000
LONGEST_HOST = 253  # RFC 1035; a longer one is no name, and is kept cut
LONGEST_NAME = 128
LONGEST_REASON = 200  # all three are in one index, whose rows PostgreSQL limits to 2,704 bytes


class Decision(msgspec.Struct, frozen=True):
    time: str  # of the latest
    connection: str  # a mount's or function's name
    host: str
    port: int
    verdict: Verdict
    reason: str
    count: int


class Observed(Protocol):
    """What an engine reports (`wire.engine.Decision` fits). `time` is in Unix seconds."""

    @property
    def time(self) -> float: ...
    @property
    def connection(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def reason(self) -> str: ...
    @property
    def count(self) -> int: ...


class Decisions(Protocol):
    def record(self, project: str, observed: Iterable[Observed]) -> None:
        """Adds their counts up; `NotFound` project."""

    def list(self, project: str, verdict: Verdict | None = None, limit: int = 500) -> builtins.list[Decision]:
        """Newest first."""
