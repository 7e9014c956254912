"""A mount's link to a child process: JSON-RPC messages, one a line, on its stdin and stdout.

    asyncio's pipes ─bytes─► Lines (cap) ─line─► Flood (budget) ─► Exchange ─► whoever asked

Rules
- Bytes all the way: a line that is no JSON-RPC, or not even UTF-8, is counted and skipped.
- A line past 4 MiB, or a flood that does not end, ends the link, with words; the tree is killed.
- Nothing is buffered without a bound: while the child reads slowly requests wait for their deadline and answers to its own
  requests are dropped; while it talks too much it is not read.
- stderr is kept as its last 200 lines of at most 2 KiB, read at no more than 1 MiB a second, redacted when it is shown.
- The end: stdin is closed; 2 s later TERM; 2 s later KILL; always the whole tree (launch.py). Nothing else ends a child.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.doors import unminded as no_matter
from rootlink.engine.mounts.era import Era, Session
from rootlink.engine.mounts.exchange import Asked, Exchange, Heard
from rootlink.engine.mounts.flood import Flood
from rootlink.engine.mounts.launch import Launch, Wish, alive
from rootlink.engine.mounts.lines import Lines, LineTooLong
from rootlink.engine.mounts.link import MAY_BE_REPEATED, MESSAGE_CAP, Ended, unheard, unminded, unminding
from rootlink.engine.mounts.refusals import Refusals
from rootlink.engine.mounts.words import telling
from rootlink.errors import UpstreamFailed

log = structlog.get_logger(__name__)
STDIN, STDOUT, STDERR = 0, 1, 2
GRACE = 2.0  # seconds, after closing stdin and again after TERM
LAST_BYTES = 0.5  # seconds for what is still in the pipes of a process that has ended
STDERR_LINES, STDERR_LINE, STDERR_RATE = 200, 2048, 1 << 20
STDERR_KEPT = 8192  # bytes of a line: more than is shown, so that no secret is cut before it is redacted
_SEVERED = {STDIN: "closed its input and was ended", STDOUT: "closed its output and was ended"}
GREETINGS = ("initialize", "server/discover")  # not to be cancelled (handshake.py)
SLICE = 0.01  # seconds of reading one child before the others get their turn


class StdioLink:
    """One child process, from `open()` to `close()`.

    `turn`: a spawn holds the loop for some milliseconds, so the engine's mounts take turns. `redact` is applied to stderr before
    anybody sees it. `hint`: words for a server that ends at its start.
    """

    modern_first: bool | None = None
    sessioned = False

    def __init__(self, wish: Wish, launch: Launch, *, turn: asyncio.Lock, redact: Callable[[str], str], hint: str = "") -> None:
        self.era: Era = Session()
        self.on_notification: Callable[[str, Raw], None] = unheard
        self.on_closed: Callable[[str], None] = unminded
        self._wish, self._launch, self._turn, self._redact, self._hint = wish, launch, turn, redact, hint
        self.on_gap: Callable[[bool], None] = unminding
        self._exchange = Exchange(wish.name, lambda method, params: self.on_notification(method, params), self._answer)
        self._child: _Child | None = None
        self._ending: asyncio.Task[None] | None = None
        self._ended: str | None = None  # words, once no request can succeed any more
        self._by_itself = False
        self._closing = False
        self._stderr = _Tail()
        self.refusals = Refusals(redact, self._stderr.note) if launch.watched else None

    @property
    def owner(self) -> Client | None:
        return self._exchange.owner

    @owner.setter
    def owner(self, client: Client | None) -> None:
        self._exchange.owner = client

    @property
    def pid(self) -> int | None:
        """The spawned process; the command itself is below it."""
        return self._child.pid if self._child else None

    @property
    def ended(self) -> bool:
        return self._ended is not None

    async def open(self) -> None:
        child = _Child(self)
        try:
            async with self._turn:
                await self._launch.start(self._wish, lambda: child, self.refusals.note if self.refusals else no_matter)
                self._child = child
                await asyncio.sleep(0)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or "a value holds a NUL byte"
            raise UpstreamFailed(f"{self._wish.name} cannot be started: {words}") from None

    async def request(self, method: str, params: Mapping[str, Any] | None = None, *, call: Call | None = None) -> Raw:
        asked = self._exchange.ask(method, self.era.dress(params, call), call)
        try:
            await self._send(asked.line, method)
            return await asked.answer
        except asyncio.CancelledError:
            self._cancelled(asked)
            raise
        finally:
            self._exchange.forget(asked)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        await self._send(rpc.notification(method, self.era.dress(params, None)), method)

    async def attend(self) -> None:
        """Nothing to do: one pipe carries all."""

    async def close(self) -> None:
        """Also of who is cancelled meanwhile: whoever goes on then counts on nothing being left."""
        self._closing = True
        self.lost("was stopped")
        if self._child is not None and self._ending is None:
            self._ending = asyncio.create_task(self._end(self._child, GRACE))
        cancelled: asyncio.CancelledError | None = None
        while self._ending is not None and not self._ending.done():
            try:
                await asyncio.shield(self._ending)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        await self._exchange.questions.ended()

    def last_words(self) -> str:
        lines = [self._shown(line) for line in telling(self._stderr.lines(noted=False))]
        return " | ".join(lines[-3:])[-600:]

    def logs(self) -> list[str]:
        """Its stderr, and what it was refused."""
        return [self._shown(line) for line in self._stderr.lines()]

    def _shown(self, line: bytes) -> str:
        return self._redact(line.decode("utf-8", "replace"))[:STDERR_LINE]

    # what the child's protocol calls

    def heard(self, line: bytes) -> bool:
        """One line of stdout. Answers whether it counts as noise."""
        what, reply = self._exchange.receive(line)
        if reply is not None and self._child is not None and self._child.writable.is_set():
            self._child.write(reply)
        return what is not Heard.ANSWER

    def complained(self, data: bytes) -> None:
        self._stderr.feed(data)

    def condemn(self, words: str) -> None:
        """The child broke a rule: end it now."""
        if self._ended is not None:
            return
        log.warning("mount_condemned", mount=self._wish.name, why=words)
        self.lost(words)
        if self._child is not None and self._ending is None:
            self._child.deafen()
            self._ending = asyncio.create_task(self._end(self._child, 0.0))

    def lost(self, words: str, *, by_itself: bool = False) -> None:
        """No request can succeed any more. Everybody who waits hears it."""
        if self._ended is not None:
            return
        self._ended, self._by_itself = words, by_itself
        self._exchange.fail(self._unanswered)
        if not self._closing:
            self.on_closed(words)

    def _unanswered(self, method: str) -> UpstreamFailed:
        said = f": {words}" if (words := self.last_words()) else ""
        hint = f"; {self._hint}" if self._hint and method == "initialize" else ""
        kind = Ended if self._by_itself else UpstreamFailed
        return kind(f"{self._wish.name} {self._ended} before it answered {method}{said}{hint}", data=MAY_BE_REPEATED)

    async def _answer(self, reply: bytes) -> None:
        await self._send(reply, "what it asked")

    async def _send(self, line: bytes, method: str) -> None:
        child = self._child
        while child is not None and self._ended is None and not child.writable.is_set():
            await child.writable.wait()
        if child is None or self._ended is not None:
            raise self._unanswered(method)
        child.write(line)

    def _cancelled(self, asked: Asked) -> None:
        if asked.method not in GREETINGS and self._ended is None and self._child is not None and self._child.writable.is_set():
            about = {"requestId": asked.id, "reason": "the caller went away"}
            self._child.write(rpc.notification("notifications/cancelled", self.era.dress(about, None)))

    async def _end(self, child: _Child, grace: float) -> None:
        holder = await self._launch.holder(child.pid)
        child.close_stdin()
        if grace and not await child.gone(grace):
            await self._launch.terminate(child.pid)
        if not await child.gone(grace):
            await self._launch.kill(child.pid)
        if not await child.gone(GRACE):
            log.error("mount_unkillable", mount=self._wish.name, pid=child.pid)
        child.release()
        self._launch.release(child.pid)
        for _ in range(200):
            if not any(alive(process) for process in holder):
                return
            await asyncio.sleep(0.005)


class _Child(asyncio.SubprocessProtocol):
    """asyncio's view of the process: bytes and ends in, lines out to the link."""

    def __init__(self, link: StdioLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._lines = Lines(MESSAGE_CAP)
        self._flood = Flood(self._loop.time())
        self._paused = False
        self._spilled, self._second = 0, 0.0  # bytes of stderr since when
        self._timers: set[asyncio.TimerHandle] = set()
        self._open = {STDOUT, STDERR}
        self._exited = asyncio.Event()
        self.pid = 0
        self.writable = asyncio.Event()
        self.writable.set()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one by shape only
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == STDOUT:
            self._lines.feed(data)
            if not self._paused:
                self._read()
        else:
            self._link.complained(data)
            self._spill(len(data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if fd == STDIN:
            self.writable.set()
        if fd in _SEVERED and not self._exited.is_set():
            self._later(LAST_BYTES, lambda: self._severed(_SEVERED[fd]))
        if self._exited.is_set() and not self._open:
            self._gone()

    def process_exited(self) -> None:
        self._exited.set()
        if self._open:
            self._later(LAST_BYTES, self._gone)
        else:
            self._gone()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # the link calls these

    def write(self, line: bytes) -> None:
        pipe = cast("asyncio.WriteTransport | None", self._pipe(STDIN))
        if pipe is not None and not pipe.is_closing():
            pipe.write(line + b"\n")

    def close_stdin(self) -> None:
        pipe = self._pipe(STDIN)
        if pipe is not None:
            pipe.close()

    def deafen(self) -> None:
        """Read nothing any more."""
        self._paused = True
        self._pause(STDOUT)
        self._pause(STDERR)

    async def gone(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    def release(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._transport is not None:
            self._transport.close()

    # reading

    def _read(self) -> None:
        """Lines until there is no more, the budget is spent or the time slice is over."""
        began = self._loop.time()
        try:
            while (line := self._lines.next()) is not None:
                now = self._loop.time()
                if self._link.heard(line) and self._noise(now, len(line)):
                    return
                if now - began > SLICE:
                    self._hold(0.0)
                    return
        except LineTooLong:
            self._link.condemn(f"sent a line longer than {MESSAGE_CAP >> 20} MiB and was ended")

    def _noise(self, now: float, size: int) -> bool:
        """Whether to stop reading for now."""
        pause = self._flood.count(now, size)
        if self._flood.over(now):
            self._link.condemn("sent more than 1000 messages a second for too long and was ended")
            return True
        if pause:
            self._hold(pause)
        return pause > 0

    def _hold(self, seconds: float) -> None:
        self._paused = True
        self._pause(STDOUT)
        self._later(seconds, self._go_on)

    def _go_on(self) -> None:
        if self._link.ended:
            return
        self._paused = False
        self._read()
        if not self._paused:
            self._resume(STDOUT)

    def _spill(self, size: int) -> None:
        now = self._loop.time()
        if now - self._second > 1.0:
            self._second, self._spilled = now, 0
        self._spilled += size
        if self._spilled > STDERR_RATE:
            self._pause(STDERR)
            self._later(1.0, lambda: self._resume(STDERR))

    def _pause(self, fd: int) -> None:
        pipe = cast("asyncio.ReadTransport | None", self._pipe(fd))
        if pipe is not None and pipe.is_reading():
            pipe.pause_reading()

    def _resume(self, fd: int) -> None:
        pipe = cast("asyncio.ReadTransport | None", self._pipe(fd))
        if pipe is not None and not pipe.is_closing() and not pipe.is_reading():
            pipe.resume_reading()

    def _pipe(self, fd: int) -> asyncio.BaseTransport | None:
        return self._transport.get_pipe_transport(fd) if self._transport is not None else None

    # the end

    def _severed(self, words: str) -> None:
        if not self._exited.is_set():
            self._link.condemn(words)

    def _gone(self) -> None:
        self.writable.set()
        code = self._transport.get_returncode() if self._transport else None
        words = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        self._link.lost(words, by_itself=True)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            call()

        timer = self._loop.call_later(seconds, due)
        self._timers.add(timer)


class _Tail:
    """The end of what a child said on stderr, and of what is noted about it besides."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._kept: collections.deque[tuple[bytes, bool]] = collections.deque(maxlen=STDERR_LINES)  # (line, noted by us)

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._kept.append((bytes(self._partial), False))
            self._partial.clear()
        self._add(rest)

    def note(self, line: str) -> None:
        self._kept.append((line.encode(), True))

    def lines(self, *, noted: bool = True) -> list[bytes]:
        whole = [line for line, ours in self._kept if noted or not ours]
        return [*whole, bytes(self._partial)] if self._partial else whole

    def _add(self, part: bytes) -> None:
        self._partial += part.rstrip(b"\r")[: STDERR_KEPT - len(self._partial)]
