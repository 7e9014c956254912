"""The clients of `bench/hop.py`, as lean as Python can be: raw sockets, requests made beforehand, answers looked at for little.

It is a process of its own so that its CPU can be told from everybody else's, and imports next to nothing. Standard input holds
one JSON a line: first what to ask (`Job`; it holds the key, so it is not on the command line), then commands; each is answered
with one line. It ends when standard input does.

    {"do": "one", "calls": N}       one call at a time on one connection          → {"times": [seconds]}
    {"do": "many", "calls": N}      every connection at once                      → {"times", "wall": seconds, "cpu": seconds}
    {"do": "many", "secs": S}
    {"do": "hold", "clients": N}    N more clients, each with its open stream     → {"held": N}

What is asked: {"port", "headers", "asks": [{"path", "era": "session" | "stateless", "method", "params"}, …], "connections": N};
connection n asks `asks[n % len]`. A session client has a session of its own for each connection. `{"command": [...], "asks"}`
speaks to a child over pipes instead, for what a server costs directly.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import subprocess
import sys
import time
from typing import Any

SESSION, STATELESS = "2025-11-25", "2026-07-28"
CLIENT = {"name": "bench", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": SESSION, "capabilities": {}, "clientInfo": CLIENT}
SECONDS = 60.0  # without a byte
FIRST_ID = 1_000_000_000  # ids have one width, so a request is made once, whatever its id
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SESSION_ID = re.compile(rb"\r\nmcp-session-id: *(\S+)", re.IGNORECASE)

Job = dict[str, Any]


def whole(data: bytes) -> bool:
    """Whether an HTTP answer is here to its end: by its length, or by its last chunk."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    told = _LENGTH.search(data, 0, end + 2)
    return len(data) >= end + 4 + int(told[1]) if told else data.endswith(b"0\r\n\r\n")


class Connection:
    """One kept connection to an endpoint, with a session if that is the era."""

    def __init__(self, job: Job, ask: dict[str, Any]) -> None:
        self.job, self.path, self.era = job, ask["path"], ask["era"]
        self.sock = self._connected()
        self.session = b""
        self.id = FIRST_ID
        if self.era == "session":
            answer = self._exchange(self.message("initialize", HELLO, FIRST_ID))
            found = _SESSION_ID.search(answer)
            self.session = found[1] if found else b""
            self._exchange(self.message("notifications/initialized", None, None))
        before, after = self.message(ask["method"], ask["params"], FIRST_ID).split(str(FIRST_ID).encode())
        self._before, self._after = before, after

    def _connected(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.job["port"]), SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def wake(self) -> None:
        """One call that is not counted, on a new connection if the server ended the kept one meanwhile."""
        try:
            self.one()
        except ConnectionError:
            self.sock.close()
            self.sock = self._connected()
            self.one()

    def message(self, method: str, params: dict[str, Any] | None, id: int | None) -> bytes:
        said: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        said |= {} if id is None else {"id": id}
        if self.era == "stateless":
            said["params"] = {**(params or {}), "_meta": META}
        elif params is not None:
            said["params"] = params
        body = json.dumps(said, separators=(",", ":")).encode()
        return self.head("POST", method, params, len(body)) + body

    def head(self, verb: str, method: str = "", params: dict[str, Any] | None = None, length: int = 0) -> bytes:
        port = self.job["port"]
        accept = "text/event-stream" if verb == "GET" else "application/json, text/event-stream"
        headers = {"host": f"127.0.0.1:{port}", "accept": accept, "user-agent": "bench", **self.job["headers"]}
        if verb == "POST":
            headers |= {"content-type": "application/json", "content-length": str(length)}
        if self.era == "stateless":
            headers |= {"mcp-protocol-version": STATELESS, "mcp-method": method}
            headers |= {"mcp-name": params["name"]} if params and "name" in params else {}
        elif method != "initialize":
            headers |= {"mcp-protocol-version": SESSION} | ({"mcp-session-id": self.session.decode()} if self.session else {})
        lines = [f"{verb} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def _exchange(self, request: bytes) -> bytes:
        self.sock.sendall(request)
        data = b""
        while not whole(data):
            part = self.sock.recv(1 << 18)
            if not part:
                raise ConnectionError(f"closed after {data[:300]!r}")
            data += part
        return data

    def next(self) -> bytes:
        """The next request."""
        self.id += 1
        return self._before + str(self.id).encode() + self._after

    def check(self, answer: bytes) -> None:
        if b'"result"' not in answer or str(self.id).encode() not in answer or b'"isError":true' in answer:
            raise ValueError(f"refused: {answer.partition(b'{')[2][:120]!r}")

    def one(self) -> float:
        """Seconds of one call."""
        request = self.next()
        began = time.perf_counter()
        answer = self._exchange(request)
        taken = time.perf_counter() - began
        self.check(answer)
        return taken

    def hold(self) -> None:
        """Open the stream of notices, up to its first bytes."""
        if self.era == "session":
            self.sock.sendall(self.head("GET"))
        else:
            self.sock.sendall(self.message("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, 1))
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(65536) or b"\r\n\r\n"
        if b" 200 " not in data[:20] or b"text/event-stream" not in data:
            raise ValueError(f"no stream: {data[:600]!r}")


class Pipe:
    """A server at the other end of two pipes; `one` alone."""

    def __init__(self, command: list[str], ask: dict[str, Any]) -> None:
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.id = FIRST_ID
        said = {"jsonrpc": "2.0", "id": FIRST_ID, "method": ask["method"], "params": ask["params"]}
        self._line = json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def wake(self) -> None:
        self.one()

    def one(self) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        began = time.perf_counter()
        self._child.stdin.write(self._line)
        answer = self._child.stdout.read(65536)
        taken = time.perf_counter() - began
        if b'"result"' not in answer or not answer.endswith(b"\n"):
            raise ValueError(f"no result: {answer[:300]!r}")
        return taken


def many(connections: list[Connection], calls: int, secs: float) -> dict[str, Any]:
    """Every connection asks again as soon as it is answered, until `calls` were asked or `secs` are over."""
    poll, by_fd, began_at, data, times = select.epoll(), {}, {}, {}, []
    for connection in connections:
        by_fd[connection.sock.fileno()] = connection
        poll.register(connection.sock, select.EPOLLIN)
    began, busy, left = time.perf_counter(), time.process_time(), calls

    def send(fd: int) -> None:
        data[fd] = b""
        request = by_fd[fd].next()
        began_at[fd] = time.perf_counter()
        by_fd[fd].sock.sendall(request)

    for fd in by_fd:
        send(fd)
    left -= len(by_fd)
    flying = len(by_fd)
    while flying:
        ready = poll.poll(SECONDS)
        if not ready:
            raise TimeoutError("no answer")
        for fd, _ in ready:
            part = by_fd[fd].sock.recv(1 << 18)
            if not part:
                raise ConnectionError("closed")
            data[fd] += part
            if not whole(data[fd]):
                continue
            now = time.perf_counter()
            times.append(now - began_at[fd])
            by_fd[fd].check(data[fd])
            if left > 0 and now - began < secs:
                left -= 1
                send(fd)
            else:
                flying -= 1
    poll.close()
    return {"times": times, "wall": time.perf_counter() - began, "cpu": time.process_time() - busy}


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job: Job = json.loads(sys.stdin.readline())
    asks, count = job["asks"], job.get("connections", 1)
    connections: list[Any] = []
    held: list[Connection] = []

    def act(asked: dict[str, Any]) -> dict[str, Any]:
        if asked["do"] == "one":
            connections[0].wake()
            return {"times": [connections[0].one() for _ in range(asked["calls"])]}
        if asked["do"] == "many":
            return many(connections, asked.get("calls", 1 << 40), asked.get("secs", 3600.0))
        for _ in range(asked["clients"]):
            held.append(Connection(job, asks[0]))
            held[-1].hold()
        return {"held": len(held)}

    def answer(made: Any) -> None:
        print(json.dumps(made), flush=True)

    try:
        if "command" in job:
            connections.append(Pipe(job["command"], asks[0]))
        else:
            connections.extend(Connection(job, asks[n % len(asks)]) for n in range(count))
        answer({"ready": len(connections)})
        for line in sys.stdin:
            answer(act(json.loads(line)))
    except (OSError, ValueError) as error:
        answer({"failed": (str(error) or type(error).__name__)[:200]})


if __name__ == "__main__":
    main()
