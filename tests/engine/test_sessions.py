"""Session clients of every revision, over a real socket: what they get, and when."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.dispatch import Caller
from rootlink.engine.eras import session as sessions
from rootlink.engine.state import SessionRow, State
from tests.engine.session_client import Client, Events, Served, served, until

ALL = ["2025-11-25", "2025-06-18", "2025-03-26"]
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        one.dispatch.tools |= {"echo": echo, "step": step, "log": log, "hang": hang}
        yield one


async def echo(call: Call, arguments: dict[str, Any]) -> Any:
    return {"echoed": arguments}


async def step(call: Call, arguments: dict[str, Any]) -> Any:
    for done in (1, 2):
        call.tell("notifications/progress", rpc.raw({"progress": done}))
    return {"stepped": 2}


async def log(call: Call, arguments: dict[str, Any]) -> Any:
    for level in ("debug", "warning", "error"):
        call.tell("notifications/message", rpc.raw({"level": level, "data": level}))
    return {"logged": 3}


async def hang(call: Call, arguments: dict[str, Any]) -> Any:
    await asyncio.Event().wait()


# what a session is


@pytest.mark.parametrize("version", [*ALL, "2024-11-05"])
async def test_a_revision_we_speak_is_agreed_on(at: Served, http: aiohttp.ClientSession, version: str) -> None:
    client = await Client(at, http, version).initialize({"roots": {}, "sampling": {}})
    assert client.started["protocolVersion"] == version
    assert client.started["instructions"] == "Read me first."
    assert client.started["capabilities"]["of"] == ["roots", "sampling"]
    assert client.started["serverInfo"]["name"] == "rootlink"


async def test_a_revision_nobody_speaks_is_answered_with_our_newest(at: Served, http: aiohttp.ClientSession) -> None:
    assert (await Client(at, http, "1999-01-01").initialize()).started["protocolVersion"] == "2025-11-25"


async def test_a_server_sees_the_client_as_it_introduced_itself(at: Served, http: aiohttp.ClientSession) -> None:
    client = await Client(at, http, "2025-06-18").initialize({"elicitation": {}})
    await client.call("echo")
    seen = at.dispatch.clients[-1]
    assert (seen.key, seen.stateless, seen.version) == (client.id, False, "2025-06-18")
    assert (seen.info, seen.capabilities) == ({"name": "t", "version": "1"}, {"elicitation": {}})
    assert seen.standing is not None


async def test_ping_is_answered_here(client: Client) -> None:
    assert await client.post("ping", id="a") == {"jsonrpc": "2.0", "id": "a", "result": {}}


async def test_an_introduction_too_large_to_keep_is_refused(at: Served, http: aiohttp.ClientSession) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {"x": "y" * 70_000}}
    answer = await Client(at, http).send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    assert (await answer.json())["error"]["code"] == -32602
    assert len(at.sessions) == 0


async def test_delete_ends_everything_of_a_session(at: Served, client: Client) -> None:
    at.dispatch.tools["ask"] = lambda call, arguments: call.ask("roots/list", Raw(b"{}"))
    standing, hanging = await client.listen(), asyncio.create_task(client.call("hang"))
    await client.post("resources/subscribe", {"uri": "a:b"})
    await until(lambda: at.dispatch.clients)
    assert await client.delete() == 200
    assert ("forgotten", client.id) in at.dispatch.happened
    assert await standing.message() is None
    assert (await (await hanging).json())["error"]["code"] == -32800
    assert (await client.send(PING)).status == 404
    assert (at.state.session(client.id), at.sessions._subscribers) == (None, {})


async def test_at_the_cap_the_longest_idle_session_goes(
    at: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    streaming, idle, used = [await Client(at, http).initialize() for _ in range(3)]
    stream = await streaming.listen()
    await used.post("ping")
    await Client(at, http).initialize()
    assert at.dispatch.happened == [("forgotten", idle.id)]
    assert [(await one.send(PING)).status for one in (streaming, idle, used)] == [200, 404, 200]
    stream.close()


async def test_a_session_nobody_used_for_a_week_goes(
    at: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = await Client(at, http).initialize(), await Client(at, http).initialize()
    stream = await kept.listen()
    for session in at.sessions._live.values():
        session.seen -= 8 * 24 * 3600
    await Client(at, http).initialize()
    assert at.dispatch.happened == [("forgotten", old.id)]
    assert (await kept.send(PING)).status == 200
    stream.close()


# headers


async def test_a_session_of_another_key_or_workspace_does_not_exist(
    at: Served, http: aiohttp.ClientSession, client: Client
) -> None:
    thief = Client(at, http, principal="key_2", id=client.id)
    assert (await thief.send(PING)).status == 404
    assert (await thief.get()).status == 404
    assert await thief.delete() == 404
    elsewhere = await http.post(at.url + "/blue", json=PING, headers=client.headers())
    assert elsewhere.status == 404


async def test_a_request_without_a_session_is_a_bad_one(client: Client) -> None:
    answer = await client.send(PING, mcp_session_id="")
    assert (answer.status, (await answer.json())["error"]["code"]) == (400, -32600)


VERSIONS = {"": 200, "2025-03-26": 200, "2025-11-25": 200, "1999-01-01": 400, "2025-11-24": 400}


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_version_header_is_one_we_speak_or_absent(client: Client, version: str) -> None:
    assert (await client.send(PING, mcp_protocol_version=version)).status == VERSIONS[version]


ACCEPTED = {
    "": ("application/json", 200),
    "*/*": ("application/json", 200),
    "application/json": ("application/json", 200),
    "application/*;q=0.5": ("application/json", 200),
    "Text/Event-Stream, Application/JSON": ("application/json", 200),
    "text/event-stream": ("text/event-stream", 200),
    "text/*": ("text/event-stream", 200),
    "text/html": ("application/json", 406),
}


@pytest.mark.parametrize("accept", ACCEPTED)
async def test_the_answer_is_of_a_kind_the_client_takes(client: Client, accept: str) -> None:
    answer = await client.send(PING, accept=accept)
    assert (answer.content_type, answer.status) == ACCEPTED[accept]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_that_is_not_called_json_is_refused(client: Client, kind: str) -> None:
    assert (await client.send(PING, content_type=kind)).status == 415


async def test_a_body_that_is_called_json_in_utf8_is_read(client: Client) -> None:
    assert (await client.send(PING, content_type="application/json; charset=utf-8")).status == 200


async def test_a_get_that_takes_no_stream_is_refused(client: Client) -> None:
    assert (await client.get(accept="application/json")).status == 406


# JSON, or a stream


async def test_an_answer_with_nothing_before_it_is_one_json_body(client: Client) -> None:
    answer = await client.call("echo", token="t")
    assert answer.content_type == "application/json"
    assert (await answer.json())["result"] == {"echoed": {}}


@pytest.mark.parametrize("token", [7, "7"])
async def test_progress_comes_before_the_answer_with_the_clients_own_token(client: Client, token: int | str) -> None:
    told = await (await client.stream("step", "x", token=token)).rest()
    assert [message.get("params") for message in told[:2]] == [{"progress": n, "progressToken": token} for n in (1, 2)]
    assert (told[2]["id"], told[2]["result"]) == ("x", {"stepped": 2})


async def test_progress_nobody_asked_for_makes_no_stream(client: Client) -> None:
    answer = await client.call("step")
    assert answer.content_type == "application/json"


async def test_an_error_after_progress_is_the_streams_last_message(at: Served, client: Client) -> None:
    async def fail(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", Raw(b'{"progress":1}'))
        raise rpc.RpcError(-32050, "no", {"why": 1})

    at.dispatch.tools["fail"] = fail
    told = await (await client.stream("fail", 5, token=1)).rest()
    assert told[-1] == {"jsonrpc": "2.0", "id": 5, "error": {"code": -32050, "message": "no", "data": {"why": 1}}}


async def test_a_call_that_takes_long_becomes_a_stream(at: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LONG_SECS", 0.05)
    go = asyncio.Event()

    async def slow(call: Call, arguments: Any) -> Any:
        await go.wait()
        return {"slow": True}

    at.dispatch.tools["slow"] = slow
    stream = await client.stream("slow")
    go.set()
    assert [message["result"] for message in await stream.rest()] == [{"slow": True}]


async def test_what_a_json_client_is_told_goes_to_its_standing_stream(at: Served, http: aiohttp.ClientSession) -> None:
    client = await Client(at, http, accept="application/json").initialize()
    standing = await client.listen()
    answer = await client.call("step", token=3)
    assert (await answer.json())["result"] == {"stepped": 2}
    assert [(await standing.message())["params"]["progress"] for _ in (1, 2)] == [1, 2]
    standing.close()


async def test_a_bug_in_a_call_ends_its_stream_with_an_error(at: Served, client: Client) -> None:
    async def bug(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", Raw(b'{"progress":1}'))
        raise ZeroDivisionError

    at.dispatch.tools["bug"] = bug
    told = await (await client.stream("bug", 5, token=1)).rest()
    assert told[-1]["error"] == {"code": -32603, "message": "Internal error; see the engine's log"}


@pytest.mark.parametrize("version", ALL)
async def test_batches_are_for_2025_03_26_alone(at: Served, http: aiohttp.ClientSession, version: str) -> None:
    client = await Client(at, http, version).initialize()
    batch = [client.request("ping"), client.request("nope"), {"jsonrpc": "2.0", "method": "notifications/x"}]
    answer = await client.send(batch)
    if version != "2025-03-26":
        assert answer.status == 400
        return
    first, second = await answer.json()
    assert (first["result"], second["error"]["code"]) == ({}, -32601)
    assert ("told", client.id, "notifications/x", {}) in at.dispatch.happened
    assert (await client.send(batch[2:])).status == 202
    assert (await client.send([])).status == 400


# cancelling


async def test_a_cancelled_call_is_cancelled_and_a_json_client_hears_so(at: Served, client: Client) -> None:
    calling = asyncio.create_task(client.call("hang", 5))
    await until(lambda: at.dispatch.clients)
    await client.notify("notifications/cancelled", {"requestId": 5, "reason": "enough"})
    assert (await (await calling).json())["error"]["code"] == -32800


async def test_a_cancelled_call_is_not_answered_on_a_stream(at: Served, client: Client) -> None:
    async def begin(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", Raw(b'{"progress":1}'))
        await asyncio.Event().wait()

    at.dispatch.tools["begin"] = begin
    stream = await client.stream("begin", "x", token=1)
    await stream.message()
    await client.notify("notifications/cancelled", {"requestId": "x"})
    assert await stream.rest() == []


async def test_a_string_and_a_number_are_different_ids(at: Served, client: Client) -> None:
    number, text = asyncio.create_task(client.call("hang", 1)), asyncio.create_task(client.call("hang", "1"))
    await until(lambda: len(at.dispatch.clients) == 2)
    for id in (True, 1.0, None, [1]):
        await client.notify("notifications/cancelled", {"requestId": id} if id != 1.0 else {"requestId": 1.5})
    await client.notify("notifications/cancelled", {"requestId": "1"})
    assert (await (await text).json())["id"] == "1"
    assert not number.done()
    await client.notify("notifications/cancelled", {"requestId": 1})
    assert (await (await number).json())["id"] == 1


async def test_a_client_that_goes_away_does_not_cancel(at: Served, client: Client) -> None:
    go, ended = asyncio.Event(), asyncio.Event()

    async def slow(call: Call, arguments: Any) -> Any:
        await go.wait()
        ended.set()
        return {}

    at.dispatch.tools["slow"] = slow
    calling = asyncio.create_task(client.call("slow"))
    await until(lambda: at.dispatch.clients)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert (await client.post("ping"))["result"] == {}
    go.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_the_engine_counts_a_call_whose_client_went_away(at: Served, client: Client) -> None:
    stream_of = asyncio.create_task(client.call("hang", 1))
    await until(lambda: at.dispatch.clients)
    stream_of.cancel()
    await asyncio.gather(stream_of, return_exceptions=True)
    await client.post("ping")
    assert at.lease.calls == 1
    await client.notify("notifications/cancelled", {"requestId": 1})
    await until(lambda: at.lease.calls == 0)


# log level, subscriptions, notices


async def test_log_lines_below_the_clients_level_are_not_told(at: Served, client: Client) -> None:
    assert len(await (await client.stream("log")).rest()) == 4
    assert (await client.post("logging/setLevel", {"level": "warning"}))["result"] == {}
    assert ("level", client.id, "warning") in at.dispatch.happened
    told = await (await client.stream("log")).rest()
    assert [message["params"]["level"] for message in told[:-1]] == ["warning", "error"]


async def test_a_level_applies_to_calls_that_run_and_to_what_is_told_outside_of_them(at: Served, client: Client) -> None:
    calls: list[Call] = []

    async def keep(call: Call, arguments: Any) -> Any:
        calls.append(call)
        await asyncio.Event().wait()

    at.dispatch.tools["keep"] = keep
    running, standing = asyncio.create_task(client.call("keep", "k")), await client.listen()
    await until(lambda: calls)
    await client.post("logging/setLevel", {"level": "error"})
    for level in ("info", "error"):
        calls[0].tell("notifications/message", rpc.raw({"level": level}))
        assert calls[0].client.standing is not None
        calls[0].client.standing.tell("notifications/message", rpc.raw({"level": level}))
    assert (await standing.message())["params"] == {"level": "error"}
    await client.notify("notifications/cancelled", {"requestId": "k"})
    stream = await running
    assert stream.content_type == "text/event-stream"
    assert (await stream.text()).count("notifications/message") == 1
    standing.close()


@pytest.mark.parametrize("level", ["loud", "", None, 3, ["info"], "WARNING"])
async def test_a_level_that_is_none_is_refused(client: Client, level: Any) -> None:
    assert (await client.post("logging/setLevel", {"level": level}))["error"]["code"] == -32602


async def test_an_update_goes_to_those_who_subscribed(at: Served, http: aiohttp.ClientSession) -> None:
    one, two, three = [await Client(at, http).initialize() for _ in range(3)]
    for client in (one, two):
        assert (await client.post("resources/subscribe", {"uri": "a:b"}))["result"] == {}
        assert ("subscribe", client.id, "a:b") in at.dispatch.happened
    streams = [await client.listen() for client in (one, two, three)]
    at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b","x":1}'), None)
    at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b","x":2}'), two.id)
    at.changes.updated("blue", "a:b", Raw(b'{"uri":"a:b","x":3}'), None)
    at.changes.updated("main", "a:c", Raw(b'{"uri":"a:c","x":4}'), None)
    assert (await two.post("resources/unsubscribe", {"uri": "a:b"}))["result"] == {}
    assert ("unsubscribe", two.id, "a:b") in at.dispatch.happened
    at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b","x":5}'), None)
    at.changes.publish("main", {"tools"})
    heard = []
    for stream in streams:
        told: list[Any] = []
        while (message := await stream.message())["method"] != "notifications/tools/list_changed":
            told.append((message["method"], message["params"]["x"]))
        heard.append(told)
        stream.close()
    updated = "notifications/resources/updated"
    assert heard == [[(updated, 1), (updated, 5)], [(updated, 1), (updated, 2)], []]


async def test_a_subscription_that_is_refused_is_none(at: Served, client: Client) -> None:
    assert (await client.post("resources/subscribe", {"uri": "no:such"}))["error"]["code"] == -32002
    for bad in (5, None, "a:" + "b" * 10_000):
        assert (await client.post("resources/subscribe", {"uri": bad}))["error"]["code"] == -32602
    assert at.sessions._subscribers == {}
    row = at.state.session(client.id)
    assert row is not None and row.subscriptions == ()


async def test_what_changed_while_no_stream_was_open_is_told_once_by_the_next(at: Served, client: Client) -> None:
    await client.post("resources/subscribe", {"uri": "a:b"})
    for _ in range(2):
        at.changes.publish("main", {"tools", "prompts"})
        at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b"}'), None)
    stream = await client.listen()
    methods = {(await stream.message())["method"] for _ in range(3)}
    assert methods == {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/updated",
    }
    at.changes.publish("main", {"resources"})
    assert (await stream.message())["method"] == "notifications/resources/list_changed"
    stream.close()


async def test_of_two_standing_streams_only_the_newer_is_told(at: Served, client: Client) -> None:
    older, newer = await client.listen(), await client.listen()
    assert at.changes.publish("main", {"tools"}) == 1
    assert (await newer.message())["method"] == "notifications/tools/list_changed"
    assert await client.delete() == 200
    assert (await older.rest(), await newer.rest()) == ([], [])


async def test_a_clients_own_notices_reach_its_servers(at: Served, client: Client) -> None:
    assert (await client.notify("notifications/roots/list_changed", {"_meta": {"x": 1}})).status == 202
    assert at.dispatch.happened == [("told", client.id, "notifications/roots/list_changed", {"_meta": {"x": 1}})]


# a new life of the engine


@pytest.mark.parametrize("version", [*ALL, "2024-11-05"])
async def test_a_session_of_any_revision_is_written_down(at: Served, http: aiohttp.ClientSession, version: str) -> None:
    client = await Client(at, http, version).initialize({"roots": {}})
    await at.restart()
    assert (await client.post("ping"))["result"] == {}
    await client.call("echo")
    assert (at.dispatch.clients[-1].version, at.dispatch.clients[-1].capabilities) == (version, {"roots": {}})


async def test_a_session_goes_on_in_a_new_life_of_the_engine(at: Served, http: aiohttp.ClientSession) -> None:
    client = await Client(at, http, "2025-06-18").initialize({"roots": {}, "elicitation": {"form": {}}})
    await client.post("logging/setLevel", {"level": "error"})
    for uri in ("a:b", "a:c", "a:d"):
        await client.post("resources/subscribe", {"uri": uri})
    await client.post("resources/unsubscribe", {"uri": "a:c"})
    at.dispatch.happened.clear()
    await at.restart()
    stream = await client.listen()
    assert {(await stream.message())["method"] for _ in range(3)} == {
        f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
    }
    await at.dispatch.until("subscribe", client.id, "a:d")
    assert sorted(at.dispatch.happened) == [
        ("level", client.id, "error"),
        ("subscribe", client.id, "a:b"),
        ("subscribe", client.id, "a:d"),
    ]
    at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b"}'), None)
    assert (await stream.message())["params"] == {"uri": "a:b"}
    told = await (await client.stream("log")).rest()
    assert [message["params"]["level"] for message in told[:-1]] == ["error"]
    seen = at.dispatch.clients[-1]
    assert (seen.key, seen.version, seen.info) == (client.id, "2025-06-18", {"name": "t", "version": "1"})
    assert seen.capabilities == {"roots": {}, "elicitation": {"form": {}}}
    stream.close()


async def test_a_subscription_is_made_again_when_its_server_comes_up_later(
    at: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.post("resources/subscribe", {"uri": "a:b"})
    await at.restart()
    monkeypatch.setattr(sessions, "AGAIN_SECS", (0.01, 0.01, 0.01))
    at.dispatch.happened.clear()
    at.dispatch.deaf = 2
    await client.post("ping")
    await at.dispatch.until("subscribe", client.id, "a:b")


async def test_a_session_of_another_key_is_not_revived_either(at: Served, http: aiohttp.ClientSession, client: Client) -> None:
    await at.restart()
    assert (await Client(at, http, principal="key_2", id=client.id).send(PING)).status == 404
    assert len(at.sessions) == 0


async def test_a_call_does_not_write_to_disk(at: Served, client: Client) -> None:
    before = at.state.db.total_changes
    for _ in range(20):
        await client.call("echo")
    assert at.state.db.total_changes == before


async def test_a_session_in_use_is_kept_longer_than_a_week(at: Served, client: Client) -> None:
    at.state.db.execute("UPDATE sessions SET seen = 0")
    at.sessions._live[client.id].seen -= 4000
    await client.post("ping")
    at.state.forget_old_sessions()
    assert at.state.session(client.id) is not None


async def test_a_file_of_an_older_engine_is_read_and_its_sessions_go_on(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    path = tmp_path / "engine" / "state.db"
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, ws TEXT NOT NULL, principal TEXT NOT NULL, version TEXT NOT NULL, seen REAL)"
    )
    db.execute("INSERT INTO sessions VALUES ('old', 'main', 'key_1', '2025-06-18', 9e9)")
    db.commit()
    db.close()
    async with served(tmp_path) as at:
        client = Client(at, http, "2025-06-18", id="old")
        assert (await client.post("ping"))["result"] == {}
        await client.post("logging/setLevel", {"level": "info"})
        assert at.state.session("old") == SessionRow("old", "main", "key_1", "2025-06-18", level="info")


def test_a_session_whose_client_can_not_be_read_is_none(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    row = SessionRow("a", "main", "k", "2025-11-25", {"name": "é"}, {"roots": {}}, "info", ("a:b",))
    state.put_session(row)
    assert state.session("a") == row
    for bad in (b"{", b"\xff\xfe", b'{"level":5}', b'{"subscriptions":[1]}'):
        state.db.execute("UPDATE sessions SET client = ?", (bad,))
        assert state.session("a") is None
    state.close()


async def test_a_call_under_way_when_the_engine_stops_ends_with_words(
    at: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LONG_SECS", 60)

    async def begin(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", Raw(b'{"progress":1}'))
        await asyncio.Event().wait()

    at.dispatch.tools["begin"] = begin
    stream = await client.stream("begin", "x", token=1)
    await at.stop()
    stopped = {"code": -32603, "message": sessions.STOPPED, "data": {"code": "unavailable", "retryable": True}}
    assert (await stream.rest())[-1]["error"] == stopped
    await at.start()
    calling = asyncio.create_task(client.call("hang", 5))
    await until(lambda: len(at.dispatch.clients) == 2)
    await at.stop()
    assert await (await calling).json() == {"jsonrpc": "2.0", "id": 5, "error": stopped}
    await at.start()


# 2024-11-05


class Sse:
    """A client of 2024-11-05: one stream, messages posted beside it."""

    def __init__(self, at: Served, http: aiohttp.ClientSession) -> None:
        self.client = Client(at, http, "2024-11-05")

    async def open(self, capabilities: dict[str, Any] | None = None) -> Sse:
        client = self.client
        url = client.served.url
        answer = await client.http.get(url + "/sse", headers={**client.headers(), "accept": "text/event-stream"})
        self.stream = Events(answer)
        first = await self.stream.next()
        assert first is not None and first.name == "endpoint" and first.data is not None
        self.url = url.removesuffix("/mcp") + first.data
        params = {"protocolVersion": "2024-11-05", "capabilities": capabilities or {}, "clientInfo": {"name": "s"}}
        await self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self.started = (await self.stream.message())["result"]
        return self

    async def send(self, message: Any) -> int:
        return (await self.client.http.post(self.url, json=message, headers=self.client.headers())).status


async def test_a_2024_client_has_all_of_it_on_its_one_stream(at: Served, http: aiohttp.ClientSession) -> None:
    async def ask(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", Raw(b'{"progress":1}'))
        return {"roots": rpc.value(await call.ask("roots/list", Raw(b"{}")))}

    at.dispatch.tools["ask"] = ask
    sse = await Sse(at, http).open({"roots": {}})
    assert sse.started["protocolVersion"] == "2024-11-05"
    assert sse.started["capabilities"]["of"] == ["roots"]
    params = {"name": "ask", "_meta": {"progressToken": 9}}
    assert await sse.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}) == 202
    assert (await sse.stream.message())["params"] == {"progress": 1, "progressToken": 9}
    asked = await sse.stream.next()
    assert asked is not None and asked.json["method"] == "roots/list" and asked.id is None
    assert await sse.send({"jsonrpc": "2.0", "id": asked.json["id"], "result": {"roots": []}}) == 202
    assert (await sse.stream.message())["result"] == {"roots": {"roots": []}}
    at.changes.publish("main", {"tools"})
    assert (await sse.stream.message())["method"] == "notifications/tools/list_changed"
    key = at.dispatch.clients[-1].key
    assert at.state.session(key) is None
    sse.stream.close()
    await at.dispatch.until("forgotten", key)
    assert await sse.send(PING) == 404


async def test_a_2024_client_that_says_too_much_of_itself_is_told_so(at: Served, http: aiohttp.ClientSession) -> None:
    sse = await Sse(at, http).open()
    params = {"protocolVersion": "2024-11-05", "capabilities": {"x": "y" * 70_000}}
    assert await sse.send({"jsonrpc": "2.0", "id": 4, "method": "initialize", "params": params}) == 202
    refused = await sse.stream.message()
    assert (refused["id"], refused["error"]["code"]) == (4, -32602)
    sse.stream.close()


# what it costs


async def test_a_thousand_sessions_are_small(at: Served) -> None:
    caller = Caller("main", "key_1", frozenset())
    said = b'{"clientInfo":{"name":"some-client","version":"1.2.3"},"capabilities":{"roots":{"listChanged":true},"sampling":{}}}'
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        at.sessions.open(caller, "2025-11-25", msgspec.json.decode(said))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"1,000 sessions: {grown / 1000:.0f} bytes each", file=sys.stderr)
    assert grown < 8_000_000


async def test_calls_leave_nothing_behind(at: Served, client: Client) -> None:
    session = at.sessions._live[client.id]
    for token in range(30):
        await client.call("echo")
        await (await client.stream("step", token=token)).rest()
    assert (session.calls, len(session.questions)) == ({}, 0)
    assert session.shelf.events == 90
