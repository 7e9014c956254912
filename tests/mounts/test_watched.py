"""Subscriptions to resources, both eras: counted, told once, told again after an end; how a stateless server learns who asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rootlink.engine import rpc
from rootlink.engine.mounts.clients import REOPEN_SECONDS
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.mounts.watched import Watched
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed
from rootlink.wire.mounts import MountSpec
from tests.harness.calls import Told
from tests.mounts.asking import ALL, as_client, asking, asking_far, control, here, stateless, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, plain, served, until, until_async

META = "io.modelcontextprotocol/"
URI, OTHER = "asking://one", "asking://two"
A, B, C = (Told(key=key).client for key in "abc")
STDIO = MountSpec("asking", "stdio", command="python", args=["-S", str(SERVERS / "asking_stateless.py"), "stdio"])
Updates = list[tuple[str, Any, str | None]]


@contextlib.asynccontextmanager
async def mounted(
    make: MakeMounts, script: str = "asking_http.py", **members: Any
) -> AsyncIterator[tuple[Mounts, Mount, int, Updates]]:
    found: Updates = []
    async with served(script) as port:
        mounts = make(allow=here(port), on_updated=lambda ws, uri, params, key: found.append((uri, rpc.value(params), key)))
        yield mounts, await mounts.add("main", asking_far(port, **members)), port, found


def test_the_first_and_the_last_count() -> None:
    watched = Watched()
    watched.add("u", "a")
    watched.add("u", "a")
    watched.add("u", "b")
    assert [watched.remove("u", "x"), watched.remove("u", "a"), watched.remove("u", "a")] == [False, False, False]
    assert watched.remove("u", "b") is True
    assert "u" not in watched
    watched.add("u", "c")
    assert watched.forget("c") == ["u"]


# the session era


async def test_a_shared_server_is_told_of_the_first_subscriber_and_the_last_ones_going(make: MakeMounts) -> None:
    async with mounted(make, session="shared") as (mounts, mount, port, updates):
        for client in (A, B, stateless(Told(key="c")).client):
            await mount.subscribe(URI, client)
        assert (await control(port))["watched"] == [[URI]]
        await control(port, touch=URI)
        await until(lambda: updates == [(URI, {"uri": URI}, None)], "told once, for all")
        await mount.unsubscribe(URI, A)
        await mount.unsubscribe(URI, A)
        mounts.forget_client("b")
        assert (await control(port))["watched"] == [[URI]]
        await mount.unsubscribe(URI, C)
        assert (await control(port))["watched"] == [[]]


async def test_a_clients_own_session_is_subscribed_and_heard_for_it_alone(make: MakeMounts) -> None:
    async with mounted(make) as (mounts, mount, port, updates):
        await mount.subscribe(URI, A)
        await mount.subscribe(URI, B)
        assert sorted((await control(port))["watched"]) == [[], [URI], [URI]]
        await control(port, touch=URI)
        await until(lambda: sorted(update[2] or "" for update in updates) == ["a", "b"], "each was told")
        await mount.unsubscribe(URI, A)
        mounts.forget_client("b")
        await until_async(lambda: _watched(port, [[], []]), "both are gone")


async def _watched(port: int, wanted: list[list[str]]) -> bool:
    return sorted((await control(port))["watched"]) == wanted


async def test_a_stateless_clients_subscription_is_on_the_mounts_own_session(make: MakeMounts) -> None:
    async with mounted(make) as (_, mount, port, updates):
        client = stateless(Told(key="s")).client
        await mount.subscribe(URI, client)
        assert (await control(port))["opened"] == 1
        await control(port, touch=URI)
        await until(lambda: updates == [(URI, {"uri": URI}, None)], "told")


@pytest.mark.parametrize("session", ["shared", None])
async def test_a_renewed_session_is_subscribed_again_and_reported_updated(make: MakeMounts, session: Any) -> None:
    async with mounted(make, session=session) as (_, mount, port, updates):
        await mount.subscribe(URI, A)
        await control(port, forget=True)
        for call in (None, Told(key="a")):
            await use(mount, call, "count")
        key = None if session else "a"
        await until(lambda: (URI, {"uri": URI}, key) in updates, "reported")
        wanted = [[URI]] if session else [[], [URI]]
        await until_async(lambda: _watched(port, wanted), "subscribed again")


async def test_a_restarted_server_is_subscribed_again_and_reported_updated(make: MakeMounts) -> None:
    updates: Updates = []
    mounts = make(on_updated=lambda ws, uri, params, key: updates.append((uri, rpc.value(params), key)))
    mount = await mounts.add("main", asking())
    await mount.subscribe(URI, A)
    with pytest.raises(UpstreamFailed):
        await use(mount, None, "crash")
    await until(lambda: updates == [(URI, {"uri": URI}, None)], "reported")
    assert await use(mount, None, "watched") == [URI]


async def test_a_clients_process_that_died_is_there_again_for_its_subscriptions(make: MakeMounts) -> None:
    updates: Updates = []
    mounts = make(on_updated=lambda ws, uri, params, key: updates.append((uri, rpc.value(params), key)))
    mount = await mounts.add("main", asking(session="client"))
    await mount.subscribe(URI, A)
    with pytest.raises(UpstreamFailed):
        await use(mount, Told(key="a"), "crash")
    await until(lambda: updates == [(URI, {"uri": URI}, "a")], "reported")
    with pytest.raises(UpstreamFailed):
        await use(mount, Told(key="a"), "crash")  # the second time in a minute it waits for a call
    await asyncio.sleep(2 * REOPEN_SECONDS)
    assert not mount._clients.alive(A)
    assert await use(mount, Told(key="a"), "watched") == [URI]
    await until(lambda: len(updates) == 2, "reported again")


async def test_a_server_that_refuses_a_subscription_says_so(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    with pytest.raises(RpcError) as refused:
        await mount.subscribe("plain://one", A)
    assert refused.value.code == -32601
    await mount.unsubscribe("plain://one", A)


# the stateless era


async def test_a_stateless_servers_listen_names_what_is_watched_and_loses_nothing(make: MakeMounts) -> None:
    async with mounted(make, "asking_stateless.py") as (mounts, mount, port, updates):
        await until_async(lambda: _open(port, [{"toolsListChanged": True}]), "it listens")
        await until_async(lambda: _read(port, 2), "lists were read at the start, and once more when it listened")
        await asyncio.gather(mount.subscribe(URI, A), mount.subscribe(OTHER, A), mount.subscribe(URI, B))
        both = {"toolsListChanged": True, "resourceSubscriptions": [URI, OTHER]}
        await until_async(lambda: _open(port, [both]), "one stream names both")
        assert (await control(port))["listens"] == [{"toolsListChanged": True}, both]
        await control(port, touch=URI)
        await until(lambda: updates == [(URI, {"uri": URI}, None)], "told, without our tag")
        await mount.unsubscribe(OTHER, A)
        mounts.forget_client("b")
        await until_async(lambda: _open(port, [{**both, "resourceSubscriptions": [URI]}]), "one is left")
        await mount.unsubscribe(URI, A)
        await until_async(lambda: _open(port, [{"toolsListChanged": True}]), "none is left")
        assert (await control(port))["lists"] == 2  # a mere change of the filter is no reason to read lists again
        assert len(updates) == 1


async def test_a_listen_that_was_cut_is_opened_again_and_reported(make: MakeMounts) -> None:
    async with mounted(make, "asking_stateless.py") as (_, mount, port, updates):
        await mount.subscribe(URI, A)
        await until_async(lambda: _read(port, 2), "lists were read")
        await control(port, cut=True)
        await until(lambda: updates == [(URI, {"uri": URI}, None)], "reported")
        await until_async(lambda: _read(port, 3), "lists are read again")


async def _open(port: int, wanted: list[Any]) -> bool:
    return bool((await control(port))["open"] == wanted)


async def _read(port: int, times: int) -> bool:
    return bool((await control(port))["lists"] >= times)


async def test_a_stateless_stdio_servers_updates_come_through_its_listen(make: MakeMounts) -> None:
    updates: Updates = []
    mount = await make(on_updated=lambda ws, uri, params, key: updates.append((uri, rpc.value(params), key))).add("main", STDIO)
    await mount.subscribe(URI, A)
    await use(mount, None, "touch", uri=URI)
    await until(lambda: updates == [(URI, {"uri": URI}, None)], "told")
    assert len(await use(mount, None, "cancelled")) == 1  # the stream before


@pytest.fixture(params=["stdio", "http"])
def modern(make: MakeMounts, request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractAsyncContextManager[Mount]]:
    @contextlib.asynccontextmanager
    async def modern() -> AsyncIterator[Mount]:
        if request.param == "stdio":
            yield await make().add("main", STDIO)
            return
        async with mounted(make, "asking_stateless.py") as (_, mount, _, _):
            yield mount

    return modern


async def test_a_stateless_server_is_told_in_each_request_who_asks(modern: Any) -> None:
    session = as_client(Told(capabilities={**ALL, "tasks": {"x": 1}}), info={"name": "me", "version": "3"})
    modern_client = stateless(Told(capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}}), info={})
    async with modern() as mount:
        seen = [await use(mount, call, "seen") for call in (session, modern_client, None)]
    assert [meta[f"{META}clientCapabilities"] for meta in seen] == [ALL, modern_client.client.capabilities, {}]
    assert [meta.get(f"{META}clientInfo", {}).get("name") for meta in seen] == ["me", None, "rootlink"]
    assert [f"{META}logLevel" in meta for meta in seen] == [True, False, False]


@pytest.mark.parametrize(("level", "told"), [(None, 1), ("error", 1)])
async def test_a_session_client_hears_a_stateless_servers_log(modern: Any, level: str | None, told: int) -> None:
    call = Told()
    call.level = level
    async with modern() as mount:
        await use(mount, call, "log", level="info")
        assert (await use(mount, call, "seen"))[f"{META}logLevel"] == (level or "info")
    assert [method for method, _ in call.told] == ["notifications/message"] * told


async def test_a_stateless_client_that_asked_for_no_log_causes_none(modern: Any) -> None:
    call = stateless(Told())
    async with modern() as mount:
        params = {"name": "log", "arguments": {"level": "info"}, "_meta": {f"{META}logLevel": "debug", "kept": 1}}
        await mount.request("tools/call", params, call=call)
        assert call.told == []


async def test_what_the_client_lacks_is_the_servers_own_error(modern: Any) -> None:
    async with modern() as mount:
        with pytest.raises(RpcError) as refused:
            await use(mount, stateless(Told()), "input")
    assert (refused.value.code, refused.value.data) == (-32021, {"requiredCapabilities": {"elicitation": {}}})


async def test_a_cancelled_call_of_a_stateless_stdio_server_is_cancelled_by_id(make: MakeMounts) -> None:
    mount = await make().add("main", STDIO)
    with pytest.raises(UpstreamFailed, match="within"):
        await use(mount, None, "slow", timeout=0.3, seconds=20)
    assert len(await use(mount, None, "cancelled")) == 1


async def test_what_a_stateless_server_says_of_caching_is_kept(make: MakeMounts) -> None:
    async with mounted(make, "asking_stateless.py") as (_, mount, _, _):
        assert mount.catalogue.cache == {
            "tools": {"ttlMs": 5000, "cacheScope": "public"},
            "resources": {"ttlMs": 0, "cacheScope": "private"},
        }
