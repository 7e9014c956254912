"""`make bench`: every hop of the main path beside what it is compared with, in one run. Figures, never a pass or fail.

What each line means
- tools/call: one call at a time over one kept connection, the same small server each time: asked directly, through Rootlink
  (gateway + engine), through FastMCP's proxy. `added` is the median less the direct median. CPU is what gateway + engine,
  or the proxy, spent a call, user and system.
- tools/list: 10 mounts of 51 tools, one of which never answers.
- list_changed: from the moment the new server can answer (its process told us so) to the client's notice; and from the request.
"""

from __future__ import annotations

import asyncio
import os
import socket
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
from tests.harness.instance import Instance, eventually, script

SERVER = str(ROOT / "bench" / "server.py")
CALLS, WARM = 500, 50


def row(name: str, *cells: str) -> None:
    print(f"{name:<44}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


class Client:
    """A session client that only measures: one kept connection, JSON-RPC in and out."""

    def __init__(self, http: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> None:
        self._http, self._url = http, url
        self._headers = {"accept": "application/json, text/event-stream", "content-type": "application/json", **(headers or {})}

    async def start(self) -> Client:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        async with self._post("initialize", params) as answer:
            self._headers["mcp-session-id"] = answer.headers["mcp-session-id"]
            await answer.read()
        note = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})
        async with self._http.post(self._url, data=note, headers=self._headers) as answer:
            await answer.read()
        return self

    def _post(self, method: str, params: Any) -> Any:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return self._http.post(self._url, data=body, headers=self._headers)

    async def ask(self, method: str, params: Any = None) -> bytes:
        async with self._post(method, params or {}) as answer:
            return await answer.read()

    async def time(self, method: str, params: Any = None, *, calls: int = CALLS) -> list[float]:
        for _ in range(min(WARM, calls)):
            await self.ask(method, params)
        taken = []
        for _ in range(calls):
            began = time.perf_counter()
            body = await self.ask(method, params)
            taken.append(time.perf_counter() - began)
            assert b'"result"' in body, body[:300]
        return taken

    async def notices(self) -> Any:
        return await self._http.get(self._url, headers=self._headers)


@contextmanager
def http_server(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, SERVER, "http", *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    try:
        yield process, f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@contextmanager
def fastmcp_proxy(url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "bench" / "fastmcp_proxy.py"), url, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port), wait=60, what="FastMCP's proxy")
        yield process, f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def instance(*flags: str) -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="rootlink-bench-") as folder:
        shown = ("--allow-private", "127.0.0.0/8", "--allow-path", str(ROOT / "bench"))
        made = Instance(Path(folder) / "home", *shown, *flags).up()
        try:
            yield made
        finally:
            made.down()


def programs(made: Instance) -> list[psutil.Process]:
    """Gateway, then engine; without the mounted servers."""
    return made.programs("gateway") + made.programs("engine")


async def calls(made: Instance, http: aiohttp.ClientSession) -> None:
    row("tools/call, one at a time", "p50", "p99", "added p50", "CPU a call")
    echo = {"name": "echo", "arguments": {"text": "hello"}}
    with http_server() as (_, url):
        direct = await (await Client(http, url).start()).time("tools/call", echo)
        row("  direct, Streamable HTTP", ms(statistics.median(direct)), ms(p99(direct)), "-", "-")
        made.project("POST", "/egress", {"domain": url.split("/")[2]})
        body = {"name": "web", "transport": "http", "endpoint": url}
        assert made.engine("POST", "/mcp-servers", body).status == 201
        stdio = script("pipe", Path(SERVER), "stdio")
        assert made.engine("POST", "/mcp-servers", stdio).status == 201
        client = await Client(http, made.mcp, {"authorization": f"Bearer {made.key}"}).start()
        for kind, name in (("HTTP mount", "web__echo"), ("stdio mount", "pipe__echo")):
            spent, taken = await spent_on(client, programs(made), {**echo, "name": name})
            added = statistics.median(taken) - statistics.median(direct)
            parts = " + ".join(f"{part * 1000:.2f}" for part in spent)
            row(f"  Rootlink, {kind}", ms(statistics.median(taken)), ms(p99(taken)), ms(added), f"{parts} ms")
        with fastmcp_proxy(url) as (proxy, proxied):
            peer = await Client(http, proxied).start()
            spent, taken = await spent_on(peer, [psutil.Process(proxy.pid)], echo, calls=100)
            added = statistics.median(taken) - statistics.median(direct)
            row("  FastMCP 4 proxy, HTTP", ms(statistics.median(taken)), ms(p99(taken)), ms(added), ms(sum(spent)))


async def spent_on(
    client: Client, processes: list[psutil.Process], params: Any, *, calls: int = CALLS
) -> tuple[list[float], list[float]]:
    """CPU seconds a call of each of `processes`, and the latencies. CPU counts the warm-up calls too, so it is divided by all."""
    before = [cpu(process) for process in processes]
    taken = await client.time("tools/call", params, calls=calls)
    all_calls = calls + min(WARM, calls)
    return [(cpu(process) - had) / all_calls for process, had in zip(processes, before, strict=True)], taken


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


async def lists(made: Instance, http: aiohttp.ClientSession) -> None:
    for n in range(10):
        body = script(f"m{n}", Path(SERVER), "stdio", "--tools", "51", *(["--hang"] if n == 0 else []))
        answer = made.engine("POST", "/mcp-servers", body, ws="lists")
        assert answer.status == 201, answer.body
    client = await Client(http, made.mcp + "/lists", {"authorization": f"Bearer {made.key}"}).start()
    size = len(await client.ask("tools/list"))
    taken = await client.time("tools/list", calls=100)
    row("tools/list, 10 × 51 tools, one mount hangs", ms(statistics.median(taken)), ms(p99(taken)), f"{size >> 10} KiB", "")


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
            await lists(made, http)
            await changes(made, http)
            functions(made)
            await calls(made, http)
    print(f"\nload {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
