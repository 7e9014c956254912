"""What a person can do about the error of a run: what to write in place of what is not there, which hosts to allow.

Pure. The message may be the body's own making, so a hint says nothing that it was told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rootlink.engine.functions.run import Denied
from rootlink.engine.functions.source import EXPORTED, NO_IMPORT

SHOWN: Final = 3  # refusals of hosts
UNLISTED: Final = "is not in this project's outbound allowlist"
_ENV: Final = "secrets are in the second argument: async (input, ctx) => … ctx.env.NAME"
_PARAMETER: Final = "a function has what is in its parameters; write: async (input, ctx) => …, with ctx.env.NAME for a secret"
_SERVER: Final = (
    f"a function serves nothing by itself, it is called; {EXPORTED}; for calls from outside: rootlink function webhook NAME"
)
_COMMON_JS: Final = f"a function is no CommonJS module; {EXPORTED}"
_FETCH: Final = "there is fetch"
_STREAM: Final = "there is fetch, whose response.body can be read as it comes"
_GLOBAL: Final = "there is globalThis"
_NO_PAGE: Final = "there is no browser around a function, and nothing stays between its runs"
_NO_FILES: Final = "there are no files around a function: put what it needs into it"
_INSTEAD: Final = {  # of names that code brings along from elsewhere
    "require": NO_IMPORT,
    "module": _COMMON_JS,
    "exports": _COMMON_JS,
    "process": _ENV,
    "Deno": f"this is not Deno; {_ENV}, and {EXPORTED}",
    "Bun": f"this is not Bun; {_ENV}, and {EXPORTED}",
    "addEventListener": _SERVER,
    "Buffer": "there are Uint8Array, TextEncoder and TextDecoder, atob and btoa",
    "global": _GLOBAL,
    "self": _GLOBAL,
    "window": _GLOBAL,
    "document": _NO_PAGE,
    "navigator": _NO_PAGE,
    "location": _NO_PAGE,
    "localStorage": _NO_PAGE,
    "sessionStorage": _NO_PAGE,
    "caches": _NO_PAGE,
    "__dirname": _NO_FILES,
    "__filename": _NO_FILES,
    "axios": _FETCH,
    "XMLHttpRequest": _FETCH,
    "WebSocket": _STREAM,
    "EventSource": _STREAM,
    "setImmediate": "there are setTimeout and queueMicrotask",
    "env": _PARAMETER,
    "ctx": _PARAMETER,
    "context": _PARAMETER,
    "input": _PARAMETER,
    "event": _PARAMETER,
    "request": _PARAMETER,
}
_NOT_DEFINED: Final = re.compile(r"([\w$]{1,80}) is not defined")
_SECRET: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_NOT_A_METHOD: Final = (
    (re.compile(r"\w{1,80}\.waitUntil is not a function"), "a run ends when its function returns: await the work instead"),
    (
        re.compile(r"(?:\w{1,80}\.)?res\.\w{1,80} is not a function"),
        "a function answers with what it returns: a JSON value, or a Response",
    ),
)


def hint(error: Mapping[str, Any], denied: list[Denied]) -> str:
    """For who reads the error of a run. May be empty."""
    said = str(error.get("message", ""))
    return "\n".join(filter(None, (instead(error), *(_of_refusal(said, one) for one in denied[:SHOWN]))))


def instead(error: Mapping[str, Any]) -> str:
    """What to write in place of what is not there, if that is what went wrong."""
    name, message = error.get("name"), str(error.get("message", ""))
    if name == "ReferenceError" and (missing := _NOT_DEFINED.fullmatch(message)):
        return _INSTEAD.get(missing[1], _ENV if _SECRET.fullmatch(missing[1]) else "")
    if name == "TypeError":
        return next((words for pattern, words in _NOT_A_METHOD if pattern.fullmatch(message)), "")
    return ""


def _of_refusal(said: str, denied: Denied) -> str:
    """What the message does not tell of a refusal, and how to allow the host."""
    told = denied.message in said
    if not denied.message.endswith(UNLISTED) or not denied.host:
        return "" if told else denied.message
    allow = f"to allow it: rootlink egress allow {_rule(denied.host, denied.port)}"
    return allow if told else f"{denied.message}; {allow}"


def _rule(host: str, port: int | None) -> str:
    """A rule without a port opens 443 and 80."""
    if port in (None, 0, 80, 443):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
