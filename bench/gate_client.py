"""The client of `bench/gate.py`, the same inside a door and outside: standard library only, so that any Python can be it.

python -I -S gate_client.py HOST TLS_PORT RAW_PORT NAME CA      a line of input is a question, a line of output its answer
"""

from __future__ import annotations

import http.client
import json
import resource
import socket
import ssl
import sys
import time
from typing import Any

MIB = 1 << 20
SECONDS = 60
BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"text": "x" * 430}})
ASKED = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"


class Client:
    def __init__(self, host: str, tls: str, raw: str, name: str, ca: str) -> None:
        self._host, self._name = host, name
        self._address = socket.gethostbyname(host)
        self._tls, self._raw = int(tls), int(raw)
        self._context = ssl.create_default_context(cafile=ca)
        self._request = ASKED % name.encode()
        self._kept: http.client.HTTPSConnection | None = None
        self._echo: socket.socket | None = None
        self._held: list[ssl.SSLSocket] = []

    def lookup(self, times: int) -> list[float]:
        return [_timed(lambda: socket.getaddrinfo(self._host, self._tls, type=socket.SOCK_STREAM)) for _ in range(times)]

    def fresh(self, times: int) -> list[float]:
        """Connect, handshake, one request, close."""

        def once() -> None:
            with self._secure() as sock:
                self._ask(sock)

        return [_timed(once) for _ in range(times)]

    def kept(self, times: int) -> list[float]:
        """Requests on one connection."""
        connection = self._kept
        if connection is None:
            connection = self._kept = http.client.HTTPSConnection(self._name, self._tls)
            connection.sock = self._secure()

        def once() -> None:
            connection.request("POST", "/", BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()

        return [_timed(once) for _ in range(times)]

    def echo(self, times: int) -> list[float]:
        """500 bytes there and back."""
        sock = self._echo
        if sock is None:
            sock = self._echo = self._connect(self._raw)
            sock.sendall(b"e")

        def once() -> None:
            sock.sendall(b"x" * 500)
            got = 0
            while got < 500:
                got += len(sock.recv(65536))

        return [_timed(once) for _ in range(times)]

    def up(self, blocks: int) -> float:
        """MB/s."""
        block = bytes(MIB)
        with self._connect(self._raw) as sock:
            sock.sendall(b"u")
            began = time.perf_counter()
            for _ in range(blocks):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b"."
            return blocks / (time.perf_counter() - began)

    def down(self, blocks: int) -> float:
        """MB/s."""
        buffer, got = bytearray(MIB), 0
        with self._connect(self._raw) as sock:
            began = time.perf_counter()
            sock.sendall(b"d" + blocks.to_bytes(4, "big"))
            while count := sock.recv_into(buffer):
                got += count
            assert got == blocks * MIB
            return blocks / (time.perf_counter() - began)

    def hold(self, count: int) -> int:
        """How many of so many TLS connections could not be opened."""
        failed = 0
        for _ in range(count):
            try:
                self._held.append(self._secure())
            except OSError:
                failed += 1
        return failed

    def ask_held(self, _: int) -> int:
        """One request on each, all asked before the first answer is read: how many failed."""
        failed = 0
        for step in (lambda sock: sock.sendall(self._request), self._answered):
            for sock in list(self._held):
                try:
                    step(sock)
                except (OSError, AssertionError):
                    failed += 1
                    self._held.remove(sock)
        return failed

    def release(self, _: int) -> int:
        for sock in self._held:
            sock.close()
        self._held.clear()
        return 0

    def _connect(self, port: int) -> socket.socket:
        sock = socket.create_connection((self._address, port), SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _secure(self) -> ssl.SSLSocket:
        return self._context.wrap_socket(self._connect(self._tls), server_hostname=self._name)

    def _ask(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(self._request)
        self._answered(sock)

    def _answered(self, sock: ssl.SSLSocket) -> None:
        data = sock.recv(65536)
        assert data.startswith(b"HTTP/1.1 200"), data


def _timed(once: Any) -> float:
    began = time.perf_counter()
    once()
    return time.perf_counter() - began


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    client = Client(*sys.argv[1:])
    for line in sys.stdin:
        what, number = line.split()
        print(json.dumps(getattr(client, what)(int(number))), flush=True)


if __name__ == "__main__":
    main()
