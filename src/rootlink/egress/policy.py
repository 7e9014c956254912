"""The decision: may this host and port be reached, and why (not). Pure; it fails closed.

    1  the host has one spelling                             else  bad_host
    2  the port is a port                                    else  port
    3  a rule of the project's allowlist covers the host     else  not_in_allowlist
    4  a rule of the connection's own hosts covers it too    else  not_in_connection   (no own hosts given: the project's)
    5  both open the port                                    else  port
    6  an address, written or resolved, is the world's,
       or the operator opened it (`--allow-private`)         else  private_address

Rule 6 for resolved names is asked by whoever dials, for every address, with `address()`; only what it admits may be dialled.
A pinned name (`--resolve NAME:PORT=ADDRESS:PORT`) skips rule 6: its address is the operator's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from rootlink.egress import addresses, hosts
from rootlink.egress.hosts import Rule
from rootlink.errors import EgressBlocked, Invalid

T = TypeVar("T")
Verdict = Literal["allowed", "denied"]
Reason = Literal[
    "in_allowlist",
    "pinned",
    "bad_host",
    "bad_url",
    "scheme",
    "port",
    "not_in_allowlist",
    "not_in_connection",
    "private_address",
    "other_host",  # the TLS name or the Host header names another than the one that was connected to
    "protocol",  # what is spoken cannot be looked at: no TLS, an encrypted name, malformed HTTP
    "limit",  # more connections or names at once than a door may have
]
BLOCKED = "egress blocked: "


@dataclass(frozen=True, slots=True)
class Decision:
    """`host` is canonical, or for `bad_host` and `bad_url` what was asked, escaped and shortened. Allowed: no message."""

    verdict: Verdict
    reason: Reason
    host: str
    port: int
    message: str = ""

    @property
    def allowed(self) -> bool:
        return self.verdict == "allowed"

    def raise_if_denied(self, connection: str = "") -> None:
        """Raises `EgressBlocked` with the message; `data` has host, port, reason and connection."""
        if not self.allowed:
            data = {"host": self.host, "port": self.port, "reason": self.reason, "connection": connection}
            raise EgressBlocked(self.message, data=data)


def denied(reason: Reason, host: str, port: int, words: str) -> Decision:
    return Decision("denied", reason, host, port, BLOCKED + words)


@dataclass(frozen=True, slots=True)
class Pin:
    """Where the operator sends a name and port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Policy:
    """One project's outbound policy. `Policy()` allows nothing."""

    allow: tuple[Rule, ...] = ()
    private: tuple[addresses.Network, ...] = ()
    pins: Mapping[tuple[str, int], Pin] = field(default_factory=dict)

    @classmethod
    def parse(cls, allow: Iterable[str], private: Iterable[str] = (), resolve: Iterable[str] = ()) -> Policy:
        """From texts: allowlist rules, CIDRs, and pins `NAME:PORT=ADDRESS:PORT`. Raises `Invalid` naming the bad one."""
        return cls(tuple(hosts.rule(text) for text in allow), addresses.networks(private), dict(pin(text) for text in resolve))

    @classmethod
    def sound(
        cls, allow: Iterable[str], private: Iterable[str], resolve: Iterable[str], ignored: Callable[[str], None]
    ) -> Policy:
        """As `parse`, without the texts that do not parse: a broken line opens nothing, and must not hold the others up."""
        networks = sound(private, lambda cidr: addresses.networks([cidr])[0], ignored)
        return cls(tuple(sound(allow, hosts.rule, ignored)), tuple(networks), dict(sound(resolve, pin, ignored)))

    def decide(self, host: str, port: int, scope: Sequence[Rule] | None = None) -> Decision:
        """Rules 1 to 5, and 6 for a host written as an address. `scope`: the connection's own hosts; None: no narrowing."""
        try:
            name = hosts.canonical(host)
        except Invalid as error:
            return denied("bad_host", hosts.escaped(host), port, error.message)
        if not 0 < port < 65536:
            return denied("port", name, port, f"port {port} is not a number from 1 to 65535")
        return self._by_rules(name, port, scope) or self._by_address(name, port)

    def decide_name(self, host: str, scope: Sequence[Rule] | None = None) -> Decision:
        """Rules 1, 3 and 4, for who knows no port yet (DNS): whether any port may be open. The decision's port is 0."""
        try:
            name = hosts.canonical(host)
        except Invalid as error:
            return denied("bad_host", hosts.escaped(host), 0, error.message)
        return self._by_names(name, 0, scope) or Decision("allowed", "in_allowlist", name, 0)

    def address(self, host: str, port: int, address: str) -> Decision:
        """Rule 6 for one address that `host` leads to."""
        special = addresses.special(address)
        if special is None or addresses.within(address, self.private):
            return Decision("allowed", "in_allowlist", host, port)
        leads = f"host '{host}' is" if host == address else f"host '{host}' leads to {address},"
        words = f"{leads} {special}; only the operator can open it (rootlink up --allow-private CIDR)"
        return denied("private_address", host, port, words)

    def pin(self, host: str, port: int) -> Pin | None:
        return self.pins.get((host, port))

    def dials(self, address: str, port: int) -> bool:
        """Whether a socket may be opened to this address at all: the last check, made on the socket's own address."""
        if addresses.special(address) is None or addresses.within(address, self.private):
            return True
        return Pin(address, port) in self.pins.values()

    def _by_rules(self, host: str, port: int, scope: Sequence[Rule] | None) -> Decision | None:
        """The refusal of rules 3 to 5, if any."""
        refused = self._by_names(host, port, scope)
        if refused is not None:
            return refused
        of_project = _covering(self.allow, host)
        of_connection = of_project if scope is None else _covering(scope, host)
        for rules, whose in ((of_project, "this project's outbound allowlist"), (of_connection, "this connection's own hosts")):
            if not any(rule.opens(port) for rule in rules):
                return denied("port", host, port, _closed_port(host, port, rules, whose))
        return None

    def _by_names(self, host: str, port: int, scope: Sequence[Rule] | None) -> Decision | None:
        """The refusal of rules 3 and 4, if any."""
        if not _covering(self.allow, host):
            return denied("not_in_allowlist", host, port, f"host '{host}' is not in this project's outbound allowlist")
        if scope is not None and not _covering(scope, host):
            return denied("not_in_connection", host, port, _not_own(host, scope))
        return None

    def _by_address(self, host: str, port: int) -> Decision:
        if self.pin(host, port):
            return Decision("allowed", "pinned", host, port)
        if hosts.is_address(host):
            return self.address(host, port, host)
        return Decision("allowed", "in_allowlist", host, port)


def sound(texts: Iterable[str], parse: Callable[[str], T], ignored: Callable[[str], None]) -> Iterator[T]:
    """What parses of `texts`; `ignored` is told why of the others."""
    for text in texts:
        try:
            yield parse(text)
        except Invalid as error:
            ignored(error.message)


def _covering(rules: Iterable[Rule], host: str) -> list[Rule]:
    return [rule for rule in rules if rule.covers(host)]


def _not_own(host: str, scope: Sequence[Rule]) -> str:
    own = ", ".join(str(rule) for rule in scope[:5]) or "none"
    return f"host '{host}' is not one of this connection's own hosts ({own}); a connection reaches only those"


def _closed_port(host: str, port: int, rules: Sequence[Rule], whose: str) -> str:
    rule = rules[0]
    opened = "443 and 80" if rule.port is None else str(rule.port)
    wanted = Rule(host, port)
    return f"host '{host}' is not in {whose} for port {port}: the rule '{rule}' opens {opened}; a rule '{wanted}' would open it"


def pin(text: str) -> tuple[tuple[str, int], Pin]:
    """Parses `NAME:PORT=ADDRESS:PORT`. Raises `Invalid`."""
    name, equals, target = text.partition("=")
    if not equals:
        raise Invalid(f"{hosts.shown(text)} is not of the form NAME:PORT=ADDRESS:PORT")
    host, port = hosts.endpoint(name)
    address, address_port = hosts.endpoint(target)
    if hosts.is_address(host) or not hosts.is_address(address):
        raise Invalid(f"{hosts.shown(text)} is not of the form NAME:PORT=ADDRESS:PORT: a name is sent to an IP address")
    return (host, port), Pin(address, address_port)
