"""How far a stream of server-sent events has come: the id of the last event, and whether it stands between two events.

Looks at bytes as they go by and keeps at most a short line of them. A line ends with LF or CR LF; a lone CR, which our engine
never sends, ends none. An event's id counts once the event is whole.
"""

from __future__ import annotations

import re

MOST = 256  # bytes of a line that may be an id

_ID = re.compile(rb"id: ?([\x21-\x7e]{1,%d})\r?" % MOST)
_LONG = b"-" * MOST  # stands for the beginning of a line that is no id


class Progress:
    """`last_id`: of the last event that has an id, else what the client said it knows."""

    def __init__(self, last_id: bytes | None = None) -> None:
        self.last_id = last_id
        self.begin()

    def begin(self) -> None:
        """A new connection goes on with the stream."""
        self._line = b""
        self._id: bytes | None = None
        self._blank = True

    @property
    def between(self) -> bool:
        """Whether no event has begun that has not ended."""
        return self._blank and not self._line

    def passed(self, part: bytes) -> None:
        """`part` goes by."""
        *whole, rest = (self._line + part).split(b"\n")
        for line in whole:
            self._passed(line)
        self._line = rest if len(rest) <= MOST else _LONG

    def _passed(self, line: bytes) -> None:
        self._blank = line in (b"", b"\r")
        if self._blank:
            self.last_id, self._id = self._id or self.last_id, None
        elif line.startswith(b"id:") and (found := _ID.fullmatch(line)):
            self._id = found[1]
