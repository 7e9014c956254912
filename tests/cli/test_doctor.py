"""`rootlink doctor`: what is in force, from where, and what is not well."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.instance import Instance


def check(data: Any, what: str) -> Any:
    return next(finding for finding in data["checks"] if finding["what"] == what)


def test_the_sandbox_tier_is_said_plainly_with_what_it_means(run: Run, home: Path) -> None:
    found = check(run("doctor", "--json").data, "sandbox")
    assert found["state"] == "warn"
    assert found["found"].startswith("advisory: ")
    assert found["do"]


def test_each_setting_is_shown_with_its_source(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTLINK_PORT", "7399")
    home.mkdir()
    (home / "rootlink.toml").write_text('log_level = "debug"\n')
    settings = run("doctor", "--json", "--ws", "side").data["settings"]
    assert settings["port"] == {"value": 7399, "source": "environment ROOTLINK_PORT"}
    assert settings["log_level"] == {"value": "debug", "source": "rootlink.toml"}
    assert settings["ws"] == {"value": "side", "source": "flag --ws"}
    assert settings["host"]["source"] == "default"


def test_no_credential_is_shown(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTLINK_TOKEN", "s3cret-token")
    monkeypatch.setenv("ROOTLINK_DATABASE_URL", "postgresql://me:s3cret-word@127.0.0.1:1/x")
    said = run("doctor")
    assert "s3cret" not in said.out + said.err
    assert said.code == 1
    assert "✗ database: PostgreSQL at 127.0.0.1:1 does not answer" in said.out


def test_a_running_instance_answers(run: Run, instance: Instance) -> None:
    found = check(run("doctor", "--json").data, "instance")
    assert (found["state"], found["found"]) == ("ok", f"answers at {instance.base}, version 9.9")


def test_a_port_that_is_taken_is_a_warning(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("ROOTLINK_PORT", str(other.getsockname()[1]))
        assert check(run("doctor", "--json").data, "port")["state"] == "warn"


def test_a_database_that_is_none_fails(run: Run, home: Path) -> None:
    (home / "control").mkdir(parents=True, mode=0o700)
    (home / "control" / "rootlink.db").write_bytes(b"this is no database, but long enough to be looked at as one" * 20)
    said = run("doctor", "--json")
    assert said.code == 1
    assert check(said.data, "database")["state"] == "fail"


def test_a_home_others_can_look_into_is_a_warning(run: Run, home: Path) -> None:
    home.mkdir(mode=0o755)
    found = check(run("doctor", "--json").data, "home")
    assert (found["state"], found["do"]) == ("warn", f"chmod 700 {home}")
