"""What a request must look like before anything else reads it.

httptools refuses CL with TE, two lengths, folded headers and broken chunks, but accepts what is below; so this does not.

    Host            exactly one, well-formed, and one this gateway goes by (DNS rebinding: a stranger's name is not)
    Origin          absent, or of the same host: a page of another site has no business here (403). The port is not compared,
                    since tools on this machine have pages of their own; writes by cookie compare it too (`auth.py`)
    path            no `..`, `%2e`, `%2f`, `%5c`, `//`, backslash, NUL or broken percent-encoding; nothing outside ASCII
    headers         at most 64 and 16 KiB; a name with `_` is dropped (CGI-style readers take it for `-`), but for those of
                    `Mcp-Param-…`, whose ends are names of tools' arguments; none of those that decide anything may come twice
    bodies          no Content-Encoding (a bomb needs one), no HTTP/1.0 POST; sizes are counted while reading
    absolute-form   refused by `protocol.py`, the only place that still sees it
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Scope

from rootlink.errors import Forbidden, Invalid, TooLarge
from rootlink.gateway.answers import Gone
from rootlink.gateway.budget import Share

MOST_HEADERS = 64
MOST_HEADER_BYTES = 16 * 1024

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::([0-9]{1,5}))?\Z")
_BAD_PATH = re.compile(rb"\.\.|//|/\.(?:/|\Z)|[^\x21-\x7e]|[\\#]|%(?:2[eEfF]|5[cC]|00|(?![0-9A-Fa-f]{2}))")
_BAD_QUERY = re.compile(rb"[^\x21-\x7e]")
_ONCE = frozenset(
    b"host content-length content-type content-encoding transfer-encoding authorization origin sec-fetch-site"
    b" mcp-session-id mcp-protocol-version mcp-method mcp-name last-event-id".split()
)
_PARAM = b"mcp-param-"  # what follows is the tool's word, in any characters of a header's name
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Head:
    """What the guard saw of an admitted request. `host` and `origin` are as sent; `length` is None when it is not told."""

    __slots__ = ("authorization", "cookies", "fetch_site", "headers", "host", "length", "origin")

    def __init__(self, headers: list[tuple[bytes, bytes]], seen: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.host = seen[b"host"].decode("ascii")
        self.origin = _text(seen.get(b"origin"))
        self.authorization = seen.get(b"authorization")
        self.fetch_site = _text(seen.get(b"sec-fetch-site"))
        self.length = int(seen[b"content-length"]) if b"content-length" in seen else None
        self.cookies = [value for name, value in headers if name == b"cookie"]


class Guard:
    """`allowed_hosts`: see `GatewaySettings`."""

    def __init__(self, allowed_hosts: Iterable[str] = ()) -> None:
        names = {name.lower() for name in allowed_hosts}
        self._any = "*" in names
        self._hosts = _LOOPBACK | names

    def admit(self, scope: Scope) -> Head:
        """The head of a request that may go on. Raises `Invalid`, `Forbidden`, `TooLarge`; reads no body."""
        _check_target(scope)
        headers, seen = _sift(scope["headers"])
        if b"content-encoding" in seen and seen[b"content-encoding"].lower() != b"identity":
            raise Invalid("Content-Encoding is not taken: send the body as it is")
        if scope["http_version"] == "1.0" and scope["method"] not in ("GET", "HEAD"):
            raise Invalid("HTTP/1.0 is taken for GET only; use HTTP/1.1")
        name = _host_name(seen.get(b"host"))
        self._check_host(name, scope)
        _check_origin(seen.get(b"origin"), name)
        return Head(headers, seen)

    def _check_host(self, name: str, scope: Scope) -> None:
        if name in self._hosts or self._any:
            return
        server = scope.get("server")
        address = server[0] if server else ""
        if name != (f"[{address}]" if ":" in address else address):
            raise Forbidden(f"Host {name!r} is not a name of this gateway; the operator can allow it (allowed hosts)")


def _check_target(scope: Scope) -> None:
    if _BAD_PATH.search(scope["raw_path"]):
        raise Invalid("The path is refused: it holds '..', '//', a backslash, an encoded '/', '.', NUL, or is not plain ASCII")
    if _BAD_QUERY.search(scope["query_string"]):
        raise Invalid("The query is refused: it is not plain ASCII")


def _sift(raw: list[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    """The headers that may be read, and those that decide something by name."""
    if len(raw) > MOST_HEADERS:
        raise TooLarge(f"More than {MOST_HEADERS} headers")
    kept: list[tuple[bytes, bytes]] = []
    seen: dict[bytes, bytes] = {}
    size = 0
    for header in raw:
        name, value = header
        size += len(name) + len(value)
        param = name.startswith(_PARAM)
        if b"_" in name and not param:
            continue
        if param or name in _ONCE:
            if name in seen:
                raise Invalid(f"Header {name.decode('ascii', 'replace')} is given twice")
            seen[name] = value
        kept.append(header)
    if size > MOST_HEADER_BYTES:
        raise TooLarge(f"More than {MOST_HEADER_BYTES} bytes of headers")
    return kept, seen


def _host_name(value: bytes | None) -> str:
    match = _HOST.match(value) if value is not None else None
    if match is None or int(match[2] or 0) > 65535:
        raise Invalid("Exactly one well-formed Host header is needed")
    return match[1].decode("ascii").lower()


def _check_origin(origin: bytes | None, host: str) -> None:
    if origin is None:
        return
    scheme, _, rest = origin.partition(b"://")
    match = _HOST.match(rest) if scheme in (b"http", b"https") else None
    if match is None or match[1].decode("ascii").lower() != host:
        raise Forbidden("Requests from pages of another origin are refused")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def read_body(
    receive: Receive, head: Head, most: int, within: float, share: Share | None = None, *, whole: bool = False
) -> bytes:
    """The whole body, taken from `share`. `whole`: it is here already, so no deadline is set. Raises `TooLarge` and what `share`
    does (at once if the length is told), `Invalid` if it takes longer than `within`, `Gone`."""
    told = head.length or 0
    _check_size(told, most, share)
    message = _present(await receive()) if whole else await _receive(receive, within)
    body: bytes = message.get("body", b"")
    if len(body) > told:
        _check_size(len(body), most, share)
    if not message.get("more_body"):
        return body
    return await _read_rest(receive, body, told, most, within, share)


async def _read_rest(receive: Receive, first: bytes, told: int, most: int, within: float, share: Share | None) -> bytes:
    parts, size, more = [first], len(first), True
    deadline = asyncio.get_running_loop().time() + within
    while more:
        message = await _receive(receive, deadline - asyncio.get_running_loop().time())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > told:
            _check_size(size, most, share)
        more = message.get("more_body", False)
    return b"".join(parts)


def _check_size(size: int, most: int, share: Share | None) -> None:
    if size > most:
        raise TooLarge(f"The body is larger than {most} bytes")
    if share is not None:
        share.hold(size)


async def _receive(receive: Receive, within: float) -> Any:
    try:
        async with asyncio.timeout(within):
            message = await receive()
    except TimeoutError:
        raise Invalid("The body did not arrive in time") from None
    return _present(message)


def _present(message: Any) -> Any:
    if message["type"] == "http.disconnect":
        raise Gone
    return message
