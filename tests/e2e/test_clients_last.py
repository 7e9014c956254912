"""A client that is connected does not see its engine go: killed, restarted, stopped, idle, given a new secret, or upgraded.

The official client, in both eras, with its stream open. What was under way ends with an error that says that it may be tried
again; everything else goes on: the session, its log level, its subscriptions, what it can be asked.

An upgrade: the code on disk is another one, and every program that is started from then on is of it. An engine takes the new one
at its next start (`rootlink engine restart`, a crash, an idle stop), under a gateway and a provisioner that stay as they are; a
provisioner that is started anew takes over the engine there is. Only a gateway has to go for its own upgrade, and its clients'
connections with it (`rootlink down`, `rootlink up`): they connect again, to sessions that are still there.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import sysconfig
import venv
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import mcp_types as types
import psutil
import pytest
from mcp import Client, MCPError

from tests.e2e.test_matrix import Person, Rig, said
from tests.harness import node
from tests.harness.instance import ROOT, SERVERS, Instance, closing, eventually, request
from tests.harness.instance import script as script_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]

THINGS = ["matrix://own", "matrix://all"]
ERAS = {"session client": "legacy", "stateless client": "auto"}


class Release:
    """An installed Rootlink of its own, to be upgraded: its code, and a Python that imports that."""

    def __init__(self, folder: Path) -> None:
        packages = sysconfig.get_path("purelib")
        self._code = folder / "code"
        shutil.copytree(ROOT / "src", self._code, ignore=shutil.ignore_patterns("__pycache__"))
        venv.create(folder / "env", with_pip=False)
        self.python = folder / "env" / "bin" / "python"
        (own,) = (folder / "env" / "lib").glob("python*/site-packages")
        (own / "release.pth").write_text(f"{self._code}\n{packages}\n")
        self.flags = ("--allow-path", packages)  # what it depends on is not in its environment, where engines look for it
        self._numbers = itertools.count(1)
        self.version = ""
        self.upgrade()

    def upgrade(self) -> str:
        """What is started from now on is of this version."""
        number = next(self._numbers)
        self.version = f"1000.{number}"
        file = self._code / "rootlink" / "__init__.py"
        lines = [f'__version__ = "{self.version}"' if "__version__ =" in line else line for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines) + "\n")
        os.utime(file, (number, number))  # bytecode is told from older one by time and size
        return self.version


@dataclass(frozen=True)
class Upgradable(Rig):
    release: Release


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgradable]:
    """`own`: one process a client; `all`: one for all of them; `new`: in the stateless era."""
    folder = tmp_path_factory.mktemp("last")
    shown = folder / "notes"
    shown.mkdir()
    notes = shown / "notes.jsonl"
    release = Release(folder / "release")
    flags = ("--allow-private", "127.0.0.0/8", "--allow-path", str(shown), "--port", str(_free_port()), *release.flags)
    instance = Instance(folder / "home", *flags, before=(str(release.python),))
    for running in closing(instance):
        for name, era, more in (("own", "session", {"session": "client"}), ("all", "session", {}), ("new", "stateless", {})):
            script = SERVERS / "matrix.py"
            running.mount(name, script, era, "stdio", str(shown), name, paths={"write": [str(shown)]}, **more)
        yield Upgradable(running, notes, release)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# what happens to the engine


def killed(rig: Upgradable) -> None:
    """Returns when it is gone; nobody starts it but who needs it."""
    instance = rig.instance
    pid = instance.engine_pid()
    instance.programs("engine")[0].send_signal(signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, what="the end")


def restarted(rig: Upgradable) -> None:
    instance = rig.instance
    before = instance.engine_pid()
    assert instance.project("POST", "/engine/restart").status == 200
    assert instance.engine_pid() != before


def stopped(rig: Upgradable) -> None:
    instance = rig.instance
    assert instance.project("POST", "/engine/stop").status == 200
    eventually(lambda: instance.project("GET", "/engine").data["state"] == "stopped", what="the stop")


def upgraded(rig: Upgradable) -> None:
    """To another version than the gateway's, as after `git pull`, `make install`, `rootlink engine restart`."""
    gateway, before = _of_gateway(rig.instance), _of_engine(rig.instance)
    version = rig.release.upgrade()
    restarted(rig)
    assert (_of_gateway(rig.instance), _of_engine(rig.instance)) == (gateway, version)
    assert before != version


FATES: dict[str, Callable[[Upgradable], None]] = {
    "killed": killed,
    "restarted": restarted,
    "stopped": stopped,
    "upgraded": upgraded,
}


def _of_gateway(instance: Instance) -> str:
    return str(request(instance.api, "GET", "/api/v1/version").data["version"])


def _of_engine(instance: Instance) -> str:
    """The version that answers MCP."""
    said = {"protocolVersion": "2026-07-28", "clientInfo": {"name": "t", "version": "1"}, "clientCapabilities": {}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "server/discover"}
    asked["params"] = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in said.items()}}
    headers = {"authorization": f"Bearer {instance.key}", "accept": "application/json, text/event-stream"}
    headers |= {"mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover"}
    answer = request(instance.api, "POST", "/mcp", asked, headers)
    return str(answer.json["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["version"])


@pytest.fixture(params=FATES)
def fate(request: pytest.FixtureRequest, rig: Upgradable) -> Callable[[], Any]:
    """What happens to the engine in this test; to be awaited."""
    happen = FATES[request.param]

    async def fall() -> None:
        await asyncio.to_thread(happen, rig)

    return fall


@pytest.fixture(params=ERAS)
def mode(request: pytest.FixtureRequest) -> str:
    return ERAS[request.param]


# who is connected


@dataclass
class Connected(Person):
    """A `Person`, and what its client heard on the standing stream."""

    heard: list[str] = field(default_factory=list)
    streams: int = 0

    async def handle(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.heard.append(f"updated {message.params.uri}")
        elif isinstance(message, types.ToolListChangedNotification):
            self.heard.append("tools")
        elif isinstance(message, Exception):
            self.heard.append(f"lost: {message!r}")

    @asynccontextmanager
    async def connected(self, rig: Rig, mode: str) -> AsyncIterator[Client]:
        """With its standing stream, or its subscription, open at the engine."""
        async with self.at(rig.instance, mode, message_handler=self.handle, log_level="warning") as client:
            if mode == "legacy":
                await client.set_logging_level("warning")
                for thing in THINGS:
                    await client.subscribe_resource(thing)
                await until(lambda: _streams(rig.instance) > 0, "the standing stream")
                yield client
                return
            async with client.listen(tools_list_changed=True, resource_subscriptions=THINGS) as events:
                listening = asyncio.ensure_future(self._listen(events))
                try:
                    yield client
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, events: Any) -> None:
        try:
            async for event in events:
                uri = getattr(event, "uri", None)
                self.heard.append("tools" if uri is None else f"updated {uri}")
            self.heard.append("lost: the end")
        except Exception as error:
            self.heard.append(f"lost: {error!r}")


def _streams(instance: Instance) -> int:
    """As the gateway counts them."""
    page = request(instance.api, "GET", "/metrics").body.decode()
    return int(next(float(line.split()[1]) for line in page.splitlines() if line.startswith("rootlink_gateway_streams ")))


async def until(true: Callable[[], object], what: str, wait: float = 10) -> None:
    deadline = asyncio.get_running_loop().time() + wait
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come within {wait} s"
        await asyncio.sleep(0.05)


async def noticed(rig: Rig, person: Connected) -> None:
    """A server is mounted and unmounted, and the client hears of both."""
    name, script = f"b{uuid4().hex[:8]}", SERVERS / "plain.py"
    for method, path, body in (
        ("POST", "/mcp-servers", script_of(name, script)),
        ("DELETE", f"/mcp-servers/{name}", None),
    ):
        person.heard.clear()
        answer = await asyncio.to_thread(rig.instance.engine, method, path, body)
        assert answer.status in (200, 201), answer.body
        await until(lambda: "tools" in person.heard, f"the notice of {method}")
    assert not [word for word in person.heard if word.startswith("lost")]


async def test_the_session_goes_on(rig: Rig, mode: str, fate: Any) -> None:
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        assert said(await client.call_tool("own__who"))
        await fate()
        assert said(await client.call_tool("own__who"))["info"], "the first call after it"
        assert {"own__who", "all__who", "new__who"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert said(await client.call_tool("new__who"))
        await noticed(rig, person)


async def test_its_notices_come_without_a_call_of_its_own(rig: Rig, mode: str, fate: Any) -> None:
    """The stream at the gateway goes on by itself when somebody else starts the engine."""
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode):
        await fate()
        await asyncio.to_thread(rig.instance.tools)
        await noticed(rig, person)


async def test_what_may_have_changed_while_its_stream_was_away_is_told(rig: Rig, mode: str, fate: Any) -> None:
    """Nobody knows what changed between the end of one engine and the stream's return to the next one: so all of it may have."""
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode):
        person.heard.clear()
        await fate()
        await asyncio.to_thread(rig.instance.tools)
        expected = {"tools", *(f"updated {thing}" for thing in THINGS)}
        deadline = asyncio.get_running_loop().time() + 10
        while not expected <= set(person.heard):
            assert asyncio.get_running_loop().time() < deadline, f"not told within 10 s: {expected - set(person.heard)}"
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("mount", ["own", "all"])
async def test_its_subscriptions_hold(rig: Rig, mode: str, mount: str, fate: Any) -> None:
    if (mode, mount) == ("auto", "own"):
        pytest.skip("two calls of a stateless client need not reach the same process of a server that has one for each client")
    person = Connected()

    async def hears() -> None:
        """The server is asked to subscribe again in its own time, so it is touched until that was heard."""
        person.heard.clear()
        deadline = asyncio.get_running_loop().time() + 10
        while f"updated matrix://{mount}" not in person.heard:
            assert asyncio.get_running_loop().time() < deadline, f"no update of matrix://{mount} within 10 s: {person.heard}"
            await client.call_tool(f"{mount}__touch")
            await asyncio.sleep(0.1)

    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        await hears()
        await fate()
        await client.call_tool(f"{mount}__who")
        await hears()


async def test_its_log_level_holds(rig: Rig, mode: str, fate: Any) -> None:
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        await fate()
        await client.call_tool("own__logging")
        await until(lambda: len(person.logs) >= 2, "two lines of the log")
        await client.call_tool("own__who")
        assert person.logs == ["warning", "error"]


@pytest.mark.parametrize("mount", ["own", "new"])
async def test_it_can_be_asked_again(rig: Rig, mode: str, mount: str, fate: Any) -> None:
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        assert said(await client.call_tool(f"{mount}__form"))["answer"]["action"] == "accept"
        await fate()
        assert said(await client.call_tool(f"{mount}__form"))["answer"]["content"] == {"name": "Zoë 2"}
        assert len(person.asked) == 2


@pytest.mark.parametrize("told", [True, False], ids=["with a stream", "without a stream"])
async def test_what_was_under_way_ends_with_an_error_that_may_be_tried_again(rig: Rig, mode: str, told: bool, fate: Any) -> None:
    tag = uuid4().hex
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        more: dict[str, Any] = {"progress_callback": person.progressed} if told else {}
        call = asyncio.ensure_future(client.call_tool("own__wait", {"tag": tag}, **more))
        await until(lambda: rig.noted("began", tag), "the call")
        if told:
            await until(lambda: person.steps, "its progress")
        await fate()
        with pytest.raises(MCPError) as refused:
            await asyncio.wait_for(call, 15)
        assert refused.value.data is not None, refused.value
        assert refused.value.data["retryable"] is True
        assert said(await client.call_tool("own__who")), "the session goes on"


@pytest.mark.parametrize("mount", ["own", "new"])
async def test_an_answer_that_comes_after_its_engine_is_gone_is_an_error_and_not_another_calls(
    rig: Rig, mode: str, mount: str, fate: Any
) -> None:
    """The person thinks while the engine goes. What a stateless server asked needs nobody who remembers: it goes along."""

    class Slow(Connected):
        fallen = False

        async def elicited(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
            if not self.fallen:
                self.fallen = True
                await fate()
            return await super().elicited(context, params)

    person = Slow()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        (outcome,) = await asyncio.gather(asyncio.wait_for(client.call_tool(f"{mount}__form"), 30), return_exceptions=True)
        if isinstance(outcome, MCPError):
            assert (outcome.data or {}).get("retryable") is True, outcome
        else:
            assert (mode, mount) == ("auto", "new"), "only what carries its own state can go on"
            assert said(outcome) == {"answer": {"action": "accept", "content": {"name": "Zoë 1"}}}
        assert said(await client.call_tool(f"{mount}__form"))["answer"]["action"] == "accept"


async def test_a_new_secret_restarts_its_server_and_the_client_sees_nothing_but_that(rig: Rig, mode: str) -> None:
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        assert said(await client.call_tool("own__who"))
        answer = await asyncio.to_thread(
            rig.instance.project, "POST", "/secrets", {"name": f"S_{mode}", "plaintext": uuid4().hex}
        )
        assert answer.status == 201
        assert said(await client.call_tool("own__who"))
        await noticed(rig, person)


@pytest.mark.parametrize("name", ["gateway", "provisioner"])
async def test_another_program_that_dies_is_not_the_end_of_a_session(rig: Rig, mode: str, name: str) -> None:
    """A client of a gateway that died connects again by itself; a stateless one has to listen again, as its revision says."""
    person = Connected()
    if (mode, name) == ("auto", "gateway"):
        pytest.skip("a stateless client's subscription ends with its connection; it has nothing else to lose")
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        program = rig.instance.programs(name)[0]
        program.send_signal(signal.SIGKILL)
        await until(lambda: [one for one in rig.instance.programs(name) if one.pid != program.pid], "the next one", 20)
        await asyncio.to_thread(eventually, lambda: _answers(rig.instance), what="an answer", wait=20)
        assert said(await client.call_tool("own__who"))
        if name == "gateway":
            await until(lambda: _streams(rig.instance) > 0, "its stream")
        await noticed(rig, person)


async def test_a_provisioner_of_another_version_takes_over_the_engine_there_is(rig: Upgradable, mode: str) -> None:
    person = Connected()
    async with asyncio.timeout(60), person.connected(rig, mode) as client:
        assert said(await client.call_tool("own__who"))
        pid, version = rig.instance.engine_pid(), _of_engine(rig.instance)
        rig.release.upgrade()
        (provisioner,) = rig.instance.programs("provisioner")
        provisioner.send_signal(signal.SIGKILL)
        await until(lambda: [one for one in rig.instance.programs("provisioner") if one.pid != provisioner.pid], "the next", 20)
        await asyncio.to_thread(eventually, lambda: _answers(rig.instance), what="an answer", wait=20)
        assert said(await client.call_tool("own__who"))
        assert (rig.instance.engine_pid(), _of_engine(rig.instance)) == (pid, version)
        await noticed(rig, person)
        await asyncio.to_thread(restarted, rig)
        assert _of_engine(rig.instance) == rig.release.version
        assert said(await client.call_tool("own__who"))
        await noticed(rig, person)


async def test_a_session_is_still_there_when_all_of_rootlink_was_upgraded(rig: Upgradable) -> None:
    """Its connections end with the gateway; the client asks in the same session, and opens its stream again."""
    person = Connected()
    async with asyncio.timeout(90), person.connected(rig, "legacy") as client:
        assert said(await client.call_tool("own__who"))
        version = rig.release.upgrade()
        await asyncio.to_thread(rig.instance.down)
        await asyncio.to_thread(rig.instance.up)
        assert (_of_gateway(rig.instance), _of_engine(rig.instance)) == (version, version)
        assert said(await client.call_tool("own__who"))["info"]
        await until(lambda: _streams(rig.instance) > 0, "its stream")
        await noticed(rig, person)


def _answers(instance: Instance) -> bool:
    try:
        return instance.project("GET", "/engine").status == 200
    except OSError:
        return False


async def test_an_engine_stopped_for_being_idle_is_there_again_for_the_next_call(idle: Instance, mode: str) -> None:
    """An open stream is use: only a client without one (a stateless one that does not listen) lets its engine go idle."""
    async with idle.client(mode) as client:
        assert not (await client.call_tool("plain__echo", {"text": "a"})).is_error
        states: list[str] = []
        deadline = asyncio.get_running_loop().time() + (30 if mode == "auto" else 4)
        while "stopped" not in states and asyncio.get_running_loop().time() < deadline:
            states.append(await asyncio.to_thread(lambda: idle.project("GET", "/engine").data["state"]))
            await asyncio.sleep(0.2)
        assert ("stopped" in states) == (mode == "auto"), states
        assert not (await client.call_tool("plain__echo", {"text": "b"})).is_error


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Instance]:
    for running in closing(Instance(tmp_path / "home", "--idle-stop", "1s")):
        running.mount("plain", SERVERS / "plain.py")
        yield running


def test_the_inspector_without_a_key_says_that_it_has_to_sign_in(rig: Rig) -> None:
    done = node.inspector(rig.instance.mcp, "--method", "tools/list")
    assert done.returncode != 0
    assert "auth_required" in done.stdout + done.stderr
