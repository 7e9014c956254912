"""Every command against an instance: what it asks for, what it prints, what it says when there is nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rootlink.cli.logs import overlap
from tests.cli.conftest import Run
from tests.cli.instance import ADMIN, Instance

LISTS = [
    (["connections"], "rootlink catalog"),
    (["secrets", "list"], "rootlink secrets set"),
    (["egress", "list"], "rootlink egress allow"),
    (["egress", "denied"], "Nothing was refused"),
    (["keys", "list"], "rootlink keys create"),
    (["function", "list"], "rootlink function deploy"),
    (["function", "runs", "hello"], "rootlink function invoke hello"),
    (["mcp", "list"], "rootlink connect memory"),
]


@pytest.mark.parametrize(("argv", "next_step"), LISTS, ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_an_empty_list_teaches_the_next_command_and_is_empty_json(
    run: Run, instance: Instance, argv: list[str], next_step: str
) -> None:
    said = run(*argv)
    assert (said.code, said.out) == (0, "")
    assert next_step in said.err
    assert run(*argv, "--json").data == []


def test_no_tools_teaches_the_next_command(run: Run, instance: Instance) -> None:
    instance.tools = []
    assert "rootlink connect memory" in run("tools").err
    assert run("tools", "--json").data == []


def test_the_catalogue_is_a_table_and_one_entry_is_told_in_full(run: Run, instance: Instance) -> None:
    assert run("catalog").out.splitlines()[1].split(maxsplit=2) == ["resend", "function", "Send e-mail."]
    told = run("catalog", "resend")
    assert "RESEND_API_KEY  API key (secret, required)" in told.out
    assert "api.resend.com" in told.out
    assert "rootlink connect resend --secret RESEND_API_KEY=-" in told.err


def test_tools_are_searched_in_name_and_description(run: Run, instance: Instance) -> None:
    assert [tool["name"] for tool in run("tools", "--search", "GRAPH", "--json").data] == ["memory__read_graph"]
    assert run("tools", "--search", "nothing").err.startswith("None of the 2 tools")


def test_a_tools_description_cannot_write_to_the_terminal(run: Run, instance: Instance) -> None:
    assert "\x1b" not in run("tools").out


def test_a_call_prints_the_text_and_raw_the_whole_result(run: Run, instance: Instance) -> None:
    assert (
        run("call", "memory__echo", "--json", '{"n": 12345678901234567890}').out
        == '{"n":12345678901234567890}\n[image image/png]\n'
    )
    assert run("call", "memory__echo", "--raw").data["content"][0]["text"] == "{}"
    assert run("--json", "call", "memory__echo", "--json", "{}").data["content"][1]["type"] == "image"


def test_a_call_takes_its_arguments_from_a_file_or_standard_input(run: Run, instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "arguments.json").write_text('{"from": "file"}')
    assert '"file"' in run("call", "memory__echo", "--json", f"@{tmp_path}/arguments.json").out
    assert '"stdin"' in run("call", "memory__echo", "--json", "-", stdin='{"from": "stdin"}').out


def test_a_tool_that_fails_is_one_line_and_exit_1(run: Run, instance: Instance) -> None:
    assert run("call", "memory__broken") == (1, "", "rootlink: upstream_failed: it broke badly\n")


def test_secrets_are_set_listed_and_unset(run: Run, instance: Instance) -> None:
    assert run("secrets", "set", "KEY", stdin="s3cret\n\n").code == 0
    assert instance.secrets == {"KEY": "s3cret\n"}
    assert run("secrets", "list").out.splitlines()[1].split() == ["KEY", "t"]
    assert run("secrets", "unset", "KEY").code == 0
    assert instance.secrets == {}


def test_egress_is_allowed_listed_and_removed(run: Run, instance: Instance) -> None:
    assert run("egress", "allow", "api.example.com:8443").out == "api.example.com:8443 is allowed\n"
    assert "api.example.com:8443  manual" in run("egress", "list").out
    assert run("egress", "remove", "api.example.com:8443").code == 0
    assert instance.domains == []


def test_denied_tells_who_asked_for_what(run: Run, instance: Instance) -> None:
    instance.decisions = [
        {"time": "t", "connection": "resend", "host": "evil.example", "port": 443, "reason": "not listed", "count": 2}
    ]
    assert run("egress", "denied").out.splitlines()[1].split(maxsplit=5) == [
        "t",
        "resend",
        "evil.example",
        "443",
        "2",
        "not listed",
    ]


def test_a_key_goes_to_stdout_alone_and_is_revoked(run: Run, instance: Instance) -> None:
    made = run("keys", "create", "--name", "laptop", "--scope", "use")
    assert made.out.strip() in instance.keys
    assert instance.keys[made.out.strip()] == {"id": "key_0", "name": "laptop", "prefix": made.out[:12], "scopes": ["use"]}
    assert "key_0  laptop" in run("keys", "list").out
    assert run("keys", "revoke", "key_0").code == 0
    assert instance.keys == {}


def test_projects_are_made_and_listed(run: Run, instance: Instance) -> None:
    assert run("projects", "create", "other").code == 0
    assert "other" in run("projects", "list").out
    assert run("projects", "delete", "other").code == 0


def test_a_function_is_deployed_invoked_and_deleted(run: Run, instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "body.js").write_text("async (input) => input")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    deployed = run("function", "deploy", "echo", "--code", f"{tmp_path}/body.js", "--schema", f"{tmp_path}/schema.json")
    assert deployed.out == "echo version 1 is live as the tool function__echo\n"
    assert instance.functions["echo"]["input_schema"] == {"type": "object"}
    assert "timeout_ms" not in instance.functions["echo"]
    ran = run("function", "invoke", "echo", "--input", '{"a": [1, 2]}')
    assert (ran.data, ran.err) == ({"a": [1, 2]}, "hello\n")
    assert run("function", "invoke", "echo", "--json").data["run_id"] == "r1"
    assert run("function", "delete", "echo").code == 0


def test_a_function_that_throws_is_exit_1_with_its_error(run: Run, instance: Instance) -> None:
    told = run("function", "invoke", "thrower")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("rootlink: error: TypeError: no such thing\n")


def test_a_function_that_does_not_compile_is_refused(run: Run, instance: Instance) -> None:
    refused = run("function", "deploy", "bad", "--code", "-", stdin="syntax(")
    assert (refused.code, refused.err) == (
        1,
        "rootlink: invalid: the body does not compile: SyntaxError: Unexpected token (1:3)\n",
    )


def test_the_engine_is_restarted(run: Run, instance: Instance) -> None:
    assert run("engine", "restart").out == "engine of default: stopped\n"
    assert run("engine", "stop", "--json").data == {"state": "stopped", "pid": None}


def test_logs_of_a_connection_and_of_the_engine(run: Run, instance: Instance) -> None:
    assert run("logs", "memory").out == "one\ntwo\n"
    assert run("logs", "--engine", "--json").data == ["one", "two"]
    assert run("logs").code == 2
    assert run("logs", "memory", "--engine").code == 2


@pytest.mark.parametrize(
    ("seen", "now", "old"),
    [
        (["a", "b"], ["a", "b", "c"], 2),
        (["a", "b", "c"], ["c", "d"], 1),
        (["a"], ["x"], 0),
        ([], ["x"], 0),
        (["a", "a"], ["a", "a", "a"], 2),
    ],
)
def test_following_a_log_shows_only_lines_that_are_new(seen: list[str], now: list[str], old: int) -> None:
    assert overlap(seen, now) == old


def test_the_workspace_is_used_where_it_matters(run: Run, instance: Instance) -> None:
    run("tools", "--ws", "side")
    run("connect", "filesystem", "--ws", "side")
    assert any(path == "/engine/api/v1/ws/side/tools" for _, path, _, _ in instance.requests)
    assert instance.connections[0]["workspace"] == "side"
    assert run("connections", "--ws", "main", "--json").data == []
    assert len(run("connections", "--json").data) == 1


def test_a_project_key_is_made_once_kept_private_and_made_again_when_revoked(run: Run, instance: Instance, home: Path) -> None:
    run("tools")
    run("call", "memory__echo")
    assert [view["name"] for view in instance.keys.values()] == ["cli"]
    assert stat.S_IMODE((home / "cli-keys.json").stat().st_mode) == 0o600
    instance.keys.clear()
    assert run("tools").code == 0
    assert len(instance.keys) == 1


def test_the_engine_never_sees_the_admin_token(run: Run, instance: Instance) -> None:
    run("tools")
    assert all(bearer != ADMIN for _, path, _, bearer in instance.requests if path.startswith("/engine/"))


def test_several_projects_ask_which_one(run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.projects.append({"id": "prj_2", "name": "other"})
    refused = run("connections")
    assert (refused.code, refused.err) == (
        1,
        "rootlink: invalid: there are several projects (default, other); say which with --project\n",
    )
    assert run("connections", "--project", "other").code == 0
    monkeypatch.setenv("ROOTLINK_PROJECT", "other")
    assert run("connections").code == 0
