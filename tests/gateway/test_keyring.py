"""How the store is asked for keys: once for all who want to know the same at the same time, and never for who comes later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from rootlink.errors import Unauthorized, Unavailable
from rootlink.gateway.auth import KeyRing, digest, new_key
from rootlink.gateway.guard import Head
from rootlink.gateway.settings import GatewaySettings
from rootlink.records import Key
from tests.gateway.conftest import ADMIN

SETTINGS = GatewaySettings(ADMIN, "http://127.0.0.1:1")
KEY = new_key()
HELD = Key("k", "default", "held", KEY[:12], ["use"], "2026-11-23T00:00:00Z")


class Slow:
    """A store of keys that answers when it is told to, with what it had when it was asked."""

    def __init__(self) -> None:
        self.keys = {digest(KEY): HELD}
        self.asked: list[int] = []  # the threads it was asked in
        self.go = threading.Event()
        self.broken = False

    def find(self, hash: bytes) -> Key | None:
        found = self.keys.get(hash)
        self.asked.append(threading.get_ident())
        assert self.go.wait(10)
        if self.broken:
            raise Unavailable("gone")
        return found

    def create(self, project: str, *, name: str, scopes: Sequence[str] | None, hash: bytes, prefix: str) -> Key:
        raise NotImplementedError

    def list(self, project: str) -> list[Key]:
        raise NotImplementedError

    def revoke(self, project: str, id: str) -> Key:
        raise NotImplementedError


def carrying(key: str) -> Head:
    return Head([], {b"host": b"x", b"authorization": f"Bearer {key}".encode()})


async def begun(keys: Slow, count: int) -> None:
    async with asyncio.timeout(5):
        while len(keys.asked) < count:
            await asyncio.sleep(0.005)


async def test_who_asks_at_the_same_time_is_answered_by_one_look_up() -> None:
    keys = Slow()
    ring = KeyRing(keys, SETTINGS)
    waiting = [asyncio.create_task(ring.holder(carrying(KEY))) for _ in range(50)]
    await begun(keys, 1)
    keys.go.set()
    assert await asyncio.gather(*waiting) == [HELD] * 50
    assert len(keys.asked) == 1


async def test_who_goes_away_takes_nobodys_answer_along() -> None:
    keys = Slow()
    ring = KeyRing(keys, SETTINGS)
    first, second = (asyncio.create_task(ring.holder(carrying(KEY))) for _ in range(2))
    await begun(keys, 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    keys.go.set()
    assert await second == HELD
    assert await ring.holder(carrying(KEY)) == HELD
    assert len(keys.asked) == 1


async def test_who_asks_after_a_revocation_is_not_told_what_was_found_before_it() -> None:
    keys = Slow()
    ring = KeyRing(keys, SETTINGS)
    before = asyncio.create_task(ring.holder(carrying(KEY)))
    await begun(keys, 1)
    keys.keys.clear()
    ring.drop(lambda key: True)
    after = asyncio.create_task(ring.holder(carrying(KEY)))
    await begun(keys, 2)
    keys.go.set()
    assert await before == HELD
    with pytest.raises(Unauthorized):
        await after
    with pytest.raises(Unauthorized):
        await ring.holder(carrying(KEY))


async def test_a_store_that_failed_is_asked_again() -> None:
    keys = Slow()
    ring = KeyRing(keys, SETTINGS)
    keys.broken = True
    keys.go.set()
    outcomes = await asyncio.gather(*(ring.holder(carrying(KEY)) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    keys.broken = False
    assert await ring.holder(carrying(KEY)) == HELD
