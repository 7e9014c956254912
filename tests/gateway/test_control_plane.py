"""`/v1`, as CONTRACT §3 has it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import pytest

from rootlink.engine.functions.host import Deployed, Function, Run
from rootlink.engine.rest import PREFIX, FunctionBody
from rootlink.engine.rest import ROUTES as ENGINE_ROUTES
from rootlink.errors import Unavailable
from rootlink.gateway import engine_api
from rootlink.records import EngineRow
from rootlink.wire.engine import Decision
from rootlink.wire.mounts import MountSpec
from tests.gateway.conftest import ADMIN, Instance, Start

P = "/v1/projects/default"
CANARY = "canary-5f0e9b7c"


async def test_projects_are_made_found_and_listed(instance: Instance) -> None:
    made = await instance.data("POST", "/v1/projects", {"name": "acme"})
    assert made["id"].startswith("prj_")
    assert made["name"] == "acme"
    for ref in (made["id"], "acme"):
        assert await instance.data("GET", f"/v1/projects/{ref}") == made
    assert [project["name"] for project in await instance.data("GET", "/v1/projects")] == ["default", "acme"]
    assert (await instance.refused("POST", "/v1/projects", {"name": "acme"}))[:2] == (409, "conflict")
    assert (await instance.refused("GET", "/v1/projects/none"))[:2] == (404, "not_found")


async def test_a_deleted_project_leaves_nothing_and_its_keys_are_refused_at_once(instance: Instance) -> None:
    await instance.mcp()
    gone = await instance.data("DELETE", P)
    assert gone["id"] == instance.project
    assert await instance.data("GET", "/v1/projects") == []
    assert (await instance.refused("GET", "/mcp", token=instance.key))[0] == 401
    assert f"delete {instance.project}" in instance.provisioner.calls


async def test_a_project_stays_whole_when_its_engine_cannot_be_ended(instance: Instance) -> None:
    instance.provisioner.refusal = Unavailable("busy")
    assert (await instance.refused("DELETE", P))[:2] == (503, "unavailable")
    instance.provisioner.refusal = None
    assert (await instance.mcp())[0] == 200


async def test_keys_are_made_listed_and_revoked(instance: Instance) -> None:
    status, answer = await instance.call("POST", f"{P}/keys", {"name": "laptop", "scopes": ["use"]})
    assert status == 201
    made = answer["data"]
    assert (made["name"], made["scopes"]) == ("laptop", ["use"])
    listed = await instance.data("GET", f"{P}/keys")
    assert [(key["name"], key["scopes"], key["revoked_at"]) for key in listed] == [
        ("test", ["use", "manage"], None),
        ("laptop", ["use"], None),
    ]
    assert made["key"] not in str(listed)
    await instance.data("DELETE", f"{P}/keys/{made['id']}")
    assert (await instance.data("GET", f"{P}/keys"))[1]["revoked_at"]
    assert (await instance.refused("DELETE", f"{P}/keys/key_000000000000"))[0] == 404
    for wrong in ([], ["admin"], "use"):
        assert (await instance.refused("POST", f"{P}/keys", {"name": "x", "scopes": wrong}))[:2] == (400, "invalid"), wrong


async def test_a_secret_goes_in_sealed_and_never_comes_out(instance: Instance) -> None:
    status, answer = await instance.call("POST", f"{P}/secrets", {"name": "TOKEN", "plaintext": CANARY})
    assert status == 201
    assert set(answer["data"]) >= {"id", "name", "created_at", "last_rotated_at", "envelope_key_id"}
    (row,) = instance.store.secrets.sealed(instance.project)
    assert instance.unsealer.open(row.ciphertext, project=instance.project, name="TOKEN", version=1) == CANARY
    rotated = await instance.data("POST", f"{P}/secrets", {"name": "TOKEN", "plaintext": CANARY + "2"})
    assert (rotated["id"], rotated["version"]) == (answer["data"]["id"], 2)
    everything = [
        await instance.call("GET", path)
        for path in (f"{P}/secrets", f"{P}/activity", f"{P}/connections", "/v1/catalog", f"{P}/engine")
    ]
    assert CANARY not in str([answer, rotated, everything])
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in instance.provisioner.socket.parent.glob("rootlink.db*"))
    for ref in (rotated["id"], "TOKEN"):
        status, _ = await instance.call("DELETE", f"{P}/secrets/{ref}")
        assert status == (200 if ref != "TOKEN" else 404)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "A B", "plaintext": CANARY}, "invalid"),
        ({"name": "A"}, "invalid"),
        ({"name": "A", "plaintext": [CANARY]}, "invalid"),
        ({"name": "A", "plaintext": {"x": CANARY}}, "invalid"),
        ({"plaintext": CANARY}, "invalid"),
        ({"name": [CANARY], "plaintext": "x"}, "invalid"),
        ({"name": "A", "plaintext": ""}, "invalid"),
        ({"name": "A", "plaintext": CANARY + "\0"}, "invalid"),
        ({"name": "A", "plaintext": CANARY + "x" * 70_000}, "too_large"),
        ({"name": "sec_000000000000", "plaintext": CANARY}, "invalid"),
        ([CANARY], "invalid"),
        (CANARY, "invalid"),
    ],
)
async def test_what_is_wrong_with_a_body_is_said_without_saying_what_it_held(
    instance: Instance, capsys: pytest.CaptureFixture[str], body: Any, code: str
) -> None:
    _, got, message = await instance.refused("POST", f"{P}/secrets", body)
    assert got == code
    assert CANARY not in message
    assert await instance.data("GET", f"{P}/secrets") == []
    out = capsys.readouterr()
    assert CANARY not in out.out + out.err


async def test_a_wrong_field_is_named_with_what_it_must_be(instance: Instance) -> None:
    wrong = {
        b"{}": "Field 'connector' is missing",
        b'{"connector": 5}': "Field 'connector' must be of type str, not int",
        b'{"connector": "x", "secrets": {"my-key": 5}}': "Field 'secrets[...]' must be of type str, not int",
        b"[]": "The body must be of type object, not array",
        b"{": "The body is not valid JSON",
        b'{"connector": "x", "inputs": 1}': "Field 'inputs' must be of type object, not int",
    }
    said = {}
    for body in wrong:
        headers = {"authorization": f"Bearer {ADMIN}"}
        async with instance.http.post(instance.url + f"{P}/connections", data=body, headers=headers) as response:
            said[body] = (await response.json())["error"]["message"]
    assert said == wrong


async def test_the_allowlist_is_kept_normalised_and_once(instance: Instance) -> None:
    for domain in ("API.example.com", "api.example.com"):
        made = await instance.data("POST", f"{P}/egress", {"domain": domain})
        assert (made["domain"], made["source"]) == ("api.example.com", "manual")
    await instance.data("POST", f"{P}/egress", {"domain": "db.example.com:5432"})
    assert [rule["domain"] for rule in await instance.data("GET", f"{P}/egress")] == ["api.example.com", "db.example.com:5432"]
    await instance.data("DELETE", f"{P}/egress/db.example.com:5432")
    await instance.data("DELETE", f"{P}/egress/API.example.com")
    assert await instance.data("GET", f"{P}/egress") == []
    assert (await instance.refused("DELETE", f"{P}/egress/api.example.com"))[0] == 404
    for wrong in ("https://x.example", "*.example.com", "", "a b", "x:99999", "127.1"):
        assert (await instance.refused("POST", f"{P}/egress", {"domain": wrong}))[:2] == (400, "invalid"), wrong


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{P}/secrets", {"name": "A", "plaintext": "x"}),
        ("POST", f"{P}/egress", {"domain": "a.example"}),
    ],
)
async def test_a_change_is_answered_when_the_engine_has_it(instance: Instance, method: str, path: str, body: Any) -> None:
    instance.provisioner.refreshing = asyncio.Event()
    asked = asyncio.create_task(instance.call(method, path, body))
    while f"refresh {instance.project}" not in instance.provisioner.calls:
        await asyncio.sleep(0.01)
    assert not asked.done()
    instance.provisioner.refreshing.set()
    assert (await asyncio.wait_for(asked, 2))[0] == 201
    await instance.data("DELETE", path + "/" + ("A" if "secrets" in path else "a.example"))
    assert instance.provisioner.calls.count(f"refresh {instance.project}") == 2


async def test_an_engine_that_is_slow_to_take_a_change_does_not_fail_it(start: Start) -> None:
    instance: Instance = await start(refresh_secs=0.1)
    instance.provisioner.refreshing = asyncio.Event()
    assert (await instance.call("POST", f"{P}/egress", {"domain": "a.example"}))[0] == 201
    instance.provisioner.refreshing.set()


async def test_what_the_engine_refused_is_shown(instance: Instance) -> None:
    denied = Decision(time.time(), "memory", "evil.example", 443, "denied", "not_in_allowlist", 2)
    instance.provisioner.decisions = lambda project: instance.store.decisions.record(project, [denied])
    (row,) = await instance.data("GET", f"{P}/egress/decisions?verdict=denied")
    assert set(row) == {"time", "connection", "host", "port", "verdict", "reason", "count"}
    assert (row["host"], row["port"], row["verdict"], row["count"]) == ("evil.example", 443, "denied", 2)
    assert await instance.data("GET", f"{P}/egress/decisions?verdict=allowed") == []
    assert (await instance.refused("GET", f"{P}/egress/decisions?verdict=perhaps"))[:2] == (400, "invalid")


async def test_the_catalogue_is_shown(instance: Instance) -> None:
    listed = {entry["name"]: entry["kind"] for entry in await instance.data("GET", "/v1/catalog")}
    assert listed["memory"] == "mcp"
    assert listed["resend"] == "function"
    shown = await instance.data("GET", "/v1/catalog/resend")
    assert {"fields", "hosts", "access", "tools"} <= set(shown)
    assert await instance.refused("GET", "/v1/catalog/memry") == (
        404,
        "not_found",
        "There is no connector 'memry'; did you mean 'memory'?",
    )


async def test_the_engine_is_shown_restarted_and_stopped(instance: Instance) -> None:
    instance.store.engines.put(EngineRow(instance.project, "running"))
    assert (await instance.data("GET", f"{P}/engine"))["state"] == "running"
    assert (await instance.data("GET", f"{P}/engine"))["sandbox"] == "advisory"
    assert (await instance.data("POST", f"{P}/engine/stop"))["state"] == "stopped"
    assert (await instance.mcp())[0] == 200
    await instance.data("POST", f"{P}/engine/restart")
    assert await instance.data("GET", f"{P}/engine/logs") == {"lines": ["one"]}


async def test_every_change_is_in_the_audit_log_newest_first(instance: Instance) -> None:
    await instance.data("POST", f"{P}/secrets", {"name": "A", "plaintext": "x"})
    await instance.data("POST", f"{P}/egress", {"domain": "a.example"})
    await instance.data("DELETE", f"{P}/egress/a.example")
    await instance.data("DELETE", f"{P}/secrets/A")
    log = await instance.data("GET", f"{P}/activity")
    assert [(line["actor"], line["action"]) for line in log] == [
        ("admin", action)
        for action in ("secret.delete", "egress.remove", "egress.allow", "secret.put", "key.create", "project.create")
    ]
    older = await instance.data("GET", f"{P}/activity?limit=2&before={log[1]['id']}")
    assert older == log[2:4]
    for wrong in ("0", "-1", "x", "1001", "9" * 30, "²"):
        assert (await instance.refused("GET", f"{P}/activity?limit={wrong}"))[:2] == (400, "invalid")


async def test_a_wrong_method_is_told_the_right_ones(instance: Instance) -> None:
    async with instance.http.put(instance.url + f"{P}/keys", headers={"authorization": f"Bearer {ADMIN}"}) as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, POST")
        assert (await response.json())["error"]["code"] == "invalid"


async def test_a_path_nobody_has_is_not_found_in_the_envelope(instance: Instance) -> None:
    for path in ("/v2", "/v1", "/v1/", "/v1/projects/", "/favicon.ico", f"{P}/keys/"):
        assert (await instance.refused("GET", path))[:2] == (404, "not_found"), path


async def test_health_and_version_need_no_credential(instance: Instance) -> None:
    for path in ("/livez", "/readyz", "/api/v1/version", "/.well-known/mcp"):
        assert (await instance.call("GET", path, token=None))[0] == 200, path
    served = await instance.data("GET", "/.well-known/mcp")
    assert {(endpoint["url"], endpoint["transport"]) for endpoint in served["endpoints"]} >= {
        (instance.url + "/mcp", "streamable-http"),
        (instance.url + "/mcp/sse", "sse"),
    }


async def test_not_ready_says_what_is_lacking(instance: Instance) -> None:
    instance.provisioner.socket.unlink()
    instance.gateway.plane.provisioner._links.close()
    instance.gateway.plane.provisioner._links._closed = False
    assert await instance.refused("GET", "/readyz", token=None) == (503, "unavailable", "Not ready: provisioner can't be reached")
    assert (await instance.call("GET", "/livez", token=None))[0] == 200


async def test_metrics_count_by_route_and_never_by_what_was_sent(instance: Instance) -> None:
    await instance.mcp()
    await instance.call("GET", f"/v1/projects/{CANARY}")
    await instance.call("GET", f"/{CANARY}")
    async with instance.http.get(instance.url + "/metrics") as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    assert 'rootlink_gateway_requests_total{route="/mcp",status="200"} 1.0' in text
    assert 'rootlink_gateway_requests_total{route="/v1/projects/{p}",status="404"} 1.0' in text
    assert "rootlink_gateway_relay_seconds_count 1.0" in text
    assert CANARY not in text


async def test_the_api_describes_itself(instance: Instance) -> None:
    async with instance.http.get(instance.url + "/openapi.json") as response:
        described = await response.json()
    assert described["openapi"].startswith("3.1")
    assert {"get", "post"} <= set(described["paths"]["/v1/projects/{p}/connections"])
    create = described["paths"]["/v1/projects/{p}/secrets"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(described["components"]["schemas"][body]["properties"]) == {"name", "plaintext"}
    ids = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    text = msgspec.json.encode(described).decode()
    for reference in set(text.split('"$ref":"#/components/schemas/')[1:]):
        assert reference.partition('"')[0] in described["components"]["schemas"]


async def test_an_icon_is_described_as_what_it_is(instance: Instance) -> None:
    async with instance.http.get(instance.url + "/openapi.json") as response:
        described = await response.json()
    answers = described["paths"]["/v1/catalog/{name}/icon"]["get"]["responses"]
    assert answers["200"]["content"] == {"image/svg+xml": {"schema": {"type": "string"}}}


async def test_the_api_description_holds_what_engines_serve(instance: Instance) -> None:
    async with instance.http.get(instance.url + "/openapi.json") as response:
        described = await response.json()
    paths = described["paths"]
    assert {(method.upper(), path) for path in paths if path.startswith("/engine/") for method in paths[path]} == {
        (method, PREFIX + path) for method, path, _, _ in ENGINE_ROUTES
    }
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith(("/engine/", "/mcp")):
                assert operation["security"] == [{"key": []}], path
            else:
                assert operation["security"] in ([], [{"admin": []}, {"session": []}]), path
    assert {"key", "admin", "session"} == set(described["components"]["securitySchemes"])
    assert {"get", "post", "delete"} == set(described["paths"]["/mcp/{ws}"])


def test_what_is_described_of_engines_is_what_they_take_and_give() -> None:
    assert {(one.method, one.path, one.scope) for one in engine_api.REST} == {
        (method, PREFIX + path, scope) for method, path, scope, _ in ENGINE_ROUTES
    }
    catalogues = {"lock", "files", "oauth", "start_secs"}  # the catalogue's to set
    assert set(engine_api.NewServer.__struct_fields__) == set(MountSpec.__struct_fields__) - catalogues
    assert set(engine_api.NewFunction.__struct_fields__) == set(FunctionBody.__struct_fields__)
    assert set(engine_api.DeployedFunction.__struct_fields__) == set(Deployed.__struct_fields__)
    assert set(engine_api.FunctionView.__struct_fields__) == set(Function.__struct_fields__)
    assert set(engine_api.RunView.__struct_fields__) == set(Run.__struct_fields__)


async def test_what_nobody_expected_is_an_internal_error_with_an_id_and_nothing_else(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr(instance.store.projects, "list", broken)
    async with instance.http.get(instance.url + "/v1/projects", headers={"authorization": f"Bearer {ADMIN}"}) as response:
        assert response.status == 500
        error, id = (await response.json())["error"], response.headers["x-request-id"]
    assert error == {"code": "internal", "message": f"Internal error (request id {id})"}
    logged = capsys.readouterr().out
    assert id in logged
    assert "KeyError" in logged
    assert CANARY not in logged


async def test_the_console_runs_its_own_scripts_alone_and_cannot_be_framed(instance: Instance) -> None:
    async with instance.http.get(instance.url + "/") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        page, headers = await response.text(), response.headers
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert "unsafe" not in headers["content-security-policy"]
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert headers["x-content-type-options"] == "nosniff"
    for script in re.findall(r'<script[^>]* src="([^"]+)"', page):
        async with instance.http.get(instance.url + script) as response:
            assert (response.status, response.content_type) == (200, "text/javascript")
            assert "immutable" in response.headers["cache-control"]
    assert "<script>" not in page
    assert (await instance.refused("GET", "/console/assets/none.js"))[0] == 404
    assert (await instance.refused("POST", "/"))[0] == 404
