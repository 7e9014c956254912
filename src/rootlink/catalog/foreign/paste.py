"""What somebody pasted, whatever it is: the servers in it, each as a manifest whose form is that of a catalogue's entry.

    JSON            mcpServers (with or without the outer object), VS Code's mcp.json, a registry's server.json
    one line        npx …, uvx …, claude mcp add …
    one word        a URL

Rule. The text may be full of credentials: it is never logged, and no message of an error quotes more of it than names.
"""

from __future__ import annotations

import re

from rootlink.catalog.foreign import form, formats, jsonish, lines, registry
from rootlink.catalog.foreign.form import Pasted
from rootlink.errors import Invalid, TooLarge

MOST = 64 * 1024  # characters


def read(text: str, taken: set[str] | None = None) -> list[Pasted]:
    """The servers in `text`, their names told apart from each other and from those `taken`. `Invalid`, `TooLarge`."""
    if len(text) > MOST:
        raise TooLarge(f"this is longer than any configuration: at most {MOST // 1024} Ki characters")
    names = set(taken or ())
    try:
        servers = _servers(text.strip().removeprefix("\ufeff"))
    except RecursionError:
        raise Invalid("this is nested deeper than any configuration: paste one that is not") from None
    for server in servers:
        server.name = form.connection_name(server.name, names)
        names.add(server.name)
    return servers


def _servers(text: str) -> list[Pasted]:
    if not text:
        raise Invalid("nothing was pasted: give a configuration's JSON, a command line or a URL")
    text = _unfenced(text)
    if re.match(r"https?://\S+\Z", text):
        return [form.pasted(lines.url(None, text, {}))]
    if text[0] in '{["' or text.startswith(("//", "/*")):
        return _json(text)
    return [form.pasted(found) for found in lines.read(lines.words_of(text), jsonish.decode)]


def _json(text: str) -> list[Pasted]:
    value = jsonish.decode(text)
    if value is ...:
        raise Invalid("this begins like JSON and is none: look for a missing bracket, quote or comma")
    if not isinstance(value, dict):
        raise Invalid("this JSON is no configuration: it must be an object with `mcpServers`, `servers`, `command` or `url`")
    inner = value.get("server")
    if isinstance(inner, dict) and registry.is_one(inner):  # as the registry's API answers
        value = inner
    if registry.is_one(value):
        return registry.read(value)
    return [form.pasted(found) for found in formats.servers(value)]


def _unfenced(text: str) -> str:
    """Without the fence a README puts around it."""
    found = re.match(r"```[a-z]*\n(.*?)\n?```\Z", text, re.DOTALL)
    return found[1].strip() if found else text
