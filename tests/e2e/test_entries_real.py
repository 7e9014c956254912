"""The catalogue's connectors that need no account, with the real programs in the kernel tier: connected as a user would, every
tool used for what it is for, and disconnected with nothing left."""

from __future__ import annotations

import http.client
import itertools
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import psycopg
import pytest

from rootlink import catalog
from tests.harness.instance import KERNEL, Instance, closing, eventually
from tests.harness.standin import tap
from tests.store import postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
CHROMIUM = shutil.which("chromium")
PASSWORD = "a-password-of-the-tests"
PAGE = """<!doctype html><title>The shop</title><h1>Order here</h1>
<label>Name <input id=name></label>
<label>Cake <select id=cake><option>apple<option>plum</select></label>
<label>Gift <input id=gift type=checkbox></label>
<input id=file type=file aria-label="A file">
<button id=buy onclick="said.textContent = [document.all.name.value, cake.value, gift.checked].join(' ')">Buy</button>
<button id=ask onclick="said.textContent = 'sure: ' + confirm('Sure?')">Ask</button>
<p id=said>nothing yet</p>
<p id=over onmouseover="this.textContent = 'pointed at'">point here</p>
<div id=from draggable=true ondragstart="event.dataTransfer.setData('text/plain', 'plum')">a plum</div>
<div id=to style="min-height:2em" ondragover="event.preventDefault()"
 ondrop="event.preventDefault(); this.textContent = 'got ' + event.dataTransfer.getData('text/plain')">put it here</div>
<p id=wide></p><p id=dark></p><a href="/second.html">on</a>
<script>
console.log('a word of the page')
document.addEventListener('keydown', event => { if (event.key === 'F2') said.textContent = 'pressed F2' })
file.onchange = () => said.textContent = 'file: ' + file.files[0].name
const scheme = matchMedia('(prefers-color-scheme: dark)')
const look = () => { wide.textContent = 'width ' + innerWidth; dark.textContent = scheme.matches }
look(); addEventListener('resize', look); scheme.onchange = look
</script>"""


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[postgres.Server, int]]:
    """A real PostgreSQL on a TCP port of loopback, with a shop, a role that may read it and one that may write."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.server() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("create database shop")
            connection.execute(f"create role ro login password '{PASSWORD}'")
            connection.execute(f"create role rw login password '{PASSWORD}'")
        with psycopg.connect(server.url("shop"), autocommit=True) as connection:
            connection.execute("create table orders (id serial primary key, what text)")
            connection.execute("insert into orders (what) values ('tea'), ('cake')")
            connection.execute("grant select on orders to ro")
            connection.execute("grant all on orders, orders_id_seq to rw")
        path = str(next(Path(server.url("x").partition("host=")[2]).glob(".s.PGSQL.*[0-9]")))
        with tap(partial(_to, path)) as port:
            yield server, port.port


def _to(path: str) -> socket.socket:
    far = socket.socket(socket.AF_UNIX)
    far.connect(path)
    return far


@pytest.fixture(scope="module")
def instance(database: tuple[postgres.Server, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    pins = ["--resolve", f"db.example:5432=127.0.0.1:{database[1]}", "--allow-private", "127.0.0.0/8"]
    for up in closing(Instance(tmp_path_factory.mktemp("entries") / "home", *KERNEL, *pins)):
        assert up.project("GET", "/engine").data["sandbox"] == "kernel"
        yield up


class Used:
    """A connection whose tools are called by their own names, and which remembers which ones were."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.instance, self.name, self.tools = instance, name, set[str]()

    def __call__(self, tool: str, **arguments: Any) -> str:
        """What it said; it must have worked."""
        said = self.instance.call(f"{self.name}__{tool}", arguments)
        assert not said.get("isError"), said
        self.tools.add(tool)
        return "\n".join(part.get("text", part["type"]) for part in said["content"])

    def refused(self, tool: str, **arguments: Any) -> str:
        said = self.instance.call(f"{self.name}__{tool}", arguments)
        assert said["isError"], said
        return "\n".join(part.get("text", "") for part in said["content"])

    def json(self, tool: str, **arguments: Any) -> Any:
        return msgspec.json.decode(self(tool, **arguments))


@contextmanager
def connected(instance: Instance, connector: str, name: str | None = None, **body: Any) -> Iterator[Used]:
    """Connected as a user would; every tool that is on must be used inside; disconnected, and nothing of it is left."""
    name = name or connector
    before = instance.project("GET", "/secrets").data, instance.project("GET", "/egress").data
    made = instance.connect(connector, name=name, **body)
    assert [step["state"] for step in made["steps"]] == ["done"] * len(made["steps"])
    used = Used(instance, name)
    yield used
    entry = catalog.load().get(connector).variant(body.get("variant"))
    assert used.tools == {tool["name"] for tool in entry.tools}
    assert instance.project("DELETE", f"/connections/{name}").status in (200, 204)
    assert not [tool for tool in instance.tools() if tool.startswith(f"{name}__")]
    assert name not in [one["name"] for one in instance.project("GET", "/connections").data]
    assert (instance.project("GET", "/secrets").data, instance.project("GET", "/egress").data) == before
    assert not list(instance.home.glob(f"projects/*/engine/mounts/main/{name}"))
    eventually(lambda: not running(instance, name), what=f"the end of every process of {name}")


def running(instance: Instance, name: str) -> list[str]:
    """Command lines that name the connection's own folder, or a browser of its."""
    found = []
    for process in instance.processes():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if f"/mounts/main/{name}" in line or (name in ("browser", "puppets") and "chromium" in line):
                found.append(line)
    return found


def test_filesystem(instance: Instance) -> None:
    files = Path(instance.project("GET", "/engine").data["files"])
    with connected(instance, "filesystem") as use:
        assert str(files) in use("list_allowed_directories")
        use("create_directory", path=f"{files}/notes")
        use("write_file", path=f"{files}/notes/a.txt", content="one\ntwo\nthree\n")
        assert (files / "notes" / "a.txt").read_text() == "one\ntwo\nthree\n"
        use("edit_file", path=f"{files}/notes/a.txt", edits=[{"oldText": "two", "newText": "zwei"}])
        assert use("read_text_file", path=f"{files}/notes/a.txt", head=2).split() == ["one", "zwei"]
        assert use("read_file", path=f"{files}/notes/a.txt", tail=2).strip() == "three"
        use("move_file", source=f"{files}/notes/a.txt", destination=f"{files}/notes/b.txt")
        assert "zwei" in use("read_multiple_files", paths=[f"{files}/notes/b.txt", f"{files}/notes/none.txt"])
        assert "b.txt" in use("list_directory", path=f"{files}/notes")
        assert "b.txt" in use("list_directory_with_sizes", path=f"{files}/notes")
        assert "b.txt" in use("directory_tree", path=str(files))
        assert "b.txt" in use("search_files", path=str(files), pattern="**/b.*")
        assert "size: 15" in use("get_file_info", path=f"{files}/notes/b.txt")
        (files / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        assert "image" in use("read_media_file", path=f"{files}/dot.png")
        assert "Access denied" in use.refused("read_text_file", path="/etc/passwd")
        assert "Access denied" in use.refused("write_file", path=f"{files}/../out.txt", content="x")
    assert (files / "notes" / "b.txt").exists(), "what a person wrote is the project's, not the connection's"


def test_memory_remembers_and_forgets(instance: Instance) -> None:
    ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    link = {"from": "Ada", "to": "Engine", "relationType": "works on"}
    with connected(instance, "memory") as use:
        use("create_entities", entities=[ada, {"name": "Engine", "entityType": "machine", "observations": []}])
        use("create_relations", relations=[link])
        use("add_observations", observations=[{"entityName": "Ada", "contents": ["plays whist"]}])
        assert "whist" in use("search_nodes", query="whist")
        assert "works on" in use("open_nodes", names=["Ada", "Engine"])
        use("delete_observations", deletions=[{"entityName": "Ada", "observations": ["plays whist"]}])
        use("delete_relations", relations=[link])
        use("delete_entities", entityNames=["Engine"])
        graph = use.json("read_graph")
        assert (graph["entities"][0]["observations"], len(graph["entities"]), graph["relations"]) == (["writes programs"], 1, [])
        with ThreadPoolExecutor(30) as pool:
            new = [{"name": f"of {number}", "entityType": "thing", "observations": []} for number in range(30)]
            assert len(list(pool.map(lambda entity: use("create_entities", entities=[entity]), new))) == 30
        [file] = instance.home.glob("projects/*/engine/mounts/main/memory/memory.jsonl")
        kept = {msgspec.json.decode(line).get("name") for line in file.read_bytes().splitlines()}
        assert {f"of {number}" for number in range(30)} <= kept


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text(PAGE)
    (folder / "second.html").write_text("<!doctype html><title>Second</title><h1>The second page</h1>")
    handler: Any = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)")
def test_browser(instance: Instance, pages: int) -> None:
    home, sites = f"http://127.0.0.1:{pages}/", [f"http://127.0.0.1:{pages}/"]
    with connected(instance, "browser", inputs={"SITES": sites, "chromium": CHROMIUM}) as use:
        assert f"127.0.0.1:{pages}" in [rule["domain"] for rule in instance.project("GET", "/egress").data]
        use("browser_navigate", url=home)
        assert "Order here" in use("browser_snapshot")
        assert "Order here" in use("browser_find", text="Order")
        use("browser_type", target="#name", text="Ada")
        use("browser_select_option", target="#cake", values=["plum"])
        use("browser_fill_form", fields=[{"target": "#gift", "name": "Gift", "type": "checkbox", "value": "true"}])
        use("browser_click", target="#buy")
        use("browser_wait_for", text="Ada plum true")
        use("browser_hover", target="#over")
        assert "pointed at" in use("browser_snapshot")
        use("browser_press_key", key="F2")
        assert "pressed F2" in use("browser_snapshot")
        use("browser_drag", startTarget="#from", endTarget="#to")
        assert "got plum" in use("browser_snapshot")
        use("browser_drop", target="#to", data={"text/plain": "pear"})
        assert "got pear" in use("browser_snapshot")
        use("browser_resize", width=777, height=555)
        assert "width 777" in use("browser_snapshot")
        use("browser_emulate_media", colorScheme="dark")
        assert "true" in use("browser_snapshot", target="#dark")
        assert "dialog" in use("browser_click", target="#ask").lower()
        use("browser_handle_dialog", accept=True)
        assert "sure: true" in use("browser_snapshot")
        assert "a word of the page" in use("browser_console_messages", level="debug")
        assert home in use("browser_network_requests", static=True)
        assert "200" in use("browser_network_request", index=1)
        assert "image" in use("browser_take_screenshot", scale="css")
        [folder] = instance.home.glob("projects/*/engine/mounts/main/browser")
        (folder / "cake.txt").write_text("plum")
        assert "chooser" in use("browser_click", target="#file").lower()
        use("browser_file_upload", paths=[str(folder / "cake.txt")])
        assert "file: cake.txt" in use("browser_snapshot")
        use("browser_navigate", url=f"{home}second.html")
        use("browser_navigate_back")
        assert "The shop" in use("browser_tabs", action="list")
        away = use.refused("browser_navigate", url="https://refused.example/")
        assert "egress blocked: host 'refused.example'" in away
        assert "blocked" in use.refused("browser_navigate", url="file:///etc/passwd")
        # the error page of a refused address is a navigation of its own, which may still be under way
        eventually(lambda: not instance.call("browser__browser_navigate", {"url": home}).get("isError"), what="the way back")
        for tool, arguments in (
            ("browser_evaluate", {"function": "() => document.title"}),
            ("browser_run_code_unsafe", {"code": "async page => page.title()"}),
        ):
            off = instance.engine("POST", f"/tools/browser__{tool}/call", {"arguments": arguments})
            assert (off.status, off.code) == (403, "forbidden"), "off until a person says otherwise"
            assert f"browser__{tool}" not in instance.tools()
            assert instance.project("PUT", f"/connections/browser/tools/{tool}", {"mode": "allow"}).status == 200
            assert "The shop" in use(tool, **arguments)
        use("browser_close")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)")
def test_the_archived_browser_server(instance: Instance, pages: int) -> None:
    home, inputs = f"http://127.0.0.1:{pages}/", {"SITES": [f"127.0.0.1:{pages}"], "chromium": CHROMIUM}
    with connected(instance, "browser", "puppets", variant="puppeteer", inputs=inputs) as use:
        allowed = instance.project("PUT", "/connections/puppets/tools/puppeteer_evaluate", {"mode": "allow"})
        assert allowed.status == 200
        use("puppeteer_navigate", url=home)
        use("puppeteer_fill", selector="#name", value="Ada")
        use("puppeteer_select", selector="#cake", value="plum")
        use("puppeteer_hover", selector="#over")
        use("puppeteer_click", selector="#buy")
        assert "Ada plum false" in use("puppeteer_evaluate", script="document.querySelector('#said').textContent")
        assert "image" in use("puppeteer_screenshot", name="the shop")


READS = "select what from orders order by id"
WRITES = [
    "insert into orders (what) values ('x')",
    "COMMIT; insert into orders (what) values ('x'); select 1",
    "with a as (insert into orders (what) values ('x') returning *) select * from a",
    "select 1; delete from orders",
    "explain analyze delete from orders",
    "set transaction read write; delete from orders",
    "do $$ begin delete from orders; end $$",
    "create table mine (id int)",
    "select setval('orders_id_seq', 99)",
]


def orders(server: postgres.Server) -> list[str]:
    with psycopg.connect(server.url("shop")) as connection:
        return [row[0] for row in connection.execute(READS).fetchall()]


@pytest.mark.parametrize("role", ["ro", "rw"])
def test_postgres_reads_and_writes_nothing_whatever_the_role(
    instance: Instance, database: tuple[postgres.Server, int], role: str
) -> None:
    dsn = f"postgresql://{role}:{PASSWORD}@db.example/shop?application_name=rootlink"
    with connected(instance, "postgres", f"shop-{role}", secrets={"PG_DSN": dsn}) as use:
        shown = instance.project("GET", f"/connections/shop-{role}").data
        assert shown["label"] == f"{role}@shop"
        assert ["This role can write" in note for note in shown["notes"]] == ([] if role == "ro" else [True])
        rows = use.json("execute_sql", sql=READS)["data"]["statements"][0]["rows"]
        assert rows == [{"what": "tea"}, {"what": "cake"}]
        assert "orders" in use("search_objects", object_type="table", pattern="%")
        for sql in WRITES:
            assert use.refused("execute_sql", sql=sql), sql
        assert orders(database[0]) == ["tea", "cake"]
        assert not [process for process in instance.processes() if PASSWORD in " ".join(process.cmdline())]
        assert instance.secret_is_nowhere(PASSWORD) == []


def test_what_postgres_says_of_a_wrong_role_or_place_comes_out_and_nothing_is_kept(instance: Instance) -> None:
    before = instance.project("GET", "/secrets").data, instance.project("GET", "/egress").data
    tried = {
        f"postgresql://nobody:{PASSWORD}@db.example/shop": ('role "nobody" does not exist', "upstream_failed"),
        f"postgresql://ro:{PASSWORD}@db.example/none": ('database "none" does not exist', "upstream_failed"),
        f"postgresql://ro:{PASSWORD}@127.0.0.1:1/shop": ("Nothing answers at 127.0.0.1:1", "upstream_failed"),
        f"postgresql://ro:{PASSWORD}@one.example,two.example/shop": ("names several hosts", "invalid"),
        f"postgresql://ro:{PASSWORD}@/shop?host=/var/run/postgresql": ("names a unix socket", "invalid"),
        f"mysql://ro:{PASSWORD}@db.example/shop": ("has not the right form", "invalid"),
    }
    for dsn, (says, code) in tried.items():
        refused = instance.project("POST", "/connections", {"connector": "postgres", "secrets": {"PG_DSN": dsn}})
        assert says in refused.message
        assert refused.code == code
        assert PASSWORD not in refused.message
    assert (instance.project("GET", "/secrets").data, instance.project("GET", "/egress").data) == before
    assert not [one for one in instance.project("GET", "/connections").data if one["connector"] == "postgres"]


def test_the_archived_postgres_server_writes_nothing_with_a_role_that_can_only_read(
    instance: Instance, database: tuple[postgres.Server, int]
) -> None:
    given = {"inputs": {"DATABASE_URL": "postgresql://ro@db.example/shop"}, "secrets": {"PGPASSWORD": PASSWORD}}
    with connected(instance, "postgres", "old-shop", variant="legacy", **given) as use:
        assert instance.project("GET", "/connections/old-shop").data["label"] == "ro@shop"
        assert "cake" in use("query", sql=READS)
        for sql in WRITES[:3]:
            instance.engine("POST", "/tools/old-shop__query/call", {"arguments": {"sql": sql}})
        assert orders(database[0]) == ["tea", "cake"]


WARM: dict[str, dict[str, Any]] = {
    "memory": {},
    "filesystem": {},
    "browser": {"inputs": {"SITES": ["127.0.0.1:8000"]}},
    "postgres": {"secrets": {"PG_DSN": f"postgresql://ro:{PASSWORD}@db.example/shop"}},
}


@pytest.fixture(scope="module")
def without_registry(
    instance: Instance, database: tuple[postgres.Server, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """Its packages are in the store, since `instance` uses the same one; whatever it asked of a registry would fail."""
    for name, body in WARM.items():
        if name != "browser" or CHROMIUM:
            instance.connect(name, name=f"warming-{name}", **body)
            assert instance.project("DELETE", f"/connections/warming-{name}").status in (200, 204)
    pins = ["--resolve", f"db.example:5432=127.0.0.1:{database[1]}", "--allow-private", "127.0.0.0/8"]
    nowhere = {"npm_config_registry": "http://127.0.0.1:1/", "npm_config_fetch_retries": "0"}
    yield from closing(Instance(tmp_path_factory.mktemp("warm") / "home", *KERNEL, *pins, environ=nowhere))


@pytest.mark.parametrize("name", WARM)
def test_a_warm_connect_installs_nothing_and_asks_no_registry(without_registry: Instance, name: str) -> None:
    if name == "browser" and CHROMIUM is None:
        pytest.skip("no chromium (apt-get install chromium)")
    told = [step["detail"] for _, step in events(without_registry, name, **WARM[name]) if "detail" in step]
    assert any(detail.endswith(": from the store") for detail in told)
    assert not [detail for detail in told if detail.startswith("installing")]
    assert without_registry.project("DELETE", f"/connections/{name}").status in (200, 204)


def test_a_cold_connect_says_all_along_what_it_does(tmp_path: Path) -> None:
    for cold in closing(Instance(tmp_path / "home", *KERNEL, environ={"ROOTLINK_PACKAGE_STORE": str(tmp_path / "store")})):
        cold.key  # noqa: B018  # the engine's own start is not what is looked at
        cold.tools()
        told = list(events(cold, "filesystem"))
        details = [step["detail"] for _, step in told if "detail" in step]
        assert any(detail.startswith("installing 107 packages of @modelcontextprotocol/server-filesystem@") for detail in details)
        assert "starting filesystem" in details
        assert told[-1][1]["state"] == "connected"
        times = [when for when, _ in told]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 5, "said every second, and some"


def events(instance: Instance, connector: str, **body: Any) -> Iterator[tuple[float, dict[str, Any]]]:
    """What is told of a connect, with when it came."""
    at = urlsplit(instance.api)
    token = (instance.home / "admin-token").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream", "content-type": "application/json"}
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=120)
    try:
        asked = msgspec.json.encode({"connector": connector, **body})
        connection.request("POST", "/v1/projects/default/connections", asked, headers)
        for line in connection.getresponse():
            if line.startswith(b"data:"):
                yield time.monotonic(), msgspec.json.decode(line[5:])
    finally:
        connection.close()
