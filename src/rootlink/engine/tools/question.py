"""What a person is asked before a tool is called, and what their answer means.

An elicitation of MCP, in form mode: the tool, what it may do, its arguments as JSON (without known secrets, without characters
that are not seen, at most 500 of them, long ones cut), and a box to tick not to be asked again. Nothing but a plain yes is a yes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client
from rootlink.engine.mounts.questions import allowed
from rootlink.wire.tools import Access

METHOD = "elicitation/create"
SHOWN = 500  # characters of the arguments
MOST_SHOWN = 12  # arguments, when they are cut
CUT = "…"
MORE = ", and {:,} more arguments that are not shown"
FORMS_SINCE = "2025-06-18"
REMEMBER = "remember"
_SCHEMA = {
    "type": "object",
    "properties": {
        REMEMBER: {"type": "boolean", "title": "Do not ask again for this tool in this session", "default": False},
    },
}
_ACCESS: dict[Access | None, str] = {
    "read": "It only reads.",
    "write": "It can change things.",
    "destructive": "It can overwrite or delete things.",
    None: "What it does is not known.",
}
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # of Unicode's categories
_SPACE = " "


class Said(NamedTuple):
    """`yes`: it may be called. `remember`: and need not be asked about again."""

    yes: bool
    remember: bool = False


def can_be_asked(client: Client) -> bool:
    """Whether this client shows forms to a person."""
    return (client.stateless or client.version >= FORMS_SINCE) and allowed(client, METHOD, Raw(b"{}"))


def params(tool: str, access: Access | None, arguments: dict[str, Any], redact: Callable[[str], str]) -> Raw:
    """`tool`: as clients call it."""
    message = f"May {tool} be called? {_ACCESS[access]} Arguments: {shown(arguments, redact)}"
    return rpc.raw({"message": message, "requestedSchema": _SCHEMA})


def shown(arguments: dict[str, Any], redact: Callable[[str], str]) -> str:
    """All of them; or, if that is too long, of each as much as there is room for: none pushes the others out of sight."""
    whole = _fit(redact(msgspec.json.encode(arguments).decode()), SHOWN)
    if not whole.endswith(CUT):
        return whole
    each = [redact(msgspec.json.encode({name: value}).decode())[1:-1] for name, value in islice(arguments.items(), MOST_SHOWN)]
    room = (SHOWN - len(MORE)) // len(each)
    more = len(arguments) - len(each)
    return "".join([", ".join(_fit(text, room - len(", ")) for text in each), MORE.format(more) if more else ""])


def _fit(text: str, most: int) -> str:
    seen = "".join(_seen(character) for character in text[: most + 1])
    return seen if len(seen) <= most else f"{seen[: most - 1]}{CUT}"


def _seen(character: str) -> str:
    if character == _SPACE or character.isalnum() or unicodedata.category(character) not in _UNSEEN:
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def said(answer: Raw) -> Said:
    """A client's answer. What is no answer is a no."""
    try:
        members = rpc.members(answer)
        action = rpc.value(members.get("action", Raw(b"null")))
        content = rpc.value(members.get("content", Raw(b"null")))
    except (*rpc.UNREADABLE, rpc.Malformed):
        return Said(False)
    return Said(action == "accept", isinstance(content, dict) and content.get(REMEMBER) is True)
