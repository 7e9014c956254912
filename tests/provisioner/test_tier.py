"""What engines are told of the tier in force, and the gate of their policies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rootlink.errors import Unavailable
from rootlink.provisioner.crew import Crew
from rootlink.provisioner.engines import Engines, Operator
from rootlink.provisioner.gate import GateLine
from rootlink.provisioner.launch.process import ProcessLauncher
from rootlink.wire.engine import EgressPolicy
from tests.provisioner.fake_gate import FakeGate
from tests.provisioner.stage import ENVIRON, FAKE_ENGINE, QUICK, Stage, until


@contextlib.asynccontextmanager
async def engines(stage: Stage, *, leave: bool = False, **operator: Any) -> AsyncIterator[Engines]:
    """With a line to the gate, whether there is one or not."""
    launcher = ProcessLauncher(stage.layout, FAKE_ENGINE, ENVIRON, behind=lambda config: FAKE_ENGINE, patience=QUICK)
    async with Crew() as crew:
        line = GateLine(stage.layout.gate, patience=1.0)
        crew.start(line.keep(), "gate")
        found = Engines(stage.store, launcher, stage.unsealer, stage.layout, crew, Operator(**operator), gate=line)
        await found.adopt()
        try:
            yield found
        finally:
            await crew.close()
            if leave:  # as if this provisioner had been killed
                for process in launcher._started.values():
                    process.returncode = 0
            else:
                await found.close()


def given(stage: Stage, project: str) -> Any:
    return stage.journal(project, "tier")[-1][1]


async def test_the_gate_knows_the_policy_before_the_engine_starts(stage: Stage) -> None:
    project = stage.project()
    stage.store.egress.add(project, "api.example")
    async with FakeGate().at(stage.layout.gate) as gate, engines(stage, private=("10.0.0.0/8",)) as one:
        await until(lambda: one._gate is not None and one._gate.connected, "it is connected")
        stage.knobs(project, crash=True)
        with pytest.raises(Unavailable):
            await one.ensure(project)
        [served] = [message for message in gate.heard if type(message).__name__ == "Serve"]
        assert served.policy == EgressPolicy(["api.example"], ["10.0.0.0/8"])  # type: ignore[union-attr]
        await until(lambda: not gate.served, "a start that failed is forgotten")
        stage.knobs(project)
        await one.restart(project)
        address = await one.ensure(project)
        assert gate.served[project].key == address.key
        await one.stop(project)
        await until(lambda: not gate.served, "a stopped one too")


async def test_a_host_that_was_removed_is_cut_before_the_engine_hears_of_it(stage: Stage) -> None:
    project = stage.project()
    stage.store.egress.add(project, "api.example")
    async with FakeGate().at(stage.layout.gate) as gate, engines(stage) as one:
        await one.ensure(project)
        stage.store.egress.remove(project, "api.example")
        stage.knobs(project, environment="refuse")
        with pytest.raises(Unavailable):
            await one.refresh(project)
        await until(lambda: project in gate.served and gate.served[project].policy.allow == [], "the gate has it all the same")


async def test_a_refresh_that_an_engines_restart_overtook_does_not_bring_back_the_old_key(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = stage.project()
    async with FakeGate().at(stage.layout.gate) as gate, engines(stage) as one:
        await one.ensure(project)
        reading, go_on, read = asyncio.Event(), asyncio.Event(), one._environment

        async def slow(of: str) -> Any:
            monkeypatch.setattr(one, "_environment", read)
            reading.set()
            await go_on.wait()
            return await read(of)

        monkeypatch.setattr(one, "_environment", slow)
        refreshing = asyncio.create_task(one.refresh(project))
        await reading.wait()
        await one.restart(project)
        key = (await one.ensure(project)).key
        go_on.set()
        assert await refreshing == []
        await one.traffic()  # whatever was sent before has been heard
        assert gate.served[project].key == key


async def test_an_adopted_engine_is_served_with_the_key_it_has(stage: Stage) -> None:
    project = stage.project()
    async with engines(stage, leave=True) as one:
        address = await one.ensure(project)
    async with FakeGate().at(stage.layout.gate) as gate, engines(stage):
        await until(lambda: project in gate.served, "it was told")
        assert gate.served[project].key == address.key


async def test_the_registries_are_asked_once_and_reach_gate_and_engine(stage: Stage) -> None:
    one_project, two_project = stage.project("one"), stage.project("two")
    asked = []

    def registries() -> EgressPolicy:
        asked.append(1)
        return EgressPolicy(["registry.example:4873", "files.example"], ["0.0.0.0/0"])

    async with FakeGate().at(stage.layout.gate) as gate, engines(stage, registries=registries) as one:
        await asyncio.gather(one.ensure(one_project), one.ensure(two_project))
        await until(lambda: len(gate.served) == 2, "both are served")
        assert {served.packages.allow[0] for served in gate.served.values()} == {"registry.example:4873"}
        assert len(asked) == 1 and given(stage, one_project)["package_ports"] == [4873]


async def test_registries_nobody_can_tell_keep_no_engine_from_starting(stage: Stage) -> None:
    project = stage.project()
    asked: list[int] = []

    def registries() -> EgressPolicy:
        asked.append(1)
        if len(asked) == 1:
            raise OSError("no such tool")
        return EgressPolicy(["registry.example"])

    async with FakeGate().at(stage.layout.gate) as gate, engines(stage, registries=registries) as one:
        await one.ensure(project)
        await one.refresh(project)
        await until(lambda: gate.served[project].packages.allow == ["registry.example"], "asked again, it is told")


async def test_what_this_machine_can_not_is_not_claimed(stage: Stage) -> None:
    project = stage.project()
    asked: list[int] = []

    def probe() -> str:
        asked.append(1)
        return "user namespaces are refused"

    async with engines(stage, sandbox="kernel", probe=probe) as one:
        view = await one.view(project)
        assert view.sandbox == "advisory" and view.no_stdio is not None
        assert view.no_stdio.startswith("user namespaces are refused; choose --sandbox=advisory")
        await one.ensure(project)
        assert given(stage, project)["sandbox"] == "advisory" and given(stage, project)["no_stdio"] == view.no_stdio
        assert len(asked) == 1


@pytest.mark.parametrize(("asked", "in_force"), [("kernel", "kernel"), ("advisory", "advisory")])
async def test_the_tier_asked_for_is_in_force_where_it_works(stage: Stage, asked: Any, in_force: str) -> None:
    project = stage.project()
    async with engines(stage, sandbox=asked) as one:
        await one.ensure(project)
        view = await one.view(project)
        assert (view.sandbox, view.no_stdio) == (in_force, None)
        told = given(stage, project)
        assert (told["sandbox"], told["no_stdio"], told["doors"]) == (in_force, "", str(stage.layout.doors))


async def test_an_engine_of_another_tier_is_not_adopted(stage: Stage) -> None:
    project = stage.project()
    async with engines(stage, leave=True) as one:
        await one.ensure(project)
    before = stage.engine_process(project)
    async with engines(stage, sandbox="kernel") as two:
        assert (await two.view(project)).state == "stopped" and stage.engine_process(project) is None
        await two.ensure(project)
        assert stage.engine_process(project) != before and given(stage, project)["sandbox"] == "kernel"


async def test_the_view_tells_what_went_through_the_gate(stage: Stage) -> None:
    project = stage.project()
    async with FakeGate().at(stage.layout.gate), engines(stage) as one:
        assert (await one.view(project)).egress is None
        await one.ensure(project)
        await one.refresh(project)
        egress = (await one.view(project)).egress
        assert egress is not None and (egress.doors, egress.open, egress.refused, egress.down) == (2, 1, 3, 20)
        assert (await one.traffic()).connections == 7


async def test_children_that_are_no_engines_live_while_the_launcher_stands_aside(stage: Stage) -> None:
    """What is asked of npm and uv is asked by children of the provisioner, which ends every child it does not know."""
    launcher = ProcessLauncher(stage.layout, FAKE_ENGINE, ENVIRON, sweeping=True, patience=QUICK)
    process = await asyncio.create_subprocess_exec("sleep", "300")
    with launcher.aside():
        launcher.sweep()
        assert process.returncode is None
        process.kill()
        await process.wait()
