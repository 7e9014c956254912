"""What a 2026-07-28 request must say before it means anything, how it is answered, and what its result must carry."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.eras import frames, listening, stateless
from rootlink.engine.rpc import RpcError
from tests.engine.posting import ALICE, ALL, BOB, Era, Port

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HEADERS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "a__b"}


def call(meta: object = META, name: str = "a__b") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}}


REFUSED = {
    "no envelope": (HEADERS, call(meta={}), -32602),
    "no capabilities": (HEADERS, call(meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"}), -32602),
    "another method in the header": ({**HEADERS, "mcp-method": "tools/list"}, call(), -32020),
    "another name in the header": ({**HEADERS, "mcp-name": "a__c"}, call(), -32020),
    "a header is missing": ({k: v for k, v in HEADERS.items() if k != "mcp-name"}, call(), -32020),
    "a broken base64 name": ({**HEADERS, "mcp-name": "=?base64?!!?="}, call(), -32020),
    "a base64 name that no encoder makes": ({**HEADERS, "mcp-name": "=?base64?YV9fYh==?="}, call(), -32020),
    "base64 without its padding": ({**HEADERS, "mcp-name": "=?base64?w6Q?="}, call(name="ä"), -32020),
    "a name in the header alone": (HEADERS, {**call(), "params": {"_meta": META}}, -32020),
    "another task in the header": (
        {**HEADERS, "mcp-method": "tasks/get", "mcp-name": "t-2"},
        {**call(), "method": "tasks/get", "params": {"taskId": "t-1", "_meta": META}},
        -32020,
    ),
    "the method in capitals": ({**HEADERS, "mcp-method": "TOOLS/CALL"}, call(), -32020),
    "a version that is no string": (HEADERS, call(meta={**META, "io.modelcontextprotocol/protocolVersion": None}), -32020),
    "capabilities that are no object": (HEADERS, call(meta={**META, "io.modelcontextprotocol/clientCapabilities": []}), -32602),
    "a log level nobody knows": (HEADERS, call(meta={**META, "io.modelcontextprotocol/logLevel": "loud"}), -32602),
    "a version of tomorrow": (
        {**HEADERS, "mcp-protocol-version": "2099-01-01"},
        call(meta={**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}),
        -32022,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_disagrees_with_itself_is_refused(case: str) -> None:
    headers, message, code = REFUSED[case]
    with pytest.raises(RpcError) as refused:
        stateless.check(headers, message)
    assert refused.value.code == code


def test_a_request_that_agrees_with_itself_passes() -> None:
    assert stateless.check(HEADERS, call()) == META
    assert stateless.check({**HEADERS, "mcp-name": "=?base64?w6Q=?="}, call(name="ä")) == META
    assert stateless.check({**HEADERS, "mcp-name": "  a__b\t "}, call()) == META
    assert stateless.check({**HEADERS, "mcp-name": "=?base64?w6Q="}, call(name="=?base64?w6Q=")) == META


def test_a_header_that_reads_as_something_else_than_the_body_says_is_refused() -> None:
    encoded = "=?base64?c2FmZQ==?="  # `safe`, to whoever decodes it on the way
    with pytest.raises(RpcError, match="does not say what the body says"):
        stateless.check({**HEADERS, "mcp-name": encoded}, call(name=encoded))
    twice = f"=?base64?{base64.b64encode(encoded.encode()).decode()}?="
    assert stateless.check({**HEADERS, "mcp-name": twice}, call(name=encoded)) == META


def test_a_result_gains_what_the_revision_requires_and_keeps_what_it_has() -> None:
    sent = b'{"content":[{"big":123456789012345678901234567890}],"_meta":{"x":1},"unknown":null}'
    result = msgspec.json.decode(stateless.complete("tools/call", msgspec.Raw(sent)))
    assert result["resultType"] == "complete"
    assert result["_meta"]["x"] == 1
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "rootlink"
    assert (result["content"][0]["big"], result["unknown"]) == (123456789012345678901234567890, None)
    assert "ttlMs" not in result


def test_a_list_says_how_long_it_may_be_kept() -> None:
    result = msgspec.json.decode(stateless.complete("tools/list", msgspec.Raw(b'{"tools":[]}')))
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


MALFORMED = {
    "an array": [],
    "no jsonrpc": {"id": 1, "method": "ping"},
    "a null id": {"jsonrpc": "2.0", "id": None, "method": "ping"},
    "a boolean id": {"jsonrpc": "2.0", "id": True, "method": "ping"},
    "params that are a list": {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
    "a method that is a number": {"jsonrpc": "2.0", "id": 1, "method": 5},
    "nothing at all": {"jsonrpc": "2.0"},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_message_is_an_invalid_request(case: str) -> None:
    with pytest.raises(RpcError) as refused:
        frames.check(MALFORMED[case])
    assert refused.value.code == -32600


def test_ids_past_64_bits_come_back_as_they_were() -> None:
    message = frames.check(frames.parse(b'{"jsonrpc":"2.0","id":123456789012345678901,"method":"ping"}'))
    assert b'"id":123456789012345678901,' in frames.result_frame(message["id"], b"{}")


async def test_a_request_is_answered_with_json_and_its_envelope_goes_no_further() -> None:
    era = Era(port := Port())
    params = {"name": "t", "arguments": {"x": 1}, "vendor": 5}
    kept = {"traceparent": "00-1", "io.modelcontextprotocol/related-task": {"taskId": "t"}}
    post = await era.post("tools/call", params, capabilities=ALL, meta=kept, level="info")
    assert (post.status, post.streams, post.result["resultType"]) == (200, False, "complete")
    assert port.handled == [("tools/call", {**params, "_meta": kept})]


async def test_an_envelope_alone_leaves_no_meta() -> None:
    era = Era(port := Port())
    await era.post("tools/list")
    assert port.handled == [("tools/list", {})]


async def test_a_server_is_told_who_asks_and_the_same_client_has_one_key() -> None:
    era = Era(port := Port())
    me = {"io.modelcontextprotocol/clientInfo": {"name": "me", "version": "1"}}
    for options in ({}, {}, {"caller": BOB}, {"capabilities": {"sampling": {}}}, {"meta": {}}):
        await era.post("tools/list", **{"capabilities": ALL, "meta": me, **options})  # type: ignore[arg-type]
    first, same, *others = (called.client for called in port.calls)
    assert (first.stateless, first.version, first.standing) == (True, "2026-07-28", None)
    assert (first.info, first.capabilities) == ({"name": "me", "version": "1"}, ALL)
    assert first is same
    assert len({first.key, *(other.key for other in others)}) == 4


async def test_a_client_that_says_very_much_is_the_same_client_too() -> None:
    era = Era(port := Port())
    for _ in range(2):
        await era.post("tools/list", capabilities={"experimental": {"x": "y" * 5000}})
    first, second = (called.client.key for called in port.calls)
    assert first == second


ERRORS: dict[str, tuple[RpcError, int, int]] = {
    "an unknown method": (RpcError(-32601, "Method not found"), 404, -32601),
    "bad params": (RpcError(-32602, "no"), 400, -32602),
    "a capability that is missing": (RpcError(-32021, "no", {"requiredCapabilities": {"sampling": {}}}), 400, -32021),
    "no such resource, as older servers say it": (RpcError(-32002, "no", {"uri": "x:y"}), 400, -32602),
    "a server's own": (RpcError(-5, "no", [1]), 200, -5),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_an_error_has_the_status_and_code_of_this_revision(case: str) -> None:
    error, status, code = ERRORS[case]

    async def fails(method: str, params: dict[str, Any], call: Call) -> Any:
        raise error

    post = await Era(Port(fails)).post("resources/read", {"uri": "x:y"}, id="seven")
    assert (post.status, post.error["code"], post.error.get("data"), post.answer["id"]) == (status, code, error.data, "seven")


@pytest.mark.parametrize("method", sorted(stateless.GONE))
async def test_a_method_of_older_revisions_does_not_exist(method: str) -> None:
    era = Era(port := Port())
    post = await era.post(method)
    assert (post.status, post.error["code"], port.handled) == (404, -32601, [])


async def test_what_nobody_expected_is_raised_before_anything_is_sent() -> None:
    async def breaks(method: str, params: dict[str, Any], call: Call) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Era(Port(breaks)).post("tools/call", {"name": "t"})


async def test_a_notification_is_accepted_and_one_of_another_revision_refused() -> None:
    era = Era(port := Port())
    for version, status in (("2026-07-28", 202), ("2099-01-01", 400)):
        post = era.begin("notifications/cancelled")
        del post.message["id"]
        post.headers["mcp-protocol-version"] = version
        await post.done()
        assert post.status == status
    assert post.error["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}
    assert port.handled == []


async def test_a_response_is_refused() -> None:
    post = Era(Port()).begin("x")
    post.message.update(result={})
    del post.message["method"]
    await post.done()
    assert (post.status, post.error["code"]) == (400, -32600)


async def test_discover_says_what_is_there() -> None:
    result = (await Era(Port()).post("server/discover")).result
    assert result["supportedVersions"] == ["2026-07-28"]
    assert (result["capabilities"], result["instructions"]) == ({"tools": {"listChanged": True}}, "be kind")
    assert (result["ttlMs"], result["cacheScope"], result["resultType"]) == (0, "private", "complete")


# what is said before the answer


async def talks(method: str, params: dict[str, Any], call: Call) -> Any:
    call.tell("notifications/progress", rpc.raw({"progress": 1, "total": 2}))
    call.tell("notifications/message", rpc.raw({"level": "info", "data": "quiet"}))
    call.tell("notifications/message", rpc.raw({"level": "error", "data": "loud"}))
    call.tell("notifications/vendor", rpc.raw({"x": 1})) if method == "vendor/call" else None
    return {"content": []}


async def test_progress_comes_first_on_a_stream_without_event_ids_under_the_clients_own_token() -> None:
    post = await Era(Port(talks)).post("tools/call", {"name": "t"}, meta={"progressToken": "mine"})
    progress, answer = post.frames
    assert progress["params"] == {"progress": 1, "total": 2, "progressToken": "mine"}
    assert answer["result"]["resultType"] == "complete"
    assert b"id: " not in post.body


LEVELS = {None: [], "debug": ["quiet", "loud"], "info": ["quiet", "loud"], "warning": ["loud"], "emergency": []}


@pytest.mark.parametrize("level", LEVELS)
async def test_log_lines_are_for_who_asked_for_them(level: str | None) -> None:
    post = await Era(Port(talks)).post("tools/call", {"name": "t"}, level=level)
    assert post.streams == bool(LEVELS[level])
    told = [frame["params"]["data"] for frame in post.frames if frame.get("method") == "notifications/message"]
    assert told == LEVELS[level]


async def test_who_takes_json_alone_gets_the_answer_alone() -> None:
    post = await Era(Port(talks)).post("tools/call", {"name": "t"}, level="debug", accept="application/json")
    assert (post.streams, post.result["resultType"]) == (False, "complete")


async def test_a_call_that_takes_long_becomes_a_stream_and_is_answered_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stateless, "LONG_SECS", 0.06)
    go = asyncio.Event()

    async def waits(method: str, params: dict[str, Any], call: Call) -> Any:
        await go.wait()
        raise RpcError(-32601, "no")

    post = Era(Port(waits)).begin("tools/call", {"name": "t"})
    async with asyncio.timeout(5):
        while not post._sent:
            await post._more.wait()
    assert post.streams
    go.set()
    await post.done()
    assert (post.status, [frame["error"]["code"] for frame in post.frames]) == (200, [-32601])


async def test_what_nobody_expected_on_a_stream_is_an_internal_error() -> None:
    async def breaks(method: str, params: dict[str, Any], call: Call) -> Any:
        call.tell("notifications/progress", rpc.raw({"progress": 1}))
        await asyncio.sleep(0.02)
        raise ZeroDivisionError("secret")

    post = await Era(Port(breaks)).post("tools/call", {"name": "t"}, meta={"progressToken": 1})
    assert post.frames[-1]["error"] == {"code": -32603, "message": "Internal error"}


@pytest.mark.parametrize("speaks", [False, True])
async def test_a_client_that_hangs_up_cancels_its_call(speaks: bool) -> None:
    async def hangs(method: str, params: dict[str, Any], call: Call) -> Any:
        if speaks:
            call.tell("notifications/progress", rpc.raw({"progress": 1}))
        await asyncio.Event().wait()

    era = Era(port := Port(hangs))
    post = era.begin("tools/call", {"name": "t"}, meta={"progressToken": 1})
    if speaks:
        await post.framed(1)
    post.leave()
    await post.done()
    assert port.cancelled.is_set()


async def test_a_request_that_is_broken_off_takes_its_call_with_it() -> None:
    async def hangs(method: str, params: dict[str, Any], call: Call) -> Any:
        await asyncio.Event().wait()

    era = Era(port := Port(hangs))
    post = era.begin("tools/call", {"name": "t"})
    while not port.handled:
        await asyncio.sleep(0)
    post.task.cancel()
    await asyncio.gather(post.task, return_exceptions=True)
    assert port.cancelled.is_set()


# headers that repeat arguments

MIRRORED = {"t": {("region",): "Region", ("deep", "n"): "N", ("flag",): "Flag"}}
ARGUMENTS: dict[str, Any] = {"region": "Hello", "deep": {"n": 42}, "flag": True}
PARAMS = {"mcp-param-region": "Hello", "mcp-param-n": "42", "mcp-param-flag": "true"}
AGREEING: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "all": (ARGUMENTS, PARAMS),
    "base64": (ARGUMENTS, {**PARAMS, "mcp-param-region": "=?base64?SGVsbG8=?="}),
    "white space around": (ARGUMENTS, {**PARAMS, "mcp-param-region": " Hello\t"}),
    "a number written otherwise": (ARGUMENTS, {**PARAMS, "mcp-param-n": "42.0"}),
    "a float that is whole": ({**ARGUMENTS, "deep": {"n": 42.0}}, PARAMS),
    "a number past 64 bits": ({**ARGUMENTS, "deep": {"n": 2**70}}, {**PARAMS, "mcp-param-n": str(2**70)}),
    "null is nothing": ({"region": None}, {}),
    "no arguments": ({}, {}),
    "a header of no argument": ({}, {"mcp-param-other": "x"}),
    "what only looks like base64": ({"region": "=?base64?SGVsbG8="}, {"mcp-param-region": "=?base64?SGVsbG8="}),
}
DISAGREEING: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no header": ({"region": "Hello"}, {}),
    "no argument": ({}, {"mcp-param-region": "Hello"}),
    "an argument that is null": ({"region": None}, {"mcp-param-region": "Hello"}),
    "another value": ({"region": "Hello"}, {"mcp-param-region": "hello"}),
    "broken padding": ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8?="}),
    "broken characters": ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVs!!!bG8=?="}),
    "another number": ({"deep": {"n": 42}}, {"mcp-param-n": "42.5"}),
    "a boolean as Python writes it": ({"flag": True}, {"mcp-param-flag": "True"}),
    "one for yes": ({"flag": True}, {"mcp-param-flag": "1"}),
    "an object": ({"region": {}}, {"mcp-param-region": "{}"}),
}


async def mirrored(arguments: dict[str, Any], headers: dict[str, str], name: str = "t") -> tuple[int, int]:
    port = Port()
    port.mirrored = MIRRORED
    post = await Era(port).post("tools/call", {"name": name, "arguments": arguments}, headers=headers)
    return post.status, post.answer.get("error", {}).get("code", 0)


@pytest.mark.parametrize("case", AGREEING)
async def test_headers_that_repeat_arguments_pass_with(case: str) -> None:
    assert await mirrored(*AGREEING[case]) == (200, 0)


@pytest.mark.parametrize("case", DISAGREEING)
async def test_headers_that_do_not_repeat_their_arguments_are_refused_with(case: str) -> None:
    assert await mirrored(*DISAGREEING[case]) == (400, -32020)


async def test_a_tool_without_such_headers_minds_none() -> None:
    assert await mirrored({"region": "x"}, {"mcp-param-region": "y"}, name="u") == (200, 0)


# a server's own state

ASKED = {"resultType": "input_required", "inputRequests": {"k": {"method": "roots/list"}}, "requestState": "the server's"}


async def carries(method: str, params: dict[str, Any], call: Call) -> Any:
    return ASKED if "inputResponses" not in params else {"state": params.get("requestState")}


async def test_a_servers_state_goes_sealed_to_the_client_and_comes_back_opened() -> None:
    era = Era(Port(carries))
    asked = {"name": "t", "arguments": {"b": 1, "a": 2}}
    first = (await era.post("tools/call", asked)).result
    assert first["inputRequests"] == ASKED["inputRequests"]
    assert "the server's" not in first["requestState"]
    again = {"arguments": {"a": 2, "b": 1}, "name": "t", "inputResponses": {"k": {}}, "requestState": first["requestState"]}
    assert (await era.post("tools/call", again)).result["state"] == "the server's"
    other = Era(Port(carries), era.tokens)
    assert (await other.post("tools/call", again)).result["state"] == "the server's"


BENT: dict[str, dict[str, Any]] = {
    "another principal": {"caller": BOB},
    "another workspace": {"caller": type(ALICE)("other", "alice", ALICE.scopes)},
    "other arguments": {"changed": {"arguments": {"x": 2}}},
    "another tool": {"changed": {"name": "u"}},
    "something added": {"changed": {"requestState": "-TAMPERED"}},
    "a state that is no string": {"changed": {"requestState": 5}},
    "answers that are null": {"changed": {"inputResponses": None}},
}


@pytest.mark.parametrize("who", BENT)
async def test_a_sealed_state_is_refused_from(who: str) -> None:
    era = Era(port := Port(carries))
    params = {"name": "t", "arguments": {"x": 1}}
    state = (await era.post("tools/call", params)).result["requestState"]
    how = dict(BENT[who])
    changed = how.pop("changed", {})
    if changed.get("requestState") == "-TAMPERED":
        changed = {"requestState": state + "-TAMPERED"}
    post = await era.post("tools/call", {**params, "inputResponses": {}, "requestState": state, **changed}, **how)
    assert (post.status, post.error["code"], len(port.handled)) == (400, -32602, 1)


async def test_other_methods_keep_members_of_these_names() -> None:
    era = Era(port := Port())
    params = {"taskId": "t", "inputResponses": {"k": {"action": "accept"}}, "requestState": "theirs"}
    await era.post("tasks/update", params)
    assert port.handled == [("tasks/update", params)]


# results


SAID: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "nothing": ("tools/call", b"{}", {}),
    "an ordinary one": ("tools/call", b'{"content":[]}', {"content": []}),
    "a type of its own": ("tools/call", b'{"resultType":"task","taskId":"t"}', {"resultType": "task", "taskId": "t"}),
    "a lifetime of its own": (
        "tools/list",
        b'{"tools":[],"ttlMs":5,"cacheScope":"public"}',
        {"ttlMs": 5, "cacheScope": "public"},
    ),
    "members of these names below": ("tools/call", b'{"content":[{"_meta":{"resultType":1}}]}', {}),
    "names written in escapes": ("tools/list", b'{"\\u0074tlMs":7}', {"ttlMs": 7}),
    "a server's own name": ("tools/call", b'{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"},"y":1}}', {}),
}


@pytest.mark.parametrize("case", SAID)
def test_a_result_has_each_member_once_and_keeps_what_it_says_itself(case: str) -> None:
    method, sent, kept = SAID[case]
    result = stateless.complete(method, msgspec.Raw(sent))
    decoded = msgspec.json.decode(result)
    pairs = list(msgspec.json.decode(result, type=dict[str, msgspec.Raw]))
    assert len(pairs) == len(set(pairs))
    assert {**decoded, **kept} == decoded
    assert decoded["resultType"] == kept.get("resultType", "complete")
    assert decoded["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "rootlink"
    assert ("ttlMs" in decoded) == (method in stateless.CACHEABLE)


# subscriptions/listen


async def test_a_listener_is_told_what_it_asked_for_and_nothing_else_under_its_own_id() -> None:
    era = Era(Port())
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a", "x:gone", "x:a"], "promptsListChanged": False}
    era._dispatch.refused = {"x:gone"}  # type: ignore[attr-defined]
    post = era.begin("subscriptions/listen", {"notifications": wanted}, id="7")
    (first,) = await post.framed(1)
    tag = {"io.modelcontextprotocol/subscriptionId": "7"}
    honoured = {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"] == {"notifications": honoured, "_meta": tag}
    assert era.changes.publish("main", {"prompts"}) == 0
    assert era.changes.publish("other", {"tools"}) == 0
    assert era.changes.publish("main", {"tools", "resources"}) == 1
    params = rpc.raw({"uri": "x:a", "_meta": {"y": 1, "io.modelcontextprotocol/subscriptionId": 1}})
    for ws, uri, key in (("main", "x:gone", None), ("other", "x:a", None), ("main", "x:a", "somebody"), ("main", "x:a", None)):
        era.changes.updated(ws, uri, params, key)
    frames = await post.framed(3)
    assert [frame["method"] for frame in frames[1:]] == ["notifications/tools/list_changed", "notifications/resources/updated"]
    assert (frames[1]["params"], frames[2]["params"]) == ({"_meta": tag}, {"uri": "x:a", "_meta": {"y": 1, **tag}})
    post.leave()
    await post.done()


async def test_each_stream_subscribes_for_itself_and_ends_with_its_subscriptions() -> None:
    era = Era(port := Port())
    posts = [era.begin("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["x:a"]}}) for _ in range(2)]
    for post in posts:
        await post.framed(1)
    keys = [key for _, key in port.subscribed]
    assert len(set(keys)) == 2
    assert (era.lease.streams, len(era.listening)) == (2, 2)
    era.changes.updated("main", "x:a/below", rpc.raw({"uri": "x:a/below"}), keys[1])
    await posts[1].framed(2)
    for post in posts:
        post.leave()
        await post.done()
    assert len(posts[0].frames) == 1
    assert (port.subscribed, sorted(port.forgotten), era.changes.on_updated) == ([], sorted(keys), [])
    assert (era.lease.streams, len(era.listening), era.changes.publish("main", {"tools"})) == (0, 0, 0)


async def test_what_changes_while_a_listener_is_not_acknowledged_yet_is_told_after_it() -> None:
    era = Era(port := Port())
    subscribe = port.subscribe

    async def slow(*about: Any) -> None:
        await subscribe(*about)
        era.changes.publish("main", {"tools"})

    port.subscribe = slow  # type: ignore[method-assign]
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}
    post = era.begin("subscriptions/listen", {"notifications": wanted}, id=7)
    assert [frame["method"].rpartition("/")[2] for frame in await post.framed(2)] == ["acknowledged", "list_changed"]
    assert post.frames[1]["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 7}
    post.leave()
    await post.done()


async def test_a_server_that_does_not_answer_a_subscription_is_not_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SUBSCRIBE_SECS", 0.02)
    era = Era(port := Port())

    async def hangs(*about: Any) -> None:
        await asyncio.Event().wait()

    port.subscribe = hangs  # type: ignore[method-assign]
    post = era.begin("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["x:a"]}})
    (first,) = await post.framed(1)
    assert first["params"]["notifications"] == {"resourceSubscriptions": []}
    post.leave()
    await post.done()


FILTERS: dict[str, Any] = {
    "no filter": None,
    "a filter that is a list": [],
    "URIs that are none": {"resourceSubscriptions": [1]},
    "too many URIs": {"resourceSubscriptions": [f"x:{n}" for n in range(257)]},
}


@pytest.mark.parametrize("case", FILTERS)
async def test_a_listener_is_refused_with(case: str) -> None:
    era = Era(port := Port())
    post = await era.post("subscriptions/listen", {"notifications": FILTERS[case]})
    assert (post.status, post.error["code"]) == (400, -32602)
    assert (port.subscribed, era.changes.on_updated) == ([], [])


async def test_an_extension_can_be_listened_to() -> None:
    era = Era(Port())
    ended = asyncio.Event()

    async def watch(caller: Any, client: Any, wanted: Any, tell: listening.Tell) -> listening.Watched:
        async def end() -> None:
            ended.set()

        asyncio.get_running_loop().call_later(0.01, tell, "notifications/tasks", rpc.raw({"taskId": wanted[0]}))
        return listening.Watched(wanted, end)

    era.listening.watches["taskIds"] = watch
    post = era.begin("subscriptions/listen", {"notifications": {"taskIds": ["t"]}})
    first, second = await post.framed(2)
    assert first["params"]["notifications"] == {"taskIds": ["t"]}
    assert (second["method"], second["params"]["taskId"]) == ("notifications/tasks", "t")
    post.leave()
    await post.done()
    assert ended.is_set()


async def test_at_the_engines_end_listeners_end_without_a_result() -> None:
    era = Era(Port())
    post = era.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    await post.framed(1)
    era.close_all()
    await post.done()
    assert len(post.frames) == 1
