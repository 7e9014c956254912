"""As which client a sign-in is made.

`client_id` given          it, at whatever authorization server the operator meant it for
… and it is an https URL   a metadata document: where the server takes such; else one registers itself
none                       the client of the grant there is, if it is of this issuer; else one registers itself (RFC 7591)

A client's secret belongs to one issuer. Which one is settled by the first sign-in; another one later is not shown it.
"""

from __future__ import annotations

from typing import cast, get_args

from rootlink.egress import addresses, urls
from rootlink.egress.policy import Decision
from rootlink.engine.oauth.discovery import Authority
from rootlink.engine.oauth.grant import Grant, Method, Registered
from rootlink.engine.oauth.places import Places
from rootlink.errors import UpstreamFailed
from rootlink.wire.mounts import OAuth

NAME = "Rootlink"
_METHODS: tuple[Method, ...] = ("client_secret_basic", "client_secret_post", "none")  # best first
_LOCAL = addresses.networks(["127.0.0.0/8", "::1/128"])


async def client(places: Places, authority: Authority, asked: OAuth, before: Grant | None, *, reuse: bool) -> Registered:
    """`before`: the grant there is. `reuse`: whether its client may be used again. Raises EgressBlocked, UpstreamFailed."""
    elsewhere = before is not None and before.issuer != authority.issuer
    document = asked.client_id is not None and asked.client_id.startswith("https://")
    if asked.client_id is not None and not document:
        if elsewhere and (asked.client_secret is not None or asked.private_key is not None):
            raise UpstreamFailed(
                f"{places.name} names another authorization server than the one its client was registered at; if that is right, "
                "disconnect it, register a client there, and connect it again"
            )
        return beforehand(authority, asked)
    if asked.client_id is not None and authority.documents:
        return Registered(asked.client_id)
    if before is not None and not elsewhere and reuse:
        return before.client
    if authority.register is None:
        raise UpstreamFailed(
            f"{places.name}: its authorization server registers no clients by itself; register one there, and give its client_id"
        )
    return await _registered(places, authority, asked)


def beforehand(authority: Authority, asked: OAuth) -> Registered:
    assert asked.client_id is not None
    if asked.private_key is not None:
        return Registered(asked.client_id, asked.private_key, "private_key_jwt")
    if asked.client_secret is None:
        return Registered(asked.client_id)
    offered = authority.methods or _METHODS[:1]  # RFC 8414: basic, unless it says otherwise
    post = "client_secret_post" in offered and "client_secret_basic" not in offered
    return Registered(asked.client_id, asked.client_secret, "client_secret_post" if post else "client_secret_basic")


async def _registered(places: Places, authority: Authority, asked: OAuth) -> Registered:
    offered = authority.methods or _METHODS[:1]
    wanted = next((method for method in _METHODS if method in offered), "none")
    answer = await places.post(
        authority.register or "",
        "the registration of a client",
        {
            "client_name": NAME,
            "redirect_uris": [asked.redirect],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": wanted,
            "application_type": "native" if _loopback(asked.redirect) else "web",
        },
    )
    id, secret = answer.get("client_id"), answer.get("client_secret")
    if not isinstance(id, str) or not id:
        raise UpstreamFailed(f"{places.name}: the registration of a client was answered without a client_id")
    if not isinstance(secret, str) or not secret:
        return Registered(id)
    said = answer.get("token_endpoint_auth_method", wanted)
    if said not in get_args(Method):
        raise UpstreamFailed(f"{places.name}: its authorization server wants a client to say who it is in a way not known here")
    return Registered(id, secret, cast(Method, said))


def _loopback(redirect: str) -> bool:
    read = urls.read(redirect)
    return not isinstance(read, Decision) and (read.host == "localhost" or addresses.within(read.host, _LOCAL))
