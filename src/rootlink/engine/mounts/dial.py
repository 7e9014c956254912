"""From a spec to links: references filled in, packages resolved, the mount's own folder made, the door asked.

A child's environment is `PATH LANG HOME TMPDIR`, then what its package's start needs, then where the operator's own CA is, then
what its spec declares. Nothing of the engine's own gets in. Its working folder is `mounts/<ws>/<name>`, also its HOME: servers
write into theirs.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets as randomness
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rootlink.engine.mounts import spec as specs
from rootlink.engine.mounts.http import HttpLink
from rootlink.engine.mounts.launch import Launch, Wish
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.remote import Credential, Far
from rootlink.engine.mounts.spec import Places, Values
from rootlink.engine.mounts.sse import SseLink
from rootlink.engine.mounts.stdio import StdioLink
from rootlink.engine.outbound import Outbound
from rootlink.engine.trust import Trust
from rootlink.errors import Forbidden
from rootlink.redaction import Redactor
from rootlink.wire.mounts import MountSpec

_CREDENTIAL = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)  # in the name of a variable
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Say = Callable[[str], None]


class Start(Protocol):
    """How a command is started directly. `readonly`: folders it must be able to read."""

    @property
    def argv(self) -> list[str]: ...
    @property
    def env(self) -> dict[str, str]: ...
    @property
    def readonly(self) -> list[Path]: ...


class Packages(Protocol):
    async def resolve(self, command: str, args: list[str], *, lock: str | None, progress: Say | None) -> Start: ...


def nobodys(ws: str, spec: MountSpec) -> None:
    """Nobody signs in anywhere: the default of `credential`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every mount of an engine stands on."""

    launch: Launch
    outbound: Outbound
    packages: Packages
    places: Places
    mounts_dir: Path
    trust: Trust | None = None
    no_stdio: str = ""  # why no child is started, in words
    credential: Callable[[str, MountSpec], Credential | None] = nobodys
    spawning: asyncio.Lock = field(default_factory=asyncio.Lock)

    def folder(self, ws: str, name: str) -> Path:
        return self.mounts_dir / ws / name

    def forget(self, ws: str, name: str) -> None:
        """Everything the mount kept. Blocking."""
        shutil.rmtree(self.folder(ws, name), ignore_errors=True)

    async def dial(self, ws: str, spec: MountSpec, secrets: Mapping[str, str], say: Say) -> Sequence[Link]:
        """Links to try, best first. Raises Invalid, Forbidden, EgressBlocked, and what Packages raises."""
        specs.check(spec, self.places)  # again: what the operator allows may have changed since it was added
        folder = self.folder(ws, spec.name)
        filled = specs.fill(spec, Values(secrets, {"files": self.places.files, "state": folder}))
        credential = self.credential(ws, filled)
        return await _BY_TRANSPORT[spec.transport](self, filled, folder, secrets, credential, say)


async def _child(
    ground: Ground, filled: MountSpec, folder: Path, secrets: Mapping[str, str], credential: Credential | None, say: Say
) -> Sequence[Link]:
    assert filled.command is not None
    if ground.no_stdio:
        raise Forbidden(f"{filled.name} is not started: {ground.no_stdio}")
    scratch = ground.launch.scratch(folder)
    _make(folder, scratch, filled.files)
    cwd = specs.directory(filled.cwd, ground.places, folder) if filled.cwd else folder
    read = [specs.directory(path, ground.places, folder) for path in filled.paths.read]
    write = [specs.directory(path, ground.places, folder) for path in filled.paths.write]
    start = await ground.packages.resolve(filled.command, filled.args, lock=filled.lock, progress=say)
    own = {"PATH": SEARCHED, "LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(scratch)}
    trust = ground.trust.environment() if ground.trust is not None else {}
    token = randomness.token_urlsafe(24)
    wish = Wish(
        name=filled.name,
        argv=start.argv,
        env={**own, **start.env, **trust, **filled.env},
        cwd=cwd,
        read=read,
        write=[folder, *write],
        readonly=[
            *start.readonly,
            *(file for file in specs.named_files(filled.args, ground.places) if not specs.under(file.resolve(), write)),
        ],
        egress=filled.egress,
        token=token,
    )
    pasted = [value for name, value in filled.env.items() if _CREDENTIAL.search(name)]
    redact = Redactor([*secrets.values(), *pasted, token])
    hint = specs.unseen(filled.args, [*wish.read, *wish.write, *wish.readonly]) if ground.launch.form == "kept" else ""
    return [StdioLink(wish, ground.launch, turn=ground.spawning, redact=redact, hint=redact(hint))]


def _make(folder: Path, scratch: Path, files: Mapping[str, str]) -> None:
    """A few microseconds, so not worth a thread. A file is written anew at each start and put in place whole, so what a server
    left under its name (a link to elsewhere, a word of its own) is neither followed nor kept."""
    for one in (folder, scratch):
        one.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, text in files.items():
        draft = folder / f".{randomness.token_hex(8)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(folder / name)


async def _http(
    ground: Ground, filled: MountSpec, folder: Path, secrets: Mapping[str, str], credential: Credential | None, say: Say
) -> Sequence[Link]:
    """Streamable HTTP, then the transport before it: an endpoint does not tell which it is."""
    far = _far(ground, filled, secrets, credential)
    return [HttpLink(far), SseLink(far)]


async def _sse(
    ground: Ground, filled: MountSpec, folder: Path, secrets: Mapping[str, str], credential: Credential | None, say: Say
) -> Sequence[Link]:
    return [SseLink(_far(ground, filled, secrets, credential))]


def _far(ground: Ground, filled: MountSpec, secrets: Mapping[str, str], credential: Credential | None) -> Far:
    assert filled.endpoint is not None
    hidden = [*secrets.values(), *([filled.auth.token] if filled.auth else []), *filled.headers.values()]
    scope = ground.outbound.scope(filled.name, filled.egress)
    plain = Redactor(hidden)
    redact = plain if credential is None else lambda text: credential.redact(plain(text))
    return Far(filled.name, filled.endpoint, specs.headers(filled), scope, redact, credential)


_BY_TRANSPORT: dict[
    str, Callable[[Ground, MountSpec, Path, Mapping[str, str], Credential | None, Say], Awaitable[Sequence[Link]]]
] = {
    "stdio": _child,
    "http": _http,
    "sse": _sse,
}
