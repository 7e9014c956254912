"""The hop in numbers: `python bench/hop.py [--quick]`, about 4 minutes, or 40 s. Figures beside their bars, never a pass or fail.

    client ────────────────────────────────────────────► server      direct: over HTTP, and over pipes
    client ──► gateway ──► engine ──────────────────────► server      Rootlink, a stdio mount
    client ──► gateway ──► engine ──► door ──► gate ────► server      Rootlink, an HTTP mount, tier `kernel`; in `advisory` there
                                                                      is no door and no gate; stdio mounts are alike in both
    client ──► FastMCP's create_proxy ─────────────────► server      HTTP to HTTP
    client ──► mcp-proxy of npm ───────────────────────► server      HTTP to stdio

The clients (`hop_client.py`) are processes of their own: raw sockets and requests made beforehand, in both eras (2025-11-25 with
a session, 2026-07-28 without). The server (`server.py`) is one and the same small one, of the session era. All of it runs on two
cores. Rootlink's rate limit is out of reach, but there: a key has its bucket.

What each line means
- one at a time: the ways take turns in short batches, so that what else runs hits all of them. `added` is the median of the
  batches' (median less the direct median of the same transport). CPU is user and system a call, from /proc, of the proxy itself.
- 16 clients: each asks again as soon as it is answered. The client's own share of a core is beside it: it runs on the same two.
- tools/list: 10 mounts of 51 tools, one of which never answers any more.
- idle clients: memory (PSS) of gateway + engine, before and with N clients that hold a stream open and nothing else.
- growth: calls of both eras to both kinds of mount in turns, 16 clients; private memory (USS), threads and open files of gateway
  and engine on the way. The slope is that of the straight line through the last two thirds (least squares), for 100,000 calls: a
  leak goes on, what is only used for the first time does not.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.peers import NODE_HOME, installed
from tests.harness.instance import Instance, eventually, script
from tests.harness.node import NODE

BENCH = ROOT / "bench"
SERVER, CLIENT = BENCH / "server.py", BENCH / "hop_client.py"
CORES = 2
ERAS = ("session", "stateless")
NAMES = {"session": "2025-11-25", "stateless": "2026-07-28"}
STREAMS = {"session": "a session, its GET stream", "stateless": "subscriptions/listen"}
MIB = 1 << 20
LIMIT = {"ROOTLINK_RATE_LIMIT": "1000000"}
SETTLE_SECS = 1.0
MARKS = 12  # looks at memory while it may grow


@dataclass(frozen=True)
class Size:
    rounds: int
    calls: int  # of one way in a round
    secs: float  # of 16 clients
    idle: int
    warm: int
    growth: int


WHOLE, QUICK = Size(8, 200, 3.0, 1000, 20_000, 300_000), Size(3, 100, 1.0, 300, 1_000, 6_000)


class Bars:
    """The worst figure of each line that has a bar, to be shown at the end."""

    def __init__(self) -> None:
        self._worst: dict[str, tuple[float, str, str]] = {}

    def note(self, what: str, figure: float, shown: str, bar: str, *, least: bool = False) -> None:
        """`least`: the bar is one, so the smallest figure is the worst."""
        worst = self._worst.get(what)
        if worst is None or (figure < worst[0] if least else figure > worst[0]):
            self._worst[what] = (figure, shown, bar)

    def show(self) -> None:
        print()
        row("the worst of both eras, mounts and tiers", "figure", "bar")
        for what, (_, shown, bar) in self._worst.items():
            row(f"  {what}", shown, bar)


BARS = Bars()


class Failed(Exception):
    """A client's own words for what it could not do."""


class Clients:
    """One process of `hop_client.py`, until `close`."""

    def __init__(self, **job: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(job)

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Raises Failed."""
        return self._say({"do": do, **more})

    def _say(self, said: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(said) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"failed": "ended"}')
        if "failed" in answer:
            self.close()
            raise Failed(answer["failed"])
        return answer

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)


@dataclass
class Way:
    """One way to the server. `tells`: what the clients are told; `spent`: whose CPU counts, by name."""

    name: str
    tells: dict[str, Any]
    spent: dict[str, psutil.Process] = field(default_factory=dict)
    direct: str = "http"  # which direct way it is compared with; "" for a direct one
    share: float = 1.0  # of the calls the others get; less for one that takes long
    clients: Clients | None = None
    rounds: list[list[float]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def ours(self) -> bool:
        return "engine" in self.spent

    def one(self, calls: int) -> None:
        if self.failed:
            return
        before = {who: cpu(process) for who, process in self.spent.items()}
        try:
            assert self.clients is not None
            self.rounds.append(self.clients.ask("one", calls=max(int(calls * self.share), 10))["times"])
        except Failed as failure:
            self.failed = str(failure)
        for who, process in self.spent.items():
            self.cpu[who] = self.cpu.get(who, 0.0) + cpu(process) - before[who]

    @property
    def times(self) -> list[float]:
        return [taken for batch in self.rounds for taken in batch]

    def per_call(self) -> dict[str, float]:
        calls = len(self.times) + len(self.rounds)  # each batch begins with one that is not timed
        return {who: spent / calls for who, spent in self.cpu.items()}

    def added(self, other: Way) -> float:
        pairs = zip(self.rounds, other.rounds, strict=False)
        return statistics.median(statistics.median(mine) - statistics.median(theirs) for mine, theirs in pairs)


def cpu(process: psutil.Process) -> float:
    """Seconds on a core so far, user and system; from schedstat, since the ticks of stat are 10 ms."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def costs(spent: dict[str, float]) -> tuple[str, str, str]:
    """Seconds a call of each, as cells: of all but the gate, of each, of the gate."""
    own = {who: seconds for who, seconds in spent.items() if who != "gate"}
    parts = " + ".join(f"{seconds * 1000:.2f}" for seconds in own.values())
    gate = f"gate {spent['gate'] * 1000:.2f}" if "gate" in spent else ""
    return ms(sum(own.values())) if own else "-", parts, gate


def memory(*processes: psutil.Process) -> float:
    """MiB of PSS."""
    return sum(float(process.memory_full_info().pss) for process in processes) / MIB


def private(*processes: psutil.Process) -> float:
    """MiB that are nobody else's (USS): PSS moves with whoever else shares a library, also with strangers."""
    return sum(float(process.memory_full_info().uss) for process in processes) / MIB


def files(*processes: psutil.Process) -> int:
    return sum(process.num_fds() for process in processes)


def row(name: str, *cells: str) -> None:
    print(f"{name:<44}" + "".join(f"{cell:>17}" for cell in cells), flush=True)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def quantile(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


# --- what is asked, and the ways to it


def asked(path: str, era: str, tool: str = "echo", method: str = "tools/call") -> dict[str, Any]:
    params = {"name": tool, "arguments": {"text": "hello"}} if method == "tools/call" else {}
    return {"path": path, "era": era, "method": method, "params": params}


def told(url: str, *asks: dict[str, Any], key: str = "", connections: int = 1) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {"port": urlsplit(url).port, "headers": headers, "asks": list(asks), "connections": connections}


@contextmanager
def started(*command: str, listens: int = 0, says_port: bool = False) -> Iterator[tuple[psutil.Process, int]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE if says_port else subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if process.stdout is not None:
            listens = int(process.stdout.readline())
        eventually(lambda: _listens(listens), wait=60, what=f"{Path(command[1]).name} on its port")
        yield psutil.Process(process.pid), listens
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def instance(tier: str) -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="rootlink-bench-") as folder:
        shown = ("--allow-private", "127.0.0.0/8", "--allow-path", str(BENCH))
        made = Instance(Path(folder) / "home", "--sandbox", tier, *shown, environ=LIMIT).up()
        try:
            yield made
        finally:
            made.down()


def programs(made: Instance) -> dict[str, psutil.Process]:
    return {"gateway": made.programs("gateway")[0], "engine": made.programs("engine")[0]}


def mount_both(made: Instance, url: str) -> None:
    """`web` over HTTP and `pipe` over stdio, each with the tool `echo`."""
    made.project("POST", "/egress", {"domain": urlsplit(url).netloc})
    for body in ({"name": "web", "transport": "http", "endpoint": url}, script("pipe", SERVER, "stdio")):
        answer = made.engine("POST", "/mcp-servers", body)
        assert answer.status == 201, answer.body


def own_ways(made: Instance, tier: str, mounts: tuple[str, ...] = ("pipe", "web")) -> list[Way]:
    spent = programs(made)
    gate = {"gate": made.programs("gate")[0]}
    kinds = {"pipe": "stdio", "web": "HTTP"}
    return [
        Way(
            f"  Rootlink, {kinds[mount]} mount, {NAMES[era]}, {tier}",
            told(made.mcp, asked("/mcp", era, f"{mount}__echo"), key=made.key),
            {**spent, **(gate if mount == "web" and tier == "kernel" else {})},
            "pipe" if mount == "pipe" else "http",
        )
        for mount in mounts
        for era in ERAS
    ]


def fastmcp_ways(stack: ExitStack, url: str) -> list[Way]:
    proxy, port = stack.enter_context(
        started(sys.executable, str(BENCH / "fastmcp_proxy.py"), url, str(port := _free_port()), listens=port)
    )
    at = f"http://127.0.0.1:{port}/mcp"
    spent = {"proxy": proxy}
    return [Way(f"  FastMCP proxy, HTTP, {NAMES[era]}", told(at, asked("/mcp", era)), spent, share=0.1) for era in ERAS]


def npm_ways(stack: ExitStack) -> list[Way]:
    """Raises OSError, subprocess.SubprocessError when it can't be installed."""
    installed()
    port = _free_port()
    command = [NODE, str(NODE_HOME / "node_modules" / "mcp-proxy" / "dist" / "bin" / "mcp-proxy.mjs")]
    options = ["--host", "127.0.0.1", "--port", str(port), "--server", "stream", "--", sys.executable, str(SERVER), "stdio"]
    proxy, port = stack.enter_context(started(*command, *options, listens=port))
    at = f"http://127.0.0.1:{port}/mcp"
    spent = {"proxy": proxy}
    return [Way(f"  mcp-proxy (npm), stdio, {NAMES[era]}", told(at, asked("/mcp", era)), spent, "pipe") for era in ERAS]


def direct_ways(url: str) -> dict[str, Way]:
    command = [sys.executable, str(SERVER), "stdio"]
    pipe = {"command": command, "asks": [asked("", "session")]}
    return {
        "http": Way("  direct, HTTP", told(url, asked("/mcp", "session")), direct=""),
        "pipe": Way("  direct, pipes", pipe, direct=""),
    }


# --- the lines


def one_at_a_time(direct: dict[str, Way], ways: list[Way], size: Size) -> None:
    row("tools/call, one at a time", "p50", "p99", "added p50", "× direct", "CPU a call", "of it", "")
    with ExitStack() as stack:
        for way in [*direct.values(), *ways]:
            try:
                way.clients = Clients(**way.tells)
                stack.callback(way.clients.close)
                way.clients.ask("one", calls=int(max(size.calls * way.share, 10)))
            except Failed as failure:
                way.failed = str(failure)
        for _ in range(size.rounds):
            for way in [*direct.values(), *ways]:
                way.one(size.calls)
    for way in [*direct.values(), *ways]:
        _one_row(way, direct)


def _one_row(way: Way, direct: dict[str, Way]) -> None:
    if way.failed or (way.direct and direct[way.direct].failed):
        row(way.name, way.failed or "there is nothing to compare it with")
        return
    p50 = statistics.median(way.times)
    cells = [ms(p50), ms(quantile(way.times, 99))]
    if way.direct:
        against, spent = direct[way.direct], way.per_call()
        added = way.added(against)
        cells += [ms(added), f"{p50 / statistics.median(against.times):.1f}", *costs(spent)]
        if way.ours:
            own = spent["gateway"] + spent["engine"]
            BARS.note("CPU a call, gateway + engine", own, ms(own), "≤ 0.8 ms")
            BARS.note("added p50", added, ms(added), "≤ 1 ms")
    row(way.name, *cells)


def at_once(ways: list[Way], size: Size) -> None:
    print()
    row("tools/call, 16 clients at once", "calls/s", "p50", "p99", "CPU a call", "of it", "", "client's core")
    for way in ways:
        if way.failed or "command" in way.tells:
            continue
        try:
            _at_once(way, size)
        except Failed as failure:
            row(way.name, str(failure))


def _at_once(way: Way, size: Size) -> None:
    clients = Clients(**{**way.tells, "connections": 16})
    try:
        clients.ask("many", secs=size.secs / 5)
        before = {who: cpu(process) for who, process in way.spent.items()}
        done = clients.ask("many", secs=size.secs)
        count = len(done["times"])
        spent = {who: (cpu(process) - before[who]) / count for who, process in way.spent.items()}
    finally:
        clients.close()
    rate = count / done["wall"]
    if way.ours:
        BARS.note("calls/s, 16 clients", rate, f"{rate:,.0f}", "≥ 1,500", least=True)
    p50, p99 = statistics.median(done["times"]), quantile(done["times"], 99)
    row(way.name, f"{rate:,.0f}", ms(p50), ms(p99), *costs(spent), f"{done['cpu'] / done['wall']:.0%}")


def lists(made: Instance) -> None:
    for n in range(10):
        body = script(f"m{n}", SERVER, "stdio", "--tools", "51", *(["--hang"] if n == 0 else []))
        answer = made.engine("POST", "/mcp-servers", body, ws="lists")
        assert answer.status == 201, answer.body
    print()
    row("tools/list, 510 tools of 10, one hangs", "p50", "p99", "CPU a call", "of it")
    for era in ERAS:
        spent = programs(made)
        way = Way(f"  Rootlink, {NAMES[era]}", told(made.mcp, asked("/mcp/lists", era, method="tools/list"), key=made.key), spent)
        way.clients = Clients(**way.tells)
        way.one(100)
        way.rounds.clear()
        way.cpu.clear()
        way.one(300)
        way.clients.close()
        p50 = statistics.median(way.times)
        BARS.note("tools/list, 510 tools, one of 10 mounts hangs", p50, ms(p50), "≤ 5 ms")
        row(way.name, ms(p50), ms(quantile(way.times, 99)), *costs(way.per_call()))


def idle(era: str, made: Instance, size: Size) -> None:
    """An instance each: memory that one kind of client left free would hide what the next one takes."""
    if era == ERAS[0]:
        print()
        row(f"{size.idle:,} idle clients, PSS", "before", "with them", "added", "each", "a thousand", "of it, and after")
    processes = programs(made).values()
    before = memory(*processes)
    clients = Clients(**told(made.mcp, asked("/mcp", era, "pipe__echo"), key=made.key))
    clients.ask("hold", clients=size.idle)
    time.sleep(SETTLE_SECS)
    parts = [memory(process) for process in processes]
    clients.close()
    time.sleep(SETTLE_SECS)
    held, after = sum(parts), memory(*processes)
    each = (held - before) / size.idle
    thousand = each * 1000 * MIB / 1e6
    BARS.note("1,000 idle clients", thousand, f"{thousand:.0f} MB", "≤ 100 MB")
    row(
        f"  {NAMES[era]}, {STREAMS[era]}",
        f"{before:.0f} MiB",
        f"{held:.0f} MiB",
        f"{held - before:.1f} MiB",
        f"{each * 1024:.0f} KiB",
        f"{thousand:.0f} MB",
        f"{parts[0]:.0f} + {parts[1]:.0f}; {after:.0f}",
    )


def growth(made: Instance, size: Size) -> None:
    print()
    asks = [asked("/mcp", era, f"{mount}__echo") for mount in ("pipe", "web") for era in ERAS]
    clients = Clients(**told(made.mcp, *asks, key=made.key, connections=16))
    processes = programs(made)
    clients.ask("many", calls=size.warm)
    marks = [_mark(processes)]
    opened, rates = files(*processes.values()), []
    for _ in range(MARKS):
        done = clients.ask("many", calls=size.growth // MARKS)
        rates.append(len(done["times"]) / done["wall"])
        marks.append(_mark(processes))
    still = files(*processes.values())
    clients.close()
    row(f"growth over {size.growth:,} calls after {size.warm:,}", "grown", "slope", "threads", "      MiB on the way (USS)")
    shown = {**{who: [mark[who] for mark in marks] for who in processes}, "both": [sum(mark.values()) for mark in marks]}
    for who, held in shown.items():
        threads = str(processes[who].num_threads()) if who in processes else ""
        way = " ".join(f"{mib:.2f}" for mib in held)
        row(f"  {who}", f"{held[-1] - held[0]:+.2f} MiB", f"{_slope(held, size):+.3f}", threads, f"      {way}")
    BARS.note(f"growth over {size.growth:,} calls", shown["both"][-1] - shown["both"][0], _grown(shown["both"], size), "none")
    row("  calls/s", f"{min(rates):,.0f}", f"to {max(rates):,.0f}")
    row("  open files", f"{opened}", f"{still}")


def _mark(processes: dict[str, psutil.Process]) -> dict[str, float]:
    return {who: private(process) for who, process in processes.items()}


def _slope(held: list[float], size: Size) -> float:
    """MiB for 100,000 calls, of the last two thirds."""
    late = held[len(held) // 3 :]
    line = statistics.linear_regression(range(len(late)), late)
    return line.slope * MARKS / size.growth * 100_000


def _grown(held: list[float], size: Size) -> str:
    return f"{held[-1] - held[0]:+.2f} MiB, {_slope(held, size):+.3f} / 100k"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a sixth of everything")
    size = QUICK if parser.parse_args().quick else WHOLE
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # and so for everybody it starts
    began = time.monotonic()
    print(f"load {os.getloadavg()[0]:.2f} · {CORES} cores · Python {sys.version.split()[0]}\n")
    with ExitStack() as stack:
        _, port = stack.enter_context(started(sys.executable, str(SERVER), "http", says_port=True))
        url = f"http://127.0.0.1:{port}/mcp"
        made = stack.enter_context(instance("kernel"))
        mount_both(made, url)
        advisory = stack.enter_context(instance("advisory"))
        mount_both(advisory, url)
        direct = direct_ways(url)
        ways = own_ways(made, "kernel") + own_ways(advisory, "advisory", ("web",)) + fastmcp_ways(stack, url)
        try:
            ways += npm_ways(stack)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"mcp-proxy could not be installed: {type(error).__name__}\n")
        one_at_a_time(direct, ways, size)
        at_once([direct["http"], *ways], size)
        lists(made)
        growth(made, size)
        idle("session", made, size)
        idle("stateless", advisory, size)
    BARS.show()
    print(f"\nload {os.getloadavg()[0]:.2f} · {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
