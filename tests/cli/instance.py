"""A small Rootlink that keeps everything in memory and answers as CONTRACT §3 says: what the command line is tested against."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

ADMIN = "admin-token-of-the-tests"
RESEND = {
    "name": "resend",
    "kind": "function",
    "title": "Resend",
    "description": "Send e-mail.\nMore words.",
    "hosts": ["api.resend.com"],
    "access": ["write"],
    "tools": [{"name": "function__resend", "description": "Send one e-mail."}],
    "fields": [
        {
            "name": "RESEND_API_KEY",
            "label": "API key",
            "secret": True,
            "required": True,
            "help": "It may only send.",
            "help_url": "https://resend.example/keys",
            "steps": ["Open the keys page", "Copy the key"],
            "multiple": False,
        },
        {"name": "SENDER", "label": "Sender", "secret": False, "required": False, "multiple": False},
    ],
}
LINK = "https://login.example/authorize?state=x"
DOCS = {
    "name": "docs",
    "kind": "mcp",
    "title": "Docs",
    "description": "Read documents.",
    "fields": [],
    "variants": [{"variant": "legacy", "fields": [{**RESEND["fields"][0], "name": "DOCS_TOKEN"}]}],  # type: ignore[index, dict-item]
}
FILESYSTEM = {
    "name": "filesystem",
    "kind": "mcp",
    "title": "Filesystem",
    "description": "Read and write files.",
    "fields": [{"name": "paths", "label": "Folders", "secret": False, "required": False, "multiple": True}],
}
TOOLS = [
    {"name": "memory__read_graph", "description": "Read the graph\nand more"},
    {"name": "memory__echo", "description": "Say it again \x1b[31mred"},
]


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Stream(list[tuple[str, Any]]):
    """Server-sent events instead of one answer."""


class Instance:
    """Holds the state, and every request as (method, path, body, authorization)."""

    def __init__(self) -> None:
        self.projects = [{"id": "prj_0123456789ab", "name": "default"}]
        self.keys: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        self.domains: list[str] = []
        self.connections: list[dict[str, Any]] = []
        self.mounts: list[dict[str, Any]] = []
        self.functions: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[int]] = {}
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.outcome: dict[str, Any] | None = None  # of the next invocations
        self.refuses: str | None = None  # what is wrong with the next code
        self.decisions: list[dict[str, Any]] = []
        self.log = ["one\n", "two\n"]
        self.tools = TOOLS
        self.connect_fails: str | None = None
        self.connect_says: dict[str, Any] = {}  # members of the next connection besides
        self.waits_for_sign_in = False
        self.judged: dict[str, list[dict[str, Any]]] = {}  # tools by connection, as an operator sees them
        self.installed: dict[str, list[dict[str, Any]]] = {}  # … by server that was installed without a connection
        self.verdict: dict[str, Any] = {"ok": True, "label": None, "notes": [], "error": None}
        self.activity: list[dict[str, Any]] = []
        self.looked = 0  # times that the audit log was asked for
        self.requests: list[tuple[str, str, Any, str]] = []
        self.base = ""

    def answer(self, method: str, target: str, body: Any, bearer: str, accept: str) -> Any:
        at = urlsplit(target)
        path = unquote(at.path)
        self.requests.append((method, target, body, bearer))
        self._allowed(path, bearer)
        for verb, pattern, act in self.routes():
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                query = {name: values[-1] for name, values in parse_qs(at.query).items()}
                return act(*found.groups(), body={**(body or {}), "?": query, "accept": accept})
        raise Refusal(404, "not_found", f"no route {method} {path}")

    def _allowed(self, path: str, bearer: str) -> None:
        if path.startswith("/api/"):
            return
        known = bearer in self.keys if path.startswith("/engine/") else bearer == ADMIN
        if not known:
            raise Refusal(401, "unauthorized", "this credential is not known")

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        project, ws = r"/v1/projects/(?:default|prj_\w+|other)", r"/engine/api/v1/ws/(?:main|side)"
        return [
            ("GET", "/api/v1/version", lambda body: {"version": "9.9"}),
            ("GET", "/v1/projects", lambda body: self.projects),
            ("POST", "/v1/projects", lambda body: self._made(self.projects, {"id": "prj_new", "name": body["name"]})),
            ("DELETE", r"/v1/projects/(\w+)", lambda name, body: {"id": name, "name": name}),
            ("GET", "/v1/catalog", lambda body: [RESEND, FILESYSTEM]),
            ("GET", r"/v1/catalog/([\w.-]+)", self.entry),
            ("GET", f"{project}/keys", lambda body: [{**k, "key": None} for k in self.keys.values()]),
            ("POST", f"{project}/keys", self.make_key),
            ("DELETE", project + r"/keys/(\w+)", self.revoke),
            ("GET", f"{project}/secrets", lambda body: [{"name": name, "created_at": "t"} for name in self.secrets]),
            ("POST", f"{project}/secrets", self.seal),
            ("DELETE", project + r"/secrets/(\w+)", lambda name, body: {"name": self.secrets.pop(name) and name}),
            ("GET", f"{project}/egress", lambda body: [{"domain": d, "source": "manual"} for d in self.domains]),
            ("POST", f"{project}/egress", lambda body: {"domain": self._made(self.domains, body["domain"]), "source": "manual"}),
            ("GET", f"{project}/egress/decisions", lambda body: self.decisions if body["?"] == {"verdict": "denied"} else None),
            ("DELETE", project + r"/egress/([\w.:-]+)", lambda domain, body: self.domains.remove(domain)),
            ("GET", f"{project}/connections", lambda body: self.connections),
            ("POST", f"{project}/connections", self.connect),
            ("POST", project + r"/connections/([\w-]+)/check", lambda name, body: self.verdict),
            ("POST", project + r"/connections/([\w-]+)/sign-in", lambda name, body: {"link": LINK}),
            ("GET", project + r"/connections/([\w-]+)/tools", lambda name, body: self.views(self.judged, name)),
            ("PUT", project + r"/connections/([\w-]+)/tools/(.+)", lambda *at, body: self.decide(self.judged, *at, body=body)),
            ("GET", ws + r"/mcp-servers/([\w-]+)/tools", lambda name, body: self.views(self.installed, name)),
            ("PUT", ws + r"/mcp-servers/([\w-]+)/tools/(.+)", lambda *at, body: self.decide(self.installed, *at, body=body)),
            ("GET", f"{project}/activity", self.look),
            ("DELETE", project + r"/connections/([\w-]+)", self.disconnect),
            ("POST", project + r"/engine/(restart|stop)", lambda verb, body: {"state": "stopped", "pid": None}),
            ("GET", f"{project}/engine/logs", lambda body: {"lines": self.log}),
            ("GET", f"{ws}/tools", lambda body: self.tools),
            ("POST", ws + r"/tools/([\w-]+)/call", self.call),
            ("GET", f"{ws}/mcp-servers", lambda body: self.mounts),
            ("POST", f"{ws}/mcp-servers", self.mount),
            ("GET", ws + r"/mcp-servers/([\w-]+)", lambda name, body: next(m for m in self.mounts if m["name"] == name)),
            ("DELETE", ws + r"/mcp-servers/([\w-]+)", lambda name, body: {"removed": True}),
            ("GET", ws + r"/mcp-servers/([\w-]+)/logs", lambda name, body: {"lines": self.log}),
            ("GET", f"{ws}/functions", lambda body: list(self.functions.values())),
            ("PUT", f"{ws}/functions", self.deploy),
            ("DELETE", ws + r"/functions/(\w+)", lambda name, body: self.functions.pop(name) and None),
            ("POST", ws + r"/functions/(\w+)/invoke", self.invoke),
            ("GET", ws + r"/functions/(\w+)/runs", lambda name, body: self.runs.get(name, [])),
            ("GET", ws + r"/functions/(\w+)/runs/(\w+)", self.one_run),
            ("GET", ws + r"/functions/(\w+)", lambda name, body: self.functions[name]),
            ("GET", ws + r"/functions/(\w+)/versions", self.function_versions),
            ("GET", ws + r"/functions/(\w+)/versions/(\d+)", lambda name, version, body: self.functions[name]),
            ("POST", ws + r"/functions/(\w+)/rollback", self.roll_back),
        ]

    @staticmethod
    def _made(kept: list[Any], new: Any) -> Any:
        kept.append(new)
        return new

    def entry(self, name: str, body: Any) -> Any:
        found = {"resend": RESEND, "filesystem": FILESYSTEM, "docs": DOCS}.get(name)
        if found is None:
            raise Refusal(404, "not_found", f"no connector {name!r}; there are filesystem, resend")
        return found

    def make_key(self, body: Any) -> Any:
        key = "rl_sk_" + secrets.token_hex(32)
        view = {
            "id": f"key_{len(self.keys)}",
            "name": body["name"],
            "prefix": key[:12],
            "scopes": body.get("scopes", ["use", "manage"]),
        }
        self.keys[key] = view
        return {**view, "key": key}

    def revoke(self, id: str, body: Any) -> Any:
        self.keys = {key: view for key, view in self.keys.items() if view["id"] != id}
        return {"id": id}

    def seal(self, body: Any) -> Any:
        self.secrets[body["name"]] = body["plaintext"]
        return {"id": "sec_1", "name": body["name"], "envelope_key_id": "k1"}

    def connect(self, body: Any) -> Any:
        name = body.get("name", body["connector"])
        if any(connection["name"] == name for connection in self.connections):
            raise Refusal(409, "conflict", f"{name} is connected already")
        steps = [{"step": step, "state": "done", "detail": f"{step} is done"} for step in ("seal", "egress", "install")]
        connection = {
            "name": name,
            "connector": body["connector"],
            "kind": "mcp",
            "workspace": body["workspace"],
            "state": "connected",
            "steps": steps,
            "tools": [f"{name}__read"],
            "error": None,
            **self.connect_says,
        }
        if self.connect_fails is None:
            self.connections.append(connection)
        elif "event-stream" not in body["accept"]:
            raise Refusal(502, "upstream_failed", self.connect_fails)
        if "event-stream" not in body["accept"]:
            return connection
        last = (
            ("done", connection)
            if self.connect_fails is None
            else ("failed", {"code": "upstream_failed", "message": self.connect_fails})
        )
        waits = {**steps[-1], "state": "running", "detail": "sign in", "link": LINK}
        told = [{**steps[0], "state": "running"}, *steps[:-1], *([waits, waits] if self.waits_for_sign_in else []), steps[-1]]
        return Stream([*(("step", step) for step in told), last])

    @staticmethod
    def views(of: dict[str, list[dict[str, Any]]], name: str) -> Any:
        if name not in of:
            raise Refusal(404, "not_found", f"no {name!r}")
        return of[name]

    def decide(self, of: dict[str, list[dict[str, Any]]], name: str, tool: str, body: Any) -> Any:
        view = next(view for view in self.views(of, name) if tool in (view["tool"], view["name"]))
        if "mode" in body:
            view |= {"chosen": body["mode"], "mode": body["mode"] or "allow"}
        if "approve" in body:
            if body["approve"] != view["fingerprint"]:
                raise Refusal(409, "conflict", "its definition has changed since")
            view |= {"held": None}
        return view

    def look(self, body: Any) -> Any:
        """Somebody signs in between the second and the third look."""
        self.looked += 1
        if self.looked == 3:
            self.activity.insert(0, {"id": "act_2", "action": "connection.signed_in", "target": "docs"})
        return self.activity

    def disconnect(self, name: str, body: Any) -> Any:
        if not any(connection["name"] == name for connection in self.connections):
            raise Refusal(404, "not_found", f"no connection {name!r}")
        self.connections = [connection for connection in self.connections if connection["name"] != name]
        return {"name": name}

    def call(self, tool: str, body: Any) -> Any:
        if tool == "memory__broken":
            return {"isError": True, "content": [{"type": "text", "text": "it broke\nbadly"}]}
        said = msgspec.json.encode(body["arguments"]).decode()
        return {"content": [{"type": "text", "text": said}, {"type": "image", "mimeType": "image/png", "data": "…"}]}

    def mount(self, body: Any) -> Any:
        spec = {name: value for name, value in body.items() if name not in ("?", "accept")}
        self.mounts.append(
            {"name": spec["name"], "transport": spec["transport"], "state": "ready", "tool_count": 3, "spec": spec}
        )
        return {"installed": True, "server_count": len(self.mounts), "tool_count": 3, "tools_list_changed_notified": 0}

    def deploy(self, body: Any) -> Any:
        if self.refuses is not None:
            raise Refusal(400, "invalid", self.refuses)
        if "syntax" in body["code"]:
            raise Refusal(400, "invalid", "the body does not compile: SyntaxError: Unexpected token (1:3)")
        self.functions[body["name"]] = {"name": body["name"], "version": 1, "tool": f"function__{body['name']}", **body}
        return {"name": body["name"], "version": 1, "tool": f"function__{body['name']}"}

    def one_run(self, name: str, run_id: str, body: Any) -> Any:
        found = [run for run in self.runs[name] if run["run_id"] == run_id]
        if not found:
            raise Refusal(404, "not_found", f"no run {run_id!r}")
        return found[0]

    def function_versions(self, name: str, body: Any) -> Any:
        live = self.functions[name]["version"]
        return [{"version": one, "deployed_at": f"at-{one}", "live": one == live} for one in self.versions[name]]

    def roll_back(self, name: str, body: Any) -> Any:
        self.functions[name]["version"] = body["version"] or self.functions[name]["version"] - 1
        return {"name": name, "version": self.functions[name]["version"], "tool": f"function__{name}"}

    def invoke(self, name: str, body: Any) -> Any:
        if self.outcome is not None:
            return self.outcome
        if name == "thrower":
            error = {"name": "TypeError", "message": "no\nsuch thing", "stack": "…"}
            return {"run_id": "r2", "status": "error", "output": None, "error": error, "logs": [], "duration_ms": 1}
        return {
            "run_id": "r1",
            "status": "ok",
            "output": body["input"],
            "error": None,
            "logs": [{"level": "log", "text": "hello", "time": "t"}],
            "duration_ms": 1,
        }


class Handler(BaseHTTPRequestHandler):
    instance: Instance

    def handle_one(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = msgspec.json.decode(self.rfile.read(length)) if length else None
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        try:
            data = self.instance.answer(self.command, self.path, body, bearer, self.headers.get("accept", ""))
        except Refusal as refusal:
            error = {"code": refusal.code, "message": str(refusal)}
            self._send(refusal.status, "application/json", msgspec.json.encode({"ok": False, "data": None, "error": error}))
            return
        if isinstance(data, Stream):
            frames = b"".join(b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(value)) for event, value in data)
            self._send(200, "text/event-stream", b": hello\n\n" + frames)
        else:
            self._send(200, "application/json", msgspec.json.encode({"ok": True, "data": data, "error": None}))

    def _send(self, status: int, kind: str, payload: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_DELETE = handle_one

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running(home: Path) -> Iterator[Instance]:
    """An instance that runs in `home`, as `rootlink up` would leave it."""
    instance = Instance()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"instance": instance}))
    server.daemon_threads = True
    instance.base = f"http://127.0.0.1:{server.server_port}"
    (home / "run").mkdir(parents=True)
    token = home / "admin-token"
    token.write_text(ADMIN + "\n")
    record = {"pid": 1, "api": instance.base, "console": instance.base, "mcp": f"{instance.base}/mcp", "home": str(home)}
    (home / "run" / "rootlink.json").write_bytes(msgspec.json.encode({**record, "admin_token_file": str(token)}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield instance
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
