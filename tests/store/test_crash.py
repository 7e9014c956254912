"""kill -9 at any point of a connect: all of it is there, or nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootlink.records import Project, source_of
from rootlink.store import Store
from tests.store.vault import Vault, everything

ROOT = Path(__file__).parents[2]
MOST_STATEMENTS = 40


def crasher(url: str, how: str, number: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.store.crasher", url, how, str(number)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def check_whole(store: Store, project: Project) -> None:
    """Every row has its secret, its hosts and its audit line; nothing is there without its row."""
    rows = store.connections.list(project.id)
    secrets = {secret.name for secret in store.secrets.list(project.id)}
    rules = {(rule.domain, rule.source) for rule in store.egress.list(project.id)}
    assert secrets - {"OLD"} == {f"NEW_{row.name}" for row in rows}
    assert rules == {(domain, source_of(row.id)) for row in rows for domain in ("a.example", f"{row.name}.example")}
    connects = [line.target for line in store.activity.list(project.id, limit=100_000) if line.action == "connection.connect"]
    assert {row.name for row in rows} <= set(connects)


@pytest.mark.slow
def test_killed_before_any_statement_of_a_connect_nothing_of_it_is_left(
    url: str, store: Store, project: Project, vault: Vault
) -> None:
    store.secrets.put(project.id, "OLD", vault.seal(project.id, "OLD", "before"))
    before = everything(store)
    killed = 0
    # Every second point keeps this short; the two suites (SQLite, PostgreSQL) take the odd and the even ones.
    for number in range(1 + url.startswith("sqlite"), MOST_STATEMENTS, 2):
        with crasher(url, "statement", number) as process:
            process.wait(60)
        if process.returncode == 0:
            break
        killed += 1
        assert process.returncode == -9
        assert everything(store) == before
    else:
        pytest.fail(f"a connect has more than {MOST_STATEMENTS} statements")
    assert killed >= 5
    assert [row.name for row in store.connections.list(project.id)] == ["crash"]
    check_whole(store, project)


@pytest.mark.slow
def test_killed_at_any_time_what_was_acknowledged_is_there_and_nothing_is_half_there(
    url: str, store: Store, project: Project, vault: Vault
) -> None:
    store.secrets.put(project.id, "OLD", vault.seal(project.id, "OLD", "before"))
    dice = random.Random(7)
    for _ in range(5):
        for row in store.connections.list(project.id):
            store.connections.remove(row.id)
        with crasher(url, "forever") as process:
            assert process.stdout is not None
            said = [process.stdout.readline().strip()]
            time.sleep(dice.uniform(0, 0.15))  # not to wait for anything: the moment of death is the random input
            process.kill()
            said += process.stdout.read().split()
        there = {row.name for row in store.connections.list(project.id) if row.state == "connected"}
        last = said[-1]
        assert {name for name in said if int(name[1:]) % 2 == 0} <= there
        assert not {name for name in said if int(name[1:]) % 2 == 1} & there - {last}
        check_whole(store, project)
