"""kill -9 of any program at any moment: everything comes back, and no process is left over."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.instance import SERVERS, Answer, Instance, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def program(instance: Instance, name: str) -> psutil.Process:
    """The gateway, the provisioner or an engine of this instance."""
    return instance.programs(name)[0]


def furnished(instance: Instance) -> set[str]:
    """Connect memory, deploy a function, mount a server; the tools there are then."""
    instance.connect("memory")
    instance.engine("PUT", "/functions", {"name": "hello", "code": "async (input) => ({hello: input.name})"})
    instance.mount("plain", SERVERS / "plain.py")
    return set(instance.tools())


def answered(instance: Instance) -> Any:
    answer = instance.project("GET", "/engine")
    return answer.data if answer.status == 200 else None


def usable(instance: Instance, tools: set[str]) -> bool:
    try:
        if set(instance.tools()) != tools:
            return False
        return "x" in str(instance.call("plain__echo", {"text": "x"})) and "A" in str(
            instance.call("function__hello", {"name": "A"})
        )
    except (OSError, AssertionError):
        return False


@pytest.mark.parametrize("name", ["gateway", "provisioner", "engine"])
def test_a_killed_program_is_back_with_everything_it_had(fresh: Instance, name: str) -> None:
    tools = furnished(fresh)
    engine = fresh.engine_pid()
    program(fresh, name).send_signal(signal.SIGKILL)
    eventually(lambda: usable(fresh, tools), wait=30, what=f"recovery from kill -9 of the {name}")
    if name != "engine":
        view = eventually(lambda: answered(fresh), what="the provisioner's answer")
        assert view["pid"] == engine, "a running engine is re-adopted, not replaced"


@pytest.mark.parametrize("name", ["gateway", "provisioner", "engine"])
def test_up_again_after_a_kill_answers_for_what_runs_once_it_is_ready(fresh: Instance, name: str) -> None:
    tools = furnished(fresh)
    program(fresh, name).send_signal(signal.SIGKILL)
    pid, api = fresh.pid, fresh.api
    fresh.up()
    assert (fresh.pid, fresh.api) == (pid, api)
    eventually(lambda: usable(fresh, tools), wait=30, what="recovery")


def test_up_again_with_other_settings_is_refused(fresh: Instance) -> None:
    refused = fresh.run("up", "--detach", "--port", "0", "--allow-private", "10.0.0.0/8")
    assert refused.returncode == 1
    assert "conflict" in refused.stderr
    assert "allow_private" in refused.stderr


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_has_everything(fresh: Instance) -> None:
    tools = furnished(fresh)
    os.kill(fresh.pid, signal.SIGKILL)
    eventually(lambda: not fresh.processes(), wait=30, what="the end of every process")
    fresh.up()
    eventually(lambda: usable(fresh, tools), wait=30, what="recovery")


def test_everything_killed_at_once_leaves_nothing_and_comes_back(fresh: Instance) -> None:
    tools = furnished(fresh)
    for process in (
        psutil.Process(fresh.pid),
        program(fresh, "gateway"),
        program(fresh, "provisioner"),
        program(fresh, "engine"),
    ):
        process.send_signal(signal.SIGKILL)
    fresh.up()
    eventually(lambda: usable(fresh, tools), wait=30, what="recovery")
    fresh.down()
    assert fresh.processes() == []


@pytest.mark.parametrize("name", ["provisioner", "engine"])
def test_a_kill_in_the_middle_of_a_connect_leaves_all_of_it_or_nothing(fresh: Instance, name: str) -> None:
    fresh.engine("GET", "/tools")
    answers: list[Any] = []
    connecting = threading.Thread(target=lambda: answers.append(_connect(fresh)))
    connecting.start()
    eventually(lambda: fresh.project("GET", "/connections").data, what="the intent")
    program(fresh, name).send_signal(signal.SIGKILL)
    connecting.join(120)

    def settled() -> bool:
        states = [c["state"] for c in fresh.project("GET", "/connections").data]
        return states in ([], ["connected"])

    eventually(settled, wait=60, what="a settled connection")
    whole = bool(fresh.project("GET", "/connections").data)
    eventually(lambda: ("memory__read_graph" in fresh.tools()) == whole, wait=30, what="agreement of row and engine")


def _connect(instance: Instance) -> Answer | Exception:
    try:
        return instance.project("POST", "/connections", {"connector": "memory"})
    except OSError as error:
        return error


def test_a_call_in_flight_when_its_engine_dies_gets_an_answer(fresh: Instance) -> None:
    furnished(fresh)
    answers: list[Answer] = []
    calls = [
        threading.Thread(
            target=lambda: answers.append(fresh.engine("POST", "/tools/plain__slow/call", {"arguments": {"seconds": 30}}))
        )
        for _ in range(5)
    ]
    for call in calls:
        call.start()
    eventually(lambda: fresh.project("GET", "/engine").data["calls"] == 5, what="five calls in flight")
    program(fresh, "engine").send_signal(signal.SIGKILL)
    for call in calls:
        call.join(10)
    assert [(answer.status, answer.json["ok"]) for answer in answers] == [(502, False)] * 5


def test_two_hundred_first_calls_start_one_engine(fresh: Instance) -> None:
    fresh.key  # noqa: B018 - made before the race
    statuses: list[int] = []
    calls = [threading.Thread(target=lambda: statuses.append(fresh.engine("GET", "/tools").status)) for _ in range(200)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(60)
    assert statuses == [200] * 200
    assert len(fresh.programs("engine")) == 1


def test_an_idle_engine_is_stopped_and_comes_back_with_the_next_request(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "home", "--idle-stop", "1s").up()
    try:
        assert instance.engine("GET", "/tools").status == 200
        eventually(lambda: instance.project("GET", "/engine").data["state"] == "stopped", wait=30, what="the idle stop")
        assert instance.engine("GET", "/tools").status == 200
    finally:
        instance.down()
    assert instance.processes() == []
