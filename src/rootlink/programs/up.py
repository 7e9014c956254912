"""`rootlink up`, `down`, `status`: the programs of one home on this machine, started, watched and stopped.

    up ── provisioner ── engines        up holds the home's lock, the port, and no secret but the admin token
       ├─ gateway
       └─ gate

Rule 1. A child that ends is started again: at once the first time, then after `PAUSES` while it goes on ending early.
        The port stays ours meanwhile, so clients wait in its queue instead of being refused. Engines are left alone by all of it.
Rule 2. At the end nothing is left. Stopping goes gateway, provisioner (which stops its engines), gate, then whatever is below us.
        If `up` itself is killed, the kernel tells its children (PR_SET_PDEATHSIG), and the next `up` or `down` finds by pid and
        start time who did not listen.
Rule 3. Who holds up.lock owns the home: it alone ends what is left there and clears the files away. So `down` takes the lock,
        after it has ended who held it; an `up` that is just starting has no record yet, but it has the lock, which names it.
Rule 4. This file and what it imports must stay light: it is the time from the command to the first process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from rootlink.errors import Conflict, Internal, RootlinkError, Unavailable, from_code
from rootlink.programs import prctl
from rootlink.programs.probe import ask
from rootlink.programs.record import Record, alone
from rootlink.programs.settings import Settings, runtime_dir
from rootlink.programs.token import admin_token
from rootlink.provisioner.launch import hold, identity, kept
from rootlink.provisioner.launch.identity import Family, Identity

START_SECS = 30.0
GATEWAY_SECS, PROVISIONER_SECS, GATE_SECS = 2.5, 6.5, 0.8  # to stop; together under 10 s
UP_SECS = 12.0  # that `down` gives `up` to stop
LOCK_TRIES = 3  # of `down`, while others keep starting this home
STEADY_SECS = 10.0  # a child that ran so long starts again at once
PAUSES = (0.0, 0.1, 0.25, 0.5, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds: all waits for it, so a few ends cost little
LOG_CAP = 8 * 1024 * 1024
TICK = 0.02


def run(settings: Settings, *, json: bool) -> int:
    """Start and, unless detached, stay until told to stop. Raises Conflict when this home runs, Unavailable, Forbidden.

    `--detach` may be said twice: when this home runs with the same settings, it answers for what runs, once that is ready.
    """

    def tell(line: dict[str, Any]) -> None:
        print(msgspec.json.encode(line).decode() if json else _in_words(line), flush=True)

    if settings.detach:
        tell(_running_already(settings) or _detached(settings))
        return 0
    return Supervisor(settings, tell).run()


def down(settings: Settings) -> int:
    """Stop what runs from this home, or is left of it; how many processes were asked to end. Raises Unavailable if one stays."""
    if not settings.run_dir.is_dir():
        return _end_all(settings)
    asked = 0
    for _ in range(LOCK_TRIES):
        asked += _end_up(settings)
        try:
            with alone(_lock(settings), "held"):
                asked += _end_all(settings)
                _forget(settings)
                return asked
        except Conflict:
            continue  # someone started it between the two
    raise Unavailable("others keep starting this home; when they have done, ask again: rootlink down")


def _end_up(settings: Settings) -> int:
    """`up` and all below it, whether it is running, starting or stopping."""
    recorded = Record(settings.run_dir / "rootlink.json").process()
    up = hold.holder(_lock(settings)) or recorded
    if up is None or up.pid == os.getpid():
        return 0
    below = identity.descendants(up)
    stay = identity.end([up], term=UP_SECS)
    found = [process for record in _records(settings)[1:] if (process := record.process()) is not None]
    _refuse_if_any(stay + identity.end(_but_programs(below, found), term=0.0))
    return 1


def _end_all(settings: Settings) -> int:
    """Programs and engines that have no `up` any more."""
    found = [record.process() for record in _records(settings)[1:]]
    asked = 0
    stay: list[Identity] = []
    for process, patience in zip(found, (GATEWAY_SECS, PROVISIONER_SECS, GATE_SECS), strict=True):
        if process is not None and identity.alive(process):
            asked += 1
            below = identity.descendants(process)
            stay += identity.end([process], term=patience)
            stay += identity.end(_but_programs(below, found), term=0.0)
    engines = _engines(settings)
    for engine in engines:
        whole = kept.whole(engine)
        stay += identity.end([engine, *_but_programs(identity.descendants(whole), [engine]), whole], term=2.0)
    _refuse_if_any(stay)
    return asked + len(engines)


def _refuse_if_any(stay: list[Identity]) -> None:
    if stay:
        raise Unavailable(f"these processes can't be ended: {', '.join(str(process.pid) for process in stay)}")


def status(settings: Settings) -> dict[str, Any]:
    """What runs from this home. `running` is about `up`; its record is as `up --json` printed it, without the sign-in link."""
    up, gateway, provisioner, gate = _records(settings)
    known = {name: value for name, value in up.read().items() if name != "start"} if up.process() else {"pid": None}
    return {
        "running": up.process() is not None,
        **known,
        "home": str(settings.home),
        "gateway_pid": _pid(gateway),
        "provisioner_pid": _pid(provisioner),
        "gate_pid": _pid(gate),
        "landlock": gateway.read().get("landlock") if gateway.process() else None,
        "engine_pids": [engine.pid for engine in _engines(settings)],
    }


def supervise(settings: Settings, ready: int) -> int:
    """The detached `up`: tells the file descriptor `ready` one line, how its start went."""

    def tell(line: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(ready, msgspec.json.encode(line) + b"\n")
        os.close(ready)

    started = False

    def started_as(line: dict[str, Any]) -> None:
        nonlocal started
        started = True
        tell(line)

    try:
        return Supervisor(settings, started_as).run()
    except Exception as error:
        if not started:
            known = error if isinstance(error, RootlinkError) else Internal(f"{type(error).__name__}; see {_up_log(settings)}")
            tell({"error": {"code": known.code, "message": known.message}})
        raise


class Child:
    """One program, started again and again. `listener`: a socket it is handed."""

    def __init__(self, name: str, settings: Settings, listener: socket.socket | None = None) -> None:
        self.name, self._settings, self._listener = name, settings, listener
        self.log = settings.logs_dir / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._since = self._again_at = 0.0
        self._log_before = 0

    def start(self) -> None:
        """Raises OSError when the machine does not let it."""
        inherited = [self._listener.fileno()] if self._listener is not None else []
        told = ["--parent", str(os.getpid()), *(["--listen", str(inherited[0])] if inherited else [])]
        self._since = time.monotonic()
        self._log_before = _size(self.log)
        self.process = _start([self.name, *told, *self._settings.flags()], self.log, inherited)

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def look(self) -> float | None:
        """Start it again when it has ended and its time has come; seconds until that, None when it runs."""
        now = time.monotonic()
        if not self.ended():
            return None
        if self.process is not None:
            self._failed(now, early=now - self._since < STEADY_SECS)
            _complain(f"{self.name} ended with {self.process.returncode}; starts again")
            self.process = None
        if now < self._again_at:
            return self._again_at - now
        try:
            self.start()
        except OSError as error:  # no process or file to be had: as if it had ended at once
            self._failed(now, early=True)
            _complain(f"{self.name} can't be started: {error}; is tried again")
            return max(self._again_at - now, TICK)
        return None

    def _failed(self, now: float, *, early: bool) -> None:
        self._failures = self._failures + 1 if early else 1
        self._again_at = now + PAUSES[min(self._failures, len(PAUSES)) - 1]

    def stop(self, patience: float) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(2.0)

    def last_words(self) -> str:
        """The last line it wrote since it was started."""
        try:
            text = self.log.read_bytes()
        except OSError:
            text = b""
        said = text[self._log_before if self._log_before <= len(text) else 0 :].decode(errors="replace").strip()
        return said.splitlines()[-1][-500:] if said else "it said nothing"


class Supervisor:
    """`tell` is called once, with the line of CONTRACT §2, when everything answers."""

    def __init__(self, settings: Settings, tell: Callable[[dict[str, Any]], None]) -> None:
        self._settings, self._tell = settings, tell
        self._stopping = False

    def run(self) -> int:
        """Until SIGTERM, SIGINT or SIGHUP. Raises Conflict and Unavailable while starting."""
        settings = self._settings
        settings.prepare()
        prctl.adopt_orphans()
        with alone(_lock(settings), _running_words(settings)), self._signals() as woken:
            _end_leftovers(settings)
            runtime_dir(settings.home)
            token = admin_token(settings.admin_token_file)
            listener = _listen(settings.host, settings.port)
            children = [Child("gateway", settings, listener), Child("provisioner", settings), Child("gate", settings)]
            record = Record(settings.run_dir / "rootlink.json")
            try:
                self._start(children, listener, record, token)
                self._watch(children, woken)
            finally:
                record.remove()
                listener.close()
                for child, patience in zip(children, (GATEWAY_SECS, PROVISIONER_SECS, GATE_SECS), strict=True):
                    child.stop(patience)
                _end_everything_below()
                _forget(settings)
        return 0

    def _start(self, children: list[Child], listener: socket.socket, record: Record, token: str) -> None:
        for child in reversed(children):  # all at once: the gateway waits for what it needs of the provisioner
            try:
                child.start()
            except OSError as error:
                raise Unavailable(f"the {child.name} can't be started: {error}") from None
        base = _url(listener)
        self._await_ready(children, listener)
        if self._stopping:
            return
        line = {
            "api": base,
            "console": base + "/",
            "mcp": base + "/mcp",
            "home": str(self._settings.home),
            "admin_token_file": str(self._settings.admin_token_file),
            "pid": os.getpid(),
        }
        record.write(**line)
        self._tell({**line, "console": _sign_in_link(listener.getsockname(), token) or line["console"]})

    def _await_ready(self, children: list[Child], listener: socket.socket) -> None:
        deadline = time.monotonic() + START_SECS
        while not self._stopping:
            for child in children:
                if child.ended():
                    raise Unavailable(f"the {child.name} did not start: {child.last_words()}")
            if time.monotonic() > deadline:
                words = "; ".join(f"{child.name}: {child.last_words()}" for child in children)
                raise Unavailable(f"not ready within {START_SECS:g} s: {words}")
            answer = ask(listener.getsockname(), "GET", "/readyz", within=2.0)
            if answer is not None and answer.status == 200:
                return
            time.sleep(TICK)

    def _watch(self, children: list[Child], woken: int) -> None:
        while not self._stopping:
            identity.reap(Family(), [child.process.pid for child in children if child.process is not None])
            waits = [wait for child in children if (wait := child.look()) is not None]
            select.select([woken], [], [], min(waits, default=None))
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 512)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """A file descriptor that becomes readable with every signal that matters here."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

        def stop(number: int, frame: object) -> None:
            self._stopping = True

        mine: dict[int, Any] = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGCHLD: lambda number, frame: None}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            mine[signal.SIGHUP] = stop
        before = {number: signal.signal(number, handler) for number, handler in mine.items()}
        woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)


# starting


def _start(words: list[str], log: Path, inherited: list[int]) -> subprocess.Popen[bytes]:
    """One of our programs, in a session of its own: a Ctrl-C at the terminal is for `up` alone."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _size(log) > LOG_CAP:
        log.replace(log.with_suffix(".log.1"))
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "rootlink.programs", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=inherited,
            start_new_session=True,
        )
    finally:
        os.close(out)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _complain(words: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone must not end what it watched
        print(words, file=sys.stderr, flush=True)


def _running_already(settings: Settings) -> dict[str, Any] | None:
    """The line of what runs from this home, with a sign-in link of its own; None when nothing does. Raises Conflict when it runs
    with other settings than are asked for, Unavailable when it does not get ready."""
    record = Record(settings.run_dir / "rootlink.json")
    if record.process() is None or hold.holder(_lock(settings)) is None:
        return None
    line = {name: value for name, value in record.read().items() if name != "start"}
    at = urlsplit(line["api"])
    address = (at.hostname, at.port)
    deadline = time.monotonic() + START_SECS  # a program of it may just be starting again
    while (answer := ask(address, "GET", "/readyz", within=2.0)) is None or answer.status != HTTPStatus.OK:
        if time.monotonic() > deadline:
            raise Unavailable(f"Rootlink runs in {settings.home} (pid {line['pid']}) but is not ready; see {settings.logs_dir}")
        time.sleep(TICK)
    if differing := _differing(settings, address[1]):
        words = f"Rootlink runs in {settings.home} already (pid {line['pid']}) with another {', '.join(differing)}"
        raise Conflict(f"{words}; stop it first: rootlink down")
    return {**line, "console": _sign_in_link(address, admin_token(settings.admin_token_file)) or line["console"]}


def _differing(settings: Settings, port: int | None) -> list[str]:
    """The flags that say something else than the settings of what runs."""
    running = Record(settings.run_dir / "gateway.json").read().get("settings", {})
    asked = {name: shown["value"] for name, shown in settings.shown().items() if shown["source"].startswith("flag")}
    known = {name: shown["value"] for name, shown in running.items()} | {"port": port}
    same = {"home", "detach"} | ({"port"} if asked.get("port") == 0 else set())
    return [name for name, value in asked.items() if name not in same and name in known and value != known[name]]


def _detached(settings: Settings) -> dict[str, Any]:
    settings.prepare()
    reader, writer = os.pipe()
    process = _start(["up", "--ready", str(writer), *settings.flags()], _up_log(settings), [writer])
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.readline()  # ends with the line, or with the process
    if not text:
        raise Unavailable(f"it ended (exit code {process.wait()}) before it was ready; see {_up_log(settings)}")
    line: dict[str, Any] = msgspec.json.decode(text)
    if "error" in line:
        process.wait()
        raise from_code(line["error"]["code"], line["error"]["message"])
    process.returncode = 0  # it goes on without us, and we do not wait for it
    return line


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise Unavailable(f"{host!r} is no address of this machine: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(f"{host}:{port} can't be listened on: {error.strerror}; choose another port with --port") from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _sign_in_link(address: Any, token: str) -> str | None:
    """None when this gateway makes no such links."""
    answer = ask(address, "POST", "/v1/session/link", within=5.0, token=token)
    if answer is None or answer.status not in (200, 201):
        return None
    data = msgspec.json.decode(answer.body)["data"]
    return str(data["url"])


def _in_words(line: dict[str, Any]) -> str:
    return f"Rootlink is ready.\n  Console  {line['console']}\n  MCP      {line['mcp']}\n  Data     {line['home']}"


def _running_words(settings: Settings) -> str:
    found = Record(settings.run_dir / "rootlink.json").read()
    up = hold.holder(_lock(settings))
    starting = f"pid {up.pid}, just starting or stopping" if up is not None else "it is just starting or stopping"
    where = f"pid {found['pid']}, at {found['api']}" if "pid" in found and "api" in found else starting
    return f"Rootlink runs in {settings.home} already ({where}); stop it with: rootlink down"


# stopping


def _records(settings: Settings) -> list[Record]:
    return [Record(settings.run_dir / f"{name}.json") for name in ("rootlink", "gateway", "provisioner", "gate")]


def _lock(settings: Settings) -> Path:
    return settings.run_dir / "up.lock"


def _engines(settings: Settings) -> list[Identity]:
    """Of this home, by their own records (`provisioner/launch/process.py`), and by their locks if the record is lost. The
    engine's own process where it is known, else the one that was started for it."""
    found: list[Identity] = []
    for folder in (settings.home / "projects").glob("*/engine"):
        record = Record(folder.parent / "run.json").read()
        recorded = [one for name in ("engine", "process") if (one := _identity(record.get(name))) and identity.alive(one)]
        holder = hold.holder(folder / "engine.lock")
        found += recorded[:1]
        found += [holder] if holder is not None and holder not in recorded and kept.whole(holder) not in recorded else []
    return found


def _identity(found: Any) -> Identity | None:
    """As a record has it."""
    if not isinstance(found, dict) or not isinstance(found.get("pid"), int) or not isinstance(found.get("start"), str):
        return None
    return Identity(found["pid"], found["start"])


def _end_leftovers(settings: Settings) -> None:
    """Programs of an `up` that was killed. Its engines may go on: the provisioner takes over those that are well."""
    left = [process for record in _records(settings)[1:] if (process := record.process()) is not None]
    stay = identity.end(left, term=GATEWAY_SECS + PROVISIONER_SECS + GATE_SECS)
    if stay:
        raise Unavailable(f"what is left of an earlier start can't be ended: {', '.join(str(process.pid) for process in stay)}")


def _end_everything_below() -> None:
    """We are a subreaper: whatever any program of ours left behind is below us by now."""
    for _ in range(20):
        family = Family()
        identity.reap(family)
        left = family.children(os.getpid())
        if not left:
            return
        for child in left:
            for process in (*family.below(child), child):
                identity.send(process, signal.SIGKILL)
        time.sleep(0.01)


def _but_programs(processes: list[Identity], programs: Sequence[Identity | None]) -> list[Identity]:
    return [process for process in processes if process not in programs]


def _forget(settings: Settings) -> None:
    for record in _records(settings):
        record.remove()
    for path in (settings.home / "projects").glob("*/run.json"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError, RootlinkError):
        runtime = runtime_dir(settings.home)
        for path in (*runtime.glob("*.sock"), *runtime.glob("*/*.sock")):
            path.unlink(missing_ok=True)
        for folder in (*(path for path in runtime.iterdir() if path.is_dir()), runtime):
            folder.rmdir()


def _pid(record: Record) -> int | None:
    process = record.process()
    return process.pid if process is not None else None


def _up_log(settings: Settings) -> Path:
    return settings.logs_dir / "up.log"
