"""A server that the catalogue does not have: pasted, looked at, connected with its own key and hosts, and written down again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.instance import SERVERS, Instance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MEMORY = "@modelcontextprotocol/server-memory@2026.8.31"
KEY = "sk-canary-4be1c6a7f09d4e31"
PASTED = {
    "mcpServers": {
        "notes": {
            "command": "npx",
            "args": ["-y", MEMORY],
            "env": {"MEMORY_FILE_PATH": "${{state}}/m.jsonl", "NOTES_API_KEY": KEY},
        }
    }
}


def paste(instance: Instance, text: Any) -> list[dict[str, Any]]:
    answer = instance.project("POST", "/paste", {"text": text if isinstance(text, str) else json.dumps(text)})
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    servers: list[dict[str, Any]] = answer.data["servers"]
    return servers


def wish(server: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {"name": server["name"], "server": server["manifest"], "hosts": server["hosts"], "secrets": server["secrets"]}
    return {**named, **more}


@pytest.fixture(scope="module")
def notes(shared: Instance) -> Iterator[Instance]:
    """The pasted server, connected as `notes`."""
    (server,) = paste(shared, PASTED)
    shared.connect("custom", **wish(server))
    yield shared
    shared.project("DELETE", "/connections/notes")


def test_a_pasted_server_shows_its_form_and_its_key_this_once(shared: Instance) -> None:
    (server,) = paste(shared, PASTED)
    assert {field["name"]: field["secret"] for field in server["fields"]} == {"NOTES_API_KEY": True}
    assert server["secrets"] == {"NOTES_API_KEY": KEY}
    assert KEY not in json.dumps(server["manifest"])
    assert server["hosts"] == []
    assert shared.secret_is_nowhere(KEY) == []


def test_a_pasted_server_works_and_its_key_is_sealed(notes: Instance) -> None:
    entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    made = notes.call("notes__create_entities", {"entities": [entity]})
    assert not made.get("isError"), made
    assert "Ada" in str(notes.call("notes__read_graph"))
    assert notes.secret_is_nowhere(KEY) == []
    assert "NOTES_API_KEY__NOTES" in [secret["name"] for secret in notes.project("GET", "/secrets").data]
    connection = notes.project("GET", "/connections/notes").data
    assert (connection["connector"], connection["state"]) == ("custom", "connected")


def test_a_pasted_server_does_not_get_a_secret_of_the_vault_by_naming_it(shared: Instance) -> None:
    shared.project("POST", "/secrets", {"name": "SOMEBODY_ELSES_KEY", "plaintext": "canary-of-somebody-else"})
    text = {"thief": {"command": "npx", "args": ["-y", MEMORY], "env": {"SOMEBODY_ELSES_KEY": ""}}}
    (server,) = paste(shared, text)
    refused = shared.project("POST", "/connections", {"connector": "custom", **wish(server)})
    assert (refused.status, refused.code) == (400, "invalid")
    assert "SOMEBODY_ELSES_KEY" in refused.message
    assert shared.project("GET", "/connections/thief").status == 404


def test_a_pasted_server_may_go_where_whoever_connects_it_says_and_nowhere_else(shared: Instance) -> None:
    env = {"MEMORY_FILE_PATH": "${{state}}/m.jsonl", "BASE_URL": "https://api.found.example/v1"}
    (server,) = paste(shared, {"going": {"command": "npx", "args": ["-y", MEMORY], "env": env}})
    assert server["hosts"] == ["api.found.example"]
    shared.connect("custom", **wish(server, hosts=["chosen.example"]))
    try:
        domains = {rule["domain"] for rule in shared.project("GET", "/egress").data}
        assert "chosen.example" in domains
        assert "api.found.example" not in domains
    finally:
        shared.project("DELETE", "/connections/going")
    assert "chosen.example" not in {rule["domain"] for rule in shared.project("GET", "/egress").data}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meta": {"install": {"lock": "x"}}}, "install"),
        ({"meta": {"files": {"run.sh": "x"}}}, "files"),
        ({"meta": {"tools": {"x": {"access": "read", "preview": "x"}}}}, "tools"),
        ({"meta": {"fields": {"NOTES_API_KEY": {"label": "x", "pattern": "^(a+)+$"}}}}, "pattern"),
        ({"meta": {"unknown": 1}}, "not one that is known"),
        ({"package": {"identifier": "../../etc"}}, "names"),
        ({"package": {"runtimeArguments": [{"type": "positional", "value": "--x"}]}}, "Rootlink's to decide"),
        ({"package": {"environmentVariables": [{"name": "NODE_OPTIONS", "value": "--require /x"}]}}, "engine's own"),
        ({"package": {"environmentVariables": [{"name": "A", "value": KEY + "abcdefghijkl"}]}}, "credential"),
    ],
)
def test_a_manifest_that_says_what_only_the_catalogue_may_is_refused(
    shared: Instance, change: dict[str, Any], words: str
) -> None:
    (server,) = paste(shared, PASTED)
    manifest = server["manifest"]
    manifest["_meta"]["dev.rootlink/v1"] |= change.get("meta", {})
    manifest["packages"][0] |= change.get("package", {})
    refused = shared.project("POST", "/connections", {"connector": "custom", **wish(server, secrets={})})
    assert (refused.status, refused.code) == (400, "invalid")
    assert words in refused.message
    assert KEY not in refused.message


@pytest.mark.parametrize("format", ["mcpServers", "vscode", "server.json"])
def test_what_is_exported_holds_no_key_and_can_be_pasted_again(notes: Instance, format: str) -> None:
    exported = notes.project("GET", f"/connections/notes/export?format={format}").data
    assert KEY not in json.dumps(exported)
    (server,) = paste(notes, exported["config"])
    assert server["name"] == "notes-2"
    assert [(field["name"], field["secret"]) for field in server["fields"]] == [("NOTES_API_KEY", True)]


def test_the_command_line_imports_and_exports(shared: Instance, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    servers = dict.fromkeys(("one", "two"), PASTED["mcpServers"]["notes"])
    file.write_text(json.dumps({"mcpServers": servers}))
    said = shared.cli("import", str(file), "--name", "two")
    assert "NOTES_API_KEY: secret (as pasted, to be sealed)" in said
    assert "two is connected" in said
    try:
        assert KEY not in said
        exported = json.loads(shared.cli("export", "two", "--format", "mcpServers"))
        assert exported["mcpServers"]["two"]["env"]["NOTES_API_KEY"] == "${NOTES_API_KEY}"
        assert [one["name"] for one in json.loads(shared.cli("connections", "--json"))].count("two") == 1
    finally:
        shared.cli("disconnect", "two")
    refused = shared.run("import", "-", stdin="docker run -i ghcr.io/x/y")
    assert refused.returncode == 1
    assert "containers are not run here" in refused.stderr


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that runs already; the parameter is what its bearer must be, if any. Its `host:port`."""
    command = [sys.executable, str(SERVERS / "session_http.py"), *([f"token={request.param}"] if request.param else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # ends with its stdin
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"


@pytest.mark.parametrize("elsewhere", [KEY], indirect=True)
def test_a_server_elsewhere_is_asked_with_the_header_that_was_pasted(shared: Instance, elsewhere: str) -> None:
    line = f"claude mcp add --transport http far http://{elsewhere}/mcp --header 'Authorization: Bearer {KEY}'"
    (server,) = paste(shared, line)
    assert server["secrets"] == {"TOKEN": KEY}
    shared.connect("custom", **wish(server, hosts=[elsewhere]))
    try:
        assert "hi" in str(shared.call("far__echo", {"text": "hi"}))
        assert shared.secret_is_nowhere(KEY) == []
        exported = shared.project("GET", "/connections/far/export?format=vscode").data["config"]
        assert exported["servers"]["far"]["headers"] == {"Authorization": "Bearer ${input:TOKEN}"}
    finally:
        shared.project("DELETE", "/connections/far")


@pytest.mark.parametrize("elsewhere", [""], indirect=True)
def test_a_server_elsewhere_that_lets_everybody_in_needs_its_url_alone(shared: Instance, elsewhere: str) -> None:
    (server,) = paste(shared, f"http://{elsewhere}/mcp")
    shared.connect("custom", **wish(server, name="open", hosts=[elsewhere]))
    try:
        assert "hi" in str(shared.call("open__echo", {"text": "hi"}))
    finally:
        shared.project("DELETE", "/connections/open")
