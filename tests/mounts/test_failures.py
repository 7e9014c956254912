"""Five ways in which servers fail, each told as what it is, with what was refused meanwhile, and without a secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.doors import Doors
from rootlink.engine.mounts import failures, launch
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.rpc import RpcError
from rootlink.errors import Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import MountSpec
from tests.engine.held import ADA, Mounted, dispatch
from tests.engine.ingate import InGate, gate
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, call, until

EVIL = (
    "egress blocked: host 'evil.example' is not in this project's outbound allowlist. "
    "Allow it with: rootlink egress allow evil.example"
)
SECRET = "AIza-hunter-2-hunter"


def failing(mode: str, **members: Any) -> MountSpec:
    return MountSpec(
        "failing", "stdio", command="python", args=["-S", str(SERVERS / "failing.py"), mode], timeout_secs=10, **members
    )


@pytest.fixture
async def ingate(tmp_path: Path) -> AsyncIterator[InGate]:
    async with gate(tmp_path) as one:
        yield one


@pytest.fixture
async def mounts(make: MakeMounts, ingate: InGate) -> AsyncIterator[Mounts]:
    doors = Doors(str(ingate.path), "prj", "key", EgressPolicy(), record=lambda *_: None)
    doors.start()
    one = make(launch=launch.Proxied(launch.probe(), doors), secrets={"KEY": SECRET})
    yield one
    await one.close()
    await doors.close()


async def refused(ingate: InGate) -> None:
    """The mount's next failure comes with a refusal."""
    await ingate.until(lambda: any(held.asked.name == "failing" for held in ingate.doors.values()), "the gate knows the door")
    ingate.refuse(ingate.door("failing"), "evil.example")


async def start(mounts: Mounts, ingate: InGate, spec: MountSpec) -> str:
    """What is said of a start that fails while the server is refused something."""
    adding = asyncio.create_task(mounts.add("main", spec))
    await refused(ingate)
    with pytest.raises(UpstreamFailed) as failed:
        await adding
    return failed.value.message


async def test_a_server_that_ends_at_its_start_is_told_with_its_exit_code_and_last_words(mounts: Mounts) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await mounts.add("main", failing("exits"))
    assert failed.value.message.startswith("failing ended with exit code 1 before it answered ")
    assert failed.value.message.endswith(": starting up | SLACK_BOT_TOKEN must be set")


async def test_tools_list_that_answers_with_an_error_is_told_as_that(mounts: Mounts, ingate: InGate) -> None:
    words = "failing started, but answered tools/list with an error: fetch failed"
    with pytest.raises(UpstreamFailed) as failed:
        await mounts.add("main", failing("list_error"))
    assert failed.value.message == words


async def test_tools_list_that_is_not_answered_is_told_as_that_with_what_was_refused(mounts: Mounts, ingate: InGate) -> None:
    spec = msgspec.structs.replace(failing("list_hangs"), timeout_secs=1)
    words = "failing was not ready within 1 s; it started, but did not answer tools/list"
    assert await start(mounts, ingate, spec) == f"{EVIL}\n{words}"


STARTS = [
    ("exits", "failing ended with exit code 1 before it answered "),
    ("list_error", "failing started, but answered tools/list with an error: fetch failed"),
    ("list_hangs", "failing was not ready within 1 s; it started, but did not answer tools/list"),
]


@pytest.mark.parametrize(("mode", "words"), STARTS)
async def test_a_mount_put_back_that_does_not_start_shows_why_and_so_does_a_call(
    mounts: Mounts, ingate: InGate, mode: str, words: str
) -> None:
    mount = mounts.restore("main", msgspec.structs.replace(failing(mode), timeout_secs=1))
    await until(lambda: mount.error, "it failed")
    assert mount.shown == mount.error and mount.error is not None and words in mount.error
    if mode == "exits":
        assert mount.error.endswith("starting up | SLACK_BOT_TOKEN must be set")
    with pytest.raises((Unavailable, UpstreamFailed), match=re.escape(words)):
        await mount.request("tools/call", {"name": "fine"})


@pytest.mark.parametrize(("mode", "words"), [("error", "failed: fetch failed"), ("hangs", "was not answered")])
async def test_tools_list_that_fails_later_is_shown_and_the_known_tools_stand(
    mounts: Mounts, mode: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootlink.engine.mounts.shared.REREAD_SECONDS", 0.3)
    mount = await mounts.add("main", failing(f"later_{mode}"))
    known = list(mount.catalogue.tools)
    await call(mount, "change")
    await until(lambda: mount.error, "it is shown")
    assert mount.error == f"failing says that its tools changed, but tools/list {words}. Those known before stand"
    assert (mount.state, mount.catalogue.tools) == ("ready", known)


async def result(mount: Mount, tool: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(await mount.request("tools/call", {"name": tool}))
    return found


@pytest.mark.parametrize("tool", ["slack", "only_error"])
async def test_a_success_that_is_an_error_comes_as_it_is_and_with_what_was_refused(
    mounts: Mounts, ingate: InGate, tool: str
) -> None:
    mount = await mounts.add("main", failing("calls"))
    plainly = await result(mount, tool)
    assert len(plainly["content"]) == 1
    await refused(ingate)
    own, ours = (await result(mount, tool))["content"]
    assert [own] == plainly["content"]
    assert ours == {"type": "text", "text": EVIL}


async def test_a_success_that_speaks_of_errors_stays_the_bytes_it_was(mounts: Mounts, ingate: InGate) -> None:
    mount = await mounts.add("main", failing("calls"))
    before = bytes(await mount.request("tools/call", {"name": "fine"}))
    await refused(ingate)
    assert bytes(await mount.request("tools/call", {"name": "fine"})) == before


CONFESSIONS = [
    ({"ok": False, "error": "invalid_auth"}, "invalid_auth"),
    ({"ok": False}, "it gave no reason"),
    ({"error": "fetch failed"}, "fetch failed"),
    ({"error": {"message": "no such thing", "code": 1}}, "no such thing"),
    ({"ok": True, "error": "x"}, None),
    ({"ok": 0, "error": "x"}, None),
    ({"success": False, "error": "no such table"}, "no such table"),
    ({"success": False, "message": "no such table"}, "no such table"),
    ({"success": False}, None),
    ({"success": True, "error": "x"}, None),
    ({"error": None}, None),
    ({"error": "x", "data": []}, None),
    ({}, None),
    (["error"], None),
    ("error", None),
    (None, None),
]


@pytest.mark.parametrize(("said", "words"), CONFESSIONS)
def test_a_success_is_an_error_if_it_says_so_or_says_nothing_else(said: Any, words: str | None) -> None:
    assert failures.confession(said) == words
    text = rpc.raw({"content": [{"type": "text", "text": json.dumps(said)}]})
    assert failures.words(text) == words


TEXTS = [
    ('Error: relation "shop" does not exist', 'relation "shop" does not exist'),
    ("ERROR: permission denied", "permission denied"),
    ("Error: one line of a log\nand another", None),
    ("Errors: none", None),
    ("error: a word in lower case begins many a text", None),
    ("Error:", None),
    ("Error: " + "x" * 600, None),
]


@pytest.mark.parametrize(("said", "words"), TEXTS)
def test_a_text_that_is_one_line_of_an_error_is_one(said: str, words: str | None) -> None:
    assert failures.words(rpc.raw({"content": [{"type": "text", "text": said}]})) == words
    assert failures.words(rpc.raw({"content": [{"type": "text", "text": said}] * 2})) is None


def test_structured_content_that_is_an_error_is_one_too() -> None:
    said = {"ok": False, "error": "not_authed"}
    assert failures.words(rpc.raw({"content": [], "structuredContent": said})) == "not_authed"
    wrapped = {"content": [{"type": "text", "text": json.dumps(said)}], "structuredContent": {"result": json.dumps(said)}}
    assert failures.words(rpc.raw(wrapped)) == "not_authed"
    assert failures.words(rpc.raw({"content": [], "structuredContent": {**said, "rows": ["x" * 5000]}})) is None, "too long"


# what the state of a server shows of its latest call

SHOWN = [
    ("rpc", "was answered with an error (-32050): no: key=[secret KEY]"),
    ("is_error", "failed: request to https://maps.example/?key=[secret KEY] failed"),
    ("slack", "succeeded with an error inside: invalid_auth"),
    ("only_error", "succeeded with an error inside: fetch failed"),
    ("dies", "came to nothing: failing ended with exit code 3 before it answered tools/call: not today"),
]


@pytest.mark.parametrize(("tool", "words"), SHOWN)
async def test_the_state_shows_a_call_that_failed_as_what_it_is_until_one_goes_well(
    mounts: Mounts, ingate: InGate, tool: str, words: str
) -> None:
    mount = await mounts.add("main", failing("calls"))
    assert mount.shown is None
    await refused(ingate)
    with contextlib.suppress(RpcError, UpstreamFailed):
        await mount.request("tools/call", {"name": tool})
    await until(lambda: mount.state == "ready", "it is back")
    time = r"\(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
    assert re.fullmatch(rf"the last call of {tool} {time} {re.escape(f'{words}. {EVIL}')}", clean(mount.shown or ""))
    await mount.request("tools/call", {"name": "fine"})
    assert mount.shown is None


async def test_an_answer_that_does_not_come_is_shown_and_a_restart_forgets_it(mounts: Mounts) -> None:
    mount = await mounts.add("main", msgspec.structs.replace(failing("calls"), timeout_secs=1))
    with pytest.raises(UpstreamFailed):
        await mount.request("tools/call", {"name": "silent"})
    assert (mount.shown or "").endswith("came to nothing: failing did not answer tools/call within 1 s")
    await mount.restart()
    assert mount.shown is None


async def test_what_is_wrong_with_the_state_is_shown_before_a_call(mounts: Mounts) -> None:
    mount = await mounts.add("main", failing("calls"))
    await mount.request("tools/call", {"name": "slack"})
    mount.error = "failing says that its tools changed"
    assert mount.shown == mount.error


# what a client is told


def clean(text: str) -> str:
    return text.replace(SECRET, "[secret KEY]")


def told(**result: Any) -> Raw:
    return rpc.raw(result)


FAILED = [
    told(content=[{"type": "text", "text": f"https://x/?key={SECRET} failed"}], isError=True),
    told(isError=True, content=[], structuredContent={"a": {SECRET: [SECRET, 1]}}, _meta={"x": "y" * 1000}),
    told(_meta={"x": "y" * 1000}, isError=True, content=[{"type": "text", "text": SECRET}], more={"x": "y" * 1000}),
    told(taskId="1", status="failed", result={"content": [{"type": "text", "text": SECRET}], "isError": True}),
]


@pytest.mark.parametrize("result", FAILED)
def test_a_result_that_failed_holds_no_known_secret(result: Raw) -> None:
    shown = bytes(failures.cleaned(result, clean))
    assert SECRET.encode() not in shown
    assert shown == bytes(result).replace(SECRET.encode(), b"[secret KEY]")


NUMBERS = b'"n":[1.10,1E+2,123456789012345678901234567890,-0.0],"s":"\\u00e9\\/","d":' + b"[" * 900 + b"]" * 900


def test_what_is_no_secret_stays_the_bytes_it_was() -> None:
    result = Raw(b'{"isError":true,"content":[{"type":"text","text":"' + SECRET.encode() + b'"}],' + NUMBERS + b"}")
    assert bytes(failures.cleaned(result, clean)) == bytes(result).replace(SECRET.encode(), b"[secret KEY]")
    without = Raw(b'{"isError":true,"content":[],' + NUMBERS + b"}")
    assert failures.cleaned(without, clean) is without


def test_a_secret_that_json_escapes_is_found() -> None:
    secret = 'a"b\\cé/d\n'
    escaped = json.dumps(secret)
    result = Raw(b'{"isError":true,"x":' + escaped.encode() + b',"y":"\\n' + SECRET.encode() + b'"}')
    shown = failures.cleaned(result, lambda text: text.replace(secret, "*").replace(escaped[1:-1], "*").replace(SECRET, "*"))
    assert msgspec.json.decode(shown) == {"isError": True, "x": "*", "y": "\n*"}


def test_of_a_failure_too_long_to_be_mended_nothing_is_shown() -> None:
    result = told(content=["a"] * (1 << 17) + [SECRET], isError=True)
    shown = msgspec.json.decode(failures.cleaned(result, clean))
    assert (shown["isError"], "too long to be shown" in shown["content"][0]["text"]) == (True, True)
    error = rpc.error(rpc.raw({"code": -1, "message": "no", "data": ["a"] * (1 << 17) + [SECRET]}))
    assert "too long to be shown" in failures.cleaned_error(error, clean).message
    harmless = told(content=["a"] * (1 << 17), isError=True)
    assert failures.cleaned(harmless, clean) is harmless


def test_a_success_is_not_looked_through() -> None:
    for text in (SECRET, f'{{"isError": true, "key": "{SECRET}"}}'):
        result = told(content=[{"type": "text", "text": text}], structuredContent={"isError": True, "k": SECRET}, isError=False)
        assert failures.cleaned(result, clean) is result


def test_an_error_of_a_servers_own_holds_no_known_secret_and_is_else_as_it_came() -> None:
    raw = Raw(
        b'{"code":-32050,"message":"no: ' + SECRET.encode() + b'","data":{"u":["' + SECRET.encode() + b'"],"b":1.10},"x":1}'
    )
    shown = failures.cleaned_error(rpc.error(raw), clean)
    assert (shown.code, shown.message) == (-32050, "no: [secret KEY]")
    assert shown.raw is not None
    assert bytes(shown.raw) == bytes(raw).replace(SECRET.encode(), b"[secret KEY]")
    assert shown.data == {"u": ["[secret KEY]"], "b": 1.1}
    in_data = RpcError(1, "no", {"url": SECRET})
    assert failures.cleaned_error(in_data, clean).data == {"url": "[secret KEY]"}
    plain = rpc.error(Raw(b'{"code":1,"message":"no","data":' + b"[" * 900 + b"]" * 900 + b"}"))
    assert failures.cleaned_error(plain, clean) is plain


async def test_a_client_is_told_no_known_secret_by_a_call_that_fails() -> None:
    answers = {"tools/call": lambda params, call: {"content": [{"type": "text", "text": "hunter2 failed"}], "isError": True}}
    mount = Mounted("m", answers, tools=[{"name": "t"}])
    said = await dispatch(mount).handle(ADA, "tools/call", {"name": "m__t"}, None)
    assert msgspec.json.decode(said)["content"][0]["text"] == "*** failed"
    broken = Mounted("m", {"tools/call": lambda params, call: RpcError(-1, "no", {"url": "?key=hunter2"})}, tools=[{"name": "t"}])
    with pytest.raises(RpcError) as failed:
        await dispatch(broken).handle(ADA, "tools/call", {"name": "m__t"}, None)
    assert failed.value.data == {"url": "?key=***"}
