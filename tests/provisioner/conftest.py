from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rootlink.provisioner.crew import Crew
from rootlink.provisioner.engines import Engines, Operator
from rootlink.provisioner.launch.process import ProcessLauncher
from rootlink.provisioner.reconcile import Reconciler
from tests.provisioner.stage import ENVIRON, FAKE_ENGINE, QUICK, Stage


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Provisioner(NamedTuple):
    engines: Engines
    reconciler: Reconciler
    launcher: ProcessLauncher
    clock: Clock


Opens = Callable[..., AbstractAsyncContextManager[Provisioner]]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "home")
    yield stage
    stage.close()


@pytest.fixture
def provisioner(stage: Stage) -> Opens:
    """A provisioner in this process, with real fake engines; at its end every engine is stopped."""

    @contextlib.asynccontextmanager
    async def open_one(*, leave: bool = False, **operator: Any) -> AsyncIterator[Provisioner]:
        clock = Clock()
        launcher = ProcessLauncher(stage.layout, FAKE_ENGINE, ENVIRON, patience=QUICK)
        async with Crew() as crew:
            engines = Engines(stage.store, launcher, stage.unsealer, stage.layout, crew, Operator(**operator), clock=clock)
            reconciler = Reconciler(stage.store, engines, crew, clock=clock)
            await engines.adopt()
            try:
                yield Provisioner(engines, reconciler, launcher, clock)
            finally:
                await crew.close()
                if leave:  # as if this provisioner had been killed
                    for process in launcher._started.values():
                        process.returncode = 0
                else:
                    await engines.close()

    return open_one
