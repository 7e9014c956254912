"""`/v1/projects/{p}/secrets`: the vault. A value comes in here, is sealed before anything is written, and never goes out."""

from __future__ import annotations

import msgspec

from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import Secret
from rootlink.records.secret import secret_name
from rootlink.sealing.envelope import checked_value


class NewSecret(msgspec.Struct):
    name: str
    plaintext: str

    def __repr__(self) -> str:
        return f"NewSecret({self.name!r})"


class SecretView(msgspec.Struct):
    id: str
    name: str
    version: int
    created_at: str
    last_rotated_at: str
    envelope_key_id: str


async def every(call: Call) -> list[SecretView]:
    project = await call.project()
    return [_view(secret) for secret in await stored(call.plane.store.secrets.list, project.id)]


async def put(call: Call) -> SecretView:
    project = await call.project()
    sealer, name = call.plane.sealer, secret_name(call.body.name)
    value = checked_value(name, call.body.plaintext)
    secret = await stored(
        call.plane.store.secrets.put, project.id, name, lambda version: sealer.seal(project.id, name, version, value)
    )
    await call.note(project.id, "secret.put", name, f"version {secret.version}")
    await call.plane.refresh(project.id)
    return _view(secret)


async def delete(call: Call) -> SecretView:
    project = await call.project()
    secret = await stored(call.plane.store.secrets.delete, project.id, call.params["id"])
    await call.note(project.id, "secret.delete", secret.name)
    await call.plane.refresh(project.id)
    return _view(secret)


def _view(secret: Secret) -> SecretView:
    return SecretView(secret.id, secret.name, secret.version, secret.created_at, secret.last_rotated_at, secret.envelope_key_id)


ROUTES = [
    Route("GET", "/v1/projects/{p}/secrets", every, "List secrets, without their values", answer=list[SecretView]),
    Route("POST", "/v1/projects/{p}/secrets", put, "Seal a secret, or rotate it", body=NewSecret, answer=SecretView, status=201),
    Route("DELETE", "/v1/projects/{p}/secrets/{id}", delete, "Delete a secret, by id or name", answer=SecretView),
]
