"""On a link that is everybody's: what a server says of one client's call reaches no other, and what it tells of is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from rootlink.engine import rpc
from rootlink.engine.calls import Client
from rootlink.engine.mounts import clients, exchange, pool, watched
from rootlink.engine.mounts.exchange import Exchange, Heard
from rootlink.engine.rpc import RpcError
from rootlink.errors import Invalid, RootlinkError, UpstreamFailed
from tests.harness.calls import Told
from tests.mounts.asking import as_client, asking, asking_far, here, stateless, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import plain, stalls, until

LOG = "notifications/message"


def conversation() -> tuple[Exchange, list[str]]:
    unclaimed: list[str] = []
    return Exchange("far", lambda method, params: unclaimed.append(method)), unclaimed


async def test_what_a_server_says_of_a_call_that_was_cancelled_reaches_no_other_client() -> None:
    link, unclaimed = conversation()
    ada, bob = Told(key="ada"), Told(key="bob")
    link.forget(link.ask("tools/call", None, ada))
    theirs = link.ask("tools/call", None, bob)
    link.receive(rpc.notification(LOG, {"level": "info", "data": "ada's"}))
    assert (bob.told, unclaimed) == ([], [LOG])
    link.receive(rpc.answer(theirs.id, {}))
    own = link.ask("tools/call", None, ada)
    link.receive(rpc.notification(LOG, {"level": "info", "data": "ada's"}))
    assert [method for method, _ in ada.told] == [LOG]
    link.receive(rpc.answer(own.id, {}))


async def test_once_a_cancelled_call_is_answered_others_are_told_again() -> None:
    link, _ = conversation()
    broken = link.ask("tools/call", None, Told(key="ada"))
    link.forget(broken)
    bob = Told(key="bob")
    link.ask("tools/call", None, bob)
    link.receive(rpc.refusal(broken.id, -32800, "cancelled"))
    link.receive(rpc.notification(LOG, {"level": "info"}))
    assert [method for method, _ in bob.told] == [LOG]


async def test_many_cancelled_calls_do_not_make_room_for_what_was_said_of_the_first() -> None:
    link, _ = conversation()
    link.forget(link.ask("tools/call", None, Told(key="ada")))
    bob = Told(key="bob")
    for _ in range(3 * exchange.MOST_LINGERING):
        link.forget(link.ask("tools/call", None, bob))
    assert len(link._lingering) <= exchange.MOST_LINGERING
    link.ask("tools/call", None, bob)
    link.receive(rpc.notification(LOG, {"level": "info", "data": "ada's"}))
    assert bob.told == []


async def test_a_real_servers_late_line_about_a_cancelled_call_reaches_no_other_client(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    ada, bob = Told(key="ada"), Told(key="bob")
    slow = asyncio.create_task(use(mount, ada, "slow", seconds=0.2))
    await asyncio.sleep(0.05)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    link: Any = mount._link
    assert len(link._exchange._lingering) == 1
    link._exchange.ask("tools/call", None, bob)
    link._exchange.receive(rpc.notification(LOG, {"data": "late"}))
    assert bob.told == []


@pytest.mark.parametrize(
    "params", [b"[]", b"5", b'"x"', b'{"x":"\xff"}', b'{"x":1e999}', b'{"x":' + b"[" * 990 + b"]" * 990 + b"}"]
)
async def test_what_would_break_a_clients_stream_is_not_passed_on(params: bytes) -> None:
    link, unclaimed = conversation()
    call = Told()
    link.ask("tools/call", None, call)
    assert link.receive(b'{"jsonrpc":"2.0","method":"notifications/message","params":' + params + b"}") == (Heard.BAD, None)
    assert link.receive(b'{"jsonrpc":"2.0","id":1,"method":"roots/list","params":' + params + b"}")[0] is Heard.BAD
    assert (call.told, unclaimed) == ([], [])


async def test_what_a_server_wrote_on_many_lines_is_passed_on_in_one() -> None:
    link, _ = conversation()
    raws: list[bytes] = []
    call = Told()
    call.tell = lambda method, params: raws.append(bytes(params))  # type: ignore[method-assign]
    link.ask("tools/call", None, call)
    link.receive(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":\n\n"a\\nb",\r\n"n":1.50}}')
    assert raws == [b'{"data":"a\\nb","n":1.50}']


async def test_a_server_tells_of_its_own_resources_alone(make: MakeMounts) -> None:
    """Another one's may be known to it, and its subscribers must not be sent there."""
    updates: list[tuple[str, str | None]] = []
    mounts = make(on_updated=lambda ws, uri, params, key: updates.append((uri, key)))
    tells = {"method": "notifications/resources/updated", "params": {"uri": "other://one"}}
    for session in ("shared", "client"):
        mount = await mounts.add("main", asking(name=session, session=session))
        call = Told(key=session)
        await mount.subscribe("asking://one", call.client)
        await use(mount, call, "tell", **tells)
        await use(mount, call, "tell", **{**tells, "params": {"uri": "asking://one/below"}})
        await until(lambda: updates, "the subscriber is told")
        assert updates == [("asking://one/below", call.client.key if session == "client" else None)]
        updates.clear()


@pytest.mark.parametrize("able", [{}, {"elicitation": {}}])
async def test_a_tool_that_one_stateless_clients_session_grew_is_shown_to_no_other_client(make: MakeMounts, able: Any) -> None:
    mount = await make().add("main", asking(session="client"))
    ada, bob = (stateless(Told(key=key, capabilities=able)) for key in ("ada", "bob"))

    def shown(call: Told) -> list[str]:
        return [tool["name"] for tool in mount.lists(call.client).tools]

    await use(mount, bob, "count")
    await use(mount, ada, "grow")
    await until(lambda: "grown" in shown(ada), "its own client sees it")
    assert "grown" not in shown(bob)
    mount._clients.base_changed()
    await asyncio.gather(*mount._clients._errands)
    assert "grown" not in shown(bob)
    assert "grown" in shown(ada)


async def test_any_number_of_stateless_clients_ends_nobodys_session(make: MakeMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_LINKS", 3)
    mount = await make().add("main", asking(session="client"))
    honest = Told(key="honest")
    assert await use(mount, honest, "count") == 1
    for number in range(6):
        other = stateless(Told(key=f"k{number}", capabilities={"x": {"n": number}}))
        mount.lists(other.client)
        await use(mount, other, "count")
    await asyncio.gather(*mount._clients._errands)
    assert await use(mount, honest, "count") == 2


async def test_a_subscription_that_failed_is_watched_by_nobody(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    with pytest.raises((RpcError, RootlinkError)):
        await mount.subscribe("x:y", Told().client)
    assert mount._shared._watched.uris() == []


def test_a_server_is_asked_to_watch_no_more_than_it_can_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "MOST_WATCHED", 10)
    held = watched.Watched()
    held.add("12345", "a")
    assert [held.full("12345"), held.full("12345"), held.full("123456")] == [False, False, True]
    held.remove("12345", "a")
    assert not held.full("1234567890")


async def test_capabilities_that_are_others_each_time_are_not_all_remembered(
    make: MakeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MOST_LEARNED", 3)
    mount = await make().add("main", asking(session="client"))
    for number in range(10):
        mount.lists(stateless(Told(key=f"k{number}", capabilities={"x": {"n": number}})).client)
    assert len(mount._clients._learned) == 3


async def test_a_server_with_an_endless_name_is_refused(make: MakeMounts) -> None:
    class Link:
        owner: Client | None = None
        era: Any = None

        async def request(self, method: str, params: Any = None, *, call: Any = None) -> Any:
            return rpc.raw({"protocolVersion": "2025-11-25", "capabilities": {"experimental": {"x": "x" * (1 << 20)}}})

        async def notify(self, method: str, params: Any = None) -> None: ...

    from rootlink.engine.mounts.handshake import initialize

    with pytest.raises(UpstreamFailed, match="of its name and capabilities"):
        await initialize(Link(), "far")  # type: ignore[arg-type]


async def test_log_levels_of_workspaces_without_servers_are_forgotten_with_their_clients(make: MakeMounts) -> None:
    mounts = make()
    await mounts.add("main", plain())
    for ws in ("main", "w1", "w2"):
        client = as_client(Told(key=ws)).client
        mounts.level(ws, client, "debug")
        mounts.forget_client(ws)
    assert mounts._levels == {"main": {}}
    with pytest.raises(Invalid):
        mounts.level("main", Told().client, "loud")


async def test_a_body_full_of_notices_is_a_flood_as_a_stream_of_them_is(make: MakeMounts) -> None:
    async def answer(request: web.Request) -> web.Response:
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        match message["method"]:
            case "initialize":
                able = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "x", "version": "1"},
                }
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": able})
            case "tools/list":
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": [{"name": "t"}]}})
            case "tools/call":
                notice = '{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
                return web.Response(text=f"[{','.join([notice] * 60_000)}]", content_type="application/json")
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}})

    app = web.Application()
    app.router.add_post("/mcp", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        mount = await make(allow=here(port)).add("main", asking_far(port, name="far"))
        async with stalls() as worked:
            with pytest.raises(UpstreamFailed, match="more than 1000 messages a second"):
                await mount.request("tools/call", {"name": "t"}, call=Told(), timeout=20)
        assert max(worked) < 0.25
    finally:
        await runner.cleanup()
