"""The main path, as a person walks it: connect, see the tools, call them, connect one more while the client stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from tests.harness.instance import SERVERS, Instance, closing, eventually, script
from tests.harness.standin import Seen, StandIn, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "re_canary_5f1e2d3c4b5a69788796a5b4"


def custom(name: str, *args: str, **members: Any) -> dict[str, Any]:
    return script(name, SERVERS / "plain.py", *args, **members)


@pytest.fixture(scope="module")
def resend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    def answer(seen: Seen) -> tuple[int, Any]:
        if seen.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"name": "invalid_api_key", "message": "API key is invalid"}
        return 200, {"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}

    with standin("api.resend.com", answer, tmp_path_factory.mktemp("resend")) as server:
        yield server


@pytest.fixture(scope="module")
def instance(resend: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path_factory.mktemp("main") / "home", *resend.flags, "--allow-private", "127.0.0.0/8"))


def test_memory_connects_and_remembers(instance: Instance) -> None:
    connection = instance.connect("memory")
    assert [(step["step"], step["state"]) for step in connection["steps"]][-1] == ("install", "done")
    assert connection["state"] == "connected"
    assert "memory__create_entities" in connection["tools"]
    entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    instance.call("memory__create_entities", {"entities": [entity]})
    assert "Ada" in str(instance.call("memory__read_graph"))


def test_filesystem_sees_the_files_folder_of_its_project_only(instance: Instance) -> None:
    instance.connect("filesystem")
    files = Path(instance.project("GET", "/engine").data["files"])
    (files / "hello.txt").write_text("good morning")
    assert "good morning" in str(instance.call("filesystem__read_text_file", {"path": str(files / "hello.txt")}))
    outside = instance.call("filesystem__read_text_file", {"path": str(instance.home / "admin-token")})
    assert outside["isError"]


def test_resend_sends_through_the_allowlist(instance: Instance, resend: StandIn) -> None:
    connection = instance.connect("resend", secrets={"RESEND_API_KEY": KEY})
    assert [step["step"] for step in connection["steps"] if step["state"] == "done"] == ["seal", "egress", "deploy"]
    sent = instance.call("function__resend", {"from": "a@b.example", "to": "c@d.example", "subject": "hi", "text": "hello"})
    assert not sent["isError"], sent
    assert sent["structuredContent"]["id"].startswith("49a3999c")
    assert msgspec.json.decode(resend.seen[-1].body)["to"] == ["c@d.example"]


def test_without_its_host_in_the_allowlist_a_call_is_refused_before_any_packet(instance: Instance, resend: StandIn) -> None:
    before = resend.connections
    assert instance.project("DELETE", "/egress/api.resend.com").status == 200
    refused = instance.call("function__resend", {"from": "a@b.example", "to": "c@d.example", "subject": "hi", "text": "hello"})
    assert refused["isError"]
    assert "egress blocked: host 'api.resend.com' is not in this project's outbound allowlist" in refused["content"][0]["text"]
    assert resend.connections == before
    denied = instance.project("GET", "/egress/decisions?verdict=denied").data
    assert [(d["host"], d["port"], d["verdict"]) for d in denied][:1] == [("api.resend.com", 443, "denied")]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_connected_client_sees_a_new_server_without_reconnecting(instance: Instance, mode: str) -> None:
    changed = anyio.Event()
    name = f"late-{mode}"

    async def heard(message: Any) -> None:
        if "list_changed" in str(message) or "ListChanged" in type(message).__name__:
            changed.set()

    async with instance.client(mode, message_handler=heard) as client, anyio.create_task_group() as tasks:

        async def listen() -> None:
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    changed.set()

        if mode == "auto":
            tasks.start_soon(listen)
        before = {tool.name for tool in (await client.list_tools()).tools}
        assert f"{name}__echo" not in before
        await anyio.sleep(0.5)  # the stream of notices is opened beside the first request
        installed = await anyio.to_thread.run_sync(lambda: instance.engine("POST", "/mcp-servers", custom(name)))
        assert installed.status == 201, installed.body
        with anyio.fail_after(10):
            await changed.wait()
        after = {tool.name for tool in (await client.list_tools(cache_mode="refresh")).tools}
        assert f"{name}__echo" in after
        answer = await client.call_tool(f"{name}__echo", {"text": "héllo"})
        assert "héllo" in str(answer.content)
        tasks.cancel_scope.cancel()


async def test_an_ai_client_installs_and_removes_a_server_itself(instance: Instance) -> None:
    async with instance.client() as client:
        installed = await client.call_tool("mcp_server_install", custom("own"))
        assert not installed.is_error, installed
        listed = await client.call_tool("mcp_server_list", {})
        assert "own" in str(listed.content)
        assert (await client.call_tool("own__echo", {"text": "x"})).is_error is False
        catalogue = await client.call_tool("connector_catalog", {})
        assert "memory" in str(catalogue.content)
        removed = await client.call_tool("mcp_server_remove", {"name": "own"})
        assert not removed.is_error
        assert "own__echo" not in {tool.name for tool in (await client.list_tools(cache_mode="refresh")).tools}


def test_connecting_the_same_thing_twice_is_a_conflict_and_changes_nothing(instance: Instance) -> None:
    before = instance.project("GET", "/connections").data
    again = instance.project("POST", "/connections", {"connector": "memory"})
    assert (again.status, again.code) == (409, "conflict")
    assert instance.project("GET", "/connections").data == before


def test_a_custom_server_gets_its_secret_and_nobody_else_s(instance: Instance) -> None:
    instance.project("POST", "/secrets", {"name": "MY_TOKEN", "plaintext": "t0ken-value"})
    instance.project("POST", "/secrets", {"name": "NOT_YOURS", "plaintext": "another-value"})
    body = custom("withsecret", env={"TOKEN": "${MY_TOKEN}"})
    assert instance.engine("POST", "/mcp-servers", body).status == 201
    environment = str(instance.call("withsecret__env"))
    assert "t0ken-value" in environment
    assert "another-value" not in environment


def test_disconnecting_undoes_all_of_it(instance: Instance) -> None:
    instance.connect("memory", name="second")
    assert "second__read_graph" in instance.tools()
    assert instance.project("DELETE", "/connections/second").status == 200
    assert "second__read_graph" not in instance.tools()
    assert "second" not in {connection["name"] for connection in instance.project("GET", "/connections").data}
    assert "memory__read_graph" in instance.tools()


def test_everything_is_there_after_a_restart(instance: Instance) -> None:
    before = set(instance.tools())
    instance.down()
    assert instance.processes() == []
    instance.up()
    eventually(lambda: set(instance.tools()) == before, what="every tool came back")
    assert "Ada" in str(instance.call("memory__read_graph"))


def test_stop_and_restart_of_the_engine_bring_its_mounts_back(instance: Instance) -> None:
    before = set(instance.tools())
    assert instance.project("POST", "/engine/stop").data["state"] == "stopped"
    assert instance.project("GET", "/engine").data["pid"] is None
    eventually(lambda: set(instance.tools()) == before, what="every tool came back")
