"""A tiny real engine: speaks `wire/engine.py` over its unix socket, keeps its connections in `state.json`, does what it is told.

`knobs.json` in its state directory, read at each use, makes it misbehave:
    crash, mute         end at once with words on stderr; live on without ever listening
    traceback           end at once with a traceback
    deaf                ignore TERM, and answer /internal/stop without stopping
    litter              at start, leave a process behind in a session of its own; its pid goes to `litter`
    install             "ok" | "fail" | "hold" (until the file `release` is there) | "die" (once) | "sign-in": tell a link until
                        `release` is there, which the end of a sign-in makes too
    refuses             an argument of a mount whose install fails
    found, seen         members of what an install, and every later look, says of the connection
    verdict             what a check answers
    handed              the grants it has to hand over; `grants` "stubborn": it forgets none of them
    trial               "die"
    wake                what its status says it is needed for
    after_install       "hold": as above, between having installed and saying so
    remove              "hold": as above, between having removed and saying so
    environment         "refuse": answer new secrets with 503
    silent_connections  answer the list of connections with 500
What happened is in `journal`, one JSON array a line: ["spawn", generation-independent facts] and so on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from rootlink.programs import prctl
from rootlink.provisioner.launch import hold
from rootlink.wire.engine import EngineConfig, Environment, Runs, Trial
from rootlink.wire.mounts import Actual, Desired, digest

CONFIG = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineConfig)
STATE = Path(CONFIG.state_dir)
VIEW = {
    "tool": "one",
    "name": "memory__one",
    "title": "One",
    "description": "",
    "access": "read",
    "mode": "allow",
    "chosen": None,
    "held": None,
    "flags": [],
    "tokens": 7,
    "fingerprint": "f1",
}


def knob(name: str) -> Any:
    try:
        return json.loads((STATE / "knobs.json").read_text()).get(name)
    except (OSError, ValueError):
        return None


def note(*what: Any) -> None:
    with (STATE / "journal").open("a") as file:
        file.write(json.dumps(what) + "\n")


class Engine:
    def __init__(self) -> None:
        self.secrets, self.policy = dict(CONFIG.secrets), CONFIG.policy
        self.last, self.stopping, self.stopped = time.monotonic(), False, asyncio.Event()
        self.decisions: list[dict[str, Any]] = []
        self.taken: set[str] = set()  # grants
        self.applying: dict[str, asyncio.Event] = {}  # installs that hang until they are set
        try:
            self.held = msgspec.json.decode((STATE / "state.json").read_bytes(), type=dict[str, Actual])
        except OSError:
            self.held = {}

    def save(self) -> None:
        beside = STATE / ".state"
        beside.write_bytes(msgspec.json.encode(self.held))
        beside.replace(STATE / "state.json")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if headers.get("x-rootlink-key") != CONFIG.key:
                answer = (401, {"code": "unauthorized", "message": "wrong key"})
            elif method == "PUT" and path.startswith("/internal/connections/"):
                await self.apply(msgspec.json.decode(body, type=Desired), writer)
                return
            elif path == "/internal/trials":
                await self.try_out(msgspec.json.decode(body, type=Desired), writer)
                return
            else:
                answer = await self.answer(method, path, body)
            send(writer, *answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        match method, path:
            case "GET", "/internal/status":
                idle = time.monotonic() - self.last
                numbers = {"idle_secs": idle, "calls": 0, "streams": 0, "memory_bytes": 1 << 20, "mounts": len(self.held)}
                return 200, {"pid": os.getpid(), "functions": 0, **numbers, "wake": knob("wake") or {}}
            case "POST", "/internal/stop":
                self.stopping = not knob("deaf")
                if self.stopping:
                    self.stopped.set()
                return 200, {"stopping": True}
            case "POST", "/internal/stop-if-idle":
                self.stopping = self.stopping or time.monotonic() - self.last >= json.loads(body)["idle_secs"]
                if self.stopping:
                    self.stopped.set()
                return 200, {"stopping": self.stopping}
            case "PUT", "/internal/environment":
                if knob("environment") == "refuse":
                    note("environment refused")
                    return 503, {"code": "unavailable", "message": "not now"}
                given = msgspec.json.decode(body, type=Environment)
                changed = sorted({name for name, _ in given.secrets.items() ^ self.secrets.items()})
                self.secrets, self.policy = dict(given.secrets), given.policy
                note("environment", sorted(self.secrets), self.policy.allow)
                note("rules", msgspec.to_builtins(given.rules))
                return 200, {"restarted": changed}
            case "GET", "/internal/connections":
                if knob("silent_connections"):
                    return 500, {"code": "internal", "message": "broken"}
                seen = knob("seen") or {}
                return 200, [{**msgspec.to_builtins(one), **seen} for one in self.held.values()]
            case "DELETE", _ if path.startswith("/internal/connections/"):
                note("delete", path.rsplit("/", 1)[1])
                if (under_way := self.applying.get(path.rsplit("/", 1)[1])) is not None:
                    under_way.set()
                removed = self.held.pop(path.rsplit("/", 1)[1], None) is not None
                self.save()
                if knob("remove") == "hold":
                    await released()
                return 200, {"removed": removed}
            case "GET", _ if path.endswith("/tools"):
                return 200, [VIEW]
            case "POST", _ if path.endswith("/check"):
                note("check", json.loads(body))
                return 200, knob("verdict") or {"label": "octocat", "notes": ["may write"]}
            case "POST", _ if path.endswith("/sign-in"):
                return 200, {"link": "https://login.example/authorize?state=x"}
            case "POST", "/internal/sign-ins":
                note("signed in", json.loads(body))
                (STATE / "release").touch()
                return 200, {"connection": "docs"}
            case "POST", "/internal/grants":
                taken = json.loads(body)["taken"]
                note("grants", taken)
                self.taken |= set() if knob("grants") == "stubborn" else set(taken)
                return 200, [grant for grant in knob("handed") or [] if grant["id"] not in self.taken]
            case "POST", "/internal/decisions":
                handed, self.decisions = self.decisions, []
                return 200, handed
            case "POST", "/call":  # what the gateway would forward
                if self.stopping:
                    return 503, {"code": "unavailable", "message": "stopping"}
                self.last = time.monotonic()
                refused = {"host": "evil.example", "port": 443, "verdict": "denied", "reason": "no"}
                self.decisions.append({"time": time.time(), "connection": "x", **refused})
                return 200, {"secrets": sorted(self.secrets), "pid": os.getpid()}
        return 404, {"code": "not_found", "message": path}

    async def apply(self, desired: Desired, writer: asyncio.StreamWriter) -> None:
        note("put", desired.id, sorted(self.secrets))
        note("asked", desired.id, len(desired.checks), msgspec.to_builtins(desired.rules))
        tell = self.story(writer)
        await tell(step("running", "working"))
        how = knob("install") or "ok"
        if how == "die" and not (STATE / "died").exists():
            (STATE / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hold":
            await released()
        if how == "sign-in":
            while not (STATE / "release").exists():
                await tell(step("running", "sign in", link="https://login.example/authorize?state=x"))
                await asyncio.sleep(0.05)
            await tell(step("running", "signed in"))
        if how == "hang":
            taken_away = self.applying[desired.id] = asyncio.Event()
            await taken_away.wait()
            await tell({"failed": {"code": "not_found", "message": "it was taken away"}})
        elif how == "fail" or (desired.mount is not None and knob("refuses") in desired.mount.args):
            await tell({"step": {"step": "install", "state": "failed", "detail": "no such package"}})
            await tell({"failed": {"code": "upstream_failed", "message": "no such package"}})
        else:
            tools = [f"{desired.name}__one", f"{desired.name}__two"]
            actual = Actual(desired.id, desired.ws, desired.name, "mount", digest(desired), "ready", tools)
            actual = msgspec.structs.replace(actual, **(knob("found") or {}))
            self.held[desired.id] = actual
            self.save()
            if knob("after_install") == "hold":
                note("installed", desired.id)
                await released()
            await tell({"step": {"step": "install", "state": "done", "detail": "2 tools"}})
            await tell({"done": msgspec.to_builtins(actual)})
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def story(self, writer: asyncio.StreamWriter) -> Callable[[dict[str, Any]], Awaitable[None]]:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")

        async def tell(event: dict[str, Any]) -> None:
            line = json.dumps(event).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()

        return tell

    async def try_out(self, desired: Desired, writer: asyncio.StreamWriter) -> None:
        tell = self.story(writer)
        await tell(step("running", "trying"))
        if knob("trial") == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        assert desired.mount is not None
        runs = Runs(server={"name": desired.mount.name})
        await tell({"tried": msgspec.to_builtins(Trial(runs, runs, desired.mount))})
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def step(state: str, detail: str, **more: str) -> dict[str, Any]:
    return {"step": {"step": "install", "state": state, "detail": detail, **more}}


async def released() -> None:
    while not (STATE / "release").exists():
        await asyncio.sleep(0.01)


def send(writer: asyncio.StreamWriter, status: int, data: Any) -> None:
    ok = status == 200
    body = json.dumps({"ok": ok, "data": data if ok else None, "error": None if ok else data}).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)


def litter() -> None:
    """A process that nobody waits for, in a session of its own, with a parent that is gone."""
    script = (
        "import subprocess; none=subprocess.DEVNULL\n"
        "p=subprocess.Popen(['sleep','300'],start_new_session=True,stdout=none,stderr=none)\n"
        "print(p.pid); p.returncode=0"
    )
    (STATE / "litter").write_text(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.decode())


async def main() -> None:
    facts = {"secrets": dict(CONFIG.secrets), "environ": sorted(os.environ), "allow": CONFIG.policy.allow}  # noqa: TID251
    note("spawn", facts)
    note("config", {"seal": CONFIG.seal, "rules": msgspec.to_builtins(CONFIG.rules)})
    note("tier", {name: getattr(CONFIG, name) for name in ("sandbox", "no_stdio", "doors", "package_ports")})
    if knob("traceback"):
        raise ValueError("words of /some/file.py")
    hold.take(STATE / "engine.lock", "rootlink engine: conflict: held", within=2.0)  # until the end of this process
    if knob("crash"):
        sys.exit("rootlink engine: unavailable: I can't go on")
    if knob("litter"):
        prctl.adopt_orphans()  # as the real engine program does
        litter()
    engine, loop = Engine(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if knob("deaf") else engine.stopped.set)
    if knob("mute"):
        await engine.stopped.wait()
    async with await asyncio.start_unix_server(engine.serve, CONFIG.socket):
        await engine.stopped.wait()
        await asyncio.sleep(0.02)  # so that the answer to whoever stopped us gets out


asyncio.run(main())
