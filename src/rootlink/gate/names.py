"""Which name an address of a door stands for. The addresses are of 198.18.0.0/15, which is nobody's (RFC 2544)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

MOST = 4096  # names of one door: what is behind it must not fill our memory by asking
LONGEST = 253  # characters of a name
_POOL = ipaddress.IPv4Network("198.18.0.0/15")
_FIRST = int(_POOL.network_address) + 1


class Full(Exception):
    """No more names for this door."""


class Names:
    """`named(address, host)` is called for each address that is given out. `known` are those of an earlier gate."""

    def __init__(self, named: Callable[[str, str], None], known: Mapping[str, str]) -> None:
        self._named = named
        usable = [(address, host) for address, host in list(known.items())[:MOST] if ours(address) and len(host) <= LONGEST]
        self._hosts = dict(usable)
        self._addresses = {host: address for address, host in usable}
        self._next = 0

    def __len__(self) -> int:
        return len(self._addresses)

    def address(self, host: str) -> str:
        """The one of this canonical name. Raises Full."""
        known = self._addresses.get(host)
        if known is not None:
            return known
        if len(self._addresses) >= MOST:
            raise Full
        address = self._free()
        self._addresses[host], self._hosts[address] = address, host
        self._named(address, host)
        return address

    def host(self, address: str) -> str:
        """The name an address stands for; any other address stands for itself."""
        return self._hosts.get(address, address)

    def _free(self) -> str:
        while True:
            address = str(ipaddress.IPv4Address(_FIRST + self._next))
            self._next += 1
            if address not in self._hosts:
                return address


def ours(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address) in _POOL
    except ValueError:
        return False
