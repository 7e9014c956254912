"""`/hooks`: what reaches an engine, which engines are started, what the sender and the function get of each other."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from typing import Any

import aiohttp
import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from yarl import URL

from rootlink.errors import Unavailable
from rootlink.gateway import hooks
from rootlink.gateway.auth import digest
from rootlink.records import WakeRow
from tests.gateway.conftest import ADMIN, Instance, Start, until
from tests.gateway.fakes import FakeEngine

TOKEN = "T0ken_of-the-webhook_" + "x" * 22
OTHER = "another-token_" + "y" * 29
MIB = 1024 * 1024


class Engine:
    """What the fake engine does with `/hooks`: knows `tokens`, answers `answer`, keeps what it was handed in `calls`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.fake = engine
        self.tokens = {TOKEN}
        self.answer: dict[str, Any] = {"headers": {"content-type": "application/json"}, "body": _b64(b'{"done":true}')}
        self.calls: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.wait: asyncio.Event | None = None
        self.done = 0
        engine.act = self

    async def __call__(self, request: Request) -> Response:
        call = msgspec.json.decode(await request.body())
        self.paths.append(request.scope["path"])
        if call.get("token") not in self.tokens:
            return _envelope(404, error={"code": "not_found", "message": "no such webhook"})
        if call.get("input") is None:
            return _envelope(200, data={})
        self.calls.append(call)
        if self.wait is not None:
            await self.wait.wait()
        self.done += 1
        return _envelope(200, data=self.answer)

    @property
    def given(self) -> dict[str, Any]:
        found: dict[str, Any] = self.calls[-1]["input"]
        return found


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _envelope(status: int, data: Any = None, error: Any = None) -> Response:
    body = msgspec.json.encode({"ok": error is None, "data": data, "error": error})
    return Response(body, status, media_type="application/json")


def known(instance: Instance, *tokens: str) -> None:
    """What the engine said last, in the store."""
    instance.store.wakes.put(WakeRow(instance.project, None, [digest(token).hex() for token in tokens]))


@pytest.fixture
def engine(instance: Instance) -> Engine:
    known(instance, TOKEN)
    return Engine(instance.engine)


def path(instance: Instance, token: str = TOKEN) -> str:
    return f"/hooks/{instance.project}/main/f/{token}"


class Got:
    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body


async def call(instance: Instance, at: str | None = None, method: str = "POST", data: Any = b"{}", **headers: str) -> Got:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(instance.url + (path(instance) if at is None else at), encoded=True)
    data = io.BytesIO(data) if isinstance(data, bytes) else data  # of large bytes aiohttp warns
    async with instance.http.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
        return Got(response, await response.read())


async def test_a_call_runs_the_function_and_gets_its_answer(instance: Instance, engine: Engine) -> None:
    got = await call(instance, data=b'{"n": 1}', content_type="application/json", x_event="push")
    assert (got.status, got.body) == (200, b'{"done":true}')
    assert engine.paths == ["/hooks/main/f"]
    assert engine.calls[0]["token"] == TOKEN and engine.calls[0]["delivery"] is None
    assert engine.given["method"] == "POST" and engine.given["body"] == '{"n": 1}'
    assert engine.given["headers"]["x-event"] == "push" and engine.given["headers"]["content-type"] == "application/json"


async def test_the_function_gets_the_query_as_an_object(instance: Instance, engine: Engine) -> None:
    await call(instance, path(instance) + "?a=1&b=&a=2&c=%C3%A9+x&__proto__=y")
    assert engine.given["query"] == {"a": ["1", "2"], "b": "", "c": "é x", "__proto__": "y"}
    assert (await call(instance, path(instance) + "?" + "&".join(["a"] * 1001))).status == 400


async def test_a_body_that_is_no_text_comes_in_base64(instance: Instance, engine: Engine) -> None:
    await call(instance, data=b"\xff\x00\xfe")
    assert "body" not in engine.given and base64.b64decode(engine.given["body_base64"]) == b"\xff\x00\xfe"
    await call(instance, data="\ufeffé\0".encode())
    assert engine.given["body"] == "\ufeffé\0"  # a signature is over the very bytes
    await call(instance, data=b"")
    assert engine.given["body"] == ""


async def test_the_function_gets_the_senders_headers_and_nothing_of_ours(instance: Instance, engine: Engine) -> None:
    ours = {
        "cookie": "rootlink_session=s; a=b",
        "x-rootlink-scopes": "manage",
        "x-rootlink-key": "k",
        "x-forwarded-for": "1.2.3.4",
        "forwarded": "for=1.2.3.4",
        "x-real-ip": "1.2.3.4",
        "te": "trailers",
        "x-hop": "1",
        "connection": "keep-alive, X-Hop",
        "keep-alive": "timeout=5",
    }
    await call(
        instance, Authorization="Basic c2VuZGVy", X_Signature="sha256=1", **{k.replace("-", "_"): v for k, v in ours.items()}
    )
    given = engine.given["headers"]
    assert given["authorization"] == "Basic c2VuZGVy" and given["x-signature"] == "sha256=1"
    assert not set(given) & (set(ours) | {"content-length", "transfer-encoding"})
    assert all(name == name.lower() for name in given)


@pytest.mark.parametrize("credential", ["Bearer {key}", "bearer {key}", f"Bearer {ADMIN}"])
async def test_a_credential_of_ours_sent_along_by_mistake_does_not_reach_the_function(
    instance: Instance, engine: Engine, credential: str
) -> None:
    await call(instance, authorization=credential.format(key=instance.key))
    assert "authorization" not in engine.given["headers"]


async def test_a_key_of_ours_does_not_reach_the_function_in_any_header(instance: Instance, engine: Engine) -> None:
    await call(instance, X_Api_Key=instance.key, X_Other="kept")
    assert "x-api-key" not in engine.given["headers"] and engine.given["headers"]["x-other"] == "kept"


@pytest.mark.parametrize(
    ("header", "value", "delivery"),
    [
        ("webhook-id", "msg_1", "webhook-id:msg_1"),
        ("X-GitHub-Delivery", "72d3", "x-github-delivery:72d3"),
        ("Idempotency-Key", "k", "idempotency-key:k"),
        ("x-other", "k", None),
    ],
)
async def test_the_senders_id_of_a_delivery_goes_along(
    instance: Instance, engine: Engine, header: str, value: str, delivery: str | None
) -> None:
    await call(instance, **{header.replace("-", "_"): value})
    assert engine.calls[0]["delivery"] == delivery


# what is not known


async def test_all_that_is_not_known_is_one_answer(instance: Instance, engine: Engine) -> None:
    project = instance.project
    answers = set()
    for at in (
        path(instance, OTHER),
        f"/hooks/{project}/main/g/{OTHER}",
        f"/hooks/prj_000000000000/main/f/{TOKEN}",
        f"/hooks/default/main/f/{TOKEN}",
        f"/hooks/{project}/main/f/{TOKEN[:-1]}",
        f"/hooks/{project}/main/f/{TOKEN}A",
        f"/hooks/{project}/main/f/{TOKEN}/",
        f"/hooks/{project}/main/f/{TOKEN}%0A",
        f"/hooks/{project}/main/%66/{TOKEN}",
        f"/hooks/{project}/ma%20in/f/{TOKEN}",
        f"/hooks/{project}/main/f",
        "/hooks/",
    ):
        began = time.monotonic()
        got = await call(instance, at)
        assert time.monotonic() - began > hooks.EVEN_SECS * 0.9, at
        answers.add((got.status, got.body, got.headers["content-type"]))
    [(status, body, _)] = answers
    assert status == 404 and body == b'{"ok":false,"data":null,"error":{"code":"not_found","message":"There is no such webhook"}}'
    assert engine.calls == []


async def test_an_unknown_token_starts_nothing(instance: Instance, engine: Engine) -> None:
    await instance.provisioner.kill(instance.project)
    instance.provisioner.calls.clear()
    assert (await call(instance, path(instance, OTHER))).status == 404
    assert (await call(instance, f"/hooks/prj_000000000000/main/f/{TOKEN}")).status == 404
    assert instance.provisioner.calls == []


async def test_a_known_token_starts_the_engine_once_however_many_call(instance: Instance, engine: Engine) -> None:
    await instance.provisioner.kill(instance.project)
    instance.provisioner.calls.clear()
    got = await asyncio.gather(*(call(instance) for _ in range(10)))
    assert [one.status for one in got] == [200] * 10
    assert instance.provisioner.calls == [f"ensure {instance.project}"]
    assert len(engine.calls) == 10


async def test_a_running_engine_knows_a_token_before_the_store_does(instance: Instance, engine: Engine) -> None:
    known(instance)
    assert (await call(instance)).status == 404  # no engine is known to run, and none is started
    await instance.mcp()  # which finds it
    assert (await call(instance)).status == 200
    assert (await call(instance, path(instance, OTHER))).status == 404


async def test_what_the_store_knows_and_the_engine_does_not_is_not_known(instance: Instance, engine: Engine) -> None:
    engine.tokens.clear()
    got = await call(instance)
    assert got.status == 404 and b"no such webhook" in got.body


async def test_nothing_of_the_body_is_read_of_what_is_not_known(instance: Instance, engine: Engine) -> None:
    await call(instance)
    began = time.monotonic()

    async def endless() -> Any:
        yield b"x"
        await asyncio.sleep(30)

    for at in (path(instance, OTHER), "/hooks/x"):
        assert (await call(instance, at, data=endless())).status == 404
    assert time.monotonic() - began < 5
    assert instance.gateway.plane.budget.held == 0


async def test_too_many_unknown_ones_are_told_so_and_known_ones_go_on(
    instance: Instance, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "EVEN_SECS", 0.0)
    statuses = [(await call(instance, path(instance, f"{n:043}"))).status for n in range(70)]
    assert statuses[:60] == [404] * 60 and statuses[-1] == 429
    got = await call(instance, path(instance, OTHER))
    assert got.status == 429 and int(got.headers["retry-after"]) >= 1
    assert (await call(instance)).status == 200


# limits


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_post_does_anything(instance: Instance, engine: Engine, method: str) -> None:
    for at in (path(instance), path(instance, OTHER), "/hooks/x"):
        got = await call(instance, at, method, data=None)
        assert got.status == 405 and got.headers["allow"] == "POST"
    assert engine.paths == []


async def test_a_token_has_a_limit_of_its_own(instance: Instance, engine: Engine) -> None:
    known(instance, TOKEN, OTHER)
    engine.tokens.add(OTHER)
    got = await asyncio.gather(*(call(instance) for _ in range(70)))
    refused = [one for one in got if one.status == 429]
    assert 5 <= len(refused) <= 10
    assert int(refused[0].headers["retry-after"]) >= 1
    assert (await call(instance, path(instance, OTHER))).status == 200


async def test_a_body_is_a_mebibyte_at_most(instance: Instance, engine: Engine) -> None:
    assert (await call(instance, data=b"x" * MIB)).status == 200
    assert len(engine.given["body"]) == MIB
    assert (await call(instance, data=b"x" * (MIB + 1))).status == 413

    async def untold() -> Any:
        for _ in range(20):
            yield b"x" * 64 * 1024

    assert (await call(instance, data=untold())).status == 413
    assert len(engine.calls) == 1


async def test_bodies_count_for_the_gateways_whole(start: Start) -> None:
    instance = await start(bodies=6 * MIB, bodies_each=4 * MIB)
    known(instance, TOKEN, OTHER)
    engine = Engine(instance.engine)
    engine.tokens.add(OTHER)
    engine.wait = asyncio.Event()
    waiting = [asyncio.create_task(call(instance, data=b"x" * MIB)) for _ in range(4)]
    await until(lambda: len(engine.calls) == 4)
    assert (await call(instance, data=b"x" * MIB)).status == 429
    more = [asyncio.create_task(call(instance, path(instance, OTHER), data=b"x" * MIB)) for _ in range(2)]
    await until(lambda: len(engine.calls) == 6)
    assert (await call(instance, path(instance, OTHER), data=b"x")).status == 503
    engine.wait.set()
    assert {got.status for got in await asyncio.gather(*waiting, *more)} == {200}
    assert instance.gateway.plane.budget.held == 0


# engines that go


async def test_what_a_stopping_engine_did_not_take_goes_to_the_next(instance: Instance, engine: Engine) -> None:
    assert (await call(instance)).status == 200
    engine.fake.stopping = True
    await instance.provisioner.spawn(instance.project)
    assert (await call(instance)).status == 200
    await instance.provisioner.kill(instance.project)
    assert (await call(instance)).status == 200
    assert len(engine.calls) == 3


async def test_what_an_engine_may_have_taken_is_not_sent_again(instance: Instance, engine: Engine) -> None:
    engine.fake.act = engine.fake.die
    got = await call(instance)
    assert got.status == 502 and b"ended while it worked on this" in got.body
    assert len(engine.fake.requests) == 1


async def test_an_engine_that_does_not_start_is_said_without_its_words(instance: Instance, engine: Engine) -> None:
    await instance.provisioner.kill(instance.project)
    instance.provisioner.refusal = Unavailable("CANARY of the start")
    got = await call(instance)
    assert got.status == 503 and b"CANARY" not in got.body and got.headers["retry-after"]


async def test_a_sender_that_leaves_ends_its_wait_and_not_the_run(instance: Instance, engine: Engine) -> None:
    engine.wait = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await call(instance, data=b"x" * 1000)
    assert len(engine.calls) == 1
    engine.wait.set()
    await until(lambda: engine.done == 1)
    await until(lambda: instance.gateway.plane.budget.held == 0)


# what the sender gets


async def answered(
    instance: Instance, engine: Engine, body: bytes = b"<script>alert(1)</script>", status: int = 200, **headers: str
) -> Got:
    engine.answer = {"status": status, "headers": {k.replace("_", "-"): v for k, v in headers.items()}, "body": _b64(body)}
    return await call(instance)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("TEXT/PLAIN;charset=utf-16", "text/plain; charset=utf-8"),
        ("text/html", "text/plain; charset=utf-8"),
        ("text/html, application/json", "text/plain; charset=utf-8"),
        ("application/xhtml+xml", "text/plain; charset=utf-8"),
        ("image/svg+xml", "text/plain; charset=utf-8"),
        ("text/xml", "text/plain; charset=utf-8"),
        ("application/javascript", "text/plain; charset=utf-8"),
        ("multipart/x-mixed-replace", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
    ],
)
async def test_nothing_a_function_answers_is_a_page_of_ours(instance: Instance, engine: Engine, kind: str, shown: str) -> None:
    got = await answered(instance, engine, content_type=kind)
    assert got.status == 200 and got.headers["content-type"] == shown
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["cache-control"] == "no-store"
    policy = got.headers["content-security-policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


async def test_few_headers_of_a_function_reach_its_caller(instance: Instance, engine: Engine) -> None:
    dropped = {
        "set-cookie": "rootlink_session=evil",
        "location": "https://evil.example",
        "access-control-allow-origin": "*",
        "content-encoding": "gzip",
        "content-length": "1",
        "transfer-encoding": "chunked",
        "x-accel-redirect": "/secret",
        "clear-site-data": "*",
        "refresh": "0;url=https://evil.example",
        "link": "</x>; rel=preload",
        "x-rootlink-engine": "stopping",
    }
    policies = {"content-security-policy": "default-src *", "cache-control": "public", "x-content-type-options": "off"}
    own = {"retry-after": "30", "x-hook-secret": "echo"}
    got = await answered(instance, engine, status=303, **{k.replace("-", "_"): v for k, v in (dropped | policies | own).items()})
    assert got.status == 303 and got.body == b"<script>alert(1)</script>"
    for name in dropped.keys() - {"content-length"}:
        assert name not in got.headers, name
    for name, value in policies.items():
        assert got.headers.getall(name) != [value] and value not in got.headers.getall(name)
    assert {name: got.headers[name] for name in own} == own
    assert "retry-after" not in (await answered(instance, engine, retry_after="3\r\nset-cookie: a=b")).headers


@pytest.mark.parametrize(
    ("status", "shown"), [(201, 201), (204, 204), (304, 304), (404, 404), (503, 503), (101, 502), (0, 502), (999, 502)]
)
async def test_a_function_chooses_a_status_of_an_answer(instance: Instance, engine: Engine, status: int, shown: int) -> None:
    got = await answered(instance, engine, status=status)
    assert got.status == shown
    assert (got.body == b"") == (shown in (204, 304))
    assert (await call(instance)).status == shown  # and the connection goes on


async def test_of_a_run_that_failed_the_sender_learns_its_id_alone(instance: Instance, engine: Engine) -> None:
    engine.answer = {"status": 500, "failed": "run_1"}
    got = await call(instance)
    assert got.status == 500
    assert got.body == (
        b'{"ok":false,"data":null,"error":{"code":"upstream_failed","message":"the function failed","run_id":"run_1"}}'
    )


async def test_the_token_is_in_no_log_metric_or_audit_line(
    instance: Instance, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.fake.act = engine.fake.die
    await call(instance)
    engine.fake.act = engine
    await call(instance)
    await instance.provisioner.kill(instance.project)
    instance.provisioner.refusal = Unavailable("no")
    got = await call(instance)
    metrics = await call(instance, "/metrics", "GET", data=None)
    lines = await instance.data("GET", "/v1/projects/default/activity")
    logged = "".join(capsys.readouterr())
    for text in (logged, metrics.body.decode(), str(lines), got.body.decode()):
        assert TOKEN not in text
    assert "/hooks/" in metrics.body.decode()
