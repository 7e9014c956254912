"""What servers ask and tell their clients, across both eras on both sides and both transports, through one real Rootlink.

    feature × the client's era × the server's era × the server's transport      a test each

The client is the official SDK's: `legacy` opens a session of 2025-11-25, `auto` speaks 2026-07-28 and answers questions by asking
again (MRTR). The server is `tests/fixtures/servers/matrix.py`. Cells of revisions the SDK's client does not speak are at the end,
over raw HTTP; those that a revision does not have are skipped, and say why.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import mcp_types as types
import msgspec
import pytest
from mcp import Client

from tests.harness.instance import SERVERS, Instance, closing, request

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),  # that is what is tested
]

CLIENTS = {"session client": "legacy", "stateless client": "auto"}
SPOKEN = {"session client": "2025-11-25", "stateless client": "2026-07-28"}
MOUNTS = [f"{era}_{transport}" for era in ("session", "stateless") for transport in ("stdio", "http")]
FEATURES = ["form", "url", "sampling", "roots", "twice", "progress", "logging", "cancellation", "who"]
SCRIPT = SERVERS / "matrix.py"


@dataclass(frozen=True)
class Rig:
    instance: Instance
    notes: Path

    def noted(self, what: str, tag: str) -> bool:
        return json.dumps({"what": what, "tag": tag}) in (self.notes.read_text().splitlines() if self.notes.exists() else [])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("matrix")
    shown = folder / "notes"
    shown.mkdir()
    notes = shown / "notes.jsonl"
    started = []
    instance = Instance(folder / "home", "--allow-private", "127.0.0.0/8", "--allow-path", str(shown))
    for running in closing(instance):
        try:
            for mount in MOUNTS:
                era, transport = mount.split("_")
                if transport == "stdio":
                    more: dict[str, Any] = {"session": "client"} if era == "session" else {}
                    paths = {"write": [str(shown)]}
                    running.mount(mount, SCRIPT, era, "stdio", str(shown), paths=paths, **more)
                else:
                    started.append(_mount_http(running, mount, era, shown))
            yield Rig(running, notes)
        finally:
            for process in started:
                process.communicate()


def _mount_http(instance: Instance, name: str, era: str, notes: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), era, "http", str(notes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    instance.allow(f"127.0.0.1:{port}")
    answer = instance.engine(
        "POST", "/mcp-servers", {"name": name, "transport": "http", "endpoint": f"http://127.0.0.1:{port}/mcp"}
    )
    assert answer.status == 201, answer.body
    return process


@dataclass
class Person:
    """Who sits at the client: answers what it is asked, and keeps what it was asked and told."""

    asked: list[Any] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    steps: list[tuple[float, float | None, str | None]] = field(default_factory=list)

    async def elicited(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params)
        if isinstance(params, types.ElicitRequestURLParams):
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"name": f"Zoë {len(self.asked)}"})

    async def sampled(self, context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.asked.append(params)
        text = types.TextContent(type="text", text="4")
        return types.CreateMessageResult(role="assistant", content=text, model="m-1", stop_reason="endTurn")

    async def rooted(self, context: Any) -> types.ListRootsResult:
        self.asked.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///home/zoë", name="home")])  # type: ignore[arg-type]

    async def logged(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append(params.level)

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        self.steps.append((progress, total, message))

    @asynccontextmanager
    async def at(self, instance: Instance, mode: str, **more: Any) -> AsyncIterator[Client]:
        does: dict[str, Any] = {
            "elicitation_callback": self.elicited,
            "sampling_callback": self.sampled,
            "list_roots_callback": self.rooted,
            "logging_callback": self.logged,
            **more,
        }
        async with instance.client(mode, **does) as client:
            yield client


def said(result: Any) -> Any:
    """The JSON in the text of a result."""
    return json.loads(result.content[0].text)


async def form(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        answer = said(await client.call_tool(f"{mount}__form"))
    assert answer == {"answer": {"action": "accept", "content": {"name": "Zoë 1"}}}
    (asked,) = person.asked
    assert (asked.message, asked.requested_schema["required"]) == ("Who are you?", ["name"])


async def url(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        answer = said(await client.call_tool(f"{mount}__url"))
    assert answer == {"answer": {"action": "accept"}}
    (asked,) = person.asked
    assert (asked.mode, asked.url) == ("url", "https://example.com/sign-in?a=1&b=2")
    if mode == "legacy":
        assert asked.elicitation_id, "2025-11-25 wants an id on the wire, also when the server's revision has none"


async def sampling(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        answer = said(await client.call_tool(f"{mount}__sampling"))["answer"]
    assert (answer["content"]["text"], answer["model"], answer["stopReason"]) == ("4", "m-1", "endTurn")
    (asked,) = person.asked
    assert (asked.max_tokens, asked.temperature, asked.messages[0].content.text) == (7, 0.5, "2+2?")


async def roots(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        answer = said(await client.call_tool(f"{mount}__roots"))
    assert answer == {"answer": {"roots": [{"uri": "file:///home/zoë", "name": "home"}]}} or answer == {
        "answer": {"roots": [{"uri": "file:///home/zo%C3%AB", "name": "home"}]}
    }
    assert person.asked == ["roots"]


async def twice(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        answers = said(await client.call_tool(f"{mount}__twice"))
    assert [answer["answer"]["content"]["name"] for answer in answers] == ["Zoë 1", "Zoë 2"]
    assert len(person.asked) == 2


async def progress(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode) as client:
        await client.call_tool(f"{mount}__progress", progress_callback=person.progressed)
        await client.call_tool(f"{mount}__progress")
    assert person.steps == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


async def logging(rig: Rig, mode: str, mount: str) -> None:
    person = Person()
    async with person.at(rig.instance, mode, log_level="warning") as client:
        if mode == "legacy":
            await client.set_logging_level("warning")
        await client.call_tool(f"{mount}__logging")
        await _until(lambda: len(person.logs) >= 2, "two lines of the log")
        assert person.logs == ["warning", "error"]
    quiet = Person()
    async with quiet.at(rig.instance, mode) as client:
        if mode == "auto":  # a session that set no level may hear anything; a stateless client that asked for none must not
            await client.call_tool(f"{mount}__logging")
    assert quiet.logs == []


async def cancellation(rig: Rig, mode: str, mount: str) -> None:
    tag = uuid4().hex
    async with Person().at(rig.instance, mode) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, f"{mount}__wait", {"tag": tag})
                await _until(lambda: rig.noted("began", tag), "the call")
                scope.cancel()
        await _until(lambda: rig.noted("cancelled", tag), "the cancellation")
        assert said(await client.call_tool(f"{mount}__who"))["version"], "the session goes on"


async def who(rig: Rig, mode: str, mount: str) -> None:
    """What the server knows of its client is the real one's, name and capabilities."""
    info = types.Implementation(name="zoë's own", version="7")
    async with Person().at(rig.instance, mode, client_info=info) as client:
        known = said(await client.call_tool(f"{mount}__who"))
    assert {"elicitation", "sampling", "roots"} <= set(known["capabilities"])
    assert known["info"]["name"] == "zoë's own"
    async with rig.instance.client(mode) as client:  # one that can do nothing
        known = said(await client.call_tool(f"{mount}__who"))
        refused = await _refused(client.call_tool(f"{mount}__form"))
    assert not {"elicitation", "sampling", "roots"} & set(known["capabilities"])
    assert refused, "who declared no elicitation was asked all the same"


ACTS: dict[str, Callable[[Rig, str, str], Awaitable[None]]] = {
    act.__name__: act for act in (form, url, sampling, roots, twice, progress, logging, cancellation, who)
}


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("feature", FEATURES)
async def test_it_reaches_the_client(rig: Rig, feature: str, client: str, mount: str) -> None:
    async with asyncio.timeout(20):
        await ACTS[feature](rig, CLIENTS[client], mount)


# revisions the official client does not open a session of


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("feature", ["form", "url", "sampling", "roots"])
@pytest.mark.parametrize("version", ["2025-06-18", "2025-03-26"])
async def test_an_older_session_is_asked_what_its_revision_has(rig: Rig, version: str, feature: str, mount: str) -> None:
    if feature == "url":
        pytest.skip("URL elicitation is of 2025-11-25 and later")
    if feature == "form" and version < "2025-06-18":
        pytest.skip("elicitation is of 2025-06-18 and later")
    capabilities: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
    async with asyncio.timeout(20):
        asked = await asyncio.to_thread(_raw_session, rig.instance, version, capabilities, f"{mount}__{feature}")
    assert asked["method"] == {"form": "elicitation/create", "sampling": "sampling/createMessage", "roots": "roots/list"}[feature]


@pytest.mark.parametrize("mount", MOUNTS)
async def test_a_client_with_forms_alone_is_not_sent_to_a_url(rig: Rig, mount: str) -> None:
    """`elicitation: {}` of 2025-11-25 is forms alone."""
    async with asyncio.timeout(20):
        got = await asyncio.to_thread(_raw_session, rig.instance, "2025-11-25", {"elicitation": {}}, f"{mount}__url")
    assert "method" not in got
    assert "error" in got or "refused" in got["result"]["content"][0]["text"] or got["result"].get("isError")


def _raw_session(instance: Instance, version: str, capabilities: dict[str, Any], tool: str) -> Any:
    """Opens a session, calls `tool`, and answers the first message that comes: a question, or the answer. A question is answered
    with an error, so that nothing is left waiting."""
    headers = {"authorization": f"Bearer {instance.key}", "accept": "application/json, text/event-stream"}
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers["mcp-session-id"] = request(instance.api, "POST", "/mcp", first, headers).headers["mcp-session-id"]
    request(instance.api, "POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    with _Opened(instance, call, headers) as messages:
        for message in messages:
            if "method" in message and "id" in message:
                no = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -1, "message": "no"}}
                assert request(instance.api, "POST", "/mcp", no, headers).status == 202
                return message
            if message.get("id") == 2:
                return message
    raise AssertionError("the stream ended without an answer")


class _Opened:
    """The messages of the answer to one POST, as they come."""

    def __init__(self, instance: Instance, body: Any, headers: dict[str, str]) -> None:
        split = urlsplit(instance.api)
        self._connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=20)
        self._connection.request("POST", "/mcp", msgspec.json.encode(body), {"content-type": "application/json", **headers})
        self._answer = self._connection.getresponse()

    def __enter__(self) -> Iterator[Any]:
        if "json" in (self._answer.getheader("content-type") or ""):
            return iter([json.loads(self._answer.read())])
        return (json.loads(line[5:]) for line in self._answer if line.startswith(b"data:") and line[5:].strip())

    def __exit__(self, *_: object) -> None:
        self._connection.close()


async def _refused(call: Awaitable[Any]) -> bool:
    """Whether a call that asks was refused, in the result's words or with an error."""
    try:
        result = await call
    except Exception:  # whatever the SDK wraps it in
        return True
    return bool(result.is_error) or "refused" in result.content[0].text


async def _until(true: Callable[[], bool], what: str, wait: float = 5) -> None:
    deadline = asyncio.get_running_loop().time() + wait
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come within {wait} s"
        await asyncio.sleep(0.02)
