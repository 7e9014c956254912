"""What stopped engines are started for: their schedules, at the time, and by whichever provisioner there is then."""

from __future__ import annotations

import time

from rootlink.records import WakeRow
from tests.provisioner.conftest import Opens
from tests.provisioner.stage import Stage, until

HOOKS = ["ab" * 32]


async def test_what_an_engine_is_needed_for_is_written_when_it_changes_and_as_it_stops(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, wake={"due": 5.5, "hooks": HOOKS})
    async with provisioner() as one:
        await one.engines.ensure(project)
        assert stage.store.wakes.get(project) is None
        await one.engines.poll()
        assert stage.store.wakes.get(project) == WakeRow(project, 5.5, HOOKS)
        stage.knobs(project, wake={"due": 6.5})
        await one.engines.stop(project)
        assert stage.store.wakes.get(project) == WakeRow(project, 6.5, [])


async def test_it_is_written_when_someone_looks_and_so_outlives_an_engine_that_is_lost(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, wake={"due": 5.5, "hooks": HOOKS})
    async with provisioner() as one:
        await one.engines.ensure(project)
        await one.engines.view(project)
        assert stage.store.wakes.get(project) == WakeRow(project, 5.5, HOOKS)


async def test_it_is_written_at_the_end_of_the_provisioner_too(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        await one.engines.ensure(project)
        stage.knobs(project, wake={"due": 7.5})
    assert stage.store.wakes.get(project) == WakeRow(project, 7.5, [])


async def test_a_stopped_engine_is_started_a_little_before_it_is_due_and_not_earlier(stage: Stage, provisioner: Opens) -> None:
    due, later, never = (stage.project(name) for name in ("due", "later", "never"))
    stage.store.wakes.put(WakeRow(due, time.time() + 8))
    stage.store.wakes.put(WakeRow(later, time.time() + 60))
    stage.store.wakes.put(WakeRow(never, None, HOOKS))
    async with provisioner() as one:
        await one.engines.poll()
        await until(lambda: one.engines.projects() == [due], "the start of the one that is due")
        assert [stage.journal(project, "spawn") for project in (later, never)] == [[], []]


async def test_an_engine_that_does_not_start_is_not_tried_at_every_look(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, crash=True)
    stage.store.wakes.put(WakeRow(project, time.time() - 1000))
    async with provisioner() as one:
        for _ in range(3):
            await one.engines.poll()
            await until(lambda: stage.journal(project, "spawn"), "a try")
            await until(lambda: not one.engines._seats[project].lock.locked(), "its end")
        assert len(stage.journal(project, "spawn")) == 1
        one.clock.now += 2
        await one.engines.poll()
        await until(lambda: len(stage.journal(project, "spawn")) == 2, "the next try")


async def test_a_deleted_projects_engine_is_not_started(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.store.wakes.put(WakeRow(project, 1.0))
    stage.store.projects.delete(project)
    async with provisioner() as one:
        await one.engines.poll()
        assert one.engines.projects() == [] and stage.journal(project, "spawn") == []
