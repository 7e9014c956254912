"""How much a result may consist of: decoding it holds up the engine's event loop, and a thread would not help.

What it takes is told by the number of lists, objects and strings (names of members too), not by the size: 4 MB are one string,
read in 1 ms, or 1,400,000 empty lists, which take 300 ms.
"""

from __future__ import annotations

from typing import Final

MAX_PARTS: Final = 100_000  # about 20 ms at worst


def has_too_many_parts(json: bytes) -> bool:
    """Of valid JSON. Costs nothing for a small text, and less than 20 ms for the largest."""
    if len(json) <= MAX_PARTS:
        return False
    if _lists_and_objects(json) + json.count(b'"') // 2 <= MAX_PARTS:  # counts what is in strings, too
        return False
    bare = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = bare.count(b'"') // 2
    return strings > MAX_PARTS or strings + _lists_and_objects(b"".join(bare.split(b'"')[::2])) > MAX_PARTS


def _lists_and_objects(json: bytes) -> int:
    return json.count(b"[") + json.count(b"{")
