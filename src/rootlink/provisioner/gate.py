"""The line to the gate: what each project may reach, told again whenever the gate is new (`wire/gate.py`, the control socket).

Rule 1. What was asked last is what the gate is to have: `_wanted` is sent whole after every connect, so a gate that was
        restarted, or was not there when we asked, comes to know it without anyone asking again.
Rule 2. Nobody waits long for the gate. One that is not there lets nothing pass, so an engine may be started before it knows
        of it; one that does not answer within `PATIENCE` is logged.
Rule 3. One task owns the connection (`keep`); everyone else only puts messages on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from pathlib import Path

import msgspec
import structlog

from rootlink.door.channel import Channel
from rootlink.errors import Unavailable
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Count, Counted, Counts, Forget, FromProvisioner, Serve, ToProvisioner

log = structlog.get_logger(__name__)

PATIENCE = 2.0  # seconds for an answer
COUNT_SECS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds between two tries to connect


class GateLine:
    """`rate`: bytes a second of one door, each way; 0: no limit."""

    def __init__(self, path: Path, *, rate: int = 0, patience: float = PATIENCE) -> None:
        self._path, self._rate, self._patience = path, rate, patience
        self._wanted: dict[str, Serve | None] = {}  # project → what it is served with; None: to be forgotten
        self._channel: Channel[ToProvisioner] | None = None
        self._lost = asyncio.Event()
        self._awaited: dict[int, asyncio.Future[ToProvisioner]] = {}
        self._numbers = itertools.count(1)

    @property
    def connected(self) -> bool:
        return self._channel is not None

    async def keep(self) -> None:
        """For ever: stay connected."""
        pause = FIRST_PAUSE
        try:
            while True:
                if await self._connect():
                    pause = FIRST_PAUSE
                    await self._lost.wait()
                    log.warning("gate gone")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            if self._channel is not None:
                self._channel.close()
                self._ended()

    async def serve(self, project: str, key: str, policy: EgressPolicy, packages: EgressPolicy) -> None:
        """Returns when it is in force; when that takes too long, or there is no gate, it comes into force later."""
        wanted = Serve(next(self._numbers), project, key, policy, packages, self._rate)
        self._wanted[project] = wanted
        if self._channel is None:
            log.info("gate away", project=project, what="its policy waits for the gate")
            return
        try:
            await self._ask(wanted, self._patience)
        except Unavailable as error:
            log.warning("gate slow", project=project, reason=error.message)

    def forget(self, project: str) -> None:
        """Close the project's doors."""
        if self._wanted.pop(project, None) is None:
            return
        if self._channel is not None:
            self._channel.send(Forget(next(self._numbers), project))
        else:
            self._wanted[project] = None  # it may only be that we lost the connection

    async def counts(self) -> dict[str, Counts]:
        """By project. Raises Unavailable when the gate does not tell."""
        if self._channel is None:
            raise Unavailable("the gate does not answer; is it running? (rootlink status)")
        answer = await self._ask(Count(next(self._numbers)), COUNT_SECS)
        return answer.projects if isinstance(answer, Counted) else {}

    async def _connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(self._path))
        except OSError:
            sock.close()
            return False
        except BaseException:
            sock.close()
            raise
        self._lost = asyncio.Event()
        self._channel = Channel(sock, ToProvisioner, self._heard, self._ended)
        again, self._wanted = self._wanted, {project: one for project, one in self._wanted.items() if one is not None}
        for project, one in again.items():
            number = next(self._numbers)
            self._send(msgspec.structs.replace(one, n=number) if one is not None else Forget(number, project))
        log.info("gate found", projects=len(self._wanted))
        return True

    async def _ask(self, message: FromProvisioner, within: float) -> ToProvisioner:
        answer: asyncio.Future[ToProvisioner] = asyncio.get_running_loop().create_future()
        self._awaited[message.n] = answer
        try:
            self._send(message)
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise Unavailable(f"the gate did not answer within {within:g} s") from None
        finally:
            self._awaited.pop(message.n, None)

    def _send(self, message: FromProvisioner) -> None:
        if self._channel is not None:  # sending may have ended it
            self._channel.send(message)

    def _heard(self, message: ToProvisioner, fds: list[int]) -> None:
        for fd in fds:  # the gate sends none
            with contextlib.suppress(OSError):
                os.close(fd)
        awaited = self._awaited.get(message.n)
        if awaited is not None and not awaited.done():
            awaited.set_result(message)

    def _ended(self) -> None:
        self._channel = None
        self._lost.set()
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(Unavailable("the gate ended"))
