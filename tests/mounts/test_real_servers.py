"""Servers people really use, installed as a connection installs them and mounted from the store."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.packages import Packages
from rootlink.wire.mounts import MountSpec, Paths
from tests.harness import node
from tests.harness.calls import Told
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, call, tree, until

STORE = Path(__file__).resolve().parents[2] / ".tests" / "mounts-store"
MEMORY = "@modelcontextprotocol/server-memory@2026.8.31"
FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def mounts(make: MakeMounts) -> Mounts:
    STORE.mkdir(parents=True, exist_ok=True)
    environ = dict(os.environ)  # noqa: TID251  what an engine is handed: how this machine reaches its registries
    return make(packages=Packages(STORE, environ=environ))


def npx(name: str, package: str, *args: str, **members: Any) -> MountSpec:
    return MountSpec(name=name, transport="stdio", command="npx", args=["-y", package, *args], **members)


async def test_memory_remembers_over_a_restart_and_thirty_calls_at_once_all_stay(mounts: Mounts) -> None:
    before = tree()
    said: list[str] = []
    spec = npx("memory", MEMORY, env={"MEMORY_FILE_PATH": "${{state}}/memory.jsonl"}, concurrency=1)
    mount = await mounts.add("main", spec, progress=said.append)
    assert said[-1] == "memory has 9 tools"
    entities = [{"name": f"e{number}", "entityType": "t", "observations": ["o"]} for number in range(30)]
    await asyncio.gather(*(call(mount, "create_entities", entities=[entity]) for entity in entities))
    await mounts.restart("main", "memory")
    graph = json.loads(await call(mount, "read_graph"))
    assert {entity["name"] for entity in graph["entities"]} == {entity["name"] for entity in entities}
    await mounts.close()
    assert tree() == before


async def test_filesystem_writes_and_reads_in_the_projects_own_folder(mounts: Mounts, tmp_path: Path) -> None:
    files = str(tmp_path / "files")
    mount = await mounts.add("main", npx("filesystem", FILESYSTEM, "${{files}}", paths=Paths(write=["${{files}}"])))
    await call(mount, "write_file", path=f"{files}/note.txt", content="hello")
    assert (tmp_path / "files" / "note.txt").read_text() == "hello"
    raw = await mount.request("tools/call", {"name": "read_text_file", "arguments": {"path": "/etc/hostname"}})
    assert msgspec.json.decode(raw)["isError"] is True


async def test_everything_shows_all_kinds_and_its_progress(make: MakeMounts) -> None:
    await asyncio.to_thread(node.ready)
    mount = await make().add("main", MountSpec("everything", "stdio", command="node", args=[node.EVERYTHING, "stdio"]))
    lists = mount.catalogue
    assert lists.tools
    assert lists.resources
    assert lists.templates
    assert lists.prompts
    told = Told()
    params = {"name": "trigger-long-running-operation", "arguments": {"duration": 1, "steps": 2}}
    await mount.request("tools/call", params, call=told)
    await until(lambda: len(told.steps) == 2, "both steps were told")


@pytest.mark.parametrize(
    ("command", "args", "version"),
    [
        ("python", [str(SERVERS / "sdk_stdio.py")], "2026-07-28"),
        ("node", [str(SERVERS / "sdk_stdio.mjs"), str(node.HOME / "node_modules")], "2026-07-28"),
        ("node", [node.EVERYTHING, "stdio"], "2025-11-25"),
    ],
    ids=["Python's SDK 2", "TypeScript's SDK 2", "TypeScript's SDK 1"],
)
async def test_a_server_on_an_sdk_is_spoken_to_in_the_newest_era_it_has(
    make: MakeMounts, command: str, args: list[str], version: str
) -> None:
    await asyncio.to_thread(node.ready)
    mount = await make().add("main", MountSpec("sdk", "stdio", command=command, args=args))
    assert mount.catalogue.version == version
    assert mount.catalogue.tools
    if version == "2026-07-28":
        assert await call(mount, "add", a=1, b=2) == "3"
