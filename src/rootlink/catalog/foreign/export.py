"""A connection as other programs write it down. What is exported is what runs; secrets are places to fill in, never values.

    mcpServers     Claude, Cursor, Windsurf and kin: secrets as ${NAME}
    vscode         VS Code's mcp.json: secrets as ${input:name}, each an input that is asked for
    server.json    the registry's format, with what the catalogue knows of it

Rule. A function runs in Rootlink alone, so there is no server to export.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

import msgspec

from rootlink.catalog.manifest import META, Manifest
from rootlink.errors import Invalid
from rootlink.wire.mounts import MountSpec

Format = Literal["mcpServers", "vscode", "server.json"]
FORMATS: tuple[str, ...] = get_args(Format)
_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CREDENTIAL = {"bearer": ("Authorization", "Bearer "), "api_key": ("X-API-Key", "")}
_OUR_FOLDERS = "${{files}} and ${{state}} are folders that Rootlink fills in; elsewhere, write folders of your own in their place"


def exported(
    name: str, mount: MountSpec, manifest: Manifest | None, format: str, own: dict[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The configuration, and notes for a person. `own`: the field of each vault secret (`{vault name: field}`), so that what is
    exported asks for the field's name. `Invalid` for a format that is none."""
    if format not in FORMATS:
        raise Invalid(f"there is no format {format[:40]!r}; there are {', '.join(FORMATS)}")
    if format == "server.json":
        if manifest is None:
            raise Invalid("there is no manifest of this connection any more: export it as mcpServers or vscode")
        return _registry(manifest), []
    written = msgspec.json.encode(_server(mount)).decode()
    notes = [_OUR_FOLDERS] if "${{" in written else []
    if mount.files:
        notes.append("Rootlink writes files for this server, which are not in here")
    if mount.oauth is not None:
        notes.append("this server asks for a sign-in, which each program does by itself")
    server = msgspec.json.decode(_REFERENCE.sub(lambda found: f"${{{own.get(found[1], found[1])}}}", written))
    if format == "mcpServers":
        return {"mcpServers": {name: server}}, notes
    return _vscode(name, server), notes


def _server(mount: MountSpec) -> dict[str, Any]:
    if mount.transport == "stdio":
        return {"command": mount.command, "args": mount.args, **({"env": mount.env} if mount.env else {})}
    headers = dict(mount.headers)
    if mount.auth is not None:
        header, scheme = _CREDENTIAL[mount.auth.kind]
        headers[header] = f"{scheme}{mount.auth.token}"
    return {"type": mount.transport, "url": mount.endpoint, **({"headers": headers} if headers else {})}


def _vscode(name: str, server: dict[str, Any]) -> dict[str, Any]:
    ids: dict[str, None] = {}

    def put(found: re.Match[str]) -> str:
        ids[found[1]] = None
        return f"${{input:{found[1]}}}"

    written = _REFERENCE.sub(put, msgspec.json.encode(server).decode())
    server = {"type": "stdio", **msgspec.json.decode(written)}
    inputs = [{"type": "promptString", "id": each, "description": each, "password": True} for each in ids]
    return {"servers": {name: server}, "inputs": inputs}


def plain(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON has it, without the members that say nothing."""
    whole: dict[str, Any] = _without_nothing(msgspec.to_builtins(manifest))
    return whole


def _registry(manifest: Manifest) -> dict[str, Any]:
    whole = plain(manifest)
    for member in ("install", "verify", "files", "function"):
        whole["_meta"][META].pop(member, None)
    return whole


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        bare = {key: _without_nothing(each) for key, each in value.items()}
        return {key: each for key, each in bare.items() if each is not None and each not in ([], {})}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value
