"""What is odd about a tool's definition, in words for the person who decides about it. A hint, never a proof.

Looked at is what a model may read: every string of the definition, names of parameters, defaults, examples and constants in its
schemas, and what `_meta` or a member nobody knows says. Each kind of oddity is told once, with where it was found first.

Time is linear in the length of the definition, and what is longer than `MOST_TEXT` is odd for that alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from typing import Any

from rootlink.engine.tools import looks, phrases

MOST_TEXT = 80_000  # characters of a definition; the longest of a known server has 60,000
MOST_OF_TOO_LONG = 4_000  # that are looked at all the same
MOST_PARTS = 20_000  # of schemas
SHOWN = 60

RESERVED = frozenset(
    {"mcp_server_install", "mcp_server_remove", "mcp_server_list", "connector_catalog"}
    | {"tools/list", "tools/call", "resources/read", "prompts/get", "sampling/createmessage", "elicitation/create"}
)
# parameters that tell a server more than its work needs, whatever their description says
_NOSY = frozenset(
    {"sidenote", "conversationhistory", "chathistory", "fullconversation", "previousmessages", "systemprompt"}
    | {
        "systeminstructions",
        "chainofthought",
        "toolcallhistory",
        "toolslist",
        "alltools",
        "alltoolsanddescriptions",
        "availabletools",
    }
    | {"environmentvariables", "sshprivatekey", "modelinstructions", "messagehistory"}
)
_MODELS = ("agent", "assistant", "chat", "llm", "model", "prompt", "bot", "conversation")  # tools about these may need them
_NOT_READ = ("icons", "execution")  # addresses of pictures, and how a call runs


def flags(tool: dict[str, Any], others: Collection[str] = ()) -> list[str]:
    """`others`: names of the tools in the same list, this one's or not. Empty: nothing is odd."""
    found: dict[str, str] = {}  # what → where
    name = tool["name"]
    for what in _of_name(name, frozenset(others)):
        found.setdefault(what, "")
    texts = [(shown(member), _text(value)) for member, value in tool.items() if member not in _NOT_READ]
    most = MOST_TEXT
    if sum(len(text) for _, text in texts) > MOST_TEXT:
        found.setdefault("is too long to be looked at to its end", "")
        most = MOST_OF_TOO_LONG
    texts = [(where, whole) for where, whole in _cut(texts, most) if whole]
    rules = phrases.likely(text for _, text in texts)
    for where, text in texts:
        for what in looks.unseen(text):
            found.setdefault(f"holds {what}", where)
        if (word := looks.alike(text)) is not None:
            found.setdefault(f"has letters of another alphabet among Latin ones in {shown(word)}", where)
        for what in phrases.said(text, rules):
            found.setdefault(what, where)
    if (nosy := _nosy(tool)) is not None:
        found.setdefault(phrases.COLLECTS, f"the parameter {shown(nosy)}")
    return [f"{what} ({where})" if where else what for what, where in found.items()]


def _cut(texts: list[tuple[str, str]], most: int) -> Iterator[tuple[str, str]]:
    for where, text in texts:
        yield where, text[:most]
        most = max(most - len(text), 0)


def shown(text: str) -> str:
    """Words of a server's for a person: short, and with nothing that is not seen."""
    seen = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text[: SHOWN + 1])
    return f"{seen[: SHOWN - 1]}…" if len(seen) > SHOWN else seen


def _of_name(name: str, others: frozenset[str]) -> Iterator[str]:
    if unicodedata.normalize("NFKC", name).lower() in RESERVED:
        yield "has a name that is reserved"
    if (seen := looks.reads_as(name)) is not None:
        yield f"has a name that reads as {shown(seen)} and is not"
    if (other := looks.twin(name, others)) is not None:
        yield f"has a name that looks like {shown(other)}"


def _text(value: Any) -> str:
    """Every string in `value`, one a line. Names of members are read too, as words."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            if part:
                found.append(part)
        elif isinstance(part, list):
            waiting.extend(reversed(part))
        elif isinstance(part, dict):
            for key, held in reversed(part.items()):
                waiting += (held, _as_words(key))
    return "\n".join(found)


def _as_words(key: str) -> str:
    return key.replace("_", " ") if key.count("_") > 2 else key


def _nosy(tool: dict[str, Any]) -> str | None:
    """The first parameter that asks for what the model knows, of a tool that has nothing to do with models."""
    about = f"{tool['name']} {tool.get('description') or ''}".lower()
    if any(word in about for word in _MODELS):
        return None
    waiting: list[Any] = [tool.get("inputSchema")]
    for _ in range(MOST_PARTS):
        if not waiting:
            return None
        value = waiting.pop()
        if isinstance(value, dict):
            properties = value.get("properties")
            names = properties if isinstance(properties, dict) else ()
            found: str | None = next((name for name in names if name.lower().replace("_", "").replace("-", "") in _NOSY), None)
            if found is not None:
                return found
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return None
