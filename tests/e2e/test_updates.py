"""Newer versions of what is connected: seen before they are there, taken together, gone back from, and never a loss.

The catalogue in use has an older Memory at first (`--catalog`), whose place a newer one takes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootlink.catalog import ENTRIES
from tests.harness.instance import ROOT, Instance, closing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PACKAGE = "@modelcontextprotocol/server-memory"
OLD, NEW = "2025.8.4", "2026.8.31"
ADA = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}


def entry(catalog: Path, version: str, package: str = NEW, **own: Any) -> None:
    """Memory in a catalogue of one's own, in another version."""
    folder = catalog / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ENTRIES / "memory", folder)
    manifest = json.loads((folder / "connector.json").read_text())
    manifest["version"], manifest["packages"][0]["version"] = version, package
    manifest["_meta"]["dev.rootlink/v1"] |= own
    (folder / "connector.json").write_text(json.dumps(manifest))
    if package != NEW:
        _lock(folder)


def _lock(folder: Path) -> None:
    """As `scripts/lock_entry.py` does it for one of the entries."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import lock_entry, pathlib; lock_entry.pin(pathlib.Path(sys.argv[2]))"
    words = [sys.executable, "-c", code, str(ROOT / "scripts"), str(folder)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)


def again(instance: Instance) -> None:
    """As an operator takes a newer catalogue into use."""
    instance.down()
    instance.up()


def changes(instance: Instance, name: str = "memory") -> dict[str, Any]:
    answer = instance.project("GET", f"/connections/{name}/update")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.data
    return found


def package(instance: Instance, name: str) -> str:
    """What runs now, as an update would say."""
    return str(changes(instance, name)["package"]["from"])


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    folder = tmp_path / "catalog"
    entry(folder, "0.9.0", OLD)
    return folder


@pytest.fixture
def instance(catalog: Path, tmp_path: Path) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path / "home", "--catalog", str(catalog)))


def test_an_update_is_shown_then_taken_then_gone_back_from_and_nothing_is_lost(instance: Instance, catalog: Path) -> None:
    instance.connect("memory")
    assert changes(instance)["update"] is False
    instance.call("memory__create_entities", {"entities": [ADA]})
    entry(catalog, "1.0.0")
    again(instance)

    shown = changes(instance)
    assert shown["update"] is True
    assert shown["version"] == {"from": "0.9.0", "to": "1.0.0"}
    assert shown["package"] == {"from": f"{PACKAGE}@{OLD}", "to": f"{PACKAGE}@{NEW}"}
    assert {tool["change"] for tool in shown["tools"]} == {"changed"}
    said = instance.cli("catalog", "update", "memory")
    assert f"{PACKAGE}@{OLD} to {PACKAGE}@{NEW}" in said
    assert instance.project("GET", "/connections/memory").data["version"] == "0.9.0"  # shown, and nothing else
    assert "Ada" in str(instance.call("memory__read_graph"))

    stale = instance.project("POST", "/connections/memory/update", {"digest": "0" * 32})
    assert (stale.status, stale.code) == (409, "conflict")

    assert "is updated" in instance.cli("catalog", "update", "memory", "--yes")
    after = instance.project("GET", "/connections/memory").data
    assert (after["version"], after["held"], after["error"]) == ("1.0.0", [], None)
    assert "Ada" in str(instance.call("memory__read_graph"))
    assert changes(instance)["update"] is False
    assert package(instance, "memory") == f"{PACKAGE}@{NEW}"

    instance.cli("catalog", "rollback", "memory")
    assert instance.project("GET", "/connections/memory").data["version"] == "0.9.0"
    assert package(instance, "memory") == f"{PACKAGE}@{OLD}"
    assert list((instance.home / "projects").glob("*/engine/mounts/.trial-*")) == []
    assert instance.project("POST", "/engine/restart").status == 200  # it is told what can be gone back to
    before = instance.project("GET", "/connections/memory").data
    assert (before["held"], before["error"]) == ([], None)
    assert "Ada" in str(instance.call("memory__read_graph"))


def test_an_update_that_does_not_work_leaves_what_was_before(instance: Instance, catalog: Path) -> None:
    instance.connect("memory")
    instance.call("memory__create_entities", {"entities": [ADA]})
    broken = {"id": "no", "title": "Looks for what is not there", "type": "tool", "tool": "read_graph", "json": {"nowhere": 1}}
    entry(
        catalog, "1.1.0", verify=[{**broken, "error": "This memory is not as it should be."}], egress={"hosts": ["new.example"]}
    )
    again(instance)
    shown = changes(instance)
    assert shown["hosts_added"] == ["new.example"]
    refused = instance.project("POST", "/connections/memory/update", {"digest": shown["digest"]})
    assert refused.status >= 400
    assert "what was before runs again" in refused.message
    assert "This memory is not as it should be." in refused.message
    after = instance.project("GET", "/connections/memory").data
    assert (after["version"], after["state"], after["error"]) == ("0.9.0", "connected", None)
    assert "Ada" in str(instance.call("memory__read_graph"))
    assert "new.example" not in [rule["domain"] for rule in instance.project("GET", "/egress").data]
    assert instance.project("POST", "/connections/memory/rollback", {}).code == "conflict"
    lines = [line["action"] for line in instance.project("GET", "/activity").data]
    assert lines.index("connection.update_failed") < lines.index("connection.update")


def test_a_version_that_does_not_start_is_never_put_in_the_place_of_one_that_does(instance: Instance, catalog: Path) -> None:
    instance.connect("memory")
    entry(catalog, "1.2.0", runtime={"program": "no-such-program"})
    again(instance)
    refused = instance.project("GET", "/connections/memory/update")
    assert refused.status >= 400
    assert "nothing was changed" in refused.message
    assert instance.project("GET", "/connections/memory").data["version"] == "0.9.0"
    instance.call("memory__read_graph")


def test_a_package_somebody_brought_is_asked_for_anew(shared: Instance) -> None:
    env = {"MEMORY_FILE_PATH": "${{state}}/m.jsonl"}
    text = json.dumps({"older": {"command": "npx", "args": ["-y", f"{PACKAGE}@{OLD}"], "env": env}})
    (server,) = shared.project("POST", "/paste", {"text": text}).data["servers"]
    shared.connect("custom", name="older", server=server["manifest"])
    try:
        shared.call("older__create_entities", {"entities": [ADA]})
        shown = changes(shared, "older")
        assert shown["package"]["from"] == f"{PACKAGE}@{OLD}"
        newest = shown["package"]["to"]
        assert newest != shown["package"]["from"]
        shared.cli("catalog", "update", "older", "--yes")
        assert changes(shared, "older")["update"] is False
        assert package(shared, "older") == newest
        assert "Ada" in str(shared.call("older__read_graph"))
        shared.cli("catalog", "rollback", "older")
        assert package(shared, "older") == f"{PACKAGE}@{OLD}"
        assert "Ada" in str(shared.call("older__read_graph"))
    finally:
        shared.project("DELETE", "/connections/older")


def test_a_package_somebody_brought_that_is_the_newest_is_up_to_date(shared: Instance) -> None:
    text = json.dumps({"newest": {"command": "npx", "args": ["-y", PACKAGE]}})
    (server,) = shared.project("POST", "/paste", {"text": text}).data["servers"]
    shared.connect("custom", name="newest", server=server["manifest"])
    try:
        shown = changes(shared, "newest")
        assert (shown["update"], shown["tools"], shown["settings"]) == (False, [], [])
        assert shared.cli("catalog", "update", "newest").startswith("newest is up to date")
    finally:
        shared.project("DELETE", "/connections/newest")


def test_an_entry_of_ones_own_that_breaks_a_rule_stops_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    entry(folder, "latest")
    done = Instance(tmp_path / "home").run("up", "--detach", "--json", "--port", "0", "--catalog", str(folder))
    Instance(tmp_path / "home").run("down")
    assert done.returncode != 0
    assert "version 'latest' must be exact" in done.stderr


NOWHERE = {"npm_config_registry": "http://127.0.0.1:9/", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/"}


@pytest.fixture
def offline(shared: Instance, tmp_path: Path) -> Iterator[Instance]:
    """Its store has what `memory` needs, and its registries answer nobody."""
    shared.connect("memory", name="warm")
    shared.project("DELETE", "/connections/warm")
    yield from closing(Instance(tmp_path / "home", environ=NOWHERE))


def test_what_is_in_the_store_connects_and_starts_without_any_registry(offline: Instance) -> None:
    offline.connect("memory")
    offline.call("memory__create_entities", {"entities": [ADA]})
    assert offline.project("POST", "/engine/restart").status == 200
    assert "Ada" in str(offline.call("memory__read_graph"))
    assert offline.denied() == []
    text = json.dumps({"cold": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-everything@2025.1.1"]}})
    (server,) = offline.project("POST", "/paste", {"text": text}).data["servers"]
    refused = offline.project("POST", "/connections", {"connector": "custom", "server": server["manifest"]})
    assert refused.status >= 400
    assert "not in the store yet" in refused.message
    assert [one["name"] for one in offline.project("GET", "/connections").data] == ["memory"]
