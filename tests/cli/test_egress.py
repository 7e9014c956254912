"""`rootlink egress denied`: who was refused what, and what may be done about it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.instance import Instance


def denial(host: str, port: int, reason: str) -> dict[str, Any]:
    return {"time": "t", "connection": "github", "host": host, "port": port, "reason": reason, "count": 3}


def test_a_name_that_was_refused_before_a_port_was_known_shows_none(run: Run, instance: Instance) -> None:
    instance.decisions = [denial("evil.example", 0, "not_in_allowlist")]
    said = run("egress", "denied")
    assert said.out.splitlines()[1].split() == ["t", "github", "evil.example", "-", "3", "not_in_allowlist"]


@pytest.mark.parametrize(
    ("host", "port", "reason", "rule"),
    [
        ("api.example", 443, "not_in_allowlist", "api.example"),
        ("api.example", 0, "not_in_allowlist", "api.example"),
        ("db.example", 5432, "not_in_allowlist", "db.example:5432"),
        ("db.example", 5432, "port", "db.example:5432"),
        ("2606::1", 9000, "not_in_allowlist", "[2606::1]:9000"),
    ],
)
def test_what_would_allow_it_is_said_below(run: Run, instance: Instance, host: str, port: int, reason: str, rule: str) -> None:
    instance.decisions = [denial(host, port, reason)] * 2
    assert run("egress", "denied").err.splitlines() == [f"To allow: rootlink egress allow {rule}"]


def test_where_allowing_would_not_help_what_does_is_said_instead(run: Run, instance: Instance) -> None:
    instance.decisions = [denial("inner.example", 443, "private_address"), denial("other.example", 443, "not_in_connection")]
    said = run("egress", "denied").err
    assert "egress allow" not in said and "--allow-private CIDR" in said and "only its own hosts" in said
    instance.decisions = [denial("x.example", 443, "other_host"), denial("y.example", 443, "limit")]
    assert run("egress", "denied").err == ""


def test_a_flood_of_names_does_not_become_a_flood_of_advice(run: Run, instance: Instance) -> None:
    instance.decisions = [denial(f"{number}.example", 443, "not_in_allowlist") for number in range(50)]
    assert len(run("egress", "denied").err.splitlines()) == 5
