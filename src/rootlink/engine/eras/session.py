"""Session clients: 2025-11-25, 2025-06-18 and 2025-03-26, and the sessions 2024-11-05 clients have over SSE.

Rules
- A session belongs to the project key that opened it: to any other it does not exist (404), so a leaked id is worth nothing.
- It is written down, with what its client can do and what it asked for. An engine that was stopped and started again goes on with
  it: log level and subscriptions are made again, and its next stream begins with a notice for every list.
- Its calls are its own, not their connections': a client that goes away does not cancel (the protocol says so);
  `notifications/cancelled` does. 2024-11-05 sessions live and die with their one stream, and are not written down.
- What belongs to no call goes to the standing stream. Without one, lists that changed and resources that were updated wait for
  the next; the rest goes to the stream of a call that has one, else it is kept for who comes back to the last standing stream.
- The hot path makes no task: a call runs in its request's own, which `notifications/cancelled` cancels.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from itertools import islice
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from rootlink import __version__
from rootlink.engine import rpc
from rootlink.engine.calls import LEVELS, Client, Heard
from rootlink.engine.changes import KINDS, METHODS, Changes
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.eras.frames import Id, Message, error_frame, notification_frame, result_frame
from rootlink.engine.eras.questions import Questions, refuse_unless
from rootlink.engine.eras.running import Told, frame, hears
from rootlink.engine.eras.stream import EventStream
from rootlink.engine.eras.tape import Shelf, Tape
from rootlink.engine.rpc import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from rootlink.engine.state import SESSION_KEEP_SECS, SessionRow, State
from rootlink.errors import Unavailable

log = structlog.get_logger(__name__)

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
OVER_SSE = "2024-11-05"
MAX_SESSIONS = 10_000
MAX_SUBSCRIPTIONS, MAX_URI, MAX_SUBSCRIBED = 1000, 8192, 256 << 10  # the last: characters of one session's URIs together
MAX_SAID = 16 << 20  # bytes of JSON, of all sessions together: in memory and on disk what clients say of themselves is kept
MAX_WAITING = 4096  # bytes of an update that waits for a stream; of a longer one only the URI is kept
MAX_INTRODUCTION = 64 << 10  # bytes of JSON of clientInfo and capabilities: they are kept as long as the session
LONG_SECS = 0.5  # a call that takes longer is answered over SSE: pings keep the connection, who lost it can come back
LAST_SECS = 1.0  # for the last words of a stream that is broken off
SEEN_SECS = 3600.0  # how exactly it is written down when a session was last used
AGAIN_SECS = (1.0, 5.0, 25.0, 60.0, 120.0, 300.0, 600.0)  # after a restart, until subscriptions that failed are made again
STOPPED = "The engine was stopped while it worked on this"
CANCELLED = -32800  # as the Language Server Protocol numbers it; MCP leaves it open, and the client ignores the answer
UPDATED = "notifications/resources/updated"
SERVER_INFO = {"name": "rootlink", "title": "Rootlink", "version": __version__}

Serve = Callable[[EventStream], Awaitable[None]]


class Session:
    """One client, and its `calls.Standing`. `kept`: it is written down. `standing` is its newest standing stream, which may have
    no reader just now; lists that changed and resources that were updated in the meantime wait, each once."""

    __slots__ = tuple("_changed _updated calls client id kept principal questions row said seen shelf standing ws".split())

    def __init__(self, row: SessionRow, life: str, *, kept: bool = True) -> None:
        self.kept = kept
        self.id, self.ws, self.principal = row.id, row.ws, row.principal
        self.seen, self.said = 0.0, 0
        self.calls: dict[Id, SessionCall] = {}
        self.standing: Tape | None = None
        self.shelf, self.questions = Shelf(life, row.version), Questions(life)
        self._changed: set[str] = set()
        self._updated: dict[str, Raw] = {}
        self.now(row)

    def now(self, row: SessionRow) -> None:
        """What is known of the client, and written down."""
        self.row = row
        self.client = Client(row.id, False, row.version, row.info, row.capabilities, standing=self)

    @property
    def version(self) -> str:
        return self.row.version

    @property
    def idle(self) -> bool:
        return not self.calls and not self.open

    @property
    def open(self) -> bool:
        """Whether its standing stream is read."""
        return self.standing is not None and self.standing.read

    # its standing stream

    def stand(self, stream: EventStream, tape: Tape | None = None, after: int | None = None) -> Tape:
        """`stream` is the standing one from now on: a new tape, or what `tape` holds after number `after`. An older stream stays
        open but gets nothing more (never the same notice twice)."""
        former = self.standing
        if former is not None and former is not tape and not former.read and not former.kept:
            self.shelf.forget(former)
        self.standing = standing = tape or self.shelf.tape(of_call=False)
        standing.play(stream, after)
        changed, self._changed = self._changed, set()
        updated, self._updated = self._updated, {}
        self.notify(changed)
        for uri, params in updated.items():
            self.updated(uri, params)
        return standing

    def notify(self, kinds: set[str]) -> bool:
        """Tell the client that lists changed; kept for its next stream when it has none open."""
        if self.standing is None or not self.standing.read:
            self._changed |= kinds
            return False
        heard = [self.standing.write(notification_frame(METHODS[kind])) for kind in KINDS if kind in kinds]
        return all(heard)

    def updated(self, uri: str, params: Raw) -> None:
        """A resource it subscribed to changed; kept for its next stream when it has none open."""
        if self.standing is None or not self.standing.read:
            self._updated[uri] = params if len(bytes(params)) <= MAX_WAITING else rpc.raw({"uri": uri})
        else:
            self.standing.write(frame(UPDATED, params))

    def not_updated(self, uri: str) -> None:
        """It does not want to know any more."""
        self._updated.pop(uri, None)

    # calls.Standing

    def tell(self, method: str, params: Raw) -> None:
        if hears(self.row.level, method, params):
            self.say(frame(method, params))

    def say(self, message: bytes) -> None:
        """One message of no open stream of its own."""
        tape = self.standing if self.open else next(self._streams(), self.standing)
        if tape is not None:
            tape.write(message)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        """On the standing stream, or that of its latest call. `heard`: see questions.py. Raises RpcError."""
        refuse_unless(self.client, method)
        return await self.questions.ask(self._where_asked(), method, params, heard)

    def _where_asked(self) -> Tape:
        if self.standing is not None and self.standing.read:
            return self.standing
        for call in reversed(self.calls.values()):
            if (tape := call.begin()) is not None:
                return tape
        if self.standing is not None and self.standing in self.shelf:
            return self.standing  # whose reader may come back
        raise RpcError(INTERNAL_ERROR, "the client has no stream open on which it could be asked")

    def _streams(self) -> Iterator[Tape]:
        return (call.tape for call in reversed(self.calls.values()) if call.tape is not None)

    def end(self) -> None:
        """For good: calls are cancelled, questions fail, streams end."""
        for call in tuple(self.calls.values()):
            call.cancel()
        self.questions.fail("the client's session ended")
        self.shelf.clear()


class SessionCall(Told):
    """A request of a session client while it runs, and the stream it is answered on.

    The stream is begun by the first thing that must be said before the answer (or by `LONG_SECS`); before that, and for clients
    that take no stream (`serve` is None), there is none, and what is said goes to the session's.
    """

    def __init__(self, session: Session, params: dict[str, Any], serve: Serve | None) -> None:
        super().__init__(session.client, params, session.row.level)
        self.tape: Tape | None = None
        self.cancelled = False
        self._session, self._serve = session, serve
        self._task: asyncio.Task[Any] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._long: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._task = asyncio.current_task()
        if self._serve is not None:
            self._long = asyncio.get_running_loop().call_later(LONG_SECS, self.begin)

    def settle(self) -> None:
        """It has its answer, or will get none."""
        self._task = None
        if self._long is not None:
            self._long.cancel()
            self._long = None

    def begin(self) -> Tape | None:
        """The stream, which begins now if it has not; None when the client takes none, or has its answer already."""
        if self.tape is None and self._task is not None and self._serve is not None:
            self.tape = self._open(self._serve)
        return self.tape

    def _open(self, serve: Serve) -> Tape:
        stream, tape = EventStream(), self._session.shelf.tape(of_call=True)
        tape.play(stream)
        self._writer = asyncio.ensure_future(self._written(tape, stream, serve))
        return tape

    async def _written(self, tape: Tape, stream: EventStream, serve: Serve) -> None:
        try:
            await serve(stream)
        finally:
            tape.leave(stream)

    async def finish(self, answer: bytes | None) -> None:
        """The answer (None: there is none) as the stream's last event. Returns when the client has it, or is gone."""
        assert self._serve is not None
        tape = self.tape or self._open(self._serve)
        if answer is not None:
            tape.write(answer)
        tape.end()
        if self._writer is not None:
            await self._writer

    async def break_off(self, answer: bytes) -> None:
        """It ends before its time. A stream that was begun hears of it, if its client reads it soon."""
        if self.tape is not None and self._writer is not None:
            self.tape.write(answer)
            self.tape.end()
            await asyncio.wait({self._writer}, timeout=LAST_SECS)

    def emit(self, frame: bytes) -> None:
        tape = self.begin()
        if tape is None or tape.over:
            self._session.say(frame)
        else:
            tape.write(frame)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        """On this call's stream. `heard`: see questions.py."""
        refuse_unless(self.client, method)
        tape = self.begin()
        if tape is None or tape.over:
            return await self._session.ask(method, params, heard)
        return await self._session.questions.ask(tape, method, params, heard)

    def cancel(self) -> None:
        """By the client."""
        if self._task is not None and not self.cancelled:
            self.cancelled = True
            self._task.cancel()

    def forgiven(self) -> bool:
        """After a CancelledError: whether the client was its only reason, and the task goes on."""
        task = asyncio.current_task()
        return self.cancelled and task is not None and task.uncancel() == 0


class Sessions:
    """`_live` is in the order they were last used in."""

    def __init__(self, dispatch: Dispatch, state: State, changes: Changes) -> None:
        self._dispatch, self._state = dispatch, state
        changes.sessions = self.publish
        changes.on_updated.append(self._updated)
        self._life = secrets.token_hex(4)
        self._live: dict[str, Session] = {}
        self._said = 0
        self._subscribers: dict[tuple[str, str], set[Session]] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._methods: dict[str, Callable[[Caller, Session, dict[str, Any]], Awaitable[Raw]]] = {
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
        }

    # life

    def open(self, caller: Caller, version: object, params: dict[str, Any] | None = None, *, kept: bool = True) -> Session:
        """A new session; the version is the client's if we speak it, else our newest. Idle ones go at the cap, and after a week.
        Raises RpcError -32602 for an introduction that is too large to keep."""
        agreed = version if isinstance(version, str) and version in VERSIONS else VERSIONS[0]
        row = SessionRow(secrets.token_hex(16), caller.ws, caller.principal, agreed, *_introduction(params or {}))
        self._expire()
        while len(self._live) >= MAX_SESSIONS:
            self.close(self._idlest(caller))
        session = Session(row, self._life, kept=kept)
        self._record(session, row)
        return self._keep(session)

    def _expire(self) -> None:
        while self._live:
            session = next(iter(self._live.values()))
            if _now() - session.seen <= SESSION_KEEP_SECS:
                return
            if session.idle:
                self.close(session)
            else:
                self._use(session)

    def _weigh(self, session: Session) -> None:
        """What it says counts from now on. Where all together say too much, those go that say more than their share, the same
        key's first, and of those the ones not used for longest."""
        said = len(msgspec.json.encode((session.row.info, session.row.capabilities, session.row.subscriptions)))
        self._said += said - session.said
        session.said = said
        if self._said > MAX_SAID:
            for other in sorted(self._live.values(), key=lambda other: other.principal != session.principal):
                if self._said > MAX_SAID and other is not session and other.said > MAX_SAID // MAX_SESSIONS:
                    self.close(other)

    def _idlest(self, caller: Caller) -> Session:
        """One of the same key's that has neither stream nor call; else the one not used for longest, of the first few such a one
        if there is any."""
        own = next((session for session in self._live.values() if session.principal == caller.principal and session.idle), None)
        if own is not None:
            return own
        few = tuple(islice(self._live.values(), 64))
        return next((session for session in few if session.idle), few[0])

    def find(self, caller: Caller, id: str) -> Session | None:
        """The session, if it is this caller's, from memory or from before the engine's last start."""
        session = self._live.get(id)
        if session is None:
            row = self._state.session(id)
            if row is None or (row.principal, row.ws) != (caller.principal, caller.ws):
                return None
            return self._revive(caller, row)
        if (session.principal, session.ws) != (caller.principal, caller.ws):
            return None
        self._use(session)
        return session

    def _revive(self, caller: Caller, row: SessionRow) -> Session:
        """What changed while nobody was there is not known, so its next stream begins with notices."""
        session = self._keep(Session(row, self._life))
        session.notify(set(KINDS))
        for uri in row.subscriptions:
            session.updated(uri, rpc.raw({"uri": uri}))
        if row.level is not None:
            self._dispatch.level(caller, session.client, row.level)
        for uri in row.subscriptions:
            self._subscribers.setdefault((row.ws, uri), set()).add(session)
        if row.subscriptions:
            self._spawn(self._subscribe_again(caller, session, set(row.subscriptions)))
        self._state.touch_sessions([row.id])
        return session

    async def _subscribe_again(self, caller: Caller, session: Session, uris: set[str]) -> None:
        for delay in (*AGAIN_SECS, 0.0):
            uris &= set(session.row.subscriptions)
            made = await asyncio.gather(*(self._subscribed(caller, session, uri) for uri in uris))  # a hung server delays its own
            uris -= {uri for uri in made if uri is not None}
            if session.id not in self._live:
                self._dispatch.forget_client(session.id)
                return
            if not uris:
                return
            await asyncio.sleep(delay)

    async def _subscribed(self, caller: Caller, session: Session, uri: str) -> str | None:
        """`uri`, if it worked."""
        try:
            await self._dispatch.subscribe(caller, uri, session.client)
        except RpcError as error:
            log.info("subscribe_again", ws=session.ws, why=error.message[:200])
            return None
        return uri

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self, session: Session) -> None:
        """Ends everything of it, here and at the servers."""
        self._live.pop(session.id, None)
        self._said, session.said = self._said - session.said, 0
        for uri in session.row.subscriptions:
            self._unlisten(session, uri)
        if session.kept:
            self._state.drop_session(session.id)
        session.end()
        self._dispatch.forget_client(session.id)

    def close_all(self) -> None:
        """At engine stop: end the standing streams; calls may still finish; what is written down stays."""
        for task in self._tasks:
            task.cancel()
        for session in self._live.values():
            session.shelf.hang_up()
        self._state.touch_sessions([session.id for session in self._live.values() if not session.idle])

    def _keep(self, session: Session) -> Session:
        session.seen = _now()
        self._live[session.id] = session
        self._weigh(session)
        return session

    def _use(self, session: Session) -> None:
        del self._live[session.id]
        self._live[session.id] = session
        now = _now()
        if now - session.seen > SEEN_SECS:
            session.seen = now
            self._state.touch_sessions([session.id])

    def __len__(self) -> int:
        return len(self._live)

    # what changed

    def publish(self, ws: str, kinds: set[str]) -> int:
        return sum(1 for session in tuple(self._live.values()) if session.ws == ws and session.notify(kinds))

    def _updated(self, ws: str, uri: str, params: Raw, key: str | None) -> None:
        for session in tuple(self._subscribers.get((ws, uri), ())):
            if key is None or key == session.id:
                session.updated(uri, params)

    # messages

    def initialize(self, caller: Caller, message: Message, session: Session | None = None) -> tuple[Session, bytes]:
        """Open a session, or introduce one whose stream was there before (2024-11-05), and answer. Never waits for a mount."""
        params = message.get("params", {})
        if session is None:
            session = self.open(caller, params.get("protocolVersion"), params)
        else:
            info, capabilities = _introduction(params)
            session.now(msgspec.structs.replace(session.row, info=info, capabilities=capabilities))
            self._weigh(session)
        result: dict[str, Any] = {
            "protocolVersion": session.version,
            "capabilities": self._dispatch.capabilities(caller.ws, session.client),
            "serverInfo": SERVER_INFO,
        }
        if instructions := self._dispatch.view(caller.ws, session.client).instructions:
            result["instructions"] = instructions
        return session, result_frame(message["id"], msgspec.json.encode(result))

    async def answer(self, caller: Caller, session: Session, message: Message, call: SessionCall) -> bytes:
        """The answer to one request, also to one that its client cancelled (`call.cancelled`). A request that is cancelled by the
        server which carries it, because the engine stops, still says so: the cancellation ends here."""
        id, method, params = message["id"], message["method"], message.get("params", {})
        own = self._methods.get(method)
        call.start()
        session.calls[id] = call
        try:
            result = await (self._dispatch.handle(caller, method, params, call) if own is None else own(caller, session, params))
            return result_frame(id, result)
        except RpcError as error:
            return error_frame(id, error)
        except asyncio.CancelledError:
            if call.forgiven():
                return error_frame(id, RpcError(CANCELLED, "Request cancelled"))
            return error_frame(id, RpcError(INTERNAL_ERROR, STOPPED, {"code": Unavailable.code, "retryable": True}))
        except Exception:
            await call.break_off(error_frame(id, RpcError(INTERNAL_ERROR, "Internal error; see the engine's log")))
            raise
        finally:
            call.settle()
            if session.calls.get(id) is call:
                del session.calls[id]

    def notice(self, caller: Caller, session: Session, message: Message) -> None:
        """A client's notification. Cancelling ends the call it names, and so cancels it upstream."""
        method, params = message["method"], message.get("params", {})
        if method == "notifications/cancelled":
            id = params.get("requestId")
            call = session.calls.get(id) if isinstance(id, (int, str)) and not isinstance(id, bool) else None
            if call is not None:
                call.cancel()
        elif method == "notifications/progress":
            session.questions.progressed(params)
        elif method != "notifications/initialized":
            self._dispatch.told(caller, session.client, method, rpc.raw(params))

    def answered(self, session: Session, message: Raw) -> None:
        """A client's response to a question."""
        try:
            session.questions.answered(rpc.read(bytes(message)))
        except rpc.Malformed:
            log.info("answer_unreadable", ws=session.ws)

    async def _ping(self, caller: Caller, session: Session, params: dict[str, Any]) -> Raw:
        return Raw(b"{}")

    async def _set_level(self, caller: Caller, session: Session, params: dict[str, Any]) -> Raw:
        level = params.get("level")
        if not isinstance(level, str) or level not in LEVELS:
            raise RpcError(INVALID_PARAMS, f"logging/setLevel needs `level`, one of {', '.join(LEVELS)}")
        self._record(session, msgspec.structs.replace(session.row, level=level))
        for call in session.calls.values():
            call.level = level
        self._dispatch.level(caller, session.client, level)
        return Raw(b"{}")

    async def _subscribe(self, caller: Caller, session: Session, params: dict[str, Any]) -> Raw:
        uri = params.get("uri")
        if not isinstance(uri, str) or len(uri) > MAX_URI:
            raise RpcError(INVALID_PARAMS, f"resources/subscribe needs `uri`, a string of at most {MAX_URI} characters")
        fresh = uri not in session.row.subscriptions
        if fresh and len(session.row.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RpcError(INVALID_PARAMS, f"more than {MAX_SUBSCRIPTIONS} subscriptions of one session")
        if fresh and len(uri) + sum(map(len, session.row.subscriptions)) > MAX_SUBSCRIBED:
            raise RpcError(INVALID_PARAMS, f"the URIs that one session subscribed to are longer than {MAX_SUBSCRIBED} characters")
        self._subscribers.setdefault((session.ws, uri), set()).add(session)  # before the first update can come
        try:
            await self._dispatch.subscribe(caller, uri, session.client)
        except BaseException:
            if fresh:
                self._unlisten(session, uri)
            raise
        if session.id not in self._live:
            self._unlisten(session, uri)
            self._dispatch.forget_client(session.id)
        elif uri not in session.row.subscriptions:
            self._record(session, msgspec.structs.replace(session.row, subscriptions=(*session.row.subscriptions, uri)))
        return Raw(b"{}")

    async def _unsubscribe(self, caller: Caller, session: Session, params: dict[str, Any]) -> Raw:
        uri = params.get("uri")
        if isinstance(uri, str) and uri in session.row.subscriptions:
            self._unlisten(session, uri)
            left = tuple(one for one in session.row.subscriptions if one != uri)
            self._record(session, msgspec.structs.replace(session.row, subscriptions=left))
        await self._dispatch.unsubscribe(caller, uri, session.client)
        return Raw(b"{}")

    def _unlisten(self, session: Session, uri: str) -> None:
        session.not_updated(uri)
        subscribers = self._subscribers.get((session.ws, uri), set())
        subscribers.discard(session)
        if not subscribers:
            self._subscribers.pop((session.ws, uri), None)

    def _record(self, session: Session, row: SessionRow) -> None:
        session.row = row
        if session.id in self._live:
            self._weigh(session)
        if session.kept:
            self._state.put_session(row)


def _introduction(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """clientInfo and capabilities of `initialize`."""
    info, capabilities = params.get("clientInfo"), params.get("capabilities")
    known = info if isinstance(info, dict) else {}, capabilities if isinstance(capabilities, dict) else {}
    if len(msgspec.json.encode(known)) > MAX_INTRODUCTION:
        raise RpcError(INVALID_PARAMS, f"clientInfo and capabilities are larger than {MAX_INTRODUCTION} bytes")
    return known


def _now() -> float:
    return asyncio.get_running_loop().time()
