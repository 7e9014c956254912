"""What a gateway is told when it starts. A plain value: reading flags, files and the environment is `programs/settings.py`."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Sizes in bytes, times in seconds. `public_url`: how clients reach this gateway (`http://127.0.0.1:7300`), no final slash.

    `allowed_hosts`: names a Host header may hold besides loopback and the address a connection came to; `*` allows every name
    and so gives up the guard against DNS rebinding. `secure_cookies`: clients reach us over https (a proxy ends the TLS).
    """

    admin_token: str
    public_url: str
    allowed_hosts: frozenset[str] = frozenset()
    secure_cookies: bool = False

    relay_body: int = 4 * MIB  # /mcp and /engine
    control_body: int = 1 * MIB  # /v1
    sign_in_body: int = 16 * 1024  # of a request without a credential …
    sign_in_secs: float = 5.0  # … and for it to arrive
    bodies: int = 128 * MIB  # of all requests under way …
    bodies_each: int = 32 * MIB  # … and of those of one key; at least `relay_body`
    body_secs: float = 30.0  # for a whole request body to arrive
    write_secs: float = 30.0  # a client that takes no byte of its stream for this long is dropped

    connections: int = 448  # open at once; each may need a second file, the link to its engine. 448 is right for 1024 files

    key_rate: float = 200.0  # requests a second for each project key, once its burst is used up
    key_burst: float = 2000.0
    guess_rate: float = 5 / 60  # refused sign-ins a second for each address …
    guess_burst: float = 5.0  # … so at most 10 in any minute
    key_cache_secs: float = 1.0  # how long another process's revocation may go unseen
    session_secs: float = 12 * 3600.0
    link_secs: float = 600.0  # a one-time sign-in link

    ensure_secs: float = 60.0  # for an engine to start
    refresh_secs: float = 5.0  # how long a change of secrets or allowlist waits until the engine has it
    install_secs: float = 600.0  # for a connect or a disconnect

    def __repr__(self) -> str:
        return f"GatewaySettings({self.public_url!r})"
