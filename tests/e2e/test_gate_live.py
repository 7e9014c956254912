"""The gate while things change: the list is in force at once and cuts what it no longer allows; a killed gate is back, and
neither engine nor mounts notice."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.harness.instance import KERNEL, SERVERS, Instance, closing, eventually
from tests.harness.standin import Authority, Seen, StandIn, Tap, speaker, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("doors")]
ONE, TWO, RAW = "one.live.example", "two.live.example", "raw.live.example"
FETCH = "async (input) => (await fetch(input.url)).status"
AT_ONCE = 2.0  # seconds, as asked from outside


def ticks() -> Iterator[bytes]:
    for number in itertools.count():
        yield f"tick {number}\n".encode()
        time.sleep(0.1)


def answer(seen: Seen) -> tuple[int, Any]:
    return (200, ticks()) if seen.path == "/ticks" else (200, {"path": seen.path})


@pytest.fixture(scope="module")
def world(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandIn, StandIn, Tap]]:
    folder = tmp_path_factory.mktemp("world")
    with (
        standin(ONE, answer, folder, authority) as one,
        standin(TWO, answer, folder, authority) as two,
        speaker(lambda line: b"heard " + line) as raw,
    ):
        yield one, two, raw


@pytest.fixture
def instance(world: tuple[StandIn, StandIn, Tap], authority: Authority, tmp_path: Path) -> Iterator[Instance]:
    one, two, raw = world
    pins = [*one.pin, *two.pin]
    pins += [word for port in (9000, 9001) for word in ("--resolve", f"{RAW}:{port}=127.0.0.1:{raw.port}")]
    for up in closing(Instance(tmp_path / "home", *KERNEL, *pins, *authority.flags)):
        up.allow(ONE, TWO, f"{RAW}:9000")
        up.mount("reach", SERVERS / "reach.py")
        assert up.engine("PUT", "/functions", {"name": "get", "code": FETCH}).status in (200, 201)
        assert up.project("GET", "/engine").data["sandbox"] == "kernel"
        yield up


def said(result: Any) -> str:
    return " ".join(str(part.get("text", "")) for part in result["content"])


def fetched(instance: Instance, host: str) -> bool:
    """By the mount and by the function, each through its own door."""
    url = {"url": f"https://{host}/fetched"}
    asked = {"reach__curl": {**url, "args": ["--max-time", "3"]}, "function__get": url}
    answers = [instance.engine("POST", f"/tools/{tool}/call", {"arguments": given}) for tool, given in asked.items()]
    return all(answer.status == 200 and not answer.data["isError"] for answer in answers)


def hold(instance: Instance, host: str) -> str:
    number = said(instance.call("reach__hold", {"url": f"https://{host}/ticks"}))
    eventually(lambda: held(instance, number)["ticks"] > 2, what="a stream")
    return number


def held(instance: Instance, number: str) -> Any:
    return msgspec.json.decode(said(instance.call("reach__held", {"n": number})))


def test_a_host_taken_off_the_list_is_cut_and_refused_and_the_others_go_on(instance: Instance) -> None:
    first, second = hold(instance, ONE), hold(instance, TWO)
    me, engine = said(instance.call("reach__me")), instance.engine_pid()
    assert instance.project("DELETE", f"/egress/{ONE}").status == 200
    eventually(lambda: not held(instance, first)["open"], wait=AT_ONCE, what="the cut")
    refused = instance.call("reach__curl", {"url": f"https://{ONE}/"})
    assert refused["isError"]
    assert f"egress blocked: host '{ONE}' is not in this project's outbound allowlist" in said(refused)
    assert f"egress blocked: host '{ONE}'" in said(instance.call("function__get", {"url": f"https://{ONE}/"}))
    before = held(instance, second)["ticks"]
    eventually(lambda: held(instance, second)["ticks"] > before, wait=AT_ONCE, what="the other stream going on")
    instance.allow(ONE)
    assert fetched(instance, ONE)
    assert (said(instance.call("reach__me")), instance.engine_pid()) == (me, engine), "nothing was restarted"


def test_a_new_host_and_a_new_port_work_at_once(instance: Instance) -> None:
    me = said(instance.call("reach__me"))
    assert said(instance.call("reach__say", {"host": RAW, "port": 9000, "text": "a"})) == "heard a"
    assert instance.call("reach__say", {"host": RAW, "port": 9001, "text": "b"})["isError"]
    eventually(lambda: (RAW, 9001) in {(row["host"], row["port"]) for row in instance.denied()}, what="the record")
    instance.allow(f"{RAW}:9001")
    began = time.monotonic()
    eventually(lambda: "heard c" in said(instance.call("reach__say", {"host": RAW, "port": 9001, "text": "c"})), wait=AT_ONCE)
    assert time.monotonic() - began < AT_ONCE
    assert said(instance.call("reach__me")) == me


def test_a_killed_gate_is_back_and_nothing_else_was_touched(instance: Instance, world: tuple[StandIn, StandIn, Tap]) -> None:
    assert fetched(instance, ONE)
    stream = hold(instance, TWO)
    me, engine = said(instance.call("reach__me")), instance.engine_pid()
    for wait in (3, 10):  # one that goes on ending is started again after a while only
        (gate,) = instance.programs("gate")
        gate.send_signal(signal.SIGKILL)
        eventually(lambda: fetched(instance, ONE), wait=wait, what="the way out")
    assert (said(instance.call("reach__me")), instance.engine_pid()) == (me, engine)
    assert not held(instance, stream)["open"], "what went through the old one ended with it"
    assert instance.call("reach__curl", {"url": "https://refused.example/"})["isError"]
    eventually(lambda: "refused.example" in {row["host"] for row in instance.denied()}, what="the record, by the new gate")


def test_while_the_gate_stands_still_nothing_passes(instance: Instance, world: tuple[StandIn, StandIn, Tap]) -> None:
    assert fetched(instance, ONE)
    (gate,) = instance.programs("gate")
    before = world[0].connections
    gate.send_signal(signal.SIGSTOP)
    try:
        waited = instance.call("reach__curl", {"url": f"https://{ONE}/still", "args": ["--max-time", "2"]})
        assert waited["isError"]
        assert world[0].connections == before
    finally:
        gate.send_signal(signal.SIGCONT)
    eventually(lambda: fetched(instance, ONE), wait=5, what="the way out")


def test_a_killed_provisioner_leaves_the_ways_out_as_they_were(instance: Instance) -> None:
    me = said(instance.call("reach__me"))
    (provisioner,) = instance.programs("provisioner")
    provisioner.send_signal(signal.SIGKILL)
    eventually(lambda: fetched(instance, ONE), wait=10, what="the way out")
    eventually(lambda: instance.project("GET", "/engine").status == 200, what="the provisioner")
    assert said(instance.call("reach__me")) == me
    assert instance.project("DELETE", f"/egress/{ONE}").status == 200
    eventually(lambda: not fetched(instance, ONE), wait=5, what="the change, by the new provisioner")


def test_an_engine_that_is_killed_leaves_no_door_and_comes_back_behind_one(instance: Instance) -> None:
    engine = instance.engine_pid()
    inside = {process.pid for process in instance.processes()}
    os.kill(engine, signal.SIGKILL)
    eventually(lambda: fetched(instance, ONE), wait=30, what="the engine and its way out")
    assert instance.engine_pid() != engine
    assert instance.project("GET", "/engine").data["sandbox"] == "kernel"
    mounts = [p for p in instance.processes() if p.pid in inside and "reach.py" in " ".join(p.cmdline())]
    assert mounts == [], "the old mount is gone with its door"
