"""Who is signed in where, for the mounts of one engine."""

from __future__ import annotations

from collections.abc import Callable

from rootlink.wire.mounts import Desired, Step


class Accounts:
    async def ready(self, desired: Desired, tell: Callable[[Step], None]) -> None:
        """Returns when a connection has all the sign-ins it needs; `tell` is given the link that a person must open. Raises when
        nobody signed in, in words."""
