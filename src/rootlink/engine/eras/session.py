"""Session clients: 2025-11-25, 2025-06-18 and 2025-03-26, and the sessions 2024-11-05 clients have over SSE.

A session belongs to the project key that opened it: to any other it does not exist (404), so a leaked session id is worth
nothing. Sessions are written down; an engine that was stopped and started again knows its clients still. A client that goes
away does not cancel its call (the protocol says so); `notifications/cancelled` does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from rootlink import __version__
from rootlink.engine.calls import Client
from rootlink.engine.changes import METHODS, Changes
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.eras.frames import Id, Message, error_frame, notification_frame, result_frame
from rootlink.engine.eras.running import Running
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.rpc import RpcError
from rootlink.engine.state import SessionRow, State

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
MAX_SESSIONS = 10_000
CANCELLED = -32800  # as the Language Server Protocol numbers it; MCP leaves it open, and the client ignores the answer
SERVER_INFO = {"name": "rootlink", "title": "Rootlink", "version": __version__}


class Session:
    """One client. `stream` is where notices go; without one they wait in `pending`, each kind once."""

    def __init__(self, row: SessionRow) -> None:
        self.id, self.ws, self.principal, self.version = row.id, row.ws, row.principal, row.version
        self.stream: EventStream | None = None
        self.pending: set[str] = set()
        self.calls: dict[Id, asyncio.Future[Any]] = {}
        self.client = Client(row.id, False, row.version, {}, {})

    def notify(self, kinds: set[str]) -> bool:
        """Tell the client that lists changed; kept for its next stream when it has none open."""
        if self.stream is None or not self.stream.open:
            self.pending |= kinds
            return False
        heard = [self.stream.push(event(notification_frame(METHODS[kind]))) for kind in sorted(kinds)]
        return all(heard)

    def attach(self, stream: EventStream) -> None:
        """`stream` takes the notices from now on; an older one stays open but gets none (never the same notice twice)."""
        self.stream = stream
        waiting, self.pending = self.pending, set()
        if waiting:
            self.notify(waiting)

    def end(self) -> None:
        for call in self.calls.values():
            call.cancel()
        if self.stream is not None:
            self.stream.end()


class Sessions:
    def __init__(self, dispatch: Dispatch, state: State, changes: Changes) -> None:
        self._dispatch, self._state = dispatch, state
        changes.sessions = self.publish
        self._live: dict[str, Session] = {}

    # life

    def open(self, caller: Caller, version: object) -> Session:
        """A new session; the version is the client's if we speak it, else our newest. Oldest idle ones go at the cap."""
        agreed = version if isinstance(version, str) and version in VERSIONS else VERSIONS[0]
        row = SessionRow(secrets.token_hex(16), caller.ws, caller.principal, agreed)
        self._state.put_session(row)
        while len(self._live) >= MAX_SESSIONS:
            self.close(self._live[next(iter(self._live))])
        return self._keep(Session(row))

    def find(self, caller: Caller, id: str) -> Session | None:
        """The session, if it is this caller's, from memory or from before the engine's last start."""
        session = self._live.get(id)
        if session is None:
            row = self._state.session(id)
            session = self._revive(row) if row is not None and row.principal == caller.principal else None
        if session is None or (session.principal, session.ws) != (caller.principal, caller.ws):
            return None
        return session

    def _revive(self, row: SessionRow) -> Session:
        """What changed while nobody was there is not known, so its next stream begins with a notice."""
        session = self._keep(Session(row))
        session.pending.add("tools")
        return session

    def close(self, session: Session) -> None:
        self._live.pop(session.id, None)
        self._state.drop_session(session.id)
        session.end()

    def close_all(self) -> None:
        """At engine stop: end the streams, keep what is written down."""
        for session in self._live.values():
            session.end()

    def _keep(self, session: Session) -> Session:
        self._live[session.id] = session
        return session

    def publish(self, ws: str, kinds: set[str]) -> int:
        return sum(1 for session in tuple(self._live.values()) if session.ws == ws and session.notify(kinds))

    def __len__(self) -> int:
        return len(self._live)

    # messages

    def initialize(self, caller: Caller, message: Message) -> tuple[Session, bytes]:
        """Open a session and answer `initialize`. Never waits for a mount."""
        params = message.get("params", {})
        session = self.open(caller, params.get("protocolVersion"))
        result: dict[str, Any] = {
            "protocolVersion": session.version,
            "capabilities": self._dispatch.capabilities(),
            "serverInfo": SERVER_INFO,
        }
        if instructions := self._dispatch.view(caller.ws).instructions:
            result["instructions"] = instructions
        return session, result_frame(message["id"], msgspec.json.encode(result))

    async def answer(self, caller: Caller, session: Session, message: Message, emit: Callable[[bytes], object]) -> bytes:
        """The answer to one request; progress of the call goes to `emit` as frames while it runs."""
        id, params = message["id"], message.get("params", {})
        running = Running(session.client, params, None, emit)
        call = asyncio.ensure_future(self._dispatch.handle(caller, message["method"], params, running))
        session.calls[id] = call
        try:
            return result_frame(id, await call)
        except RpcError as error:
            return error_frame(id, error)
        except asyncio.CancelledError:
            if not call.cancelled() or _being_cancelled():
                call.cancel()
                raise
            return error_frame(id, RpcError(CANCELLED, "Request cancelled"))
        finally:
            session.calls.pop(id, None)

    def notice(self, session: Session, message: Message) -> None:
        """A client's notification. Cancelling ends the call it names, and so cancels it upstream."""
        if message.get("method") == "notifications/cancelled":
            id = message.get("params", {}).get("requestId")
            call = session.calls.pop(id, None) if isinstance(id, (int, str)) else None
            if call is not None:
                call.cancel()


def _being_cancelled() -> bool:
    """Whether it is this very task that somebody cancels, and not only the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
