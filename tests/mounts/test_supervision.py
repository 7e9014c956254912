"""What happens to a mount that ends, fails to start, hangs, or whose secrets change."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.mounts.restarts import DELAYS, Restarts
from rootlink.errors import NotFound, Unavailable, UpstreamFailed
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import StillClock, call, hostile, plain, tree, until


async def crash(mount: object) -> None:
    with pytest.raises(UpstreamFailed):
        await call(mount, "crash")  # type: ignore[arg-type]


async def test_a_crash_loop_ends_after_seven_restarts(make: MakeMounts, tmp_path: Path) -> None:
    """R5. The siblings do not notice."""
    clock, starts = StillClock(), tmp_path / "files" / "starts"
    mounts = make(clock=clock)
    sibling = await mounts.add("main", plain("sibling"))
    mount = await mounts.add("main", plain("looping", "--state", str(starts)))
    await crash(mount)
    assert await call(mount, "add", a=1, b=1) == "2"  # the first time nobody waits for more than the start
    assert clock.asked == []
    for delay in DELAYS:
        await crash(mount)
        await until(lambda: clock.asked and clock.asked[-1] == delay, f"a restart after {delay:g} s is planned")  # noqa: B023
        with pytest.raises(
            Unavailable, match="looping is restarting after a crash: looping ended with exit code 3: about to crash"
        ):
            await call(mount, "echo")
        assert len(mount.catalogue.tools) == 16
        assert await call(sibling, "add", a=1, b=1) == "2"
        clock.pass_by(delay)
        await until(lambda: mount.state == "ready", "it is up again")
    await crash(mount)
    await until(lambda: mount.state == "failed", "it was given up")
    assert starts.read_text() == "x" * 8
    with pytest.raises(Unavailable, match="is not started again by itself: looping ended with exit code 3"):
        await call(mount, "echo")
    assert len(mount.catalogue.tools) == 16
    await mounts.restart("main", "looping")
    assert await call(mount, "add", a=1, b=1) == "2"


def test_a_stable_minute_forgives() -> None:
    restarts = Restarts(give_up=True)
    now = 0.0
    for delay in (0.0, *DELAYS[:4]):
        restarts.ready(now)
        assert restarts.ended(now + 59) == delay
    restarts.ready(now)
    assert [restarts.excuses(now + 59), restarts.excuses(now + 60)] == [False, True]
    assert restarts.ended(now + 60) == 0.0
    assert [restarts.ended(now + 61), restarts.ended(now + 62)] == [*DELAYS[:2]]


def test_what_did_not_start_is_not_started_again_at_once() -> None:
    restarts = Restarts(give_up=True)
    assert [restarts.ended(0.0), restarts.ended(1.0)] == [*DELAYS[:2]]


def test_a_server_elsewhere_is_never_given_up() -> None:
    restarts = Restarts(give_up=False)
    assert [restarts.ended(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_calls_in_flight_fail_at_once_when_the_server_dies(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    asked = [asyncio.create_task(call(mount, "slow", seconds=30)) for _ in range(20)]
    await until(lambda: mount.state == "ready", "ready")
    await asyncio.sleep(0.05)
    began = asyncio.get_running_loop().time()
    await crash(mount)
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began < 1
    assert all(isinstance(failure, UpstreamFailed) and failure.data == {"retryable": True} for failure in failures)


async def test_a_call_that_comes_while_a_crashed_server_starts_again_waits_for_it(make: MakeMounts, tmp_path: Path) -> None:
    starts = tmp_path / "files" / "starts"
    mount = await make().add("main", plain("crashing", "--state", str(starts)))
    await crash(mount)
    assert mount.state == "starting"
    assert await call(mount, "add", a=1, b=1) == "2"
    assert starts.read_text() == "xx"


async def test_a_restored_mount_is_listed_at_once_and_a_call_waits_for_it(make: MakeMounts) -> None:
    mounts = make()
    known = Catalogue(tools=[{"name": "echo"}])
    mount = mounts.restore("main", plain(), "con_1", known)
    assert (mount.state, mount.connection) == ("starting", "con_1")
    assert mounts.list("main") == [mount]
    assert [tool["name"] for tool in mount.catalogue.tools] == ["echo"]
    assert await call(mount, "add", a=20, b=22) == "42"
    assert len(mount.catalogue.tools) == 16


async def test_a_restored_mount_tells_of_its_lists(make: MakeMounts) -> None:
    told: list[set[str]] = []
    mount = make(on_change=lambda ws, kinds: told.append(kinds)).restore("main", plain())
    await mount.settled()
    await until(lambda: told == [{"tools", "resources", "prompts"}], "all three kinds were told")


async def test_a_restored_mount_that_lacks_its_secret_fails_until_it_is_set(make: MakeMounts) -> None:
    mounts = make()
    mount = mounts.restore("main", plain(env={"K": "${KEY}"}))
    await until(lambda: mount.state == "failed", "failed")
    assert mount.error == "secret KEY is not in this project's vault; set it with: rootlink secrets set KEY"
    assert await mounts.environment({"KEY": "now-it-is-here"}) == ["plain"]
    assert mount.state == "ready"
    assert await call(mount, "env", name="K") == "now-it-is-here"


async def test_a_restored_mount_in_a_directory_no_longer_allowed_fails_with_words(make: MakeMounts, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    mount = make().restore("main", plain(cwd=str(tmp_path / "outside")))
    await until(lambda: mount.state == "failed", "failed")
    assert "--allow-path" in (mount.error or "")


async def test_a_changed_secret_restarts_only_who_uses_it(make: MakeMounts) -> None:
    mounts = make(secrets={"A": "first-a", "B": "first-b"})
    user = await mounts.add("main", plain("user", env={"A": "${A}"}))
    other = await mounts.add("main", plain("other", env={"B": "${B}"}))
    pids = json.loads(await call(other, "children"))[1]
    assert await mounts.environment({"A": "second-a", "B": "first-b", "C": "new"}) == ["user"]
    assert await call(user, "env", name="A") == "second-a"
    assert json.loads(await call(other, "children"))[1] == pids
    assert await mounts.environment({"A": "second-a", "B": "first-b"}) == []


async def test_a_secret_taken_away_takes_its_mount_down_with_words(make: MakeMounts) -> None:
    mounts = make(secrets={"A": "first-a"})
    mount = await mounts.add("main", plain(env={"A": "${A}"}))
    assert await mounts.environment({}) == ["plain"]
    await until(lambda: mount.state == "failed", "failed")
    with pytest.raises(Unavailable, match="secret A is not in this project's vault"):
        await call(mount, "echo")


async def test_a_restart_that_fails_says_why_and_is_tried_again(make: MakeMounts) -> None:
    clock = StillClock()
    mounts = make(clock=clock)
    mount = await mounts.add("main", plain())
    mount.spec = msgspec.structs.replace(mount.spec, args=["-S", "-c", "import os; os.write(2, b'no luck\\n'); os._exit(9)"])
    with pytest.raises(UpstreamFailed, match="plain ended with exit code 9 before it answered initialize: no luck"):
        await mounts.restart("main", "plain")
    await until(lambda: mount.state == "backoff", "it is tried again")
    assert len(mount.catalogue.tools) == 16
    assert mount.logs() == ["no luck"]


async def test_a_hung_mount_costs_the_others_nothing(make: MakeMounts) -> None:
    """R7."""
    mounts = make()
    adding = asyncio.create_task(mounts.add("main", hostile("never_init", timeout_secs=600)))
    began = asyncio.get_running_loop().time()
    other = await mounts.add("main", plain())
    assert await call(other, "add", a=1, b=1) == "2"
    assert [mount.name for mount in mounts.list("main")] == ["plain"]
    assert asyncio.get_running_loop().time() - began < 2
    with pytest.raises(NotFound):
        mounts.get("main", "hostile")
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding


async def test_an_add_whose_caller_went_away_leaves_nothing(make: MakeMounts, tmp_path: Path) -> None:
    mounts, before = make(), tree()
    adding = asyncio.create_task(mounts.add("main", hostile("never_init")))
    await until(lambda: tree() != before, "the child runs")
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert tree() == before
    assert not (tmp_path / "mounts" / "main" / "hostile").exists()
    await mounts.add("main", plain("hostile"))


async def test_a_mount_removed_while_it_restarts_stays_removed(make: MakeMounts) -> None:
    mounts, before = make(secrets={"A": "1"}), tree()
    await mounts.add("main", plain(env={"A": "${A}"}))
    changing = asyncio.create_task(mounts.environment({"A": "2"}))
    await asyncio.sleep(0)
    assert await mounts.remove("main", "plain")
    await changing
    assert tree() == before


async def test_all_are_stopped_at_the_same_time_and_in_time(make: MakeMounts) -> None:
    """R8."""
    mounts, before = make(), tree()
    await asyncio.gather(*(mounts.add("main", hostile("ignores_term", name=f"deaf{number}")) for number in range(5)))
    began = asyncio.get_running_loop().time()
    await mounts.close()
    assert asyncio.get_running_loop().time() - began < 6
    assert tree() == before
    with pytest.raises(Unavailable, match="the engine is stopping"):
        await mounts.add("main", plain())
