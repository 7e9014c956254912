"""What can be connected, as the command line shows it: the catalogue itself stands behind the instance."""

from __future__ import annotations

from typing import Any

import pytest

from rootlink import catalog
from tests.cli.conftest import Run
from tests.cli.instance import Instance

CATALOG = catalog.load()


@pytest.fixture
def real(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Instance:
    def routes() -> Any:
        first = ("GET", r"/v1/catalog/([\w.-]+)", lambda name, body: CATALOG.get(name).detail())
        return [first, *given()]

    given = instance.routes
    monkeypatch.setattr(instance, "routes", routes)
    return instance


def test_an_entry_is_shown_with_all_a_person_decides_by(run: Run, real: Instance) -> None:
    told = run("catalog", "github")
    for line in (
        "GitHub (mcp, archived)",
        "Made by The Model Context Protocol project: @modelcontextprotocol/server-github 2025.4.8 (npm)",
        "  GITHUB_PERSONAL_ACCESS_TOKEN  Personal access token (secret, required)",
        "    1. Open github.com/settings/personal-access-tokens/new",
        "    https://github.com/settings/personal-access-tokens/new",
        "  api.github.com",
        "  merge_pull_request (destructive)  Merge a pull request",
        "  Asks GitHub whose token this is",
    ):
        assert line in told.out, line
    assert "--variant remote  At GitHub: " in told.out
    assert "rootlink connect github --secret GITHUB_PERSONAL_ACCESS_TOKEN=-" in told.err


def test_a_variant_is_shown_in_full_and_how_to_connect_it(run: Run, real: Instance) -> None:
    told = run("catalog", "github", "--variant", "remote")
    assert "Made by GitHub: https://api.githubcopilot.com/mcp/" in told.out
    assert "rootlink connect github --variant remote --secret" in told.err
    assert run("catalog", "github", "--variant", "remote", "--json").data["variant"] == "remote"
    wrong = run("catalog", "github", "--variant", "far")
    assert (wrong.code, wrong.err) == (1, "rootlink: not_found: connector github has no variant 'far'; there are: remote\n")


def test_where_it_may_go_is_said_even_if_it_is_nowhere_or_for_the_user_to_say(run: Run, real: Instance) -> None:
    assert "  no network" in run("catalog", "memory").out
    assert "  what SITES names" in run("catalog", "browser").out
    assert "browser_evaluate (destructive, off)" in run("catalog", "browser").out


def test_a_field_is_shown_with_what_it_is_left_at_and_a_variant_alone_is_refused(run: Run, real: Instance) -> None:
    assert "read-only  Read only (default true)" in run("catalog", "supabase").out
    wrong = run("catalog", "--variant", "remote")
    assert wrong.code == 2
    assert "say catalog NAME --variant V" in wrong.err
