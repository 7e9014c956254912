"""Which URLs of an authorization server are spoken with, and shown to a person; requests to them.

Rule 1. https. http for an address written in the URL that is a loopback one or that the operator opened (`--allow-private`), and
        for `localhost`.
Rule 2. No user name, no fragment; what `egress/urls.py` reads plainly as one host. A link for a person is plain ASCII besides.
Rule 3. No redirect is followed: a code, a client's secret or a refresh token goes to the URL that was checked or nowhere.
Rule 4. A proof (DPoP) is made for one request. The nonce a place gives goes into the next one to it.
Rule 5. An answer has at most `CAP` bytes and `SECONDS`, and must be a JSON object.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec

from rootlink.egress import addresses, urls
from rootlink.egress.policy import Decision
from rootlink.engine.oauth import keys
from rootlink.engine.oauth.grant import Registered
from rootlink.engine.outbound import Scope, read_capped
from rootlink.errors import TooLarge, UpstreamFailed

CAP = 256 << 10
SECONDS = 20.0
SHOWN = 200  # characters of another side's words
_PLAIN = re.compile(r"[\x21-\x7e]+\Z")
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}\Z")  # RFC 9449 §8.1
NONCE, USE_NONCE = "DPoP-Nonce", "use_dpop_nonce"
ASSERTED = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LOCAL = addresses.networks(["127.0.0.0/8", "::1/128"])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Refusal(UpstreamFailed):
    """An OAuth error answer. `code` is the authorization server's, "" when it named none."""

    def __init__(self, message: str, code: str, http: int) -> None:
        super().__init__(message)
        self.code_said, self.http = code, http


class Places:
    """`private`: CIDRs the operator opened. `redact`: other sides' words before they are shown."""

    def __init__(self, name: str, scope: Scope, private: list[str], redact: Callable[[str], str]) -> None:
        self.name, self.scope, self.redact = name, scope, redact
        self._plain_http = (*_LOCAL, *addresses.networks(private))
        self._nonces: dict[str, str] = {}  # by origin

    def origin(self, url: str) -> str:
        """`https://host:port` of a URL that rule 1 and 2 let through."""
        target = self._target(url, "the server's endpoint")
        return f"{target.url.scheme}://{target.url.raw_authority}"

    def checked(self, url: object, what: str) -> str:
        """`url` if it may be asked (rules 1 and 2). Raises UpstreamFailed naming `what`, never the URL."""
        if not isinstance(url, str):
            raise UpstreamFailed(f"{self.name}: {what} is no URL")
        self._target(url, what)
        return url

    def _target(self, url: str, what: str) -> urls.Target:
        target = urls.read(url)
        if isinstance(target, Decision):
            raise UpstreamFailed(f"{self.name}: {what} can't be used: {target.message}")
        if target.url.raw_fragment:
            raise UpstreamFailed(f"{self.name}: {what} can't be used: it has a fragment")
        local = target.host == "localhost" or addresses.within(target.host, self._plain_http)
        if target.url.scheme != "https" and not local:
            raise UpstreamFailed(
                f"{self.name}: {what} is on host '{target.host}' without TLS; only https is spoken with who holds credentials"
            )
        return target

    def link(self, url: object, what: str) -> str:
        """A page that a person is asked to open: its host must be one the project may reach besides. Raises EgressBlocked too."""
        checked = self.checked(url, what)
        if not _PLAIN.match(checked):
            raise UpstreamFailed(f"{self.name}: {what} holds characters that no URL has")
        self.scope.check(checked)
        return checked

    def same(self, one: str, other: str) -> bool:
        """Whether `one` is `other`, or is above it on the same host (RFC 8707: a resource may be named by what it lies under)."""
        above, below = urls.read(one), urls.read(other)
        if isinstance(above, Decision) or isinstance(below, Decision) or above.origin != below.origin:
            return False
        if above.url.raw_query_string and above.url.raw_query_string != below.url.raw_query_string:
            return False
        path = above.url.raw_path.rstrip("/")
        return below.url.raw_path.rstrip("/") == path or below.url.raw_path.startswith(path + "/")

    async def document(self, url: str, what: str) -> dict[str, Any] | None:
        """The JSON object at `url`; None when there is none. Raises EgressBlocked, UpstreamFailed."""
        async with self.scope.request(
            "GET", self.checked(url, what), headers={"Accept": "application/json"}, timeout=SECONDS
        ) as response:
            if response.status >= 500:
                raise UpstreamFailed(f"{self.name}: {what} could not be read: HTTP {response.status}")
            if response.status != 200:
                return None
            return _object(await self._body(response, what))

    async def post(self, url: str, what: str, json: Any) -> dict[str, Any]:
        """The JSON object answered. Raises EgressBlocked, Refusal, UpstreamFailed."""
        return await self._posted(url, what, {"Content-Type": "application/json"}, msgspec.json.encode(json))

    async def tokens(
        self, url: str, what: str, form: Mapping[str, str], client: Registered, issuer: str, key: str | None = None
    ) -> dict[str, Any]:
        """What a token endpoint answered. `client` says who it is by its method; `key`: the tokens are to be bound to it. Raises
        Invalid, EgressBlocked, Refusal, UpstreamFailed."""
        if key is not None:
            await keys.loaded()
        before = self.nonce(url)
        try:
            return await self._asked(url, what, form, client, issuer, key)
        except Refusal as refusal:
            if refusal.code_said != USE_NONCE or self.nonce(url) == before:
                raise
        return await self._asked(url, what, form, client, issuer, key)

    async def _asked(
        self, url: str, what: str, form: Mapping[str, str], client: Registered, issuer: str, key: str | None
    ) -> dict[str, Any]:
        fields = dict(form)
        headers = {"Content-Type": "application/x-www-form-urlencoded", **await _identified(client, issuer, fields)}
        if key is not None:
            headers["DPoP"] = keys.proof(keys.Key(key), "POST", url, time.time(), nonce=self.nonce(url))
        return await self._posted(url, what, headers, urlencode(fields).encode())

    async def _posted(self, url: str, what: str, headers: dict[str, str], data: bytes) -> dict[str, Any]:
        headers = {"Accept": "application/json", **headers}
        async with self.scope.request("POST", self.checked(url, what), headers=headers, data=data, timeout=SECONDS) as response:
            self.heard(url, response.headers.get(NONCE))
            body = _object(await self._body(response, what))
            if response.status in (200, 201) and body is not None:
                if isinstance(body.get("error"), str) and "access_token" not in body:  # some say so with 200
                    raise self.refusal(what, body, 400)
                return body
            raise self.refusal(what, body or {}, response.status)

    def nonce(self, url: str) -> str | None:
        """What the next proof for this place must hold."""
        return self._nonces.get(self.origin(url))

    def heard(self, url: str, nonce: str | None) -> None:
        if nonce is not None and _NONCE.match(nonce):
            self._nonces[self.origin(url)] = nonce

    def refusal(self, what: str, body: Mapping[str, Any], status: int) -> Refusal:
        code = body.get("error")
        said = self.said(code, body.get("error_description"))
        words = f"{self.name}: {what} was refused: {said or f'HTTP {status}'}"
        return Refusal(words, code if isinstance(code, str) else "", status)

    def said(self, *words: object) -> str:
        """Another side's words, shortened, on one line, without what is secret."""
        texts = (" ".join(word[:4096].split()) for word in words if isinstance(word, str) and word.strip())
        plain = ("".join(c for c in text if c.isprintable()) for text in texts)
        return ", ".join(self.redact(text)[:SHOWN] for text in plain)

    async def _body(self, response: Any, what: str) -> bytes:
        try:
            return await read_capped(response, CAP)
        except TooLarge:
            raise UpstreamFailed(f"{self.name}: {what} has more than {CAP >> 10} KiB") from None


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(body)
    except _UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


async def _identified(client: Registered, issuer: str, fields: dict[str, str]) -> dict[str, str]:
    """Who asks, in the header or, put into `fields`, in the form (RFC 6749 §2.3.1, RFC 7523 §2.2). Raises Invalid."""
    if client.method == "client_secret_basic":
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret or '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    fields["client_id"] = client.id
    if client.method == "client_secret_post" and client.secret is not None:
        fields["client_secret"] = client.secret
    if client.method == "private_key_jwt":
        fields["client_assertion_type"] = ASSERTED
        fields["client_assertion"] = await asyncio.to_thread(_assertion, client, issuer)
    return {}


def _assertion(client: Registered, issuer: str) -> str:
    return keys.assertion(keys.Key(client.secret or ""), client.id, issuer, time.time())
