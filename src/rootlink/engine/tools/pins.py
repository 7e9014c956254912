"""What a person agrees to when they agree to a tool: everything of its definition that a model or a client acts on.

Two definitions have one fingerprint when these members are equal as JSON values; the order of keys and a member that is null or
left out make no difference, any character of a text does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from blake3 import blake3

NOT_AGREED_TO = ("icons", "execution")  # a picture, and how a call runs; members nobody here knows reach clients, so are pinned
UNREADABLE = ""  # the fingerprint of what has none: equal to no pin


def fingerprint(tool: dict[str, Any]) -> str:
    """32 hex digits; `UNREADABLE` of what cannot be written as JSON."""
    told = {member: value for member, value in tool.items() if value is not None and member not in NOT_AGREED_TO}
    try:
        return blake3(msgspec.json.encode(told, order="sorted")).hexdigest(16)
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return UNREADABLE
