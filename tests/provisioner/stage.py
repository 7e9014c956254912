"""What the tests of the provisioner stand on: a home with a store and keys, real fake engines in it, and ways to look at them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rootlink.provisioner.launch import identity
from rootlink.provisioner.launch.identity import Identity
from rootlink.provisioner.launch.launcher import Running
from rootlink.provisioner.launch.process import Patience
from rootlink.provisioner.layout import Layout
from rootlink.records import Connection, NewConnection, new_id
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import Unsealer
from rootlink.store import Store
from rootlink.wire.mounts import Desired, MountSpec

FAKE_ENGINE = [sys.executable, "-P", str(Path(__file__).with_name("fake_engine.py"))]
ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
QUICK = Patience(ready=5.0, recover=2.0, ask=0.5, term=0.3, kill=2.0)


class Stage:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.runtime = Path(tempfile.mkdtemp(prefix="rl-prov-", dir="/tmp"))
        self.layout = Layout(home, self.runtime)
        for name in ("control", "vault", "vault-public", "logs", "run"):
            (home / name).mkdir(parents=True)
        self.store_url = f"sqlite:///{home / 'control' / 'rootlink.db'}"
        self.private, self.public = home / "vault" / "seal.key", home / "vault-public" / "seal.pub"
        self.store = Store.open(self.store_url)
        self.unsealer = Unsealer.open_or_create(self.private, self.public)
        self.sealer = Sealer.read(self.public)
        self.socket = self.runtime / "provisioner.sock"

    def project(self, name: str = "one") -> str:
        project = self.store.projects.create(name).id
        self.layout.engine(project).mkdir(parents=True)
        return project

    def secret(self, project: str, name: str, value: str) -> None:
        self.store.secrets.put(project, name, lambda version: self.sealer.seal(project, name, version, value))

    def connect(self, project: str, name: str = "memory", *, token: str | None = None) -> Connection:
        """The intent of a connection, as the gateway writes it."""
        id = new_id("con")
        desired = Desired(id, "main", name, mount=MountSpec(name, "stdio", command="npx", args=["-y", name]))
        secrets = [("TOKEN", lambda version: self.sealer.seal(project, "TOKEN", version, token or ""))] if token else []
        uses, body = [name for name, _ in secrets], msgspec.json.encode(desired)
        wish = NewConnection(id, project, "main", name, name, "mcp", body, secrets, uses, ["api.example"], "tester")
        return self.store.connections.connect(wish)

    def knobs(self, project: str, **knobs: Any) -> None:
        (self.layout.engine(project) / "knobs.json").write_text(json.dumps(knobs))

    def release(self, project: str) -> None:
        (self.layout.engine(project) / "release").touch()

    def journal(self, project: str, what: str) -> list[Any]:
        try:
            lines = (self.layout.engine(project) / "journal").read_text().splitlines()
        except OSError:
            return []
        return [entry for line in lines if (entry := json.loads(line))[0] == what]

    def held(self, project: str) -> list[str]:
        """Ids of the connections that the engine's own state names."""
        try:
            return sorted(json.loads((self.layout.engine(project) / "state.json").read_text()))
        except OSError:
            return []

    def engine_process(self, project: str) -> Identity | None:
        """Of the record on disk, if it lives."""
        try:
            process = msgspec.json.decode(self.layout.record(project).read_bytes(), type=Running).process
        except (OSError, msgspec.DecodeError, RecursionError):
            return None
        return process if identity.alive(process) else None

    def close(self) -> None:
        self.store.close()
        shutil.rmtree(self.runtime)
        left = [process for project in self.layout.projects() if (process := self.engine_process(project))]
        identity.end([one for process in left for one in (process, *identity.descendants(process))], term=0.0)
        assert not left, f"engines left behind: {left}"


async def until(true: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    deadline = time.monotonic() + within
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.01)
    return value


def until_now(true: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    deadline = time.monotonic() + within
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.01)
    return value
