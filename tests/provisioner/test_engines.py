from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from rootlink.errors import NotFound, Unavailable
from rootlink.provisioner.launch import identity
from rootlink.provisioner.line import Line
from rootlink.wire.provisioner import EngineAddress
from tests.provisioner.conftest import Opens
from tests.provisioner.stage import Stage, until


async def call(address: EngineAddress) -> tuple[int, Any]:
    """A call as the gateway would forward it; (0, None) when the engine is not there."""
    try:
        reader, writer = await asyncio.open_unix_connection(address.socket)
    except OSError:
        return 0, None
    try:
        writer.write(f"POST /call HTTP/1.1\r\nx-rootlink-key: {address.key}\r\n\r\n".encode())
        text = await reader.read()
    except OSError:
        return 0, None
    finally:
        writer.close()
    if not text:
        return 0, None
    return int(text.split(b" ", 2)[1]), json.loads(text.partition(b"\r\n\r\n")[2])["data"]


async def test_two_hundred_first_calls_cost_one_spawn(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        addresses = await asyncio.gather(*(one.engines.ensure(project) for _ in range(200)))
        assert len({address.key for address in addresses}) == 1
        assert len(stage.journal(project, "spawn")) == 1


async def test_an_engine_gets_its_secrets_and_policy_and_almost_no_environment(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "s3cret-value")
    stage.store.egress.add(project, "api.example")
    async with provisioner() as one:
        await one.engines.ensure(project)
        process = stage.engine_process(project)
        assert process is not None
        with open(f"/proc/{process.pid}/environ", "rb") as environ, open(f"/proc/{process.pid}/cmdline", "rb") as argv:
            assert b"s3cret-value" not in environ.read() + argv.read()
    [[_, facts]] = stage.journal(project, "spawn")
    assert facts["secrets"] == {"TOKEN": "s3cret-value"}
    assert facts["allow"] == ["api.example"]
    assert set(facts["environ"]) <= {"PATH", "LANG", "LC_CTYPE"}
    assert b"s3cret-value" not in b"".join(path.read_bytes() for path in stage.home.rglob("*.log"))


async def test_a_secret_that_does_not_open_is_left_out_and_named(stage: Stage, provisioner: Opens) -> None:
    project, other = stage.project("one"), stage.project("two")
    stage.secret(project, "GOOD", "good-value")
    sealed_elsewhere = stage.sealer.seal(other, "BAD", 1, "bad-value")
    stage.store.secrets.put(project, "BAD", lambda version: sealed_elsewhere)
    async with provisioner() as one:
        await one.engines.ensure(project)
        error = (await one.engines.view(project)).error
        assert error is not None and "BAD" in error and "GOOD" not in error and "bad-value" not in error
    assert stage.journal(project, "spawn")[0][1]["secrets"] == {"GOOD": "good-value"}


async def test_the_view_tells_of_a_stopped_engine_too(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        before = await one.engines.view(project)
        assert (before.state, before.pid, before.files) == ("stopped", None, str(stage.layout.files(project)))
        assert stage.layout.files(project).is_dir()
        await one.engines.ensure(project)
        running = await one.engines.view(project)
        assert running.state == "running" and running.pid and running.memory_bytes == 1 << 20 and running.started_at
        row = stage.store.engines.get(project)
        assert row is not None and (row.state, row.pid, row.generation) == ("running", running.pid, 1)
        assert (await one.engines.stop(project)).state == "stopped"
        assert not identity.identify(running.pid)


async def test_an_unknown_project_has_no_engine(stage: Stage, provisioner: Opens) -> None:
    stage.project("one")
    async with provisioner() as one:
        for unknown in ("prj_000000000000", "one", "../../etc"):
            with pytest.raises(NotFound):
                await one.engines.ensure(unknown)


async def test_a_failing_start_is_not_tried_again_before_its_time(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, crash=True)
    async with provisioner() as one:
        with pytest.raises(Unavailable, match="I can't go on"):
            await one.engines.ensure(project)
        with pytest.raises(Unavailable, match=r"next try is in 1 s"):
            await one.engines.ensure(project)
        assert (await one.engines.view(project)).state == "failed"
        for _ in range(60):
            one.clock.now += 1.0
            with pytest.raises(Unavailable):
                await one.engines.ensure(project)
        assert len(stage.journal(project, "spawn")) <= 7  # the first and six in a minute (SECURITY-FIGURES R5)
        stage.knobs(project)
        one.clock.now += 30.0
        await one.engines.ensure(project)
        view = await one.engines.view(project)
        assert (view.state, view.error) == ("running", None)


async def test_a_restart_asked_for_by_a_person_does_not_wait(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, crash=True)
    async with provisioner() as one:
        with pytest.raises(Unavailable):
            await one.engines.ensure(project)
        stage.knobs(project)
        assert (await one.engines.restart(project)).state == "running"


async def test_a_killed_engine_starts_again_with_the_next_call(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        first = await one.engines.ensure(project)
        process = stage.engine_process(project)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not identity.alive(process), "it is gone")
        second = await one.engines.ensure(project)
        assert second.generation == first.generation + 1 and second.key != first.key
        assert (await call(second))[0] == 200


async def test_a_killed_engine_is_noticed_and_told(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        process = stage.engine_process(project)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not identity.alive(process), "it is gone")
        await one.engines.poll()
        row = stage.store.engines.get(project)
        assert row is not None and row.state == "stopped" and row.pid is None and "SIGKILL" in str(row.error)
        assert not stage.layout.record(project).exists()


async def test_an_idle_engine_is_stopped_and_a_used_one_is_not(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner(idle_stop=0.3) as one:
        address = await one.engines.ensure(project)
        await call(address)
        await one.engines.poll()
        assert (await one.engines.view(project)).state == "running"
        await asyncio.sleep(0.35)
        await one.engines.poll()
        view = await one.engines.view(project)
        assert (view.state, view.error) == ("stopped", None)
        assert not list(stage.runtime.glob("*/*.sock"))


async def test_no_call_is_lost_while_idle_engines_are_stopped(stage: Stage, provisioner: Opens) -> None:
    """Each call is asked again when it was refused or not taken, as the gateway does; none may need more than a few tries."""
    project = stage.project()
    async with provisioner(idle_stop=0.001) as one:
        tries: list[int] = []

        def enough() -> bool:
            return len(tries) >= 50 and len(stage.journal(project, "spawn")) >= 5

        async def caller(pause: float) -> None:
            while not enough():
                attempt = 1
                while (await call(await one.engines.ensure(project)))[0] != 200:
                    attempt += 1
                tries.append(attempt)
                await asyncio.sleep(pause)

        async def poller() -> None:
            while not enough():
                await one.engines.poll()
                await asyncio.sleep(0.001)

        async with asyncio.timeout(30):
            await asyncio.gather(caller(0.011), caller(0.017), poller())
        assert max(tries) <= 3


async def test_what_an_engine_refused_reaches_the_store_once(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await call(await one.engines.ensure(project))
        await one.engines.pull_decisions(project)
        await one.engines.pull_decisions(project)
        assert [(one.host, one.count) for one in stage.store.decisions.list(project)] == [("evil.example", 1)]


async def test_decisions_wait_for_a_store_that_can_not_take_them(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()

    class Full:
        """A store's decisions, on a full disk."""

        def record(self, project: str, observed: Any) -> None:
            raise Unavailable("the disk is full")

    async with provisioner() as one:
        await call(await one.engines.ensure(project))
        kept, stage.store.decisions = stage.store.decisions, Full()  # type: ignore[assignment]
        await one.engines.pull_decisions(project)
        stage.store.decisions = kept
        await one.engines.pull_decisions(project)
        assert len(stage.store.decisions.list(project)) == 1


async def test_a_refresh_reaches_a_running_engine_and_starts_none(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "old-value")
    async with provisioner() as one:
        assert await one.engines.refresh(project) == []
        assert stage.journal(project, "spawn") == []
        await one.engines.ensure(project)
        stage.secret(project, "TOKEN", "new-value")
        stage.store.egress.add(project, "new.example")
        assert await one.engines.refresh(project) == ["TOKEN"]
        assert stage.journal(project, "environment")[-1] == ["environment", ["TOKEN"], ["new.example"]]


async def test_a_change_that_did_not_get_through_is_pushed_again_until_it_has(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        await one.engines.poll()
        assert stage.journal(project, "environment") == []  # nothing changed, nothing is pushed
        stage.knobs(project, environment="refuse")
        stage.secret(project, "LATE", "late-value")
        stage.store.egress.add(project, "late.example")
        with pytest.raises(Unavailable):
            await one.engines.refresh(project)
        await one.engines.poll()
        await until(lambda: len(stage.journal(project, "environment refused")) == 2, "it was tried again")
        stage.knobs(project)

        async def told() -> bool:
            await one.engines.poll()
            return bool(stage.journal(project, "environment"))

        deadline = asyncio.get_running_loop().time() + 5.0
        while not await told():
            assert asyncio.get_running_loop().time() < deadline
        assert stage.journal(project, "environment")[-1] == ["environment", ["LATE"], ["late.example"]]
        pushes = len(stage.journal(project, "environment"))
        await until(lambda: not one.engines._seats[project].pushing.locked(), "the answer is in")
        await one.engines.poll()
        await one.engines.poll()
        assert len(stage.journal(project, "environment")) == pushes


async def test_a_change_nobody_told_of_reaches_the_engine_with_the_next_poll(stage: Stage, provisioner: Opens) -> None:
    """The gateway could not reach us."""
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        stage.secret(project, "LATE", "late-value")
        await one.engines.poll()
        await until(lambda: stage.journal(project, "environment"), "it was told")


async def test_a_change_made_during_a_start_reaches_the_engine(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        starting = asyncio.create_task(one.engines.ensure(project))
        await until(lambda: stage.layout.record(project).exists(), "it is starting")
        stage.secret(project, "LATE", "late-value")
        assert await one.engines.refresh(project) == ["LATE"]
        await starting


async def test_a_caller_that_goes_away_does_not_break_the_start_off(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        caller = asyncio.create_task(one.engines.ensure(project))
        await until(lambda: stage.layout.record(project).exists(), "it is starting")
        caller.cancel()
        await asyncio.wait({caller})
        await one.engines.ensure(project)
        assert len(stage.journal(project, "spawn")) == 1


async def test_a_deleted_project_leaves_nothing(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        process = stage.engine_process(project)
        await one.engines.delete(project)
        assert process is not None and not identity.alive(process)
        assert not stage.layout.project(project).exists() and not stage.layout.log(project).exists()


async def test_an_engine_of_a_project_deleted_behind_our_back_is_ended(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        process = stage.engine_process(project)
        stage.store.projects.delete(project)
        await one.engines.poll()
        assert process is not None and not identity.alive(process)
        with pytest.raises(NotFound):
            await one.engines.ensure(project)


async def test_a_running_engine_is_adopted_and_told_what_changed_meanwhile(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner(leave=True) as one:
        before = await one.engines.ensure(project)
    stage.secret(project, "LATE", "late-value")
    async with provisioner() as two:
        assert await two.engines.ensure(project) == before
        assert len(stage.journal(project, "spawn")) == 1
        await until(lambda: stage.journal(project, "environment"), "it was told")


async def test_rows_of_engines_that_died_while_nobody_looked_are_put_right(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner(leave=True) as one:
        await one.engines.ensure(project)
    process = stage.engine_process(project)
    assert process is not None
    identity.end([process], term=0.0)
    async with provisioner():
        row = stage.store.engines.get(project)
        assert row is not None and (row.state, row.pid) == ("stopped", None)
        assert not stage.layout.record(project).exists() and not list(stage.runtime.glob("*/*.sock"))


async def test_an_engine_that_stops_answering_is_ended(stage: Stage, provisioner: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    project = stage.project()
    monkeypatch.setattr("rootlink.provisioner.engines.WEDGED", 2)

    async def soon(self: Line, *, within: float = 0.1) -> Any:
        return await self._ask("GET", "status", dict[str, Any], within=0.1)

    async with provisioner() as one:
        await one.engines.ensure(project)
        process = stage.engine_process(project)
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(Line, "status", soon)
        for _ in range(2):
            await one.engines.poll()
        view = await one.engines.view(project)
        assert view.state == "stopped" and "did not answer" in str(view.error)
        assert not identity.alive(process)


async def test_nothing_is_started_while_stopping(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.close()
        with pytest.raises(Unavailable, match="stopping"):
            await one.engines.ensure(project)


async def test_the_store_being_away_does_not_keep_an_engine_from_starting(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()

    class Away:
        def put(self, row: Any) -> Any:
            raise Unavailable("the disk is full")

    async with provisioner() as one:
        await one.engines.view(project)
        kept, stage.store.engines = stage.store.engines, Away()  # type: ignore[assignment]
        assert (await call(await one.engines.ensure(project)))[0] == 200
        stage.store.engines = kept
