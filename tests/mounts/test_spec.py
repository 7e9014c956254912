"""What a spec from outside may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rootlink.engine.mounts import spec as specs
from rootlink.engine.mounts.spec import Places, Values
from rootlink.errors import Forbidden, Invalid
from rootlink.wire.mounts import Auth, MountSpec, Paths


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("files", "files/in", "allowed", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "files" / "sneaky").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "files" / "loop").symlink_to(tmp_path / "files" / "loop")
    (tmp_path / "files" / "note.txt").write_text("x")
    return Places(tmp_path / "files", (tmp_path / "allowed",))


def stdio(**members: Any) -> MountSpec:
    return MountSpec(**{"name": "m", "transport": "stdio", "command": "npx", **members})


def http(**members: Any) -> MountSpec:
    return MountSpec(**{"name": "m", "transport": "http", "endpoint": "https://a.example/mcp", **members})


REFUSED = {
    "a name with the separator": (stdio(name="a__b"), "'__' separates"),
    "a reserved name": (stdio(name="function"), "reserved"),
    "a path for a name": (stdio(name="../x"), "not allowed"),
    "stdio without a command": (stdio(command=None), "needs `command`"),
    "stdio with an endpoint": (stdio(endpoint="https://a.example"), "`endpoint` is not for transport 'stdio'"),
    "stdio with a credential": (stdio(auth=Auth("bearer", "x")), "`auth` is not for transport"),
    "http without an endpoint": (http(endpoint=None), "needs `endpoint`"),
    "http with a command": (http(command="sh"), "`command` is not for transport 'http'"),
    "a file endpoint": (http(endpoint="file:///etc/passwd"), "must be an http:// or https:// URL"),
    "an endpoint with a line break": (http(endpoint="https://a.example/\nx"), "must be an http:// or https:// URL"),
    "an endpoint that only holds a URL": (http(endpoint="javascript:https://a.example"), "must be an http://"),
    "a variable with '='": (stdio(env={"A=B": "x"}), "no name for an environment variable"),
    "a variable without a name": (stdio(env={"": "x"}), "no name for an environment variable"),
    "NUL in an argument": (stdio(args=["a\0b"]), "`args` holds a NUL"),
    "NUL in a variable": (stdio(env={"A": "\0"}), "`env` holds a NUL"),
    "half a surrogate": (stdio(args=["\ud800"]), "half of a surrogate pair"),
    "a header of the connection": (http(headers={"Host": "x"}), "cannot be set"),
    "a header of the protocol": (http(headers={"mcp-session-id": "x"}), "cannot be set"),
    "a header that is two": (http(headers={"A\r\nB": "x"}), "cannot be set"),
    "no time": (stdio(timeout_secs=0.5), "`timeout_secs` must be from 1 to 600"),
    "too much time": (stdio(timeout_secs=601), "`timeout_secs` must be from 1 to 600"),
    "time that is no number": (stdio(timeout_secs=float("nan")), "`timeout_secs` must be from 1 to 600"),
    "no time to start": (stdio(start_secs=0), "`start_secs` must be from 1 to 600"),
    "a file elsewhere": (stdio(files={"../x": ""}), "is not a plain file name"),
    "a file that is hidden": (stdio(files={".npmrc": ""}), "is not a plain file name"),
    "no calls at once": (stdio(concurrency=0), "`concurrency` must be"),
    "too many calls at once": (http(concurrency=1001), "`concurrency` must be from 1 to 1000"),
    "a session of another kind": (http(session="each"), '`session` must be "shared", "client" or left out'),
    "an egress rule that is none": (stdio(egress=["https://a.example/x"]), "a.example"),
    "a relative directory": (stdio(cwd="files"), "not absolute"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str, places: Places) -> None:
    spec, words = REFUSED[case]
    with pytest.raises(Invalid, match=words):
        specs.check(spec, places)


@pytest.mark.parametrize(
    "spec",
    [
        stdio(args=["-y", "@scope/pkg@1"], env={"_A1": "${KEY}"}, egress=["api.example:5432"], concurrency=1, timeout_secs=600),
        stdio(cwd="${{state}}/work", paths=Paths(read=["${{files}}"])),
        http(endpoint="http://a.example:8080/mcp?key=${KEY}", headers={"X-Key": "${KEY}"}, auth=Auth("api_key", "${KEY}")),
        MountSpec("m", "sse", endpoint="https://a.example/sse", egress=[]),
    ],
)
def test_is_accepted(spec: MountSpec, places: Places) -> None:
    specs.check(spec, places)


def test_directories_under_what_is_open_are_accepted(places: Places, tmp_path: Path) -> None:
    specs.check(stdio(cwd=f"{tmp_path}/files/in", paths=Paths([f"{tmp_path}/files"], [f"{tmp_path}/allowed"])), places)


@pytest.mark.parametrize("path", ["elsewhere", "files/sneaky", "files/../elsewhere", "files/loop", "filesystem", "", "not-there"])
@pytest.mark.parametrize("member", ["cwd", "read", "write"])
def test_directories_nobody_opened_are_refused_and_the_flag_is_named(
    path: str, member: str, places: Places, tmp_path: Path
) -> None:
    found = f"{tmp_path}/{path}"
    spec = stdio(cwd=found) if member == "cwd" else stdio(paths=Paths(**{member: [found]}))
    with pytest.raises(Forbidden, match="rootlink up --allow-path DIR"):
        specs.check(spec, places)


@pytest.mark.parametrize("path", ["files/nothing", "files/note.txt"])
def test_what_is_open_but_no_directory_is_told_so(path: str, places: Places, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        specs.check(stdio(cwd=f"{tmp_path}/{path}"), places)


def test_references_are_found_wherever_they_may_stand() -> None:
    spec = stdio(args=["--dsn=${A}:${B}"], env={"X": "${C}", "Y": "$D ${{files}} ${1}"})
    assert specs.references(spec) == {"A", "B", "C"}
    assert specs.references(http(endpoint="https://${E}.example", headers={"H": "${F}"}, auth=Auth("bearer", "${G}"))) == {
        "E",
        "F",
        "G",
    }


def test_references_are_filled_in_once() -> None:
    values = Values({"A": "${B}", "B": "never"}, {"files": Path("/f"), "state": Path("/s")})
    filled = specs.fill(stdio(args=["${A}-${{state}}", "${{ files }}/x", "$A", "${}"]), values)
    assert filled.args == ["${B}-/s", "/f/x", "$A", "${}"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (stdio(env={"K": "${NOPE}"}), "secret NOPE is not in this project's vault; set it with: rootlink secrets set NOPE"),
        (stdio(args=["${{home}}"]), r"\$\{\{home\}\} is not known"),
        (http(headers={"K": "${BAD}"}), "holds a line break or NUL"),
        (stdio(env={"K": "${NUL}"}), "holds a line break or NUL"),
    ],
)
def test_what_cannot_be_filled_in_is_told_without_the_value(spec: MountSpec, words: str) -> None:
    values = Values({"BAD": "sekrit\r\nX: y", "NUL": "sekrit\0"}, {})
    with pytest.raises(Invalid, match=words) as refused:
        specs.fill(spec, values)
    assert "sekrit" not in refused.value.message


def test_credentials_become_headers() -> None:
    assert specs.headers(http(auth=Auth("bearer", "t"), headers={"X": "y"})) == {"X": "y", "Authorization": "Bearer t"}
    assert specs.headers(http(auth=Auth("api_key", "t"))) == {"X-API-Key": "t"}


def test_a_file_of_the_command_line_is_shown_if_its_folder_is_allowed(tmp_path: Path) -> None:
    files, allowed, other = (tmp_path / name for name in ("files", "allowed", "other"))
    for folder in (files, allowed, other):
        folder.mkdir()
        (folder / "server.py").touch()
    (files / "link.py").symlink_to(other / "server.py")
    args = [str(folder / "server.py") for folder in (files, allowed, other)] + [
        str(files),
        str(files / "link.py"),
        "-c",
        "/no/such",
    ]
    found = specs.named_files(args, Places(files, (allowed,)))
    assert found == [files / "server.py", allowed / "server.py"]


def test_the_first_path_that_a_door_does_not_show_is_told(tmp_path: Path) -> None:
    shown = [tmp_path / "files"]
    assert specs.unseen(["-m", "x", "/usr/bin/env", f"{tmp_path}/files/a.py", "/"], shown) == ""
    assert f"'{tmp_path}/elsewhere.py'" in specs.unseen([f"{tmp_path}/elsewhere.py"], shown)
