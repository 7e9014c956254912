"""The ports that the rules of a policy name: a door listens on these besides 443 and 80."""

from __future__ import annotations

from collections.abc import Iterable

from rootlink.egress import hosts
from rootlink.errors import Invalid


def beside_web(rules: Iterable[str]) -> list[int]:
    """A rule that can't be read opens nothing, so no port either."""
    found = set()
    for text in rules:
        try:
            found.add(hosts.rule(text).port)
        except Invalid:
            continue
    return sorted(port for port in found if port is not None and port not in hosts.WEB_PORTS)
