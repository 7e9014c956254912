"""Which IP addresses are the world's, by a table of our own.

`ipaddress.is_global` is not it: on 3.11 to 3.13 it is True for NAT64 of loopback (64:ff9b::7f00:1), ::7f00:1, 168.63.129.16,
192.88.99.1, multicast and fec0::1. So: IPv4 is the world's unless listed below; IPv6 only within 2000::/3 and unless listed.
Source of the blocks: the IANA special-purpose registries (RFC 6890 and its successors), and the clouds' metadata addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from rootlink.egress.hosts import shown
from rootlink.errors import Invalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4 = {
    "0.0.0.0/8": "an address of this machine",
    "10.0.0.0/8": "a private address",
    "100.64.0.0/10": "an address shared inside a carrier or cloud",
    "127.0.0.0/8": "a loopback address",
    "168.63.129.16/32": "a cloud metadata address",
    "169.254.0.0/16": "a link-local or cloud metadata address",
    "172.16.0.0/12": "a private address",
    "192.0.0.0/24": "an address kept for protocols",
    "192.0.2.0/24": "an address kept for documentation",
    "192.88.99.0/24": "a 6to4 relay",
    "192.168.0.0/16": "a private address",
    "198.18.0.0/15": "an address kept for test networks",
    "198.51.100.0/24": "an address kept for documentation",
    "203.0.113.0/24": "an address kept for documentation",
    "224.0.0.0/4": "a multicast address",
    "240.0.0.0/4": "a reserved or broadcast address",
}
_V6 = {  # inside 2000::/3
    "2001::/23": "a tunnel or protocol address (Teredo and others)",
    "2001:db8::/32": "an address kept for documentation",
    "2002::/16": "a 6to4 address",
    "3fff::/20": "an address kept for documentation",
}
_OUTSIDE = {  # words for the commonest addresses outside 2000::/3; all others there are refused as well
    "::1/128": "a loopback address",
    "::/96": "an address of this machine or an embedded IPv4 address",
    "::ffff:0:0/96": "an IPv4 address in IPv6 spelling",
    "64:ff9b::/96": "a NAT64 address",
    "64:ff9b:1::/48": "a NAT64 address",
    "fc00::/7": "a private address",
    "fe80::/10": "a link-local address",
    "fec0::/10": "a site-local address",
    "ff00::/8": "a multicast address",
}
_TABLE_V4 = [(ipaddress.IPv4Network(block), words) for block, words in _V4.items()]
_TABLE_V6 = [(ipaddress.IPv6Network(block), words) for block, words in (_V6 | _OUTSIDE).items()]
_WORLD_V6 = ipaddress.IPv6Network("2000::/3")


@lru_cache(maxsize=4096)  # asked four times a connection, and parsing is most of it
def special(address: str) -> str | None:
    """What a non-public address is, in words ("a loopback address"), or None for one of the world's. Fails closed on nonsense."""
    parsed = _parsed(address)
    if parsed is None:
        return "not an address"
    if isinstance(parsed, ipaddress.IPv4Address):
        return next((words for block, words in _TABLE_V4 if parsed in block), None)
    if parsed.scope_id is not None:
        return "an address of one of this machine's own links"
    listed = next((words for block, words in _TABLE_V6 if parsed in block), None)
    return listed or (None if parsed in _WORLD_V6 else "an address outside the public IPv6 space")


@lru_cache(maxsize=4096)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    """The operator's exceptions (`--allow-private CIDR`). Raises `Invalid` naming the one that is no CIDR."""
    return tuple(_network(cidr) for cidr in cidrs)


def _network(cidr: str) -> Network:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except (ValueError, TypeError):
        raise Invalid(f"{shown(cidr)} is not a CIDR like 10.0.0.0/8 or fd00::/8") from None


def within(address: str, exceptions: Iterable[Network]) -> bool:
    """Whether an address is in one of the exceptions. An IPv4 address in IPv6 spelling is in no IPv4 network."""
    parsed = _parsed(address)
    if parsed is None:
        return False
    return any(parsed.version == network.version and parsed in network for network in exceptions)
