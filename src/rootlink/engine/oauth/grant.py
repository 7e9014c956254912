"""What a sign-in came to: the tokens, whose they are and how they are renewed. Its JSON is the value of a secret of the vault.

`made` grows with every renewal, so of two grants for one secret the newer one is known, whichever way they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

Method = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
SOON = 60.0  # seconds before its end in which a token is renewed in the background
TOO_LATE = 5.0  # seconds before its end from which it is not used any more


class Registered(msgspec.Struct, frozen=True, omit_defaults=True):
    """A client at one authorization server. `method`: how it says at the token endpoint who it is; of `private_key_jwt` the
    secret is a key (keys.py)."""

    id: str
    secret: str | None = None
    method: Method = "none"

    def __repr__(self) -> str:
        return f"Registered({self.method})"


class Grant(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="rootlink", tag="oauth-grant"):
    """`expires`, `made`: Unix seconds. `expires` None: not known. `scope`: what was asked for at the sign-in, and granted
    besides. `alone`: a client's own, which nobody signs in for. `key`: the tokens are worth something only together with its
    signature (DPoP)."""

    issuer: str
    token_endpoint: str
    client: Registered
    access_token: str
    made: float
    resource: str | None = None
    refresh_token: str | None = None
    expires: float | None = None
    scope: tuple[str, ...] = ()
    alone: bool = False
    key: str | None = None

    def __repr__(self) -> str:
        return f"Grant({self.issuer}, made {self.made:.0f})"

    def fresh(self, now: float, margin: float) -> bool:
        return self.expires is None or now < self.expires - margin

    @property
    def renewable(self) -> bool:
        return self.alone or self.refresh_token is not None

    def secrets(self) -> Iterator[str]:
        yield from (value for value in (self.access_token, self.refresh_token, self.client.secret, self.key) if value)


def written(grant: Grant) -> str:
    return msgspec.json.encode(grant).decode()


def read(value: str) -> Grant | None:
    """None for what is no grant."""
    try:
        return msgspec.json.decode(value, type=Grant)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def apart(secrets: Mapping[str, str]) -> tuple[dict[str, Grant], dict[str, str]]:
    """Grants, which are the engine's own business, and the secrets that mounts and functions may have."""
    grants: dict[str, Grant] = {}
    others: dict[str, str] = {}
    for name, value in secrets.items():
        grant = read(value) if '"oauth-grant"' in value[:64] else None
        if grant is None:
            others[name] = value
        else:
            grants[name] = grant
    return grants, others
