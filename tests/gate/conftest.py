from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gate runs on uvloop, whose clock and sockets are its own."""
    return {"uvloop": uvloop.new_event_loop}
