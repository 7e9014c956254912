"""A small gate that speaks the control socket's side of `wire/gate.py`, and remembers what it heard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from rootlink.door.channel import Channel
from rootlink.wire.gate import Count, Counted, Counts, Done, Forget, FromProvisioner, Serve


class FakeGate:
    """`slow`: it reads, and answers nothing."""

    def __init__(self) -> None:
        self.heard: list[FromProvisioner] = []
        self.served: dict[str, Serve] = {}
        self.counts = Counts(doors=2, open=1, connections=7, refused=3, up=10, down=20)
        self.slow = False
        self._channels: list[Channel[FromProvisioner]] = []

    @contextlib.asynccontextmanager
    async def at(self, path: Path) -> AsyncIterator[FakeGate]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            loop.add_reader(listener, lambda: self._came(listener.accept()[0]))
            try:
                yield self
            finally:
                loop.remove_reader(listener)
                self.hang_up()
                self.served.clear()
                path.unlink()

    def hang_up(self) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    def _came(self, sock: socket.socket) -> None:
        def heard(message: FromProvisioner, fds: list[int]) -> None:
            for fd in fds:
                os.close(fd)
            self.heard.append(message)
            if not self.slow:
                channel.send(self._told(message))

        channel: Channel[FromProvisioner] = Channel(sock, FromProvisioner, heard, lambda: None)
        self._channels.append(channel)

    def _told(self, message: FromProvisioner) -> Done | Counted:
        match message:
            case Serve():
                self.served[message.project] = message
            case Forget():
                self.served.pop(message.project, None)
            case Count():
                return Counted(message.n, dict.fromkeys(self.served, self.counts))
        return Done(message.n)
