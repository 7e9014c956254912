"""A host has one spelling here, or none.

Two programs that read one text as two hosts are the oldest way past an allowlist, so whatever is not plainly one host is
refused instead of repaired. The canonical form is:

    a name      lower case, ASCII (IDNA done once), no trailing dot, labels of letters, digits, '-' and inner '_'
    an IPv4     four decimal numbers without leading zeros; `127.1`, `0x7f.1`, `2130706433`, `0177.0.0.1` are refused
    an IPv6     compressed lower case without brackets; zones (`%eth0`) are refused

A rule of the allowlist is a host, optionally with a port: `api.example.com`, `db.example.com:5432`, `192.0.2.7`, `[2606::1]:443`.
A name with a dot in it stands for itself and its subdomains; a single label (`db`, `com`) and an address for themselves alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from rootlink.errors import Invalid

WEB_PORTS = (443, 80)  # what a rule without a port opens

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")  # a last label that makes WHATWG parsers read the whole host as IPv4
_PORT = re.compile(r"[0-9]{1,5}\Z")
_OTHER_DOTS = re.compile("[。．｡]")  # IDNA takes these for '.', so would a resolver
_LONGEST_NAME = 253
_SHOWN = 80


def escaped(text: str) -> str:
    """`text` as it may be shown and recorded: printable ASCII, short."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "..."


def shown(text: object) -> str:
    """`text` as it may appear in a message: escaped, and quoted."""
    return f"'{escaped(text)}'" if isinstance(text, str) else f"of type {type(text).__name__}"


@lru_cache(maxsize=4096)  # only what is a host is kept, so nothing long
def canonical(text: str) -> str:
    """The one spelling of a host (an IPv6 address with or without brackets). Raises `Invalid` saying which rule it breaks."""
    if not text:
        raise Invalid("host '' is empty")
    if text.startswith("[") or ":" in text:
        return _ipv6(text)
    name = _ascii(text)
    labels = name.removesuffix(".").split(".")
    if _NUMERIC.match(labels[-1]):
        return _ipv4(text)
    if len(name.rstrip(".")) > _LONGEST_NAME:
        _refuse(text, f"a name has at most {_LONGEST_NAME} characters")
    for label in labels:
        if not _LABEL.match(label):
            _refuse(text, _why_label(label))
    return ".".join(labels)


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address."""
    return ":" in host or bool(_NUMERIC.match(host.rpartition(".")[2]))


def _refuse(text: str, why: str) -> NoReturn:
    raise Invalid(f"host {shown(text)} is not a plain host name: {why}")


def _why_label(label: str) -> str:
    if not label:
        return "it has an empty label (two dots in a row, or a dot at the start)"
    if len(label) > 63:
        return "a label has at most 63 characters"
    return "labels are letters, digits, '-' and '_', and begin and end with a letter or a digit"


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    if _OTHER_DOTS.search(text):
        _refuse(text, "write the dots as '.'")
    import idna  # comes with yarl; loaded only for names outside ASCII

    try:
        # Strict IDNA 2008, without the UTS 46 mapping: zero-width, full-width and circled characters are refused, not dropped.
        return idna.encode(text.lower().rstrip(".")).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        _refuse(text, "it has characters that no internationalised name may hold")


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))  # strict: four decimal numbers, no leading zeros, no trailing dot
    except ValueError:
        _refuse(text, "an IPv4 address is written as four decimal numbers, like 192.0.2.7")


def _ipv6(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        _refuse(text, "what holds ':' or '[' must be an IPv6 address, and a port belongs after it")
    if address.scope_id is not None:
        _refuse(text, "an address with a zone reaches only this machine's own links")
    return str(address)


def port(text: str) -> int:
    """A port number, 1 to 65535, in ASCII digits. Raises `Invalid`."""
    if not _PORT.match(text) or not 0 < int(text) < 65536:
        raise Invalid(f"port {shown(text)} is not a number from 1 to 65535")
    return int(text)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an allowlist. `host` is canonical; `port` None opens `WEB_PORTS`. `str(rule)` is its canonical text."""

    host: str
    port: int | None = None

    def covers(self, host: str) -> bool:
        """Whether a canonical host is meant, whatever the port."""
        if host == self.host:
            return True
        return "." in self.host and not is_address(self.host) and host.endswith("." + self.host)

    def opens(self, port: int) -> bool:
        return port in WEB_PORTS if self.port is None else port == self.port

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def rule(text: object) -> Rule:
    """Parses `domain`, `domain:port`, an IPv4, an IPv6 or `[IPv6]:port`. Raises `Invalid` that says the right spelling."""
    if not isinstance(text, str):
        raise Invalid(f"a domain must be a string, not {type(text).__name__}")
    written = text.strip(" ")
    if "*" in written:
        raise Invalid(f"domain {shown(text)} is not allowed: subdomains are already included, give the domain alone")
    if "/" in written or "@" in written:
        raise Invalid(f"domain {shown(text)} is not allowed: give the host only, like api.example.com or db.example.com:5432")
    host, port_text = _split_port(written)
    return Rule(canonical(host), None if port_text is None else port(port_text))


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        return (host + bracket, rest[1:]) if rest.startswith(":") else (text, None)
    if text.count(":") != 1:  # a name, or an IPv6 address without brackets
        return text, None
    host, _, port_text = text.partition(":")
    return host, port_text


def named_ports(rules: Iterable[str]) -> list[int]:
    """The ports that rules open besides `WEB_PORTS`, sorted. One that can't be read opens nothing, so no port either."""
    found = set()
    for text in rules:
        with suppress(Invalid):
            found.add(rule(text).port)
    return sorted(port for port in found if port is not None and port not in WEB_PORTS)


def endpoint(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`, both needed. Raises `Invalid`."""
    host, port_text = _split_port(text)
    if port_text is None:
        raise Invalid(f"{shown(text)} needs a port, like example.com:443")
    return canonical(host), port(port_text)
