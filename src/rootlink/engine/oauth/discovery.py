"""Which authorization server a server trusts, and what that one offers.

    401 ─► WWW-Authenticate: resource_metadata ─┐
           else /.well-known/oauth-protected-resource, with the endpoint's path, then without ─► its `authorization_servers`
           none of them (2025-03-26): the server's own origin                                          │
    issuer ─► RFC 8414, path put in ─► OpenID, path put in ─► OpenID, path in front ◄──────────────────┘

Rule 1. `resource` must be the server that was asked, or lie above it on the same host: else somebody wants a token for another.
Rule 2. The metadata's `issuer` is, byte for byte, the one it was looked up by: else somebody speaks for another.
Rule 3. PKCE with S256 is offered, or nobody signs in. Only where there is no metadata at all is it taken for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rootlink.engine.oauth.keys import ALGORITHM
from rootlink.engine.oauth.places import Places
from rootlink.errors import UpstreamFailed

MOST_SCOPES = 100
_RESOURCE = "/.well-known/oauth-protected-resource"
_OAUTH, _OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
_SCHEME = re.compile(r"\s*(Bearer|DPoP)(?:\s+|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|\Z)')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}\Z")  # RFC 6749 §3.3


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server said when it refused. `scopes` None: nothing of them. `bound`: it takes tokens with proofs (DPoP)."""

    error: str = ""
    metadata: str | None = None
    scopes: tuple[str, ...] | None = None
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """An authorization server. `iss`: it promised to say in its answer who it is (RFC 9207)."""

    issuer: str
    authorize: str
    token: str
    register: str | None = None
    methods: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    iss: bool = False
    documents: bool = False  # takes the URL of a client's metadata as its id
    proofs: tuple[str, ...] = ()  # algorithms of proofs that it binds tokens to (RFC 9449)


@dataclass(frozen=True, slots=True)
class Found:
    """`resource`: as it is named in requests for tokens. `scopes`: what to ask for, unless the challenge said. `bound`: tokens
    are asked for with proofs, because the server wants that and its authority can do it."""

    authority: Authority
    resource: str
    scopes: tuple[str, ...] = ()
    bound: bool = False


def challenge(headers: Iterable[str]) -> Challenge:
    """The first challenge of `WWW-Authenticate` headers that is for tokens; what can't be read is left out."""
    found = [(header, begin) for header in headers if (begin := _SCHEME.match(header)) is not None]
    if not found:
        return Challenge()
    header, begin = found[0]
    members = dict(_parameters(header[begin.end() :]))
    scope = members.get("scope")
    return Challenge(
        members.get("error", "")[:100],
        members.get("resource_metadata"),
        None if scope is None else scopes_of(scope),
        any(begin[1].lower() == "dpop" for _, begin in found),
    )


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while (found := _PARAMETER.match(text, at)) is not None:
        at = found.end()
        quoted = found[2]
        yield found[1].lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else found[3]


def scopes_of(named: object) -> tuple[str, ...]:
    """Scopes of a text or a list; what is none is left out."""
    parts = named.split() if isinstance(named, str) else named if isinstance(named, list) else []
    known = dict.fromkeys(part for part in parts if isinstance(part, str) and _SCOPE.match(part))
    return tuple(known)[:MOST_SCOPES]


async def discover(places: Places, endpoint: str, said: Challenge) -> Found:
    """Raises EgressBlocked, UpstreamFailed, which name what is missing or wrong."""
    resource = await _resource(places, endpoint, said)
    if resource is None:
        origin = places.origin(endpoint)
        authority = await _authority(places, origin) or _by_default(origin)
        return Found(authority, _bare(endpoint), bound=said.bound and ALGORITHM in authority.proofs)
    issuers = _texts(resource.get("authorization_servers"))
    if not issuers:
        raise UpstreamFailed(f"{places.name} names no authorization server to sign in at")
    found = await _authority(places, issuers[0])
    if found is None:
        raise UpstreamFailed(f"{places.name}: its authorization server publishes no metadata, so nobody can sign in there")
    wants = said.bound or resource.get("dpop_bound_access_tokens_required") is True
    scopes = scopes_of(resource.get("scopes_supported"))
    return Found(found, str(resource["resource"]), scopes, bound=wants and ALGORITHM in found.proofs)


def _bare(endpoint: str) -> str:
    return endpoint.partition("#")[0]


async def _resource(places: Places, endpoint: str, said: Challenge) -> dict[str, Any] | None:
    """The protected resource's metadata (RFC 9728)."""
    what = "the metadata of its sign-in"
    origin, path = places.origin(endpoint), urlsplit(endpoint).path.rstrip("/")
    named = [said.metadata] if said.metadata is not None else []
    for url in dict.fromkeys([*named, *([f"{origin}{_RESOURCE}{path}"] if path else []), f"{origin}{_RESOURCE}"]):
        found = await places.document(url, what)
        if found is None:
            continue
        resource = found.get("resource")
        if not isinstance(resource, str) or not places.same(resource, endpoint):
            raise UpstreamFailed(f"{places.name} wants a sign-in for another server than itself; that is refused")
        return found
    return None


async def _authority(places: Places, issuer: str) -> Authority | None:
    what = "the metadata of its authorization server"
    origin, path = places.origin(places.checked(issuer, "its authorization server")), urlsplit(issuer).path.rstrip("/")
    at = [f"{origin}{_OAUTH}{path}", f"{origin}{_OPENID}{path}", *([f"{origin}{path}{_OPENID}"] if path else [])]
    for url in at:
        found = await places.document(url, what)
        if found is not None:
            return _read(places, issuer, found)
    return None


def _read(places: Places, issuer: str, found: dict[str, Any]) -> Authority:
    if found.get("issuer") != issuer:
        raise UpstreamFailed(f"{places.name}: the metadata of its authorization server names another issuer; that is refused")
    if "S256" not in _texts(found.get("code_challenge_methods_supported")):
        raise UpstreamFailed(f"{places.name}: its authorization server does not offer PKCE with S256, so nobody signs in there")
    register = found.get("registration_endpoint")
    return Authority(
        issuer=issuer,
        authorize=places.checked(found.get("authorization_endpoint", ""), "the sign-in page"),
        token=places.checked(found.get("token_endpoint"), "the token endpoint"),
        register=None if register is None else places.checked(register, "the registration endpoint"),
        methods=_texts(found.get("token_endpoint_auth_methods_supported")),
        scopes=scopes_of(found.get("scopes_supported")),
        iss=found.get("authorization_response_iss_parameter_supported") is True,
        documents=found.get("client_id_metadata_document_supported") is True,
        proofs=_texts(found.get("dpop_signing_alg_values_supported")),
    )


def _by_default(origin: str) -> Authority:
    """Of 2025-03-26, which knew where everything is."""
    return Authority(origin, f"{origin}/authorize", f"{origin}/token", f"{origin}/register")


def _texts(found: object) -> tuple[str, ...]:
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()
