"""A rule of a project's allowlist: a domain, and who wants it open.

One domain may stand there more than once, for different sources: disconnecting takes away the connection's row and leaves the
one a person added. What a domain may look like is `egress/hosts.py`'s to say; here it is text, already normalised.
"""

from __future__ import annotations

import builtins
from typing import Protocol

import msgspec

MANUAL = "manual"


class AllowRule(msgspec.Struct, frozen=True):
    project: str  # project id
    domain: str  # optional ":port"
    source: str  # MANUAL or source_of(connection id)
    created_at: str


def source_of(connection_id: str) -> str:
    return f"connection:{connection_id}"


class AllowRules(Protocol):
    def add(self, project: str, domain: str, source: str = MANUAL) -> AllowRule:
        """The rule as it stands; adding it twice changes nothing; `NotFound` project."""

    def list(self, project: str) -> builtins.list[AllowRule]:
        """By domain, then oldest first."""

    def remove(self, project: str, domain: str) -> builtins.list[AllowRule]:
        """The rules of every source for this domain, which are gone now; `NotFound` if there were none."""

    def domains(self, project: str) -> builtins.list[str]:
        """Each once, sorted."""
