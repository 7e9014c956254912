"""One small HTTP question to a program of ours, without the weight of a client: what `up` needs while it starts."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    body: bytes


def ask(address: Any, method: str, path: str, *, within: float, token: str | None = None) -> Answer | None:
    """`address` as a listening socket's `getsockname()` gives it. None when there is no answer yet.

    With `Connection: close`, so the body is what comes until the end; answers with a Content-Length only.
    """
    host, port = address[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    credential = f"authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: {shown}:{port}\r\nconnection: close\r\n{credential}content-length: 0\r\n\r\n"
    try:
        with socket.create_connection((host, port), within) as link:
            link.sendall(head.encode())
            text = b"".join(iter(lambda: link.recv(65536), b""))
    except OSError:
        return None
    head_bytes, _, body = text.partition(b"\r\n\r\n")
    words = head_bytes.split(b"\r\n", 1)[0].split()
    return Answer(int(words[1]), body) if len(words) > 1 and words[1].isdigit() else None
