"""Copies bytes both ways between two connected sockets until both directions have ended.

    client ──recv──► one buffer of the thread ──send──► server        a direction reads only when all it read before was sent
           ◄──send──                          ◄──recv──

Why like this: sockets are read and written in the loop's callbacks, with no task, transport or copy in between, and wait for
being writable only when a send was short. Rivals, measured on uvloop and 2 cores: sock_recv/sock_sendall took twice the time and
three times the CPU for 500 bytes there and back; streams answered about as fast, but took twice the CPU or more for bulk;
os.splice with 1 MiB pipes was no faster for one stream, took up to half the CPU for 32 at once, and costs 4 more descriptors a
connection and what an unprivileged user may hold in pipes (64 MiB by default, all its processes together).

Rules
- The buffer holds bytes only between a recv and the send after it, in one callback: nothing may await in there. It is one a
  thread, so two loops in two threads never share it.
- What a short send leaves is copied and kept. All connections together keep `KEPT` at most, then reads get small (`SMALL`): a
  thousand peers that do not read cost tens of MiB, not hundreds.
- A source that waits for its sink is not polled, so a reset of it is seen by the tick (`TICK_SECS`), not at once.
- Small messages go on as they come if both sockets have TCP_NODELAY, which is for those who made them to set.
- The `Conn`s are ours until `splice` returns; to end it from outside, cancel it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from rootlink.gate.conn import Conn

SIZE = 512 * 1024  # read at once; less costs throughput, more makes others wait longer for their turn
SMALL = 16 * 1024
KEPT = 32 * 1024 * 1024
TICK_SECS = 15.0
IDLE_SECS = 3600.0
_LEAST_WAIT = 0.002  # seconds; a timer may fire a little early

Cut = Literal["", "error", "idle", "cancelled"]


@dataclass(slots=True, eq=False)
class Flow:
    """What went through one connection. `up`: bytes handed to the server, `down`: to the client. `idle`: seconds without a byte
    either way that end it. `rate`: the door's. `cut`: why it ended otherwise than by both sides finishing."""

    up: int = 0
    down: int = 0
    idle: float = IDLE_SECS
    rate: Rate | None = None
    cut: Cut = ""


class Rate:
    """Bytes a second, each way, that all flows of one door have together; 0: no limit."""

    def __init__(self, per_second: int = 0) -> None:
        self.up = _Bucket(per_second)
        self.down = _Bucket(per_second)

    def change(self, per_second: int) -> None:
        self.up.change(per_second)
        self.down.change(per_second)


async def splice(client: Conn, server: Conn, flow: Flow) -> None:
    """Sends what each `Conn` holds, then copies until both directions have ended. An end one way is handed on (SHUT_WR), the
    other way goes on.

    When both have ended, both sockets are still open: the caller closes them. When it is cut (an error of either side, `idle`, or
    a cancellation) both are closed with a reset, and `flow.cut` says why. Raises nothing but CancelledError.
    """
    joined = _Joined(client, server, flow)
    try:
        joined.start()
        await joined.ended
    except asyncio.CancelledError:
        joined.cut("cancelled")
        raise
    finally:
        joined.stop()


class _Space:
    """Of one thread: the buffer, and how many bytes its connections keep."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(SIZE))
        self.kept = 0


_spaces = threading.local()


def _space() -> _Space:
    space: _Space | None = getattr(_spaces, "space", None)
    if space is None:
        space = _spaces.space = _Space()
    return space


class _Joined:
    """Both ways of one connection."""

    def __init__(self, client: Conn, server: Conn, flow: Flow) -> None:
        self.flow = flow
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.moved_at = self.loop.time()
        self._conns = (client, server)
        up, down = (flow.rate.up, flow.rate.down) if flow.rate is not None else (None, None)
        self._ways = (_Way(self, client, server, up, up=True), _Way(self, server, client, down, up=False))
        self._tick: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._later()
        for way in self._ways:
            way.start()

    def finished(self) -> None:
        """One way has."""
        if all(way.finished for way in self._ways) and not self.ended.done():
            self.ended.set_result(None)

    def cut(self, why: Cut) -> None:
        self.flow.cut = self.flow.cut or why
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        for way in self._ways:
            way.stop()
        if self.flow.cut:
            for conn in self._conns:
                conn.reset()

    def _later(self) -> None:
        left = self.moved_at + self.flow.idle - self.loop.time()
        self._tick = self.loop.call_later(max(min(left, TICK_SECS), _LEAST_WAIT), self._ticked)

    def _ticked(self) -> None:
        if self.loop.time() >= self.moved_at + self.flow.idle:
            self.cut("idle")
        elif any(conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for conn in self._conns):
            self.cut("error")
        else:
            self._later()


class _Way:
    """One direction: from `source` to `sink`."""

    __slots__ = ("_bucket", "_buffer", "_from", "_joined", "_kept", "_loop", "_rest", "_sink", "_space", "_to", "_up", "finished")

    def __init__(self, joined: _Joined, source: Conn, sink: Conn, bucket: _Bucket | None, *, up: bool) -> None:
        self._joined, self._loop = joined, joined.loop
        self._from, self._to = source.sock, sink.sock
        self._sink, self._bucket, self._up = sink, bucket, up
        self._space = _space()
        self._buffer = self._space.buffer
        self._kept = 0  # bytes; all of what was kept is let go of at once, when its last byte was sent
        self._rest = self._keep(source.take())
        self.finished = False

    def start(self) -> None:
        if self._bucket is not None and self._rest:
            self._bucket.spend(len(self._rest))
        if self._sent_rest():
            self._loop.add_reader(self._from, self.read)
        else:
            self._loop.add_writer(self._to, self._write)

    def stop(self) -> None:
        """Takes its callbacks out of the loop. The other way's are others: it reads from our sink, and writes to our source."""
        self._loop.remove_reader(self._from)
        self._loop.remove_writer(self._to)
        self._rest = self._keep(b"")
        if self._bucket is not None:
            self._bucket.forget(self)

    def resume(self) -> None:
        """The bucket has something for it."""
        self._loop.add_reader(self._from, self.read)
        self.read()

    def read(self) -> None:
        size = SIZE if self._bucket is None else self._bucket.grant(self._loop.time())
        if not size:
            self._wait_in_line()
            return
        if self._space.kept > KEPT:
            size = min(size, SMALL)
        try:
            count = self._from.recv_into(self._buffer, size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._joined.cut("error")
            return
        if count:
            self._pass_on(count)
        else:
            self._finish()

    def _pass_on(self, count: int) -> None:
        if self._bucket is not None:
            self._bucket.spend(count)
        sent = self._send(self._buffer[:count])
        if 0 <= sent < count:
            self._rest = self._keep(bytes(self._buffer[sent:count]))
            self._loop.remove_reader(self._from)
            self._loop.add_writer(self._to, self._write)

    def _write(self) -> None:
        if self._sent_rest():
            self._loop.remove_writer(self._to)
            self._loop.add_reader(self._from, self.read)

    def _sent_rest(self) -> bool:
        """Sends of what is kept as much as goes now: whether that was all."""
        if self._rest:
            self._rest = self._rest[max(self._send(self._rest), 0) :]
        if self._rest:
            return False
        self._rest = self._keep(b"")
        return True

    def _keep(self, data: bytes) -> memoryview:
        self._space.kept += len(data) - self._kept
        self._kept = len(data)
        return memoryview(data)

    def _send(self, data: memoryview) -> int:
        """How many bytes were taken; -1 after an error."""
        try:
            sent = self._to.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._joined.cut("error")
            return -1
        self._joined.moved_at = self._loop.time()
        flow = self._joined.flow
        if self._up:
            flow.up += sent
        else:
            flow.down += sent
        return sent

    def _wait_in_line(self) -> None:
        assert self._bucket is not None
        self._loop.remove_reader(self._from)
        self._bucket.wait(self, self._loop)

    def _finish(self) -> None:
        self._loop.remove_reader(self._from)
        self._sink.end_sending()
        self.finished = True
        self._joined.finished()


class _Bucket:
    """A token bucket: one direction of a door. Who finds it empty waits in line; one timer wakes the first, so turns go round."""

    def __init__(self, per_second: int) -> None:
        self._line: deque[_Way] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = False  # whoever asks now was woken for it
        self._filled_at: float | None = None
        self._tokens = 0.0
        self._set(per_second)

    def _set(self, per_second: int) -> None:
        self._rate = per_second
        self._most = max(per_second // 4, min(per_second, SMALL))  # a quarter of a second at once
        self._least = min(self._most, SMALL)  # nobody is woken for less: many tiny reads cost more than they bring

    def change(self, per_second: int) -> None:
        self._set(per_second)
        self._tokens = min(self._tokens, self._most)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm(0.0)

    def grant(self, now: float) -> int:
        """How many bytes may be read now; 0: wait in line."""
        if not self._rate:
            return SIZE
        if self._line and not self._turn:
            return 0
        self._fill(now)
        return min(int(self._tokens), SIZE) if self._tokens >= self._least else 0

    def spend(self, count: int) -> None:
        """Raises nothing; what was read before anyone asked (`Conn.held`) leaves a debt."""
        self._tokens -= count if self._rate else 0

    def wait(self, way: _Way, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line.appendleft(way) if self._turn else self._line.append(way)
        self._arm()

    def forget(self, way: _Way) -> None:
        if way in self._line:
            self._line.remove(way)

    def _fill(self, now: float) -> None:
        if self._filled_at is None:
            self._tokens += self._most
        else:
            self._tokens = min(self._tokens + (now - self._filled_at) * self._rate, self._most)
        self._filled_at = now

    def _arm(self, wait: float | None = None) -> None:
        if self._timer is not None or self._loop is None or not self._line:
            return
        if wait is None:
            wait = (self._least - self._tokens) / self._rate
        self._timer = self._loop.call_later(max(wait, _LEAST_WAIT), self._wake)

    def _wake(self) -> None:
        self._timer = None
        assert self._loop is not None
        self._turn = True
        while self._line and self.grant(self._loop.time()):
            self._line.popleft().resume()
        self._turn = False
        self._arm()
