"""A call that fails while its mount was refused something says so; any other call is as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.engine.doors import Doors
from rootlink.engine.mounts import launch
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.refusals import Refusals
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.rpc import RpcError
from rootlink.errors import Forbidden, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Refusal
from rootlink.wire.mounts import MountSpec
from tests.engine.ingate import InGate, gate
from tests.harness.calls import Told
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, call, hostile, plain, until

LIST = "is not in this project's outbound allowlist"
EVIL = f"egress blocked: host 'evil.example' {LIST}. Allow it with: rootlink egress allow evil.example"
OWN = "egress blocked: host 'b.example' is not one of this connection's own hosts (a.example); a connection reaches only those"
PRIVATE = "egress blocked: host 'b.example' leads to 10.0.0.1, a private address; only the operator can open it"
PORT = f"egress blocked: host 'b.example' {LIST} for port 22: the rule 'b.example' opens 443 and 80; a rule would open it"


@pytest.fixture
async def ingate(tmp_path: Path) -> AsyncIterator[InGate]:
    async with gate(tmp_path) as one:
        yield one


@pytest.fixture
async def watched(make: MakeMounts, ingate: InGate) -> AsyncIterator[Mounts]:
    """Mounts of the advisory tier: each with a proxy that the gate holds."""
    doors = Doors(str(ingate.path), "prj", "key", EgressPolicy(), record=lambda *_: None)
    doors.start()
    mounts = make(launch=launch.Proxied(launch.probe(), doors), secrets={"TOKEN": "hunter-2-hunter"})
    yield mounts
    await mounts.close()
    await doors.close()


async def known(ingate: InGate, name: str = "plain") -> Any:
    await ingate.until(lambda: any(held.asked.name == name for held in ingate.doors.values()), "the gate knows the door")
    return ingate.door(name)


def speaking(code: str) -> MountSpec:
    """A server whose tools are a table in `code`."""
    head = f"import sys; sys.path.insert(0, {str(SERVERS)!r}); from speaking import serve\n"
    return MountSpec("plain", "stdio", command="python", args=["-S", "-c", head + code])


# the tier by proxy variables


async def test_a_child_is_told_of_a_proxy_of_its_own_that_the_gate_holds(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain(egress=["a.example"]))
    environ = json.loads(await call(mount, "env"))
    held = await known(ingate)
    ((listener, sock),) = held.sockets
    assert listener.kind == "proxy"
    assert sock.getsockname() == ("127.0.0.1", listener.port)
    assert held.asked.scope == ["a.example"]
    assert len(held.asked.token) >= 32
    proxy = f"http://rootlink:{held.asked.token}@127.0.0.1:{listener.port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    assert {name: environ[name] for name in names} == dict.fromkeys(names, proxy)
    assert environ["NO_PROXY"] == environ["no_proxy"] == "localhost,127.0.0.1,::1"
    assert environ["NODE_USE_ENV_PROXY"] == "1"
    await watched.remove("main", "plain")
    await ingate.until(lambda: held.asked.door in ingate.closed, "the gate was told")


async def test_a_variable_that_a_mount_declares_wins_in_both_spellings(watched: Mounts) -> None:
    mount = await watched.add("main", plain(env={"https_proxy": "http://mine", "NODE_USE_ENV_PROXY": "0"}))
    environ = json.loads(await call(mount, "env"))
    assert environ["https_proxy"] == "http://mine"
    assert "HTTPS_PROXY" not in environ
    assert environ["NODE_USE_ENV_PROXY"] == "0"
    assert "HTTP_PROXY" in environ


async def test_its_token_is_not_in_the_mounts_logs(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    held = await known(ingate)
    await call(mount, "complain", lines=[f"using http://rootlink:{held.asked.token}@127.0.0.1"])
    await until(lambda: mount.logs() == ["using http://rootlink:[secret]@127.0.0.1"], "redacted")


async def test_a_start_that_fails_leaves_no_door(watched: Mounts, ingate: InGate) -> None:
    with pytest.raises(UpstreamFailed):
        await watched.add("main", msgspec.structs.replace(plain(), command="/nowhere/at-all"))
    await ingate.until(lambda: not ingate.doors, "no door is left")


# calls that fail


async def test_an_error_says_what_was_refused_and_keeps_its_code_and_data(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    ingate.refuse(await known(ingate), "evil.example")
    with pytest.raises(RpcError) as failed:
        await call(mount, "fail")
    assert (failed.value.code, failed.value.message) == (-32050, f"{EVIL}\nit failed")
    refused = [{"host": "evil.example", "port": 443, "reason": "not_in_allowlist"}]
    assert failed.value.data == {"big": 2**70, "n": [1, None], "egress": refused}
    assert EVIL in mount.logs()


async def test_a_clients_own_process_has_a_door_of_its_own_and_its_calls_are_told_its_own_refusals(
    watched: Mounts, ingate: InGate
) -> None:
    mount = await watched.add("main", plain(session="client"))
    base = await known(ingate)
    one, other = Told(key="one"), Told(key="other")
    tokens = {base.asked.token}
    for call_of in (one, other):
        await mount.request("tools/call", {"name": "echo", "arguments": {}}, call=call_of)
        await ingate.until(lambda: len(ingate.doors) == len(tokens) + 1, "the gate knows one door more")
        held = next(held for held in ingate.doors.values() if held.asked.token not in tokens)
        tokens.add(held.asked.token)
        assert held.asked.name == "plain"
    ingate.refuse(held, "evil.example")
    with pytest.raises(RpcError) as failed:
        await mount.request("tools/call", {"name": "fail"}, call=other)
    assert failed.value.message == f"{EVIL}\nit failed"
    for call_of_nobody_else in (one, None):
        with pytest.raises(RpcError) as failed:
            await mount.request("tools/call", {"name": "fail"}, call=call_of_nobody_else)
        assert failed.value.message == "it failed"
    assert EVIL in mount.logs()
    watched.forget_client("other")
    await ingate.until(lambda: len(ingate.doors) == 2, "its door is closed")


async def test_a_result_that_says_is_error_gets_a_first_block_and_keeps_the_rest(watched: Mounts, ingate: InGate) -> None:
    code = """
big = {"big": 2**70, "nested": [1.50, None]}
import speaking
def call(id, function, arguments):
    result = {"x-vendor": big, "content": [{"type": "image", "x": 2**80}], "isError": True}
    speaking._send({"jsonrpc": "2.0", "id": id, "result": result})
speaking._call = call
serve("plain", {"t": None})
"""
    mount = await watched.add("main", speaking(code))
    held = await known(ingate)
    plainly = bytes(await mount.request("tools/call", {"name": "t"}))
    assert plainly.count(b"egress") == 0
    for host in ("evil.example", "evil.example", *(f"h{number}.example" for number in range(6))):
        ingate.refuse(held, host)
    result = bytes(await mount.request("tools/call", {"name": "t"}))
    first, *others = msgspec.json.decode(result)["content"]
    lines = first["text"].split("\n")
    assert lines[0] == EVIL
    assert len(lines) == 6
    assert lines[5] == "egress blocked: 2 other hosts; see: rootlink egress denied"
    assert others == [{"type": "image", "x": 2**80}]
    assert b'"x-vendor":{"big": 1180591620717411303424, "nested": [1.5, null]}' in result


async def test_a_result_that_succeeds_stays_the_bytes_it_is(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    before = bytes(await mount.request("tools/call", {"name": "echo", "arguments": {"text": '"isError": true'}}))
    ingate.refuse(await known(ingate), "evil.example")
    await until(lambda: EVIL in mount.logs(), "it was told")
    assert bytes(await mount.request("tools/call", {"name": "echo", "arguments": {"text": '"isError": true'}})) == before


async def test_a_call_past_its_time_says_what_was_refused(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    held = await known(ingate)
    asyncio.get_running_loop().call_later(0.1, ingate.refuse, held, "evil.example")
    with pytest.raises(UpstreamFailed) as failed:
        await call(mount, "slow", timeout=0.4, seconds=5)
    assert failed.value.message == f"{EVIL}\nplain did not answer tools/call within 0.4 s"
    assert failed.value.data == {"egress": [{"host": "evil.example", "port": 443, "reason": "not_in_allowlist"}]}


async def test_a_crash_says_what_was_refused_and_so_does_the_mount(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    ingate.refuse(await known(ingate), "evil.example")
    with pytest.raises(UpstreamFailed) as failed:
        await call(mount, "crash")
    assert failed.value.message.startswith(f"{EVIL}\nplain ended with exit code 3")
    await until(lambda: mount.error, "it is down")
    assert mount.error is not None
    assert mount.error.startswith(f"{EVIL}\nplain ended with exit code 3")


async def test_a_start_that_is_never_ready_says_what_was_refused(watched: Mounts, ingate: InGate) -> None:
    adding = asyncio.create_task(watched.add("main", hostile("never_init", timeout_secs=1)))
    ingate.refuse(await known(ingate, "hostile"), "evil.example")
    with pytest.raises(UpstreamFailed) as failed:
        await adding
    assert failed.value.message.startswith(f"{EVIL}\nhostile was not ready within 1 s")


async def test_what_was_refused_long_before_has_nothing_to_do_with_it(watched: Mounts, ingate: InGate) -> None:
    mount = await watched.add("main", plain())
    ingate.refuse(await known(ingate), "evil.example")
    await until(lambda: EVIL in mount.logs(), "it was told")
    await asyncio.sleep(1.1)
    with pytest.raises(RpcError, match=r"\Ait failed"):
        await call(mount, "fail")


# words


def refusals(told: Callable[[str], None] = lambda line: None, secret: str = "") -> Refusals:
    return Refusals(lambda text: text.replace(secret, "[secret]") if secret else text, told)


WORDS = {
    ("evil.example", 443, "not_in_allowlist", f"egress blocked: host 'evil.example' {LIST}"): EVIL,
    ("evil.example", 0, "not_in_allowlist", f"egress blocked: host 'evil.example' {LIST}"): EVIL,
    ("b.example", 5432, "not_in_allowlist", f"egress blocked: host 'b.example' {LIST}"): (
        f"egress blocked: host 'b.example' {LIST}. Allow it with: rootlink egress allow b.example:5432"
    ),
    ("b.example", 22, "port", PORT): f"{PORT}. Allow it with: rootlink egress allow b.example:22",
    ("b.example", 22, "port", "egress blocked: host 'b.example' is not in this connection's own hosts for port 22"): (
        "egress blocked: host 'b.example' is not in this connection's own hosts for port 22"
    ),
    ("b.example", 443, "not_in_connection", OWN): f"{OWN}. The host must be among this connection's own hosts",
    ("b.example", 443, "private_address", PRIVATE): PRIVATE,
    ("b.example", 443, "protocol", ""): "egress blocked: host 'b.example' (protocol)",
}


@pytest.mark.parametrize(("refused", "line"), WORDS.items(), ids=lambda value: value[2] if isinstance(value, tuple) else "")
async def test_a_refusal_says_what_can_be_done(refused: tuple[str, int, str, str], line: str) -> None:
    found = refusals()
    host, port, reason, message = refused
    found.note(Refusal(1, "m", host, port, reason, message))
    assert found.lines(0.0) == [line]


async def test_a_call_does_not_answer_for_what_an_earlier_one_was_refused() -> None:
    found = refusals()
    found.note(Refusal(1, "m", "evil.example", 443, "not_in_allowlist", EVIL))
    began = asyncio.get_running_loop().time() + 0.001
    assert not found.concern(began) and found.lines(began) == []


async def test_a_refusal_is_logged_once_a_minute_and_a_secret_in_its_name_is_not() -> None:
    told: list[str] = []
    found = refusals(told.append, "hunter2")
    for _ in range(100):
        found.note(Refusal(1, "m", "hunter2.evil.example", 443, "bad_host", "egress blocked: hunter2.evil.example"))
    assert told == ["egress blocked: [secret].evil.example"]
    error = found.explained(RpcError(1, "failed"), 0.0)
    assert error.data == {"egress": [{"host": "[secret].evil.example", "port": 443, "reason": "bad_host"}]}


# where nothing may be started


async def test_stdio_mounts_that_are_refused_fail_at_once_with_the_reason_and_are_not_tried_again(make: MakeMounts) -> None:
    why = "this machine has no user namespaces; with --sandbox=advisory servers start without a boundary"
    mounts = make(no_stdio=why)
    with pytest.raises(Forbidden, match="plain is not started: this machine has no user namespaces"):
        await mounts.add("main", plain())
    mount: Mount = mounts.restore("main", plain())
    await until(lambda: mount.state == "failed", "it is not tried again")
    assert mount.error == f"plain is not started: {why}"
