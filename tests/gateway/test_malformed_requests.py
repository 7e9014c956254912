"""The 33 raw cases of SECURITY-FIGURES §3.3, and some more, against a real server: refused, with the envelope, once."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import urllib.error
import urllib.request

import pytest

from rootlink.gateway import protocol
from tests.gateway.conftest import ADMIN, Instance, Start
from tests.gateway.raw import exchange

BODY = b'{"name": "smuggled"}'


def head(line: str, *headers: str, host: str | None = "127.0.0.1") -> bytes:
    lines = [line, *([f"Host: {host}"] if host is not None else []), f"Authorization: Bearer {ADMIN}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def post(*headers: str, host: str | None = "127.0.0.1", line: str = "POST /v1/projects HTTP/1.1") -> bytes:
    return head(line, *headers, host=host)


SIZED = f"Content-Length: {len(BODY)}"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

# what is wrong → (bytes, status)
CASES: dict[str, tuple[bytes, int]] = {
    "a length and chunks": (post(SIZED, "Transfer-Encoding: chunked") + CHUNKED, 400),
    "chunks and a length": (post("Transfer-Encoding: chunked", SIZED) + CHUNKED, 400),
    "two lengths that differ": (post("Content-Length: 3", SIZED) + BODY, 400),
    "the same length twice": (post(SIZED, SIZED) + BODY, 400),
    "a list of lengths": (post("Content-Length: 20, 20") + BODY, 400),
    "a negative length": (post("Content-Length: -1") + BODY, 400),
    "a length with a plus": (post("Content-Length: +20") + BODY, 400),
    "a length in hex": (post("Content-Length: 0x14") + BODY, 400),
    "an unknown transfer coding": (post("Transfer-Encoding: xchunked") + CHUNKED, 400),
    "chunked in two headers": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + CHUNKED, 400),
    "a coding after chunked": (post("Transfer-Encoding: chunked, identity") + CHUNKED, 400),
    "a chunk size that is none": (post("Transfer-Encoding: chunked") + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a chunk longer than it says": (post("Transfer-Encoding: chunked") + b"3\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a space before the colon": (post(f"Content-Length : {len(BODY)}") + BODY, 400),
    "a folded header": (post("X-One: a\r\n b", SIZED) + BODY, 400),
    "a NUL in a header": (post("X-One: a\0b", SIZED) + BODY, 400),
    "a header without a name": (post(": nobody", SIZED) + BODY, 400),
    "bare line feeds": (post(SIZED).replace(b"\r\n", b"\n") + BODY, 400),
    "no Host": (post(SIZED, host=None) + BODY, 400),
    "two Hosts": (post("Host: localhost", SIZED) + BODY, 400),
    "an empty Host": (post(SIZED, host="") + BODY, 400),
    "a Host with a path": (post(SIZED, host="127.0.0.1/x") + BODY, 400),
    "a Host with a user": (post(SIZED, host="localhost@evil.example") + BODY, 400),
    "a Host with a port out of range": (post(SIZED, host="localhost:65536") + BODY, 400),
    "a stranger's Host": (post(SIZED, host="evil.example") + BODY, 403),
    "a stranger's Host that begins like ours": (post(SIZED, host="localhost.evil.example") + BODY, 403),
    "another loopback spelling": (post(SIZED, host="127.1") + BODY, 403),
    "an absolute target": (post(SIZED, line="POST http://127.0.0.1/v1/projects HTTP/1.1") + BODY, 400),
    "an absolute target elsewhere": (post(SIZED, line="POST http://evil.example/v1/projects HTTP/1.1") + BODY, 400),
    "a target that is an authority": (head("CONNECT evil.example:443 HTTP/1.1"), 400),
    "a target that is a star": (head("OPTIONS * HTTP/1.1"), 400),
    "dots": (head("GET /v1/../v1/projects HTTP/1.1"), 400),
    "dots at the end": (head("GET /v1/projects/.. HTTP/1.1"), 400),
    "one dot": (head("GET /v1/./projects HTTP/1.1"), 400),
    "encoded dots": (head("GET /v1/%2e%2e/v1/projects HTTP/1.1"), 400),
    "encoded dots in capitals": (head("GET /v1/%2E%2E/v1/projects HTTP/1.1"), 400),
    "an encoded slash": (head("GET /v1%2fprojects HTTP/1.1"), 400),
    "an encoded backslash": (head("GET /v1%5cprojects HTTP/1.1"), 400),
    "a backslash": (head("GET /v1\\projects HTTP/1.1"), 400),
    "two slashes": (head("GET //v1/projects HTTP/1.1"), 400),
    "two slashes inside": (head("GET /v1//projects HTTP/1.1"), 400),
    "an encoded NUL": (head("GET /v1/projects%00 HTTP/1.1"), 400),
    "a broken percent": (head("GET /v1/projects%zz HTTP/1.1"), 400),
    "bytes beyond ASCII": (head("GET /v1/projects\xff HTTP/1.1"), 400),
    "a fragment": (head("GET /v1/projects#x HTTP/1.1"), 400),
    "65 headers": (head("GET /v1/projects HTTP/1.1", *(f"X-{n}: 1" for n in range(63))), 413),
    "20 KB of headers": (head("GET /v1/projects HTTP/1.1", "X-One: " + "x" * 20_000), 413),
    "100 KB of headers": (head("GET /v1/projects HTTP/1.1", "X-One: " + "x" * 100_000), 413),
    "a second Authorization": (head("GET /v1/projects HTTP/1.1", "Authorization: Bearer x"), 400),
    "a page of another site": (head("GET /v1/projects HTTP/1.1", "Origin: http://evil.example"), 403),
    "a page without an origin": (head("GET /v1/projects HTTP/1.1", "Origin: null"), 403),
    "an origin that is none": (head("GET /v1/projects HTTP/1.1", "Origin: 127.0.0.1"), 403),
    "a compressed body": (post("Content-Encoding: gzip", "Content-Length: 999999") + gzip.compress(BODY), 400),
    "HTTP/1.0 with a body": (post(SIZED, line="POST /v1/projects HTTP/1.0") + BODY, 400),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no HTTP at all": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400),
    "a method that is none": (head("GE T /v1/projects HTTP/1.1"), 400),
}


async def test_a_malformed_request_is_refused_once_with_the_envelope(instance: Instance) -> None:
    answers = await asyncio.gather(*(exchange(instance.port, sent) for sent, _ in CASES.values()))
    seen = {
        sentence: [(status, body["ok"] is False and bool(body["error"]["message"])) for status, body in got]
        for sentence, got in zip(CASES, answers, strict=True)
    }
    assert seen == {sentence: [(status, True)] for sentence, (_, status) in CASES.items()}
    assert [project["name"] for project in await instance.data("GET", "/v1/projects")] == ["default"], "one was let in"


async def test_the_plain_request_the_table_is_made_of_is_let_in(instance: Instance) -> None:
    (status, answer), *more = await exchange(instance.port, post(SIZED) + BODY)
    assert (status, more) == (201, [])
    assert answer["data"]["name"] == "smuggled"
    (status, _), *_ = await exchange(instance.port, post("Transfer-Encoding: chunked") + CHUNKED)
    assert status == 409


async def test_an_unwanted_upgrade_is_passed_over(instance: Instance) -> None:
    sent = head(
        "GET /livez HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
    )
    (status, answer), *_ = await exchange(instance.port, sent)
    assert (status, answer["data"]["status"]) == (200, "alive")


async def test_a_header_with_an_underscore_counts_for_nothing(instance: Instance) -> None:
    sent = head("GET /engine/api/v1/x HTTP/1.1", "X_Rootlink_Key: mine", "Mcp_Name: a").replace(
        ADMIN.encode(), instance.key.encode()
    )
    (status, _), *_ = await exchange(instance.port, sent)
    assert status == 200
    assert not [name for name in instance.engine.requests[0][2] if "_" in name]


async def test_pipelined_requests_are_answered_in_order(instance: Instance) -> None:
    sent = head("GET /livez HTTP/1.1") + head("GET /nowhere HTTP/1.1") + head("GET /livez HTTP/1.1")
    assert [status for status, _ in await exchange(instance.port, sent)] == [200, 404, 200]


async def test_a_host_the_operator_allows_is_let_in(start: Start) -> None:
    instance: Instance = await start(allowed_hosts=frozenset({"Rootlink.example"}))
    for host, status in (("rootlink.example", 200), ("ROOTLINK.example:443", 200), ("evil.example", 403), ("localhost:1", 200)):
        (got, _), *_ = await exchange(instance.port, head("GET /livez HTTP/1.1", host=host))
        assert got == status, host


async def test_a_page_of_this_host_may_ask(instance: Instance) -> None:
    own = head("GET /livez HTTP/1.1", f"Origin: http://localhost:{instance.port}", host=f"localhost:{instance.port}")
    tool = head("GET /livez HTTP/1.1", "Origin: http://localhost:6274", host=f"localhost:{instance.port}")
    assert [(await exchange(instance.port, sent))[0][0] for sent in (own, tool)] == [200, 200]


async def test_a_body_that_says_it_is_too_large_is_refused_unread(instance: Instance) -> None:
    (status, answer), *_ = await exchange(instance.port, post("Content-Length: 20000000"), within=1.0)
    assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_chunks_without_end_are_refused_at_the_cap(start: Start) -> None:
    instance: Instance = await start(control_body=100_000)
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    (status, answer), *_ = await exchange(instance.port, post("Transfer-Encoding: chunked") + chunk * 3)
    assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_who_goes_on_sending_after_the_refusal_is_cut_off(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(post("Content-Length: 20000000") + b"x" * 1000)
    assert b"413" in await reader.readline()
    with pytest.raises(ConnectionError):  # noqa: PT012 (how many writes it takes is the kernel's business)
        async with asyncio.timeout(5):
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()


async def test_nobody_sends_more_than_so_much_after_the_refusal(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 1_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(post("Content-Length: 500000000"))
    assert b"413" in await reader.readline()
    sent = 0
    with pytest.raises(ConnectionError):  # noqa: PT012 (how much waits in the kernel is its business)
        async with asyncio.timeout(4):
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
                sent += 100_000
    assert sent < 50_000_000
    writer.close()


async def test_a_body_just_over_the_cap_holds_up_nobody_behind_it(start: Start) -> None:
    """The refusal comes when all of the body is here, so there is nothing to wait for."""
    instance: Instance = await start(control_body=100)
    chunk = b"c8\r\n" + b"x" * 200 + b"\r\n0\r\n\r\n"
    sent = post("Transfer-Encoding: chunked") + chunk + head("GET /livez HTTP/1.1")
    began = asyncio.get_running_loop().time()
    assert [status for status, _ in await exchange(instance.port, sent)] == [413, 200]
    assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize("close", [False, True], ids=["kept alive", "Connection: close"])
@pytest.mark.parametrize(("path", "token", "status"), [("/mcp", True, 413), ("/v1/projects", True, 413), ("/mcp", False, 401)])
async def test_a_client_that_writes_all_before_it_reads_gets_its_refusal(
    instance: Instance, path: str, token: bool, status: int, close: bool
) -> None:
    key = (ADMIN if path.startswith("/v1") else instance.key) if token else "wrong"

    def once() -> tuple[int, str | None]:
        client = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=20)
        try:
            headers = {"authorization": f"Bearer {key}", **({"connection": "close"} if close else {})}
            client.request("POST", path, b"x" * 9_000_000, headers)
            answer = client.getresponse()
            answer.read()
            return answer.status, answer.getheader("connection")
        finally:
            client.close()

    assert [await asyncio.to_thread(once) for _ in range(20)] == [(status, "close")] * 20


async def test_a_refused_body_of_thirty_megabytes_still_gets_its_answer_by_urllib(instance: Instance) -> None:
    def once() -> int:
        request = urllib.request.Request(instance.url + "/mcp", b"x" * 30_000_000, instance.bearer)
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=20):
            pass
        refused.value.close()
        return refused.value.code

    assert [await asyncio.to_thread(once) for _ in range(5)] == [413] * 5


async def test_a_head_that_does_not_end_is_refused_in_time(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECS", 0.2)
    (status, answer), *_ = await exchange(instance.port, b"GET /livez HTTP/1.1\r\nHost: local")
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert await exchange(instance.port, b"") == []


async def test_a_body_that_does_not_come_is_refused_in_time(start: Start) -> None:
    instance: Instance = await start(body_secs=0.2)
    (status, answer), *_ = await exchange(instance.port, post("Content-Length: 100") + b"{")
    assert (status, answer["error"]["message"]) == (400, "The body did not arrive in time")


async def test_two_hundred_slow_clients_keep_nobody_else_waiting(instance: Instance) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", instance.port) for _ in range(200)]
    for _, writer in slow:
        writer.write(b"POST /mcp HTTP/1.1\r\nHost: loc")
    began = asyncio.get_running_loop().time()
    assert (await instance.data("GET", "/livez")) == {"status": "alive"}
    assert asyncio.get_running_loop().time() - began < 3
    for _, writer in slow:
        writer.close()


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 100_000, b'{"name": ' + b"9" * 500_000 + b"}", b'{"name": "\xff"}', b"NaN", b"", b"\0" * 1000],
    ids=["deep list", "deep object", "long number", "bad UTF-8", "NaN", "nothing", "NULs"],
)
async def test_a_json_bomb_is_refused_quickly(instance: Instance, body: bytes) -> None:
    began = asyncio.get_running_loop().time()
    (status, answer), *_ = await exchange(instance.port, post(f"Content-Length: {len(body)}") + body)
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(instance: Instance) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(post("Content-Length: 100") + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await instance.data("GET", "/livez")) == {"status": "alive"}
