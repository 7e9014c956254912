"""What an engine is given: its project's secrets, opened, and its way out. The ONE place in Rootlink that opens a secret, and the
grants that engines seal for the vault.

What comes back lives as long as the spawn or the refresh it is for; nobody keeps it. A secret that does not open is left out
and named; why it did not is not told, and what it held is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog

from rootlink.records.secret import Secret
from rootlink.sealing.unseal import SealBroken, Unsealer
from rootlink.wire.engine import Grant

log = structlog.get_logger(__name__)


class Opened(NamedTuple):
    """`values` by secret name; `broken` names those that did not open. Its repr holds no value."""

    values: Mapping[str, str]
    broken: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Opened({len(self.values)} values, broken={self.broken})"


def unsealed(project: str, secrets: Iterable[Secret], unsealer: Unsealer) -> Opened:
    values: dict[str, str] = {}
    broken: list[str] = []
    for secret in secrets:
        try:
            values[secret.name] = unsealer.open(secret.ciphertext, project=project, name=secret.name, version=secret.version)
        except SealBroken:
            broken.append(secret.name)
            log.error("secret does not open", project=project, secret=secret.name, version=secret.version)
    return Opened(values, tuple(broken))


def opened(project: str, secret: Secret, unsealer: Unsealer) -> str | None:
    """One secret's value; None if it does not open."""
    return unsealed(project, [secret], unsealer).values.get(secret.name)


def granted(project: str, grant: Grant, unsealer: Unsealer) -> str:
    """The value of a grant. It is sealed for version 0, which no row of the vault has, so neither opens as the other. Raises
    SealBroken."""
    return unsealer.open(grant.ciphertext, project=project, name=grant.secret, version=0)
