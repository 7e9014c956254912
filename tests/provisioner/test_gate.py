"""The line to the gate: whatever happens to either end, the gate comes to have what was asked last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rootlink.errors import Unavailable
from rootlink.provisioner.gate import GateLine
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Forget
from tests.provisioner.fake_gate import FakeGate
from tests.provisioner.stage import until

ONE, TWO = EgressPolicy(allow=["one.example"]), EgressPolicy(allow=["two.example"])
REGISTRY = EgressPolicy(allow=["registry.example"], private=["0.0.0.0/0"])


@contextlib.asynccontextmanager
async def line(path: Path, patience: float = 2.0) -> AsyncIterator[GateLine]:
    line = GateLine(path, rate=1000, patience=patience)
    keeping = asyncio.create_task(line.keep())
    try:
        yield line
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_what_is_served_is_in_force_when_serve_returns(tmp_path: Path) -> None:
    async with FakeGate().at(tmp_path / "g") as gate, line(tmp_path / "g") as one:
        await until(lambda: one.connected, "it is connected")
        await one.serve("prj_1", "k1", ONE, REGISTRY)
        served = gate.served["prj_1"]
        assert (served.key, served.policy, served.packages, served.rate) == ("k1", ONE, REGISTRY, 1000)
        one.forget("prj_1")
        await until(lambda: not gate.served, "it is forgotten")


async def test_a_gate_that_is_not_there_keeps_nobody_waiting_and_is_told_when_it_comes(tmp_path: Path) -> None:
    async with line(tmp_path / "g") as one:
        started = time.monotonic()
        await one.serve("prj_1", "k1", ONE, REGISTRY)
        await one.serve("prj_1", "k1", TWO, REGISTRY)
        await one.serve("prj_2", "k2", ONE, REGISTRY)
        one.forget("prj_2")
        assert time.monotonic() - started < 0.5
        async with FakeGate().at(tmp_path / "g") as gate:
            await until(lambda: len(gate.heard) == 2, "it was told")
            assert list(gate.served) == ["prj_1"] and gate.served["prj_1"].policy == TWO


async def test_a_restarted_gate_is_told_everything_again(tmp_path: Path) -> None:
    async with line(tmp_path / "g") as one:
        for _ in range(3):
            async with FakeGate().at(tmp_path / "g") as gate:
                await until(lambda: one.connected, "it is connected")
                await one.serve("prj_1", "k1", ONE, REGISTRY)
                await until(lambda gate=gate: gate.served, "it was told")  # type: ignore[misc]
            await until(lambda: not one.connected, "it is noticed")
        await one.serve("prj_2", "k2", TWO, REGISTRY)
        async with FakeGate().at(tmp_path / "g") as gate:
            await until(lambda: len(gate.served) == 2, "both were told")
            assert (gate.served["prj_1"].key, gate.served["prj_2"].key) == ("k1", "k2")


async def test_what_was_to_be_forgotten_while_the_line_was_cut_is_forgotten_after(tmp_path: Path) -> None:
    async with FakeGate().at(tmp_path / "g") as gate, line(tmp_path / "g") as one:
        await until(lambda: one.connected, "it is connected")
        await one.serve("prj_1", "k1", ONE, REGISTRY)
        gate.hang_up()
        await until(lambda: not one.connected, "it is noticed")
        one.forget("prj_1")
        await until(lambda: any(isinstance(one, Forget) for one in gate.heard), "it was told")
        assert not gate.served


async def test_a_gate_that_does_not_answer_is_not_waited_for_long(tmp_path: Path) -> None:
    async with FakeGate().at(tmp_path / "g") as gate, line(tmp_path / "g", patience=0.2) as one:
        gate.slow = True
        await until(lambda: one.connected, "it is connected")
        await one.serve("prj_1", "k1", ONE, REGISTRY)
        assert [type(message).__name__ for message in gate.heard] == ["Serve"]


async def test_a_gate_that_ends_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    async with FakeGate().at(tmp_path / "g") as gate, line(tmp_path / "g", patience=30.0) as one:
        gate.slow = True
        await until(lambda: one.connected, "it is connected")
        serving = asyncio.create_task(one.serve("prj_1", "k1", ONE, REGISTRY))
        await until(lambda: gate.heard, "it was asked")
        gate.hang_up()
        await asyncio.wait_for(serving, 5.0)


async def test_the_gates_counts_are_told_or_that_there_is_none(tmp_path: Path) -> None:
    async with line(tmp_path / "g") as one:
        with pytest.raises(Unavailable, match="rootlink status"):
            await one.counts()
        async with FakeGate().at(tmp_path / "g") as gate:
            await until(lambda: one.connected, "it is connected")
            await one.serve("prj_1", "k1", ONE, REGISTRY)
            assert await one.counts() == {"prj_1": gate.counts}
