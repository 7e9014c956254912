"""Requests that are allowed, and what becomes of them: pins, TLS, redirects, headers, limits, a policy that changes."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trustme
from aiohttp import web

from rootlink.engine.outbound import MAX_REDIRECTS, read_capped
from rootlink.errors import EgressBlocked, Invalid, TooLarge, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from tests.outbound.conftest import LOOPBACK, Canary, MakeOut, Serve

SECRET = "whsec-1f2e3d4c"


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"host": request.headers["Host"], "method": request.method, "body": await request.text()})


async def test_a_pinned_name_is_served_by_the_pinned_address_under_its_own_tls_name(
    serve: Serve, make_out: MakeOut, ca: trustme.CA, ca_file: Path
) -> None:
    api = await serve(hello, tls=ca)
    out = make_out(["api.example.com"], private=[], resolve=[f"api.example.com:443=127.0.0.1:{api.port}"], ca=ca_file)
    async with out.outbound.scope("api", None).request("POST", "https://api.example.com/x", data=b"hi", timeout=5) as response:
        assert msgspec.json.decode(await read_capped(response, 1000)) == {
            "host": "api.example.com",
            "method": "POST",
            "body": "hi",
        }
    assert (out.reasons, out.names.asked) == (["pinned"], [])


async def test_a_certificate_for_another_name_is_refused(serve: Serve, make_out: MakeOut, ca: trustme.CA, ca_file: Path) -> None:
    api = await serve(hello, tls=ca, name="other.example.com")
    out = make_out(["api.example.com"], private=[], resolve=[f"api.example.com:443=127.0.0.1:{api.port}"], ca=ca_file)
    with pytest.raises(UpstreamFailed, match=r"certificate of host 'api\.example\.com' port 443 is not trusted"):
        async with out.outbound.scope("api", None).request("GET", "https://api.example.com/", timeout=5):
            pass


async def test_without_the_extra_ca_its_certificate_is_refused(serve: Serve, make_out: MakeOut, ca: trustme.CA) -> None:
    api = await serve(hello, tls=ca)
    out = make_out(["api.example.com"], private=[], resolve=[f"api.example.com:443=127.0.0.1:{api.port}"])
    with pytest.raises(UpstreamFailed, match="not trusted"):
        async with out.outbound.scope("api", None).request("GET", "https://api.example.com/", timeout=5):
            pass


async def test_an_extra_ca_that_is_no_certificate_is_named(make_out: MakeOut, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    out = make_out(["api.example.com"], ca=tmp_path / "ca.pem")
    with pytest.raises(Unavailable, match=r"ca\.pem.*--extra-ca"):
        async with out.outbound.scope("api", None).request("GET", "https://api.example.com/", timeout=5):
            pass


async def test_a_connection_reaches_its_own_hosts_and_no_other_allowed_one(canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.example.com:{canary.port}", f"other.example.org:{canary.port}"])
    scope = out.outbound.scope("api", [f"api.example.com:{canary.port}"])
    async with scope.request("GET", f"http://api.example.com:{canary.port}/", timeout=5) as response:
        assert response.status == 200
    with pytest.raises(EgressBlocked, match="not one of this connection's own hosts"):
        async with scope.request("GET", f"http://other.example.org:{canary.port}/", timeout=5):
            pass
    assert [(connection, decision.reason) for connection, decision in out.decisions] == [
        ("api", "in_allowlist"),
        ("api", "not_in_connection"),
    ]


async def test_a_check_refuses_as_a_request_would_and_is_recorded(make_out: MakeOut) -> None:
    out = make_out(["api.example.com"])
    out.outbound.check("https://api.example.com/mcp", "api", None)
    with pytest.raises(EgressBlocked):
        out.outbound.check("https://evil.example/mcp", "api", None)
    assert (out.reasons, out.names.asked) == (["in_allowlist", "not_in_allowlist"], [])


async def test_headers_that_steer_the_connection_are_not_the_callers(serve: Serve, make_out: MakeOut) -> None:
    api = await serve(hello)
    out = make_out([f"api.example.com:{api.port}"])
    steering = {
        "Host": "evil.example",
        "Connection": "x-key",
        "Proxy-Authorization": "Basic eA==",
        "Upgrade": "h2c",
        "Content-Length": "99",
    }
    steering |= {
        "HTTP2-Settings": "AAMAAABk",
        "Transfer-Encoding": "chunked",
        "TE": "trailers",
        "Expect": "100-continue",
        "X-Key": "1",
    }
    async with out.outbound.scope("api", None).request(
        "POST", f"http://api.example.com:{api.port}/", headers=steering, data=b"hi", timeout=5
    ) as response:
        assert response.status == 200
    headers = api.seen[0].headers
    assert headers["Host"] == f"api.example.com:{api.port}"
    assert headers["X-Key"] == "1"
    assert headers["Content-Length"] == "2"
    assert not {"Proxy-Authorization", "Upgrade", "HTTP2-Settings", "Transfer-Encoding", "TE", "Expect"} & set(headers)


MALFORMED = [
    ("GET /x", {}),
    ("CONNECT", {}),
    ("TRACE", {}),
    ("", {}),
    ("GET", {"a b": "c"}),
    ("GET", {"a": "b\r\nc: d"}),
    ("GET", {"": "x"}),
]


@pytest.mark.parametrize(("method", "headers"), MALFORMED)
async def test_a_malformed_method_or_header_is_refused(
    method: str, headers: dict[str, str], canary: Canary, make_out: MakeOut
) -> None:
    out = make_out([f"api.example.com:{canary.port}"])
    with pytest.raises(Invalid):
        async with out.outbound.scope("api", None).request(
            method, f"http://api.example.com:{canary.port}/", headers=headers, timeout=5
        ):
            pass
    assert canary.seen == 0


async def test_no_proxy_variable_is_obeyed(
    canary: Canary, serve: Serve, make_out: MakeOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    api = await serve(hello)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
        assert response.status == 200
    assert (canary.seen, len(api.seen)) == (0, 1)


async def test_cookies_are_not_kept(serve: Serve, make_out: MakeOut) -> None:
    async def cookie(_: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "id=1"})

    api = await serve(cookie)
    out = make_out([f"api.example.com:{api.port}"])
    for _ in range(2):
        async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
            await response.read()
    assert "Cookie" not in api.seen[1].headers


# redirects


def redirecting(status: int, location: str) -> web.Response:
    return web.Response(status=status, headers={"Location": location})


async def test_a_redirect_is_handed_over_unless_it_is_to_be_followed(serve: Serve, make_out: MakeOut) -> None:
    async def away(_: web.Request) -> web.Response:
        return redirecting(302, "http://evil.example/")

    api = await serve(away)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
        assert response.status == 302


REFUSED_HOPS = {
    "to a host that is not allowed": ("http://evil.example:{port}/", "not_in_allowlist"),
    "to another connection's host": ("http://other.example.org:{port}/", "not_in_connection"),
    "without a scheme to another host": ("//evil.example:{port}/", "not_in_allowlist"),
    "to an address": ("http://127.0.0.1:{port}/", "not_in_allowlist"),
    "to a file": ("file:///etc/passwd", "scheme"),
    "with a backslash": ("/\\evil.example:{port}/", "bad_url"),
    "with backslashes for slashes": ("\\\\evil.example:{port}/", "bad_url"),
    "with a tab": ("http://api.example.com\t.evil.example:{port}/", "bad_url"),
    "with a user name": ("http://api.example.com@evil.example:{port}/", "bad_url"),
    "to another port": ("http://api.example.com:22/", "port"),
}


@pytest.mark.parametrize(("location", "reason"), REFUSED_HOPS.values(), ids=REFUSED_HOPS)
async def test_a_redirect_is_refused(location: str, reason: str, serve: Serve, canary: Canary, make_out: MakeOut) -> None:
    async def away(_: web.Request) -> web.Response:
        return redirecting(307, location.replace("{port}", str(canary.port)))

    api = await serve(away)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule, f"other.example.org:{canary.port}"])
    with pytest.raises(EgressBlocked):
        async with out.outbound.scope("api", [rule]).request("GET", f"http://{rule}/", timeout=5, follow=True):
            pass
    assert (out.reasons, canary.seen) == (["in_allowlist", reason], 0)


async def test_credentials_do_not_go_along_to_another_host(serve: Serve, make_out: MakeOut) -> None:
    target = await serve(hello)

    async def away(_: web.Request) -> web.Response:
        return redirecting(307, f"http://other.example.org:{target.port}/")

    api = await serve(away)
    out = make_out([f"api.example.com:{api.port}", f"other.example.org:{target.port}"])
    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "X-API-Key": SECRET, "Accept": "text/plain"}
    async with out.outbound.scope("api", None).request(
        "POST", f"http://api.example.com:{api.port}/", headers=headers, data="hi", timeout=5, follow=True
    ) as response:
        assert (await response.json())["body"] == "hi"
    assert SECRET in api.seen[0].headers["Authorization"]
    assert SECRET not in str(target.seen[0].headers)
    assert target.seen[0].headers["Accept"] == "text/plain"


async def test_credentials_go_along_within_one_origin(serve: Serve, make_out: MakeOut) -> None:
    async def once(request: web.Request) -> web.Response:
        return redirecting(302, "/there?x=1") if request.path == "/" else await hello(request)

    api = await serve(once)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request(
        "GET", f"http://api.example.com:{api.port}/", headers={"Authorization": SECRET}, timeout=5, follow=True
    ) as response:
        assert (response.url.path, response.url.query_string) == ("/there", "x=1")
    assert api.seen[1].headers["Authorization"] == SECRET


METHODS = [
    (301, "POST", "GET", ""),
    (302, "POST", "GET", ""),
    (303, "PUT", "GET", ""),
    (303, "HEAD", "HEAD", ""),
    (302, "PUT", "PUT", "hi"),
    (307, "POST", "POST", "hi"),
    (308, "POST", "POST", "hi"),
]


@pytest.mark.parametrize(("status", "method", "then", "body"), METHODS)
async def test_a_redirect_changes_method_and_body_as_fetch_does(
    status: int, method: str, then: str, body: str, serve: Serve, make_out: MakeOut
) -> None:
    async def once(request: web.Request) -> web.Response:
        return (
            redirecting(status, "/there")
            if request.path == "/"
            else web.Response(text=f"{request.method} {await request.text()}")
        )

    api = await serve(once)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request(
        method, f"http://api.example.com:{api.port}/", headers={"Content-Type": "x/y"}, data="hi", timeout=5, follow=True
    ) as response:
        said = await response.text()
    assert api.seen[1].method == then
    assert said in (f"{then} {body}", "")
    assert ("Content-Type" in api.seen[1].headers) is bool(body or then == "HEAD")


async def test_a_stream_is_not_sent_twice(serve: Serve, make_out: MakeOut) -> None:
    async def away(request: web.Request) -> web.Response:
        await request.read()
        return redirecting(307, "/there")

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"

    api = await serve(away)
    out = make_out([f"api.example.com:{api.port}"])
    with pytest.raises(UpstreamFailed, match="cannot be sent again"):
        async with out.outbound.scope("api", None).request(
            "POST", f"http://api.example.com:{api.port}/", data=chunks(), timeout=5, follow=True
        ):
            pass


async def test_redirects_in_a_circle_end(serve: Serve, make_out: MakeOut) -> None:
    async def again(_: web.Request) -> web.Response:
        return redirecting(302, "/")

    api = await serve(again)
    out = make_out([f"api.example.com:{api.port}"])
    with pytest.raises(UpstreamFailed, match=f"more than {MAX_REDIRECTS} times"):
        async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5, follow=True):
            pass
    assert len(api.seen) == MAX_REDIRECTS + 1


# a policy that changes


async def test_a_removed_host_is_refused_at_once_though_its_connection_is_idle(serve: Serve, make_out: MakeOut) -> None:
    api = await serve(hello)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule])
    scope = out.outbound.scope("api", None)
    async with scope.request("GET", f"http://{rule}/", timeout=5) as response:
        await response.read()
    out.outbound.update(EgressPolicy(allow=[], private=LOOPBACK))
    with pytest.raises(EgressBlocked):
        async with scope.request("GET", f"http://{rule}/", timeout=5):
            pass
    assert len(api.seen) == 1


async def test_an_added_host_is_allowed_at_once(canary: Canary, make_out: MakeOut) -> None:
    rule = f"api.example.com:{canary.port}"
    out = make_out([])
    scope = out.outbound.scope("api", None)
    with pytest.raises(EgressBlocked):
        scope.check(f"http://{rule}/")
    out.outbound.update(EgressPolicy(allow=[rule], private=LOOPBACK))
    async with scope.request("GET", f"http://{rule}/", timeout=5) as response:
        assert response.status == 200


async def test_an_idle_connection_is_reused_until_the_policy_changes(serve: Serve, make_out: MakeOut) -> None:
    api = await serve(hello)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule])

    async def ask() -> None:
        async with out.outbound.scope("api", None).request("GET", f"http://{rule}/", timeout=5) as response:
            await response.read()

    await ask()
    await ask()
    assert len(api.connections) == 1
    out.outbound.update(EgressPolicy(allow=[rule, "more.example"], private=LOOPBACK))
    await ask()
    assert len(api.connections) == 2


async def test_an_open_stream_is_cut_when_its_host_is_removed(serve: Serve, make_out: MakeOut) -> None:
    held = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        await held.wait()
        return response

    api = await serve(stream)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule, "more.example"])

    async def listen() -> None:
        async with out.outbound.scope("api", None).request("GET", f"http://{rule}/") as response:
            assert await response.content.readline() == b"one\n"
            out.outbound.update(EgressPolicy(allow=["more.example"], private=LOOPBACK))
            await response.content.readline()

    with pytest.raises(EgressBlocked, match="not in this project's outbound allowlist"):
        await listen()
    held.set()
    assert out.reasons == ["in_allowlist", "not_in_allowlist"]


async def test_an_open_stream_goes_on_when_another_host_is_removed(serve: Serve, make_out: MakeOut) -> None:
    held = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        await held.wait()
        await response.write(b"two\n")
        return response

    api = await serve(stream)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule, "more.example"])
    async with out.outbound.scope("api", None).request("GET", f"http://{rule}/") as response:
        assert await response.content.readline() == b"one\n"
        out.outbound.update(EgressPolicy(allow=[rule], private=LOOPBACK))
        held.set()
        assert await response.content.readline() == b"two\n"


async def test_an_answer_that_was_on_its_way_when_its_host_was_removed_is_not_handed_over(
    serve: Serve, make_out: MakeOut
) -> None:
    asked, held = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await held.wait()
        return web.Response(text="late")

    api = await serve(slow)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule])

    async def ask() -> None:
        async with out.outbound.scope("api", None).request("GET", f"http://{rule}/", timeout=5):
            pass

    task = asyncio.create_task(ask())
    await asked.wait()
    out.outbound.update(EgressPolicy(allow=[], private=LOOPBACK))
    held.set()
    with pytest.raises(EgressBlocked):
        await task


async def test_an_open_stream_to_a_private_address_is_cut_when_the_operator_closes_its_network(
    serve: Serve, make_out: MakeOut
) -> None:
    held = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await held.wait()
        return response

    api = await serve(stream)
    rule = f"api.example.com:{api.port}"
    out = make_out([rule])

    async def listen() -> None:
        async with out.outbound.scope("api", None).request("GET", f"http://{rule}/") as response:
            out.outbound.update(EgressPolicy(allow=[rule], private=[]))
            await response.content.readline()

    with pytest.raises(EgressBlocked, match="a loopback address"):
        await listen()
    held.set()


async def test_a_broken_line_of_the_list_opens_nothing_and_holds_no_other_up(canary: Canary, make_out: MakeOut) -> None:
    out = make_out(["*.evil.example", f"api.example.com:{canary.port}"])
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{canary.port}/", timeout=5) as response:
        assert response.status == 200
    with pytest.raises(EgressBlocked):
        out.outbound.check("http://x.evil.example/", "api", None)


# limits and failures


async def test_a_body_larger_than_the_cap_is_refused(serve: Serve, make_out: MakeOut) -> None:
    async def large(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5000)

    api = await serve(large)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
        with pytest.raises(TooLarge, match="larger than 4999 bytes"):
            await read_capped(response, 4999)
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
        assert len(await read_capped(response, 5000)) == 5000


async def test_a_small_answer_that_unpacks_into_a_flood_is_refused(serve: Serve, make_out: MakeOut) -> None:
    flood = gzip.compress(b"\0" * 64_000_000)

    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=flood, headers={"Content-Encoding": "gzip"})

    api = await serve(bomb)
    out = make_out([f"api.example.com:{api.port}"])
    async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/", timeout=5) as response:
        with pytest.raises(TooLarge):
            await read_capped(response, 1_000_000)


async def test_a_deadline_spans_redirects_and_the_body(serve: Serve, make_out: MakeOut) -> None:
    held = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.path == "/":
            return redirecting(302, "/there")
        response = web.StreamResponse()
        await response.prepare(request)
        await held.wait()
        return response

    api = await serve(slow)
    out = make_out([f"api.example.com:{api.port}"])
    began = time.monotonic()
    with pytest.raises(UpstreamFailed, match="did not answer in time"):
        async with out.outbound.scope("api", None).request(
            "GET", f"http://api.example.com:{api.port}/", timeout=0.3, follow=True
        ) as response:
            await response.read()
    assert time.monotonic() - began < 3
    held.set()


async def test_what_the_caller_raises_in_its_own_block_stays_as_it_is(canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.example.com:{canary.port}"])
    for error in (ValueError("mine"), TimeoutError("mine"), KeyError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{canary.port}/", timeout=5):
                raise error


async def test_an_unreachable_port_an_unknown_name_and_nonsense_are_told_in_words_without_the_url(make_out: MakeOut) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-nonsense\r\n")
        writer.close()

    closed = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    gone = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        out = make_out([f"api.example.com:{gone}", f"api.example.com:{port}"])
        for url, words in (
            (f"http://api.example.com:{gone}", "cannot be reached"),
            (f"http://api.example.com:{port}", "not proper HTTP"),
        ):
            with pytest.raises(UpstreamFailed, match=words) as caught:
                async with out.outbound.scope("api", None).request("GET", f"{url}/?key={SECRET}", timeout=5):
                    pass
            assert SECRET not in str(caught.value)


async def test_a_name_that_dns_does_not_know_is_told_so(make_out: MakeOut) -> None:
    out = make_out(["api.example.com"])
    out.names.leads["api.example.com"] = []
    with pytest.raises(UpstreamFailed, match=r"'api\.example\.com' is not known to DNS"):
        async with out.outbound.scope("api", None).request("GET", "https://api.example.com/", timeout=5):
            pass


async def test_after_close_nothing_leaves(canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.example.com:{canary.port}"])
    await out.outbound.close()
    with pytest.raises(Unavailable):
        async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{canary.port}/", timeout=5):
            pass
    assert canary.seen == 0


async def test_a_cancelled_request_leaves_no_connection(serve: Serve, make_out: MakeOut) -> None:
    asked = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    api = await serve(never)
    out = make_out([f"api.example.com:{api.port}"])

    async def ask() -> None:
        async with out.outbound.scope("api", None).request("GET", f"http://api.example.com:{api.port}/"):
            pass

    task = asyncio.create_task(ask())
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(not line.exchanges for line in out.outbound._lines)


def test_the_http_client_is_not_loaded_before_the_first_request() -> None:
    """It costs a cold engine a tenth of a second."""
    code = "import sys, rootlink.engine.outbound; sys.exit('aiohttp' in sys.modules or 'yarl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
