"""What a session client is sent, numbered, so that it can hear again what a broken connection swallowed (Last-Event-ID).

    Tape    one stream: a call's, or a standing one. Its events go to who reads it now, and are kept for who asks for them later
    Shelf   one session's tapes, and how much of them is kept

Rules
- An event's id is `<tape>-<number>`. A tape's name holds a mark of the engine's life: an id from before a restart is nobody's.
- A message is on one tape, and a tape has one reader: no two streams carry the same message.
- Kept are 256 events and 1 MiB a session, and a tape for 5 minutes after nobody writes or reads it any more. Tapes that are over
  go first, the oldest first. The newest event of the tape that is written stays, however large: it is the answer.
- Events without data (they only tell the id to come back with) are for calls of 2025-11-25 and later: older clients take them for
  broken JSON, as the official SDKs' servers know, and what a standing stream misses of changes is kept in any case.
- Sessions of 2024-11-05 get no ids, and nothing is kept for them.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rootlink.engine.eras.stream import EventStream, event

MAX_EVENTS, MAX_BYTES, MAX_TAPES = 256, 1 << 20, 256
STANDING_EVENTS = 64  # of a standing tape: a thousand quiet clients must not each keep all they ever heard
KEEP_SECS = 300.0
RETRY_MS = 1000  # how long a client waits before it comes back
PRIMED_SINCE, KEPT_SINCE = "2025-11-25", "2025-03-26"


class Tape:
    """Made by `Shelf.tape`. `of_call`: it ends with an answer."""

    __slots__ = ("_shelf", "expiry", "kept", "last", "name", "of_call", "over", "reader")

    def __init__(self, name: str, shelf: Shelf, *, of_call: bool) -> None:
        self.name, self._shelf, self.of_call = name, shelf, of_call
        self.kept: deque[tuple[int, bytes]] = deque()
        self.last = 0
        self.over = False
        self.reader: EventStream | None = None
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def read(self) -> bool:
        """Whether somebody reads it now, as far as is known."""
        return self.reader is not None and self.reader.open

    def write(self, message: bytes) -> bool:
        """One JSON-RPC message. True when somebody is there to read it; what comes after the end is dropped."""
        if self.over:
            return False
        self.last += 1
        data = self._shelf.keep(self, message)
        return self.reader is not None and self.reader.push(data)

    def play(self, reader: EventStream, after: int | None = None) -> None:
        """`reader` gets the events from now on, and those kept after number `after`; who read it before is sent away."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if self.reader is not None:
            self.reader.end()
        self.reader = reader
        self._shelf.prime(self, 0 if after is None else after)
        for number, data in self.kept:
            if after is None or number > after:
                reader.push(data)
        if self.over:
            reader.end()
            self._shelf.expire(self)

    def leave(self, reader: EventStream) -> None:
        """`reader` reads no more; it may come back. A call's tape is kept until it is over, and then for a while."""
        if self.reader is reader:
            self.reader = None
            if self.over or not self.of_call:
                self._shelf.expire(self)

    def end(self) -> None:
        if not self.over:
            self.over = True
            if self.reader is not None:
                self.reader.end()
            self._shelf.expire(self)


class Shelf:
    """`life` marks this life of the engine; `version` is the client's revision."""

    __slots__ = ("_keeps", "_life", "_made", "_primes", "_tapes", "events", "size")

    def __init__(self, life: str, version: str) -> None:
        self._life, self._primes, self._keeps = life, version >= PRIMED_SINCE, version >= KEPT_SINCE
        self._tapes: dict[str, Tape] = {}
        self._made = self.events = self.size = 0

    def tape(self, *, of_call: bool) -> Tape:
        if len(self._tapes) >= MAX_TAPES:
            idle = next((tape for tape in self._tapes.values() if tape.over or not (tape.of_call or tape.read)), None)
            if idle is not None:
                self.forget(idle)
        self._made += 1
        name = f"{self._life}.{self._made}"
        tape = self._tapes[name] = Tape(name, self, of_call=of_call)
        return tape

    def __contains__(self, tape: Tape) -> bool:
        return tape.name in self._tapes

    def find(self, id: str) -> tuple[Tape, int] | None:
        """The tape an event's id is of, and the event's number; None when it is not known, or not any more."""
        name, _, number = id.rpartition("-")
        tape = self._tapes.get(name)
        if tape is None or not (number.isascii() and number.isdigit() and len(number) < 10):
            return None
        return tape, min(int(number), tape.last)

    def prime(self, tape: Tape, number: int) -> None:
        """Tell the reader, which has heard up to `number`, what to come back with, and when."""
        if self._primes and tape.of_call and tape.reader is not None:
            tape.reader.push(f"id: {tape.name}-{number}\r\nretry: {RETRY_MS}\r\ndata: \r\n\r\n".encode())

    def keep(self, tape: Tape, message: bytes) -> bytes:
        """The event of the tape's newest message; room is made for it."""
        if not self._keeps or tape not in self:
            return event(message)
        data = event(message, id=f"{tape.name}-{tape.last}".encode())
        tape.kept.append((tape.last, data))
        self.events += 1
        self.size += len(data)
        if not tape.of_call and len(tape.kept) > STANDING_EVENTS:
            self._drop(tape)
        while (self.events > MAX_EVENTS or self.size > MAX_BYTES) and self._make_room(tape):
            pass
        return data

    def _make_room(self, writing: Tape) -> bool:
        """Drop what is due first; False when only the newest event is left."""
        others = [tape for tape in self._tapes.values() if tape is not writing]
        over = next((tape for tape in others if tape.over), None)
        if over is not None:
            self.forget(over)
            return True
        victim = next((tape for tape in others if tape.kept), writing)
        if victim is writing and len(writing.kept) < 2:
            return False
        self._drop(victim)
        return True

    def _drop(self, tape: Tape) -> None:
        self.events -= 1
        self.size -= len(tape.kept.popleft()[1])

    def forget(self, tape: Tape) -> None:
        if self._tapes.pop(tape.name, None) is None:
            return
        while tape.kept:
            self._drop(tape)
        if tape.expiry is not None:
            tape.expiry.cancel()

    def expire(self, tape: Tape) -> None:
        """Forget it in a while, unless somebody comes back; at once when there is nothing to come back for."""
        if not self._keeps or tape not in self:
            self._tapes.pop(tape.name, None)
            return
        if tape.expiry is not None:
            tape.expiry.cancel()
        tape.expiry = asyncio.get_running_loop().call_later(KEEP_SECS, self.forget, tape)

    def clear(self) -> None:
        """The session ended: every stream does."""
        for tape in tuple(self._tapes.values()):
            tape.end()
            self.forget(tape)

    def hang_up(self) -> None:
        """Send the readers of standing tapes away; they may come back."""
        for tape in self._tapes.values():
            if tape.reader is not None and not tape.of_call:
                tape.reader.end()
