"""One server's sign-in: the token for each request, and what a refusal of it means.

    fresh ──60 s before its end──► renewed in the background, the old one is still sent ──5 s──► waited for
    401 ──► renewed once, and the request is made again: it was not accepted     401 to what is new ──► sign in again
    403, insufficient_scope ──► sign in again, for more; unless that was asked for at the last sign-in: then it is just refused

Rules
- One renewal however many ask, and nobody's own: who stops waiting does not end it.
- Only the authorization server's own word (invalid_grant and the like) ends a grant; that it can't be reached does not.
- A grant of an engine before this one that is still on its way to us is waited for: to renew the one before it would, where
  refresh tokens are used once, look like theft, and end them all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from rootlink.engine.mounts.remote import SignInNeeded
from rootlink.engine.oauth import keys, tokens
from rootlink.engine.oauth.discovery import Challenge, challenge
from rootlink.engine.oauth.flow import Flow
from rootlink.engine.oauth.grant import SOON, TOO_LATE, Grant
from rootlink.engine.oauth.places import NONCE, USE_NONCE, Places, Refusal
from rootlink.errors import RootlinkError, Unavailable
from rootlink.wire.mounts import MountSpec, OAuth

log = structlog.get_logger(__name__)
HANDED_OVER_SECONDS = 20.0  # for a grant that an earlier engine left sealed
MOST_AGAIN = 2  # of a request: a grant that was handed over meanwhile may be old too
AGAIN_SECONDS = 10.0  # between renewals in the background that came to nothing
VAIN_SECONDS = 30.0  # between renewals whose tokens a server refuses at once
_FINAL = frozenset({"invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"})


class Account:
    """`spec`: with its references filled in. `keep` seals a new grant and writes it down; `spawn` owns tasks; `page` begins a
    sign-in and answers its link; `asked` is what the mount asks for by now."""

    def __init__(
        self,
        ws: str,
        spec: MountSpec,
        places: Places,
        *,
        keep: Callable[[Account, Grant], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        page: Callable[[Account], Coroutine[Any, Any, str]],
        asked: Callable[[Account], OAuth],
        now: Callable[[], float] = time.time,
    ) -> None:
        assert spec.oauth is not None
        self.ws, self.spec, self.asked, self.places = ws, spec, spec.oauth, places
        self.grant: Grant | None = None
        self.said = Challenge()  # with the last refusal that needs a sign-in
        self.flow: Flow | None = None
        self._keep, self._spawn, self._page, self._asked, self._now = keep, spawn, page, asked, now
        self._key: keys.Key | None = None  # of the grant in use
        self._renewing: asyncio.Task[None] | None = None
        self._renewal: Grant | None = None  # the last one made here
        self._refused_at = -math.inf  # when it was, as soon as it was made
        self._refusal = ""  # why the authorization server renews it no more
        self._refused: OAuth | None = None  # as it was asked for then
        self._current = asyncio.Event()  # no newer grant is on its way
        self._current.set()
        self._not_before = 0.0

    @property
    def name(self) -> str:
        return self.places.name

    # its grant

    def expect(self) -> None:
        """There is a newer grant, which is handed over to the vault and comes back from there."""
        self._current.clear()

    def expect_no_more(self) -> None:
        self._current.set()

    def adopt(self, grant: Grant) -> bool:
        """Whether it was newer than what there was, and is for this server."""
        if self.grant is not None and grant.made <= self.grant.made:
            return False
        if grant.resource is not None and not self.places.same(grant.resource, self.spec.endpoint or ""):
            return False
        self.grant, self._refusal, self.said = grant, "", Challenge()
        self._not_before = 0.0
        self._current.set()
        return True

    @property
    def turned_away(self) -> bool:
        """Whether the authorization server does not know our client any more."""
        return self._refusal in ("invalid_client", "unauthorized_client")

    def forget(self, why: RootlinkError) -> None:
        """Signed out."""
        self.grant, self._refusal = None, ""
        if self.flow is not None and not self.flow.ended.done():
            self.flow.ended.set_exception(why)
            self.flow.ended.exception()  # perhaps nobody waits for it
        self.flow = None

    # a request's

    async def token(self) -> str | None:
        """To send now; None before the first sign-in. Raises SignInNeeded, EgressBlocked, UpstreamFailed, Unavailable."""
        token = await self._token()
        if self.grant is not None and self.grant.key is not None and (self._key is None or self._key.pem != self.grant.key):
            await keys.loaded()
            self._key = keys.Key(self.grant.key)
            return await self.token()  # there may be another one by now
        return token

    def dressed(self, token: str, method: str, url: str) -> dict[str, str]:
        """The headers that a request is sent with."""
        if self.grant is None or self.grant.key is None or self._key is None:
            return {"Authorization": f"Bearer {token}"}
        proof = keys.proof(self._key, method, url, self._now(), nonce=self.places.nonce(url), token=token)
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    def heard(self, url: str, headers: Mapping[str, str]) -> None:
        """What was answered, for the next proof."""
        self.places.heard(url, headers.get(NONCE))

    async def _token(self) -> str | None:
        grant, now = self.grant, self._now()
        if grant is None or grant.fresh(now, SOON) or not grant.renewable:
            return None if grant is None else grant.access_token
        if grant.fresh(now, TOO_LATE):
            if self._renewing is None and not self._refusal and now >= self._not_before:
                self._begin_renewal(grant)
            return grant.access_token
        return (await self._renewed(grant)).access_token

    async def refused(self, token: str | None, status: int, headers: Iterable[str], *, again: int) -> bool:
        """Whether a request that was answered with 401 or 403 is worth making again. `again`: how often it was. Raises as
        `token`."""
        said, grant = challenge(headers), self.grant
        if status == 403:
            if said.error != "insufficient_scope" or (grant is not None and not set(said.scopes or ()) - set(grant.scope)):
                return False
            self.said = said
            raise self._needed()
        if said.error == USE_NONCE and grant is not None and grant.key is not None:
            return again < MOST_AGAIN
        if grant is not None and again < MOST_AGAIN:
            if token != grant.access_token:
                return True
            if grant.renewable and not self._in_vain(grant, again):
                await self._renewed(grant)
                return True
        self.said = said
        raise self._needed()

    def _in_vain(self, grant: Grant, again: int) -> bool:
        """One that is new and refused is no old one; to renew it with every call would be a flood at somebody else's door."""
        if again and grant is self._renewal:
            self._refused_at = self._now()
        return grant is self._renewal and abs(self._now() - self._refused_at) < VAIN_SECONDS

    def redact(self, text: str) -> str:
        return self.places.redact(text)

    async def page(self) -> str:
        """A link to sign in with. Raises RootlinkError."""
        return await self._page(self)

    def _needed(self) -> SignInNeeded:
        if self.grant is not None and self.grant.alone:
            return SignInNeeded(
                f"{self.name} does not take what this connection signs in with any more; ask the operator to put a new one into "
                "the vault with: rootlink secrets set"
            )
        more = sorted(set(self.said.scopes or ()) - set(self.grant.scope)) if self.grant is not None else []
        if self.grant is None:
            why = "wants to be signed in to"
        elif more:
            why = f"wants more than it was signed in for ({self.places.said(', '.join(more))})"
        else:
            why = "ended its sign-in"
        return SignInNeeded(f"{self.name} {why}; ask the operator to sign in with: rootlink sign-in {self.name}")

    # renewing

    async def _renewed(self, old: Grant) -> Grant:
        """The grant after `old`. Raises."""
        if self._refusal and not (old.alone and self._asked(self) != self._refused):
            raise self._needed()
        if self._renewing is None and self.grant is old:
            self._begin_renewal(old)
        if self._renewing is not None:
            await asyncio.shield(self._renewing)
        if self.grant is None:
            raise self._needed()
        return self.grant

    def _begin_renewal(self, old: Grant) -> None:
        task = self._renewing = self._spawn(self._renew(old))
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._renewing = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._not_before = self._now() + AGAIN_SECONDS
            log.info("not_renewed", mount=self.name, why=str(error)[:200])

    async def _renew(self, old: Grant) -> None:
        try:
            async with asyncio.timeout(HANDED_OVER_SECONDS):
                await self._current.wait()
        except TimeoutError:
            raise Unavailable(f"{self.name}: its newest sign-in is on its way from the vault; try again") from None
        grant = self.grant
        if grant is None or grant.made > old.made:
            return
        try:
            asked = self._asked(self)
            fresh = await tokens.renewed(self.places, grant, self._now(), asked)
        except Refusal as refusal:
            if refusal.code_said in _FINAL and self.grant is grant:
                self._refusal, self._refused = refusal.code_said, asked
                raise self._needed() from None
            raise
        if self.grant is grant:  # else somebody signed in meanwhile
            self._keep(self, fresh)
            self._renewal = fresh
