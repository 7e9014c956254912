"""A server somebody brought, at the gateway: what it is given, what is kept of it, and what of the vault it never gets."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rootlink.records import Version
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Actual, Desired
from tests.gateway.conftest import Instance

KEY = "sk-canary-0d9f4c5b6a7e8f90"
PATH = "/v1/projects/default"


async def pasted(instance: Instance, env: dict[str, str], name: str = "it") -> dict[str, Any]:
    text = json.dumps({name: {"command": "npx", "args": ["-y", "x@1.0.0"], "env": env}})
    (server,) = (await instance.data("POST", f"{PATH}/paste", {"text": text}))["servers"]
    found: dict[str, Any] = server
    return found


async def connected(instance: Instance, server: dict[str, Any], **more: Any) -> Desired:
    """What its row wants."""
    instance.provisioner.script = [InstallEvent(done=Actual("x", "main", server["name"], "mount", "d", "ready", ["it__a"]))]
    wish = {"connector": "custom", "name": server["name"], "server": server["manifest"], "secrets": server["secrets"], **more}
    await instance.data("POST", f"{PATH}/connections", wish)
    row = instance.store.connections.get(instance.project, server["name"])
    return msgspec.json.decode(row.desired, type=Desired)


async def test_a_secret_of_the_vault_is_not_a_strangers_for_naming_it(instance: Instance) -> None:
    await instance.data("POST", f"{PATH}/secrets", {"name": "GITHUB_TOKEN", "plaintext": "somebody's own"})
    server = await pasted(instance, {"GITHUB_TOKEN": ""})
    wish = {"connector": "custom", "name": "it", "server": server["manifest"]}
    status, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
    assert (status, code) == (400, "invalid")
    assert "GITHUB_TOKEN" in message


async def test_a_secret_of_another_connection_is_not_a_strangers_for_having_a_name_like_its(instance: Instance) -> None:
    await connected(instance, await pasted(instance, {"API_KEY": KEY}, name="my-work"))
    server = await pasted(instance, {"API_KEY": ""}, name="my_work")
    wish = {"connector": "custom", "name": "my_work", "server": server["manifest"]}
    status, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
    assert (status, code) == (400, "invalid")
    assert "API_KEY" in message


STRANGE: list[dict[str, Any]] = [
    {"packageArguments": [{"type": "named", "name": "--t=${GITHUB_TOKEN}", "value": "x"}]},
    {"environmentVariables": [{"name": "A", "value": "${X}}", "variables": {"X": {"default": "{GITHUB_TOKEN"}}}]},
    {"environmentVariables": [{"name": "A", "value": "{X}", "variables": {"X": {"default": "{GITHUB_TOKEN}"}}}]},
    {"environmentVariables": [{"name": "A", "value": "${GITHUB_TOKEN}"}]},
    {"environmentVariables": [{"name": "A", "default": "${GITHUB_TOKEN}"}]},
]


@pytest.mark.parametrize("members", STRANGE)
async def test_a_secret_of_the_vault_is_not_a_strangers_however_its_name_comes_together(
    instance: Instance, members: dict[str, Any]
) -> None:
    await instance.data("POST", f"{PATH}/secrets", {"name": "GITHUB_TOKEN", "plaintext": "somebody's own"})
    server = await pasted(instance, {})
    server["manifest"]["packages"][0] |= members
    wish = {"connector": "custom", "name": "it", "server": server["manifest"]}
    status, code, _ = await instance.refused("POST", f"{PATH}/connections", wish)
    assert (status, code) == (400, "invalid")


async def test_a_secret_that_a_person_made_is_neither_a_strangers_nor_replaced_by_one(instance: Instance) -> None:
    before = await instance.data("POST", f"{PATH}/secrets", {"name": "API_KEY__IT", "plaintext": "somebody's own"})
    server = await pasted(instance, {"API_KEY": ""})
    status, _, _ = await instance.refused(
        "POST", f"{PATH}/connections", {"connector": "custom", "name": "it", "server": server["manifest"]}
    )
    assert status == 400
    desired = await connected(instance, await pasted(instance, {"API_KEY": KEY}))
    assert desired.mount is not None
    assert desired.mount.env == {"API_KEY": "${API_KEY__IT__2}"}
    vault = {secret["name"]: secret for secret in await instance.data("GET", f"{PATH}/secrets")}
    assert vault["API_KEY__IT"] == before


async def test_a_link_that_is_no_page_is_refused(instance: Instance) -> None:
    server = await pasted(instance, {"API_KEY": KEY})
    server["manifest"]["_meta"]["dev.rootlink/v1"]["fields"]["API_KEY"]["helpUrl"] = "javascript:alert(1)"
    wish = {"connector": "custom", "name": "it", "server": server["manifest"], "secrets": server["secrets"]}
    _, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
    assert code == "invalid"
    assert "https://" in message


async def test_a_manifest_nested_without_end_is_refused(instance: Instance) -> None:
    server = await pasted(instance, {})
    server["manifest"]["packages"][0]["environmentVariables"] = [{"name": "A", "value": "http://a.b?x=" * 4000}]
    wish = {"connector": "custom", "name": "it", "server": server["manifest"]}
    _, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
    assert code == "invalid"
    assert "nested deeper" in message


async def test_a_strangers_secret_takes_nobodys_place_in_the_vault(instance: Instance) -> None:
    before = await instance.data("POST", f"{PATH}/secrets", {"name": "GITHUB_TOKEN", "plaintext": "somebody's own"})
    desired = await connected(instance, await pasted(instance, {"GITHUB_TOKEN": KEY}))
    assert desired.mount is not None
    assert desired.mount.env == {"GITHUB_TOKEN": "${GITHUB_TOKEN__IT}"}
    vault = {secret["name"]: secret for secret in await instance.data("GET", f"{PATH}/secrets")}
    assert sorted(vault) == ["GITHUB_TOKEN", "GITHUB_TOKEN__IT"]
    assert vault["GITHUB_TOKEN"] == before


async def test_servers_of_one_kind_have_keys_and_names_of_their_own(instance: Instance) -> None:
    first = await pasted(instance, {"API_KEY": f"{KEY}1"})
    await connected(instance, first)
    second = await pasted(instance, {"API_KEY": f"{KEY}2"})
    assert (first["name"], second["name"]) == ("it", "it-2")
    desired = await connected(instance, second)
    assert desired.mount is not None
    assert desired.mount.env == {"API_KEY": "${API_KEY__IT_2}"}
    sealed = instance.store.secrets.sealed(instance.project)
    opened = {
        one.name: instance.unsealer.open(one.ciphertext, project=instance.project, name=one.name, version=one.version)
        for one in sealed
    }
    assert opened == {"API_KEY__IT": f"{KEY}1", "API_KEY__IT_2": f"{KEY}2"}


async def test_hosts_are_those_that_were_named_and_tools_are_held_until_agreed_to(instance: Instance) -> None:
    server = await pasted(instance, {"BASE_URL": "https://api.found.example"})
    assert server["hosts"] == ["api.found.example"]
    desired = await connected(instance, server, hosts=["Chosen.example"])
    assert desired.mount is not None
    assert desired.mount.egress == ["chosen.example"]
    assert desired.rules.closed
    assert instance.store.egress.domains(instance.project) == ["chosen.example"]
    kept = instance.store.connections.get(instance.project, "it").manifest
    assert kept is not None
    assert b"chosen.example" in kept


async def test_nothing_of_what_was_pasted_is_kept_or_written_down(instance: Instance, capfd: Any) -> None:
    await pasted(instance, {"API_KEY": KEY})
    for text in (f"npx --what {KEY}", f'{{"a": "{KEY}', f"docker run -e K={KEY} x", f"https://me:{KEY}@x.example"):
        _, _, message = await instance.refused("POST", f"{PATH}/paste", {"text": text})
        assert KEY not in message
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    assert instance.store.secrets.list(instance.project) == []


async def test_a_manifest_that_opens_more_than_a_strangers_may_is_refused(instance: Instance) -> None:
    for member, value in (("install", {"lock": "x"}), ("files", {"a": "b"}), ("auth", {"kind": "oauth"})):
        server = await pasted(instance, {})
        server["manifest"]["_meta"]["dev.rootlink/v1"][member] = value
        wish = {"connector": "custom", "server": server["manifest"]}
        status, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
        assert (status, code) == (400, "invalid"), member
        assert member in message or "sign" in message
    _, code, message = await instance.refused("POST", f"{PATH}/connections", {"connector": "custom"})
    assert code == "invalid"
    assert "paste" in message


async def test_a_server_elsewhere_without_its_host_is_told_what_to_name(instance: Instance) -> None:
    (server,) = (await instance.data("POST", f"{PATH}/paste", {"text": "https://mcp.x.example/mcp"}))["servers"]
    wish = {"connector": "custom", "server": server["manifest"]}
    _, code, message = await instance.refused("POST", f"{PATH}/connections", wish)
    assert code == "invalid"
    assert "name its host" in message


async def test_a_functions_update_is_seen_without_starting_anything(instance: Instance) -> None:
    done = Actual("x", "main", "resend", "function", "d", "ready", ["function__resend"])
    instance.provisioner.script = [InstallEvent(done=done)]
    await instance.data("POST", f"{PATH}/connections", {"connector": "resend", "secrets": {"RESEND_API_KEY": "re_canary_1"}})
    at = f"{PATH}/connections/resend"
    assert (await instance.data("GET", f"{at}/update"))["update"] is False
    row = instance.store.connections.get(instance.project, "resend")
    older = msgspec.json.decode(row.desired, type=Desired)
    assert older.function is not None
    older = msgspec.structs.replace(older, function=msgspec.structs.replace(older.function, code="async () => 1"))
    kept = Version(msgspec.json.encode(older), "0.1.0", row.uses, ["old.example"], row.rules)
    instance.store.connections.update(row.id, kept, was=row.desired)
    changes = await instance.data("GET", f"{at}/update")
    assert (changes["update"], changes["settings"]) == (True, ["code"])
    assert changes["version"] == {"from": "0.1.0", "to": row.version}
    assert (changes["hosts_added"], changes["hosts_removed"]) == (["api.resend.com"], ["old.example"])
    status, code, _ = await instance.refused("GET", f"{at}/export")
    assert (status, code) == (400, "invalid")
