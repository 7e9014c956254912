"""The connectors that come with Rootlink."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink import catalog
from rootlink.catalog import ENTRIES
from rootlink.errors import NotFound
from rootlink.wire.mounts import FunctionSpec, MountSpec
from tests.harness.node import NODE, NPM

CATALOG = catalog.load()
NAMES = [entry.name for entry in CATALOG.list()]
MCP = [entry.name for entry in CATALOG.list() if entry.kind == "mcp"]


def test_the_catalogue_has_what_the_contract_says_so_far() -> None:
    assert {"memory", "filesystem", "resend"} <= set(NAMES)


def test_an_unknown_connector_is_not_found_and_the_others_are_named() -> None:
    with pytest.raises(NotFound, match=r"'memroy'.*filesystem, memory, resend"):
        CATALOG.get("memroy")


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_shows_what_the_contract_says(name: str) -> None:
    entry = CATALOG.get(name)
    assert set(entry.summary()) == {"name", "kind", "title", "description", "categories", "status"}
    detail = msgspec.json.decode(msgspec.json.encode(entry.detail()))
    assert entry.summary().items() <= detail.items()
    assert {"fields", "hosts", "access", "tools", "package"} <= set(detail)
    assert all({"name", "access", "description"} == set(tool) for tool in detail["tools"])
    shown = {"name", "label", "secret", "required", "pattern", "placeholder", "help", "help_url", "steps", "default", "multiple"}
    assert all(shown <= set(field) for field in detail["fields"])


@pytest.mark.parametrize("name", MCP)
def test_every_package_is_locked(name: str) -> None:
    assert CATALOG.get(name).lock is not None


def test_memory_keeps_its_file_in_its_own_folder_and_reaches_nothing() -> None:
    spec = msgspec.convert(CATALOG.get("memory").desired("memory", {}, {})["mount"], MountSpec)
    assert (spec.command, spec.args) == ("npx", ["-y", "@modelcontextprotocol/server-memory@2026.8.31"])
    assert spec.env == {"MEMORY_FILE_PATH": "${{state}}/memory.jsonl"}
    assert (spec.egress, spec.concurrency) == ([], 1)


def test_filesystem_gets_the_projects_folder_unless_others_are_given() -> None:
    entry = CATALOG.get("filesystem")
    entry.check({}, {}, set())
    default = msgspec.convert(entry.desired("filesystem", {}, {})["mount"], MountSpec)
    assert default.args == ["-y", "@modelcontextprotocol/server-filesystem@2026.8.31", "${{files}}"]
    assert default.paths.write == ["${{files}}"]
    given = msgspec.convert(entry.desired("filesystem", {"directories": "/srv/a\n/srv/b"}, {})["mount"], MountSpec)
    assert given.args[2:] == given.paths.write == ["/srv/a", "/srv/b"]
    assert default.egress == given.egress == []


def test_resend_needs_its_key_and_nothing_else() -> None:
    entry = CATALOG.get("resend")
    entry.check({}, {"RESEND_API_KEY": "re_test_123"}, set())
    spec = msgspec.convert(entry.desired("resend", {}, {"RESEND_API_KEY": "RESEND_API_KEY"})["function"], FunctionSpec)
    assert (spec.name, spec.egress) == ("resend", ["api.resend.com"])
    assert spec.env == {"RESEND_API_KEY": "${RESEND_API_KEY}", "DEFAULT_FROM": "onboarding@resend.dev"}
    assert set((spec.input_schema or {})["properties"]) == {"to", "subject", "html", "text", "from", "reply_to", "cc", "bcc"}


@pytest.mark.parametrize("sender", ["hello@acme.com", "Acme <hello@acme.com>", "Ünï Cöde <a.b+c@sub.acme.com>"])
def test_resend_takes_a_sender_as_people_write_it(sender: str) -> None:
    CATALOG.get("resend").check({"DEFAULT_FROM": sender}, {}, {"RESEND_API_KEY"})


@pytest.mark.slow
@pytest.mark.parametrize("name", MCP)
def test_the_labels_are_those_of_the_tools_the_locked_package_has(name: str, tmp_path: Path) -> None:
    entry = CATALOG.get(name)
    for file in ("package.json", "package-lock.json"):
        (tmp_path / file).write_bytes((ENTRIES / name / file).read_bytes())
    install = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True, timeout=110)
    tools = {tool["name"]: tool.get("annotations") or {} for tool in _listed(entry.detail()["package"]["identifier"], tmp_path)}
    labels = {tool["name"]: tool["access"] for tool in entry.tools}
    assert set(labels) == set(tools)
    for tool, hints in tools.items():
        assert (labels[tool] == "read") == bool(hints.get("readOnlyHint")), tool
        assert (labels[tool] == "destructive") == bool(hints.get("destructiveHint")), tool


def _listed(package: str, folder: Path) -> list[dict[str, Any]]:
    home = folder / "node_modules" / package
    [bin] = msgspec.json.decode((home / "package.json").read_bytes())["bin"].values()
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    said = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    command = [NODE, str(home / bin), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for message in said:
                server.stdin.write(msgspec.json.encode(message) + b"\n")
            server.stdin.flush()
            server.stdout.readline()
            return list(msgspec.json.decode(server.stdout.readline())["result"]["tools"])
        finally:
            server.kill()
