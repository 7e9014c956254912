"""`rootlink mcp`: what each AI client is told, and servers of one's own."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.cli.clients import CLIENTS
from tests.cli.conftest import Run
from tests.cli.instance import Instance

URL, KEY = "http://127.0.0.1:7300/mcp", "rl_sk_" + "0" * 64


def written(client: str, url: str = URL) -> Any:
    text = CLIENTS[client].write(url, KEY)
    readers: dict[str, Any] = {"shell": shlex.split, "json": msgspec.json.decode, "toml": tomllib.loads}
    return readers[CLIENTS[client].format](text)


def test_claude_code_is_one_line_for_the_shell() -> None:
    header = f"Authorization: Bearer {KEY}"
    assert written("claude-code") == ["claude", "mcp", "add", "--transport", "http", "rootlink", URL, "--header", header]


def test_claude_desktop_starts_a_bridge_and_keeps_the_key_out_of_its_arguments() -> None:
    server = written("claude-desktop")["mcpServers"]["rootlink"]
    assert server["command"] == "npx"
    assert URL in server["args"]
    assert KEY not in " ".join(server["args"])
    assert server["env"] == {"ROOTLINK_AUTHORIZATION": f"Bearer {KEY}"}
    assert "--allow-http" in server["args"]
    assert "--allow-http" not in written("claude-desktop", "https://rootlink.example/mcp")["mcpServers"]["rootlink"]["args"]


def test_cursor_vscode_and_codex_get_url_and_header() -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    assert written("cursor") == {"mcpServers": {"rootlink": {"url": URL, "headers": headers}}}
    assert written("vscode") == {"servers": {"rootlink": {"type": "http", "url": URL, "headers": headers}}}
    assert written("codex") == {"mcp_servers": {"rootlink": {"url": URL, "http_headers": headers}}}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_configuration_holds_the_url_and_a_key_made_for_it(run: Run, instance: Instance, client: str) -> None:
    said = run("mcp", "config", "--client", client)
    (key, view), *more = instance.keys.items()
    assert (said.code, view["name"], more) == (0, client, [])
    assert key in said.out
    assert f"{instance.base}/mcp" in said.out


def test_a_configuration_for_another_workspace_names_it(run: Run, instance: Instance) -> None:
    data = run("mcp", "config", "--client", "cursor", "--ws", "side", "--no-key", "--json").data
    assert (data["client"], data["format"], data["url"]) == ("cursor", "json", f"{instance.base}/mcp/side")
    assert "rl_sk_…" in data["config"]
    assert instance.keys == {}


def spec(instance: Instance) -> Any:
    return instance.mounts[-1]["spec"]


def test_a_command_is_mounted(run: Run, instance: Instance) -> None:
    said = run("mcp", "add", "everything", "--env", "TOKEN=${TOKEN}", "--read", "/srv", "--", "npx", "-y", "pkg@1", "--flag")
    assert (said.code, said.out) == (0, "everything is mounted: 3 tools\n")
    assert spec(instance) == {
        "name": "everything",
        "transport": "stdio",
        "command": "npx",
        "args": ["-y", "pkg@1", "--flag"],
        "env": {"TOKEN": "${TOKEN}"},
        "paths": {"read": ["/srv"]},
    }


def test_a_server_may_be_told_to_have_a_session_for_each_client_and_to_take_one_call_at_a_time(
    run: Run, instance: Instance
) -> None:
    run("mcp", "add", "wiki", "--session", "client", "--concurrency", "1", "--", "npx", "-y", "wiki-mcp")
    assert (spec(instance)["session"], spec(instance)["concurrency"]) == ("client", 1)


def test_a_url_is_mounted(run: Run, instance: Instance) -> None:
    run("mcp", "add", "remote", "--url", "https://mcp.example/mcp", "--header", "X-Key=${KEY}", "--egress", "mcp.example")
    assert spec(instance) == {
        "name": "remote",
        "transport": "http",
        "endpoint": "https://mcp.example/mcp",
        "headers": {"X-Key": "${KEY}"},
        "egress": ["mcp.example"],
    }
    run("mcp", "add", "old", "--url", "https://mcp.example/sse", "--sse")
    assert spec(instance)["transport"] == "sse"


PASTED = {
    "mcpServers": {
        "one": {"command": "uvx", "args": ["server-one"], "env": {"A": "1"}, "disabled": False},
        "two": {"type": "sse", "url": "https://two.example/sse"},
    }
}


def test_what_a_readme_says_to_paste_is_mounted(run: Run, instance: Instance, tmp_path: Path) -> None:
    file = tmp_path / "pasted.json"
    file.write_bytes(msgspec.json.encode(PASTED))
    assert run("mcp", "add", "--from-json", str(file)).code == 0
    assert [mount["spec"] for mount in instance.mounts] == [
        {"name": "one", "transport": "stdio", "command": "uvx", "args": ["server-one"], "env": {"A": "1"}},
        {"name": "two", "transport": "sse", "endpoint": "https://two.example/sse"},
    ]
    run("mcp", "add", "one", "--from-json", "-", "--env", "B=2", stdin=file.read_text())
    assert spec(instance)["env"] == {"A": "1", "B": "2"}


@pytest.mark.parametrize("pasted", ["{}", '{"mcpServers": {}}', '{"mcpServers": {"x": 1}}', '{"mcpServers": []}'])
def test_a_paste_without_a_server_is_refused(run: Run, instance: Instance, pasted: str) -> None:
    refused = run("mcp", "add", "--from-json", "-", stdin=pasted)
    assert (refused.code, refused.err.startswith("rootlink: invalid: there is no server in this JSON")) == (1, True)


def test_mounts_are_listed_and_removed(run: Run, instance: Instance) -> None:
    run("mcp", "add", "everything", "--", "npx", "x")
    assert run("mcp", "list").out.splitlines()[1].split() == ["everything", "stdio", "ready", "3"]
    assert run("mcp", "remove", "everything").out == "everything is removed\n"
