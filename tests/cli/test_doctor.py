"""`rootlink doctor`: what is in force, from where, and what is not well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.cli import doctor
from rootlink.door import frames
from rootlink.programs.record import Record
from rootlink.programs.settings import runtime_dir
from rootlink.wire.gate import Counted, Counts
from tests.cli.conftest import Run
from tests.cli.instance import Instance


def check(data: Any, what: str) -> Any:
    return next(finding for finding in data["checks"] if finding["what"] == what)


def test_the_kernel_tier_is_said_plainly_with_what_it_means(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: None)
    found = check(run("doctor", "--json").data, "sandbox")
    assert found["state"] == "ok" and found["found"].startswith("kernel: ") and "no network but doors" in found["found"]


def test_a_machine_that_can_not_do_it_is_told_with_the_reason_and_what_follows(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: "user namespaces are refused; see the manual")
    found = check(run("doctor", "--json").data, "sandbox")
    assert found["state"] == "warn" and "user namespaces are refused" in found["found"]
    assert "stdio servers do not start" in found["found"] and "--sandbox=advisory" in found["do"]


def test_the_advisory_tier_is_a_warning_that_says_what_it_is_not(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTLINK_SANDBOX", "advisory")
    found = check(run("doctor", "--json").data, "sandbox")
    assert found["state"] == "warn" and found["found"].startswith("advisory: ")
    assert "an ordinary child process with this user's network and files" in found["found"] and found["do"]


def test_a_gate_that_is_not_started_is_no_failure(run: Run, home: Path) -> None:
    assert check(run("doctor", "--json").data, "gate")["state"] == "ok"


def test_a_gate_that_is_missing_from_what_runs_fails(run: Run, home: Path) -> None:
    (home / "run").mkdir(parents=True)
    Record(home / "run" / "rootlink.json").write()
    said = run("doctor", "--json")
    assert said.code == 1 and "does not run" in check(said.data, "gate")["found"]


@pytest.fixture
def gate_socket(home: Path) -> Iterator[Path]:
    (home / "run").mkdir(parents=True)
    Record(home / "run" / "gate.json").write()
    path = runtime_dir(home) / "gate.sock"
    yield path
    path.unlink(missing_ok=True)
    path.parent.rmdir()


def test_a_running_gate_tells_its_doors_and_connections(run: Run, gate_socket: Path) -> None:
    counts = Counts(doors=2, open=1, connections=7, refused=3)

    def answer() -> None:
        link, _ = listener.accept()
        with link:
            link.recv(65536)
            frames.send(link, msgspec.json.encode(Counted(1, {"prj_1": counts, "prj_2": counts})))

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(gate_socket))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        found = check(run("doctor", "--json").data, "gate")
        thread.join()
    assert found["state"] == "ok"
    assert found["found"] == "4 doors, 2 connections open; since its start 14 let through, 6 refused"


def test_a_gate_that_does_not_answer_fails(run: Run, gate_socket: Path) -> None:
    assert "does not answer" in check(run("doctor", "--json").data, "gate")["found"]


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
