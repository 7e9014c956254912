"""What a server says is what its client hears: asked directly and through a real Rootlink, and held against each other.

The server (`tests/fixtures/servers/oddities.py`) answers with every member the schemas allow, members nobody knows, and values
that are easily spoilt: numbers beyond a double, `1.10`, lone surrogates, empty names, deep nesting. Client and server speak the
same era, so there is nothing to translate: every difference that `ALLOWED` does not name is a fault of ours. Numbers are compared
as they are spelt.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from tests.harness.instance import SERVERS, Instance, closing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

SCRIPT = SERVERS / "oddities.py"
META = "io.modelcontextprotocol/"
VERSIONS = {"session": "2025-11-25", "stateless": "2026-07-28"}
MOUNTS = [f"{era}_{transport}" for era in VERSIONS for transport in ("stdio", "http")]
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}

# where an answer through Rootlink may differ from the server's own → why
ALLOWED = {
    r"\.result\.(tools|prompts)\[\d+\]\.name": "names are public ones: the mount's, and the server's behind it",
    r"\.result\._meta\.io\.modelcontextprotocol/serverInfo": "the server a client talks to is Rootlink",
    r"\.result\._meta": "… and where the server's answer had no _meta, that is the only member of ours",
    r"\.result\.(ttlMs|cacheScope)": "2026-07-28 requires them: a server that leaves them out gets the shortest",
}

CASES = [
    *(
        "content",
        "nothing",
        "long numbers",
        "structured",
        "structured null",
        "structured list",
        "structured number",
        "structured text",
    ),
    *("structured false", "error in words", "unknown members", "deep", "wide", "long", "no content", "spaced"),
    *("error", "error without data", "error with null", "error with text", "error of the server's own"),
]

Frames = list[Any]


class Way(Protocol):
    """To the server: directly, or through Rootlink. `send` gives all messages a request is answered with."""

    def send(self, method: str, params: dict[str, Any]) -> Frames: ...


def read(text: bytes | str) -> Any:
    """JSON, with numbers as they are spelt."""

    def spelt(number: str) -> str:
        return f"number {number}"

    return json.loads(text, parse_int=spelt, parse_float=spelt, parse_constant=spelt)


@dataclass
class Posts:
    """Streamable HTTP, by hand. `headers` are more of them."""

    url: str
    era: str
    headers: dict[str, str] = field(default_factory=dict)
    session: str | None = None

    def open(self) -> Posts:
        if self.era == "session":
            info = {"name": "t", "version": "1"}
            self.send("initialize", {"protocolVersion": VERSIONS["session"], "capabilities": {}, "clientInfo": info})
            self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, {})
        return self

    def send(self, method: str, params: dict[str, Any]) -> Frames:
        more: dict[str, str] = {}
        if self.era == "stateless":
            meta = {f"{META}protocolVersion": VERSIONS["stateless"], f"{META}clientCapabilities": {}, **params.get("_meta", {})}
            params = {**params, "_meta": meta}
            more["mcp-method"] = method
            if method in NAMED:
                more["mcp-name"] = params[NAMED[method]] if params[NAMED[method]].isascii() else encoded(params[NAMED[method]])
        return self._post({"jsonrpc": "2.0", "id": "a-1", "method": method, "params": params}, more)

    def _post(self, message: Any, more: dict[str, str]) -> Frames:
        split = urlsplit(self.url)
        connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=20)
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", **self.headers, **more}
        if self.session is not None:
            sent["mcp-session-id"] = self.session
        if self.era == "stateless" or self.session is not None:
            sent["mcp-protocol-version"] = VERSIONS[self.era]
        try:
            connection.request("POST", split.path, json.dumps(message).encode(), sent)
            answer = connection.getresponse()
            self.session = answer.getheader("mcp-session-id") or self.session
            body = answer.read()
            if (answer.getheader("content-type") or "").startswith("text/event-stream"):
                return list(events(body))
            return [read(body)] if body else []
        finally:
            connection.close()


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def events(body: bytes) -> Iterator[Any]:
    """The messages of an event stream, read as the standard says."""
    for block in re.split(rb"\r\n\r\n|\n\n|\r\r", body):
        lines = [line for line in re.split(rb"\r\n|\n|\r", block) if line.startswith(b"data:")]
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
        if data:
            yield read(data)


@dataclass
class Lines:
    """The server's own stdin and stdout."""

    process: subprocess.Popen[bytes]
    era: str

    def send(self, method: str, params: dict[str, Any]) -> Frames:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.era == "stateless":
            meta = {f"{META}protocolVersion": VERSIONS["stateless"], f"{META}clientCapabilities": {}, **params.get("_meta", {})}
            params = {**params, "_meta": meta}
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": "a-1", "method": method, "params": params}).encode() + b"\n")
        self.process.stdin.flush()
        frames: Frames = []
        while not frames or "method" in frames[-1]:
            frames.append(read(self.process.stdout.readline()))
        return frames


@dataclass
class Pair:
    mount: str
    direct: Way
    through: Way

    def public(self, name: str) -> str:
        return f"{self.mount}__{name}"

    def differences(self, method: str, params: dict[str, Any]) -> list[str]:
        ours = {**params, "name": self.public(params["name"])} if method in ("tools/call", "prompts/get") else params
        if method == "completion/complete" and params["ref"]["type"] == "ref/prompt":
            ours = {**params, "ref": {**params["ref"], "name": self.public(params["ref"]["name"])}}
        direct, through = self.direct.send(method, params), self.through.send(method, ours)
        if method in LISTS:
            through = [self._own(LISTS[method], frame) for frame in through]
        assert "result" in direct[-1] or "error" in direct[-1]
        if method in LISTS:
            direct, through = valued(direct), valued(through)
        return [line for line in compare(direct, through) if not allowed(line)]

    def _own(self, member: str, frame: Any) -> Any:
        """A list of all mounts, without what is not this one's."""
        mine = [entry for entry in frame["result"][member] if self._is_mine(entry)]
        return {**frame, "result": {**frame["result"], member: mine}}

    def _is_mine(self, entry: Any) -> bool:
        uri = entry.get("uri", entry.get("uriTemplate"))
        return f"//{self.mount}/" in uri if uri is not None else entry["name"].startswith(self.public(""))


def valued(value: Any) -> Any:
    """Lists are read, merged and written anew: a number keeps its value there, not its spelling."""
    if isinstance(value, dict):
        return {key: valued(member) for key, member in value.items()}
    if isinstance(value, list):
        return [valued(member) for member in value]
    number = re.fullmatch(r"number (-?[0-9]+|.*)", value) if isinstance(value, str) else None
    if number is None:
        return value
    return f"number {int(number[1]) if re.fullmatch(r'-?[0-9]+', number[1]) else float(number[1])}"


def compare(direct: Any, through: Any, path: str = "") -> Iterator[str]:
    """Every place where the two differ, as `path: this → that`."""
    if isinstance(direct, dict) and isinstance(through, dict):
        for key in direct | through:
            if key not in through:
                yield f"{path}.{key}: lost {shown(direct[key])}"
            elif key not in direct:
                yield f"{path}.{key}: added {shown(through[key])}"
            else:
                yield from compare(direct[key], through[key], f"{path}.{key}")
    elif isinstance(direct, list) and isinstance(through, list) and len(direct) == len(through):
        for n, (one, other) in enumerate(zip(direct, through, strict=True)):
            yield from compare(one, other, f"{path}[{n}]")
    elif type(direct) is not type(through) or direct != through:
        yield f"{path}: {shown(direct)} → {shown(through)}"


def shown(value: Any) -> str:
    return json.dumps(value)[:120]


def allowed(line: str) -> bool:
    path, _, what = line.partition(": ")
    where = re.sub(r"^\[\d+\]", "", path)
    found = next((pattern for pattern in ALLOWED if re.fullmatch(pattern, where)), None)
    if found == r"\.result\._meta":
        return what.startswith("added ") and set(json.loads(what.removeprefix("added "))) == {f"{META}serverInfo"}
    return found is not None


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """One Rootlink with the server mounted in both eras over both transports, and each of them beside it."""
    made: dict[str, Pair] = {}
    started: list[subprocess.Popen[bytes]] = []
    instance = Instance(tmp_path_factory.mktemp("fidelity") / "home", "--allow-private", "127.0.0.0/8")
    for running in closing(instance):
        try:
            bearer = {"authorization": f"Bearer {running.key}"}
            for mount in MOUNTS:
                era, transport = mount.split("_")
                command = [sys.executable, str(SCRIPT), era, transport, mount]
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                started.append(process)
                direct: Way = Lines(process, era)
                if transport == "stdio":
                    running.mount(mount, SCRIPT, era, transport, mount)
                else:
                    assert process.stdout is not None
                    direct = _mounted(running, mount, era, int(process.stdout.readline()))
                _agree_to(running, mount)
                made[mount] = Pair(mount, direct, Posts(running.mcp, era, bearer).open())
            yield made
        finally:
            for process in started:
                process.communicate()


def _agree_to(instance: Instance, mount: str) -> None:
    """Its tools have control characters in their schemas, and are held back for that."""
    for view in instance.engine("GET", f"/mcp-servers/{mount}/tools").data:
        if view["held"]:
            answer = instance.engine("PUT", f"/mcp-servers/{mount}/tools/{view['tool']}", {"approve": view["fingerprint"]})
            assert answer.status == 200, answer.body


def _mounted(instance: Instance, name: str, era: str, port: int) -> Posts:
    instance.allow(f"127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/mcp"
    answer = instance.engine("POST", "/mcp-servers", {"name": name, "transport": "http", "endpoint": url})
    assert answer.status == 201, answer.body
    return Posts(url, era)


@pytest.fixture(params=MOUNTS)
def pair(pairs: dict[str, Pair], request: pytest.FixtureRequest) -> Pair:
    return pairs[request.param]


@pytest.mark.parametrize("method", LISTS)
def test_a_list_has_every_entry_with_every_member(pair: Pair, method: str) -> None:
    assert pair.differences(method, {}) == []


@pytest.mark.parametrize("case", CASES)
def test_a_result_or_an_error_passes_as_it_is(pair: Pair, case: str) -> None:
    assert pair.differences("tools/call", {"name": "call", "arguments": {"case": case}}) == []


def test_a_lone_surrogate_is_replaced_and_nothing_else_with_it(pair: Pair) -> None:
    """No UTF-8 text can hold one, and not every client reads its escape (`engine/rpc.py`)."""
    differences = pair.differences("tools/call", {"name": "call", "arguments": {"case": "lone surrogates"}})
    assert len(differences) == 9
    assert all("\\ufffd" in line for line in differences)


def test_a_number_no_client_can_read_is_an_error_that_says_who_sent_it(pair: Pair) -> None:
    (frame,) = pair.through.send("tools/call", {"name": pair.public("call"), "arguments": {"case": "out of range"}})
    assert pair.mount in frame["error"]["message"]


@pytest.mark.parametrize("case", ["content", "spaced", "error"])
def test_progress_passes_with_every_member(pair: Pair, case: str) -> None:
    """The answer comes as an event stream then, in which a line break of the server's own would end an event."""
    for token in ("töken", 7, 0, ""):
        params = {"name": "call", "arguments": {"case": case}, "_meta": {"progressToken": token}}
        assert pair.differences("tools/call", params) == []


def test_a_prompt_passes_as_it_is(pair: Pair) -> None:
    assert pair.differences("prompts/get", {"name": "full", "arguments": {"a": "ä", "": ""}}) == []
    assert pair.differences("prompts/get", {"name": "bare"}) == []


@pytest.mark.parametrize("path", ["full?a=b#c", "bare", "%C3%A4/ü", "t/some/path?q=1&r=2", "u/ä", "u/a%2Fb"])
def test_a_resource_passes_as_it_is(pair: Pair, path: str) -> None:
    assert pair.differences("resources/read", {"uri": f"odd://{pair.mount}/{path}"}) == []


def test_a_completion_passes_as_it_is(pair: Pair) -> None:
    argument, context = {"name": "a", "value": ""}, {"arguments": {"b": "ä"}}
    prompt, template = {"type": "ref/prompt", "name": "full"}, {"type": "ref/resource", "uri": f"odd://{pair.mount}/u/{{id}}"}
    for ref in (prompt, template):
        assert pair.differences("completion/complete", {"ref": ref, "argument": argument, "context": context}) == []


ARGUMENTS = {
    "big": 2**63 + 1,
    "-big": -(2**70),
    "float": 1.5,
    "texts": ["", "ä", "\U0001f600", "\x00", "\u2028"],
    "null": None,
    "": {"": []},
    "$ref": "#",
    "deep": json.loads("[" * 100 + "]" * 100),
}


def test_a_lone_surrogate_of_a_clients_is_replaced(pair: Pair) -> None:
    """Half of a pair, as JavaScript's slice leaves it."""
    arguments = {"name": pair.public("echo"), "arguments": {"cut": "\U0001f600 \ud83d"}}
    line = read(pair.through.send("tools/call", arguments)[-1]["result"]["structuredContent"]["line"])
    assert line["arguments"] == {"cut": "\U0001f600 \ufffd"}


def test_what_a_client_sends_gets_to_the_server(pair: Pair) -> None:
    """`echo` answers with the text of its params."""
    meta = {"example.com/x": ARGUMENTS, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    params = {"name": "echo", "arguments": ARGUMENTS, "_meta": meta, "x-unknown": ARGUMENTS}
    direct = read(pair.direct.send("tools/call", params)[-1]["result"]["structuredContent"]["line"])
    through = read(
        pair.through.send("tools/call", {**params, "name": pair.public("echo")})[-1]["result"]["structuredContent"]["line"]
    )
    ours = (f"{META}clientInfo",)  # a stateless client need not tell its name
    got = [line for line in compare(direct, through) if not line.startswith(tuple(f"._meta.{name}" for name in ours))]
    assert got == []


def test_every_tool_can_be_called_by_the_name_it_is_listed_with(pair: Pair) -> None:
    listed = pair.through.send("tools/list", {})[-1]["result"]["tools"]
    for tool in listed:
        if tool["name"].startswith(pair.public("")) and tool["name"] not in (pair.public("call"), pair.public("echo")):
            called = pair.through.send("tools/call", {"name": tool["name"], "arguments": {}})[-1]["result"]["structuredContent"]
            assert tool["name"].endswith(called["called"])


def test_a_difference_is_seen() -> None:
    """The control: what the comparison would say of what others do to an answer."""
    spoilt = {
        "a": ['{"n": 1.0}', '{"n": 1}'],
        "b": ['{"n": 9007199254740993}', '{"n": 9007199254740992}'],
        "c": ['{"x": null}', "{}"],
        "d": ['{"s": "\\ud800"}', '{"s": "\\ufffd"}'],
        "e": ['{"l": [1]}', '{"l": []}'],
        "f": ["{}", '{"isError": false}'],
    }
    for name, (one, other) in spoilt.items():
        assert len(list(compare(read(one), read(other)))) == 1, name
        assert list(compare(read(one), read(one))) == []
    assert not allowed('.result.tools[0].title: "a" → "b"')
