"""What to paste into each AI client so that it uses this instance: one row a client, each a pure function of URL and key.

Where each client keeps its servers, and in which form, is from its own documentation:
    claude-code      `claude mcp add --transport http NAME URL --header …`
    claude-desktop   its file starts programs only, so a bridge from npm (`mcp-remote`) speaks HTTP for it; the header's value is
                     handed over in the environment, since some versions break an argument with a space in it
    cursor           `mcpServers.NAME.{url, headers}`        vscode     `servers.NAME.{type, url, headers}`
    codex            `[mcp_servers.NAME]` with `url` and `http_headers` (a member `headers` is ignored)
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec


class Target(NamedTuple):
    """One AI client: where the configuration goes, its format, and the text for a URL and a key."""

    path: str
    format: Literal["shell", "json", "toml"]
    write: Callable[[str, str], str]


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _toml(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON string is a TOML basic string


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _claude_code(url: str, key: str) -> str:
    return f"claude mcp add --transport http rootlink {shlex.quote(url)} --header {shlex.quote(f'Authorization: Bearer {key}')}"


def _claude_desktop(url: str, key: str) -> str:
    arguments = ["-y", "mcp-remote", url, "--header", "Authorization:${ROOTLINK_AUTHORIZATION}"]
    if url.startswith("http://"):
        arguments.append("--allow-http")
    server = {"command": "npx", "args": arguments, "env": {"ROOTLINK_AUTHORIZATION": f"Bearer {key}"}}
    return _pretty({"mcpServers": {"rootlink": server}})


def _cursor(url: str, key: str) -> str:
    return _pretty({"mcpServers": {"rootlink": {"url": url, "headers": _bearer(key)}}})


def _codex(url: str, key: str) -> str:
    header = f'"Authorization" = {_toml(f"Bearer {key}")}'
    return f"[mcp_servers.rootlink]\nurl = {_toml(url)}\nhttp_headers = {{ {header} }}"


def _vscode(url: str, key: str) -> str:
    return _pretty({"servers": {"rootlink": {"type": "http", "url": url, "headers": _bearer(key)}}})


CLIENTS = {
    "claude-code": Target("a shell", "shell", _claude_code),
    "claude-desktop": Target("claude_desktop_config.json (Settings > Developer > Edit Config)", "json", _claude_desktop),
    "cursor": Target("~/.cursor/mcp.json", "json", _cursor),
    "codex": Target("~/.codex/config.toml", "toml", _codex),
    "vscode": Target(".vscode/mcp.json", "json", _vscode),
}
