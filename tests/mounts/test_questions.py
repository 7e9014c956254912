"""What a server asks its client, and tells it, while a call runs: attributed, gated, answered under its own id, withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Heard
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.questions import MOST, Questions, allowed
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed
from tests.harness.calls import Told
from tests.mounts.asking import ALL, Slowly, Standing, as_client, asking, asking_far, here, stateless, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import plain, served, until

ELICIT = {"message": "who?", "requestedSchema": {"type": "object", "properties": {}}}
Mounted = Callable[..., contextlib.AbstractAsyncContextManager[Mount]]


@pytest.fixture(params=["stdio", "http", "http-polling"])
def mounted(make: MakeMounts, request: pytest.FixtureRequest) -> Mounted:
    @contextlib.asynccontextmanager
    async def mounted(**members: Any) -> AsyncIterator[Mount]:
        if request.param == "stdio":
            yield await make().add("main", asking(**{"session": "client", **members}))
            return
        async with served("asking_http.py", *(["polling"] if "polling" in request.param else [])) as port:
            yield await make(allow=here(port)).add("main", asking_far(port, **members))

    return mounted


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("elicitation/create", ELICIT, {"action": "accept", "content": {"n": 2**70}}),
        ("elicitation/create", {"mode": "url", "elicitationId": "e", "url": "https://x", "message": "go"}, {"action": "decline"}),
        ("sampling/createMessage", {"messages": [], "maxTokens": 1}, {"role": "assistant", "model": "m", "content": []}),
        ("roots/list", {}, {"roots": [{"uri": "file:///r"}]}),
        ("vendor/thing", {"a": None}, {"kept": [1, {"x": None}]}),
    ],
)
@pytest.mark.parametrize("id", ["own", 7, 2**70])
async def test_a_question_is_answered_by_the_call_it_belongs_to(
    mounted: Mounted, method: str, params: dict[str, Any], answer: dict[str, Any], id: int | str
) -> None:
    call = Told(capabilities=ALL, answer=lambda method, params: answer)
    async with mounted() as mount:
        found = await use(mount, call, "ask", method=method, params=params, id=id)
    assert found == {"jsonrpc": "2.0", "id": id, "result": answer}
    assert call.asked == [(method, params)]


async def test_a_stateless_clients_call_is_asked_too(mounted: Mounted) -> None:
    call = stateless(Told(capabilities=ALL, answer=lambda method, params: {"roots": []}))
    async with mounted() as mount:
        assert (await use(mount, call, "ask", method="roots/list"))["result"] == {"roots": []}


async def test_an_error_of_the_clients_keeps_its_code_and_data(mounted: Mounted) -> None:
    def refuse(method: str, params: Any) -> Any:
        raise RpcError(-32042, "not so", {"why": [None]})

    async with mounted() as mount:
        found = await use(mount, Told(capabilities=ALL, answer=refuse), "ask", method="roots/list")
    assert found["error"] == {"code": -32042, "message": "not so", "data": {"why": [None]}}


async def test_two_clients_who_call_at_once_are_each_asked_their_own(mounted: Mounted) -> None:
    def client(name: str) -> Told:
        return Told(capabilities=ALL, answer=lambda method, params: {"roots": [name]}, key=name)

    calls = [client(f"c{number}") for number in range(4)]
    async with mounted() as mount:
        found = await asyncio.gather(*(use(mount, call, "ask", method="roots/list") for call in calls))
    assert [answer["result"]["roots"] for answer in found] == [["c0"], ["c1"], ["c2"], ["c3"]]


async def test_stateless_calls_of_one_client_at_once_are_each_asked_their_own(mounted: Mounted) -> None:
    def call(number: int) -> Told:
        return stateless(Told(capabilities=ALL, answer=lambda method, params: {"roots": [number]}))

    async with mounted() as mount:
        found = await asyncio.gather(*(use(mount, call(number), "ask", method="roots/list") for number in range(12)))
    assert [answer["result"]["roots"] for answer in found] == [[number] for number in range(12)]


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list", "tasks/get"])
async def test_what_the_client_did_not_declare_it_is_not_asked(mounted: Mounted, method: str) -> None:
    call = Told(answer=lambda method, params: {})
    async with mounted() as mount:
        assert (await use(mount, call, "ask", method=method))["error"]["code"] == -32601
    assert call.asked == []


async def test_a_shared_server_that_asks_anyway_is_refused(make: MakeMounts) -> None:
    mount = await make().add("main", asking())
    call = Told(capabilities=ALL, answer=lambda method, params: {})
    assert (await use(mount, call, "seen"))["capabilities"] == {}
    assert (await use(mount, call, "ask", method="roots/list"))["error"]["code"] == -32601
    assert call.asked == []


@pytest.mark.parametrize(
    ("declared", "mode", "may"),
    [
        ({}, None, True),
        ({}, "form", True),
        ({}, "url", False),
        ({"url": {}}, "url", True),
        ({"url": {}}, None, False),
        ({"form": {}, "url": {}}, "form", True),
        ({"form": {}}, ["url"], False),
        (None, None, False),
    ],
)
def test_the_kind_of_elicitation_is_heeded(declared: Any, mode: Any, may: bool) -> None:
    client = Told(capabilities={} if declared is None else {"elicitation": declared}).client
    params = rpc.raw({"message": "?"} if mode is None else {"mode": mode})
    assert allowed(client, "elicitation/create", params) is may


async def test_a_question_the_server_takes_back_is_withdrawn(mounted: Mounted) -> None:
    call = Slowly(capabilities=ALL)
    async with mounted() as mount:
        answers = await use(mount, call, "withdraw")
    assert call.withdrawn == 1
    assert [answer for answer in answers if "id" in answer] == []


async def test_a_call_that_is_cancelled_takes_its_questions_with_it(mounted: Mounted) -> None:
    call = Slowly(capabilities=ALL)
    async with mounted() as mount:
        task = asyncio.create_task(use(mount, call, "ask", method="roots/list"))
        await until(lambda: call.asked, "it was asked")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: call.withdrawn == 1, "the question was withdrawn")
        assert await use(mount, call, "count") == 1  # the link lives


async def test_a_call_that_ends_while_it_asks_withdraws_its_question_and_the_server_is_told(mounted: Mounted) -> None:
    call = Slowly(capabilities=ALL)
    async with mounted() as mount:
        assert await use(mount, call, "leave") == "left"
        await until(lambda: call.withdrawn == 1, "the question was withdrawn")
        answers: list[Any] = []
        while not answers:
            answers = [answer for answer in await use(mount, call, "answers") if "error" in answer]
    assert answers[0]["error"] == {"code": -32603, "message": "the call this was asked for is over"}


async def test_a_link_that_ends_withdraws_its_questions(make: MakeMounts) -> None:
    mounts, call = make(), Slowly(capabilities=ALL)
    mount = await mounts.add("main", asking(session="client"))
    task = asyncio.create_task(use(mount, call, "ask", method="roots/list"))
    await until(lambda: call.asked, "it was asked")
    await mounts.remove("main", "asking")
    assert call.withdrawn == 1
    with pytest.raises(UpstreamFailed, match="asking was stopped before it answered tools/call"):
        await task


async def test_more_questions_than_a_person_can_answer_are_refused(mounted: Mounted) -> None:
    call = Slowly(capabilities=ALL)
    async with mounted() as mount:
        task = asyncio.create_task(use(mount, call, "many", n=MOST + 3))
        await until(lambda: len(call.asked) == MOST, "as many as may be were asked")
        await asyncio.sleep(0.2)  # the three that follow may come in another read
        call.go.set()
        found = await task
    assert [answer["error"]["code"] for answer in found if "error" in answer] == [-32603] * 3
    assert len([answer for answer in found if "result" in answer]) == MOST


async def test_a_question_asked_beside_several_calls_reaches_the_client_outside_of_any(mounted: Mounted) -> None:
    standing = Standing(lambda method, params: {"roots": ["outside"]})
    one, other = (as_client(Told(capabilities=ALL), standing=standing) for _ in range(2))
    async with mounted() as mount:
        slow = asyncio.create_task(use(mount, one, "slow", seconds=5))
        await until(lambda: mount, "asked")
        await asyncio.sleep(0.2)
        found = await use(mount, other, "ask_aside", method="roots/list")
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    assert found["result"] == {"roots": ["outside"]}
    assert standing.asked == [("roots/list", {})]
    assert one.asked == other.asked == []


@pytest.mark.parametrize("method", ["notifications/message", "notifications/elicitation/complete", "notifications/vendor/thing"])
async def test_what_is_told_reaches_its_call_verbatim(mounted: Mounted, method: str) -> None:
    call = Told()
    params = {"level": "debug", "data": {"n": 2**70}, "elicitationId": "e", "x": None}
    async with mounted() as mount:
        await use(mount, call, "tell", method=method, params=params)
    assert call.told == [(method, params)]


async def test_a_log_line_of_a_shared_server_is_told_to_the_only_call(make: MakeMounts) -> None:
    mount = await make().add("main", asking())
    call = Told()
    await use(mount, call, "tell", method="notifications/message", params={"level": "info", "data": "x"})
    assert [method for method, _ in call.told] == ["notifications/message"]
    await use(mount, None, "tell", method="notifications/message", params={"level": "info", "data": "x"})
    assert len(call.told) == 1


# a call's time


async def test_a_calls_time_stands_still_while_its_client_thinks(mounted: Mounted) -> None:
    call = Slowly(capabilities=ALL)
    async with mounted() as mount:
        await use(mount, call, "count")  # its link is open
        task = asyncio.create_task(use(mount, call, "ask", timeout=0.4, method="roots/list"))
        await until(lambda: call.asked, "it was asked")
        await asyncio.sleep(0.8)
        call.go.set()
        assert (await task)["result"] == {"action": "accept"}


async def test_a_calls_time_is_the_specs_unless_given(make: MakeMounts) -> None:
    mount = await make().add("main", plain(timeout_secs=1))
    with pytest.raises(UpstreamFailed, match="did not answer tools/call within 1 s"):
        await mount.request("tools/call", {"name": "slow", "arguments": {"seconds": 20}})


async def test_a_calls_time_runs_on_after_the_answer(mounted: Mounted) -> None:
    call = Told(capabilities=ALL, answer=lambda method, params: {})
    async with mounted() as mount:
        await use(mount, call, "ask", method="roots/list")
        with pytest.raises(UpstreamFailed, match=r"did not answer tools/call within 0\.3 s"):
            await use(mount, call, "slow", timeout=0.3, seconds=20)


async def test_a_calls_time_begins_anew_with_progress(mounted: Mounted) -> None:
    call = Told()
    async with mounted() as mount:
        await use(mount, call, "count")
        assert await use(mount, call, "steps", timeout=0.5, times=6, pause=0.2) == "done"
        with pytest.raises(UpstreamFailed, match="within"):
            await use(mount, None, "steps", timeout=0.5, times=6, pause=0.2)
    assert [step["progress"] for step in call.steps] == [0, 1, 2, 3, 4, 5]


async def test_what_the_client_says_of_its_progress_with_a_question_reaches_the_server_under_its_own_token() -> None:
    sent: list[Any] = []

    async def send(message: bytes) -> None:
        sent.append(msgspec.json.decode(message))

    class Working(Told):
        async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
            assert heard is not None
            heard(Raw(b'{"progress":1,"message":"half"}'))
            await until(lambda: sent, "the server was told")
            return Raw(b'{"roots":[]}')

    questions = Questions("far", send)
    questions.put("q", "roots/list", Raw(b'{"_meta":{"progressToken":7}}'), Working(), about=None, holding=[])
    await until(lambda: len(sent) == 2, "the answer was sent")
    told, answered = sent
    assert (told["method"], told["params"]) == ("notifications/progress", {"progress": 1, "message": "half", "progressToken": 7})
    assert (answered["id"], answered["result"]) == ("q", {"roots": []})
