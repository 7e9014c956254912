"""What OAuth clients are told about `/mcp`, and that the official ones come to a clear end without a key, and need nothing of it
with one."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any

import httpx2
import msgspec
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.gateway.conftest import Instance, Start
from tests.gateway.raw import exchange

WELL_KNOWN = "/.well-known/oauth-protected-resource"
ENDPOINTS = ["/mcp", "/mcp/main", "/mcp/Two_2", "/mcp/sse", "/mcp/main/sse"]


async def _metadata(instance: Instance, path: str) -> tuple[int, Any]:
    async with instance.http.get(instance.url + WELL_KNOWN + path) as response:
        assert response.headers["cache-control"] == "no-store"
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["", *ENDPOINTS])
async def test_the_metadata_of_an_endpoint_names_that_very_endpoint(instance: Instance, path: str) -> None:
    status, document = await _metadata(instance, path)
    assert (status, document) == (
        200,
        {
            "resource": instance.url + path,
            "resource_name": "Rootlink",
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["use", "manage"],
        },
    )


@pytest.mark.parametrize("path", ["/engine", "/mcp/a/b", "/mcp/main/sse/messages", "/mcp/%22", "/mcp/-x", "/mcp/"])
async def test_what_is_no_endpoint_has_no_metadata(instance: Instance, path: str) -> None:
    assert (await instance.refused("GET", WELL_KNOWN + path, token=None))[:2] == (404, "not_found")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_refusal_leads_to_the_metadata_of_its_endpoint(instance: Instance, path: str) -> None:
    async with instance.http.post(instance.url + path, json={}) as response:
        assert response.status == 401
        assert response.headers["www-authenticate"] == f'Bearer resource_metadata="{instance.url}{WELL_KNOWN}{path}"'
    async with instance.http.get(instance.url + path, headers={"authorization": "Bearer wrong"}) as response:
        assert response.headers["www-authenticate"].endswith(', error="invalid_token"')


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/mcp/sse/messages", "/mcp/sse"), ("/mcp/a/b", "/mcp"), ('/mcp/"x', "/mcp"), ("/mcp/%0d%0aX:1", "/mcp")],
)
async def test_a_refusal_at_a_path_that_is_no_endpoint_says_nothing_the_client_made_up(
    instance: Instance, path: str, endpoint: str
) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(sent)
    head = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")[0].decode().lower()
    writer.close()
    assert f'www-authenticate: bearer resource_metadata="http://localhost{WELL_KNOWN}{endpoint}"\r\n' in head + "\r\n"


async def test_rest_asks_for_a_key_without_talking_of_oauth(instance: Instance) -> None:
    for path in ("/engine/api/v1/ws/main/tools", "/v1/projects"):
        async with instance.http.get(instance.url + path) as response:
            assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_resource_has_the_name_the_client_knows_us_by_and_no_forwarded_one(start: Start) -> None:
    instance: Instance = await start(allowed_hosts=frozenset({"rootlink.example"}))
    for host, origin in (("rootlink.example:8443", "http://rootlink.example:8443"), ("localhost", "http://localhost")):
        sent = (
            f"GET {WELL_KNOWN}/mcp HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n"
            "Forwarded: host=evil.example;proto=https\r\n\r\n"
        )
        (status, document), *_ = await exchange(instance.port, sent.encode())
        assert (status, document["resource"]) == (200, f"{origin}/mcp")
    evil = f"GET {WELL_KNOWN}/mcp HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert (await exchange(instance.port, evil.encode()))[0][0] == 403


async def test_behind_tls_the_resource_is_https(start: Start) -> None:
    instance: Instance = await start(secure_cookies=True)
    _, document = await _metadata(instance, "/mcp")
    assert document["resource"] == instance.url.replace("http://", "https://") + "/mcp"


async def test_no_authorization_server_is_there(instance: Instance) -> None:
    for path in ("oauth-authorization-server", "oauth-authorization-server/mcp", "openid-configuration"):
        assert (await instance.refused("GET", f"/.well-known/{path}", token=None))[0] == 404


async def test_who_would_register_a_client_is_told_in_oauths_words_what_is_needed(instance: Instance) -> None:
    def register() -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=10)
        try:
            connection.request("POST", "/register", b'{"redirect_uris": ["http://localhost/"]}' + b" " * 200_000)
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()

    status, answer = await asyncio.to_thread(register)
    assert (status, answer["error"]) == (403, "access_denied")
    assert "rl_sk_" in answer["error_description"]


class Memory:
    """The SDK's token storage."""

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        raise AssertionError("there are no tokens to be had")

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("no client is registered")


async def _never(*_: Any) -> Any:
    raise AssertionError("nobody is sent to a browser")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_that_would_sign_in_ends_with_words_that_say_what_is_needed(
    instance: Instance, mode: Any
) -> None:
    asked: list[str] = []

    async def see(request: httpx2.Request) -> None:
        asked.append(f"{request.method} {request.url.path}")

    metadata = OAuthClientMetadata(redirect_uris=["http://localhost:1/"], client_name="t")  # type: ignore[list-item]
    provider = OAuthClientProvider(instance.url + "/mcp", metadata, Memory(), _never, _never)

    async def connect() -> None:
        async with (
            asyncio.timeout(20),
            httpx2.AsyncClient(auth=provider, event_hooks={"request": [see]}) as http_client,
            Client(streamable_http_client(instance.url + "/mcp", http_client=http_client), mode=mode),
        ):
            raise AssertionError("it connected")

    with pytest.raises(Exception) as refused:  # noqa: PT011 (the SDK wraps it in groups of its own)
        await connect()
    assert "rl_sk_" in _words(refused.value)
    assert len(asked) <= 20, f"it goes round in a loop: {asked}"
    assert instance.engine.requests == []


def _words(error: BaseException) -> str:
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else [error.__cause__, error.__context__]
    return " ".join([str(error), *(_words(part) for part in parts if part is not None)])


def test_the_official_client_looks_where_the_documents_are() -> None:
    challenge = f"http://h{WELL_KNOWN}/mcp/main"
    looked = build_protected_resource_metadata_discovery_urls(challenge, "http://h/mcp/main")
    assert looked == [challenge, challenge, f"http://h{WELL_KNOWN}"]
