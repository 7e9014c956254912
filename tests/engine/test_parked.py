"""A session server asks, a stateless client is asked: the call waits in between, for its own client alone and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.eras import parked
from rootlink.engine.rpc import RpcError
from tests.engine.posting import ALICE, ALL, BOB, Era, Port, Post

FORM = {"message": "Who are you?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
CALL = {"name": "a__b", "arguments": {"x": 1}}
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}


async def ask(call: Call, method: str = "elicitation/create", params: Any = None) -> Any:
    return rpc.value(await call.ask(method, rpc.raw(FORM if params is None else params)))


async def asks_once(method: str, params: dict[str, Any], call: Call) -> Any:
    return {"said": await ask(call)}


def waiting(post: Post) -> tuple[list[str], str]:
    """The keys it asks for, and the state it is to be found by."""
    assert post.result["resultType"] == "input_required"
    return list(post.result["inputRequests"]), post.result["requestState"]


async def retry(era: Era, post: Post, answers: dict[str, Any], **options: Any) -> Post:
    params = {**CALL, "inputResponses": answers, "requestState": waiting(post)[1]}
    return await era.post("tools/call", params, capabilities=ALL, **options)


async def test_a_question_ends_the_request_and_its_answer_goes_on_with_the_call() -> None:
    era = Era(port := Port(asks_once))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    (key,), _ = waiting(post)
    assert post.result["inputRequests"][key] == {"method": "elicitation/create", "params": FORM}
    assert post.result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "rootlink"
    assert len(era.parked) == 1
    done = await retry(era, post, {key: {**ACCEPTED, "big": 2**80}})
    assert done.result["said"] == {**ACCEPTED, "big": 2**80}
    assert done.result["resultType"] == "complete"
    assert (len(era.parked), len(port.handled)) == (0, 1)


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_prompts_and_resources_may_ask_too(method: str) -> None:
    era = Era(Port(asks_once))
    params = {"uri" if method == "resources/read" else "name": "n"}
    post = await era.post(method, params, capabilities=ALL)
    (key,), state = waiting(post)
    retried = {**params, "inputResponses": {key: ACCEPTED}, "requestState": state}
    assert (await era.post(method, retried, capabilities=ALL)).result["said"] == ACCEPTED


async def test_questions_asked_together_are_one_result() -> None:
    async def asks_all(method: str, params: dict[str, Any], call: Call) -> Any:
        said = await asyncio.gather(ask(call), ask(call, "sampling/createMessage", {"m": 1}), ask(call, "roots/list", {}))
        return {"said": said}

    era = Era(Port(asks_all))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    methods = [asked["method"] for asked in post.result["inputRequests"].values()]
    assert methods == ["elicitation/create", "sampling/createMessage", "roots/list"]
    answers = {key: {"n": number} for number, key in enumerate(waiting(post)[0])}
    assert (await retry(era, post, answers)).result["said"] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_many_rounds_have_a_state_each_and_an_old_one_is_used_up() -> None:
    async def asks_twice(method: str, params: dict[str, Any], call: Call) -> Any:
        return {"said": [await ask(call), await ask(call)]}

    era = Era(Port(asks_twice))
    first = await era.post("tools/call", CALL, capabilities=ALL)
    second = await retry(era, first, {waiting(first)[0][0]: {"n": 1}})
    assert waiting(first)[1] != waiting(second)[1]
    again = await retry(era, first, {waiting(first)[0][0]: {"n": 5}})
    assert (again.status, again.error["code"], again.error["data"]) == (400, -32602, {"code": "used"})
    third = await retry(era, second, {waiting(second)[0][0]: {"n": 2}})
    assert third.result["said"] == [{"n": 1}, {"n": 2}]


async def test_what_was_not_answered_is_asked_again_alone_and_what_nobody_asked_is_ignored() -> None:
    async def asks_two(method: str, params: dict[str, Any], call: Call) -> Any:
        return {"said": await asyncio.gather(ask(call), ask(call))}

    era = Era(Port(asks_two))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    one, two = waiting(post)[0]
    again = await retry(era, post, {one: {"n": 1}, "wrong_key": {"n": 9}})
    assert waiting(again)[0] == [two]
    assert (await retry(era, again, {two: {"n": 2}, one: {"n": 9}})).result["said"] == [{"n": 1}, {"n": 2}]


async def test_an_answer_that_is_no_object_is_refused_and_the_call_goes_on_waiting() -> None:
    era = Era(Port(asks_once))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    (key,), _ = waiting(post)
    refused = await retry(era, post, {key: 12345})
    assert (refused.status, refused.error["code"]) == (400, -32602)
    assert (await retry(era, post, {key: ACCEPTED})).result["said"] == ACCEPTED


THEFTS: dict[str, dict[str, Any]] = {
    "another principal": {"caller": BOB},
    "another workspace": {"caller": type(ALICE)("other", "alice", ALICE.scopes)},
    "other arguments": {"changed": {"arguments": {"x": 2}}},
    "another tool": {"changed": {"name": "a__c"}},
    "a changed state": {"changed": {"requestState": "parked.AAAA"}},
}


@pytest.mark.parametrize("who", THEFTS)
async def test_a_state_is_worth_nothing_with(who: str) -> None:
    era = Era(Port(asks_once))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    (key,), state = waiting(post)
    how = dict(THEFTS[who])
    params = {**CALL, "inputResponses": {key: ACCEPTED}, "requestState": state, **how.pop("changed", {})}
    stolen = await era.post("tools/call", params, capabilities=ALL, **how)
    assert (stolen.status, stolen.error["code"]) == (400, -32602)
    assert (await retry(era, post, {key: ACCEPTED})).result["said"] == ACCEPTED


UNDECLARED = {
    "no elicitation": ("elicitation/create", FORM, {"sampling": {}}),
    "forms only": ("elicitation/create", {"mode": "url", "url": "https://x.test", "message": "m"}, {"elicitation": {}}),
    "no sampling": ("sampling/createMessage", {}, {"elicitation": {}}),
    "no roots": ("roots/list", {}, {"elicitation": {}}),
    "no question of MCP's": ("tasks/get", {}, {**ALL, "tasks": {}}),
}


@pytest.mark.parametrize("case", UNDECLARED)
async def test_what_this_request_did_not_declare_is_refused_to_the_server_at_once(case: str) -> None:
    method, asked, capabilities = UNDECLARED[case]

    async def tries(_: str, params: dict[str, Any], call: Call) -> Any:
        with pytest.raises(RpcError) as refused:
            await ask(call, method, asked)
        return {"code": refused.value.code}

    era = Era(Port(tries))
    assert (await era.post("tools/call", CALL, capabilities=capabilities)).result["code"] == -32601


async def test_a_method_that_may_not_ask_is_refused() -> None:
    async def tries(method: str, params: dict[str, Any], call: Call) -> Any:
        with pytest.raises(RpcError) as refused:
            await ask(call)
        return {"code": refused.value.code}

    assert (await Era(Port(tries)).post("completion/complete", {}, capabilities=ALL)).result["code"] == -32601


async def test_a_client_that_hangs_up_while_its_call_is_parked_cancels_nothing() -> None:
    era = Era(port := Port(asks_once))
    post = era.begin("tools/call", CALL, capabilities=ALL)
    await post.done()
    post.leave()
    assert (await retry(era, post, {waiting(post)[0][0]: ACCEPTED})).result["said"] == ACCEPTED
    assert not port.cancelled.is_set()


async def test_a_client_that_hangs_up_after_its_answer_cancels_the_call() -> None:
    async def hangs(method: str, params: dict[str, Any], call: Call) -> Any:
        await ask(call)
        await asyncio.Event().wait()

    era = Era(port := Port(hangs))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    (key,), state = waiting(post)
    params = {**CALL, "inputResponses": {key: ACCEPTED}, "requestState": state}
    again = era.begin("tools/call", params, capabilities=ALL)
    again.leave()
    await again.done()
    assert port.cancelled.is_set()


async def test_what_is_said_while_parked_is_told_on_the_next_stream_in_the_next_requests_terms() -> None:
    go, talked = asyncio.Event(), asyncio.Event()

    async def talks(method: str, params: dict[str, Any], call: Call) -> Any:
        asked = asyncio.ensure_future(ask(call))
        await go.wait()
        for number in range(parked.KEPT + 5):
            call.tell("notifications/progress", rpc.raw({"progress": number}))
        call.tell("notifications/message", rpc.raw({"level": "debug", "data": "quiet"}))
        call.tell("notifications/message", rpc.raw({"level": "error", "data": "loud"}))
        talked.set()
        return {"said": await asked}

    era = Era(Port(talks))
    post = await era.post("tools/call", CALL, capabilities=ALL, meta={"progressToken": "one"})
    go.set()
    await talked.wait()
    (key,), _ = waiting(post)
    again = await retry(era, post, {key: ACCEPTED}, meta={"progressToken": 2}, level="warning")
    assert again.streams
    *told, answer = again.frames
    assert answer["result"]["said"] == ACCEPTED
    assert {frame["params"]["progressToken"] for frame in told if frame["method"] == "notifications/progress"} == {2}
    assert [frame["params"]["data"] for frame in told if frame["method"] == "notifications/message"] == ["loud"]
    assert len(told) == parked.KEPT - 1  # the oldest went, and "quiet" is not for this client


async def test_a_call_that_ends_while_parked_is_answered_when_its_client_comes() -> None:
    async def gives_up(method: str, params: dict[str, Any], call: Call) -> Any:
        asked = asyncio.ensure_future(ask(call))
        await asyncio.sleep(0.02)
        asked.cancel()
        raise RpcError(-5, "never mind")

    era = Era(Port(gives_up))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    assert (await retry(era, post, {waiting(post)[0][0]: ACCEPTED})).error["code"] == -5
    assert len(era.parked) == 0


async def test_a_question_that_is_withdrawn_before_it_is_sent_is_never_sent() -> None:
    async def changes_its_mind(method: str, params: dict[str, Any], call: Call) -> Any:
        asked = asyncio.ensure_future(ask(call))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.sleep(0.02)
        return {"content": []}

    era = Era(Port(changes_its_mind))
    assert (await era.post("tools/call", CALL, capabilities=ALL)).result["resultType"] == "complete"


async def test_a_parked_call_ends_with_its_time_and_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    era = Era(port := Port(asks_once))
    era.parked = parked.Parked(era.tokens, era.lease, seconds=0.05)
    post = await era.post("tools/call", CALL, capabilities=ALL)
    assert era.lease.calls == 1
    async with asyncio.timeout(5):
        await port.cancelled.wait()
    assert (len(era.parked), era.lease.calls) == (0, 0)
    late = await retry(era, post, {waiting(post)[0][0]: ACCEPTED})
    assert late.error["code"] == -32602


async def test_at_the_engines_end_every_parked_call_is_cancelled() -> None:
    era = Era(port := Port(asks_once))
    await era.post("tools/call", CALL, capabilities=ALL)
    era.close_all()
    async with asyncio.timeout(5):
        await port.cancelled.wait()


async def test_after_a_restart_a_state_says_to_begin_again() -> None:
    before = Era(Port(asks_once))
    post = await before.post("tools/call", CALL, capabilities=ALL)
    after = Era(Port(asks_once), before.tokens)
    refused = await retry(after, post, {waiting(post)[0][0]: ACCEPTED})
    assert (refused.status, refused.error["code"]) == (200, -32603)
    assert refused.error["data"] == {"code": "unavailable", "retryable": True}
    assert "without requestState" in refused.error["message"]
    before.close_all()


async def test_too_many_parked_calls_are_refused_with_words_and_another_principal_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parked, "MOST_OF_ONE", 2)

    async def asks(method: str, params: dict[str, Any], call: Call) -> Any:
        try:
            return {"said": await ask(call)}
        except RpcError as error:
            return {"refused": error.message}

    era = Era(Port(asks))
    first = await era.post("tools/call", CALL, capabilities=ALL)
    await era.post("tools/call", CALL, capabilities=ALL)
    assert "Too many calls" in (await era.post("tools/call", CALL, capabilities=ALL)).result["refused"]
    waiting(await era.post("tools/call", CALL, capabilities=ALL, caller=BOB))
    await retry(era, first, {waiting(first)[0][0]: ACCEPTED})
    waiting(await era.post("tools/call", CALL, capabilities=ALL))
    era.close_all()


async def test_a_question_after_progress_ends_the_stream() -> None:
    async def talks(method: str, params: dict[str, Any], call: Call) -> Any:
        call.tell("notifications/progress", rpc.raw({"progress": 1}))
        return {"said": await ask(call)}

    era = Era(Port(talks))
    post = await era.post("tools/call", CALL, capabilities=ALL, meta={"progressToken": 7})
    assert [frame.get("method") for frame in post.frames] == ["notifications/progress", None]
    assert (await retry(era, post, {waiting(post)[0][0]: ACCEPTED})).result["said"] == ACCEPTED


async def test_a_thousand_parked_calls_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "TOGETHER_SECS", 0.0)
    era = Era(Port(asks_once))
    for _ in range(1000):
        post = await era.post("tools/call", CALL, capabilities=ALL)
        await retry(era, post, {waiting(post)[0][0]: ACCEPTED})
    held = era.parked
    assert (len(held), held._keys, held._of, held._ending, era.lease.calls) == (0, {}, {}, set(), 0)


async def test_a_question_that_comes_with_the_first_words_is_not_lost() -> None:
    async def both(method: str, params: dict[str, Any], call: Call) -> Any:
        asked = asyncio.ensure_future(ask(call))
        await asyncio.sleep(0)
        call.tell("notifications/progress", rpc.raw({"progress": 1}))
        call._ask_now()  # type: ignore[attr-defined]
        return {"said": await asked}

    era = Era(Port(both))
    post = await era.post("tools/call", CALL, capabilities=ALL, meta={"progressToken": 7})
    assert post.streams
    assert (await retry(era, post, {waiting(post)[0][0]: ACCEPTED})).result["said"] == ACCEPTED


async def test_a_call_that_ends_as_it_is_parked_is_still_answered_by_the_retry_alone() -> None:
    async def ends(method: str, params: dict[str, Any], call: Call) -> Any:
        asked = asyncio.ensure_future(call.ask("elicitation/create", rpc.raw(FORM)))
        await asyncio.sleep(0)
        call._ask_now()  # type: ignore[attr-defined]
        asked.cancel()
        return {"content": []}

    era = Era(Port(ends))
    post = await era.post("tools/call", CALL, capabilities=ALL)
    assert (await retry(era, post, {waiting(post)[0][0]: ACCEPTED})).result["content"] == []
    assert len(era.parked) == 0


async def test_a_question_has_no_lifetime() -> None:
    post = await Era(era_port := Port(asks_once)).post("resources/read", {"uri": "x:y"}, capabilities=ALL)
    assert (post.result["resultType"], "ttlMs" in post.result, len(era_port.handled)) == ("input_required", False, 1)
