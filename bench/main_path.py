"""`make bench`: what the main path does besides calls (those are `hop.py`), in one run. Figures, never a pass or fail.

What each line means
- list_changed: from the moment the new server can answer (its process told us so) to the client's notice; and from the request.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.harness.instance import Instance, script

SERVER = str(ROOT / "bench" / "server.py")


def row(name: str, *cells: str) -> None:
    print(f"{name:<44}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


class Client:
    """A session client that listens."""

    def __init__(self, http: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> None:
        self._http, self._url = http, url
        self._headers = {"accept": "application/json, text/event-stream", "content-type": "application/json", **(headers or {})}

    async def start(self) -> Client:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        async with self._http.post(self._url, data=msgspec.json.encode(hello), headers=self._headers) as answer:
            self._headers["mcp-session-id"] = answer.headers["mcp-session-id"]
            await answer.read()
        note = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})
        async with self._http.post(self._url, data=note, headers=self._headers) as answer:
            await answer.read()
        return self

    async def notices(self) -> Any:
        return await self._http.get(self._url, headers=self._headers)


@contextmanager
def instance(*flags: str) -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="rootlink-bench-") as folder:
        shown = ("--allow-private", "127.0.0.0/8", "--allow-path", str(ROOT / "bench"))
        made = Instance(Path(folder) / "home", *shown, *flags).up()
        try:
            yield made
        finally:
            made.down()


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


async def changes(made: Instance, http: aiohttp.ClientSession) -> None:
    client = await Client(http, made.mcp + "/changes", {"authorization": f"Bearer {made.key}"}).start()
    notices = await client.notices()
    asked, ready = [], []
    for n in range(5):
        body = script(f"n{n}", Path(SERVER), "stdio")
        began = time.perf_counter()
        install = asyncio.ensure_future(asyncio.to_thread(made.engine, "POST", "/mcp-servers", body, ws="changes"))
        while b"tools/list_changed" not in await notices.content.readline():
            pass
        heard = time.perf_counter()
        assert (await install).status == 201
        asked.append(heard - began)
        ready.append(heard - began - own_start())
    notices.close()
    row("mount → list_changed, from the request", ms(statistics.median(asked)))
    row("mount → list_changed, less the server's start", ms(statistics.median(ready)))


def own_start() -> float:
    """What the server itself needs from spawn to its first answer, measured now, on this load."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, SERVER, "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    process.stdin.flush()
    process.stdout.readline()
    taken = time.perf_counter() - began
    process.stdin.close()
    process.wait()
    return taken


def functions(made: Instance) -> None:
    made.engine("PUT", "/functions", {"name": "warm", "code": "async (input) => input"})
    for _ in range(20):
        made.engine("POST", "/functions/warm/invoke", {"input": 1})
    runs = [made.engine("POST", "/functions/warm/invoke", {"input": 1}).data["duration_ms"] / 1000 for _ in range(200)]
    row("function, warm, at the engine", ms(statistics.median(runs)), ms(p99(runs)))
    fresh = []
    for n in range(20):
        made.engine("PUT", "/functions", {"name": f"f{n}", "code": f"async (input) => input + {n}"})
        fresh.append(made.engine("POST", f"/functions/f{n}/invoke", {"input": 1}).data["duration_ms"] / 1000)
    row("function, first call of a new one, at the engine", ms(statistics.median(fresh)), ms(max(fresh)))


def starts() -> None:
    """`rootlink up` to ready, then the first request: a cold engine. And what an idle Rootlink keeps."""
    up, cold, memory = [], [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="rootlink-bench-") as folder:
            made = Instance(Path(folder) / "home")
            began = time.perf_counter()
            made.up()
            up.append(time.perf_counter() - began)
            try:
                made.key  # noqa: B018 - made before the clock starts
                memory.append(sum(resident(p) for p in psutil.Process(made.pid).children(recursive=True)))
                began = time.perf_counter()
                assert made.engine("GET", "/tools").status == 200
                cold.append(time.perf_counter() - began)
            finally:
                made.down()
    row("rootlink up --detach, to ready", ms(statistics.median(up)))
    row("engine, cold, first answer", ms(statistics.median(cold)))
    row("idle gateway + provisioner, PSS", f"{statistics.median(memory) / (1 << 20):.0f} MiB")


def resident(process: psutil.Process) -> int:
    full: Any = process.memory_full_info()
    return int(full.pss)


async def main() -> None:
    print(f"load {os.getloadavg()[0]:.2f} · {os.cpu_count()} cores · Python {sys.version.split()[0]}\n")
    starts()
    row("", "p50", "p99 or max")
    with instance() as made:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(60)) as http:
            await changes(made, http)
            functions(made)
    print(f"\nload {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
