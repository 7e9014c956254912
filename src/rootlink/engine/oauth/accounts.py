"""Who is signed in where, for the mounts of one engine.

    the vault ──secrets──► Accounts ──token for each request──► a mount's link (mounts/remote.py)
        ▲                     │ a new grant: sealed, written down (state.py), then used
        └──/internal/grants───┘ until the provisioner says it has it

An account is known by the vault's name of its grant. Grants are the engine's own: neither a function nor a reference in a mount's
spec can have one, and that one comes back from the vault restarts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec
import structlog

from rootlink.engine.mounts.mount import silent
from rootlink.engine.mounts.remote import SignInNeeded
from rootlink.engine.mounts.spec import Values, filled
from rootlink.engine.oauth import discovery, flow, keys, registration, tokens
from rootlink.engine.oauth.account import Account
from rootlink.engine.oauth.flow import Flow
from rootlink.engine.oauth.grant import Grant, written
from rootlink.engine.oauth.places import Places
from rootlink.engine.outbound import Outbound
from rootlink.engine.state import State
from rootlink.errors import Invalid, NotFound, RootlinkError, Unavailable
from rootlink.redaction import Redactor
from rootlink.wire import engine as wire
from rootlink.wire.mounts import Desired, Identity, MountSpec, OAuth, Step

log = structlog.get_logger(__name__)
SIGN_IN_SECONDS = 600.0
TELL_SECONDS = 20.0
WORTH_SECONDS = 120.0  # a link that is good for so long yet is handed out again
BACK_SECONDS = 3.0  # a sign-in's end waits so long for its mount
CLOSE_SECONDS = 5.0  # for renewals under way: their tokens would be lost
MOST_FLOWS = 1000
HIDDEN = 6  # grants of one sign-in whose tokens are hidden: the one in use, and those before it
GONE = "the connection was taken away while it was signed in to"


class Held(Protocol):
    """A mount."""

    @property
    def spec(self) -> MountSpec: ...
    @property
    def state(self) -> str: ...


class Mounted(Protocol):
    """What is needed of the engine's mounts (`mounts/supervisor.py`)."""

    @property
    def secrets(self) -> Mapping[str, str]: ...
    def find(self, ws: str, name: str) -> Held | None: ...
    async def trial(self, ws: str, spec: MountSpec, progress: Callable[[str], None]) -> object:
        """Started and ended. Raises what a start came to."""
        ...

    async def restart(self, ws: str, name: str) -> None: ...


class Accounts:
    """`grants`: by the vault's name, as the engine was given them. `seal`: EngineConfig.seal. `mounts` is asked late, for it asks
    for `credential` itself."""

    def __init__(
        self,
        *,
        project: str,
        seal: str,
        state: State,
        outbound: Outbound,
        private: list[str],
        redactor: Redactor,
        grants: Mapping[str, Grant],
        mounts: Callable[[], Mounted],
    ) -> None:
        self._project, self._seal, self._state, self._outbound = project, seal, state, outbound
        self._private, self._redactor, self._mounts = private, redactor, mounts
        self._given = dict(grants)
        self._accounts: dict[str, Account] = {}
        self._connections: dict[str, str] = {}  # id → secret
        self._flows: dict[str, tuple[Account, Flow]] = {}  # by state
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning: dict[str, asyncio.Lock] = {}  # by secret
        self._earlier = {row.secret for row in state.grants()}  # handed over by nobody before this engine
        self._hidden: dict[str, list[Grant]] = {}  # by secret, oldest first: whose tokens are hidden in texts
        for secret, grant in grants.items():
            self._learn(secret, grant)

    # for mounts

    def credential(self, ws: str, spec: MountSpec) -> Account | None:
        """For a mount that is dialled; None: nobody signs in to it. One that is just tried, at another endpoint than the mount's
        own, is given nobody's."""
        if spec.oauth is None:
            return None
        spec = self._filled(spec)
        account = self._accounts.get(spec.oauth.secret) if spec.oauth is not None else None
        if account is None:
            return self._registered(ws, spec)
        return account if account.spec.endpoint == spec.endpoint else self._made(ws, spec)

    def _registered(self, ws: str, spec: MountSpec) -> Account:
        """The account of a mount as it is now. A grant for another endpoint is left behind."""
        account = self._made(ws, spec)
        secret = account.asked.secret
        before = self._accounts.get(secret)
        for grant in (before.grant if before is not None else None, self._given.get(secret)):
            if grant is not None:
                account.adopt(grant)
        if secret in self._earlier:
            account.expect()
        self._accounts[secret] = account
        return account

    def _made(self, ws: str, spec: MountSpec) -> Account:
        places = Places(spec.name, self._outbound.scope(spec.name, spec.egress), self._private, self._redactor)
        return Account(ws, spec, places, keep=self._keep, spawn=self._spawn, page=self._page, asked=self._asked)

    def _filled(self, spec: MountSpec) -> MountSpec:
        """With references filled in, as far as a sign-in needs it."""
        assert spec.oauth is not None
        values = Values(self._mounts().secrets, {})

        def put(text: str | None) -> str | None:
            return None if text is None else filled(spec.name, text, values)

        identity = spec.oauth.identity
        if identity is not None:
            identity = Identity(
                put(identity.token_endpoint) or "",
                put(identity.client_id) or "",
                put(identity.id_token) or "",
                put(identity.client_secret),
            )
        asked = msgspec.structs.replace(
            spec.oauth,
            client_id=put(spec.oauth.client_id),
            client_secret=put(spec.oauth.client_secret),
            private_key=put(spec.oauth.private_key),
            assertion=put(spec.oauth.assertion),
            identity=identity,
        )
        theirs = (identity.id_token, identity.client_secret) if identity is not None else ()
        self._redactor.learn([each for each in (asked.client_secret, asked.private_key, asked.assertion, *theirs) if each])
        return msgspec.structs.replace(spec, endpoint=put(spec.endpoint), oauth=asked)

    # a connect

    async def ready(self, desired: Desired, tell: Callable[[Step], None]) -> None:
        """Returns when a connection has all the sign-ins it needs; `tell` is given the link that a person must open. Raises when
        nobody signed in, in words."""
        if desired.mount is None or desired.mount.oauth is None:
            return
        spec = self._filled(desired.mount)
        held = self._accounts.get(desired.mount.oauth.secret)
        account = held if held is not None and _serves(held, desired.ws, spec) else self._registered(desired.ws, spec)
        account.asked = spec.oauth or account.asked
        self._connections[desired.id] = account.asked.secret
        if account.grant is not None:
            return
        try:
            await self._mounts().trial(desired.ws, desired.mount, silent)
            return  # it lets everybody in
        except SignInNeeded:
            pass
        if not account.asked.redirect:
            await self._alone(account)
            return
        link = await self._page(account)
        sign_in = account.flow
        assert sign_in is not None
        loop = asyncio.get_running_loop()
        while (left := sign_in.until - loop.time()) > 0:
            tell(Step("install", "running", f"Sign in to {spec.name}: open the link", link=link))
            await asyncio.wait({sign_in.ended}, timeout=min(left, TELL_SECONDS))
            if sign_in.ended.done():
                sign_in.ended.result()
                return
        raise Unavailable(f"nobody signed in to {spec.name} within {SIGN_IN_SECONDS / 60:.0f} minutes; connect it again")

    async def _alone(self, account: Account) -> None:
        """Without a redirect there is nobody to sign in: the client does by itself."""
        spec, asked = account.spec, account.asked
        found = await discovery.discover(account.places, spec.endpoint or "", account.said)
        own = asked.client_secret or asked.private_key or asked.assertion or asked.identity
        if asked.client_id is None or own is None:
            raise Invalid(f"{spec.name}: to sign in without a person, a client_id and a client_secret or private key are needed")
        scope = flow.scope_of(found, account.said, asked.scopes, None)
        grant = await tokens.alone(
            account.places,
            found.authority,
            asked,
            resource=found.resource,
            scope=scope,
            now=time.time(),
            key=await self._key_for(found),
        )
        self._keep(account, grant)

    async def _key_for(self, found: discovery.Found) -> str | None:
        """Of the tokens that are about to be asked for."""
        if not found.bound:
            return None
        await keys.loaded()
        return keys.made()

    # a sign-in

    @property
    def waiting(self) -> bool:
        """Whether a person may be signing in just now. What that needs to end is in memory alone."""
        now = asyncio.get_running_loop().time()
        return any(not held.ended.done() and held.until > now for _, held in self._flows.values())

    def knows(self, state: str) -> bool:
        return state in self._flows

    async def begin(self, connection: str) -> str:
        """The link of a sign-in for a connection that is there. Raises NotFound, Invalid, and what discovery raises."""
        account = self._account_of(connection)
        if account is None:
            raise Invalid("this connection is not one that a person signs in to")
        return await self._page(account)

    async def _page(self, account: Account) -> str:
        """The link of the sign-in under way, or of a new one."""
        secret = account.asked.secret
        async with self._beginning.setdefault(secret, asyncio.Lock()):
            now = asyncio.get_running_loop().time()
            held = account.flow
            if held is not None and not held.ended.done() and held.until - now > WORTH_SECONDS and held.wants(account.said):
                return held.link(account.places)
            begun = await self._begun(account, now)
            link = begun.link(account.places)
            self._drop(held, "this sign-in was begun anew; use the newest link")
            self._forget_old_flows(now)
            account.flow = begun
            self._flows[begun.state] = (account, begun)
            self._redactor.learn([begun.verifier])
            return link

    async def _begun(self, account: Account, now: float) -> Flow:
        asked, spec = self._asked(account), account.spec
        if not self._seal:
            raise Invalid(f"{spec.name} can't be signed in to here: this engine was given no key to seal the sign-in with")
        found = await discovery.discover(account.places, spec.endpoint or "", account.said)
        client = await registration.client(account.places, found.authority, asked, account.grant, reuse=not account.turned_away)
        if client.secret:
            self._redactor.learn([client.secret])
        scope = flow.scope_of(found, account.said, asked.scopes, account.grant)
        until = now + SIGN_IN_SECONDS
        return Flow(
            self._project,
            found.authority,
            client,
            asked.redirect,
            found.resource,
            scope,
            until,
            account.said,
            await self._key_for(found),
        )

    def _asked(self, account: Account) -> OAuth:
        """As it is now: its client's secret may have been rotated since it was mounted."""
        mount = self._mounts().find(account.ws, account.name)
        spec = mount.spec if mount is not None else None
        if spec is None or spec.oauth is None or spec.oauth.secret != account.asked.secret:
            return account.asked
        return self._filled(spec).oauth or account.asked

    async def end(self, answer: wire.SignedIn) -> str:
        """What the browser brought back. Answers the connection's name. Raises NotFound for a sign-in nobody began, or that ended
        before; else what was wrong with it. Either way it is over."""
        account, sign_in = self._flows.pop(answer.state, (None, None))
        if account is None or sign_in is None or sign_in.until < asyncio.get_running_loop().time():
            raise NotFound("this sign-in is not known: it was ended before, or took too long; begin it again")
        if answer.code:
            self._redactor.learn([answer.code])
        try:
            code = sign_in.code(account.places, answer)
            grant = await tokens.by_code(
                account.places,
                sign_in.authority,
                sign_in.client,
                code=code,
                verifier=sign_in.verifier,
                redirect=sign_in.redirect,
                resource=sign_in.resource,
                scope=sign_in.scope,
                now=max(time.time(), account.grant.made + 0.001 if account.grant is not None else 0.0),
                key=sign_in.key,
            )
            if self._accounts.get(account.asked.secret) is not account:
                raise NotFound(GONE)
            self._keep(account, grant)
        except BaseException as error:  # whatever it was: who waits must hear of it
            broken_off = Unavailable(f"the sign-in to {account.name} was broken off; begin it again")
            _settle(sign_in, error if isinstance(error, RootlinkError) else broken_off)
            raise
        if not sign_in.ended.done():
            sign_in.ended.set_result(grant)
        await self._come_back(account, sign_in)
        return account.name

    async def _come_back(self, account: Account, sign_in: Flow) -> None:
        """What was mounted as somebody else, or not at all, begins anew, and is waited for a moment: whoever was sent to sign in
        asks again at once. What just may do more goes on."""
        mount = self._mounts().find(account.ws, account.name)
        if mount is not None and not (mount.state == "ready" and sign_in.more):
            await asyncio.wait({self._spawn(self._restart(account.ws, account.name))}, timeout=BACK_SECONDS)

    async def _restart(self, ws: str, name: str) -> None:
        try:
            await self._mounts().restart(ws, name)
        except RootlinkError as error:
            log.warning("mount_restart", ws=ws, mount=name, why=error.message)

    def _drop(self, held: Flow | None, why: str) -> None:
        if held is not None:
            self._flows.pop(held.state, None)
            _settle(held, NotFound(why))

    def _forget_old_flows(self, now: float) -> None:
        for state, (_, held) in list(self._flows.items()):
            if held.until < now or len(self._flows) >= MOST_FLOWS:
                del self._flows[state]
                _settle(held, Unavailable("this sign-in took too long; begin it again"))

    # what is kept

    def _keep(self, account: Account, grant: Grant) -> None:
        """Sealed and written down first: what is lost after this line comes back."""
        from rootlink.sealing.seal import Sealer  # libsodium: only who signs in pays for it

        secret = account.asked.secret
        self._learn(secret, grant)
        sealed = Sealer(bytes.fromhex(self._seal)).seal(self._project, secret, 0, written(grant))
        connection = next((id for id, held in self._connections.items() if held == secret), None) or self._connection_of(account)
        self._state.put_grant(connection or "", secret, sealed.ciphertext, sealed.key_id)
        account.adopt(grant)
        self._earlier.discard(secret)

    def hand_over(self, taken: list[str]) -> list[wire.Grant]:
        """What the vault has not yet, after it was said what it has."""
        self._state.drop_grants(taken)
        rows = self._state.grants()
        return [wire.Grant(row.id, row.connection, row.secret, row.ciphertext, row.key_id) for row in rows]

    def environment(self, grants: Mapping[str, Grant], private: list[str]) -> None:
        """The project's secrets are these now. A grant older than ours is one that is being handed over; one that was there
        and is not any more was signed out."""
        self._private[:] = private
        gone = self._given.keys() - grants.keys()
        self._given = dict(grants)
        for secret, grant in grants.items():
            self._learn(secret, grant)
        waiting = {row.secret for row in self._state.grants()}
        for secret, account in self._accounts.items():
            if secret in grants:
                account.adopt(grants[secret])
            elif secret in gone and secret not in waiting:
                account.forget(Unavailable(f"{account.name} was signed out"))
            if secret not in waiting:
                account.expect_no_more()
        self._earlier &= waiting

    def forget(self, connection: str) -> None:
        """A connection was taken away."""
        secret = self._connections.pop(connection, None)
        account = self._accounts.pop(secret, None) if secret is not None else None
        if secret is None or account is None:
            return
        for grant in self._hidden.pop(secret, []):
            self._redactor.forget(grant.secrets())
        self._drop(account.flow, GONE)
        account.forget(NotFound(GONE))
        self._given.pop(secret, None)
        self._beginning.pop(secret, None)
        self._state.drop_grants([row.id for row in self._state.grants() if row.secret == secret])

    def leave(self, connection: str) -> None:
        """A connection is about to be taken away: nobody waits for its sign-in any more."""
        with contextlib.suppress(RootlinkError):
            account = self._account_of(connection)
            if account is not None:
                self._drop(account.flow, GONE)

    def _account_of(self, connection: str) -> Account | None:
        """Raises NotFound for a connection that nothing is known of."""
        row = self._state.connection(connection)
        mount = self._mounts().find(row.ws, row.name) if row is not None else None
        if row is None or mount is None:  # perhaps one that is just being connected
            held = self._accounts.get(self._connections.get(connection, ""))
            if held is None:
                raise NotFound("there is no such connection in this engine")
            return held
        if mount.spec.oauth is None:
            return None
        spec, secret = self._filled(mount.spec), mount.spec.oauth.secret
        self._connections[connection] = secret
        held = self._accounts.get(secret)
        return held if held is not None and held.spec.endpoint == spec.endpoint else self._registered(row.ws, spec)

    def _connection_of(self, account: Account) -> str | None:
        rows = self._state.connections()
        return next((row.id for row in rows if (row.ws, row.name) == (account.ws, account.name)), None)

    def _learn(self, secret: str, grant: Grant) -> None:
        """Its tokens are hidden from here on, and the oldest ones no more: an engine that renews every hour would spend its time
        on looking for tokens that open nothing."""
        hidden = self._hidden.setdefault(secret, [])
        if grant in hidden:
            return
        self._redactor.learn(grant.secrets())
        hidden.append(grant)
        if len(hidden) > HIDDEN:
            kept = {value for one in hidden[1:] for value in one.secrets()}
            self._redactor.forget(value for value in hidden.pop(0).secrets() if value not in kept)

    # tasks

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        for _, held in list(self._flows.values()):
            _settle(held, Unavailable("the engine is stopping; begin the sign-in again"))
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CLOSE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _serves(account: Account, ws: str, spec: MountSpec) -> bool:
    """Whether it can be this mount's. If so it must: with two accounts of one grant, each would renew by a refresh token that
    the other has used up."""
    own = account.spec
    return (account.ws, own.name, own.endpoint, own.egress) == (ws, spec.name, spec.endpoint, spec.egress)


def _settle(sign_in: Flow, error: RootlinkError) -> None:
    if not sign_in.ended.done():
        sign_in.ended.set_exception(error)
        sign_in.ended.exception()  # perhaps nobody waits for it
