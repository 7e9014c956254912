"""A stand-in for a service on the internet: real TLS with a certificate of its own authority, answers given by the test.

An answer's data is sent as JSON; bytes as a page; an iterator of bytes as a stream, until it or the client ends; of a redirect it
is the place. A WebSocket echoes.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import trustme

_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Authority:
    """What signs the certificates of stand-ins that one Rootlink is to reach: it takes one `--extra-ca`."""

    folder: Path
    ca: Path = field(init=False)

    def __post_init__(self) -> None:
        self.ca = self.folder / "ca.pem"
        self._signer = trustme.CA()
        self._signer.cert_pem.write_to_path(str(self.ca))

    @property
    def flags(self) -> list[str]:
        return ["--extra-ca", str(self.ca)]

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._signer.issue_cert(*names).configure_cert(context)
        return context


@dataclass
class StandIn:
    """`answer` gets what was asked, gives (status, data). `connections` counts even those that never asked; `names` are those
    that TLS asked for. `away`: who comes is cut off at once."""

    name: str
    port: int
    ca: Path
    answer: Callable[[Seen], tuple[int, Any]]
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    names: list[str | None] = field(default_factory=list)
    away: bool = False

    @property
    def pin(self) -> list[str]:
        return ["--resolve", f"{self.name}:443=127.0.0.1:{self.port}"]

    @property
    def flags(self) -> list[str]:
        """What makes a Rootlink reach it by its real name."""
        return [*self.pin, "--extra-ca", str(self.ca)]


@contextmanager
def standin(
    name: str, answer: Callable[[Seen], tuple[int, Any]], folder: Path, authority: Authority | None = None
) -> Iterator[StandIn]:
    """`authority`: shared with other stand-ins; else one of its own in `folder`."""
    signed = authority or Authority(folder)
    context = signed.context(name)
    here: list[StandIn] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            here[0].seen.append(seen)
            if seen.headers.get("upgrade", "").lower() == "websocket":
                self._echo(seen.headers["sec-websocket-key"])
                return
            status, data = here[0].answer(seen)
            self.send_response(status)
            if isinstance(data, Iterator):
                self._stream(data)
                return
            if 300 <= status < 400:
                self.send_header("location", data)
                data = b""
            page = isinstance(data, bytes)
            out = data if isinstance(data, bytes) else msgspec.json.encode(data)
            self.send_header("content-type", "text/html; charset=utf-8" if page else "application/json")
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def _stream(self, data: Iterator[bytes]) -> None:
            self.send_header("content-type", "text/plain")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with suppress(OSError):
                for piece in data:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        def _echo(self, key: str) -> None:
            accepted = base64.b64encode(hashlib.sha1((key + _WEBSOCKET).encode()).digest()).decode()  # noqa: S324 - RFC 6455
            self.send_response(101)
            for header, value in (("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accepted)):
                self.send_header(header, value)
            self.end_headers()
            self.close_connection = True
            with suppress(OSError, IndexError):
                while (head := self.rfile.read(2))[0] & 15 == 1:  # short text frames, masked as a client's are
                    size, mask = head[1] & 127, self.rfile.read(4)
                    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))
                    self.wfile.write(bytes([0x81, size]) + text)
                    self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def get_request(self) -> Any:
            connection, address = super().get_request()
            here[0].connections += 1
            if here[0].away:
                connection.close()
                raise OSError("nobody is here")
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here.append(StandIn(name, server.server_address[1], signed.ca, answer))
    context.sni_callback = lambda _, asked, __: here[0].names.append(asked)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield here[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Tap:
    """Everything that came through: one entry a connection, growing."""

    port: int
    arrived: list[bytearray] = field(default_factory=list)

    @property
    def everything(self) -> bytes:
        return b"\n".join(bytes(one) for one in self.arrived)


@contextmanager
def front(name: str, port: int, authority: Authority) -> Iterator[StandIn]:
    """TLS in front of a plain server at `port` of loopback. `away` goes for connections that are open, too."""
    context = authority.context(name)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    here = StandIn(name, listener.getsockname()[1], authority.ca, lambda seen: (500, {}))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while (some := source.recv(65536)) and not here.away:
                sink.sendall(some)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def talk(client: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(client, server_side=True) as plain,
            socket.create_connection(("127.0.0.1", port)) as far,
        ):
            back = threading.Thread(target=copy, args=(far, plain), daemon=True)
            back.start()
            copy(plain, far)
            back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                here.connections += 1
                if here.away:
                    client.close()
                else:
                    threading.Thread(target=talk, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextmanager
def tap(connect: Callable[[], socket.socket]) -> Iterator[Tap]:
    """A port of loopback whose connections go on to `connect()`, and are written down on the way."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    here = Tap(listener.getsockname()[1])
    ends: list[socket.socket] = []

    def copy(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                if kept is not None:
                    kept += some
                sink.sendall(some)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            here.arrived.append(kept := bytearray())
            with suppress(OSError):
                far = connect()
                ends.extend((client, far))
                threading.Thread(target=copy, args=(client, far, kept), daemon=True).start()
                threading.Thread(target=copy, args=(far, client, None), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for end in ends:
            end.close()


@contextmanager
def speaker(answer: Callable[[bytes], bytes]) -> Iterator[Tap]:
    """A port of loopback that answers each piece it hears with `answer(piece)`, and writes down what it heard."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    here = Tap(listener.getsockname()[1])

    def talk(client: socket.socket) -> None:
        here.arrived.append(kept := bytearray())
        with suppress(OSError), client:
            while some := client.recv(65536):
                kept += some
                client.sendall(answer(some))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
