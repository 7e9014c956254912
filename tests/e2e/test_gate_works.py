"""What people mount works through the gate as it is: no proxy variable, nothing patched, only its own hosts reached."""

from __future__ import annotations

import importlib.util
import itertools
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.harness import node
from tests.harness.instance import KERNEL, SERVERS, Instance, closing, eventually
from tests.harness.standin import Authority, Seen, StandIn, speaker, standin, tap
from tests.store import postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
API, BRAVE, SLACK, PAGES, REFUSED = (
    "api.works.example",
    "api.search.brave.com",
    "slack.com",
    "pages.works.example",
    "refused.example",
)
BLOCKED = f"egress blocked: host '{REFUSED}' is not in this project's outbound allowlist"
BRAVE_KEY = "BSA_0123456789abcdef"
PAGE = b"""<!doctype html><title>The stand-in</title><h1>Reached through the gate</h1><p id=else>waiting</p>
<script>
fetch('https://refused.example/').then(() => 'reached', () => 'refused').then((word) => document.title = 'elsewhere: ' + word)
</script>"""
CHROMIUM = shutil.which("chromium")


def ticks() -> Iterator[bytes]:
    for number in itertools.count():
        yield f"tick {number}\n".encode()
        time.sleep(0.1)


def api(seen: Seen) -> tuple[int, Any]:
    return (200, ticks()) if seen.path == "/ticks" else (200, {"path": seen.path, "host": seen.headers["host"]})


def brave(seen: Seen) -> tuple[int, Any]:
    if seen.headers.get("x-subscription-token") != BRAVE_KEY:
        return 422, {"type": "ErrorResponse", "error": {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "bad key", "status": 422}}
    found = {"title": "The gate", "url": "https://found.example/", "description": "what was looked for", "type": "search_result"}
    return 200, {"type": "search", "query": {"original": "gate"}, "web": {"type": "search", "results": [found]}}


def slack(seen: Seen) -> tuple[int, Any]:
    who = {"url": "https://works.slack.com/", "team": "Works", "user": "bot", "team_id": "T1", "user_id": "U1", "bot_id": "B1"}
    if seen.path.startswith("/api/auth.test"):
        return 200, {"ok": True, **who}
    return 200, {"ok": True, "channels": [], "members": [], "messages": [], "response_metadata": {"next_cursor": ""}}


@pytest.fixture(scope="module")
def world(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StandIn]]:
    folder = tmp_path_factory.mktemp("works")
    with (
        standin(API, api, folder, authority) as one,
        standin(BRAVE, brave, folder, authority) as two,
        standin(SLACK, slack, folder, authority) as three,
        standin(PAGES, lambda _: (200, PAGE), folder, authority) as four,
    ):
        yield {API: one, BRAVE: two, SLACK: three, PAGES: four}


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    """A real PostgreSQL on a TCP port of loopback; the port."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.server() as server:
        path = str(next(Path(server.url("x").partition("host=")[2]).glob(".s.PGSQL.*[0-9]")))

        def connect() -> socket.socket:
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            return far

        with tap(connect) as port:
            yield port.port


@pytest.fixture(scope="module")
def instance(world: dict[str, StandIn], authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    node.ready()
    pins = [word for one in world.values() for word in one.pin]
    for up in closing(Instance(tmp_path_factory.mktemp("working") / "home", *KERNEL, *pins, *authority.flags)):
        up.allow(API, BRAVE, SLACK, PAGES)
        up.mount("reach", SERVERS / "reach.py", egress=[API])
        up.mount("nodes", SERVERS / "reach.mjs", str(node.HOME), egress=[API], paths={"read": [str(node.HOME)]})
        assert up.project("GET", "/engine").data["sandbox"] == "kernel"
        yield up


def text(said: Any) -> str:
    return str(said["content"][0]["text"])


def mount(instance: Instance, name: str, command: str, args: list[str], **members: Any) -> None:
    body = {"name": name, "transport": "stdio", "command": command, "args": args, "timeout_secs": 60, **members}
    answer = instance.engine("POST", "/mcp-servers", body)
    assert answer.status == 201, answer.body


CLIENTS = {
    "curl": ("reach__curl", "Could not resolve host"),
    "Python's requests": ("reach__requests", "resol"),
    "Python's urllib": ("reach__get", "not known"),
    "Node's fetch": ("nodes__fetch", "ENOTFOUND"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_reaches_its_host_and_no_other(instance: Instance, world: dict[str, StandIn], client: str) -> None:
    if client == "Python's requests" and importlib.util.find_spec("requests") is None:
        pytest.skip("requests is not installed (the test group of pyproject.toml)")
    tool, refused = CLIENTS[client]
    path = f"/by-{tool}"
    reached = instance.call(tool, {"url": f"https://{API}{path}"})
    assert not reached["isError"], reached
    assert path in text(reached)
    assert world[API].seen[-1].path == path
    away = instance.call(tool, {"url": f"https://{REFUSED}/"})
    assert away["isError"]
    said = " ".join(part.get("text", "") for part in away["content"])
    assert refused in said
    assert BLOCKED in said
    assert "rootlink egress allow" in said, "how to allow it"


def test_a_client_that_insists_on_a_proxy_finds_one(instance: Instance, world: dict[str, StandIn]) -> None:
    through = ["-x", "http://127.0.0.1:3128"]
    assert "/proxied" in text(instance.call("reach__curl", {"url": f"https://{API}/proxied", "args": through}))
    away = instance.call("reach__curl", {"url": f"https://{REFUSED}/", "args": through})
    assert away["isError"]
    assert any(row["host"] == REFUSED and row["port"] == 443 for row in instance.denied())


@pytest.mark.parametrize("tool", ["nodes__socket", "nodes__wsocket"])
def test_a_websocket_over_tls_works(instance: Instance, tool: str) -> None:
    assert text(instance.call(tool, {"url": f"wss://{API}/socket", "text": "hello there"})) == "hello there"
    away = instance.call(tool, {"url": f"wss://{REFUSED}/socket", "text": "hello"})
    assert away["isError"]


def test_a_large_answer_arrives_whole(instance: Instance, world: dict[str, StandIn]) -> None:
    size = 32 << 20
    world[API].answer, before = (lambda _: (200, bytes(size))), world[API].answer
    try:
        said = instance.call(
            "reach__curl", {"url": f"https://{API}/large", "args": ["-o", "/dev/null", "-w", "%{size_download}"]}
        )
    finally:
        world[API].answer = before
    assert text(said) == str(size)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Instance]:
    private = ("--allow-private", "127.0.0.0/8", "--allow-private", "::1/128")
    yield from closing(Instance(tmp_path / "home", *KERNEL, *private))


def test_a_private_address_is_reached_once_the_operator_opens_it(opened: Instance) -> None:
    """What the hostile mount's attempts at the same addresses are held against."""
    with speaker(lambda line: b"heard " + line) as here, speaker(lambda line: b"heard " + line) as closed:
        opened.allow(f"127.0.0.1:{here.port}", f"localhost:{closed.port}")
        opened.mount("all", SERVERS / "reach.py")
        opened.mount("none", SERVERS / "reach.py", egress=[])
        asked = {"host": "127.0.0.1", "port": here.port, "text": "a line"}
        assert text(opened.call("all__say", asked)) == "heard a line"
        assert text(opened.call("all__say", {**asked, "host": "localhost", "port": closed.port})) == "heard a line"
        assert opened.call("none__say", asked)["isError"]
        assert opened.call("all__say", {**asked, "host": "127.0.0.2"})["isError"]
        assert len(here.arrived) == 1


@pytest.fixture
def with_database(database: int, tmp_path: Path) -> Iterator[Instance]:
    node.ready()
    pins = [word for port in (5432, 5433) for word in ("--resolve", f"db.example:{port}=127.0.0.1:{database}")]
    yield from closing(Instance(tmp_path / "home", *KERNEL, *pins))


def test_pg_queries_a_real_postgresql_over_tcp(with_database: Instance) -> None:
    instance = with_database
    instance.allow("db.example:5432")
    instance.mount("pg", SERVERS / "reach.mjs", str(node.HOME), paths={"read": [str(node.HOME)]})
    ask = {"url": "postgresql://rootlink@db.example:5432/postgres", "sql": "select 6 * 7 as answer, version()"}
    rows = msgspec.json.decode(text(instance.call("pg__query", ask)))
    assert (rows[0]["answer"], rows[0]["version"][:10]) == (42, "PostgreSQL")
    closed = instance.call("pg__query", {**ask, "url": "postgresql://rootlink@db.example:5433/postgres"})
    assert closed["isError"]
    eventually(lambda: ("db.example", 5433) in {(r["host"], r["port"]) for r in instance.denied()}, what="the record")
    instance.allow("db.example:5433")  # a port that no listener was opened for when the mount was started
    again = {**ask, "url": "postgresql://rootlink@db.example:5433/postgres"}
    eventually(lambda: "42" in text(instance.call("pg__query", again)), wait=5, what="the new port")


def test_memory_filesystem_and_everything_work(instance: Instance) -> None:
    for connector in ("memory", "filesystem"):
        instance.connect(connector)
    entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    instance.call("memory__create_entities", {"entities": [entity]})
    assert "Ada" in str(instance.call("memory__read_graph"))
    files = Path(instance.project("GET", "/engine").data["files"])
    (files / "hello.txt").write_text("good morning")
    assert "good morning" in str(instance.call("filesystem__read_text_file", {"path": str(files / "hello.txt")}))
    assert not instance.call("filesystem__write_file", {"path": str(files / "new.txt"), "content": "written inside"}).get(
        "isError"
    )
    assert (files / "new.txt").read_text() == "written inside"
    mount(instance, "everything", "node", [node.EVERYTHING], paths={"read": [str(node.HOME)]}, egress=[])
    assert "hello" in text(instance.call("everything__echo", {"message": "hello"}))
    assert "8" in text(instance.call("everything__get-sum", {"a": 3, "b": 5}))


def test_the_brave_server_searches_with_its_sealed_key(instance: Instance, world: dict[str, StandIn]) -> None:
    instance.project("POST", "/secrets", {"name": "BRAVE_API_KEY", "plaintext": BRAVE_KEY})
    env = {"BRAVE_API_KEY": "${BRAVE_API_KEY}", "BRAVE_MCP_ENABLED_TOOLS": "brave_web_search"}
    mount(instance, "brave", "npx", ["-y", "@brave/brave-search-mcp-server@2.1.4"], env=env, egress=[BRAVE])
    found = instance.call("brave__brave_web_search", {"query": "gate"})
    assert "found.example" in str(found), found
    assert world[BRAVE].seen[-1].headers["x-subscription-token"] == BRAVE_KEY
    assert instance.secret_is_nowhere(BRAVE_KEY) == []
    instance.project("DELETE", f"/egress/{BRAVE}")
    away = instance.call("brave__brave_web_search", {"query": "gate"})
    said = str(away["content"])
    assert f"egress blocked: host '{BRAVE}' is not in this project's outbound allowlist" in said
    instance.allow(BRAVE)
    eventually(lambda: "found.example" in str(instance.call("brave__brave_web_search", {"query": "gate"})), what="it again")


@pytest.mark.skipif(
    (platform.machine(), platform.system()) != ("x86_64", "Linux"), reason="the Go server's binary in the lock is for x86-64"
)
def test_a_go_binary_works(instance: Instance, world: dict[str, StandIn]) -> None:
    """A real one: the Slack server, statically linked, with Go's own resolver and TLS; it asks `auth.test` before it serves."""
    instance.project("POST", "/secrets", {"name": "SLACK_TOKEN", "plaintext": "xoxb-0-of-the-tests"})
    env = {"SLACK_MCP_XOXB_TOKEN": "${SLACK_TOKEN}", "SLACK_MCP_LOG_LEVEL": "debug"}
    binary = node.GO_SERVER
    mount(
        instance,
        "go",
        str(binary),
        ["--transport", "stdio", "--no-cache"],
        env=env,
        egress=[SLACK],
        paths={"read": [str(node.HOME)]},
    )
    assert [seen.path for seen in world[SLACK].seen if seen.path.startswith("/api/auth.test")]
    assert any(tool.startswith("go__") for tool in instance.tools())


@pytest.fixture(scope="module")
def browser(instance: Instance) -> Instance:
    if CHROMIUM is None:
        pytest.skip("no chromium (apt-get install chromium)")
    flags = ["--headless", "--isolated", "--no-sandbox", "--executable-path", CHROMIUM]
    members = {"egress": [PAGES], "paths": {"read": [str(node.HOME)]}, "env": {"PLAYWRIGHT_MCP_OUTPUT_DIR": "/tmp/out"}}
    mount(instance, "browser", "node", [node.PLAYWRIGHT, *flags], **members)
    return instance


def test_chromium_is_told_one_host_and_reaches_that_one(browser: Instance, world: dict[str, StandIn]) -> None:
    seen = browser.call("browser__browser_navigate", {"url": f"https://{PAGES}/start"})
    assert not seen.get("isError"), text(seen)[-2000:]
    assert "/start" in [one.path for one in world[PAGES].seen]
    snapshot = browser.call("browser__browser_snapshot")
    assert "Reached through the gate" in str(snapshot), snapshot

    def title() -> str:
        return str(browser.call("browser__browser_evaluate", {"function": "() => document.title"}))

    eventually(lambda: "elsewhere: refused" in title(), what="the page's own fetch of another host")
    away = browser.call("browser__browser_navigate", {"url": f"https://{REFUSED}/"})
    assert away["isError"]
    assert any(error in str(away) for error in ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED"))
    assert BLOCKED in str(away["content"])
    literal = browser.call("browser__browser_navigate", {"url": "https://203.0.113.9/"})
    assert literal["isError"]
    eventually(
        lambda: (
            {(REFUSED, 0), ("203.0.113.9", 443)}
            <= {(r["host"], r["port"]) for r in browser.denied() if r["connection"] == "browser"}
        ),
        what="the records",
    )


def test_no_mount_had_a_proxy_variable(instance: Instance) -> None:
    environment = msgspec.json.decode(text(instance.call("reach__env")))
    assert [name for name in environment if name.lower().endswith("_proxy")] == []
    assert {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} <= set(environment)
    assert environment.get("HOME") != str(Path.home())
