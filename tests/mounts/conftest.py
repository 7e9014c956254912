from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rootlink.egress.policy import Decision
from rootlink.engine.mounts import launch
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.outbound import Outbound
from rootlink.wire.engine import EgressPolicy
from tests.mounts.ground import Installed

MakeMounts = Callable[..., Mounts]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeMounts]:
    """Makes a `Mounts` in the test's own folder; every one is closed at the end. `allow`: hosts, on loopback."""
    made: list[tuple[Mounts, Outbound]] = []
    (tmp_path / "files").mkdir()

    def mounts(*, allow: list[str] | None = None, refused: list[Decision] | None = None, **members: Any) -> Mounts:
        def record(connection: str, decision: Decision) -> None:
            if refused is not None and not decision.allowed:
                refused.append(decision)

        outbound = Outbound(EgressPolicy(allow=allow or [], private=["127.0.0.0/8"]), record)
        given: dict[str, Any] = {
            "launch": launch.probe(),
            "packages": Installed(),
            "files_dir": tmp_path / "files",
            "mounts_dir": tmp_path / "mounts",
            "secrets": {},
            "allow_paths": [],
            "on_change": lambda ws, kinds: None,
        }
        one = Mounts(outbound=outbound, **{**given, **members})
        made.append((one, outbound))
        return one

    yield mounts
    for one, outbound in made:
        await one.close()
        await outbound.close()
