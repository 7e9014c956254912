"""Server-sent events out of bytes (WHATWG HTML §9.2), without I/O. Data stays bytes; nothing grows past the cap.

Lines end in `\\n` or `\\r\\n`. A lone `\\r`, which the standard also allows and no server writes, does not end a line here.
"""

from __future__ import annotations

from typing import NamedTuple

from rootlink.engine.mounts.lines import Lines, LineTooLong

LONGEST_RETRY = 60.0  # seconds


class Event(NamedTuple):
    name: str
    data: bytes


class Events:
    """`next()` after `feed()` until it answers None. `last_id` is of the last event that came whole, `retry` (seconds) what the
    stream said last."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._lines = Lines(cap)
        self._data: list[bytes] = []
        self._size = 0
        self._name = "message"
        self._id: str | None = None  # of the event that is just coming
        self.last_id: str | None = None
        self.retry: float | None = None

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    def next(self) -> Event | None:
        """Raises LineTooLong."""
        while (line := self._lines.next()) is not None:
            if line:
                self._field(line)
                continue
            self.last_id = self._id
            if self._data:
                return self._flush()
        return None

    def rewind(self) -> None:
        """Another connection goes on after `last_id`: what came only in part is forgotten."""
        self._lines = Lines(self._cap)
        self._data, self._size, self._name, self._id = [], 0, "message", self.last_id

    def _flush(self) -> Event:
        event = Event(self._name, b"\n".join(self._data))
        self._data, self._size, self._name = [], 0, "message"
        return event

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._size += len(value) + 1
                if self._size > self._cap:
                    raise LineTooLong
                self._data.append(value)
            case b"event":
                self._name = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit():
                self.retry = min(int(value[:9]) / 1000, LONGEST_RETRY)
