"""Two projects side by side on one machine: a hostile mount in one finds nothing of the other's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.harness.instance import KERNEL, SERVERS, Instance, closing, eventually
from tests.harness.standin import Authority, StandIn, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("doors")]
HOSTS = {"default": "api.first.example", "second": "api.second.example"}


@dataclass
class Project:
    name: str
    key: str
    secret: str
    host: str
    files: Path
    engine: int
    abstract: str
    kept: Path  # in a mount's own folder
    sockets: list[str]


@dataclass
class Pair:
    instance: Instance
    both: dict[str, Project]

    def call(self, project: str, tool: str, arguments: Any = None) -> Any:
        return self.instance.call(tool, arguments, key=self.both[project].key)

    def attempt(self, project: str, item: str, **ground: Any) -> list[dict[str, Any]]:
        whole = {"token": "no-canary", "mark": "no-mark", "tcp": [], "udp": [], "unix": [], "files": [], "pids": [], "words": []}
        whole |= {"patience": 2, "allowed": HOSTS[project], "refused": "refused.example", **ground}
        said = self.call(project, "bypass__attempt", {"item": item, "ground": whole})
        tries: list[dict[str, Any]] = msgspec.json.decode(said["content"][0]["text"])
        return tries


OTHER = {"default": "second", "second": "default"}
ROTATED = pytest.mark.parametrize("project", ["default", "second"])


@pytest.fixture(scope="module")
def pair(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("projects")
    with (
        standin(HOSTS["default"], lambda _: (200, {"of": "default"}), folder, authority) as one,
        standin(HOSTS["second"], lambda _: (200, {"of": "second"}), folder, authority) as two,
    ):
        for up in closing(Instance(folder / "home", *KERNEL, *one.pin, *two.pin, *authority.flags)):
            assert up.v1("POST", "/projects", {"name": "second"}).status in (200, 201)
            yield Pair(up, {name: furnished(up, name, server) for name, server in (("default", one), ("second", two))})


def furnished(instance: Instance, name: str, server: StandIn) -> Project:
    before = sockets(instance)
    key = instance.v1("POST", f"/projects/{name}/keys", {"name": "tests"}).data["key"]
    secret = f"hush-{name}-{secrets.token_hex(8)}"
    instance.v1("POST", f"/projects/{name}/secrets", {"name": "TOKEN", "plaintext": secret})
    instance.allow(server.name, project=name)
    instance.mount("bypass", SERVERS / "bypass.py", key=key)
    instance.mount("reach", SERVERS / "reach.py", key=key, env={"TOKEN": "${TOKEN}"})
    engine = instance.v1("GET", f"/projects/{name}/engine").data
    assert engine["sandbox"] == "kernel"
    abstract = f"rootlink-test-{secrets.token_hex(6)}"
    assert not instance.call("reach__listen", {"abstract": abstract}, key=key)["isError"]
    assert not instance.call("reach__write", {"path": f"{name}.txt", "text": secret}, key=key)["isError"]
    files = Path(engine["files"])
    (files / "private.txt").write_text(secret)
    kept = next(instance.home.rglob(f"{name}.txt"))
    return Project(name, key, secret, server.name, files, engine["pid"], abstract, kept, sorted(sockets(instance) - before))


def sockets(instance: Instance) -> set[str]:
    """Unix sockets, by path, that this instance's programs listen on."""
    pids = {process.pid for process in instance.processes()}
    return {
        c.laddr for c in psutil.net_connections("unix") if c.pid in pids and isinstance(c.laddr, str) and c.laddr.startswith("/")
    }


@ROTATED
def test_each_reaches_its_own_host_and_not_the_other_s(pair: Pair, project: str) -> None:
    other = OTHER[project]
    mine = pair.call(project, "reach__curl", {"url": f"https://{HOSTS[project]}/"})
    assert f'"{project}"' in str(mine), mine
    assert pair.call(project, "reach__curl", {"url": f"https://{HOSTS[other]}/"})["isError"]
    eventually(lambda: HOSTS[other] in {row["host"] for row in pair.instance.denied(project)}, what="the record")
    assert HOSTS[project] not in {row["host"] for row in pair.instance.denied(project)}


@ROTATED
def test_the_other_s_files_and_state_are_not_there(pair: Pair, project: str) -> None:
    other = pair.both[OTHER[project]]
    wanted = [other.files, other.files / "private.txt", other.kept, other.kept.parent]
    tries = pair.attempt(project, "118 119 files, folders and devices of the host", files=[str(path) for path in wanted])
    assert [one for one in tries if one["out"]] == []
    assert pair.call(project, "reach__write", {"path": str(other.files / "planted.txt")})["isError"]
    assert not (other.files / "planted.txt").exists()


@ROTATED
def test_the_other_s_engine_and_sockets_are_not_there(pair: Pair, project: str) -> None:
    other = pair.both[OTHER[project]]
    assert other.sockets, "the control: it listens somewhere"
    tries = pair.attempt(project, "109 110 unix sockets of the host", unix=[*other.sockets, f"@{other.abstract}"])
    assert [one for one in tries if one["out"]] == []
    own = pair.call(project, "reach__connect", {"unix": f"@{pair.both[project].abstract}"})
    assert not own["isError"], "the control: its own is there"
    assert pair.call(project, "reach__connect", {"unix": f"@{other.abstract}"})["isError"]


@ROTATED
def test_the_other_s_processes_and_secrets_are_not_there(pair: Pair, project: str) -> None:
    other = pair.both[OTHER[project]]
    engine = psutil.Process(other.engine)
    pids = [process.pid for process in (engine, *engine.children(recursive=True)) if process.pid > 300]
    assert pids
    tries = pair.attempt(project, "116 other processes, their environment and files", pids=pids, words=[other.secret])
    assert [one for one in tries if one["out"]] == []
    seen = msgspec.json.decode(pair.call(project, "reach__processes")["content"][0]["text"])
    assert len(seen) <= 4, seen
    assert not any("bypass.py" in line for line in seen.values()), "not even another mount of its own project"


@ROTATED
def test_an_engine_itself_is_in_namespaces_of_its_own(pair: Pair, project: str) -> None:
    mine, other = pair.both[project], pair.both[OTHER[project]]
    for kind in ("net", "pid", "mnt", "user", "ipc"):
        spaces = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in (mine.engine, other.engine, psutil.Process().pid)}
        assert len(spaces) == 3, kind
    root = Path(f"/proc/{mine.engine}/root")
    for path in (other.files, other.kept, pair.instance.home / "admin-token", pair.instance.home / "vault", *other.sockets):
        assert not (root / str(path).lstrip("/")).exists(), path
