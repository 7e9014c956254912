"""Connects of every kind: several of one connector, variants, servers somebody brought, and those a person signs in for."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from rootlink.records import Connection
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Actual, Desired, Step
from tests.gateway.conftest import ADMIN, Instance, until
from tests.gateway.test_connect import MEMORY, C, P, _events, _vault, done, failed, running

LINK = "https://login.example/authorize?state=x"
WAITS = InstallEvent(step=Step("install", "running", "sign in", link=LINK))


def database(host: str, name: str) -> dict[str, Any]:
    url = f"postgresql://ro:pa55@{host}:6432/shop"
    return {"connector": "postgres", "name": name, "secrets": {"PG_DSN": url}}


def desired(instance: Instance, name: str, workspace: str = "main") -> tuple[Connection, Desired]:
    row = instance.store.connections.get(instance.project, name, workspace)
    return row, msgspec.json.decode(row.desired, type=Desired)


# several of one kind


async def test_two_databases_have_each_their_own_key_and_host(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    for host, name in (("one.example", "shop"), ("two.example", "stock")):
        await instance.data("POST", C, database(host, name))
    assert _vault(instance) == {
        "PG_DSN": "postgresql://ro:pa55@one.example:6432/shop",
        "PG_DSN__STOCK": "postgresql://ro:pa55@two.example:6432/shop",
    }
    rules = await instance.data("GET", f"{P}/egress")
    assert {(rule["domain"], rule["source"]) for rule in rules} == {
        ("one.example:6432", "connection:shop"),
        ("two.example:6432", "connection:stock"),
    }
    for host, name, secret in (("one.example", "shop", "PG_DSN"), ("two.example", "stock", "PG_DSN__STOCK")):
        row, wish = desired(instance, name)
        assert wish.mount is not None
        assert (wish.mount.egress, row.uses) == ([f"{host}:6432"], [secret])
        assert f"${{{secret}}}" in wish.mount.env.values()


async def test_a_key_replaces_nobody_elses_however_alike_the_names_are(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    wishes = [("main", "postgres"), ("lab", "postgres"), ("main", "a-b"), ("main", "a_b"), ("lab", "a-b")]
    for number, (workspace, name) in enumerate(wishes):
        await instance.data("POST", C, {**database(f"db{number}.example", name), "workspace": workspace})
    vault = _vault(instance)
    assert len(vault) == len(wishes)
    for number, (workspace, name) in enumerate(wishes):
        row, _ = desired(instance, name, workspace)
        assert vault[row.uses[0]] == f"postgresql://ro:pa55@db{number}.example:6432/shop"


async def test_two_that_are_connected_at_once_do_not_share_a_key(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    names = [f"db{number}" for number in range(6)]
    await asyncio.gather(*(instance.data("POST", C, database(f"{name}.example", name)) for name in names))
    vault = _vault(instance)
    for name in names:
        row, _ = desired(instance, name)
        assert vault[row.uses[0]] == f"postgresql://ro:pa55@{name}.example:6432/shop"


async def test_a_key_that_nobody_uses_any_more_is_replaced(instance: Instance) -> None:
    await instance.data("POST", f"{P}/secrets", {"name": "PG_DSN", "plaintext": "postgresql://old"})
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, database("one.example", "postgres"))
    assert _vault(instance) == {"PG_DSN": "postgresql://ro:pa55@one.example:6432/shop"}


# what the row keeps


async def test_what_the_connect_found_is_shown(instance: Instance) -> None:
    found = Actual(
        "con", "main", "memory", "mount", "d", "ready", ["memory__read"], None, "octocat", ["may write"], {"read": "f1"}
    )
    instance.provisioner.script = [InstallEvent(done=found)]
    shown = await instance.data("POST", C, MEMORY)
    assert (shown["label"], shown["notes"], shown["held"], shown["variant"]) == ("octocat", ["may write"], [], None)
    assert shown["version"]
    row, wish = desired(instance, "memory")
    assert row.rules.pins == {"read": "f1"}
    assert row.rules.closed and wish.rules == msgspec.structs.replace(row.rules, pins={})
    assert await instance.data("GET", f"{C}/memory") == shown


async def test_a_variant_is_an_entry_of_its_own(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    shown = await instance.data("POST", C, {"connector": "supabase", "variant": "remote"})
    assert (shown["name"], shown["connector"], shown["variant"]) == ("supabase", "supabase", "remote")
    status, _, message = await instance.refused("POST", C, {"connector": "supabase", "variant": "nonsense"})
    assert status == 404
    assert "remote" in message


async def test_a_sign_in_comes_back_to_this_gateway_and_its_tokens_are_the_connections_alone(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    secrets = set()
    for workspace, name in (("main", "supabase"), ("lab", "supabase"), ("main", "a-b"), ("main", "a_b")):
        await instance.data("POST", C, {"connector": "supabase", "variant": "remote", "name": name, "workspace": workspace})
        row, wish = desired(instance, name, workspace)
        assert wish.mount is not None and wish.mount.oauth is not None
        assert wish.mount.oauth.redirect == f"{instance.url}/oauth/callback"
        assert row.uses == []  # it is not in the vault yet
        secrets.add(wish.mount.oauth.secret)
    assert len(secrets) == 4


@pytest.mark.parametrize("more", [{"server": {"name": "x"}}, {"hosts": ["evil.example"]}])
async def test_the_catalogues_own_are_not_somebodys_to_change(instance: Instance, more: dict[str, Any]) -> None:
    status, code, message = await instance.refused("POST", C, {**MEMORY, **more})
    assert (status, code) == (400, "invalid")
    assert "for connector 'custom'" in message
    assert await instance.data("GET", C) == []


# sign-ins


async def test_a_json_connect_is_answered_when_a_person_is_waited_for(instance: Instance) -> None:
    there = asyncio.Event()
    instance.provisioner.script = [running("looking"), WAITS, there, running("signed in"), done("memory__read")]
    status, answer = await asyncio.wait_for(instance.call("POST", C, MEMORY), 5)
    assert (status, answer["data"]["state"]) == (201, "connecting")
    assert answer["data"]["steps"] == [{"step": "install", "state": "running", "detail": "sign in", "link": LINK}]
    there.set()
    await until(lambda: instance.store.connections.get(instance.project, "memory").state == "connected")
    await until(lambda: bool(instance.store.connections.get(instance.project, "memory").steps))
    assert "link" not in str((await instance.data("GET", f"{C}/memory"))["steps"])


async def test_a_sign_in_that_nobody_made_leaves_nothing_and_says_so_in_the_audit_log(instance: Instance) -> None:
    over = asyncio.Event()
    instance.provisioner.script = [WAITS, over, failed("unavailable", "nobody signed in")]
    assert (await instance.call("POST", C, MEMORY))[0] == 201
    over.set()
    await until(lambda: instance.store.connections.list(instance.project) == [])

    async def noted() -> bool:
        return "connection.failed" in [line["action"] for line in await instance.data("GET", f"{P}/activity")]

    async with asyncio.timeout(5):
        while not await noted():
            await asyncio.sleep(0.01)


async def test_a_stream_tells_the_link_once_however_often_it_is_repeated(instance: Instance) -> None:
    instance.provisioner.script = [WAITS, WAITS, WAITS, running("signed in"), done("memory__read")]
    events = await _events(instance, MEMORY)
    assert [data.get("link") for name, data in events if name == "step"] == [None, LINK, None, None]
    assert events[-1][0] == "done"


async def test_a_person_may_take_longer_than_an_install(instance: Instance) -> None:
    object.__setattr__(instance.gateway.plane.settings, "install_secs", 0.5)
    waits: list[Any] = []
    for _ in range(8):
        waits += [WAITS, later(0.15)]
    instance.provisioner.script = [*waits, running("signed in"), done("memory__read")]
    events = await _events(instance, MEMORY)
    assert events[-1][0] == "done", events[-1]
    assert ADMIN not in str(events)


def later(secs: float) -> asyncio.Event:
    """Set so long after somebody begins to wait for it."""

    class Later(asyncio.Event):
        async def wait(self) -> Any:
            await asyncio.sleep(secs)
            return True

    return Later()
