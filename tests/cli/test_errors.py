"""What goes wrong: one line on stderr with the code, nothing on stdout, and the right exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from rootlink.cli import app, tools
from tests.cli.conftest import Run
from tests.cli.instance import ADMIN, Instance


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["conect"], "No such command 'conect'. Did you mean 'connect'"),
        (["vault", "rotate-key"], "No such command 'vault'"),
        (["secrets"], "Missing command"),
        (["connect"], "Missing argument 'NAME'"),
        (["tools", "--nope"], "No such option: --nope"),
        (["call", "x", "--json", "{broken"], "--json is not JSON"),
        (["call", "x", "--json", "[1]"], "--json must be a JSON object"),
        (["mcp", "config", "--client", "emacs"], "choose from claude-code, claude-desktop, cursor, codex, vscode"),
        (["mcp", "add", "x"], "give one of"),
        (["connect", "resend", "--input", "novalue"], "--input takes NAME=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_used_wrongly_is_one_line_and_exit_2(run: Run, instance: Instance, argv: list[str], words: str) -> None:
    code, out, err = run(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("rootlink: invalid: ")
    assert words in err


def test_no_command_shows_the_help_and_is_no_success(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "connections" in err


@pytest.mark.parametrize("command", app.COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: rootlink {command}")


def test_an_error_of_the_api_is_its_code_and_message(run: Run, instance: Instance) -> None:
    assert run("catalog", "nothing") == (1, "", "rootlink: not_found: no connector 'nothing'; there are filesystem, resend\n")


def test_no_instance_says_how_to_start_one(run: Run, home: Path) -> None:
    assert run("connections") == (1, "", f"rootlink: unavailable: no Rootlink runs in {home}; start one with: rootlink up\n")


def test_an_instance_that_died_says_how_to_start_one(run: Run, instance: Instance, home: Path) -> None:
    record = home / "run" / "rootlink.json"
    record.write_bytes(record.read_bytes().replace(instance.base.encode(), b"http://127.0.0.1:1"))
    assert run("connections").err == "rootlink: unavailable: nothing answers at http://127.0.0.1:1; start it with: rootlink up\n"


@pytest.mark.parametrize(
    "answer", [b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"ok": false}'], ids=["html", "bytes", "deep", "half"]
)
def test_an_answer_that_is_none_of_ours_is_an_error(
    run: Run, home: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(msgspec.json, "encode", lambda value, **_: answer)
    code, out, err = run("catalog")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_a_remote_instance_takes_its_token_from_the_environment(
    run: Run, instance: Instance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "run" / "rootlink.json").unlink()
    refused = run("connections", "--url", instance.base)
    assert (refused.code, "ROOTLINK_TOKEN" in refused.err) == (1, True)
    monkeypatch.setenv("ROOTLINK_TOKEN", ADMIN)
    assert run("connections", "--url", f"{instance.base}/v1", "--json").data == []
    assert run("--url", instance.base, "tools").code == 0


def test_the_local_admin_token_is_not_sent_to_another_url(run: Run, instance: Instance) -> None:
    other = instance.base.replace("127.0.0.1", "localhost")
    assert run("connections", "--url", other).err.startswith("rootlink: unauthorized: ")
    assert instance.requests == []


def test_a_project_key_as_the_token_serves_the_engine_alone(
    run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = instance.make_key({"name": "mine"})["key"]
    monkeypatch.setenv("ROOTLINK_TOKEN", key)
    monkeypatch.setenv("ROOTLINK_URL", instance.base.replace("127.0.0.1", "localhost"))
    assert run("tools").code == 0
    assert run("connections").err.startswith("rootlink: unauthorized: ")
    assert len(instance.keys) == 1


def test_a_bug_of_ours_is_told_without_what_it_held(run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(tools, "_matches", broken)
    code, _, err = run("tools")
    assert code == 1
    assert err.startswith("rootlink: internal: RuntimeError at ")
    assert "s3cret" not in err


def test_an_interrupt_is_exit_130(run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tools, "_matches", interrupted)
    assert run("tools").code == 130


def test_common_options_stand_before_or_after_the_command(
    run: Run, instance: Instance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROOTLINK_HOME")
    assert run("--home", str(home), "--json", "connections").data == []
    assert run("connections", "--home", str(home), "--json").data == []
    assert run("--home", "/nowhere", "connections", "--home", str(home)).code == 0


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").out.strip() == sys.modules["rootlink"].__version__
