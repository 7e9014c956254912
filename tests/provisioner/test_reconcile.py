from __future__ import annotations

import asyncio

import pytest

from rootlink.errors import Unavailable
from rootlink.provisioner.reconcile import Reconciler
from rootlink.wire.engine import InstallEvent
from tests.provisioner.conftest import Opens
from tests.provisioner.stage import Stage, until


async def story(reconciler: Reconciler, connection: str) -> list[InstallEvent]:
    async with asyncio.timeout(10):
        return [event async for event in reconciler.install(connection).story()]


def told(events: list[InstallEvent]) -> list[str]:
    return [
        f"step {event.step.state}" if event.step else "done" if event.done else f"failed {(event.failed or {})['code']}"
        for event in events
    ]


async def test_a_connection_is_installed_and_told_as_it_happens(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project, token="t0ken-value")
    async with provisioner() as one:
        events = await story(one.reconciler, row.id)
        assert told(events) == ["step running", "step done", "done"]
        assert events[-1].done is not None and events[-1].done.tools == ["memory__one", "memory__two"]
        kept = stage.store.connections.get(project, "memory")
        assert (kept.state, kept.tools, kept.error) == ("connected", ["memory__one", "memory__two"], None)
        assert [(step["step"], step["state"]) for step in kept.steps] == [(one, "done") for one in ("seal", "egress", "install")]


async def test_a_running_engine_has_the_new_secret_before_the_install(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        row = stage.connect(project, token="t0ken-value")
        await story(one.reconciler, row.id)
        assert stage.journal(project, "put") == [["put", row.id, ["TOKEN"]]]


async def test_a_failed_install_leaves_nothing(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "old-value")
    before = stage.store.secrets.get(project, "TOKEN")
    async with provisioner() as one:
        await one.engines.ensure(project)
        stage.knobs(project, install="fail")
        row = stage.connect(project, token="new-value")
        events = await story(one.reconciler, row.id)
        assert told(events) == ["step running", "step failed", "failed upstream_failed"]
        assert stage.store.connections.all() == [] and stage.held(project) == []
        assert stage.store.secrets.get(project, "TOKEN") == before
        assert stage.store.egress.domains(project) == []
        assert stage.journal(project, "environment")[-1] == ["environment", ["TOKEN"], []]  # and the engine knows


async def test_an_engine_that_dies_during_an_install_leaves_nothing(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, install="die")
    row = stage.connect(project)
    async with provisioner() as one:
        events = await story(one.reconciler, row.id)
        assert told(events)[-1] == "failed unavailable"
        assert stage.store.connections.all() == [] and stage.held(project) == []


async def test_an_engine_that_does_not_start_leaves_nothing(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, crash=True)
    row = stage.connect(project)
    async with provisioner() as one:
        events = await story(one.reconciler, row.id)
        assert told(events) == ["failed unavailable"] and "I can't go on" in str(events[0].failed)
        assert stage.store.connections.all() == []


async def test_an_unknown_connection_is_told(stage: Stage, provisioner: Opens) -> None:
    async with provisioner() as one:
        assert told(await story(one.reconciler, "con_000000000000")) == ["failed not_found"]


async def test_a_caller_that_goes_away_changes_nothing(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, install="hold")
    row = stage.connect(project)
    async with provisioner() as one:
        caller = asyncio.create_task(story(one.reconciler, row.id))
        await until(lambda: stage.journal(project, "put"), "it began")
        caller.cancel()
        await asyncio.wait({caller})
        stage.release(project)
        await until(lambda: stage.store.connections.get(project, "memory").state == "connected", "it was finished")


async def test_a_second_caller_hears_the_same_story(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, install="hold")
    row = stage.connect(project)
    async with provisioner() as one:
        first = asyncio.create_task(story(one.reconciler, row.id))
        await until(lambda: stage.journal(project, "put"), "it began")
        second = asyncio.create_task(story(one.reconciler, row.id))
        stage.release(project)
        assert await first == await second == await story(one.reconciler, row.id)
        assert len(stage.journal(project, "put")) == 1


async def test_installs_of_one_project_run_one_after_the_other(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    rows = [stage.connect(project, name) for name in ("a", "b", "c")]
    async with provisioner() as one:
        stories = await asyncio.gather(*(story(one.reconciler, row.id) for row in rows))
        assert all(told(events)[-1] == "done" for events in stories)
        assert stage.held(project) == sorted(row.id for row in rows)
        assert len(stage.journal(project, "spawn")) == 1


async def test_a_removed_connection_is_gone_from_the_engine_and_the_store(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project, token="t0ken-value")
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.reconciler.remove(row.id)
        assert stage.store.connections.all() == [] and stage.store.secrets.list(project) == [] and stage.held(project) == []
        assert stage.journal(project, "environment")[-1] == ["environment", [], []]
        await one.reconciler.remove(row.id)  # asking again changes nothing


async def test_a_removal_that_can_not_be_done_now_is_done_later(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.engines.stop(project)
        stage.knobs(project, crash=True)
        with pytest.raises(Unavailable):
            await one.reconciler.remove(row.id)
        assert stage.store.connections.get(project, "memory").state == "removing"
        stage.knobs(project)
        one.clock.now += 60.0
        await one.reconciler.watch()
        await until(lambda: not stage.store.connections.all(), "it is gone")
        assert stage.held(project) == []


async def test_what_no_row_wants_is_taken_away_at_the_next_start(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.engines.stop(project)
        stage.store.connections.mark_removing(row.id)
        stage.store.connections.remove(row.id)
        assert stage.held(project) == [row.id]
        await one.engines.ensure(project)
        await until(lambda: stage.held(project) == [], "the engine let go of it")


async def test_what_an_engine_lost_is_put_back(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.engines.stop(project)
        (stage.layout.engine(project) / "state.json").unlink()
        await one.engines.ensure(project)
        await until(lambda: stage.held(project) == [row.id], "it is back")


async def test_a_connected_connection_that_fails_later_is_not_undone(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project, token="t0ken-value")
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.engines.stop(project)
        (stage.layout.engine(project) / "state.json").unlink()
        stage.knobs(project, install="fail")
        await one.engines.ensure(project)
        await until(lambda: stage.store.connections.get(project, "memory").error, "the row tells")
        kept = stage.store.connections.get(project, "memory")
        assert (kept.state, kept.error, kept.tools) == ("connected", "no such package", ["memory__one", "memory__two"])
        assert len(stage.store.secrets.list(project)) == 1
        puts = len(stage.journal(project, "put"))
        for _ in range(5):
            await one.reconciler.watch()
            await asyncio.sleep(0.1)
        assert len(stage.journal(project, "put")) == puts, "what came to nothing is not tried again with every look"


async def test_an_error_of_a_mount_reaches_the_row_and_leaves_it(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = stage.connect(project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        stage.store.connections.set_state(row.id, "connected", error="it was ill")
        async with asyncio.timeout(10):
            while stage.store.connections.get(project, "memory").error is not None:
                await one.reconciler.watch()


async def test_rows_nobody_drives_are_driven(stage: Stage, provisioner: Opens) -> None:
    """The gateway died between its transaction and its call."""
    project = stage.project()
    row = stage.connect(project)
    async with provisioner() as one:
        await one.reconciler.watch()
        await until(lambda: stage.store.connections.get(project, "memory").state == "connected", "it was finished")
        assert told(await story(one.reconciler, row.id))[-1] == "done"


async def test_connecting_and_disconnecting_at_once_ends_in_a_legal_state(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        for pause in (0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.05):
            row = stage.connect(project)
            connecting = asyncio.create_task(story(one.reconciler, row.id))
            await asyncio.sleep(pause)
            await one.reconciler.remove(row.id)
            assert told(await connecting)[-1] in ("done", "failed conflict", "failed not_found")
            assert stage.store.connections.all() == [] and stage.held(project) == []


@pytest.mark.parametrize("begun", [True, False])
async def test_an_install_that_hangs_ends_when_its_connection_is_removed(stage: Stage, provisioner: Opens, begun: bool) -> None:
    project = stage.project()
    stage.knobs(project, install="hang")
    row = stage.connect(project, token="t0ken-value")
    async with provisioner() as one, asyncio.timeout(10):
        install = one.reconciler.install(row.id)
        if begun:
            await until(lambda: install.events, "the engine has begun")
        await one.reconciler.remove(row.id)
        assert told([event async for event in install.story()])[-1] == "failed not_found"
        assert stage.store.connections.all() == [] and stage.store.secrets.list(project) == [] and stage.held(project) == []
