"""`up`, `down`, `status` on the real programs: started, killed and stopped; nothing may be left (SECURITY-FIGURES R2, R4)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootlink.errors import Unavailable
from rootlink.programs import up
from rootlink.programs.probe import Answer, ask
from rootlink.programs.record import Record
from rootlink.programs.settings import Settings, runtime_path
from rootlink.provisioner.launch import hold, identity
from rootlink.provisioner.launch.identity import Family, Identity
from tests.provisioner.stage import until_now

pytestmark = pytest.mark.slow


class Instance:
    """One detached Rootlink."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], **flags: Any) -> None:
        self.settings = Settings.load({"home": str(home), "port": 0, "detach": True, **flags}, os.environ)  # noqa: TID251
        self.capsys = capsys

    def up(self) -> dict[str, Any]:
        self.capsys.readouterr()
        assert up.run(self.settings, json=True) == 0
        [line] = self.capsys.readouterr().out.splitlines()
        self.line = dict[str, Any](json.loads(line))
        return self.line

    def process(self, name: str) -> Identity:
        process = Record(self.settings.run_dir / f"{name}.json").process()
        assert process is not None
        return process

    def everyone(self) -> list[Identity]:
        top = self.process("rootlink")
        return [top, *Family().below(top)]

    def ask(self, method: str, path: str) -> Answer | None:
        host, port = self.line["api"].removeprefix("http://").rsplit(":", 1)
        token = Path(self.line["admin_token_file"]).read_text().strip()
        return ask((host, int(port)), method, path, within=10.0, token=token)

    def engine(self) -> Identity:
        """Of the default project, started by asking for a restart."""
        answer = self.ask("POST", "/v1/projects/default/engine/restart")
        assert answer is not None and answer.status == 200, answer
        process = identity.identify(json.loads(answer.body)["data"]["pid"])
        assert process is not None
        return process


@pytest.fixture
def instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Instance]:
    instance = Instance(tmp_path / "home", capsys)
    yield instance
    up.down(instance.settings)
    shutil.rmtree(runtime_path(instance.settings.home), ignore_errors=True)


def test_up_answers_when_it_is_ready_and_down_leaves_nothing(instance: Instance) -> None:
    line = instance.up()
    assert list(line) == ["api", "console", "mcp", "home", "admin_token_file", "pid"]
    assert line["mcp"] == line["api"] + "/mcp" and line["console"].startswith(line["api"])
    answer = instance.ask("GET", "/readyz")
    assert answer is not None and answer.status == 200
    projects = instance.ask("GET", "/v1/projects")
    assert projects is not None and [one["name"] for one in json.loads(projects.body)["data"]] == ["default"]
    status = up.status(instance.settings)
    assert status["running"] and status["pid"] == line["pid"] and status["api"] == line["api"]
    processes = [*instance.everyone(), instance.engine()]
    assert len(processes) >= 4
    started = time.monotonic()
    assert up.down(instance.settings) == 1
    assert time.monotonic() - started < 10.0
    assert not [process for process in processes if identity.alive(process)]
    assert not up.status(instance.settings)["running"]
    assert {path.name for path in instance.settings.run_dir.iterdir()} <= {"up.lock", "provisioner.lock", "gate.lock"}
    assert not runtime_path(instance.settings.home).exists()
    assert up.down(instance.settings) == 0


def test_the_one_time_link_is_printed_and_never_written_down(instance: Instance) -> None:
    line = instance.up()
    token = line["console"].partition("token=")[2]
    assert token
    texts = b"".join(path.read_bytes() for path in instance.settings.home.rglob("*") if path.is_file())
    assert token.encode() not in texts


def test_what_is_private_is_for_this_user_only(instance: Instance) -> None:
    instance.up()
    instance.engine()
    home = instance.settings.home
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "seal.pub" and "/store/" not in str(path)]
    open_to_others = [str(path) for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077 and "engine/" not in str(path)]
    assert open_to_others == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("admin-token", "vault/seal.key", "run/rootlink.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_a_second_up_on_the_same_home_is_refused_with_pid_and_url(instance: Instance) -> None:
    line = instance.up()
    command = [sys.executable, "-m", "rootlink", "up", "--home", str(instance.settings.home), "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("rootlink: conflict:")
    assert str(line["pid"]) in refused.stderr and line["api"] in refused.stderr
    assert identity.alive(instance.process("rootlink"))


def test_a_second_detached_up_answers_for_what_runs_with_a_new_sign_in_link(instance: Instance) -> None:
    line = instance.up()
    again = instance.up()
    assert {**again, "console": ""} == {**line, "console": ""}
    assert again["console"] != line["console"]


def test_a_taken_port_is_told_and_nothing_stays(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = Instance(instance.settings.home, capsys, port=taken.getsockname()[1])
        with pytest.raises(Unavailable, match="can't be listened on"):
            other.up()
    assert not up.status(instance.settings)["running"]


def test_a_start_that_fails_tells_why(instance: Instance) -> None:
    instance.settings.prepare()
    (instance.settings.home / "control" / "rootlink.db").write_bytes(b"no database " * 100)
    with pytest.raises(Unavailable, match=r"did not start: .*rootlink\.db"):
        instance.up()
    assert not up.status(instance.settings)["running"]


def test_everything_is_as_it_was_after_a_restart(instance: Instance) -> None:
    instance.up()
    token = instance.settings.admin_token_file.read_text()
    key = instance.settings.private_key_file.read_bytes()
    up.down(instance.settings)
    instance.up()
    assert (instance.settings.admin_token_file.read_text(), instance.settings.private_key_file.read_bytes()) == (token, key)
    projects = instance.ask("GET", "/v1/projects")
    assert projects is not None and len(json.loads(projects.body)["data"]) == 1


def test_a_killed_gateway_is_back_with_the_same_port_and_engines(instance: Instance) -> None:
    instance.up()
    engine, gateway = instance.engine(), instance.process("gateway")
    os.kill(gateway.pid, signal.SIGKILL)
    killed = time.monotonic()
    until_now(lambda: not identity.alive(gateway), "it is gone")
    answer = instance.ask("GET", "/v1/projects/default/engine")  # waits in the queue of the port, which `up` holds
    took = time.monotonic() - killed
    assert answer is not None and json.loads(answer.body)["data"]["pid"] == engine.pid
    assert took < 5.0  # R2 asks for 2 s; the machines that run this are busy with other tests


def test_a_killed_provisioner_takes_its_engines_over_again(instance: Instance) -> None:
    instance.up()
    engine, provisioner = instance.engine(), instance.process("provisioner")
    os.kill(provisioner.pid, signal.SIGKILL)
    until_now(lambda: not identity.alive(provisioner), "it is gone")
    assert identity.alive(engine)

    def answered() -> bool:
        answer = instance.ask("GET", "/v1/projects/default/engine")
        return answer is not None and answer.status == 200 and json.loads(answer.body)["data"]["pid"] == engine.pid

    until_now(answered, "the next one knows the engine", 15.0)
    assert identity.alive(engine)
    up.down(instance.settings)
    assert not identity.alive(engine)


def test_the_gate_is_started_again_and_engines_are_left_alone(instance: Instance) -> None:
    instance.up()
    engine, gate = instance.engine(), instance.process("gate")
    assert up.status(instance.settings)["gate_pid"] == gate.pid
    for number in (signal.SIGKILL, signal.SIGTERM):
        gate = instance.process("gate")
        os.kill(gate.pid, number)
        until_now(lambda gate=gate: not identity.alive(gate), "it is gone")  # type: ignore[misc]
        until_now(lambda: up.status(instance.settings)["gate_pid"], "there is another", 10.0)
    assert identity.alive(engine)

    def told() -> bool:
        answer = instance.ask("GET", "/v1/projects/default/engine")
        assert answer is not None
        data = json.loads(answer.body)["data"]
        return data["pid"] == engine.pid and data["egress"] is not None and data["egress"]["doors"] > 0

    until_now(told, "the new gate has the doors of the engine that was there before")


def test_an_engine_runs_in_the_tier_that_is_in_force(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    for tier in ("kernel", "advisory"):
        other = Instance(instance.settings.home, capsys, sandbox=tier)
        other.up()
        engine = other.engine()
        answer = other.ask("GET", "/v1/projects/default/engine")
        assert answer is not None and json.loads(answer.body)["data"]["sandbox"] == tier
        own = [Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in (engine.pid, os.getpid())]
        assert (own[0] != own[1]) == (tier == "kernel")
        up.down(other.settings)


def test_a_killed_up_takes_everything_with_it(instance: Instance) -> None:
    instance.up()
    processes = [*instance.everyone(), instance.engine()]
    os.kill(instance.line["pid"], signal.SIGKILL)
    until_now(lambda: not [one for one in processes if identity.alive(one)], "nothing runs any more", 15.0)
    assert not up.status(instance.settings)["running"]
    instance.up()


def test_down_finds_what_a_killed_up_and_a_killed_provisioner_left(instance: Instance) -> None:
    instance.up()
    engine, everyone = instance.engine(), instance.everyone()
    for name in ("rootlink", "provisioner", "gateway"):
        os.kill(instance.process(name).pid, signal.SIGSTOP)  # so that none of them can clear up
    for name in ("provisioner", "rootlink"):
        os.kill(instance.process(name).pid, signal.SIGKILL)
    assert identity.alive(engine)
    assert up.status(instance.settings)["engine_pids"] == [engine.pid]
    assert up.down(instance.settings) >= 2
    until_now(lambda: not [one for one in (*everyone, engine) if identity.alive(one)], "nothing runs any more")


def test_the_next_up_ends_what_a_killed_one_left(instance: Instance) -> None:
    instance.up()
    gateway = instance.process("gateway")
    os.kill(gateway.pid, signal.SIGSTOP)
    os.kill(instance.line["pid"], signal.SIGKILL)
    until_now(lambda: Record(instance.settings.run_dir / "rootlink.json").process() is None, "up is gone")
    instance.up()
    assert not identity.alive(gateway)


def test_an_engine_whose_record_is_lost_is_ended_by_down(instance: Instance) -> None:
    instance.up()
    engine = instance.engine()
    _strike(instance, engine)
    assert up.status(instance.settings)["engine_pids"] == [engine.pid]
    assert up.down(instance.settings) >= 1
    assert not identity.alive(engine)


def test_an_engine_whose_record_is_lost_is_replaced_by_the_next_up(instance: Instance) -> None:
    instance.up()
    engine = instance.engine()
    _strike(instance, engine)
    instance.up()
    assert instance.engine() != engine
    assert not identity.alive(engine)
    assert len(up.status(instance.settings)["engine_pids"]) == 1


def _strike(instance: Instance, engine: Identity) -> None:
    """Everything but the engine is gone at once, and its record is damaged."""
    processes = [instance.process(name) for name in ("rootlink", "provisioner", "gateway")]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none of them can clear up
        for process in processes:
            os.kill(process.pid, number)
    until_now(lambda: not [one for one in processes if identity.alive(one)], "they are gone")
    assert identity.alive(engine)
    for record in (instance.settings.home / "projects").glob("*/run.json"):
        record.write_text("{")


def test_a_second_engine_on_the_same_state_refuses_to_start(instance: Instance, tmp_path: Path) -> None:
    instance.up()
    engine = instance.engine()
    [folder] = (instance.settings.home / "projects").glob("*/engine")
    second = {"project": "prj_1", "key": "k", "socket": str(tmp_path / "s.sock"), "state_dir": str(folder)}
    text = json.dumps({**second, "files_dir": str(tmp_path), "store_dir": str(tmp_path)})
    argv = [sys.executable, "-P", "-m", "rootlink.programs", "engine", "--home", str(instance.settings.home)]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "rootlink engine: conflict: another engine of this project runs already" in done.stderr
    assert identity.alive(engine)


def test_a_damaged_state_is_told_with_the_file_and_what_to_do(instance: Instance) -> None:
    instance.up()
    instance.engine()
    assert (answer := instance.ask("POST", "/v1/projects/default/engine/stop")) is not None and answer.status == 200
    [state] = (instance.settings.home / "projects").glob("*/engine/state.db")
    state.write_bytes(b"no database " * 1000)
    answer = instance.ask("POST", "/v1/projects/default/engine/restart")
    assert answer is not None and answer.status == 503
    message = json.loads(answer.body)["error"]["message"]
    assert f"{state} is damaged. Move it away" in message and "Traceback" not in message and ".py" not in message
    state.unlink()
    instance.engine()


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.3])
def test_down_ends_an_up_that_is_just_starting(instance: Instance, wait: float) -> None:
    settings = instance.settings
    argv = [sys.executable, "-m", "rootlink", "--home", str(settings.home), "up", "--port", "0", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        until_now(lambda: hold.held(settings.run_dir / "up.lock"), "it has begun")
        time.sleep(wait)  # what is tested is the moment
        assert up.down(settings) == 1
        assert process.wait(5.0) in (0, -signal.SIGTERM)
    assert not hold.held(settings.run_dir / "up.lock") and not hold.held(settings.run_dir / "provisioner.lock")
    assert not runtime_path(settings.home).exists()
    instance.up()


def test_down_leaves_the_sockets_of_an_up_that_started_meanwhile(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.up()
    monkeypatch.setattr(up, "_end_up", lambda settings: 0)  # it came after `down` had looked
    with pytest.raises(Unavailable, match="others keep starting"):
        up.down(instance.settings)
    assert {path.name for path in runtime_path(instance.settings.home).rglob("*.sock")} >= {"gate.sock", "doors.sock"}
    assert (answer := instance.ask("GET", "/readyz")) is not None and answer.status == 200
    monkeypatch.undo()


def test_a_log_folder_that_is_gone_is_made_again_and_nothing_ends(instance: Instance) -> None:
    instance.up()
    shutil.rmtree(instance.settings.logs_dir)
    gateway = instance.process("gateway")
    os.kill(gateway.pid, signal.SIGKILL)
    until_now(lambda: not identity.alive(gateway), "it is gone")
    answer = instance.ask("GET", "/readyz")
    assert answer is not None and answer.status == 200
    assert identity.alive(instance.process("rootlink")) and (instance.settings.logs_dir / "gateway.log").exists()


def test_a_child_that_can_not_be_started_again_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load({"home": str(tmp_path)}, {})
    settings.prepare()
    now, tries = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    child = up.Child("nothing", settings)

    def start() -> None:
        tries.append(now[0] - 1000.0)
        if len(tries) < 4:
            raise OSError(errno.EAGAIN, "no process to be had")
        child.process = subprocess.Popen(["sleep", "300"])

    monkeypatch.setattr(child, "start", start)
    while child.ended():
        wait = child.look()
        assert wait is None or wait > 0
        now[0] += 0.5
    monkeypatch.undo()
    child.stop(0.5)
    assert tries == [0.0, 0.5, 1.0, 1.5]


def test_a_child_that_is_killed_again_and_again_is_never_away_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load({"home": str(tmp_path)}, {})
    settings.prepare()
    now, away = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    child = up.Child("nothing", settings)

    def start() -> None:
        child._since = now[0]
        child.process = subprocess.Popen(["sleep", "300"])

    monkeypatch.setattr(child, "start", start)
    start()
    for _ in range(8):
        assert child.process is not None
        child.process.kill()
        child.process.wait()
        now[0] += 1.0
        away.append(child.look() or 0.0)
        now[0] += away[-1]
        assert child.look() is None
    monkeypatch.undo()
    child.stop(0.5)
    assert away[0] == 0.0 and max(away) <= 2.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_everything_well(instance: Instance, number: signal.Signals) -> None:
    argv = [sys.executable, "-m", "rootlink", "--home", str(instance.settings.home), "up", "--port", "0", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        instance.line = json.loads(process.stdout.readline())
        assert instance.line["pid"] == process.pid
        below = instance.everyone()[1:]
        process.send_signal(number)
        assert process.wait(10.0) == 0
        assert process.stderr.read() == ""
    assert len(below) == 3 and not [one for one in below if identity.alive(one)]


def test_said_to_people_it_names_console_mcp_and_data(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    assert up.run(instance.settings, json=False) == 0
    said = capsys.readouterr().out
    assert "/signin?token=" in said and "/mcp" in said and str(instance.settings.home) in said


def test_a_child_that_keeps_ending_is_started_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load({"home": str(tmp_path)}, {})
    settings.prepare()
    now, starts = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    child = up.Child("nothing", settings)

    class Ended:
        returncode = 1

        def poll(self) -> int:
            return 1

    def start() -> None:
        starts.append(now[0] - 1000.0)
        child.process, child._since = Ended(), now[0]  # type: ignore[assignment]

    monkeypatch.setattr(child, "start", start)
    start()
    while now[0] < 1110.0:
        child.look()
        now[0] += 0.5
    gaps = [later - before for before, later in itertools.pairwise(starts)]
    assert gaps[0] == 0.0 and gaps == sorted(gaps) and gaps[-1] >= 30.0
    assert len(starts) == 14


def test_the_probe_makes_do_with_anything() -> None:
    said = [b"", b"HTTP/1.1 200 OK\r\n\r\nbody", b"nonsense\r\n", b"HTTP/1.1 two\r\n\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for text in said:
                link, _ = server.accept()
                with link, contextlib.suppress(OSError):
                    link.recv(65536)
                    link.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        answers = [ask(server.getsockname(), "GET", "/", within=5.0) for _ in said]
        thread.join()
    assert answers == [None, Answer(200, b"body"), None, None]
    assert ask(("127.0.0.1", 1), "GET", "/", within=1.0) is None
