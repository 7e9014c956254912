"""How long a connect of each of the catalogue's connectors takes, from POST to the answer, checks and all: cold (nothing in the
package store, nothing in npm's cache) and warm (the median of three). The bar for a warm one is 1.5 s.

    .venv/bin/python bench/connect.py [NAME…]

In the kernel tier, through real doors and the gate. The services are stand-ins on loopback under their real names, the database
is a real PostgreSQL, the browser Debian's Chromium.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e.stand_ins import ALL
from tests.harness.instance import KERNEL, Instance
from tests.harness.standin import Authority, standin, tap
from tests.store import postgres

ALONE: list[dict[str, Any]] = [
    {"connector": "memory"},
    {"connector": "filesystem"},
    {"connector": "browser", "inputs": {"SITES": ["pages.example"]}},
    {"connector": "postgres", "secrets": {"PG_DSN": "postgresql://rootlink@db.example/postgres"}},
]
WARM = 3


def main() -> None:
    wishes = [*ALONE, *(service.wish(service.good) for service in ALL)]
    wanted = [wish for wish in wishes if not sys.argv[1:] or wish["connector"] in sys.argv[1:]]
    with world() as instance:
        instance.tools()  # the engine is there
        print(f"load {os.getloadavg()[0]:.1f}\n{'connector':<24}{'cold s':>8}{'warm s':>8}")
        for wish in wanted:
            cold, *warm = [connect(instance, wish) for _ in range(1 + WARM)]
            called = " ".join([wish["connector"], wish.get("variant") or ""])
            print(f"{called:<24}{cold:>8.2f}{sorted(warm)[WARM // 2]:>8.2f}", flush=True)


@contextmanager
def world() -> Iterator[Instance]:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rl-bench-")))
        for name in ("authority", "services"):
            (scratch / name).mkdir()
        authority = Authority(scratch / "authority")
        hosts = {host: one for one in ALL for host in (one.host, *one.others)}
        pins = [word for host, one in hosts.items() for word in _pin(stack, host, one.answer, scratch / "services", authority)]
        if postgres.binaries() is not None:
            server = stack.enter_context(postgres.server())
            path = str(next(Path(server.url("x").partition("host=")[2]).glob(".s.PGSQL.*[0-9]")))
            port = stack.enter_context(tap(partial(_to, path))).port
            pins += ["--resolve", f"db.example:5432=127.0.0.1:{port}"]
        store = {"ROOTLINK_PACKAGE_STORE": str(scratch / "store")}
        instance = Instance(scratch / "home", *KERNEL, *pins, *authority.flags, environ=store)
        stack.callback(instance.run, "down")
        yield instance.up()


def _pin(stack: ExitStack, host: str, answer: Any, folder: Path, authority: Authority) -> list[str]:
    return list(stack.enter_context(standin(host, answer, folder, authority)).pin)


def _to(path: str) -> socket.socket:
    far = socket.socket(socket.AF_UNIX)
    far.connect(path)
    return far


def connect(instance: Instance, wish: dict[str, Any]) -> float:
    """Seconds of one connect, which is undone afterwards."""
    began = time.monotonic()
    instance.connect(**wish)
    took = time.monotonic() - began
    name = wish.get("name") or wish["connector"]
    assert instance.project("DELETE", f"/connections/{name}").status in (200, 204)
    return took


if __name__ == "__main__":
    main()
