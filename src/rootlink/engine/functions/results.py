"""Results, from an isolate's JSON, in a bounded time: decoding holds up the engine's event loop, and a thread would not help.

How long it takes depends on the number of lists, objects and strings (names of members too), not on the size: 4 MB are a string,
read in 1 ms, or 1,400,000 empty lists, which take 300 ms.
"""

from __future__ import annotations

import gc
from typing import Any, Final

import msgspec

MAX_PARTS: Final = 100_000
SMALL_BYTES: Final = 64 << 10


class TooManyParts(Exception):
    """More than `MAX_PARTS`."""


def decode(json: bytes) -> Any:
    """Raises TooManyParts, and what msgspec raises for what is no JSON."""
    if len(json) <= SMALL_BYTES:
        return msgspec.json.decode(json)
    if has_too_many_parts(json):
        raise TooManyParts
    collecting = gc.isenabled()
    gc.disable()  # the collector would go over what is being made, again and again
    try:
        return msgspec.json.decode(json)
    finally:
        if collecting:
            gc.enable()


def has_too_many_parts(json: bytes) -> bool:
    """Of valid JSON."""
    if len(json) <= MAX_PARTS:
        return False
    if _lists_and_objects(json) + json.count(b'"') // 2 <= MAX_PARTS:  # counts what is in strings, too
        return False
    bare = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = bare.count(b'"') // 2
    return strings > MAX_PARTS or strings + _lists_and_objects(b"".join(bare.split(b'"')[::2])) > MAX_PARTS


def _lists_and_objects(json: bytes) -> int:
    return json.count(b"[") + json.count(b"{")
