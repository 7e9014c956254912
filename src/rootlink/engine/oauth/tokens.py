"""The token endpoint: a code, a refresh token or a client's own secret into tokens (RFC 6749, with `resource` of RFC 8707)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rootlink.engine.oauth.discovery import Authority, scopes_of
from rootlink.engine.oauth.grant import Grant, Registered
from rootlink.engine.oauth.places import Places
from rootlink.errors import UpstreamFailed

LONGEST = 1 << 15  # characters of a token: grants go into the vault, and tokens into headers
FOREVER = 1e12  # seconds; who says more (a JSON number may have hundreds of digits) tells nothing
_OF_A_TOKEN = frozenset(chr(code) for code in range(0x21, 0x7F))


async def by_code(
    places: Places,
    authority: Authority,
    client: Registered,
    *,
    code: str,
    verifier: str,
    redirect: str,
    resource: str | None,
    scope: tuple[str, ...],
    now: float,
) -> Grant:
    """Raises EgressBlocked, Refusal, UpstreamFailed; as all of these."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
    answer = await places.post(authority.token, "the sign-in", form=form | _for(resource), client=client)
    return _granted(places, answer, Grant(authority.issuer, authority.token, client, "", now, resource, scope=scope), now)


async def alone(
    places: Places, authority: Authority, client: Registered, *, resource: str | None, scope: tuple[str, ...], now: float
) -> Grant:
    """By the client's own secret, for nobody in particular."""
    none = Grant(authority.issuer, authority.token, client, "", now, resource, scope=scope, alone=True)
    return await renewed(places, none, now)


async def renewed(places: Places, grant: Grant, now: float) -> Grant:
    """A grant in place of this one. One without a refresh token of its own keeps the one before it."""
    if grant.alone:
        form = {"grant_type": "client_credentials", **({"scope": " ".join(grant.scope)} if grant.scope else {})}
    else:
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token or ""}
    answer = await places.post(grant.token_endpoint, "the renewal", form=form | _for(grant.resource), client=grant.client)
    return _granted(places, answer, grant, max(now, grant.made + 0.001))


def _for(resource: str | None) -> dict[str, str]:
    return {} if resource is None else {"resource": resource}


def _granted(places: Places, answer: Mapping[str, Any], before: Grant, now: float) -> Grant:
    access, refresh, seconds = answer.get("access_token"), answer.get("refresh_token"), answer.get("expires_in")
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise UpstreamFailed(f"{places.name}: its authorization server gives tokens of another kind than Bearer")
    if not _token(access) or (refresh is not None and not _token(refresh)):
        raise UpstreamFailed(f"{places.name}: its authorization server answered without a token that can be used")
    granted = scopes_of(answer.get("scope"))
    return msgspec.structs.replace(
        before,
        access_token=access,
        refresh_token=refresh if refresh is not None else before.refresh_token,
        expires=_end(seconds, now),
        scope=tuple(dict.fromkeys((*before.scope, *granted))),
        made=now,
    )


def _end(seconds: object, now: float) -> float | None:
    """Some write the number as a text; what is none tells nothing."""
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit():
        seconds = int(seconds[:12])
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < FOREVER:
        return None
    return now + seconds


def _token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and _OF_A_TOKEN.issuperset(value)
