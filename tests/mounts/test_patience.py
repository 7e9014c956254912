"""How long a call may take that makes itself heard."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from rootlink.engine.mounts import patience
from rootlink.engine.mounts.patience import PROGRESS, Patient
from tests.harness.calls import Told


async def test_progress_gives_a_call_its_time_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST", 100.0)
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(60) as deadline:
        began = now()
        call = Patient(Told(), deadline, 60)
        call.tell(PROGRESS, Raw(b"{}"))
        when = deadline.when()
        assert when is not None and when - began >= 60
        monkeypatch.setattr(call, "_latest", began + 5)
        call.tell(PROGRESS, Raw(b"{}"))
        assert deadline.when() == began + 5
