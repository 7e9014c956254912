"""What is told while nothing new happens."""

from __future__ import annotations

import asyncio

import pytest

from rootlink.engine.ticking import ticking
from rootlink.wire.mounts import Step

WAITING = Step("install", "running", "waiting for its turn")


class Heard(list[Step]):
    def __init__(self) -> None:
        self.came = asyncio.Event()

    def __call__(self, step: Step) -> None:
        self.append(step)
        self.came.set()

    async def more(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self) < count:
                self.came.clear()
                await self.came.wait()


async def test_a_step_that_goes_on_is_told_again_with_its_seconds() -> None:
    heard = Heard()
    async with ticking(heard, WAITING, every=0.01) as tell:
        tell(Step("install", "running", "installing 9 packages"))
        await heard.more(3)
        tell(Step("install", "running", "starting"))
        await heard.more(5)
    assert heard[0].detail == "installing 9 packages"
    assert heard[1].detail.startswith("installing 9 packages (")
    assert heard[-1].detail.startswith("starting (")
    assert all(step.state == "running" for step in heard)


async def test_what_waits_before_anything_was_told_says_so() -> None:
    heard = Heard()
    async with ticking(heard, WAITING, every=0.01):
        await heard.more(2)
    assert heard[0].detail.startswith("waiting for its turn (")


async def test_nothing_is_told_after_the_last_step() -> None:
    heard = Heard()
    async with ticking(heard, WAITING, every=60) as tell:
        tell(Step("install", "done", "9 tools"))
        await asyncio.sleep(0)
    async with ticking(heard, Step("install", "done"), every=0.001):
        await asyncio.sleep(0.02)
    assert [step.state for step in heard] == ["done"]


async def test_who_waits_for_a_person_to_sign_in_is_not_hurried() -> None:
    heard = Heard()
    async with ticking(heard, WAITING, every=0.01) as tell:
        tell(Step("install", "running", "sign in", link="https://example.com/"))
        await asyncio.sleep(0.02)
    assert len(heard) == 1


async def test_what_breaks_inside_comes_out() -> None:
    with pytest.raises(ValueError, match="broken"):
        async with ticking(Heard(), WAITING):
            raise ValueError("broken")
