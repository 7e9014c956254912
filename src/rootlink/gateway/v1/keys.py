"""`/v1/projects/{p}/keys`: what AI clients sign in with. The key itself is in one answer, once."""

from __future__ import annotations

from typing import Literal

import msgspec

from rootlink.gateway.auth import SHOWN, digest, new_key
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import Key


class NewKey(msgspec.Struct):
    name: str
    scopes: list[Literal["use", "manage"]] | None = None


class KeyView(msgspec.Struct):
    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    revoked_at: str | None


class CreatedKey(msgspec.Struct):
    """`key` is shown this once."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    key: str


async def every(call: Call) -> list[KeyView]:
    project = await call.project()
    return [_view(key) for key in await stored(call.plane.store.keys.list, project.id)]


async def create(call: Call) -> CreatedKey:
    project = await call.project()
    secret = new_key()
    key = await stored(
        call.plane.store.keys.create,
        project.id,
        name=call.body.name,
        scopes=call.body.scopes,
        hash=digest(secret),
        prefix=secret[:SHOWN],
    )
    await call.note(project.id, "key.create", key.id, f"{key.name} ({', '.join(key.scopes)})")
    return CreatedKey(key.id, key.name, key.prefix, key.scopes, key.created_at, secret)


async def revoke(call: Call) -> KeyView:
    project = await call.project()
    key = await stored(call.plane.store.keys.revoke, project.id, call.params["id"])
    call.plane.keys.drop(lambda other: other.id == key.id)
    await call.note(project.id, "key.revoke", key.id, key.name)
    return _view(key)


def _view(key: Key) -> KeyView:
    return KeyView(key.id, key.name, key.prefix, key.scopes, key.created_at, key.revoked_at)


ROUTES = [
    Route("GET", "/v1/projects/{p}/keys", every, "List keys, revoked ones too", answer=list[KeyView]),
    Route("POST", "/v1/projects/{p}/keys", create, "Create a key; it is shown once", body=NewKey, answer=CreatedKey, status=201),
    Route("DELETE", "/v1/projects/{p}/keys/{id}", revoke, "Revoke a key, at once", answer=KeyView),
]
