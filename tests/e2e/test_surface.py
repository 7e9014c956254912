"""What people outside rely on besides the main path: workspaces, remote servers, the command line on a real instance."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.harness.instance import SERVERS, Instance, request, script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@pytest.fixture(scope="module")
def remote() -> Iterator[int]:
    """A Streamable HTTP server written with the official Python SDK; its port."""
    command = [sys.executable, str(SERVERS / "sdk_http.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # ends with its stdin
        assert process.stdout is not None
        yield int(process.stdout.readline())


def plain(name: str) -> dict[str, Any]:
    return script(name, SERVERS / "plain.py")


def stateless(shared: Instance, method: str, params: dict[str, Any] | None = None, **headers: str) -> Any:
    sent = {
        "authorization": f"Bearer {shared.key}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method,
        **headers,
    }
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**(params or {}), "_meta": META}}
    return request(shared.api, "POST", "/mcp", message, sent)


def test_a_stateless_client_discovers_what_is_served(shared: Instance) -> None:
    found = stateless(shared, "server/discover").json["result"]
    assert found["supportedVersions"] == ["2026-07-28"]
    assert found["resultType"] == "complete"
    assert found["capabilities"]["tools"] == {"listChanged": True}


def test_an_unknown_method_is_404_with_its_code(shared: Instance) -> None:
    answer = stateless(shared, "tools/paint")
    assert (answer.status, answer.json["error"]["code"], answer.json["id"]) == (404, -32601, 7)


def test_a_header_that_contradicts_the_body_is_refused(shared: Instance) -> None:
    answer = stateless(shared, "tools/list", **{"mcp-method": "tools/call"})
    assert (answer.status, answer.json["error"]["code"]) == (400, -32020)


def test_a_session_request_of_an_unknown_version_is_refused(shared: Instance) -> None:
    bearer = {"authorization": f"Bearer {shared.key}"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    bearer["mcp-session-id"] = request(shared.api, "POST", "/mcp", first, bearer).headers["mcp-session-id"]
    bearer["mcp-protocol-version"] = "1999-01-01"
    assert request(shared.api, "POST", "/mcp", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, bearer).status == 400


def test_workspaces_do_not_see_each_other(shared: Instance) -> None:
    assert shared.engine("POST", "/mcp-servers", plain("here"), ws="blue").status == 201
    shared.connect("memory", workspace="blue", name="notes")
    blue = {tool["name"] for tool in shared.engine("GET", "/tools", ws="blue").data}
    assert {"here__echo", "notes__read_graph"} <= blue
    assert not {"here__echo", "notes__read_graph"} & set(shared.tools())
    assert shared.project("GET", "/connections/notes").data["workspace"] == "blue"
    assert shared.project("DELETE", "/connections/notes").data["state"] == "removed"


def test_a_remote_server_is_mounted_once_its_host_is_allowed_and_not_before(shared: Instance, remote: int) -> None:
    body = {"name": "far", "transport": "http", "endpoint": f"http://127.0.0.1:{remote}/mcp"}
    refused = shared.engine("POST", "/mcp-servers", body)
    assert (refused.status, refused.code) == (403, "forbidden")
    assert "egress blocked" in refused.message
    shared.project("POST", "/egress", {"domain": f"127.0.0.1:{remote}"})
    installed = shared.engine("POST", "/mcp-servers", body)
    assert installed.status == 201, installed.body
    assert set(installed.data) == {"installed", "server_count", "tool_count", "tools_list_changed_notified"}
    add = {"arguments": {"a": 2, "b": 3}}
    assert "5" in str(shared.engine("POST", "/tools/far__add/call", add).data)
    shared.project("DELETE", f"/egress/127.0.0.1:{remote}")
    refused = shared.engine("POST", "/tools/far__add/call", add)
    assert "egress blocked: host '127.0.0.1' is not in this project's outbound allowlist" in refused.message
    shared.engine("DELETE", "/mcp-servers/far")


def test_a_server_that_dies_at_start_says_why_and_leaves_nothing(shared: Instance) -> None:
    body = {"name": "dies", "transport": "stdio", "command": "python", "args": ["-c", "raise SystemExit('no database at 5432')"]}
    answer = shared.engine("POST", "/mcp-servers", body)
    assert (answer.status, answer.code) == (502, "upstream_failed")
    assert "no database at 5432" in answer.message
    assert "dies" not in [server["name"] for server in shared.engine("GET", "/mcp-servers").data]


def test_the_command_line_walks_the_main_path(fresh: Instance) -> None:
    assert "memory" in fresh.cli("catalog")
    assert "9 tools" in fresh.cli("connect", "memory")
    assert msgspec.json.decode(fresh.cli("connections", "--json").encode())[0]["state"] == "connected"
    assert "memory__read_graph" in fresh.cli("tools", "--search", "graph")
    assert "entities" in fresh.cli("call", "memory__read_graph", "--json", "{}")
    fresh.cli("secrets", "set", "TOKEN", stdin="s3cret-value\n")
    assert "TOKEN" in fresh.cli("secrets", "list")
    fresh.cli("egress", "allow", "api.example.com")
    assert "api.example.com" in fresh.cli("egress", "list")
    code = fresh.home.parent / "hello.js"
    code.write_text("async (input) => ({ hello: input.name })\n")
    fresh.cli("function", "deploy", "hello", "--code", str(code))
    assert "Ada" in fresh.cli("function", "invoke", "hello", "--input", '{"name": "Ada"}')
    key = msgspec.json.decode(fresh.cli("keys", "create", "--name", "mine", "--json").encode())
    assert key["key"].startswith("rl_sk_")
    for client in ("claude-code", "claude-desktop", "cursor", "codex", "vscode"):
        assert "/mcp" in fresh.cli("mcp", "config", "--client", client)
    shown = fresh.cli("doctor", "--json")
    assert "kernel" in shown or "advisory" in shown, "which tier is in force"
    fresh.cli("disconnect", "memory")
    assert msgspec.json.decode(fresh.cli("connections", "--json").encode()) == []
    unknown = fresh.run("connect", "memroy")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("rootlink: not_found:")


def test_doctor_shows_the_settings_of_what_runs(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "home", "--allow-private", "10.1.0.0/16").up()
    try:
        shown = msgspec.json.decode(instance.cli("doctor", "--json").encode())["settings"]
        assert shown["allow_private"] == {"value": ["10.1.0.0/16"], "source": "flag --allow-private"}
    finally:
        instance.down()
