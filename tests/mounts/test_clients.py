"""Links of clients' own: who gets which, as whom it is greeted, when it ends, and what of it comes back in the next one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from rootlink.engine.mounts import pool
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.pool import IDLE_SECONDS, MOST_OF_ONE
from rootlink.errors import Invalid, Unavailable, UpstreamFailed
from tests.harness.calls import Told
from tests.mounts.asking import ALL, Standing, as_client, asking, asking_far, control, here, stateless, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import StillClock, served, tree, until, until_async


@contextlib.asynccontextmanager
async def far(make: MakeMounts, *arguments: str, **members: Any) -> AsyncIterator[tuple[Mount, int]]:
    async with served("asking_http.py", *arguments) as port:
        yield await make(allow=here(port), **members).add("main", asking_far(port)), port


# who gets which


async def test_a_session_client_is_greeted_with_what_it_said_of_itself(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    odd = {"elicitation": {}, "experimental": {"x": {"n": 2**70}}, "tasks": {"list": {}}, "unknown": None}
    call = as_client(Told(capabilities=odd), info={"name": "its own", "version": "7", "icons": [{"src": "x"}]})
    seen = await use(mount, call, "seen")
    assert seen["capabilities"] == odd
    assert seen["clientInfo"] == {"name": "its own", "version": "7", "icons": [{"src": "x"}]}
    assert seen["protocolVersion"] == "2025-11-25"
    assert (await use(mount, None, "seen"))["capabilities"] == {}


async def test_a_stateless_clients_tasks_are_not_offered_to_a_session_server(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    declared: dict[str, Any] = {
        "extensions": {"io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/ui": {}},
        "roots": {},
    }
    seen = await use(mount, stateless(Told(capabilities=declared)), "seen")
    assert seen["capabilities"] == {"extensions": {"io.modelcontextprotocol/ui": {}}, "roots": {}}


async def test_each_session_has_a_process_of_its_own_and_keeps_it(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    one, other = Told(key="one"), Told(key="other")
    assert [await use(mount, one, "count") for _ in range(3)] == [1, 2, 3]
    assert await use(mount, other, "count") == 1
    marks = [await use(mount, who, "process") for who in (one, one, other, None)]
    assert len(set(marks)) == 3


async def test_calls_of_a_session_share_its_link_and_one_opening(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    marks = await asyncio.gather(*(use(mount, Told(), "process") for _ in range(20)))
    assert len(set(marks)) == 1


async def test_a_shared_mount_has_one_process_for_all(make: MakeMounts) -> None:
    mount = await make().add("main", asking())
    marks = [await use(mount, who, "process") for who in (Told(key="one"), stateless(Told(key="two")), None)]
    assert len(set(marks)) == 1


async def test_a_server_that_gives_session_ids_has_one_session_a_client(make: MakeMounts) -> None:
    async with far(make) as (mount, port):
        assert [await use(mount, Told(key=key), "count") for key in ("a", "b", "a")] == [1, 1, 2]
        assert (await control(port))["opened"] == 3


@pytest.mark.parametrize(("arguments", "session"), [(("no-id",), None), ((), "shared")])
async def test_a_server_without_session_ids_or_said_to_be_shared_has_one_for_all(
    make: MakeMounts, arguments: tuple[str, ...], session: Any
) -> None:
    async with served("asking_http.py", *arguments) as port:
        mount = await make(allow=here(port)).add("main", asking_far(port, session=session))
        assert [await use(mount, Told(key=key), "count") for key in ("a", "b", "a")] == [1, 2, 3]
        assert (await control(port))["opened"] == 1


async def test_stateless_calls_run_one_at_a_time_on_a_link_and_the_last_used_is_used_first(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    calls = [stateless(Told()) for _ in range(20)]
    await asyncio.gather(*(use(mount, call, "slow", seconds=0.3) for call in calls))
    marks = {await use(mount, call, "process") for call in calls}
    assert len(marks) == 1
    assert len(tree_of(mount)) == MOST_OF_ONE + 1


def tree_of(mount: Mount) -> list[Any]:
    return [*mount._clients._pool.open_links(), mount]


async def test_concurrency_is_kept_over_all_links_together(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client", concurrency=1))
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(use(mount, Told(key=f"c{number}"), "slow", seconds=0.3) for number in range(4)))
    assert asyncio.get_running_loop().time() - began > 1.2


async def test_a_get_stream_is_opened_for_sessions_only(make: MakeMounts) -> None:
    async with far(make) as (mount, port):
        await until_async(lambda: _gets(port, 1), "the mount's own")
        await use(mount, stateless(Told(key="s")), "count")
        await use(mount, Told(key="a"), "count")
        await until_async(lambda: _gets(port, 2), "the session's")
        assert (await control(port))["gets"] == 2


async def _gets(port: int, count: int) -> bool:
    return bool((await control(port))["gets"] >= count)


# their ends


async def test_a_forgotten_clients_link_is_ended_and_its_session_deleted(make: MakeMounts) -> None:
    async with served("asking_http.py") as port:
        mounts = make(allow=here(port))
        mount = await mounts.add("main", asking_far(port))
        await use(mount, Told(key="a"), "count")
        mounts.forget_client("a")
        await until_async(lambda: _deleted(port, 1), "DELETE came")
        assert await use(mount, Told(key="a"), "count") == 1


async def _deleted(port: int, count: int) -> bool:
    return bool((await control(port))["deleted"] == count)


async def test_a_client_forgotten_while_its_link_is_opened_leaves_nothing(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking(session="client"))
    before = tree()
    task = asyncio.create_task(use(mount, Told(key="a"), "count"))
    await until(lambda: tree() != before, "its process runs")
    mounts.forget_client("a")
    with pytest.raises(Unavailable, match="ended while it was being opened"):
        await task
    await until(lambda: tree() == before, "it is gone")


async def test_an_idle_link_ends_but_not_one_whose_client_listens(make: MakeMounts) -> None:
    clock = StillClock()
    mount = await make(clock=clock).add("main", asking(session="client"))
    listening = Standing()
    calls = [Told(key="away"), as_client(Told(key="here"), standing=listening), stateless(Told(key="less"))]
    for call in calls:
        await use(mount, call, "count")
    await _idle(clock, mount, 2)
    assert await use(mount, calls[1], "count") == 2
    listening.open = False
    await _idle(clock, mount, 1)
    assert [await use(mount, call, "count") for call in calls] == [1, 1, 1]


async def _idle(clock: StillClock, mount: Mount, links: int) -> None:
    async def passes() -> bool:
        clock.pass_by(IDLE_SECONDS / 10)
        return len(tree_of(mount)) == links

    await until_async(passes, f"{links} are left")


async def test_the_longest_idle_makes_room_and_none_idle_is_told(make: MakeMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_LINKS", 3)
    async with far(make) as (mount, _):
        for key in ("a", "b", "c", "a", "d"):
            await use(mount, Told(key=key), "count")
        assert {own.client.key for own in mount._clients._pool.open_links()} == {"a", "c", "d"}
        busy = [asyncio.create_task(use(mount, Told(key=key), "slow", seconds=20)) for key in ("a", "c", "d")]
        await until(lambda: all(own.busy for own in mount._clients._pool.open_links()), "all are busy")
        with pytest.raises(Unavailable, match="asking works for 3 clients at once already"):
            await use(mount, Told(key="e"), "count")
        assert await use(mount, None, "count") >= 1
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_stopping_and_restarting_end_every_link(make: MakeMounts) -> None:
    before, mounts = tree(), make(secrets={"A": "one"})
    mount = await mounts.add("main", asking(session="client", env={"A": "${A}"}))
    calls = [Told(key="a"), stateless(Told(key="b"))]
    marks = [await use(mount, call, "process") for call in calls]
    await mounts.environment({"A": "two"})
    assert len(tree_of(mount)) == 1
    assert not {*marks} & {await use(mount, call, "process") for call in calls}
    opening = asyncio.create_task(use(mount, Told(key="c"), "count"))
    await asyncio.sleep(0)
    await mounts.remove("main", "asking")
    await asyncio.gather(opening, return_exceptions=True)
    assert tree() == before


async def test_calls_that_wait_for_a_link_when_the_mount_is_removed_open_none(make: MakeMounts) -> None:
    before, mounts = tree(), make()
    mount = await mounts.add("main", asking(session="client"))
    tasks = [asyncio.create_task(use(mount, stateless(Told()), "slow", seconds=20)) for _ in range(MOST_OF_ONE + 4)]
    await until(lambda: len(tree_of(mount)) == MOST_OF_ONE + 1, "all links are busy")
    await mounts.remove("main", "asking")
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted({type(failure) for failure in failures}, key=str) == [Unavailable, UpstreamFailed]
    assert tree() == before


async def test_the_state_folder_is_shared_by_all_processes(make: MakeMounts, tmp_path: Path) -> None:
    mount = await make().add("main", asking(session="client", args=["-S", "-c", _HOME]))
    raw = [await mount.request("home", {}, call=call) for call in (None, Told(key="a"), stateless(Told(key="b")))]
    assert {bytes(one) for one in raw} == {b'{"home": "%s"}' % str(tmp_path / "mounts" / "main" / "asking").encode()}


_HOME = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    found = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}, "tools": []}
    if message["method"] == "home":
        found = {"home": os.environ["HOME"]}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": found}), flush=True)
"""


# what goes wrong


async def test_a_clients_process_that_dies_costs_its_calls_and_is_there_again_at_the_next(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    one, other = Told(key="a"), Told(key="b")
    assert [await use(mount, one, "count"), await use(mount, other, "count")] == [1, 1]
    with pytest.raises(UpstreamFailed, match="ended with exit code 3 before it answered tools/call") as failed:
        await use(mount, one, "crash")
    assert failed.value.data == {"retryable": True}
    assert mount.state == "ready"
    assert [await use(mount, one, "count"), await use(mount, other, "count")] == [1, 2]


async def test_a_clients_link_works_on_while_the_mounts_own_is_down(make: MakeMounts) -> None:
    mount = await make(clock=StillClock()).add("main", asking(session="client"))
    one = Told(key="a")
    await use(mount, one, "count")
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await use(mount, None, "crash")
        await until(lambda: mount.state in ("ready", "backoff"), "settled")
    assert mount.state == "backoff"
    assert await use(mount, one, "count") == 2
    with pytest.raises(Unavailable, match="restarting after a crash"):
        await use(mount, Told(key="new"), "count")


async def test_a_link_that_cannot_be_opened_fails_the_call_with_words_and_nothing_else(make: MakeMounts, tmp_path: Path) -> None:
    flag = tmp_path / "files" / "broken"
    code = f"import os, sys\nif os.path.exists({str(flag)!r}): sys.exit('no licence')\n{_HOME}"
    mount = await make().add("main", asking(session="client", args=["-S", "-c", code]))
    flag.touch()
    with pytest.raises(UpstreamFailed, match="asking ended with exit code 1 before it answered initialize: no licence"):
        await mount.request("home", {}, call=Told(key="a"))
    assert mount.state == "ready"
    await mount.request("home", {})
    flag.unlink()
    await mount.request("home", {}, call=Told(key="a"))


async def test_a_session_the_server_forgot_is_renewed_as_the_same_client(make: MakeMounts) -> None:
    async with far(make) as (mount, port):
        call = as_client(Told(key="a", capabilities=ALL), info={"name": "me", "version": "1"})
        await use(mount, call, "count")
        await control(port, forget=True)
        assert await use(mount, call, "count") == 1
        assert {"name": "me", "version": "1"} in [seen["clientInfo"] for seen in (await control(port))["seen"]]
        assert (await use(mount, call, "seen"))["capabilities"] == ALL


async def test_a_server_that_forgets_each_session_costs_the_call_and_is_asked_anew_later(make: MakeMounts) -> None:
    async with far(make) as (mount, port):
        call = Told(key="a")
        await use(mount, call, "count")
        await control(port, forgetful=True)
        with pytest.raises(UpstreamFailed, match="asking answered HTTP 404"):
            await use(mount, call, "count")
        assert len(tree_of(mount)) == 1
        await control(port, forgetful=False)
        assert await use(mount, call, "count") == 1


# lists, levels, notices


async def test_lists_that_depend_on_the_client_are_learned_and_told(make: MakeMounts) -> None:
    told: list[set[str]] = []
    mount = await make(on_change=lambda ws, kinds: told.append(kinds)).add("main", asking(session="client"))
    able, unable = Told(key="a", capabilities={"elicitation": {}}).client, Told(key="b").client
    assert "with_elicitation" not in names(mount, able)  # not known yet, and nobody waits
    await until(lambda: "with_elicitation" in names(mount, able), "it is learned")
    assert told == [{"tools"}]
    assert "with_elicitation" not in names(mount, unable)
    assert "with_elicitation" not in names(mount, None)
    assert "with_elicitation" in names(mount, as_client(Told(key="z", capabilities={"elicitation": {}})).client)
    assert len(tree_of(mount)) == 2


def names(mount: Mount, client: Any) -> list[str]:
    return [tool["name"] for tool in mount.lists(client).tools]


async def test_lists_are_learned_with_a_first_call_too(make: MakeMounts) -> None:
    mount = await make().add("main", asking(session="client"))
    call = stateless(Told(key="a", capabilities={"elicitation": {}}))
    await use(mount, call, "count")
    await until(lambda: "with_elicitation" in names(mount, call.client), "it is learned")


async def test_a_tool_that_one_session_grew_is_that_sessions_alone(make: MakeMounts) -> None:
    told: list[set[str]] = []
    mounts = make(on_change=lambda ws, kinds: told.append(kinds))
    mount = await mounts.add("main", asking(session="client"))
    one, other = Told(key="a"), Told(key="b")
    await use(mount, other, "count")
    await use(mount, one, "grow")
    await until(lambda: "grown" in names(mount, one.client), "it is known")
    assert told == [{"tools"}]
    assert "grown" not in names(mount, other.client)
    assert "grown" not in names(mount, None)
    mounts.forget_client("a")
    assert "grown" not in names(mount, one.client)


async def test_a_log_level_reaches_the_clients_own_session_also_one_opened_later(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking(session="client"))
    early, late = Told(key="a"), Told(key="b")
    await use(mount, early, "count")
    mounts.level("main", early.client, "debug")
    mounts.level("main", late.client, "error")
    assert (await use(mount, early, "seen"))["level"] == "debug"
    assert (await use(mount, late, "seen"))["level"] == "error"
    assert (await use(mount, None, "seen"))["level"] == "debug"
    with pytest.raises(Invalid, match="unknown log level 'loud'"):
        mounts.level("main", early.client, "loud")


async def test_a_shared_server_gets_the_lowest_level_also_after_a_restart(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking())
    one, other = Told(key="a"), Told(key="b")
    assert (await use(mount, one, "seen"))["level"] is None
    mounts.level("main", one.client, "error")
    mounts.level("main", other.client, "notice")
    assert (await use(mount, one, "seen"))["level"] == "notice"
    await mounts.restart("main", "asking")
    await until_async(lambda: _level(mount, "notice"), "it was told again")
    mounts.forget_client("b")
    mounts.level("main", one.client, "critical")
    await until_async(lambda: _level(mount, "critical"), "the level of who is left")


@pytest.mark.parametrize("session", ["client", "shared"])
async def test_a_stateless_calls_log_level_is_set_in_the_session_that_carries_it(make: MakeMounts, session: Any) -> None:
    mount = await make().add("main", asking(session=session))
    call = stateless(Told())
    call.level = "notice"
    assert (await use(mount, call, "seen"))["level"] == "notice"
    call.level = "debug"
    assert (await use(mount, call, "seen"))["level"] == "debug"


async def _level(mount: Mount, level: str) -> bool:
    return bool((await use(mount, None, "seen"))["level"] == level)


async def test_a_clients_own_notice_reaches_its_own_session_only(make: MakeMounts) -> None:
    mounts = make()
    mount = await mounts.add("main", asking(session="client"))
    one, other = Told(key="a"), Told(key="b")
    for call in (one, other):
        await use(mount, call, "count")
    mounts.told("main", one.client, "notifications/roots/list_changed", Raw(b"{}"))
    mounts.told("main", Told(key="nobody").client, "notifications/roots/list_changed", Raw(b"{}"))
    heard = [[one["method"] for one in await use(mount, call, "answers")] for call in (one, other, None)]
    assert heard == [["notifications/initialized", "notifications/roots/list_changed"], *[["notifications/initialized"]] * 2]


async def test_what_a_session_says_outside_of_a_call_reaches_its_client(make: MakeMounts) -> None:
    async with far(make) as (mount, port):
        standing = Standing()
        call = as_client(Told(key="a"), standing=standing)
        await use(mount, call, "count")
        await mount.subscribe("asking://one", call.client)
        await until_async(lambda: _gets(port, 2), "its stream is open")
        slow = [asyncio.create_task(use(mount, call, "slow", seconds=5)) for _ in range(2)]
        await asyncio.sleep(0.1)
        await control(port, touch="asking://one", say={"level": "info", "data": "aside"})
        await until(lambda: standing.told, "it was told")
        assert standing.told == [("notifications/message", {"level": "info", "data": "aside"})]
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
