"""What stops a connection at the gate."""

from __future__ import annotations

from rootlink.egress.policy import Decision


class Refused(Exception):
    """By a rule: it is recorded, and told to whoever waits in the door."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.message)
        self.decision = decision


class Unreachable(Exception):
    """Allowed, but nobody answers there: words without the URL. Not a refusal."""
