"""`/v1/projects/{p}/paste`, `…/connections/{name}/export`: servers of other programs' configurations, in and out.

What was pasted may be full of credentials. They are handed back once, so that the form can be filled in, and the connect seals
them; nothing of the text is kept, and none of it is in a log or an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rootlink.catalog import Entry, foreign
from rootlink.catalog.manifest import Manifest
from rootlink.errors import Invalid, NotFound
from rootlink.gateway import custom
from rootlink.gateway.connect import entry_named
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.gateway.v1.connections import WHERE, named
from rootlink.records import Connection
from rootlink.wire.mounts import Desired


class Paste(msgspec.Struct):
    text: str

    def __repr__(self) -> str:
        return "Paste()"


class PastedServer(msgspec.Struct):
    """`fields` as of a catalogue's entry. `secrets`: the values that stood in the text, by field, told this once. `hosts`: those
    its URLs name, to be agreed to or added to. Connect it with {connector: "custom", name, server: manifest, hosts, …}."""

    name: str
    title: str
    fields: list[dict[str, Any]]
    hosts: list[str]
    access: list[str]
    warnings: list[str]
    manifest: dict[str, Any]
    secrets: dict[str, str]

    def __repr__(self) -> str:
        return f"PastedServer({self.name!r})"


class Exported(msgspec.Struct):
    """`config` is what the other program's file holds; `notes` are words for a person."""

    format: str
    config: dict[str, Any]
    notes: list[str]


async def paste(call: Call) -> dict[str, list[PastedServer]]:
    project = await call.project()
    taken = {connection.name for connection in await stored(call.plane.store.connections.list, project.id)}
    return {"servers": [_shown(server) for server in foreign.read(call.body.text, taken)]}


async def export(call: Call) -> Exported:
    connection = await named(call)
    format = call.query("format") or "mcpServers"
    mount = msgspec.json.decode(connection.desired, type=Desired).mount
    if mount is None:
        raise Invalid(f"{connection.name} is a Root Function, which runs in Rootlink alone: there is no server to export")
    manifest = _manifest(call, connection)
    fields = [field.name for field in Entry.from_manifest(manifest).fields if field.secret] if manifest is not None else []
    config, notes = foreign.exported(connection.name, mount, manifest, format, _fields_of(connection.uses, fields))
    return Exported(format, config, notes)


def _shown(server: foreign.Pasted) -> PastedServer:
    entry = Entry.from_manifest(server.manifest)
    return PastedServer(
        name=server.name,
        title=entry.title,
        fields=[field.view() for field in entry.fields],
        hosts=server.hosts,
        access=entry.access,
        warnings=server.warnings,
        manifest=foreign.plain(server.manifest),
        secrets=server.secrets,
    )


def _manifest(call: Call, connection: Connection) -> Manifest | None:
    """What it was made from: its own, or its entry's; None if the catalogue has no such entry any more."""
    if connection.manifest is not None:
        return custom.kept(connection.manifest)
    try:
        return entry_named(call.plane.catalog, connection.connector).variant(connection.variant).manifest
    except NotFound:
        return None


def _fields_of(uses: list[str], fields: list[str]) -> dict[str, str]:
    """Which field each of the vault's secrets is (`connect.py` has how they are named)."""
    return {name: field for name in uses for field in fields if name == field or name.startswith(f"{field}__")}


ROUTES = [
    Route(
        "POST",
        "/v1/projects/{p}/paste",
        paste,
        "Read a configuration, a command line or a URL: the servers in it, each with its form",
        body=Paste,
        answer=dict[str, list[PastedServer]],
    ),
    Route(
        "GET",
        "/v1/projects/{p}/connections/{name}/export",
        export,
        "A connection as other programs write it down, without its secrets' values",
        answer=Exported,
        query={**WHERE, "format": f"one of {', '.join(foreign.FORMATS)}; mcpServers unless given"},
    ),
]
