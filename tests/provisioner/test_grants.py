"""What sign-ins brought: from the engine into the vault, not lost, not twice, and no other secret touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rootlink.records import Connection, NewConnection, new_id
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import generate
from rootlink.wire.engine import Grant
from rootlink.wire.mounts import Desired, MountSpec, OAuth
from tests.provisioner.conftest import Opens, Provisioner
from tests.provisioner.stage import Stage, until

SECRET = "DOCS_OAUTH__1"


def signed_in(stage: Stage, project: str, *, secret: str = SECRET, name: str = "docs") -> Connection:
    """A connection that takes a sign-in, connected."""
    id = new_id("con")
    mount = MountSpec(name, "http", endpoint="https://docs.example/mcp", oauth=OAuth(secret, "http://127.0.0.1/oauth/callback"))
    body = msgspec.json.encode(Desired(id, "main", name, mount=mount))
    stage.store.connections.connect(NewConnection(id, project, "main", name, name, "mcp", body, [], [], [], "tester"))
    return stage.store.connections.set_state(id, "connected")


def grant(stage: Stage, row: Connection, value: str, *, id: str = "g1", secret: str = SECRET, **sealed: Any) -> dict[str, Any]:
    """As an engine hands it over."""
    of = {"project": row.project, "name": secret, "version": 0, **sealed}
    box = Sealer(stage.unsealer.public).seal(of["project"], of["name"], of["version"], value)
    made: dict[str, Any] = msgspec.to_builtins(Grant(id, row.id, secret, box.ciphertext, box.key_id))
    return made


def vault(stage: Stage, project: str) -> dict[str, tuple[int, str]]:
    """Version and value of every secret; raises if one does not open for its own row."""
    return {
        one.name: (one.version, stage.unsealer.open(one.ciphertext, project=project, name=one.name, version=one.version))
        for one in stage.store.secrets.sealed(project)
    }


async def polled(one: Provisioner, project: str) -> None:
    await one.engines.ensure(project)
    await one.engines.poll()


async def test_a_grant_becomes_the_secret_of_its_connection_and_is_acknowledged(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, "t0ken")])
    async with provisioner() as one:
        await polled(one, project)
        assert vault(stage, project) == {SECRET: (1, "t0ken")}
        assert stage.store.connections.get(project, "docs").uses == [SECRET]
        assert stage.journal(project, "grants")[:2] == [["grants", []], ["grants", ["g1"]]]
        await until(lambda: stage.journal(project, "environment"), "the engine is given what the vault has")
        assert stage.journal(project, "environment")[-1][1] == [SECRET]


async def test_a_grant_that_comes_again_is_not_written_again(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, "t0ken")], grants="stubborn")
    async with provisioner() as one:
        for _ in range(3):
            await polled(one, project)
        assert vault(stage, project) == {SECRET: (1, "t0ken")}


async def test_of_several_the_latest_is_kept_and_all_are_acknowledged(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, value, id=id) for id, value in (("g1", "old"), ("g2", "new"))])
    async with provisioner() as one:
        await polled(one, project)
        assert vault(stage, project) == {SECRET: (1, "new")}
        assert ["grants", ["g1", "g2"]] in stage.journal(project, "grants")


async def test_what_the_store_cannot_take_is_not_acknowledged_and_taken_later(
    stage: Stage, provisioner: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rootlink.errors import Unavailable
    from rootlink.store.connections import StoredConnections

    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, "t0ken")])
    async with provisioner() as one:

        def away(*_: object) -> bool:
            raise Unavailable("no store")

        with monkeypatch.context() as patched:
            patched.setattr(StoredConnections, "keep_secret", away)
            await polled(one, project)
        assert [taken for _, taken in stage.journal(project, "grants")] == [[]]
        await polled(one, project)
        assert vault(stage, project) == {SECRET: (1, "t0ken")}


async def test_a_grant_is_taken_before_an_engine_stops(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    async with provisioner() as one:
        await one.engines.ensure(project)
        stage.knobs(project, handed=[grant(stage, row, "t0ken")])
        await one.engines.stop(project)
        assert vault(stage, project) == {SECRET: (1, "t0ken")}


FORGED = {
    "another secret of the vault": {"secret": "TOKEN"},
    "a box of another project": {"project": "prj_000000000000"},
    "a box of another name": {"name": "TOKEN"},
    "a box of a row": {"version": 1},
}


@pytest.mark.parametrize("sentence", FORGED)
async def test_an_engine_can_write_over_no_secret_but_its_connections_grant(
    stage: Stage, provisioner: Opens, sentence: str
) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "mine")
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, "forged", **FORGED[sentence])])
    async with provisioner() as one:
        await polled(one, project)
        assert vault(stage, project) == {"TOKEN": (1, "mine")}
        assert stage.journal(project, "grants")[-1] == ["grants", ["g1"]]  # it would never be any good


async def test_an_engine_can_give_nothing_to_another_projects_connection(stage: Stage, provisioner: Opens) -> None:
    mine, other = stage.project("mine"), stage.project("other")
    row = signed_in(stage, other)
    stage.knobs(mine, handed=[grant(stage, row, "forged", project=mine), grant(stage, row, "forged", id="g2")])
    async with provisioner() as one:
        await polled(one, mine)
        assert vault(stage, mine) == vault(stage, other) == {}


async def test_a_box_for_another_key_is_dropped_with_its_id_in_the_log_and_nothing_of_it(
    stage: Stage, provisioner: Opens, capsys: pytest.CaptureFixture[str]
) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    box = Sealer(generate()[1]).seal(project, SECRET, 0, "t0ken-value")
    bad = msgspec.to_builtins(Grant("g1", row.id, SECRET, box.ciphertext, box.key_id))
    stage.knobs(project, handed=[bad, grant(stage, row, "good-t0ken", id="g2", secret="OTHER")])
    async with provisioner() as one:
        await polled(one, project)
    assert vault(stage, project) == {}
    logged = "".join(capsys.readouterr())
    assert "g1" in logged and "g2" in logged
    assert "t0ken" not in logged and bad["ciphertext"] not in logged
