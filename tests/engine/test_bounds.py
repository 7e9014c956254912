"""What clients and servers can make an engine keep for them has an end, and who goes past it is the one who pays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller
from rootlink.engine.eras import parked, session
from rootlink.engine.installer import Installer
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.rpc import RpcError
from rootlink.engine.tokens import MAX_TOKEN, Tokens
from tests.engine.held import ADA, Held, Mounted, dispatch, guarding, stateless
from tests.engine.posting import ALICE, ALL, Era, Port
from tests.engine.session_client import Client, served

MEBI = 1 << 20


def opened(sessions: session.Sessions, of: str, said: int = 0) -> session.Session:
    """A session of this key's, whose client says so much of itself."""
    return sessions.open(Caller("main", of, frozenset()), "2025-11-25", {"clientInfo": {"x": "x" * said}})


async def test_sessions_that_say_much_go_before_all_together_are_too_much(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        quiet = opened(at.sessions, "ada")
        loud = opened(at.sessions, "ada", 60_000)
        flood = [opened(at.sessions, "mallory", 60_000) for _ in range(400)]
        live = at.sessions._live
        assert sum(len(msgspec.json.encode(one.row.info)) for one in live.values()) <= session.MAX_SAID
        assert {quiet.id, loud.id, flood[-1].id} <= live.keys()  # who floods loses its own
        assert flood[0].id not in live
        assert at.state.session(flood[0].id) is None
        for one in tuple(live.values()):
            at.sessions.close(one)
        assert at.sessions._said == 0


async def test_what_a_session_subscribes_to_has_an_end(tmp_path: Path) -> None:
    async with served(tmp_path) as at, aiohttp.ClientSession() as http:
        client = await Client(at, http).initialize()
        answers = [await client.post("resources/subscribe", {"uri": f"{n:04}" + "x" * 8000}) for n in range(40)]
        refused = [answer for answer in answers if "error" in answer]
        assert 0 < len(refused) < 10
        assert "longer than" in refused[0]["error"]["message"]
        assert "result" in await client.post("resources/unsubscribe", {"uri": "0000" + "x" * 8000})
        assert "result" in await client.post("resources/subscribe", {"uri": "again" + "x" * 7000})


async def test_at_the_cap_a_key_that_opens_sessions_ends_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_SESSIONS", 20)
    async with served(tmp_path) as at:
        honest = [opened(at.sessions, "ada") for _ in range(10)]
        for _ in range(50):
            opened(at.sessions, "mallory")
        assert all(one.id in at.sessions._live for one in honest)
        assert len(at.sessions) == 20


async def test_a_long_update_waits_for_its_stream_as_its_uri_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as at, aiohttp.ClientSession() as http:
        client = await Client(at, http).initialize()
        await client.post("resources/subscribe", {"uri": "a:b"})
        at.changes.updated("main", "a:b", rpc.raw({"uri": "a:b", "_meta": {"x": "x" * MEBI}}), None)
        stream = await client.listen()
        assert await stream.message() == {
            "jsonrpc": "2.0",
            "method": "notifications/resources/updated",
            "params": {"uri": "a:b"},
        }


async def test_a_stateless_clients_introduction_has_an_end_as_a_session_clients_has() -> None:
    refused = await Era(Port()).post("tools/list", capabilities={"x": "x" * (64 << 10)})
    assert (refused.status, refused.error["code"]) == (400, -32602)
    assert "larger than" in refused.error["message"]


async def test_a_listener_names_no_endless_uris() -> None:
    wanted = {"notifications": {"resourceSubscriptions": ["a:" + "x" * 9000]}}
    refused = await Era(Port()).post("subscriptions/listen", wanted)
    assert (refused.error["code"], "at most" in refused.error["message"]) == (-32602, True)


async def test_what_a_server_says_while_nobody_is_there_is_kept_up_to_a_size_the_newest_first() -> None:
    async def asks(method: str, params: dict[str, Any], call: Call) -> Any:
        return rpc.value(await call.ask("elicitation/create", Raw(b"{}")))

    era = Era(port := Port(asks))
    post = await era.post("tools/call", {"name": "t"}, capabilities=ALL, level="debug")
    (work,) = port.calls
    assert isinstance(work, parked.Work)
    for number in range(300):
        work.tell(
            "notifications/message", rpc.raw({"level": "info", "data": f"{number}" + "x" * (100_000 if number > 290 else 10)})
        )
    kept = [len(bytes(params)) for _, params in work._kept]
    assert 0 < sum(kept) <= parked.KEPT_BYTES
    assert work._kept_bytes == sum(kept)
    (key,) = post.result["inputRequests"]
    answer = {"name": "t", "inputResponses": {key: {"action": "accept"}}, "requestState": post.result["requestState"]}
    again = await era.post("tools/call", answer, capabilities=ALL, level="debug")
    assert [frame["params"]["data"][:3] for frame in again.frames[:-1]] == ["298", "299"]


async def test_questions_too_large_to_wait_are_refused_to_their_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "ASKED_BYTES", MEBI)

    async def asks(method: str, params: dict[str, Any], call: Call) -> Any:
        return rpc.value(await call.ask("elicitation/create", rpc.raw({"message": "x" * params["arguments"]["n"]})))

    era = Era(Port(asks))
    small = {"name": "t", "arguments": {"n": 600_000}}
    first = await era.post("tools/call", small, capabilities=ALL)
    refused = await era.post("tools/call", small, capabilities=ALL)
    assert refused.error["data"] == {"code": "rate_limited"}
    (key,) = first.result["inputRequests"]
    done = {**small, "inputResponses": {key: {"action": "accept"}}, "requestState": first.result["requestState"]}
    assert (await era.post("tools/call", done, capabilities=ALL)).result["action"] == "accept"
    assert (await era.post("tools/call", small, capabilities=ALL)).result["resultType"] == "input_required"


async def test_a_task_id_without_end_is_an_error_of_its_server() -> None:
    answer = {"resultType": "task", "taskId": "x" * 5000, "status": "working", "task": 1}
    able = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    server = Mounted("m", {"tools/call": answer}, tools=[{"name": "t"}], version="2026-07-28", capabilities=able)
    one = dispatch(server)
    with pytest.raises(RpcError, match="an id of more than 1024 characters"):
        await one.handle(ADA, "tools/call", {"name": "m__t"}, stateless())


async def test_a_servers_state_that_no_client_could_bring_back_is_refused_when_it_is_given() -> None:
    with pytest.raises(RpcError, match="more kept for it than a client can be asked to carry"):
        Tokens(b"k" * 32).seal("state", b"x" * MAX_TOKEN, ttl=60)

    async def states(method: str, params: dict[str, Any], call: Call) -> Any:
        return {"resultType": "input_required", "requestState": "x" * MAX_TOKEN}

    refused = await Era(Port(states)).post("tools/call", {"name": "t"}, caller=ALICE)
    assert refused.error["code"] == -32603


def test_a_list_that_changed_costs_no_writing_of_the_others() -> None:
    written: list[str] = []

    class Book:
        def put_catalogue(self, ws: str, name: str, catalogue: Catalogue) -> None:
            written.append(name)

    loud, quiet = Mounted("loud"), Mounted("quiet")
    installer = Installer(Held(loud, quiet), None, Book(), Changes(), str, None, None, guarding(loud, quiet))  # type: ignore[arg-type]
    for number in range(3):
        loud.catalogue = Catalogue(tools=[{"name": f"t{number}"}])
        installer.changed("main", {"tools"})
    assert written == ["loud", "quiet", "loud", "loud"]


def test_a_workspace_nobody_listens_in_any_more_is_forgotten() -> None:
    changes = Changes()
    for number in range(100):
        with changes.listen(f"w{number}", lambda kinds: True), changes.listen(f"w{number}", lambda kinds: True):
            assert changes.publish(f"w{number}", {"tools"}) == 2
    assert changes._listeners == {}


async def test_a_parked_call_that_is_resumed_twice_at_once_goes_on_once() -> None:
    async def asks(method: str, params: dict[str, Any], call: Call) -> Any:
        return {"said": rpc.value(await call.ask("elicitation/create", Raw(b"{}")))}

    era = Era(port := Port(asks))
    post = await era.post("tools/call", {"name": "t"}, capabilities=ALL)
    (key,) = post.result["inputRequests"]
    carried = {"name": "t", "requestState": post.result["requestState"]}
    answers = [{**carried, "inputResponses": {key: {"action": action}}} for action in ("accept", "decline", "accept")]
    came = await asyncio.gather(*(era.post("tools/call", params, capabilities=ALL) for params in answers))
    assert came[0].result["said"] == {"action": "accept"}
    assert [one.error["data"] for one in came[1:]] == [{"code": "used"}] * 2
    assert len(port.handled) == 1
