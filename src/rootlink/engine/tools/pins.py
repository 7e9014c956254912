"""What a person agrees to when they agree to a tool: everything of its definition that a model or a client acts on.

Two definitions have one fingerprint when these members are equal as JSON values; the order of keys and a member that is null or
left out make no difference, any character of a text does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from blake3 import blake3

MEMBERS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "_meta")
UNREADABLE = ""  # the fingerprint of what has none: equal to no pin


def fingerprint(tool: dict[str, Any]) -> str:
    """32 hex digits; `UNREADABLE` of what cannot be written as JSON."""
    told = {member: tool[member] for member in MEMBERS if tool.get(member) is not None}
    try:
        return blake3(msgspec.json.encode(told, order="sorted")).hexdigest(16)
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return UNREADABLE
