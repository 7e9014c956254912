"""Tasks through the hop: ids that are ours, and nobody else's to use; two eras that do not mix."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.rpc import RpcError
from rootlink.engine.tokens import Tokens
from tests.engine.held import ADA, BOB, TASKS, Mounted, dispatch, session, stateless
from tests.harness.calls import Told

RELATED = "io.modelcontextprotocol/related-task"
STATUS = "notifications/tasks/status"
CAPABILITY = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
TOOL = {"name": "slow", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}}
TASK = {"status": "working", "createdAt": "2026-11-23T00:00:00Z", "lastUpdatedAt": "2026-11-23T00:00:00Z", "ttl": None}
KEY = b"k" * 32


class Told2(Told):
    """With a standing stream, which keeps what it is told."""

    def __init__(self, key: str) -> None:
        super().__init__(key=key)
        self.standing = Told()
        self.client = replace(self.client, standing=self.standing)


def of_sessions(name: str = "m", **answers: Any) -> Mounted:
    """A session-era server whose tasks are called t1, t2, …"""
    made: list[str] = []

    def call(params: dict[str, Any], call: Call | None) -> Any:
        if "task" not in params:
            return {"content": []}
        made.append(f"t{len(made) + 1}")
        return {"task": {"taskId": made[-1], **TASK, "vendor": 2**70}, "_meta": {"k": 1}}

    def listed(params: dict[str, Any], call: Call | None) -> Any:
        at = int(params.get("cursor", 0))
        more = {"nextCursor": str(at + 1)} if at + 1 < len(made) else {}
        return {"tasks": [{"taskId": id, **TASK} for id in made[at : at + 1]], **more}

    answers = {
        "tools/call": call,
        "tasks/get": lambda params, call: {"taskId": params["taskId"], **TASK},
        "tasks/cancel": lambda params, call: {"taskId": params["taskId"], **TASK, "status": "cancelled"},
        "tasks/result": lambda params, call: {"content": [], "_meta": {RELATED: {"taskId": params["taskId"]}, "k": 1}},
        "tasks/list": listed,
        **answers,
    }
    return Mounted(name, answers, version="2025-11-25", capabilities={"tasks": CAPABILITY}, tools=[TOOL])


def of_requests(name: str = "m") -> Mounted:
    """A stateless server that makes a task of every call."""
    task = {"resultType": "task", "taskId": "up-1", "status": "working", "ttlMs": None, "pollIntervalMs": 5}
    answers = {
        "tools/call": lambda params, call: {**task, "told": sorted(params)},
        "tasks/get": lambda params, call: {
            **task,
            "resultType": "complete",
            "taskId": params["taskId"],
            "inputRequests": {"k": 1},
        },
        "tasks/update": lambda params, call: {"resultType": "complete"},
        "tasks/cancel": lambda params, call: {"resultType": "complete"},
    }
    return Mounted(name, answers, version="2026-07-28", capabilities=TASKS, tools=[TOOL])


async def ask(dispatched: Dispatch, method: str, params: dict[str, Any], call: Told, caller: Caller = ADA) -> Any:
    return msgspec.json.decode(await dispatched.handle(caller, method, params, call))


async def code(dispatched: Dispatch, method: str, params: dict[str, Any], call: Told, caller: Caller = ADA) -> int:
    with pytest.raises(RpcError) as error:
        await dispatched.handle(caller, method, params, call)
    return error.value.code


async def started(dispatched: Dispatch, call: Told, caller: Caller = ADA, mount: str = "m") -> str:
    made = await ask(dispatched, "tools/call", {"name": f"{mount}__slow", "task": {"ttl": 60_000}}, call, caller)
    return str(made["task"]["taskId"])


# the session era


async def test_a_task_has_one_id_wherever_it_is_named_and_its_server_its_own() -> None:
    mount, call = of_sessions(), session()
    dispatched = dispatch(mount)
    made = await ask(dispatched, "tools/call", {"name": "m__slow", "task": {"ttl": 5}}, call)
    id = made["task"]["taskId"]
    assert made == {"task": {"taskId": id, **TASK, "vendor": 2**70}, "_meta": {"k": 1}}
    assert id != "t1"
    assert (await ask(dispatched, "tasks/get", {"taskId": id, "x": 1}, call)) == {"taskId": id, **TASK}
    assert (await ask(dispatched, "tasks/cancel", {"taskId": id}, call))["taskId"] == id
    assert (await ask(dispatched, "tasks/result", {"taskId": id}, call))["_meta"] == {RELATED: {"taskId": id}, "k": 1}
    assert [task["taskId"] for task in (await ask(dispatched, "tasks/list", {}, call))["tasks"]] == [id]
    assert mount.asked[0] == ("tools/call", {"name": "slow", "task": {"ttl": 5}})
    assert mount.asked[1] == ("tasks/get", {"taskId": "t1", "x": 1})
    assert {params["taskId"] for method, params in mount.asked[2:] if method != "tasks/list"} == {"t1"}


async def test_the_wait_for_a_result_is_not_cut_short_by_the_deadline_of_a_call() -> None:
    mount, call = of_sessions(), session()
    dispatched = dispatch(mount)
    await ask(dispatched, "tasks/result", {"taskId": await started(dispatched, call)}, call)
    assert mount.timeouts[-1] is not None
    assert mount.timeouts[-1] >= 3600


async def test_a_task_is_nobody_elses() -> None:
    mount, call = of_sessions(), session()
    dispatched = dispatch(mount)
    id = await started(dispatched, call)
    other = replace_ws(ADA, "other")
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        assert await code(dispatched, method, {"taskId": id}, session("b"), BOB) == -32602
        for forged in ("t1", id[:-2], id + "A", "", None, 5, {"a": 1}, "task.", "x" * 5000):
            assert await code(dispatched, method, {"taskId": forged}, call) == -32602
    mount.ws = "other"
    assert await code(dispatched, "tasks/get", {"taskId": id}, call, other) == -32602
    assert [method for method, _ in mount.asked] == ["tools/call"]


def replace_ws(caller: Caller, ws: str) -> Caller:
    return replace(caller, ws=ws)


async def test_a_list_shows_a_principal_its_own_tasks_of_every_server_that_answers() -> None:
    silent = of_sessions("silent", **{"tasks/list": rpc.RpcError(-32603, "no")})
    dispatched = dispatch(of_sessions("a"), of_sessions("b"), silent, Mounted("none"))
    hers = [await started(dispatched, session(), ADA, mount) for mount in ("a", "b", "a", "silent")]
    his = [await started(dispatched, session("b"), BOB, "a")]
    listed = await ask(dispatched, "tasks/list", {}, session())
    assert [task["taskId"] for task in listed["tasks"]] == [hers[0], hers[2], hers[1]]
    assert [task["taskId"] for task in (await ask(dispatched, "tasks/list", {}, session("b"), BOB))["tasks"]] == his
    assert await code(dispatched, "tasks/list", {"cursor": "x"}, session()) == -32602


async def test_an_id_outlives_the_engine_and_makes_the_task_known_again() -> None:
    mount, call = of_sessions(), Told2("s")
    id = await started(dispatch(mount, tokens=Tokens(KEY)), call)
    after = dispatch(mount, tokens=Tokens(KEY))
    assert (await ask(after, "tasks/list", {}, call))["tasks"] == []
    assert (await ask(after, "tasks/get", {"taskId": id}, call))["taskId"] == id
    assert [task["taskId"] for task in (await ask(after, "tasks/list", {}, call))["tasks"]] == [id]
    assert await code(dispatch(mount, tokens=Tokens(b"x" * 32)), "tasks/get", {"taskId": id}, call) == -32602


async def test_a_status_is_told_to_who_made_the_task_under_its_id() -> None:
    mount, ada, bob = of_sessions(), Told2("a"), Told2("b")
    dispatched = dispatch(mount)
    hers, his = await started(dispatched, ada), await started(dispatched, bob, BOB)
    for id in ("t1", "t2", "t3"):
        for listener in mount.listeners:
            listener(STATUS, rpc.raw({"taskId": id, **TASK, "x": 1}))
    assert ada.standing.told == [(STATUS, {"taskId": hers, **TASK, "x": 1})]
    assert bob.standing.told == [(STATUS, {"taskId": his, **TASK, "x": 1})]
    dispatched.forget_client("a")
    mount.listeners[0](STATUS, rpc.raw({"taskId": "t1", **TASK}))
    assert len(ada.standing.told) == 1


async def test_what_is_told_and_asked_of_a_task_names_it_as_the_client_does() -> None:
    async def result(params: dict[str, Any], call: Call | None) -> Any:
        assert call is not None
        related = {"_meta": {RELATED: {"taskId": params["taskId"]}, "k": 1}}
        call.tell("notifications/progress", rpc.raw({"progress": 1, **related}))
        call.tell("notifications/progress", rpc.raw({"progress": 2, "_meta": {RELATED: {"taskId": "t9"}}}))
        call.tell(STATUS, rpc.raw({"taskId": params["taskId"], **TASK}))
        call.tell(STATUS, rpc.raw({"taskId": "t9", **TASK}))
        answers = [rpc.value(await call.ask("elicitation/create", rpc.raw({"message": "?", **related})))]
        assert call.client.standing is not None
        answers.append(rpc.value(await call.client.standing.ask("elicitation/create", rpc.raw(related))))
        assert [answer["_meta"][RELATED]["taskId"] for answer in answers] == ["t1", "t1"]
        return {"content": []}

    def answer(method: str, params: Any) -> Any:
        return {"action": "accept", "_meta": params["_meta"]}

    call = Told2("s")
    call._answer = call.standing._answer = answer
    dispatched = dispatch(of_sessions(**{"tasks/result": result}))
    id = await started(dispatched, call)
    await ask(dispatched, "tasks/result", {"taskId": id}, call)
    named = {RELATED: {"taskId": id}, "k": 1}
    assert call.told == [
        ("notifications/progress", {"progress": 1, "_meta": named}),
        ("notifications/progress", {"progress": 2, "_meta": {}}),
        (STATUS, {"taskId": id, **TASK}),
    ]
    assert [params["_meta"] for _, params in call.asked + call.standing.asked] == [named, named]


async def test_what_is_told_to_a_subscriber_outside_of_calls_names_its_task_too() -> None:
    class Telling(Mounted):
        async def subscribe(self, uri: str, client: Client) -> None:
            assert client.standing is not None
            assert getattr(client.standing, "open", None) is True
            client.standing.tell(STATUS, rpc.raw({"taskId": "t1", **TASK}))

    call, base = Told2("s"), of_sessions()
    vars(call.standing)["open"] = True
    mount = Telling("m", base._answers, resources=[{"uri": "x://1"}], tools=[TOOL])
    mount.catalogue.version, mount.catalogue.capabilities = base.catalogue.version, base.catalogue.capabilities
    dispatched = dispatch(mount)
    id = await started(dispatched, call)
    await dispatched.subscribe(ADA, "x://1", call.client)
    assert call.standing.told == [(STATUS, {"taskId": id, **TASK})]


def test_capabilities_are_what_the_servers_of_the_clients_era_have() -> None:
    old, new = of_sessions(), of_requests("n")
    old.catalogue.capabilities["tasks"] = {"cancel": {}, "requests": {"tools": {"call": {}}}, "vendor": 1}
    declared = dispatch(old, new)
    of_session, of_stateless = (declared.capabilities("main", call.client) for call in (session(), stateless()))
    assert of_session["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    assert "extensions" not in of_session
    assert of_stateless["extensions"] == TASKS["extensions"]
    assert "tasks" not in of_stateless


# the stateless era


async def test_a_stateless_servers_task_is_polled_under_its_id_and_everything_else_passes() -> None:
    mount, call = of_requests(), stateless()
    dispatched = dispatch(mount)
    made = await ask(dispatched, "tools/call", {"name": "m__slow"}, call)
    id = made["taskId"]
    assert id != "up-1"
    assert (made["resultType"], made["pollIntervalMs"]) == ("task", 5)
    assert "task" not in made
    got = await ask(dispatched, "tasks/get", {"taskId": id}, call)
    assert (got["taskId"], got["inputRequests"], got["resultType"]) == (id, {"k": 1}, "complete")
    update = {"taskId": id, "inputResponses": {"k": {"action": "accept"}}}
    assert await ask(dispatched, "tasks/update", update, call) == {"resultType": "complete"}
    assert await ask(dispatched, "tasks/cancel", {"taskId": id}, call) == {"resultType": "complete"}
    assert mount.asked[2] == ("tasks/update", {"taskId": "up-1", "inputResponses": {"k": {"action": "accept"}}})


async def test_what_the_revision_removed_does_not_exist_and_what_was_not_declared_is_refused() -> None:
    dispatched, plain = dispatch(of_requests()), stateless(capabilities={})
    for method in ("tasks/result", "tasks/list"):
        assert await code(dispatched, method, {"taskId": "x"}, stateless()) == -32601
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        assert await code(dispatched, method, {"taskId": "x"}, stateless()) == -32602
        with pytest.raises(RpcError) as error:
            await dispatched.handle(ADA, method, {"taskId": "x"}, plain)
        assert (error.value.code, error.value.data) == (-32021, {"requiredCapabilities": TASKS})
        assert await code(dispatch(Mounted("m")), method, {"taskId": "x"}, stateless()) == -32601


# between them


async def test_eras_do_not_mix() -> None:
    old, new = of_sessions("old"), of_requests("new")
    dispatched, was, now = dispatch(old, new), session(), stateless()
    hers = await started(dispatched, was, ADA, "old")
    assert await code(dispatched, "tasks/get", {"taskId": hers}, now) == -32602
    with pytest.raises(RpcError, match="without `task`") as error:
        await dispatched.handle(ADA, "tools/call", {"name": "new__slow", "task": {}}, was)
    assert error.value.code == -32601
    assert await ask(dispatched, "tools/call", {"name": "old__slow", "task": {"ttl": 1}}, now) == {"content": []}
    assert old.asked[-1] == ("tools/call", {"name": "slow"})


async def test_a_stateless_servers_own_task_member_is_left_to_it() -> None:
    mount = of_requests()
    made = await ask(dispatch(mount), "tools/call", {"name": "m__slow", "task": {"ttl": 1}}, stateless())
    assert made["told"] == ["name", "task"]


async def test_a_result_that_only_speaks_of_tasks_passes_as_it_is() -> None:
    mount = of_requests()
    sent = b'{"content":[{"type":"text","text":"x"}],  "structuredContent":{"resultType":"task","taskId":"up-1"}}'

    async def request(*args: object, **more: object) -> Raw:
        await asyncio.sleep(0)
        return Raw(sent)

    vars(mount)["request"] = request
    assert bytes(await dispatch(mount).handle(ADA, "tools/call", {"name": "m__slow"}, stateless())) == sent
