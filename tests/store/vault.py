"""What the tests of the store share: a key pair to seal with, and a whole look at a database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from rootlink.records import NewConnection, Seal, Sealed, new_id
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import Unsealer, generate
from rootlink.store import Store, schema


class Vault:
    """Seals what a test hands in, opens what the store gives back."""

    def __init__(self) -> None:
        private, public = generate()
        self._sealer, self._unsealer = Sealer(public), Unsealer(private)

    def seal(self, project: str, name: str, value: str) -> Seal:
        def sealed(version: int) -> Sealed:
            return self._sealer.seal(project, name, version, value)

        return sealed

    def values(self, store: Store, project: str) -> dict[str, str]:
        """Every secret's value; raises if one does not open for its own row and version."""
        return {
            secret.name: self._unsealer.open(secret.ciphertext, project=project, name=secret.name, version=secret.version)
            for secret in store.secrets.sealed(project)
        }

    def connection(
        self,
        project: str,
        name: str = "resend",
        *,
        secrets: dict[str, str] | None = None,
        uses: list[str] | None = None,
        hosts: list[str] | None = None,
        workspace: str = "main",
    ) -> NewConnection:
        return NewConnection(
            id=new_id("con"),
            project=project,
            workspace=workspace,
            name=name,
            connector="resend",
            kind="function",
            desired=b'{"id":"x"}',
            secrets=[(secret, self.seal(project, secret, value)) for secret, value in (secrets or {}).items()],
            uses=uses or [],
            hosts=["api.resend.com"] if hosts is None else hosts,
            actor="cli",
        )


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but the audit log's, to the byte."""
    with store._database.read() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in schema.metadata.sorted_tables
            if table is not schema.activity
        }
