"""Servers elsewhere: Streamable HTTP of both eras, the older HTTP+SSE, credentials, sessions, streams that break."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import msgspec
import pytest

from rootlink.egress.policy import Decision
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.rpc import RpcError
from rootlink.errors import EgressBlocked, Invalid, Unavailable, UpstreamFailed
from rootlink.wire.mounts import Auth, MountSpec
from tests.harness.calls import Told
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import call, served, until, until_async


def far(port: int, transport: Any = "http", path: str = "/mcp", **members: Any) -> MountSpec:
    return MountSpec(name="far", transport=transport, endpoint=f"http://127.0.0.1:{port}{path}", **members)


def here(port: int) -> list[str]:
    return [f"127.0.0.1:{port}"]


async def control(port: int, **wanted: bool) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in wanted.items()}
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/control", json=named) as response:
        found: dict[str, Any] = await response.json()
        return found


async def tools(mount: Mount) -> list[str]:
    return [tool["name"] for tool in mount.catalogue.tools]


@pytest.mark.parametrize("arguments", [(), ("json",), ("stateless",)])
async def test_the_official_sdks_server_is_mounted_in_the_newest_era(make: MakeMounts, arguments: tuple[str, ...]) -> None:
    async with served("sdk_http.py", *arguments) as port:
        mount = await make(allow=here(port)).add("main", far(port))
        assert mount.catalogue.version == "2026-07-28"
        assert await tools(mount) == ["add", "grow", "steps"]
        assert [resource["uri"] for resource in mount.catalogue.resources] == ["sdk://one"]
        assert [prompt["name"] for prompt in mount.catalogue.prompts] == ["greet"]
        assert mount.catalogue.instructions == "made with the SDK"
        assert await call(mount, "add", a=2, b=3) == "5"
        read = await mount.request("resources/read", {"uri": "sdk://one"})
        assert msgspec.json.decode(read)["contents"][0]["text"] == "one"


async def test_the_sdks_server_tells_of_new_tools_and_progress(make: MakeMounts) -> None:
    async with served("sdk_http.py") as port:
        told: list[set[str]] = []
        mount = await make(allow=here(port), on_change=lambda ws, kinds: told.append(kinds)).add("main", far(port))
        await call(mount, "grow")
        await until(lambda: {"tools"} in told, "the new tool was told")
        assert "grown" in await tools(mount)
        call_told = Told()
        await mount.request("tools/call", {"name": "steps", "arguments": {}}, call=call_told)
        assert [notice["progress"] for notice in call_told.steps] == [0, 1, 2]


@pytest.mark.parametrize("arguments", [(), ("json",), ("no-stream",), ("400",)])
async def test_a_session_server_is_mounted_asked_and_left(make: MakeMounts, arguments: tuple[str, ...]) -> None:
    async with served("session_http.py", *arguments) as port:
        mounts = make(allow=here(port))
        mount = await mounts.add("main", far(port))
        assert mount.catalogue.version == "2025-06-18"
        raw = await mount.request("tools/call", {"name": "echo", "arguments": {"n": 2**70}})
        assert b"\n" not in bytes(raw)
        assert json.loads(msgspec.json.decode(raw)["content"][0]["text"]) == {"n": 2**70}
        seen = await control(port)
        assert seen["headers"]["mcp-protocol-version"] == "2025-06-18"
        assert seen["headers"]["mcp-session-id"] == seen["sessions"][0]
        with pytest.raises(RpcError, match="Method not found"):
            await mount.request("prompts/get", {"name": "x"})
        await mounts.remove("main", "far")
        assert (await control(port))["deleted"] == 1


@pytest.mark.parametrize("arguments", [(), ("400",)])
async def test_a_forgotten_session_is_renewed_behind_the_scenes(make: MakeMounts, arguments: tuple[str, ...]) -> None:
    async with served("session_http.py", "no-stream", *arguments) as port:
        mount = await make(allow=here(port)).add("main", far(port))
        await control(port, forget=True)
        answers = await asyncio.gather(*(call(mount, "echo", n=number) for number in range(5)))
        assert [json.loads(answer)["n"] for answer in answers] == list(range(5))
        seen = await control(port)
        assert len(seen["sessions"]) == 1
        assert seen["posts"].count("initialize") == 2
        assert mount.state == "ready"


async def test_a_get_stream_tells_of_changes_and_is_opened_again(make: MakeMounts) -> None:
    async with served("session_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        await until_async(lambda: _streams(port, 1), "the stream is open")
        await control(port, grow=True)
        await until(lambda: len(mount.catalogue.tools) == 5, "the new tool is known")
        await control(port, cut=True, grow_quietly=True)
        await until(lambda: len(mount.catalogue.tools) == 6, "what changed meanwhile is known")
        await control(port, forget=True, grow_quietly=True)
        await until(lambda: len(mount.catalogue.tools) == 7, "also over a new session")


async def _streams(port: int, count: int) -> bool:
    return bool((await control(port))["gets"] >= count)


async def test_a_broken_stream_is_resumed_by_its_last_event(make: MakeMounts) -> None:
    async with served("session_http.py", "drop") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        assert await call(mount, "echo", n=1) == '{"n": 1}'
        assert (await control(port))["posts"].count("tools/call") == 1


async def test_a_servers_ping_over_http_is_answered(make: MakeMounts) -> None:
    async with served("session_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        await call(mount, "ask_me")
        assert (await control(port))["replies"] == [{"jsonrpc": "2.0", "id": "q", "result": {}}]


async def test_cancelling_a_session_call_tells_the_server(make: MakeMounts) -> None:
    async with served("session_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        with pytest.raises(UpstreamFailed, match=r"far did not answer tools/call within 0\.2 s"):
            await call(mount, "slow", timeout=0.2, seconds=30)
        await until_async(lambda: _cancelled(port), "the server was told")


async def _cancelled(port: int) -> bool:
    return len((await control(port))["cancelled"]) == 1


async def test_a_message_past_the_cap_fails_its_call_only(make: MakeMounts) -> None:
    async with served("session_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        with pytest.raises(UpstreamFailed, match="far sent a message larger than 4 MiB"):
            await call(mount, "big")
        assert await call(mount, "echo") == "{}"


async def test_a_credential_is_sent_and_a_wrong_one_is_named_as_the_cause(make: MakeMounts) -> None:
    async with served("session_http.py", "token=right-token") as port:
        mounts = make(allow=here(port), secrets={"GOOD": "right-token", "BAD": "wrong-token", "BROKEN": "a\nb"})
        with pytest.raises(UpstreamFailed, match="far answered HTTP 401: it wants a credential") as refused:
            await mounts.add("main", far(port, auth=Auth("bearer", "${BAD}")))
        assert "wrong-token" not in refused.value.message
        with pytest.raises(Invalid, match="line break"):
            await mounts.add("main", far(port, auth=Auth("bearer", "${BROKEN}")))
        headers = {"X-Team": "${GOOD}!"}
        mount = await mounts.add("main", far(port, auth=Auth("bearer", "${GOOD}"), headers=headers))
        await call(mount, "echo")
        assert (await control(port))["headers"]["x-team"] == "right-token!"


async def test_a_stateless_server_gets_meta_and_headers_right(make: MakeMounts) -> None:
    async with served("stateless_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        assert mount.catalogue.version == "2026-07-28"
        assert mount.catalogue.server_info["name"] == "stateless"
        assert await tools(mount) == ["echo", "slow", "äü"]  # the one with a bad x-mcp-header is not offered
        assert json.loads(await call(mount, "echo", region="eu-ä", n=1)) == {"region": "eu-ä", "n": 1}
        assert await call(mount, "äü") == "{}"
        with pytest.raises(RpcError, match="Method not found") as failed:
            await mount.request("prompts/get", {"name": "x"})
        assert failed.value.code == -32601
        assert "initialize" not in (await control(port))["posts"]


async def test_a_stateless_server_tells_of_changes_through_listen(make: MakeMounts) -> None:
    async with served("stateless_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        await until_async(lambda: _listeners(port), "somebody listens")
        await control(port, grow=True)
        await until(lambda: len(mount.catalogue.tools) == 4, "the new tool is known")
        await control(port, cut=True, grow_quietly=True)
        await until(lambda: len(mount.catalogue.tools) == 5, "what changed meanwhile is known")


async def _listeners(port: int) -> bool:
    return bool((await control(port))["listeners"])


async def test_cancelling_a_stateless_call_breaks_its_stream_off(make: MakeMounts) -> None:
    async with served("stateless_http.py") as port:
        mount = await make(allow=here(port)).add("main", far(port))
        with pytest.raises(UpstreamFailed):
            await call(mount, "slow", timeout=0.2, seconds=30)
        await until_async(lambda: _broken_off(port), "the server noticed")
        assert "notifications/cancelled" not in (await control(port))["posts"]


async def _broken_off(port: int) -> bool:
    return (await control(port))["broken_off"] == 1  # type: ignore[no-any-return]


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_an_sse_server_is_mounted_by_its_name_or_found_out(make: MakeMounts, transport: str) -> None:
    async with served("sse_era.py") as port:
        told: list[set[str]] = []
        mounts = make(allow=here(port), on_change=lambda ws, kinds: told.append(kinds))
        mount = await mounts.add("main", far(port, transport, "/sse", auth=Auth("api_key", "k-123456")))
        assert mount.catalogue.version == "2024-11-05"
        assert json.loads(await call(mount, "echo", n=1)) == {"n": 1}
        assert (await control(port))["headers"]["x-api-key"] == "k-123456"
        with pytest.raises(UpstreamFailed, match="within"):
            await call(mount, "slow", timeout=0.2, seconds=30)
        await until_async(lambda: _cancelled(port), "the server was told")
        await control(port, grow=True)
        await until(lambda: {"tools"} in told, "the new tool was told")


async def test_a_lost_sse_stream_is_opened_again_by_the_supervisor(make: MakeMounts) -> None:
    async with served("sse_era.py") as port:
        mount = await make(allow=here(port)).add("main", far(port, "sse", "/sse"))
        asked = asyncio.create_task(call(mount, "slow", seconds=30))
        await until_async(lambda: _asked(port), "the call is there")
        await control(port, cut=True)
        with pytest.raises(UpstreamFailed, match="far closed its event stream before it answered tools/call"):
            await asked
        assert await call(mount, "echo") == "{}"  # it is opened again at once, and who asks meanwhile waits
        await control(port, cut=True)
        await until(lambda: mount.state == "backoff", "the second time it takes a moment")
        with pytest.raises(Unavailable, match="far is restarting after a crash: far closed its event stream"):
            await call(mount, "echo")
        await until(lambda: mount.state == "ready", "it is back")
        assert await call(mount, "echo") == "{}"


async def _asked(port: int) -> bool:
    return "content-length" in (await control(port))["headers"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [("foreign", "wants its messages sent to another host"), ("silent", "was not ready within 1 s")],
)
async def test_an_sse_server_that_leads_elsewhere_or_nowhere_is_refused(make: MakeMounts, mode: str, words: str) -> None:
    async with served("sse_era.py", mode) as port:
        with pytest.raises(UpstreamFailed, match=words):
            await make(allow=here(port)).add("main", far(port, "sse", "/sse", timeout_secs=1))


async def test_an_endpoint_that_is_not_allowed_does_not_mount(make: MakeMounts) -> None:
    refused: list[Decision] = []
    mounts = make(allow=["other.example"], refused=refused)
    spec = MountSpec(name="far", transport="http", endpoint="https://evil.example/mcp?key=abc")
    with pytest.raises(EgressBlocked, match=r"egress blocked: host 'evil\.example' is not in this project's outbound allowlist"):
        await mounts.add("main", spec)
    assert mounts.all() == []
    assert [decision.host for decision in refused] == ["evil.example"]
    with pytest.raises(EgressBlocked):
        await mounts.add("main", msgspec.structs.replace(spec, endpoint="https://other.example/mcp", egress=[]))


async def test_a_server_that_cannot_be_reached_is_told_so_and_tried_for_ever(make: MakeMounts) -> None:
    async with served("session_http.py", "no-stream") as port:
        mounts = make(allow=here(port))
        mount = await mounts.add("main", far(port))
    for _ in range(3):
        with pytest.raises(UpstreamFailed, match=r"host '127\.0\.0\.1' port \d+ (cannot be reached|broke)"):
            await call(mount, "echo")
    with pytest.raises(Unavailable):
        await call(mount, "echo")
    assert mount.state in ("backoff", "starting")


async def test_a_page_that_is_no_mcp_server_is_refused_in_words(make: MakeMounts) -> None:
    async with served("sse_era.py") as port:
        with pytest.raises(UpstreamFailed, match="far answered HTTP 404"):
            await make(allow=here(port)).add("main", far(port, path="/nothing"))
