"""An update in a row is on trial until an engine holds it; whoever finds it there ends it, as the update or as what was."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from rootlink.records import Connection, Previous, Version
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Desired
from tests.provisioner.conftest import Opens, Provisioner
from tests.provisioner.stage import Stage, until


async def connected(stage: Stage, one: Provisioner, project: str) -> Connection:
    row = stage.connect(project)
    await story(one, row.id, anew=False)
    return stage.store.connections.get(project, "memory")


async def story(one: Provisioner, connection: str, *, anew: bool = True) -> list[InstallEvent]:
    async with asyncio.timeout(10):
        return [event async for event in one.reconciler.install(connection, anew=anew).story()]


def update(stage: Stage, row: Connection, argument: str, *, host: str = "new.example") -> Connection:
    """As the gateway writes it."""
    desired = msgspec.json.decode(row.desired, type=Desired)
    assert desired.mount is not None
    mount = msgspec.structs.replace(desired.mount, args=[*desired.mount.args, argument])
    body = msgspec.json.encode(msgspec.structs.replace(desired, mount=mount))
    new = Version(body, "2.0.0", row.uses, [host], row.rules)
    return stage.store.connections.update(row.id, new, was=row.desired, actor="tester")


def previous(stage: Stage, row: Connection) -> Previous | None:
    kept = stage.store.connections.by_id(row.id)
    assert kept is not None
    return None if kept.previous is None else msgspec.json.decode(kept.previous, type=Previous)


async def test_an_update_that_an_engine_holds_is_on_trial_no_more(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        row = await connected(stage, one, project)
        update(stage, row, "--new")
        assert (await story(one, row.id))[-1].done is not None
        kept = stage.store.connections.get(project, "memory")
        before = previous(stage, row)
        assert (kept.version, kept.state, kept.error) == ("2.0.0", "connected", None)
        assert before is not None
        assert (before.trying, before.version.desired) == (False, row.desired)
        assert stage.store.egress.domains(project) == ["new.example"]


async def test_an_update_that_no_engine_can_hold_is_gone_without_a_trace(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        row = await connected(stage, one, project)
        stage.knobs(project, refuses="--bad")
        update(stage, row, "--bad")
        failed = (await story(one, row.id))[-1].failed
        assert failed == {"code": "upstream_failed", "message": "no such package"}
        kept = stage.store.connections.get(project, "memory")
        assert (kept.desired, kept.version, kept.hosts, kept.previous) == (row.desired, row.version, row.hosts, None)
        assert (kept.state, kept.error) == ("connected", None)
        assert stage.store.egress.domains(project) == ["api.example"]


async def test_an_update_that_needs_a_sign_in_waits_for_nobody_and_says_so(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        row = await connected(stage, one, project)
        stage.knobs(project, install="sign-in")
        update(stage, row, "--new")
        async with asyncio.timeout(10):
            failed = (await story(one, row.id))[-1].failed
        assert failed is not None and "rootlink sign-in memory" in failed["message"]
        assert stage.store.connections.get(project, "memory").desired == row.desired


async def test_an_update_that_fails_leaves_the_one_before_it_to_go_back_from(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    async with provisioner() as one:
        row = await connected(stage, one, project)
        first = update(stage, row, "--new")
        await story(one, row.id)
        stage.knobs(project, refuses="--bad")
        update(stage, first, "--bad")
        await story(one, row.id)
        before = previous(stage, row)
        assert before is not None
        assert before.version.desired == row.desired
        assert stage.store.connections.get(project, "memory").desired == first.desired


@pytest.mark.parametrize("bad", [False, True])
async def test_an_update_nobody_told_the_provisioner_of_is_found_and_ended(stage: Stage, provisioner: Opens, bad: bool) -> None:
    project = stage.project()
    async with provisioner() as one:
        row = await connected(stage, one, project)
        stage.knobs(project, refuses="--bad")
        wanted = update(stage, row, "--bad" if bad else "--new")
        await one.reconciler.watch()

        def ended() -> bool:
            before = previous(stage, row)
            return before is None or not before.trying

        await until(ended, "the update is over")
        kept = stage.store.connections.get(project, "memory")
        assert kept.desired == (row.desired if bad else wanted.desired)
