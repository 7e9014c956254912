from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import uvloop

from tests.engine.ingate import InGate, gate
from tests.engine.session_client import Client, Served


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


@pytest.fixture
async def client(at: Served, http: aiohttp.ClientSession) -> Client:
    return await Client(at, http).initialize()


@pytest.fixture
async def ingate(tmp_path: Path) -> AsyncIterator[InGate]:
    async with gate(tmp_path) as one:
        yield one


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Engines run on uvloop, whose pipes and transports are its own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
