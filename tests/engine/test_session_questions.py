"""What a server asks a session client: where it arrives, how it is answered, and how it ends without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.eras import questions
from rootlink.engine.rpc import RpcError
from tests.engine.session_client import Client, Served, served, until

ASKS = {"elicitation": {}, "sampling": {}, "roots": {}}
FORM = {"message": "Who?", "requestedSchema": {"type": "object"}, "unknown": 12345678901234567890123}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        one.dispatch.tools["ask"] = ask
        yield one


@pytest.fixture
async def client(at: Served, http: aiohttp.ClientSession) -> Client:
    return await Client(at, http).initialize(ASKS)


async def ask(call: Call, arguments: dict[str, Any]) -> Any:
    return {"heard": rpc.value(await call.ask("elicitation/create", rpc.raw(FORM)))}


def standing(at: Served, client: Client) -> Any:
    return at.sessions._live[client.id]


async def test_a_question_comes_on_its_calls_stream_and_its_answer_goes_back(client: Client) -> None:
    other = await client.listen()
    stream = await client.stream("ask", "rootlink-1")
    asked = await stream.message()
    assert (asked["method"], asked["params"]) == ("elicitation/create", FORM)
    assert asked["id"] != "rootlink-1"
    result = {"action": "accept", "content": {"big": 123456789012345678901234567890, "x": None}}
    assert await client.reply(asked["id"], result=result) == 202
    assert (await stream.message())["result"] == {"heard": result}
    assert await stream.message() is None
    await client.delete()
    assert await other.rest() == []


async def test_a_clients_error_reaches_the_server_with_code_and_data(at: Served, client: Client) -> None:
    raised: list[RpcError] = []

    async def fail(call: Call, arguments: Any) -> Any:
        try:
            await call.ask("sampling/createMessage", Raw(b"{}"))
        except RpcError as error:
            raised.append(error)
        return {}

    at.dispatch.tools["fail"] = fail
    stream = await client.stream("fail")
    error = {"code": -1, "message": "User rejected", "data": {"x": 1}}
    await client.reply((await stream.message())["id"], error=error)
    await stream.rest()
    assert [(one.code, one.message, one.data) for one in raised] == [(-1, "User rejected", {"x": 1})]


@pytest.mark.parametrize("result", [5, [], None, "x"])
async def test_an_answer_that_is_no_result_is_an_error_to_the_server(client: Client, result: Any) -> None:
    stream = await client.stream("ask")
    await client.reply((await stream.message())["id"], result=result)
    assert (await stream.message())["error"]["code"] == -32603


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
async def test_what_the_client_did_not_declare_it_is_not_asked(at: Served, http: aiohttp.ClientSession, method: str) -> None:
    client = await Client(at, http).initialize()

    async def try_it(call: Call, arguments: Any) -> Any:
        assert call.client.standing is not None
        for whom in (call, call.client.standing):
            with pytest.raises(RpcError) as refused:
                await whom.ask(method, Raw(b"{}"))
            assert refused.value.code == -32601
        return {"refused": True}

    at.dispatch.tools["try"] = try_it
    answer = await client.call("try")
    assert answer.content_type == "application/json"
    assert (await answer.json())["result"] == {"refused": True}


async def test_an_answer_to_no_question_is_accepted_and_ignored(at: Served, client: Client) -> None:
    for id in ("rootlink-1", 7, "x" * 1000):
        assert await client.reply(id, result={}) == 202
    assert await client.reply("x", error={"code": 1, "message": "m"}) == 202
    assert len(standing(at, client).questions) == 0


async def test_an_answer_counts_once(client: Client) -> None:
    stream = await client.stream("ask")
    id = (await stream.message())["id"]
    for action in ("accept", "decline"):
        assert await client.reply(id, result={"action": action}) == 202
    assert (await stream.message())["result"] == {"heard": {"action": "accept"}}


async def test_another_sessions_answer_is_not_this_ones(at: Served, http: aiohttp.ClientSession, client: Client) -> None:
    other = await Client(at, http).initialize(ASKS)
    stream = await client.stream("ask")
    id = (await stream.message())["id"]
    await other.reply(id, result={"action": "accept"})
    await client.reply(id, result={"action": "decline"})
    assert (await stream.message())["result"] == {"heard": {"action": "decline"}}


async def test_a_withdrawn_question_is_cancelled_at_the_client(at: Served, client: Client) -> None:
    async def impatient(call: Call, arguments: Any) -> Any:
        question = asyncio.ensure_future(call.ask("roots/list", Raw(b"{}")))
        await asyncio.sleep(0)
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        return {}

    at.dispatch.tools["impatient"] = impatient
    asked, withdrawn, answer = await (await client.stream("impatient")).rest()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == asked["id"]
    assert isinstance(withdrawn["params"]["reason"], str)
    assert answer["result"] == {}
    assert len(standing(at, client).questions) == 0


async def test_outside_of_calls_the_standing_stream_is_asked(at: Served, client: Client) -> None:
    stream = await client.listen()
    asking = asyncio.create_task(standing(at, client).ask("roots/list", Raw(b"{}")))
    asked = await stream.message()
    await client.reply(asked["id"], result={"roots": []})
    assert rpc.value(await asking) == {"roots": []}
    stream.close()


async def test_without_a_standing_stream_the_latest_calls_is_asked(at: Served, client: Client) -> None:
    async def wait(call: Call, arguments: Any) -> Any:
        return {"roots": rpc.value(await call.client.standing.ask("roots/list", Raw(b"{}")))}  # type: ignore[union-attr]

    at.dispatch.tools["wait"] = wait
    stream = await client.stream("wait")
    await client.reply((await stream.message())["id"], result={"roots": [1]})
    assert (await stream.message())["result"] == {"roots": {"roots": [1]}}


async def test_a_json_client_is_asked_on_its_standing_stream_or_not_at_all(at: Served, http: aiohttp.ClientSession) -> None:
    client = await Client(at, http, accept="application/json").initialize(ASKS)
    nobody = await (await client.call("ask")).json()
    assert nobody["error"]["code"] == -32603
    stream, calling = await client.listen(), asyncio.create_task(client.call("ask"))
    await client.reply((await stream.message())["id"], result={"action": "cancel"})
    assert (await (await calling).json())["result"] == {"heard": {"action": "cancel"}}
    stream.close()


async def test_the_end_of_a_session_ends_its_questions(at: Served, client: Client) -> None:
    stream = await client.listen()
    asking = asyncio.create_task(standing(at, client).ask("roots/list", Raw(b"{}")))
    await stream.message()
    await client.delete()
    with pytest.raises(RpcError, match="session ended"):
        await asking


async def test_a_client_that_does_not_come_back_is_not_waited_for(
    at: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "LOOK_SECS", 0.02)
    failed: list[RpcError] = []

    async def note(call: Call, arguments: Any) -> Any:
        try:
            await call.ask("roots/list", Raw(b"{}"))
        except RpcError as error:
            failed.append(error)
        return {}

    at.dispatch.tools["note"] = note
    stream = await client.stream("note")
    await stream.message()
    stream.close()
    await until(lambda: failed)
    assert "went away" in failed[0].message


async def test_at_most_64_questions_are_open(at: Served, client: Client) -> None:
    stream = await client.listen()
    session = standing(at, client)
    asking = [asyncio.create_task(session.ask("roots/list", Raw(b"{}"))) for _ in range(65)]
    await until(asking[64].done)
    with pytest.raises(RpcError, match="64 questions"):
        await asking[64]
    asked = {(await stream.message())["id"] for _ in range(64)}
    assert len(asked) == 64
    for task in asking[:64]:
        task.cancel()
    await asyncio.gather(*asking[:64], return_exceptions=True)
    assert len(session.questions) == 0
    stream.close()


async def test_progress_of_an_answer_reaches_who_asked(at: Served, client: Client) -> None:
    stream, heard = await client.listen(), list[Any]()
    session = standing(at, client)

    def ask_with(name: str) -> Any:
        params = rpc.raw({"x": 1, "_meta": {"progressToken": 5, "y": 2}})
        return asyncio.create_task(session.ask("roots/list", params, lambda told: heard.append((name, rpc.value(told)))))

    asking = [ask_with("one"), ask_with("two")]
    asked = [await stream.message() for _ in asking]
    tokens = [one["params"]["_meta"]["progressToken"] for one in asked]
    assert len(set(tokens)) == 2
    assert asked[0]["params"] == {"x": 1, "_meta": {"progressToken": tokens[0], "y": 2}}
    for progress, token in enumerate([tokens[1], tokens[0], 5, "unknown", None]):
        assert (await client.notify("notifications/progress", {"progressToken": token, "progress": progress})).status == 202
    for one in asked:
        await client.reply(one["id"], result={})
    await asyncio.gather(*asking)
    await client.notify("notifications/progress", {"progressToken": tokens[0], "progress": 9})
    assert heard == [("two", {"progress": 0}), ("one", {"progress": 1})]
    stream.close()


async def test_a_batch_may_hold_answers(at: Served, http: aiohttp.ClientSession) -> None:
    client = await Client(at, http, "2025-03-26").initialize(ASKS)
    stream = await client.stream("ask")
    asked = await stream.message()
    assert (await client.send([{"jsonrpc": "2.0", "id": asked["id"], "result": {"a": 1}}])).status == 202
    assert (await stream.message())["result"] == {"heard": {"a": 1}}


async def test_a_revived_session_is_asked_as_before(at: Served, client: Client) -> None:
    await at.restart()
    stream = await client.stream("ask")
    await client.reply((await stream.message())["id"], result={"a": 1})
    assert (await stream.message())["result"] == {"heard": {"a": 1}}
