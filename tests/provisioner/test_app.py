"""The provisioner as a program of its own: its door, and what becomes of engines when it is killed (R3, R4, R25)."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.provisioner.launch import identity
from rootlink.provisioner.launch.identity import Family, Identity
from tests.provisioner.stage import Stage, until_now

ROOT = Path(__file__).parents[2]


class Program:
    """A running provisioner with fake engines; killed at its end if it has not ended."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.log = stage.home / "logs" / "provisioner.log"
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "tests.provisioner.program", str(stage.home), str(stage.runtime)]
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        until_now(self._answers, "the provisioner answers", 20.0)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/healthz")[0] == 200
        return False

    def begin(self, method: str, path: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("provisioner")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.stage.socket))
            connection.request(method, path)
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        with contextlib.closing(self.begin(method, path)) as connection:
            answer = connection.getresponse()
            text = answer.read()
            if answer.headers.get_content_type() == "application/x-ndjson":
                return answer.status, [msgspec.json.decode(line) for line in text.splitlines()]
            return answer.status, msgspec.json.decode(text)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(15.0)


@pytest.fixture
def program(stage: Stage) -> Iterator[Program]:
    program = Program(stage)
    yield program
    program.process.poll() is None and program.stop()


@contextlib.contextmanager
def another(stage: Stage) -> Iterator[Program]:
    program = Program(stage)
    try:
        yield program
    finally:
        program.stop()


def engine(stage: Stage, project: str) -> Identity:
    process = stage.engine_process(project)
    assert process is not None
    return process


# the door


def test_the_socket_is_for_this_user_only(stage: Stage, program: Program) -> None:
    assert stat.S_IMODE(stage.socket.stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="needs another uid to come from")
def test_another_user_is_dropped_unread_even_if_the_socket_lets_him_in(stage: Stage, program: Program) -> None:
    stage.runtime.chmod(0o755)
    stage.socket.chmod(0o666)
    script = (
        "import os,socket,sys; os.setgid(65534); os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n s.sendall(b'GET /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'); print(s.recv(100))\n"
        "except OSError: print(b'')"
    )
    said = subprocess.run([sys.executable, "-S", "-c", script, str(stage.socket)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "b''"
    assert program.ask("GET", "/healthz")[0] == 200
    assert "stranger dropped" in program.log.read_text()


def test_answers_have_the_envelope(stage: Stage, program: Program) -> None:
    project = stage.project()
    status, body = program.ask("POST", f"/engines/{project}/ensure")
    assert status == 200 and body["ok"] and set(body["data"]) == {"socket", "key", "generation"}
    status, body = program.ask("GET", f"/engines/{project}")
    assert body["data"]["state"] == "running" and body["data"]["files"] == str(stage.layout.files(project))
    assert program.ask("POST", f"/projects/{project}/refresh")[1]["data"] == {"restarted": []}
    assert program.ask("POST", f"/projects/{project}/decisions")[1]["data"] == {}
    assert program.ask("POST", f"/engines/{project}/restart")[1]["data"]["state"] == "running"
    assert "lines" in program.ask("GET", f"/engines/{project}/logs")[1]["data"]
    assert program.ask("POST", f"/engines/{project}/stop")[1]["data"]["state"] == "stopped"
    assert program.ask("DELETE", f"/engines/{project}")[1]["data"] == {}
    for method, path, status in (
        ("POST", "/engines/prj_000000000000/ensure", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/healthz", 404),
        ("POST", "/engines/..%2f..%2fetc/ensure", 404),
    ):
        answered, body = program.ask(method, path)
        assert (answered, body["ok"], body["error"]["code"]) == (status, False, "not_found")


def test_a_reconcile_is_told_line_by_line(stage: Stage, program: Program) -> None:
    row = stage.connect(stage.project())
    status, events = program.ask("POST", f"/connections/{row.id}/reconcile")
    assert status == 200 and [next(iter(event)) for event in events] == ["step", "step", "done"]
    assert program.ask("POST", f"/connections/{row.id}/remove")[1]["data"] == {}
    assert stage.store.connections.all() == []


# its end


def test_told_to_stop_it_stops_its_engines_and_leaves_nothing(stage: Stage, program: Program) -> None:
    projects = [stage.project(name) for name in ("one", "two", "three")]
    for project in projects:
        stage.knobs(project, litter=True)
        assert program.ask("POST", f"/engines/{project}/ensure")[0] == 200
    below = Family().below(Identity(program.process.pid, str(identity.identify(program.process.pid).start)))  # type: ignore[union-attr]
    assert len(below) >= 6  # three engines and what they littered
    assert program.stop() == 0
    assert not [process for process in below if identity.alive(process)]
    assert not list(stage.runtime.iterdir())
    assert {row.state for row in stage.store.engines.list()} == {"stopped"}


def test_what_a_killed_engine_leaves_behind_is_ended(stage: Stage, program: Program) -> None:
    project = stage.project()
    stage.knobs(project, litter=True)
    program.ask("POST", f"/engines/{project}/ensure")
    litter = identity.identify(int((stage.layout.engine(project) / "litter").read_text()))
    assert litter is not None
    os.kill(engine(stage, project).pid, signal.SIGKILL)
    until_now(lambda: not identity.alive(litter), "what it littered is gone")
    until_now(lambda: not Family().ended(program.process.pid), "no zombie is left")
    assert program.ask("GET", f"/engines/{project}")[1]["data"]["state"] == "stopped"


def test_engines_outlive_a_killed_provisioner_and_are_adopted(stage: Stage, program: Program) -> None:
    project, dying = stage.project("one"), stage.project("two")
    address = program.ask("POST", f"/engines/{project}/ensure")[1]["data"]
    program.ask("POST", f"/engines/{dying}/ensure")
    mine = engine(stage, project)
    program.kill()
    assert identity.alive(mine)
    identity.end([engine(stage, dying)], term=0.0)
    with another(stage) as second:
        assert second.ask("POST", f"/engines/{project}/ensure")[1]["data"] == address
        assert second.ask("GET", f"/engines/{dying}")[1]["data"]["state"] == "stopped"
        assert len(stage.journal(project, "spawn")) == 1
        row = stage.store.engines.get(dying)
        assert row is not None and (row.state, row.pid) == ("stopped", None)
    assert not identity.alive(mine)


def test_after_both_died_nothing_of_the_old_generation_is_left(stage: Stage, program: Program) -> None:
    project = stage.project()
    program.ask("POST", f"/engines/{project}/ensure")
    program.kill()
    identity.end([engine(stage, project)], term=0.0)
    with another(stage) as second:
        assert [path.name for path in stage.runtime.iterdir()] == ["provisioner.sock"]
        assert second.ask("POST", f"/engines/{project}/ensure")[1]["data"]["generation"] == 2


def test_a_provisioner_killed_while_it_starts_an_engine_leaves_none_half_started(stage: Stage, program: Program) -> None:
    project = stage.project()
    stage.knobs(project, mute=True)
    with contextlib.closing(program.begin("POST", f"/engines/{project}/ensure")):
        until_now(lambda: stage.journal(project, "spawn"), "the engine has begun")
        started = engine(stage, project)
        program.kill()
    with another(stage) as second:
        assert not identity.alive(started)
        stage.knobs(project)
        assert second.ask("POST", f"/engines/{project}/ensure")[0] == 200


# half-made connections: killed at every point, then looked at by the next


def finished(stage: Stage, project: str, connection: str) -> bool:
    """Whole: the row is connected and the engine has it. Raises when it is neither whole nor on its way."""
    [row] = stage.store.connections.all()
    assert row.state in ("connecting", "connected")
    return row.state == "connected" and stage.held(project) == [connection]


def test_killed_before_anything_was_asked(stage: Stage, program: Program) -> None:
    program.kill()
    project = stage.project()
    row = stage.connect(project, token="t0ken-value")
    with another(stage):
        until_now(lambda: finished(stage, project, row.id), "the connection is whole")


def test_killed_in_the_middle_of_an_install(stage: Stage, program: Program) -> None:
    project = stage.project()
    stage.knobs(project, install="hold")
    row = stage.connect(project, token="t0ken-value")
    with contextlib.closing(program.begin("POST", f"/connections/{row.id}/reconcile")):
        until_now(lambda: stage.journal(project, "put"), "the engine works on it")
        program.kill()
    stage.release(project)
    with another(stage):
        until_now(lambda: finished(stage, project, row.id), "the connection is whole")


def test_killed_together_with_the_engine_in_the_middle_of_an_install(stage: Stage, program: Program) -> None:
    project = stage.project()
    stage.knobs(project, install="hold")
    row = stage.connect(project)
    with contextlib.closing(program.begin("POST", f"/connections/{row.id}/reconcile")):
        until_now(lambda: stage.journal(project, "put"), "the engine works on it")
        program.kill()
    identity.end([engine(stage, project)], term=0.0)
    stage.release(project)
    with another(stage):
        until_now(lambda: finished(stage, project, row.id), "the connection is whole")


def test_killed_after_the_engine_had_it_and_before_it_was_told(stage: Stage, program: Program) -> None:
    project = stage.project()
    stage.knobs(project, after_install="hold")
    row = stage.connect(project)
    with contextlib.closing(program.begin("POST", f"/connections/{row.id}/reconcile")):
        until_now(lambda: stage.journal(project, "installed"), "the engine has it")
        program.kill()
    stage.release(project)
    with another(stage):
        until_now(lambda: finished(stage, project, row.id), "the connection is whole")
    assert len(stage.journal(project, "put")) == 1
    [kept] = stage.store.connections.all()
    assert kept.steps[-1] == {"step": "install", "state": "done", "detail": "2 tools"}


@contextlib.contextmanager
def locked(stage: Stage) -> Iterator[None]:
    """Nobody else can write to the store."""
    with contextlib.closing(sqlite3.connect(stage.home / "control" / "rootlink.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def test_killed_after_it_was_told_and_before_it_was_written_down(stage: Stage, program: Program) -> None:
    project = stage.project()
    program.ask("POST", f"/engines/{project}/ensure")
    row = stage.connect(project)
    with locked(stage), contextlib.closing(program.begin("POST", f"/connections/{row.id}/reconcile")):
        until_now(lambda: stage.held(project) == [row.id], "the engine has it")
        program.kill()
    with another(stage):
        until_now(lambda: finished(stage, project, row.id), "the connection is whole")


def test_killed_between_a_failed_install_and_its_undoing(stage: Stage, program: Program) -> None:
    project = stage.project()
    program.ask("POST", f"/engines/{project}/ensure")
    stage.knobs(project, install="fail")
    row = stage.connect(project, token="t0ken-value")
    with locked(stage), contextlib.closing(program.begin("POST", f"/connections/{row.id}/reconcile")):
        until_now(lambda: stage.journal(project, "delete"), "the engine let go of it")
        program.kill()
    with another(stage):
        until_now(lambda: not stage.store.connections.all(), "nothing is left")
    assert stage.store.secrets.list(project) == [] and stage.store.egress.domains(project) == [] and stage.held(project) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_killed_in_the_middle_of_a_removal(stage: Stage, program: Program, deleted: bool) -> None:
    project = stage.project()
    row = stage.connect(project, token="t0ken-value")
    program.ask("POST", f"/connections/{row.id}/reconcile")
    if deleted:
        stage.knobs(project, remove="hold")
        with contextlib.closing(program.begin("POST", f"/connections/{row.id}/remove")):
            until_now(lambda: stage.held(project) == [], "the engine let go of it")
            program.kill()
    else:
        program.kill()
        stage.store.connections.mark_removing(row.id)
    stage.release(project)
    with another(stage):
        until_now(lambda: not stage.store.connections.all(), "nothing is left")
    assert stage.store.secrets.list(project) == [] and stage.held(project) == []


def test_asked_of_the_gate_it_says_when_there_is_none(program: Program) -> None:
    status, answer = program.ask("GET", "/gate")
    assert status == 503 and answer["error"]["code"] == "unavailable"
