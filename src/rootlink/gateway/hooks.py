"""`POST /hooks/{project}/{ws}/{function}/{token}`: the webhook URL of a function, for senders without a credential of ours.

The token is the credential, and the engine that made it is its only judge. What that said last of the tokens that are live is in
the store, as hashes: for them a stopped engine is started, and for nothing else.

Rule 1. All that is not known is one 404, no sooner than `EVEN_SECS`: a path of no form of ours, a project, a function, a token
        that never was, is turned off or replaced. Nothing of its body is read. Too many of one address are 429, for those alone.
Rule 2. A token has its own limit, and its own share of the bodies that are held.
Rule 3. Only POST does anything: previews of links ask with GET and HEAD.
Rule 4. A delivery is an errand: it goes on when its sender leaves. What an engine surely did not take is sent again to a fresh
        one; what it may have taken never is.
Rule 5. The function gets the sender's headers, without those of one hop, of proxies, cookies, and credentials of ours.
Rule 6. What a function answers is text or JSON on our origin, never a page: content type, status and few headers are its own, and
        nothing of it is kept, framed, sniffed or run. Of a run that failed the sender learns the id and no words.
Rule 7. The token is in no log, no metric, no error and no audit line.
"""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec
import structlog
from starlette.responses import Response

from rootlink.errors import Invalid, NotFound, RateLimited, RootlinkError, Unauthorized, Unavailable, UpstreamFailed, envelope
from rootlink.gateway.answers import Gone
from rootlink.gateway.auth import KEY_PREFIX, address_of, digest
from rootlink.gateway.engines import Engine
from rootlink.gateway.guard import Head, read_body
from rootlink.gateway.link import Broken, LinkError, Untaken, request
from rootlink.gateway.plane import Plane, stored
from rootlink.gateway.protocol import is_whole
from rootlink.gateway.ratelimit import Buckets
from rootlink.gateway.relayed import HOP, connection_names
from rootlink.gateway.routes import Call, Route
from rootlink.http_server import on_leave
from rootlink.wire.engine import ENGINE_HEADER, KEY_HEADER, HookAnswer, HookCall

MOST_BODY: Final = 1024 * 1024  # bytes
MOST_ANSWER: Final = 16 * 1024 * 1024  # of an engine's; a function's output is smaller
MOST_QUERY: Final = 1000  # members
EVEN_SECS: Final = 0.1
TRIES: Final = 3
RATE, BURST = 120 / 60, 60.0  # calls a second of one token …
UNKNOWN_RATE, UNKNOWN_BURST = 1.0, 60.0  # … and unknown ones of one address
DELIVERY: Final = ("webhook-id", "x-github-delivery", "idempotency-key")  # where senders say which delivery this is

_PATH = re.compile(
    rb"/hooks/(prj_[0-9a-f]{12})/([A-Za-z0-9][A-Za-z0-9_-]{0,62})/([A-Za-z0-9][A-Za-z0-9_-]{0,62})/([A-Za-z0-9_-]{43})"
)
_NOT_GIVEN = frozenset(b"cookie forwarded x-real-ip content-length".split())
_PROXIES = (b"x-rootlink-", b"x-forwarded-")
_KINDS = frozenset(("application/json", "text/plain"))
_OWN = frozenset(("retry-after", "x-hook-secret"))  # what senders wait for: when to come again; an echo that proves who we are
_VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
_STOPPING = (ENGINE_HEADER.encode(), b"stopping")

log = structlog.get_logger(__name__)


class Hook(NamedTuple):
    """One URL as it was asked for. `hash`: of the token, in hex."""

    project: str
    ws: str
    function: str
    token: str
    hash: str


class Unknown(Exception):
    """Rule 1."""


class _Ran(msgspec.Struct):
    """An engine's envelope."""

    ok: bool
    data: HookAnswer | None = None
    error: dict[str, Any] | None = None


class Hooks:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._calls = Buckets(RATE, BURST)
        self._unknown = Buckets(UNKNOWN_RATE, UNKNOWN_BURST)
        self.route = Route("POST", "/hooks/{rest:path}", self._called, "The webhook of a function", open=True)

    async def _called(self, call: Call) -> Response:
        began = asyncio.get_running_loop().time()
        try:
            return await self._answered(call, await self._known(call))
        except Unknown:
            await asyncio.sleep(began + EVEN_SECS - asyncio.get_running_loop().time())
            raise NotFound("There is no such webhook") from None

    async def _answered(self, call: Call, hook: Hook) -> Response:
        self._calls.spend(hook.hash, "calls of this webhook")
        head: Head = call.scope["rootlink.head"]
        with ExitStack() as held:
            share = held.enter_context(self._plane.budget.share(f"hook {hook.hash}"))
            within = self._plane.settings.body_secs
            body = await read_body(call.receive, head, MOST_BODY, within, share, whole=is_whole(call.scope))
            given = self._given(call, head, body)
            delivery = next((f"{name}:{given['headers'][name]}" for name in DELIVERY if given["headers"].get(name)), None)
            sent = msgspec.json.encode(HookCall(hook.token, given, delivery))
            errand = self._plane.errands.begin(self._delivered(hook, sent, held.pop_all()))
        return _returned(await _while_there(call, errand))

    # which ones are known

    async def _known(self, call: Call) -> Hook:
        """Raises `Unknown`, and `RateLimited` for one that the store does not know."""
        hook = _hook(call.scope["raw_path"])
        if hook is not None and await self._in_store(hook):
            return hook
        self._unknown.spend(address_of(call.scope), "calls of unknown webhooks from this address")
        if hook is None or not await self._is_new(hook):
            raise Unknown
        return hook

    async def _is_new(self, hook: Hook) -> bool:
        """The store lags some seconds behind a running engine."""
        engine = self._plane.engines.known(hook.project)
        if engine is None:
            return False
        try:
            return await self._asked(engine, hook, msgspec.json.encode(HookCall(hook.token))) is not None
        except (LinkError, Unavailable):
            return False

    async def _in_store(self, hook: Hook) -> bool:
        row = await stored(self._plane.store.wakes.get, hook.project)
        return row is not None and hook.hash in row.hooks

    # to the engine

    async def _delivered(self, hook: Hook, sent: bytes, held: ExitStack) -> HookAnswer | RootlinkError | Unknown:
        """Returns what came of it, and raises nothing: its sender may have left."""
        with held:
            try:
                return await self._sent(hook, sent)
            except (RootlinkError, Unknown) as error:
                return error

    async def _sent(self, hook: Hook, body: bytes) -> HookAnswer:
        """Rule 4."""
        engines = self._plane.engines
        for _ in range(TRIES):
            engine = engines.known(hook.project)
            if engine is None:
                if not await self._in_store(hook):
                    raise Unknown
                engine = await self._ensured(hook.project)
            try:
                answer = await self._asked(engine, hook, body)
            except Untaken:
                answer = None
            except LinkError:
                engines.forget(hook.project, engine)
                raise UpstreamFailed("The function's engine ended while it worked on this") from None
            if answer is not None:
                return answer
            engines.forget(hook.project, engine)
            log.info("engine lost", project=hook.project, generation=engine.generation, why="no webhook was taken")
        raise _away()

    async def _ensured(self, project: str) -> Engine:
        try:
            return await self._plane.engines.ensure(project)
        except NotFound:
            raise Unknown from None
        except RootlinkError as error:
            log.warning("no engine for a webhook", project=project, code=error.code)
            raise _away() from None

    async def _asked(self, engine: Engine, hook: Hook, body: bytes) -> HookAnswer | None:
        """None: it stops, or it is another one, and took nothing. Raises what a link does."""
        headers = [(b"host", b"engine"), (KEY_HEADER.encode(), engine.key), (b"content-type", b"application/json")]
        link = await engine.links.take()
        try:
            await link.ask(request(b"POST", f"/hooks/{hook.ws}/{hook.function}".encode(), headers, len(body)), body)
            if link.status == HTTPStatus.UNAUTHORIZED or _STOPPING in link.headers:
                return None
            ran, status = msgspec.json.decode(await link.body(MOST_ANSWER), type=_Ran), link.status
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Broken("what it said can't be read") from None
        finally:
            link.release()
        if ran.ok and ran.data is not None:
            return ran.data
        if status == HTTPStatus.NOT_FOUND:
            raise Unknown
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited("The function has as many calls as it may; try again", retry_after=5)
        log.warning("webhook refused", project=hook.project, ws=hook.ws, function=hook.function, status=status)
        raise _away()

    # what the function gets

    def _given(self, call: Call, head: Head, body: bytes) -> dict[str, Any]:
        given: dict[str, Any] = {
            "method": call.scope["method"],
            "headers": self._headers(call, head),
            "query": _query(call.scope["query_string"].decode("ascii")),
        }
        try:
            return {**given, "body": body.decode()}
        except UnicodeDecodeError:
            return {**given, "body_base64": base64.b64encode(body).decode()}

    def _headers(self, call: Call, head: Head) -> dict[str, str]:
        """Rule 5."""
        named, given = connection_names(head.headers), dict[str, str]()
        for name, value in head.headers:
            if name in HOP or name in named or name in _NOT_GIVEN or name.startswith(_PROXIES):
                continue
            if KEY_PREFIX.encode() in value or (name == b"authorization" and self._is_an_operators(call, head)):
                continue
            text, shown = name.decode("latin-1"), value.decode("latin-1")
            given[text] = f"{given[text]}, {shown}" if text in given else shown
        return given

    def _is_an_operators(self, call: Call, head: Head) -> bool:
        try:
            self._plane.operators.operator(call.scope, head)
        except Unauthorized:
            return False
        return True


def _hook(path: bytes) -> Hook | None:
    """Of a path as it was sent: nothing is decoded."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    project, ws, function, token = (part.decode("ascii") for part in found.groups())
    return Hook(project, ws, function, token, digest(token).hex())


def _query(text: str) -> dict[str, str | list[str]]:
    """What is there more than once is a list."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_QUERY)
    except ValueError:
        raise Invalid(f"The query has more than {MOST_QUERY} members") from None
    members: dict[str, list[str]] = {}
    for name, value in pairs:
        members.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in members.items()}


async def _while_there(call: Call, errand: asyncio.Task[HookAnswer | RootlinkError | Unknown]) -> HookAnswer:
    """What came of it. Raises `Gone` when the sender leaves first."""
    left = asyncio.Event()
    on_leave(call.scope, left.set)
    leaving = asyncio.create_task(left.wait())
    try:
        await asyncio.wait({errand, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        on_leave(call.scope, None)
        leaving.cancel()
    if not errand.done():
        raise Gone
    if errand.cancelled():
        raise UpstreamFailed("The gateway stopped while the function worked on this")
    ran = errand.result()
    if isinstance(ran, Exception):
        raise ran
    return ran


def _away() -> Unavailable:
    return Unavailable("The function can't be run now; try again")


def _returned(answer: HookAnswer) -> Response:
    """Rule 6."""
    if answer.failed is not None:
        failed = envelope(UpstreamFailed("the function failed"))
        failed["error"] |= {"run_id": answer.failed} if answer.failed else {}
        return _response(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", msgspec.json.encode(failed), {})
    status = answer.status if 200 <= answer.status <= 599 else HTTPStatus.BAD_GATEWAY
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    own = {name: value for name, value in answer.headers.items() if name in _OWN and _VALUE.fullmatch(value)}
    return _response(status, kind if kind in _KINDS else "text/plain", answer.body, own)


def _response(status: int, kind: str, body: bytes, own: dict[str, str]) -> Response:
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(b"", status, {**own, **_HEADERS})
    shown = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
    return Response(body, status, {**own, **_HEADERS, "content-type": shown})
