"""What the benchmarks measure Rootlink against, and how it is had: npm packages by `bench/node`'s lock, deno by the lock `bench`.

A peer of Root Functions is a process that holds one function and answers calls of it until it is closed:

    deno       lines of JSON over pipes, answered in order; without any permission
    node       the same, without any sandbox
    workerd    HTTP on loopback
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.harness.node import NODE, NPM

LOCK, NODE_HOME = ROOT / "bench" / "node", ROOT / ".tests" / "bench-node"
DENO = Path(sys.executable).parent / "deno"
START_SECS = 20.0


def installed() -> Path:
    """`node_modules` as the lock has it, installed once. Raises OSError, subprocess.SubprocessError."""
    NODE_HOME.mkdir(parents=True, exist_ok=True)
    lock, done = (LOCK / "package-lock.json").read_bytes(), NODE_HOME / ".installed"
    with (NODE_HOME / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not done.exists() or done.read_bytes() != lock:
            print("the peers are being installed …", flush=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(LOCK / name, NODE_HOME / name)
            command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=NODE_HOME, check=True, capture_output=True, timeout=300)
            done.write_bytes(lock)
    return NODE_HOME / "node_modules"


class Peer(Protocol):
    """`call` may be made by many at once."""

    pid: int

    async def call(self, input: Any) -> Any: ...
    async def close(self) -> None: ...


_LINES = {
    "node": """
const run = BODY;
require('node:readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  process.stdout.write(JSON.stringify(await run(JSON.parse(line), CONTEXT)) + '\\n');
});
""",
    "deno": """
const run = BODY, encoder = new TextEncoder(), decoder = new TextDecoder();
let rest = '';
for await (const chunk of Deno.stdin.readable) {
  const lines = (rest + decoder.decode(chunk, { stream: true })).split('\\n');
  rest = lines.pop();
  let said = '';
  for (const line of lines) said += JSON.stringify(await run(JSON.parse(line), CONTEXT)) + '\\n';
  await Deno.stdout.write(encoder.encode(said));
}
""",
}


class Lines:
    """Over the pipes of a process."""

    def __init__(self, process: asyncio.subprocess.Process, script: Path) -> None:
        self._process, self._script, self.pid = process, script, process.pid
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, kind: str, body: str, context: Any) -> Lines:
        handle, name = tempfile.mkstemp(suffix=".js")
        os.close(handle)
        script = Path(name)
        script.write_text(  # noqa: ASYNC240  before anything is measured
            _LINES[kind].replace("BODY", body).replace("CONTEXT", json.dumps(context))
        )
        command = {"node": [NODE, name], "deno": [str(DENO), "run", "--quiet", "--no-prompt", "--no-config", "--no-remote", name]}
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command[kind], stdin=pipe, stdout=pipe), script)

    async def call(self, input: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(input).encode() + b"\n")
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._waiting.popleft().set_result(json.loads(line))

    async def close(self) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading
        self._script.unlink()


_CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:PORT", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-01-01",
);
"""
_WORKER = """
const run = BODY;
export default { async fetch(request) { return new Response(JSON.stringify(await run(await request.json(), CONTEXT))); } };
"""


class Workerd:
    """Over HTTP; each caller waits for a connection that nobody uses, and makes one if there is none."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process, self._port, self._folder, self.pid = process, port, folder, process.pid
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @classmethod
    async def start(cls, body: str, context: Any) -> Workerd:
        folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (Path(folder.name) / "config.capnp").write_text(_CONFIG.replace("PORT", str(port)))
        worker = _WORKER.replace("BODY", body).replace("CONTEXT", json.dumps(context))
        (Path(folder.name) / "worker.js").write_text(worker)
        binary = next((installed() / "@cloudflare").glob("workerd-*/bin/workerd"))
        command = [str(binary), "serve", "config.capnp"]
        return cls(await asyncio.create_subprocess_exec(*command, cwd=folder.name), port, folder)

    async def call(self, input: Any) -> Any:
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        body = json.dumps(input).encode()
        writer.write(b"POST / HTTP/1.1\r\nhost: worker\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        self._idle.append((reader, writer))
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(START_SECS):
            while True:
                try:
                    return await asyncio.open_connection("127.0.0.1", self._port)
                except ConnectionError:
                    await asyncio.sleep(0.001)

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._process.kill()
        await self._process.wait()
        self._folder.cleanup()


async def started(kind: str, body: str, context: Any) -> Peer:
    """`kind`: deno, workerd or node. Ready at its first answer."""
    return await Workerd.start(body, context) if kind == "workerd" else await Lines.start(kind, body, context)


def memory(pid: int) -> float:
    """MiB that would be free if it ended (USS)."""
    return float(psutil.Process(pid).memory_full_info().uss) / (1 << 20)
