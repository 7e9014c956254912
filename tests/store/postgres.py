"""A real PostgreSQL server for the suite, from Debian's binaries, on a unix socket in a folder of its own.

It refuses to run as root, so then it runs as `postgres` (or `nobody`); pytest's own folders are closed to them, hence /tmp.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

MISSING = "no PostgreSQL server binaries under /usr/lib/postgresql (apt-get install postgresql)"
_SERIAL = count()


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Server:
    def __init__(self, folder: Path, bin: Path) -> None:
        self._folder, self._bin = folder, bin
        self._as: dict[str, Any] = _unprivileged()
        self._process: subprocess.Popen[Any] | None = None

    def init(self) -> None:
        if self._as:
            os.chown(self._folder, self._as["user"], self._as["group"])
        command: list[str | Path] = [
            self._bin / "initdb",
            "-D",
            self._folder / "data",
            "-U",
            "rootlink",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._as)

    def start(self) -> None:
        options: list[str | Path] = [
            "-k",
            self._folder,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "log_min_messages=fatal",
        ]
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._folder / "data", *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, "PostgreSQL did not start within 30 s"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, SIGQUIT: at once, as after a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://rootlink@/{database}?host={self._folder}"

    def new_database(self) -> str:
        """The url of an empty database."""
        name = f"test_{next(_SERIAL)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def server() -> Iterator[Server]:
    bin = binaries()
    assert bin is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="rl-pg-", dir="/tmp"))
    running = Server(folder, bin)
    try:
        running.init()
        running.start()
        yield running
    finally:
        running.stop(signal.SIGQUIT)  # what it holds is thrown away anyway
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise AssertionError("PostgreSQL does not run as root, and there is no user to run it as")
