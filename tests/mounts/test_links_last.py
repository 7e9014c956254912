"""Links that last: sessions forgotten at bad moments, streams cut in the middle, openings given up, servers that never answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from rootlink.engine import outbound
from rootlink.engine.mounts.clients import REOPEN_SECONDS
from rootlink.engine.mounts.events import Event, Events
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.pool import Own, Pool
from rootlink.engine.rpc import RpcError
from rootlink.errors import Unavailable, UpstreamFailed
from rootlink.wire.mounts import MountSpec
from tests.harness.calls import Told
from tests.mounts.asking import ALL, Slowly, asking, here, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import StillClock, call, tree, until


class Far:
    """A session-era server in this process. `before(message, request)` may answer first; `gets` answers a GET."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.posts: list[Any] = []
        self.listened: list[str] = []  # sessions of GETs
        self.able: dict[str, Any] = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
        self.before: Callable[[dict[str, Any], web.Request], Awaitable[web.StreamResponse | None]] = _nothing
        self.gets: Callable[[web.Request], Awaitable[web.StreamResponse]] = _no_stream
        self.port = 0

    @property
    def spec(self) -> MountSpec:
        return MountSpec("far", "http", endpoint=f"http://127.0.0.1:{self.port}/mcp")

    def times(self, method: str) -> int:
        return self.posts.count(method)

    async def post(self, request: web.Request) -> web.StreamResponse:
        message = json.loads(await request.read())
        method, id = message.get("method"), message.get("id")
        self.posts.append(method)
        if method == "server/discover":
            return web.json_response({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}, status=400)
        early = await self.before(message, request)
        if early is not None:
            return early
        if method == "initialize":
            self.sessions.append(f"s{len(self.posts)}")
            info = {"name": "far", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": self.able, "serverInfo": info}
            answer = {"jsonrpc": "2.0", "id": id, "result": result}
            return web.json_response(answer, headers={"Mcp-Session-Id": self.sessions[-1]})
        if request.headers.get("mcp-session-id") not in self.sessions:
            missing = "mcp-session-id" not in request.headers
            return web.json_response({"error": "no session"}, status=400 if missing else 404)
        if id is None:
            return web.Response(status=202)
        return web.json_response({"jsonrpc": "2.0", "id": id, "result": _RESULTS.get(method, {})})

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.listened.append(request.headers.get("mcp-session-id", ""))
        return await self.gets(request)


_RESULTS: dict[str, Any] = {
    "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
    "resources/list": {"resources": [{"uri": "far://one", "name": "one"}]},
    "resources/templates/list": {"resourceTemplates": []},
    "tools/call": {"content": [{"type": "text", "text": "echo"}]},
}


async def _nothing(message: dict[str, Any], request: web.Request) -> None:
    return None


async def _no_stream(request: web.Request) -> web.StreamResponse:
    return web.Response(status=405)


@contextlib.asynccontextmanager
async def standing() -> AsyncIterator[Far]:
    far = Far()
    app = web.Application()
    app.add_routes([web.post("/mcp", far.post), web.get("/mcp", far.get)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    far.port = runner.addresses[0][1]
    try:
        yield far
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def mounted(make: MakeMounts, **members: Any) -> AsyncIterator[tuple[Mount, Far]]:
    async with standing() as far:
        for name, value in members.items():
            setattr(far, name, value)
        mounts = make(allow=here(far.port))
        try:
            yield await mounts.add("main", far.spec), far
        finally:
            await mounts.close()


# a session the server forgot


async def test_a_session_that_could_not_be_renewed_is_renewed_by_the_next_call(make: MakeMounts) -> None:
    async with mounted(make) as (mount, far):

        async def down(message: dict[str, Any], request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=503) if message.get("method") == "initialize" else None

        far.sessions.clear()
        far.before = down
        with pytest.raises(UpstreamFailed):
            await call(mount, "echo")
        far.before = _nothing
        assert await call(mount, "echo") == "echo"


async def test_a_call_given_up_while_a_session_is_renewed_costs_the_next_one_nothing(make: MakeMounts) -> None:
    async with mounted(make) as (mount, far):
        reached, go = asyncio.Event(), asyncio.Event()

        async def slowly(message: dict[str, Any], request: web.Request) -> web.StreamResponse | None:
            if message.get("method") == "initialize":
                reached.set()
                await go.wait()
            return None

        far.sessions.clear()
        far.before = slowly
        asked = asyncio.create_task(call(mount, "echo"))
        await asyncio.wait_for(reached.wait(), 5)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        go.set()
        assert await call(mount, "echo") == "echo"


async def test_a_server_that_has_no_get_at_all_is_not_greeted_again_and_again(make: MakeMounts) -> None:
    async def no_route(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async with mounted(make, gets=no_route) as (mount, far):
        await until(lambda: len(far.listened) >= 1, "it tried")
        await asyncio.sleep(4)
        assert far.times("initialize") <= 2
        assert len(far.listened) <= 2
        assert await call(mount, "echo") == "echo"


@pytest.mark.parametrize("status", [400, 404])
async def test_a_session_said_to_be_gone_on_its_stream_is_renewed_and_heard_again(make: MakeMounts, status: int) -> None:
    cut = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        if request.headers.get("mcp-session-id") not in far.sessions:
            return web.json_response({"error": "Invalid or missing session ID"}, status=status)
        assert len(far.sessions) == 1 or "last-event-id" not in request.headers  # which would be another session's
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\nretry: 10\ndata:\n\n")
        await cut.wait()
        return response

    async with standing() as far:
        far.gets = stream
        mounts = make(allow=here(far.port))
        await mounts.add("main", far.spec)
        await until(lambda: len(far.listened) == 1, "it listens")
        first = far.sessions.pop()
        cut.set()
        await until(lambda: far.sessions and far.listened[-1] == far.sessions[-1] != first, "it listens in the new session")
        await mounts.close()


def test_an_event_that_came_in_part_is_asked_for_again() -> None:
    events = Events(1000)
    events.feed(b"id: 1\ndata: one\n\nid: 2\ndata: tw")
    assert [events.next(), events.next()] == [Event("message", b"one"), None]
    assert events.last_id == "1"
    events.rewind()
    events.feed(b"id: 2\ndata: two\n\n")
    assert events.next() == Event("message", b"two")
    assert events.last_id == "2"


async def test_a_connection_that_breaks_in_an_answer_is_resumed_by_its_last_event(make: MakeMounts) -> None:
    unsent: list[Any] = []

    async def broken(message: dict[str, Any], request: web.Request) -> web.StreamResponse | None:
        if message.get("method") != "tools/call":
            return None
        unsent.append(message["id"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: e1\nretry: 10\ndata:\n\n")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def rest(request: web.Request) -> web.StreamResponse:
        if request.headers.get("last-event-id") != "e1":
            return web.Response(status=405)
        answer = {"jsonrpc": "2.0", "id": unsent[-1], "result": _RESULTS["tools/call"]}
        return web.Response(text=f"id: e2\ndata: {json.dumps(answer)}\n\n", content_type="text/event-stream")

    async with mounted(make, before=broken, gets=rest) as (mount, far):
        assert await call(mount, "echo") == "echo"
        assert far.times("tools/call") == 1


# openings and ends


class _Fake:
    """A link that counts its ends."""

    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_a_link_whose_caller_gave_up_just_as_it_was_ready_is_ended() -> None:
    made: list[_Fake] = []
    callers: list[asyncio.Task[None]] = []

    async def open_(own: Own, closed: Callable[[str], None]) -> None:
        made.append(_Fake())
        own.link = cast("Link", made[-1])
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(callers[0].cancel)  # runs when this task is done and nobody was told yet

    pool = Pool("fake", open_, lambda own: None, StillClock())

    async def carry() -> None:
        async with pool.carrying(Told().client):
            raise AssertionError("it was given up")

    callers.append(asyncio.create_task(carry()))
    await asyncio.gather(*callers, return_exceptions=True)
    assert callers[0].cancelled()
    await pool.close()
    assert [link.closed for link in made] == [1]


async def test_calls_that_wait_for_their_turn_in_vain_are_told_that_it_is_busy(make: MakeMounts) -> None:
    mount = await make().add("main", asking(concurrency=1, session="client"))
    asker = Slowly(capabilities=ALL)
    first = asyncio.create_task(use(mount, asker, "ask", method="elicitation/create", params={"message": "?"}))
    await until(lambda: asker.asked, "it asked")
    with pytest.raises(Unavailable, match="asking is busy"):
        await use(mount, Told(key="other"), "count", timeout=0.3)
    asker.go.set()
    await first
    assert await use(mount, Told(key="other"), "count") == 1


async def test_a_server_silent_to_an_unsubscribe_costs_later_subscribers_nothing(make: MakeMounts) -> None:
    hung = asyncio.Event()

    async def silent(message: dict[str, Any], request: web.Request) -> web.StreamResponse | None:
        if message.get("method") == "resources/unsubscribe":
            hung.set()
            await asyncio.sleep(60)
        return None

    async with standing() as far:
        far.before = silent
        mounts = make(allow=here(far.port))
        spec = MountSpec("far", "http", endpoint=f"http://127.0.0.1:{far.port}/mcp", session="shared")
        mount = await mounts.add("main", spec)
        one, other = Told(key="one").client, Told(key="other").client
        await mount.subscribe("far://one", one)
        mounts.forget_client("one")
        await asyncio.wait_for(hung.wait(), 5)
        async with asyncio.timeout(10):
            await mount.subscribe("far://two", other)
        await mounts.close()


async def test_a_restart_goes_on_when_who_asked_for_it_does_not_wait(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    for pause in (0.0, 0.02, 0.1, 0.3):
        asked = asyncio.create_task(mount.restart())
        await asyncio.sleep(pause)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert await use(mount, Told(), "count") == 1


async def test_a_restart_that_comes_after_the_stop_begins_nothing(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking())
    stopping = asyncio.create_task(mounts.remove("main", "asking"))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="asking was stopped"):
        await mount.restart()
    await stopping
    assert (mount.state, mount._life) == ("stopped", None)


async def test_nothing_is_learned_of_a_mount_that_is_down(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking(session="client"))
    await mounts.remove("main", "asking")
    mount.lists(Told(capabilities=ALL).client)
    await asyncio.sleep(0.5)
    assert not tree()


async def test_what_was_listed_before_the_mount_was_ready_is_learned_once_it_is(make: MakeMounts) -> None:
    told: list[set[str]] = []
    mounts = make(on_change=lambda ws, kinds: told.append(kinds))
    catalogue = (await mounts.add("main", asking(session="client"))).catalogue
    await mounts.remove("main", "asking")
    mount = mounts.restore("main", asking(session="client"), catalogue=catalogue)
    client = Told(capabilities=ALL).client
    assert mount.lists(client) is catalogue
    await until(lambda: told == [{"tools"}], "somebody is told")
    assert "with_elicitation" in {tool["name"] for tool in mount.lists(client).tools}


async def test_a_restart_subscribes_sessions_again_that_make_no_call(make: MakeMounts) -> None:
    heard: list[tuple[str, str | None]] = []
    mounts = make(on_updated=lambda ws, uri, params, key: heard.append((uri, key)))
    mount = await mounts.add("main", asking(session="client"))
    one, gone = Told(key="one"), Told(key="gone")
    for client in (one.client, gone.client):
        await mount.subscribe("asking://one", client)
    await mounts.restart("main", "asking")
    mounts.forget_client("gone")
    await until(lambda: heard == [("asking://one", "one")], "it is told that it may have missed something")
    assert await use(mount, one, "watched") == ["asking://one"]


async def test_a_task_can_be_asked_about_while_another_call_has_the_turn(make: MakeMounts) -> None:
    mount = await make().add("main", asking(concurrency=1))
    slow = asyncio.create_task(use(mount, None, "slow", seconds=0.5))
    await asyncio.sleep(0.1)
    with pytest.raises(RpcError, match="Method not found"):
        await mount.request("tasks/get", {"taskId": "t"}, timeout=0.2)
    await slow


async def test_a_session_whose_server_was_away_for_a_while_is_subscribed_again_without_a_call(make: MakeMounts) -> None:
    heard: list[tuple[str, str | None]] = []
    mounts = make(on_updated=lambda ws, uri, params, key: heard.append((uri, key)))
    mount = await mounts.add("main", asking(session="client"))
    one = Told(key="one")
    await mount.subscribe("asking://one", one.client)
    dial, mount._clients._dial = mount._clients._dial, _away  # its link cannot be opened for now
    with pytest.raises(UpstreamFailed):
        await use(mount, one, "crash")
    await asyncio.sleep(REOPEN_SECONDS + 0.2)
    assert heard == []
    mount._clients._dial = dial
    with pytest.raises(UpstreamFailed):
        await use(mount, None, "crash")  # and as soon as the mount's own is there again
    await until(lambda: heard == [("asking://one", "one")], "it is told that it may have missed something")


async def _away() -> Any:
    raise UpstreamFailed("away")


async def test_a_call_whose_post_hangs_hears_that_its_sse_stream_is_gone(make: MakeMounts) -> None:
    streams: list[web.StreamResponse] = []
    hung = asyncio.Event()

    async def listen(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        streams.append(response)
        await response.write(b"event: endpoint\ndata: /mcp\n\n")
        await hung.wait()
        return response

    async def post(message: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if message["method"] == "tools/call":
            hung.set()
            await asyncio.sleep(30)
        info = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
        result = info if message["method"] == "initialize" else _RESULTS["tools/list"]
        if "id" in message:
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            await streams[-1].write(b"data: " + json.dumps(answer).encode() + b"\n\n")
        return web.Response(status=202)

    async with standing() as far:
        far.gets, far.before = listen, post
        mounts = make(allow=here(far.port))
        mount = await mounts.add("main", msgspec.structs.replace(far.spec, transport="sse"))
        with pytest.raises(UpstreamFailed, match="far closed its event stream before it answered"):
            await call(mount, "echo", timeout=5)
        await mounts.close()


async def test_a_hung_host_leaves_sockets_for_the_others(make: MakeMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "MAX_SOCKETS", 8)
    monkeypatch.setattr(outbound, "MAX_OF_ONE_HOST", 4)

    async def hang(message: dict[str, Any], request: web.Request) -> web.StreamResponse | None:
        if message.get("method") == "tools/call":
            await asyncio.sleep(30)
        return None

    async with standing() as hung, standing() as other:
        mounts = make(allow=[*here(hung.port), *here(other.port)])
        one = await mounts.add("main", hung.spec)
        two = await mounts.add("main", msgspec.structs.replace(other.spec, name="other"))
        hung.before = hang
        calls = [asyncio.create_task(call(one, "echo")) for _ in range(12)]
        await until(lambda: hung.times("tools/call") == 4, "it has all the sockets it may have")
        assert await call(two, "echo", timeout=2) == "echo"
        for asked in calls:
            asked.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await mounts.close()


_STUBBORN = """
import json, os, signal, sys, time
if os.path.exists(os.path.join(os.environ["HOME"], "hang")):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
for line in sys.stdin:
    message = json.loads(line)
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}, "tools": []}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": info}), flush=True)
"""


async def test_the_end_waits_for_a_process_whose_opening_was_given_up_just_before(make: MakeMounts, tmp_path: Path) -> None:
    mounts = make()
    spec = MountSpec("stubborn", "stdio", command="python", args=["-S", "-c", _STUBBORN], session="client")
    mount = await mounts.add("main", spec)
    before = tree()
    (tmp_path / "mounts" / "main" / "stubborn" / "hang").touch()
    asked = asyncio.create_task(call_as(mount, Told()))
    await until(lambda: tree() > before, "its process is there")
    asked.cancel()
    await asyncio.sleep(0.05)
    await mounts.close()
    assert tree() == set()
    await asyncio.gather(asked, return_exceptions=True)


async def call_as(mount: Mount, told: Told) -> Any:
    return await mount.request("tools/call", {"name": "x"}, call=told)
