"""A hostile MCP server, mounted for real: of everything it tries, nothing arrives anywhere, and what was refused is on record.

The attempts are in `fixtures/servers/bypass.{py,mjs}`, numbered as the bypass list is. What is watched, from outside: canaries on
every address of this machine and on its unix sockets; the bytes that reach the stand-in of the one allowed host; stand-ins of an
allowed sibling and of a host that only others may reach. The controls show that all of these do hear what does reach them.
"""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.harness.canary import Canary, canary
from tests.harness.instance import KERNEL, SERVERS, Instance, closing, eventually
from tests.harness.standin import Authority, Seen, StandIn, Tap, speaker, standin, tap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
ALLOWED, SIBLING, FOREIGN, REFUSED = "api.allowed.example", "sibling.example", "foreign.example", "refused.example"
RESOLVERS = ("8.8.8.8", "1.1.1.1", "2001:4860:4860::8888")
SECRET = "hush-" + secrets.token_hex(12)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FLOODS = ("120 a flood of connections", "120 a flood of names")


def attempts(file: str, pattern: str) -> list[str]:
    return re.findall(pattern, (SERVERS / file).read_text(), re.MULTILINE)


PYTHON = attempts("bypass.py", r'^@item\("(.+)"\)$')
NODE = attempts("bypass.mjs", r'^item\("([^"]+)"')
ITEMS = [("py", item) for item in PYTHON if item not in FLOODS] + [("node", item) for item in NODE]


@dataclass
class Scene:
    instance: Instance
    canary: Canary
    allowed: StandIn
    tls: Tap  # what reaches the allowed host on 443, before TLS
    plain: Tap  # and on 80
    others: list[Tap]  # of the sibling and of the foreign host
    ground: dict[str, Any]

    def attempt(self, kind: str, item: str, **more: Any) -> list[dict[str, Any]]:
        said = self.instance.call(f"bypass-{kind}__attempt", {"item": item, "ground": {**self.ground, **more}})
        assert not said["isError"], said
        tries: list[dict[str, Any]] = msgspec.json.decode(said["content"][0]["text"])
        return tries

    def arrived(self) -> list[tuple[str, bytes]]:
        """What must not have: at a canary, at another host's stand-in, or with the mark in it. Forgets it."""
        found = [*self.canary.arrived]
        found += [("another host", bytes(one)) for other in self.others for one in other.arrived]
        found += [("the allowed host", bytes(one)) for at in (self.tls, self.plain) for one in at.arrived if self._marked(one)]
        found += [("the allowed host", seen.path.encode()) for seen in self.allowed.seen if self.ground["mark"] in seen.path]
        self.allowed.seen.clear()
        for many in (self.canary.arrived, self.tls.arrived, self.plain.arrived, *(other.arrived for other in self.others)):
            many.clear()
        return found

    def _marked(self, what: bytes) -> bool:
        return self.ground["mark"].encode() in what or REFUSED.encode() in what


@pytest.fixture(scope="module")
def scene(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("hostile")

    def answer(seen: Seen) -> tuple[int, Any]:
        return (302, f"https://{REFUSED}/elsewhere") if seen.path == "/redirect" else (200, {"path": seen.path})

    with (
        canary(folder) as birds,
        standin(ALLOWED, answer, folder, authority) as allowed,
        tap(lambda: socket.create_connection(("127.0.0.1", allowed.port))) as tls,
        speaker(lambda _: OK) as plain,
        speaker(lambda _: OK) as sibling,
        speaker(lambda _: OK) as foreign,
    ):
        pins = {f"{ALLOWED}:443": tls, f"{ALLOWED}:80": plain, f"{SIBLING}:443": sibling, f"{SIBLING}:80": sibling}
        pins |= {f"{FOREIGN}:443": foreign, f"{FOREIGN}:80": foreign}
        flags = [word for name, at in pins.items() for word in ("--resolve", f"{name}=127.0.0.1:{at.port}")]
        instance = Instance(folder / "home", *KERNEL, *flags, *authority.flags)
        for up in closing(instance):
            ground = furnish(up, birds, folder)
            yield Scene(up, birds, allowed, tls, plain, [sibling, foreign], ground)


def furnish(instance: Instance, birds: Canary, folder: Path) -> dict[str, Any]:
    """The allowlist, the two hostile mounts and a neighbour with a secret; what the hostile ones are told."""
    (four, port), (six, port6), (_, second) = birds.tcp[:3]
    private = {"localhost": second, four: port, six: port6, "169.254.169.254": 80}
    rules = [f"[{host}]:{at}" if ":" in host else f"{host}:{at}" for host, at in private.items()]
    instance.allow(ALLOWED, SIBLING, FOREIGN, *rules)
    for name in ("NEIGHBOUR", "OWN"):
        instance.project("POST", "/secrets", {"name": name, "plaintext": SECRET if name == "NEIGHBOUR" else "of-my-own"})
    # one folder twice, and one inside it: no descriptor of either may be left over
    own = {"egress": [ALLOWED, SIBLING, *rules], "env": {"OWN": "${OWN}"}, "paths": {"read": [str(SERVERS), str(SERVERS.parent)]}}
    instance.mount("bypass-py", SERVERS / "bypass.py", **own)
    instance.mount("bypass-node", SERVERS / "bypass.mjs", **own)
    instance.mount("neighbour", SERVERS / "reach.py", env={"TOKEN": "${NEIGHBOUR}"}, egress=[ALLOWED, FOREIGN])
    assert instance.project("GET", "/engine").data["sandbox"] == "kernel"
    instance.call("neighbour__write", {"path": "mine.txt", "text": SECRET})
    kept = next(instance.home.rglob("mine.txt"))
    runtime = [path for path in Path("/tmp").glob("rootlink-*") if any(path.rglob("*.sock"))]
    sockets = [str(path) for one in runtime for path in one.rglob("*.sock")]
    files = [instance.home / name for name in ("admin-token", "vault/seal.key", "control/rootlink.db", "logs")]
    files += [kept, kept.parent, *runtime, Path(__file__), Path("/etc/shadow"), Path("/root/.bashrc"), folder / "canary.sock"]
    pids = [process.pid for process in instance.processes() if process.pid > 300]  # small ones exist inside as well
    return {
        **birds.ground(),
        "unix": [*birds.unix, *sockets],
        "mark": f"leak-{secrets.token_hex(6)}",
        "files": [str(path) for path in files],
        "pids": [*pids, psutil.Process().pid],
        "words": [SECRET, (instance.home / "admin-token").read_text().strip()],
        "allowed": ALLOWED,
        "sibling": SIBLING,
        "foreign": FOREIGN,
        "refused": REFUSED,
        "private": private,
        "patience": 3,
    }


# what must be on record after an attempt: (host, port), port 0 for a name that was only asked for

Wanted = Callable[[dict[str, Any]], set[tuple[str, int]]]


def _both(g: dict[str, Any]) -> set[tuple[str, int]]:
    return {(REFUSED, 0), (f"{g['mark']}.{REFUSED}", 0)}


def _tcp(g: dict[str, Any]) -> set[tuple[str, int]]:
    """Where `localhost` is the name that is allowed, loopback is told by it."""
    return {("localhost" if port == g["private"]["localhost"] else host, port) for host, port in g["tcp"]}


def _names(g: dict[str, Any]) -> set[tuple[str, int]]:
    asked = [f"evil{ALLOWED}", f"{ALLOWED}.{REFUSED}", "allowed.example", "com", "metadata.google.internal"]
    asked += ["host.docker.internal", "127.0.0.1.nip.io", REFUSED, FOREIGN, f"{g['mark']}.{REFUSED}"]
    return {(name, 0) for name in asked}


RECORDED: dict[str, Wanted] = {
    "001-020 names that look like an allowed one, asked of the resolver": _names,
    "018-043 private addresses behind allowed names": lambda g: {(host, port) for host, port in g["private"].items()},
    "060-066 DNS as a tunnel": _both,
    "064 a resolver of our own choice": _both,
    "065 DNS over TCP": lambda g: {(server, 53) for server in RESOLVERS},
    "067 DNS over HTTPS and TLS, by address": lambda g: {(server, port) for server in RESOLVERS for port in (443, 853)},
    "103 105 111 112 TCP straight to the host": _tcp,
    "053 057 068 105 TCP to other addresses, on ports nobody opened": lambda g: {
        (host, port)
        for host in ("203.0.113.9", "169.254.169.254", "2001:db8::9", "64:ff9b::cb00:7109")
        for port in (22, 25, 80, 443, 5432, 8443)
    },
    "104 UDP to the host": lambda g: {(host, port) for host, port in g["udp"] if port != 53},
    "104 QUIC": lambda g: {("203.0.113.9", 443), ("2001:db8::9", 443)},
    "021-035 068-073 097 CONNECT to what is refused": lambda g: {
        (REFUSED, 443),
        (FOREIGN, 443),
        (ALLOWED, 22),
        (ALLOWED, 25),
        *_tcp(g),
    },
    "031-034 036 092 absolute form to what is refused": lambda g: {
        (REFUSED, 80),
        (FOREIGN, 80),
        (ALLOWED, 8080),
        ("169.254.169.254", 80),
        *_tcp(g),
    },
    "021-059 URLs that two parsers read differently": lambda g: {g["tcp"][0], (REFUSED, 0)},
    "118 no proxy, or another's": lambda g: {(REFUSED, 0), (REFUSED, 443)},
    "103 105 111 112 TCP straight to the host, from Node": _tcp,
    "036-059 addresses in every spelling, with fetch": lambda g: {
        (host, g["tcp"][0][1]) for host in ("127.0.0.1", "169.254.169.254", "168.63.129.16", "100.64.0.1", "fd00:ec2::254")
    },
    "001-035 names and URLs that look like an allowed one, with fetch": lambda g: {
        (name, 0) for name in (f"evil{ALLOWED}", f"{ALLOWED}.{REFUSED}", REFUSED, FOREIGN)
    },
    "060-066 DNS as a tunnel, with Node's resolvers": lambda g: {(f"{g['mark']}.{REFUSED}", 0)},
    "104 UDP, with dgram": lambda g: {("203.0.113.9", 443), ("2001:db8::9", 443)},
    "093 a redirect to another host": lambda g: {(REFUSED, 0)},
    "118 helpers outside Node, without a proxy": lambda g: {g["tcp"][0], (REFUSED, 0), ("1.1.1.1", 443)},
}
REASONS: dict[str, set[str]] = {
    "074-091 102 HTTP that names or smuggles another host, on port 80": {"other_host", "protocol"},
    "094-098 101 TLS that names another host, or hides it, on port 443": {"other_host", "protocol"},
    "094-096 100 102 another host inside what is allowed": {"other_host"},
    "018-043 private addresses behind allowed names": {"private_address"},
    "120 a connection on 443 that says nothing": {"protocol"},
    "120 a connection that says little at a time": {"protocol"},
}


def connection_of(kind: str) -> str:
    return f"bypass-{kind}"


def records(scene: Scene, kind: str) -> list[dict[str, Any]]:
    return [row for row in scene.instance.denied() if row["connection"] == connection_of(kind)]


def test_every_canary_sings_when_it_is_touched(scene: Scene) -> None:
    assert scene.canary.sings() == []
    assert len(scene.canary.tcp) >= 2


@pytest.mark.parametrize(
    ("kind", "control"),
    [("py", "the control: what is allowed is reached"), ("node", "the control: what is allowed is reached, from Node")],
)
def test_what_is_allowed_is_reached(scene: Scene, kind: str, control: str) -> None:
    scene.arrived()
    tries = scene.attempt(kind, control)
    assert [one for one in tries if not one["got"].startswith("reached")] == []
    assert [seen.path for seen in scene.allowed.seen] == ["/fine"] * 2
    assert b"GET /fine HTTP/1.1" in scene.plain.everything
    assert scene.arrived() == []


@pytest.mark.parametrize(("kind", "item"), ITEMS, ids=[f"{kind}: {item}" for kind, item in ITEMS])
def test_nothing_gets_out_and_what_was_refused_is_on_record(scene: Scene, kind: str, item: str) -> None:
    scene.arrived()
    hostname = socket.gethostname()
    tries = scene.attempt(kind, item)
    assert tries, "nothing was tried"
    assert scene.arrived() == []
    assert [one for one in tries if one["out"]] == []
    assert (socket.gethostname(), list(Path("/usr/bin").glob("rootlink-was-here"))) == (hostname, [])
    wanted = RECORDED.get(item, lambda _: set())(scene.ground)

    def missing() -> set[tuple[str, int]]:
        return wanted - {(row["host"], row["port"]) for row in records(scene, kind)}

    eventually(lambda: not missing(), wait=5, what=f"a record of {sorted(missing())[:8]}")
    reasons = REASONS.get(item, set())
    eventually(lambda: reasons <= {row["reason"] for row in records(scene, kind)}, wait=5, what=f"a record for {reasons}")


def test_the_same_refusals_reach_the_command_line(scene: Scene) -> None:
    shown = scene.instance.cli("egress", "denied", "--json")
    rows = msgspec.json.decode(shown.encode())
    assert {"connection", "host", "port", "reason", "count", "time"} <= set(rows[0])
    assert REFUSED in shown


@pytest.mark.parametrize("item", FLOODS)
def test_a_flood_from_one_mount_costs_its_neighbour_nothing(scene: Scene, item: str) -> None:
    flooding = threading.Thread(target=lambda: scene.attempt("py", item, flood=3000, hold=6))
    flooding.start()
    try:
        for _ in range(5):
            said = scene.instance.call(
                "neighbour__curl", {"url": f"https://{ALLOWED}/while-flooded", "args": ["--max-time", "3"]}
            )
            assert not said["isError"], said
    finally:
        flooding.join(90)
    assert not flooding.is_alive()
    assert scene.canary.arrived == []


def test_after_all_of_it_what_is_allowed_is_still_reached(scene: Scene) -> None:
    assert not scene.instance.call("neighbour__curl", {"url": f"https://{ALLOWED}/after"})["isError"]
    tries = scene.attempt("py", "the control: what is allowed is reached")
    assert [one for one in tries if not one["got"].startswith("reached")] == []
