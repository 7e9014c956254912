"""Connecting from the command line: the steps, and where a secret's value may come from."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.instance import Instance

SECRET = "re_0123456789"


def sent(instance: Instance) -> dict[str, object]:
    return next(body for method, path, body, _ in instance.requests if method == "POST" and path.endswith("/connections"))


def test_the_steps_and_the_tools_are_shown(run: Run, instance: Instance) -> None:
    said = run("connect", "resend", "--secret", "RESEND_API_KEY=-", stdin=f"{SECRET}\n")
    assert said.code == 0
    assert said.out.splitlines() == [
        "✓ seal  seal is done",
        "✓ egress  egress is done",
        "✓ install  install is done",
        "resend is connected: 1 tool",
        "  resend__read",
    ]
    assert "rootlink mcp config" in said.err
    assert sent(instance)["secrets"] == {"RESEND_API_KEY": SECRET}


def test_with_json_the_connection_is_the_whole_output(run: Run, instance: Instance) -> None:
    assert run("connect", "filesystem", "--as", "files", "--json").data["name"] == "files"


def test_several_secrets_are_one_line_each(run: Run, instance: Instance) -> None:
    run("connect", "filesystem", "--secret", "ONE=-", "--secret", "TWO", stdin="first\nsecond\n")
    assert sent(instance)["secrets"] == {"ONE": "first", "TWO": "second"}
    short = run("connect", "filesystem", "--secret", "ONE=-", "--secret", "TWO=-", stdin="first\n")
    assert (short.code, "as many lines" in short.err) == (1, True)


@pytest.mark.parametrize("option", ["--secret", "--input"])
def test_a_secret_in_argv_is_refused_and_not_repeated(run: Run, instance: Instance, option: str) -> None:
    refused = run("connect", "resend", option, f"RESEND_API_KEY={SECRET}")
    assert refused.code == 2
    assert "--secret" in refused.err
    assert SECRET not in refused.err + refused.out
    assert instance.connections == []


def test_an_empty_secret_is_refused(run: Run, instance: Instance) -> None:
    refused = run("connect", "resend", "--secret", "RESEND_API_KEY=-", stdin="\n")
    assert (refused.code, refused.err) == (1, "rootlink: invalid: no value was given for RESEND_API_KEY\n")


def test_inputs_are_text_and_a_list_where_the_field_takes_several(run: Run, instance: Instance) -> None:
    run("connect", "filesystem", "--input", "paths=/a", "--input", "other=x=y")
    assert sent(instance)["inputs"] == {"paths": ["/a"], "other": "x=y"}


def test_a_failed_connect_says_why_in_one_line(run: Run, instance: Instance) -> None:
    instance.connect_fails = "filesystem did not start:\n  EACCES: no such thing"
    failed = run("connect", "filesystem")
    assert (failed.code, failed.err) == (1, "rootlink: upstream_failed: filesystem did not start: EACCES: no such thing\n")
    assert run("connect", "filesystem", "--json").code == 1


def test_connecting_twice_is_a_conflict(run: Run, instance: Instance) -> None:
    run("connect", "filesystem")
    again = run("connect", "filesystem")
    assert (again.code, again.err) == (1, "rootlink: conflict: filesystem is connected already\n")


def test_disconnect_undoes_it(run: Run, instance: Instance) -> None:
    run("connect", "filesystem")
    assert run("disconnect", "filesystem").out == "filesystem is disconnected\n"
    assert run("disconnect", "filesystem").err == "rootlink: not_found: no connection 'filesystem'\n"


class Terminal:
    """`rootlink` in a process of its own on a terminal, as a person has it."""

    def __init__(self, home: Path, *argv: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "rootlink", *argv], {"ROOTLINK_HOME": str(home), "PATH": os.defpath})
        self.seen = ""

    def until(self, text: str) -> None:
        while text not in self.seen:
            self.seen += os.read(self._fd, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        try:
            while chunk := os.read(self._fd, 4096):
                self.seen += chunk.decode()
        except OSError:  # Linux says EIO when the other side is gone
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_person_is_asked_for_what_is_missing_with_its_explanation_and_without_echo(instance: Instance, home: Path) -> None:
    terminal = Terminal(home, "connect", "resend")
    terminal.until("API key: ")
    assert "2. Copy the key" in terminal.seen
    assert "https://resend.example/keys" in terminal.seen
    terminal.type(f"{SECRET}\n")
    assert terminal.end() == 0
    assert SECRET not in terminal.seen
    assert sent(instance)["secrets"] == {"RESEND_API_KEY": SECRET}
    assert "✓ install  install is done" in terminal.seen


def test_a_secret_the_vault_has_is_not_asked_for(instance: Instance, home: Path) -> None:
    instance.secrets["RESEND_API_KEY"] = SECRET
    assert Terminal(home, "connect", "resend").end() == 0
    assert sent(instance)["secrets"] == {}
