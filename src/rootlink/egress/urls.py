"""A URL is read once: what is decided on is what is connected to.

yarl is the one parser, because aiohttp connects by it. It is lenient (it drops tabs, takes ' 443' for a port, reads ①②⑦ as
digits), so a text must first have the plain shape below; the shape decides nothing, it only keeps odd texts from the parser,
and the parsed host must be the written one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootlink.egress import hosts
from rootlink.egress.policy import Decision, denied
from rootlink.errors import Invalid

if TYPE_CHECKING:
    from yarl import URL

MOST = 8192  # characters
SCHEMES = ("http", "https")
_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<user>[^/?#\\]*@)?"
    r"(?P<host>\[[^\]/?#@\\]*\]|[^:@\[\]/?#\\]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?#].*)?\Z",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_PLAIN = "write it as https://HOST[:PORT]/…, without backslashes, spaces or control characters in the host"


@dataclass(frozen=True, slots=True)
class Target:
    """One parsed URL; `host` is canonical and is `url.raw_host`."""

    url: URL
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.url.scheme, self.host, self.port


def read(text: str) -> Target | Decision:
    """The target an absolute http(s) URL names, or the refusal (reasons `bad_url`, `scheme`, `bad_host`, `port`). The URL itself
    is never in the refusal's message: it may carry a secret."""
    if len(text) > MOST:
        return denied("bad_url", "", 0, f"the URL is longer than {MOST} characters")
    shape = _SHAPE.match(text) if not _CONTROL.search(text) else None
    if shape is None:
        return denied("bad_url", "", 0, f"the URL does not plainly name one host; {_PLAIN}")
    host, scheme = shape["host"], shape["scheme"].lower()
    if scheme not in SCHEMES:
        return denied("scheme", hosts.escaped(host), 0, f"scheme '{scheme[:20]}' is not allowed; only http and https are")
    if shape["user"] is not None:
        return denied("bad_url", hosts.escaped(host), 0, "the URL holds a user name or password; send them in a header instead")
    return _parse(text, host)


def join(base: Target, location: str) -> Target | Decision:
    """Where a redirect leads. `location` may be relative; it is held to the same shape."""
    from yarl import URL

    if _CONTROL.search(location) or "\\" in location:
        return denied("bad_url", base.host, base.port, f"host '{base.host}' redirects to what is no plain URL")
    try:
        reference = URL(location)
        return read(location if reference.absolute and reference.scheme else str(base.url.join(reference)))
    except ValueError:
        return denied("bad_url", base.host, base.port, f"host '{base.host}' redirects to what is no URL")


def _parse(text: str, written: str) -> Target | Decision:
    from yarl import URL

    try:
        host = hosts.canonical(written)
    except Invalid as error:
        return denied("bad_host", hosts.escaped(written), 0, error.message)
    try:
        url = URL(text)
    except ValueError:
        return denied("bad_url", host, 0, f"the URL of host '{host}' is malformed; {_PLAIN}")
    port = url.port or 0
    if (url.raw_host or "").removesuffix(".") != host:
        return denied("bad_host", host, port, f"the URL of host '{host}' can be read as naming another host")
    if url.raw_host != host:  # one trailing dot is tolerated, and not passed on
        url = url.with_host(host)
    return Target(url, host, port)
