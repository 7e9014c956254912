"""One sign-in: the link that a person opens, and whether what the browser brings back is the answer to it.

Rule 1. `state` is random, names the project for the gateway, and is good once: whatever comes of it, it is used up.
Rule 2. What comes back must be from the issuer the sign-in was begun with. `iss` is compared byte for byte (RFC 9207); one that
        was promised and is missing is refused too.
Rule 3. The code is worth something only together with the verifier (PKCE, S256), which never leaves this process but to the token
        endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from rootlink.engine.oauth.discovery import Authority, Challenge, Found
from rootlink.engine.oauth.grant import Grant, Registered
from rootlink.engine.oauth.places import Places
from rootlink.errors import Forbidden, UpstreamFailed
from rootlink.wire.engine import SignedIn

OFFLINE = "offline_access"
RANDOM_BYTES = 32  # 43 characters


def _random() -> str:
    return secrets.token_urlsafe(RANDOM_BYTES)


def scope_of(found: Found, said: Challenge, asked: Iterable[str], before: Grant | None) -> tuple[str, ...]:
    """What the challenge wants, else all that the server knows; what the connector asks for; what was granted before, if it is
    the same authority's; leave to renew where the authority has such a scope."""
    wanted = said.scopes if said.scopes is not None else found.scopes
    held = before.scope if before is not None and before.issuer == found.authority.issuer else ()
    offline = [OFFLINE] if OFFLINE in found.authority.scopes else []
    return tuple(dict.fromkeys((*held, *wanted, *asked, *offline)))


@dataclass(eq=False)
class Flow:
    """A sign-in under way. `ended` is done when it is over: with the grant, or with why there is none."""

    project: str
    authority: Authority
    client: Registered
    redirect: str
    resource: str | None
    scope: tuple[str, ...]
    until: float  # monotonic seconds
    said: Challenge = field(default_factory=Challenge)  # why it was begun
    key: str | None = field(default=None, repr=False)  # the tokens are to be bound to it
    state: str = ""
    verifier: str = field(default_factory=_random, repr=False)
    ended: asyncio.Future[Grant] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __post_init__(self) -> None:
        self.state = f"{self.project}.{_random()}"

    @property
    def more(self) -> bool:
        """Whether it is for more of what there is a sign-in for already."""
        return self.said.error == "insufficient_scope"

    def wants(self, said: Challenge) -> bool:
        """Whether it asks for what a server wants by now."""
        return set(said.scopes or ()) <= set(self.scope)

    def link(self, places: Places) -> str:
        """The page to open. Raises EgressBlocked, UpstreamFailed for one that nobody should."""
        page = places.link(self.authority.authorize, "the sign-in page")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.client.id,
            "redirect_uri": self.redirect,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": self.state,
            **({"scope": " ".join(self.scope)} if self.scope else {}),
            **({"resource": self.resource} if self.resource is not None else {}),
        }
        if OFFLINE in self.scope:
            asked["prompt"] = "consent"  # OpenID Connect Core §11: without it no leave to renew is given
        if asked.keys() & {name for name, _ in parse_qsl(urlsplit(page).query, keep_blank_values=True)}:
            raise UpstreamFailed(f"{places.name}: the sign-in page can't be used: its address says who signs in, or to where")
        return f"{page}{'&' if '?' in page else '?'}{urlencode(asked)}"

    def code(self, places: Places, answer: SignedIn) -> str:
        """The code that came back. Raises Forbidden, UpstreamFailed."""
        if answer.iss != self.authority.issuer and (answer.iss is not None or self.authority.iss):
            raise Forbidden(
                f"{places.name}: the answer to the sign-in is not from the authorization server it was begun at; it is refused"
            )
        if answer.error is not None:
            said = places.said(answer.error, answer.error_description)
            raise UpstreamFailed(f"{places.name}: nobody was signed in: {said or 'no reason was given'}")
        if not answer.code:
            raise UpstreamFailed(f"{places.name}: the answer to the sign-in holds no code")
        return answer.code
