"""The messages between an engine and a worker, both ways, over one stream socket.

Every frame is a header of 21 bytes and a body. The header says how long the body is, what it means, which function it is about
(a number the engine gave it) and which call (another). Nothing here knows V8: another JavaScript engine may sit behind it.

    engine → worker                                        worker → engine
    DEFINE   function        JSON of `Definition`          DEFINED  function        empty, or why the source does not compile
    FORGET   function                                      EVENTS   function        lines `<call> <JSON of an event>`
    INVOKE   function, call  JSON for the prelude          ENDED    function, call  an `Ending`: stopped, not done
    PROBE    function, call                                RETIRE   function        wedged or too fat: no more work, then kill
    DELIVER  function, call  `<operation> <JSON>`          SPENT    function, call  microseconds of CPU; just before a call's end
    CANCEL   function, call                                (answered by ENDED or by the call's own last event)
                                                           REPLACE                  idle and fat: no more work, kill when empty

What a worker sends is untrusted: V8 may have been taken over by the code it runs. EVENTS hold at most `MAX_EVENTS` bytes, or a
single event of at most `MAX_FRAME_BACK`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

HEADER: Final = struct.Struct("<IBQQ")
MAX_FRAME: Final = 64 << 20  # bytes; a body above it ends the connection
MAX_FRAME_BACK: Final = 16 << 20  # the same, from a worker: a result of `WorkerLimits.output_chars` in UTF-8, and to spare
MAX_EVENTS: Final = 16 << 10  # the engine's event loop takes a frame in one go


class ToWorker(IntEnum):
    DEFINE = 1
    FORGET = 2
    INVOKE = 3
    PROBE = 4
    DELIVER = 5
    CANCEL = 6


class FromWorker(IntEnum):
    DEFINED = 1
    EVENTS = 2
    ENDED = 3
    RETIRE = 4
    SPENT = 5
    REPLACE = 6


class Ending(StrEnum):
    """Why an isolate was stopped with a call in it."""

    CANCELLED = "cancelled"  # the engine asked (deadline, caller gone) and the call let go
    STOPPED = "stopped"  # it did not let go
    CPU = "cpu"
    HEAP = "heap"
    MEMORY = "memory"  # of the whole worker; this isolate had grown most
    LARGE = "large"  # it said more at once than a frame may hold
    NEIGHBOUR = "neighbour"  # another call in the same isolate was cancelled and did not yield
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Definition:
    """A function for a worker. `heap` in bytes, `cpu` in seconds of one stretch. `check`: compile now and answer DEFINED.
    `name`: of the author's file, as stacks show it. `fresh`: each call in an isolate of its own, ended after it."""

    name: str
    source: str
    heap: int
    cpu: float
    check: bool
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Of one worker process. Sizes in bytes, except `*_chars`: UTF-16 units, as JavaScript counts."""

    spares: int = 3
    isolates: int = 128  # 1 to 2 MB each
    idle_secs: float = 300.0
    rss: int = 600 << 20
    data: int = 2 << 30  # RLIMIT_DATA above what a fresh worker has
    grace_secs: float = 0.5  # how long a stopped isolate may take to end before the worker counts as wedged
    output_chars: int = 4 << 20
    log_lines: int = 1000
    log_chars: int = 256 << 10
    operations: int = 1000
    operation_chars: int = 32 << 20
    depth: int = 128  # of nested arrays and objects in a result


def pack(kind: int, function: int = 0, call: int = 0, body: bytes = b"") -> bytes:
    return HEADER.pack(len(body), kind, function, call) + body
