"""The machine's settings for package registries, and a store whose packages are installed once for the whole run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rootlink.engine.packages import Packages

MEMORY = "@modelcontextprotocol/server-memory"
MEMORY_AT = f"{MEMORY}@2026.8.31"
ENTRIES = Path(__file__).resolve().parents[2] / "src" / "rootlink" / "catalog" / "entries"

MakePackages = Callable[..., Packages]


async def until(true: Callable[[], bool], secs: float = 30) -> None:
    """Polls what another process does. Raises `TimeoutError`."""
    async with asyncio.timeout(secs):
        while not true():  # another process sets no event of ours
            await asyncio.sleep(0.01)


@pytest.fixture
def environ() -> dict[str, str]:
    return dict(os.environ)  # noqa: TID251  # what the engine is handed in production: the user's settings


@pytest.fixture
def memory_lock() -> str:
    return (ENTRIES / "memory" / "package-lock.json").read_text()


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
async def make_packages(tmp_path: Path, environ: dict[str, str]) -> AsyncIterator[MakePackages]:
    """Packages on a store of the test's own, unless told. Keywords besides `store` and `cap_secs` are environment variables."""
    made: list[Packages] = []

    def make(store: Path | None = None, cap_secs: float = 120, **settings: str) -> Packages:
        packages = Packages(store or tmp_path / "store", environ={**environ, **settings}, cap_secs=cap_secs)
        made.append(packages)
        return packages

    yield make
    for packages in made:
        await packages.close()


@pytest.fixture
async def silent_registry() -> AsyncIterator[str]:
    """A server that takes every call and never answers."""
    opened: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: opened.append(writer), "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for writer in opened:
            writer.close()
