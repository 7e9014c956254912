"""Installs behind a door of their own: npm and uv reach the registries, and write in the package store, and nothing else.

The form of `installer.run` for an engine that has a keeper. The user's settings for registries are shown to them where the engine
itself can see them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rootlink.engine.mounts.launch import Launch, Wish
from rootlink.engine.packages.installer import KEPT_OUTPUT, failure
from rootlink.errors import RootlinkError, from_code
from rootlink.wire.gate import Refusal

NAME = "packages"  # of the door, as refusals show it
KILL_SECS = 5.0
_STDIN, _STDOUT = 0, 1
_FILES = ("npm_config_userconfig", "npm_config_globalconfig", "npm_config_cafile", "node_extra_ca_certs", "ssl_cert_file")
_SHOWN = 5


class KeptInstalls:
    """An `installer.Run`. `ports`: of the registries, besides 443 and 80."""

    def __init__(self, launch: Launch, ports: Sequence[int]) -> None:
        self._launch, self._ports = launch, list(ports)

    async def __call__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], registry: str, title: str) -> str:
        wish = Wish(
            name=NAME,
            argv=list(argv),
            env=dict(env),
            cwd=cwd,
            read=settings(env),
            readonly=[Path(sys.prefix), Path(sys.base_prefix)],
            installs=True,
            ports=self._ports,
        )
        refused: list[Refusal] = []
        output = _Output()
        transport = await self._launch.start(wish, lambda: output, refused.append)
        pid = transport.get_pid()
        try:
            transport.get_pipe_transport(_STDIN).close()
            await output.whole.wait()
        except BaseException:
            await self._launch.kill(pid)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_SECS):
                    await output.ended.wait()
            raise
        finally:
            transport.close()
            self._launch.release(pid)
        out, err = output.text(_STDOUT), output.text(_STDOUT + 1)
        if transport.get_returncode() != 0:
            raise _told(failure(f"{err}\n{out}", registry=registry, title=title), refused)
        return out


def settings(env: Mapping[str, str]) -> list[Path]:
    """The user's files for registries that an installer's environment names, as far as they are there."""
    named = [Path(value) for name, value in env.items() if name.lower() in _FILES and value]
    if env.get("XDG_CONFIG_HOME"):
        named.append(Path(env["XDG_CONFIG_HOME"]) / "uv")
    return [path for path in named if path.is_absolute() and path.exists()]


def _told(error: RootlinkError, refused: Sequence[Refusal]) -> RootlinkError:
    places = list(dict.fromkeys(f"{refusal.host}:{refusal.port}" if refusal.port else refusal.host for refusal in refused))
    if not places:
        return error
    words = f"installs reach the configured package registries only; refused: {', '.join(places[:_SHOWN])}"
    return from_code(error.code, f"{error.message}\n{words}")


class _Output(asyncio.SubprocessProtocol):
    """The end of what it wrote. `ended`: it is gone; `whole`: and nothing more comes."""

    def __init__(self) -> None:
        self.ended, self.whole = asyncio.Event(), asyncio.Event()
        self._kept = {_STDOUT: bytearray(), _STDOUT + 1: bytearray()}
        self._open = set(self._kept)

    def text(self, fd: int) -> str:
        return self._kept[fd].decode("utf-8", "replace")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._kept[fd]
        kept += data
        del kept[:-KEPT_OUTPUT]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        self._settle()

    def process_exited(self) -> None:
        self.ended.set()
        self._settle()

    def _settle(self) -> None:
        if self.ended.is_set() and not self._open:
            self.whole.set()
