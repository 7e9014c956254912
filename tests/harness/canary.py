"""Listeners on this machine that nothing behind a gate may ever reach: whatever arrives at one is written down.

On loopback and on every other address of the host, TCP and UDP, on free ports and, where this user may, on 22, 53, 80, 443 and
853 of a loopback address nobody else uses; unix sockets, by path and abstract; vsock where the machine has it.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

QUIET = "127.77.7.7"
LOW = (22, 53, 80, 443, 853)


class Canary:
    """`arrived`: (where, what) of everything that came; a connection without a byte is one too. `token` is said to each."""

    def __init__(self, folder: Path) -> None:
        self.token = f"canary-{secrets.token_hex(12)}"
        self.arrived: list[tuple[str, bytes]] = []
        self.tcp: list[tuple[str, int]] = []
        self.udp: list[tuple[str, int]] = []
        self.unix: list[str] = []
        self.vsock: int | None = None
        self._selector = selectors.DefaultSelector()
        self._open(folder)
        self._stop, wake = socket.socketpair()
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ground(self) -> dict[str, Any]:
        """What is told to the one that tries."""
        return {"token": self.token, "tcp": self.tcp, "udp": self.udp, "unix": self.unix, "vsock": self.vsock}

    def sings(self) -> list[str]:
        """The control: each canary, touched from here, says its token and writes it down. Those that did not. Forgets it all."""
        silent = [str(place) for place in (*self.tcp, *self.unix) if not self._touched(place, socket.SOCK_STREAM)]
        silent += [f"udp {place}" for place in self.udp if not self._touched(place, socket.SOCK_DGRAM)]
        if len(self.arrived) < len(self.tcp) + len(self.unix) + len(self.udp):
            silent.append(f"only {len(self.arrived)} arrived")
        self.arrived.clear()
        return silent

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _touched(self, place: Any, kind: int) -> bool:
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with socket.socket(family, kind) as touch:
            touch.settimeout(5)
            try:
                touch.connect(place.replace("@", "\0", 1) if isinstance(place, str) else place)
                touch.send(b"touch")  # all of it is taken before the other side closes
                return self.token.encode() in touch.recv(100)
            except OSError:
                return False

    def _open(self, folder: Path) -> None:
        for address in ("127.0.0.1", "::1", "127.0.0.1", *_addresses()):
            self._listen(address, 0)
            self._hear(address, 0)
        for port in LOW:
            with contextlib.suppress(OSError):  # only root may, or somebody has it already
                self._listen(QUIET, port)
            with contextlib.suppress(OSError):
                self._hear(QUIET, port)
        for path in (str(folder / "canary.sock"), f"@{self.token}-abstract"):
            self._listen_unix(path)
        with contextlib.suppress(OSError, AttributeError):
            listener = socket.socket(socket.AF_VSOCK)
            listener.bind((socket.VMADDR_CID_ANY, 40_000 + secrets.randbelow(20_000)))
            listener.listen()
            self.vsock = listener.getsockname()[1]
            self._watch(listener, f"vsock {self.vsock}")

    def _listen(self, address: str, port: int) -> None:
        listener = socket.create_server((address, port), family=_family(address))
        self.tcp.append((address, listener.getsockname()[1]))
        self._watch(listener, f"tcp {address}:{self.tcp[-1][1]}")

    def _hear(self, address: str, port: int) -> None:
        hearer = socket.socket(_family(address), socket.SOCK_DGRAM)
        hearer.bind((address, port))
        self.udp.append((address, hearer.getsockname()[1]))
        self._watch(hearer, f"udp {address}:{self.udp[-1][1]}")

    def _listen_unix(self, path: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path.replace("@", "\0", 1) if path.startswith("@") else path)
        listener.listen()
        if not path.startswith("@"):
            Path(path).chmod(0o777)  # nothing but the way there keeps anybody out
        self.unix.append(path)
        self._watch(listener, f"unix {path}")

    def _watch(self, listener: socket.socket, where: str) -> None:
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, where)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    key.fileobj.close()  # type: ignore[union-attr]
                    self._selector.unregister(key.fileobj)
                    return
                with contextlib.suppress(OSError):
                    self._take(key.fileobj, key.data)

    def _take(self, sock: Any, where: str) -> None:
        if sock.type == socket.SOCK_DGRAM:
            what, sender = sock.recvfrom(65536)
            self.arrived.append((where, what))
            sock.sendto(self.token.encode(), sender)
            return
        client, _ = sock.accept()
        self.arrived.append((where, b""))
        at = len(self.arrived) - 1
        with client:
            client.sendall(self.token.encode())
            client.settimeout(0.2)
            self.arrived[at] = (where, client.recv(4096))  # closed with something unread, the token could be lost


@contextlib.contextmanager
def canary(folder: Path) -> Iterator[Canary]:
    here = Canary(folder)
    try:
        yield here
    finally:
        here.close()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _addresses() -> list[str]:
    """The host's addresses besides loopback; those of one link need a zone, which no rule can name."""
    found = [a.address for many in psutil.net_if_addrs().values() for a in many if a.family in (socket.AF_INET, socket.AF_INET6)]
    return [address for address in found if not address.startswith("127.") and address != "::1" and "%" not in address]
