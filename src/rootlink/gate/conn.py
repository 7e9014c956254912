"""A TCP connection read by hand: what was read and not used yet stays in `held`, and goes along when the bytes are spliced."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

READ = 65536
FAREWELL_SECS, FAREWELL_BYTES = 1.0, 1 << 20
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Conn:
    """Owns `sock`, which is non-blocking."""

    def __init__(self, sock: socket.socket, held: bytes = b"") -> None:
        self.sock = sock
        self.held = bytearray(held)
        self._loop = asyncio.get_running_loop()

    async def more(self) -> bool:
        """Reads on into `held`; False at the end. Raises OSError."""
        data = await self._loop.sock_recv(self.sock, READ)
        self.held += data
        return bool(data)

    def take(self, size: int | None = None) -> bytes:
        """The first `size` bytes of what is held, or all, taken out of it."""
        taken = bytes(self.held if size is None else self.held[:size])
        del self.held[: len(taken)]
        return taken

    async def send(self, data: bytes) -> None:
        """Raises OSError."""
        if data:
            await self._loop.sock_sendall(self.sock, data)

    def end_sending(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def finish(self) -> None:
        """Close so that what was sent arrives: what still comes is read away for a moment, as unread bytes make a reset of it."""
        self.end_sending()
        left = FAREWELL_BYTES
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECS):
                while left > 0 and (data := await self._loop.sock_recv(self.sock, READ)):
                    left -= len(data)
        self.close()

    def close(self) -> None:
        """Safe to repeat."""
        self.sock.close()

    def reset(self) -> None:
        """Close so that the other side sees it was cut, not finished."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.sock.close()
