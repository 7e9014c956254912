"""A client of one era and a server of the other do not notice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import Raw

from rootlink.engine import bridge, rpc
from rootlink.engine.calls import Call, Heard
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed
from tests.harness.calls import Told

SESSION, STATELESS = "2025-11-25", "2026-07-28"
FORM = {"method": "elicitation/create", "params": {"message": "who?"}}
SAMPLE = {"method": "sampling/createMessage", "params": {"maxTokens": 1}}
INFO = "io.modelcontextprotocol/serverInfo"
ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}


@dataclass
class Known:
    version: str


class Server:
    """In a mount's place: gives `answers` in turn, the last one for ever."""

    def __init__(self, version: str, *answers: Any, name: str = "m") -> None:
        self.name, self.catalogue = name, Known(version)
        self.asked: list[dict[str, Any]] = []
        self._answers = list(answers)

    async def request(
        self, method: str, params: dict[str, Any] | None = None, *, timeout: float | None = None, call: Call | None = None
    ) -> Raw:
        self.asked.append(rpc.value(rpc.raw(params)))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Raw) else rpc.raw(answer)


def needs(state: str | None = None, **questions: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"resultType": "input_required"}
    if questions:
        wanted["inputRequests"] = questions
    return wanted if state is None else {**wanted, "requestState": state}


def stateless_client(**capabilities: Any) -> Told:
    told = Told(capabilities=capabilities)
    told.client = replace(told.client, stateless=True, version=STATELESS)
    return told


async def ask(server: Server, call: Call | None, method: str = "tools/call", **params: Any) -> Any:
    return rpc.value(await bridge.request(server, method, {"name": "t", **params}, call))


# a session client in front of a stateless server

DONE = {"resultType": "complete", "content": [], "_meta": {INFO: {"name": "x"}}}


async def test_what_a_stateless_server_wants_to_know_a_session_client_is_asked_and_the_server_told() -> None:
    server = Server(STATELESS, needs("s1", a=FORM, b=SAMPLE), needs("s2", c={"method": "roots/list"}), DONE)
    told = Told(capabilities=ALL, answer=lambda method, params: {"of": method})
    assert await ask(server, told, arguments={"x": 1}) == {"content": []}
    assert sorted(told.asked) == [
        ("elicitation/create", {"message": "who?"}),
        ("roots/list", {}),
        ("sampling/createMessage", {"maxTokens": 1}),
    ]
    first, second, third = server.asked
    base = {"name": "t", "arguments": {"x": 1}}
    assert first == base
    answers = {"a": {"of": "elicitation/create"}, "b": {"of": "sampling/createMessage"}}
    assert second == {**base, "inputResponses": answers, "requestState": "s1"}
    assert third == {**base, "inputResponses": {"c": {"of": "roots/list"}}, "requestState": "s2"}


async def test_questions_of_one_round_are_asked_at_once() -> None:
    both = asyncio.Barrier(2)

    class Slow(Told):
        async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
            async with asyncio.timeout(5):
                await both.wait()
            return Raw(b"{}")

    assert await ask(Server(STATELESS, needs(a=FORM, b=FORM), DONE), Slow(capabilities=ALL)) == {"content": []}


async def test_a_person_who_declines_has_answered() -> None:
    server = Server(STATELESS, needs(a=FORM), DONE)
    await ask(server, Told(capabilities=ALL, answer=lambda method, params: {"action": "decline"}))
    assert server.asked[1]["inputResponses"] == {"a": {"action": "decline"}}
    assert "requestState" not in server.asked[1]


async def test_a_client_that_refuses_one_question_ends_the_request_and_the_other_question() -> None:
    withdrawn = asyncio.Event()

    class Refuses(Told):
        async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
            if method == "sampling/createMessage":
                raise RpcError(-1, "User rejected sampling request", {"x": 1})
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                withdrawn.set()
                raise
            raise AssertionError

    server = Server(STATELESS, needs(a=FORM, b=SAMPLE), DONE)
    with pytest.raises(RpcError, match="rejected") as refused:
        await ask(server, Refuses(capabilities=ALL))
    assert (refused.value.code, refused.value.data, withdrawn.is_set(), len(server.asked)) == (-1, {"x": 1}, True, 1)


async def test_a_server_that_only_wants_to_be_asked_again_is() -> None:
    server = Server(STATELESS, needs("s1"), DONE)
    assert await ask(server, Told()) == {"content": []}
    assert server.asked[1] == {"name": "t", "requestState": "s1"}


async def test_a_server_that_asks_without_end_is_given_up() -> None:
    server = Server(STATELESS, needs("s", a=FORM))
    with pytest.raises(UpstreamFailed, match="16 rounds"):
        await ask(server, Told(capabilities=ALL, answer=lambda method, params: {}))
    assert len(server.asked) == 17


async def test_nobody_can_be_asked_for_a_request_of_nobodys() -> None:
    with pytest.raises(UpstreamFailed, match="no MCP client to ask"):
        await ask(Server(STATELESS, needs(a=FORM)), None)


UNDECLARED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a page, and it has forms alone": ({"method": "elicitation/create", "params": {"mode": "url"}}, {"elicitation": {}}),
    "a form, and it has none": (FORM, {"sampling": {}}),
    "its roots": ({"method": "roots/list"}, {}),
}


@pytest.mark.parametrize("case", UNDECLARED)
async def test_a_session_client_is_not_asked_for_what_it_did_not_declare(case: str) -> None:
    question, capabilities = UNDECLARED[case]
    told = Told(capabilities=capabilities, answer=lambda method, params: {})
    with pytest.raises(UpstreamFailed, match="does not offer"):
        await ask(Server(STATELESS, needs(a=question), DONE), told)
    assert told.asked == []


@pytest.mark.parametrize("broken", [{"inputRequests": []}, {"inputRequests": {"a": 1}}, {"inputRequests": {"a": {"params": {}}}}])
async def test_a_question_that_is_none_fails_the_request(broken: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed, match="not MCP's"):
        await ask(Server(STATELESS, {"resultType": "input_required", **broken}), Told())


async def test_a_page_to_open_has_the_id_that_session_clients_want() -> None:
    page = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x.test", "message": "m"}}
    told = Told(capabilities=ALL, answer=lambda method, params: {"action": "accept"})
    await ask(Server(STATELESS, needs(a=page), DONE), told)
    ((_, asked),) = told.asked
    assert len(asked.pop("elicitationId")) == 32
    assert asked == page["params"]


async def test_a_session_client_cannot_bring_answers_of_its_own() -> None:
    server = Server(STATELESS, DONE)
    await ask(server, Told(), inputResponses={"a": {}}, requestState="forged")
    assert server.asked == [{"name": "t"}]


# shapes

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "what every result has": (
        {"content": [{"_meta": {"ttlMs": 1}}], "resultType": "complete", "ttlMs": 5, "cacheScope": "public", "_meta": {INFO: {}}},
        {"content": [{"_meta": {"ttlMs": 1}}]},
    ),
    "the rest of _meta": ({"_meta": {INFO: {}, "x": 1}, "unknown": None}, {"_meta": {"x": 1}, "unknown": None}),
    "an empty _meta of the server's own": ({"_meta": {}}, {"_meta": {}}),
    "structured content of any shape": ({"structuredContent": [1], "content": []}, {"content": []}),
    "structured content that is null": ({"structuredContent": None}, {}),
    "structured content that is an object": ({"structuredContent": {"n": 2**80}}, {"structuredContent": {"n": 2**80}}),
}


@pytest.mark.parametrize("case", SHAPES)
async def test_a_stateless_servers_result_looks_to_session_clients_like_one_of_theirs(case: str) -> None:
    sent, seen = SHAPES[case]
    for call in (Told(), None):
        assert await ask(Server(STATELESS, sent), call) == seen
        assert await ask(Server(STATELESS, sent), call, "completion/complete") == seen


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("call", [Told(), stateless_client()], ids=["session", "stateless"])
async def test_a_session_servers_result_passes_as_the_bytes_it_is(case: str, call: Told) -> None:
    sent = rpc.raw(SHAPES[case][0])
    assert await bridge.request(Server(SESSION, sent), "tools/call", {"name": "t"}, call) is sent


async def test_a_session_server_may_say_input_required_and_mean_nothing_by_it() -> None:
    sent = {"content": [], **needs(a=FORM)}
    assert await ask(Server(SESSION, sent), Told()) == sent


NOT_FOUND = RpcError(-32602, "Resource not found", {"uri": "x:y"})


async def test_a_resource_that_is_not_there_has_the_code_of_the_clients_revision() -> None:
    for call, code in ((Told(), -32002), (None, -32002), (stateless_client(), -32602)):
        with pytest.raises(RpcError) as refused:
            await ask(Server(STATELESS, NOT_FOUND), call, "resources/read", uri="x:y")
        assert (refused.value.code, refused.value.data) == (code, {"uri": "x:y"})


async def test_other_errors_keep_their_codes() -> None:
    for method, error in (("tools/call", NOT_FOUND), ("resources/read", RpcError(-32602, "no uri"))):
        with pytest.raises(RpcError) as refused:
            await ask(Server(STATELESS, error), Told(), method)
        assert refused.value is error


# a stateless client in front of a stateless server


async def test_a_stateless_clients_own_answers_pass_and_the_state_is_wrapped_for_its_server() -> None:
    server, call = Server(STATELESS, needs("s1", a=FORM), DONE), stateless_client(**ALL)
    first = await ask(server, call)
    assert (first["inputRequests"], first["resultType"]) == ({"a": FORM}, "input_required")
    assert first["requestState"] != "s1"
    assert await ask(server, call, inputResponses={"a": {}, "b": {}}, requestState=first["requestState"]) == DONE
    assert server.asked[1] == {"name": "t", "inputResponses": {"a": {}, "b": {}}, "requestState": "s1"}
    assert call.asked == []


async def test_a_server_without_a_state_gets_none_though_the_client_carries_ours() -> None:
    server, call = Server(STATELESS, needs(a=FORM), DONE), stateless_client(**ALL)
    first = await ask(server, call)
    await ask(server, call, inputResponses={"a": {}}, requestState=first["requestState"])
    assert server.asked[1] == {"name": "t", "inputResponses": {"a": {}}}


async def test_a_stateless_client_is_not_asked_what_it_did_not_declare() -> None:
    for question in (SAMPLE, {**FORM, "params": {"mode": "url"}}):
        with pytest.raises(UpstreamFailed, match="asks for what this client does not offer"):
            await ask(Server(STATELESS, needs("s1", a=question)), stateless_client(elicitation={"form": {}}))


async def test_a_session_servers_result_is_no_question_whatever_type_it_says_it_has() -> None:
    found = await ask(Server(SESSION, {**needs("s1", a=FORM), "content": []}), stateless_client(**ALL))
    assert "resultType" not in found
    assert found["content"] == []


@pytest.mark.parametrize("state", ["", "x", "[]", "5", '["other","s1"]'])
async def test_a_state_of_another_mount_is_refused(state: str) -> None:
    server = Server(STATELESS, DONE)
    with pytest.raises(RpcError, match="requestState is not valid") as refused:
        await ask(server, stateless_client(), requestState=state)
    assert (refused.value.code, server.asked) == (-32602, [])


async def test_answers_without_a_state_are_the_servers_to_judge_and_nothing_to_a_session_server() -> None:
    for version, kept in ((STATELESS, {"inputResponses": {"a": 5}}), (SESSION, {})):
        server = Server(version, DONE)
        await ask(server, stateless_client(), inputResponses={"a": 5})
        assert server.asked == [{"name": "t", **kept}]


# -32042, which one revision knew

PAGES = RpcError(-32042, "Sign in first", {"elicitations": [{"url": "https://x.test", "elicitationId": "e", "message": "m"}]})
URL = {"elicitation": {"url": {}}}


async def test_pages_to_open_first_are_questions_to_a_stateless_client_and_then_the_server_is_asked_anew() -> None:
    server, call = Server(SESSION, PAGES, {"content": []}), stateless_client(**URL)
    first = await ask(server, call)
    assert first["resultType"] == "input_required"
    page = {"mode": "url", "url": "https://x.test", "elicitationId": "e", "message": "m"}
    assert first["inputRequests"] == {"page-1": {"method": "elicitation/create", "params": page}}
    again = await ask(server, call, inputResponses={"page-1": {"action": "accept"}}, requestState=first["requestState"])
    assert (again, server.asked) == ({"content": []}, [{"name": "t"}, {"name": "t"}])


async def test_a_page_that_was_declined_ends_it() -> None:
    server, call = Server(SESSION, PAGES, {"content": []}), stateless_client(**URL)
    first = await ask(server, call)
    with pytest.raises(RpcError, match="declined"):
        await ask(server, call, inputResponses={"page-1": {"action": "decline"}}, requestState=first["requestState"])
    assert len(server.asked) == 1


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
async def test_a_stateless_client_that_opens_no_pages_is_told_which_capability_is_missing(capabilities: dict[str, Any]) -> None:
    with pytest.raises(RpcError, match="Sign in first") as refused:
        await ask(Server(SESSION, PAGES), stateless_client(**capabilities))
    assert (refused.value.code, refused.value.data["requiredCapabilities"]) == (-32021, {"elicitation": {"url": {}}})


async def test_a_session_client_hears_of_pages_as_it_always_did() -> None:
    with pytest.raises(RpcError) as refused:
        await ask(Server(SESSION, PAGES), Told())
    assert refused.value is PAGES


@pytest.mark.parametrize("data", [None, {}, {"elicitations": []}, {"elicitations": "x"}, {"elicitations": [5]}])
async def test_an_error_of_that_number_without_pages_passes(data: Any) -> None:
    error = RpcError(-32042, "pay first", data)
    with pytest.raises(RpcError) as refused:
        await ask(Server(SESSION, error), stateless_client(**URL))
    assert refused.value is error
