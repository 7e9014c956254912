"""The token endpoint: a code, a refresh token or what a client has by itself into tokens (RFC 6749, with `resource` of RFC 8707).

    by_code    a person's sign-in
    alone      nobody's: the client's own secret or key (client_credentials); a JWT that a workload was given, or the word of an
               identity provider (RFC 7523 §2.1)
    renewed    either, once more

Tokens that are asked for with a key are bound to it (RFC 9449), unless the authority binds none at the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from rootlink.engine.oauth.discovery import Authority, scopes_of
from rootlink.engine.oauth.grant import Grant, Method, Registered
from rootlink.engine.oauth.places import Places
from rootlink.engine.oauth.registration import beforehand
from rootlink.errors import UpstreamFailed
from rootlink.wire.mounts import Identity, OAuth

LONGEST = 1 << 15  # characters of a token: grants go into the vault, and tokens into headers
FOREVER = 1e12  # seconds; who says more (a JSON number may have hundreds of digits) tells nothing
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_JAG, ID_TOKEN = "urn:ietf:params:oauth:token-type:id-jag", "urn:ietf:params:oauth:token-type:id_token"
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
    key: str | None = None,
) -> Grant:
    """Raises EgressBlocked, Refusal, UpstreamFailed; as all of these."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
    none = Grant(authority.issuer, authority.token, client, "", now, resource, scope=scope, key=key)
    return _granted(places, await _asked(places, none, "the sign-in", form), none, now)


async def alone(
    places: Places,
    authority: Authority,
    asked: OAuth,
    *,
    resource: str | None,
    scope: tuple[str, ...],
    now: float,
    key: str | None,
) -> Grant:
    """By what the client itself has (`_form`), for nobody who is there. Raises Invalid besides."""
    client = beforehand(authority, asked)
    none = Grant(authority.issuer, authority.token, client, "", now, resource, scope=scope, alone=True, key=key)
    return await renewed(places, none, now, asked)


async def renewed(places: Places, grant: Grant, now: float, asked: OAuth) -> Grant:
    """A grant in place of this one. One without a refresh token of its own keeps the one before it. `asked`: as it is now, for
    what a client has by itself may have been set anew. Raises Invalid besides."""
    if grant.alone:
        secret = asked.private_key if grant.client.method == "private_key_jwt" else asked.client_secret
        grant = replace(grant, client=replace(grant.client, secret=secret or grant.client.secret))
        form = await _form(places, grant, asked)
        form |= {"scope": " ".join(grant.scope)} if grant.scope else {}
    else:
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token or ""}
    answer = await _asked(places, grant, "the renewal", form)
    return _granted(places, answer, grant, max(now, grant.made + 0.001))


async def _asked(places: Places, grant: Grant, what: str, form: dict[str, str]) -> dict[str, Any]:
    form |= _for(grant.resource)
    return await places.tokens(grant.token_endpoint, what, form, grant.client, grant.issuer, grant.key)


async def _form(places: Places, grant: Grant, asked: OAuth) -> dict[str, str]:
    """What the client has by itself: its own name, what somebody else signed for it, or who a person is to their company."""
    if asked.identity is not None:
        return {"grant_type": BEARER, "assertion": await _exchanged(places, grant, asked.identity)}
    if asked.assertion is not None:
        return {"grant_type": BEARER, "assertion": asked.assertion}
    return {"grant_type": "client_credentials"}


async def _exchanged(places: Places, grant: Grant, identity: Identity) -> str:
    """The identity provider's word to the authorization server (RFC 8693, and the draft on ID-JAG). It is good for minutes, for
    one request, and is not kept."""
    form = {
        "grant_type": EXCHANGE,
        "requested_token_type": ID_JAG,
        "audience": grant.issuer,
        "subject_token": identity.id_token,
        "subject_token_type": ID_TOKEN,
        **({"scope": " ".join(grant.scope)} if grant.scope else {}),
    }
    method: Method = "none" if identity.client_secret is None else "client_secret_basic"
    client = Registered(identity.client_id, identity.client_secret, method)
    what = "the exchange at the identity provider"
    answer = await places.tokens(identity.token_endpoint, what, form | _for(grant.resource), client, "")
    token = answer.get("access_token")
    if answer.get("issued_token_type") != ID_JAG or not _token(token):
        raise UpstreamFailed(f"{places.name}: {what} was answered without what was asked for")
    return str(token)


def _for(resource: str | None) -> dict[str, str]:
    return {} if resource is None else {"resource": resource}


def _granted(places: Places, answer: Mapping[str, Any], before: Grant, now: float) -> Grant:
    access, refresh, seconds = answer.get("access_token"), answer.get("refresh_token"), answer.get("expires_in")
    kind = answer.get("token_type", "Bearer")
    bound = before.key is not None and isinstance(kind, str) and kind.lower() == "dpop"
    if not bound and (not isinstance(kind, str) or kind.lower() != "bearer" or (before.key is not None and before.access_token)):
        raise UpstreamFailed(f"{places.name}: its authorization server gives tokens of another kind than was asked for")
    if not _token(access) or (refresh is not None and not _token(refresh)):
        raise UpstreamFailed(f"{places.name}: its authorization server answered without a token that can be used")
    granted = scopes_of(answer.get("scope"))
    return replace(
        before,
        access_token=access,
        refresh_token=refresh if refresh is not None else before.refresh_token,
        expires=_end(seconds, now),
        scope=tuple(dict.fromkeys((*before.scope, *granted))),
        made=now,
        key=before.key if bound else None,
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
