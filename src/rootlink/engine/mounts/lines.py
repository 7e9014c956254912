"""Bytes in, whole lines out. No line is longer than the cap, no byte is looked at twice, nothing is decoded."""

from __future__ import annotations


class LineTooLong(Exception):
    """What was fed since the last line end is past the cap. The buffer is of no use any more."""


class Lines:
    """`next()` after `feed()` until it answers None. A line comes without its end (`\\n` or `\\r\\n`)."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._held = bytearray()
        self._looked = 0  # no line end before here

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> None:
        self._held += data

    def next(self) -> bytes | None:
        """Raises LineTooLong."""
        end = self._held.find(b"\n", self._looked)
        if (len(self._held) if end < 0 else end) > self._cap:
            raise LineTooLong
        if end < 0:
            self._looked = len(self._held)
            return None
        line = bytes(memoryview(self._held)[:end])
        del self._held[: end + 1]
        self._looked = 0
        return line[:-1] if line.endswith(b"\r") else line
