"""Who is asking.

    /engine, /mcp    a project key, `Authorization: Bearer rl_sk_…`. It reaches its own project and nothing else of ours.
    /v1              the admin token as bearer, or the session cookie that one was exchanged for. Never a project key.

Rule 1. Nothing kept here is a credential: keys, tokens and sessions are looked up by their BLAKE3 hash. A guess learns nothing
        from the time of a look-up of its own hash; digests that decide alone are compared in constant time all the same.
Rule 2. The answer to a wrong credential is one and the same, whether it is malformed, unknown or revoked.
Rule 3. A wrong token at a sign-in costs its address a token of a small bucket; an empty bucket makes the answer 429. A right one
        is let in whatever the bucket says, so nobody can lock the owner out by guessing. Bearers are 256 random bits: there
        a limit would keep nobody from guessing and only break rule 2.
Rule 4. A revoked key is refused at once: this process forgets what it remembers of keys, and remembers a second at most anyway.
        Streams that were opened with it end.
Rule 5. What a cookie may change must be asked by a page of ours: `Sec-Fetch-Site: same-origin`, or an Origin equal to the Host.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.cookies import CookieError, SimpleCookie

import blake3
from starlette.types import Scope

from rootlink.errors import Forbidden, Unauthorized
from rootlink.gateway.guard import Head
from rootlink.gateway.ratelimit import Buckets
from rootlink.gateway.settings import GatewaySettings
from rootlink.records import Key, Keys

KEY_PREFIX = "rl_sk_"
SHOWN = len(KEY_PREFIX) + 6  # characters of a key that are kept to know it by
READS = frozenset(("GET", "HEAD"))
MOST_REMEMBERED = 10_000

_KEY = re.compile(rb"[Bb]earer +(rl_sk_[0-9a-f]{64}) *\Z")
_BEARER = re.compile(rb"[Bb]earer +([\x21-\x7e]{1,512}) *\Z")

Clock = Callable[[], float]
KeyTest = Callable[[Key], bool]


def new_key() -> str:
    """A project key: 256 random bits."""
    return KEY_PREFIX + secrets.token_hex(32)


def digest(credential: str | bytes) -> bytes:
    """What is kept of a credential: 32 bytes of BLAKE3."""
    return blake3.blake3(credential.encode() if isinstance(credential, str) else credential).digest()


def address_of(scope: Scope) -> str:
    """Whose bucket a wrong credential is taken from. An IPv6 caller owns its /64, so that is the address."""
    client = scope.get("client")
    address = str(client[0]) if client else "?"
    return ":".join(address.split(":")[:4]) if ":" in address else address


class Guesses:
    """Rule 3."""

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        self._buckets = Buckets(settings.guess_rate, settings.guess_burst, clock=clock)

    def refuse(self, scope: Scope, message: str) -> Unauthorized:
        """The answer to a wrong credential. Raises `RateLimited` instead when there were too many."""
        self._buckets.spend(address_of(scope), "wrong credentials from this address")
        return Unauthorized(message)


class KeyRing:
    """Project keys, found in the store and remembered for a moment."""

    def __init__(self, keys: Keys, settings: GatewaySettings, clock: Clock = time.monotonic) -> None:
        self._keys = keys
        self._keep = settings.key_cache_secs
        self._clock = clock
        self._known: dict[bytes, tuple[Key, float]] = {}
        self._asked: dict[tuple[bytes, int], asyncio.Task[Key | None]] = {}  # of the store, by hash and drops
        self.dropped: Callable[[KeyTest], None] = lambda test: None  # told of every drop; the relay's, to end streams
        self._drops = 0  # grows with `drop`, so that a look-up begun before it is not remembered after it

    async def holder(self, head: Head) -> Key:
        """The key a request carries. Raises `Unauthorized`."""
        if head.authorization is None:
            raise Unauthorized("A project key is needed: send Authorization: Bearer rl_sk_…")
        match = _KEY.match(head.authorization)
        key = await self._find(digest(match[1])) if match else None
        if key is None:
            raise Unauthorized("This project key is not valid")
        return key

    def drop(self, test: KeyTest) -> None:
        """The keys that pass `test` are valid no more: one was revoked, or its project deleted."""
        self._drops += 1
        self._known.clear()
        self.dropped(test)

    async def _find(self, hash: bytes) -> Key | None:
        now = self._clock()
        known = self._known.get(hash)
        if known is not None and now < known[1]:
            return known[0]
        about = hash, self._drops  # who asks after a drop is not told what was found before it
        asked = self._asked.get(about)
        if asked is None:  # one look-up for all who ask at once: more are more threads, and each keeps memory of its own
            asked = self._asked[about] = asyncio.create_task(asyncio.to_thread(self._keys.find, hash))
            asked.add_done_callback(partial(self._found, about, now + self._keep))
        return await asyncio.shield(asked)

    def _found(self, about: tuple[bytes, int], until: float, asked: asyncio.Task[Key | None]) -> None:
        del self._asked[about]
        hash, drops = about
        if asked.cancelled() or asked.exception() is not None:
            return
        key = asked.result()
        if key is None:
            self._known.pop(hash, None)
        elif drops == self._drops:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[hash] = (key, until)


@dataclass(frozen=True, slots=True)
class Operator:
    """Who may use `/v1`. `actor`: as the audit log has it; `session`: the hash of theirs; `expires_in`: seconds."""

    actor: str
    session: bytes | None = None
    expires_in: int | None = None


class Operators:
    """The admin token, the sessions it opens, and the one-time links. All in memory: a restart signs everybody out."""

    def __init__(self, settings: GatewaySettings, guesses: Guesses, clock: Clock = time.monotonic) -> None:
        self._admin = digest(settings.admin_token)
        self._secure = settings.secure_cookies
        self._session_secs = settings.session_secs
        self._link_secs = settings.link_secs
        self._guesses = guesses
        self._clock = clock
        self._sessions: dict[bytes, float] = {}  # hash → ends at
        self._links: dict[bytes, float] = {}
        self.cookie = "__Host-rootlink_session" if settings.secure_cookies else "rootlink_session"

    def operator(self, scope: Scope, head: Head) -> Operator:
        """Who a request to `/v1` comes from. Raises `Unauthorized`, and `Forbidden` for rule 5."""
        if head.authorization is not None:
            return self._by_token(head.authorization)
        token = self._cookie_of(head)
        if token is None:
            raise Unauthorized("Sign in, or send the admin token: Authorization: Bearer …")
        return self._by_session(scope, head, token)

    def sign_in(self, scope: Scope, token: str) -> str:
        """A new session for the admin token or a one-time token, as its `Set-Cookie`. Raises `Unauthorized`, `RateLimited`."""
        hash = digest(token)
        if not (hmac.compare_digest(hash, self._admin) or self._redeem(hash)):
            raise self._guesses.refuse(scope, "This token is not valid, or was used already")
        return self._begin()

    def redeem(self, scope: Scope, token: str) -> str:
        """`sign_in` for a one-time token alone: the admin token is nothing for a URL. Raises `Unauthorized`, `RateLimited`."""
        if not self._redeem(digest(token)):
            raise self._guesses.refuse(scope, "This sign-in link was used already or has expired; make another: rootlink status")
        return self._begin()

    def _begin(self) -> str:
        session = secrets.token_urlsafe(32)
        self._sweep(self._sessions)
        self._sessions[digest(session)] = self._clock() + self._session_secs
        return self._set_cookie(session, int(self._session_secs))

    def sign_out(self, operator: Operator) -> str:
        """Ends the operator's session, if it is one; the `Set-Cookie` that clears it."""
        if operator.session is not None:
            self._sessions.pop(operator.session, None)
        return self._set_cookie("", 0)

    def link(self) -> tuple[str, int]:
        """A one-time token and how many seconds it is good for."""
        token = secrets.token_urlsafe(32)
        self._sweep(self._links)
        self._links[digest(token)] = self._clock() + self._link_secs
        return token, int(self._link_secs)

    def _by_token(self, authorization: bytes) -> Operator:
        match = _BEARER.match(authorization)
        if match is None or not hmac.compare_digest(digest(match[1]), self._admin):
            raise Unauthorized("This token is not valid here")
        return Operator("admin")

    def _by_session(self, scope: Scope, head: Head, token: str) -> Operator:
        hash = digest(token)
        left = self._sessions.get(hash, 0.0) - self._clock()
        if left <= 0:
            self._sessions.pop(hash, None)
            raise Unauthorized("This session has ended; sign in again")
        if scope["method"] not in READS:
            _same_origin(scope, head, secure=self._secure)
        return Operator("session", hash, int(left))

    def _cookie_of(self, head: Head) -> str | None:
        for header in head.cookies:
            try:
                found = SimpleCookie(header.decode("latin-1")).get(self.cookie)
            except CookieError:
                continue
            if found is not None:
                return found.value
        return None

    def _redeem(self, hash: bytes) -> bool:
        ends = self._links.pop(hash, None)
        return ends is not None and self._clock() < ends

    def _sweep(self, kept: dict[bytes, float]) -> None:
        now = self._clock()
        for hash in [hash for hash, ends in kept.items() if ends <= now]:
            del kept[hash]

    def _set_cookie(self, value: str, age: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def _same_origin(scope: Scope, head: Head, *, secure: bool) -> None:
    scheme = "https" if secure else scope["scheme"]
    if head.fetch_site is not None:
        ours = head.fetch_site == "same-origin"
    else:
        ours = head.origin is not None and head.origin.lower() == f"{scheme}://{head.host.lower()}"
    if not ours:
        raise Forbidden("A change by session must come from the Console's own pages (same origin)")
