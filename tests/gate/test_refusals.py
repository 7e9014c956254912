from __future__ import annotations

import asyncio

from rootlink.egress.policy import Decision, denied
from rootlink.gate.refusals import BURST, KINDS, TOGETHER_SECS, Refusals
from rootlink.wire.gate import Refusal


def refused(host: str = "evil.example", port: int = 443) -> Decision:
    return denied("not_in_allowlist", host, port, f"host '{host}' is not in this project's outbound allowlist")


async def flushed(told: list[Refusal], total: int) -> None:
    async with asyncio.timeout(5):
        while sum(one.count for one in told) < total:
            await asyncio.sleep(TOGETHER_SECS / 5)


async def test_a_refusal_is_told_at_once_with_its_words() -> None:
    told: list[Refusal] = []
    Refusals(7, "github", told.append, lambda: False).add(refused())
    (one,) = told
    assert (one.door, one.name, one.host, one.port, one.reason, one.count) == (
        7,
        "github",
        "evil.example",
        443,
        "not_in_allowlist",
        1,
    )
    assert one.message.startswith("egress blocked: host 'evil.example'")


async def test_each_attempt_is_counted_even_in_a_flood() -> None:
    told: list[Refusal] = []
    refusals = Refusals(1, "x", told.append, lambda: False)
    for _ in range(5000):
        refusals.add(refused())
    await flushed(told, 5000)
    assert sum(one.count for one in told) == 5000
    assert len(told) < BURST + 20


async def test_a_flood_of_different_names_does_not_fill_memory() -> None:
    told: list[Refusal] = []
    refusals = Refusals(1, "x", told.append, lambda: False)
    for n in range(5000):
        refusals.add(refused(f"n{n}.example"))
    assert len(refusals._waiting) <= KINDS
    await flushed(told, 5000)
    assert sum(one.count for one in told) == 5000


async def test_an_engine_that_does_not_read_is_told_later() -> None:
    told: list[Refusal] = []
    congested = True
    refusals = Refusals(1, "x", told.append, lambda: congested)
    refusals.add(refused())
    await asyncio.sleep(2 * TOGETHER_SECS)
    assert told == []
    congested = False
    await flushed(told, 1)


async def test_what_waits_is_told_at_the_end() -> None:
    told: list[Refusal] = []
    refusals = Refusals(1, "x", told.append, lambda: False)
    for _ in range(int(BURST) + 5):
        refusals.add(refused())
    refusals.close()
    assert sum(one.count for one in told) == BURST + 5
