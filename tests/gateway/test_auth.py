"""Who may ask what."""

from __future__ import annotations

import asyncio
import re

import pytest

from rootlink.gateway import v1
from rootlink.gateway.auth import digest, new_key
from tests.gateway.conftest import ADMIN, Instance, Start, until
from tests.gateway.raw import exchange

EXPIRED_COOKIE = "rootlink_session=" + "x" * 43


async def _cookie(instance: Instance, token: str = ADMIN) -> str:
    async with instance.http.post(instance.url + "/v1/session", json={"token": token}) as response:
        assert response.status == 201
        return response.headers["set-cookie"].split(";")[0]


async def _raw(instance: Instance, method: str, path: str, *headers: str, body: bytes = b"") -> int:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{instance.port}", f"Content-Length: {len(body)}", *headers]
    ((status, _),) = await exchange(instance.port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return status


async def test_a_key_has_256_random_bits_and_only_its_hash_is_kept(instance: Instance) -> None:
    assert re.fullmatch(r"rl_sk_[0-9a-f]{64}", instance.key)
    assert len({new_key() for _ in range(100)}) == 100
    assert instance.store.keys.find(digest(instance.key)) is not None
    shown = await instance.data("GET", "/v1/projects/default/keys")
    assert instance.key.startswith(shown[0]["prefix"])
    assert len(shown[0]["prefix"]) == 12
    assert "key" not in shown[0]


WRONG_KEYS = {
    "none": None,
    "an unknown one": "Bearer rl_sk_" + "0" * 64,
    "one cut short": "Bearer rl_sk_" + "0" * 63,
    "one in capitals": "Bearer RL_SK_" + "0" * 64,
    "the admin token": f"Bearer {ADMIN}",
    "another scheme": "Basic rl_sk_" + "0" * 64,
    "nothing after the scheme": "Bearer",
    "bytes beyond ASCII": "Bearer rl_sk_\xe4" + "0" * 62,
    "a project's id": "Bearer prj_000000000000",
}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/main", "/mcp/sse", "/engine/api/v1/ws/main/tools"])
async def test_without_the_right_key_no_call_gets_through(instance: Instance, path: str) -> None:
    for sentence, value in WRONG_KEYS.items():
        headers = {"authorization": value} if value is not None else {}
        async with instance.http.post(instance.url + path, json={}, headers=headers) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (401, "unauthorized"), sentence
            assert response.headers["www-authenticate"].startswith("Bearer")
    assert instance.engine.requests == []
    assert not [call for call in instance.provisioner.calls if call.startswith("ensure")], "a stranger started an engine"


async def test_a_wrong_key_is_told_the_same_whatever_is_wrong_with_it(instance: Instance) -> None:
    revoked = await instance.data("POST", "/v1/projects/default/keys", {"name": "old"})
    await instance.data("DELETE", f"/v1/projects/default/keys/{revoked['id']}")
    wrong = [revoked["key"], "rl_sk_" + "0" * 64, "rl_sk_xyz", "garbage"]
    assert len({await instance.refused("GET", "/mcp", token=key) for key in wrong}) == 1


async def test_a_revoked_key_is_refused_at_once_and_its_streams_end(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    key = await instance.data("POST", "/v1/projects/default/keys", {"name": "stolen"})
    async with instance.http.get(instance.url + "/mcp", headers={"authorization": f"Bearer {key['key']}"}) as response:
        await response.content.readuntil(b"\n\n")
        revoked = await instance.data("DELETE", f"/v1/projects/default/keys/{key['id']}")
        assert revoked["revoked_at"]
        assert (await instance.refused("GET", "/mcp", token=key["key"]))[0] == 401
        assert await asyncio.wait_for(response.content.read(), 2) == b""


async def test_a_key_revoked_by_another_process_is_refused_within_a_second(instance: Instance) -> None:
    await instance.mcp()
    (key,) = instance.store.keys.list(instance.project)
    instance.store.keys.revoke(instance.project, key.id)
    refused = []

    async def ask() -> None:
        while (await instance.call("GET", "/engine/api/v1/x", token=instance.key))[0] != 401:
            await asyncio.sleep(0.05)
        refused.append(True)

    await asyncio.wait_for(ask(), 1.5)
    await until(lambda: bool(refused))


async def test_a_key_reaches_its_own_project_only(instance: Instance) -> None:
    await instance.data("POST", "/v1/projects", {"name": "other"})
    other = await instance.data("GET", "/v1/projects/other")
    key = (await instance.data("POST", "/v1/projects/other/keys", {"name": "k", "scopes": ["use"]}))["key"]
    assert (await instance.call("GET", "/engine/api/v1/x", token=key))[0] == 200
    assert instance.engine.requests == []
    assert instance.provisioner.of(other["id"]).requests[0][2]["x-rootlink-scopes"] == "use"


ALL = sorted({(route.method, route.path) for route in v1.ROUTES if not route.open})


async def test_no_route_of_the_control_plane_answers_a_stranger(start: Start) -> None:
    instance: Instance = await start()
    wrong = {
        "nothing": {},
        "a project key": instance.bearer,
        "an unknown token": {"authorization": "Bearer " + "a" * 64},
        "an empty token": {"authorization": "Bearer "},
        "an unknown session": {"cookie": EXPIRED_COOKIE},
        "the token as a cookie": {"cookie": f"rootlink_session={ADMIN}"},
        "the token in the query": {},
    }
    let_in = []
    for method, path in ALL:
        for sentence, headers in wrong.items():
            url = instance.url + re.sub(r"\{\w+\}", "default", path) + (f"?token={ADMIN}" if "query" in sentence else "")
            async with instance.http.request(method, url, headers=headers, json={} if method == "POST" else None) as response:
                if response.status != 401:
                    let_in.append((method, path, sentence, response.status))
    assert let_in == []
    assert len(ALL) >= 25


async def test_a_session_opens_the_control_plane_and_ends(instance: Instance) -> None:
    cookie = await _cookie(instance)
    async with instance.http.get(instance.url + "/v1/session", headers={"cookie": cookie}) as response:
        session = (await response.json())["data"]
    assert session["actor"] == "session"
    assert 12 * 3600 - 60 < session["expires_in"] <= 12 * 3600
    assert await _raw(instance, "GET", "/v1/projects", f"Cookie: a=b; {cookie}") == 200
    assert await _raw(instance, "DELETE", "/v1/session", f"Cookie: {cookie}", "Sec-Fetch-Site: same-origin") == 200
    assert await _raw(instance, "GET", "/v1/projects", f"Cookie: {cookie}") == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(instance: Instance, start: Start) -> None:
    async with instance.http.post(instance.url + "/v1/session", json={"token": ADMIN}) as response:
        attributes = response.headers["set-cookie"].split("; ")
    assert set(attributes[1:]) == {"Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"}


async def test_over_https_the_cookie_is_bound_to_the_host(start: Start) -> None:
    instance: Instance = await start(secure_cookies=True)
    async with instance.http.post(instance.url + "/v1/session", json={"token": ADMIN}) as response:
        cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-rootlink_session=")
    assert cookie.endswith("; Secure")


async def test_a_session_changes_things_only_from_our_own_pages(instance: Instance) -> None:
    cookie = f"Cookie: {await _cookie(instance)}"
    own = f"127.0.0.1:{instance.port}"
    tried = {
        "a page of ours": (["Sec-Fetch-Site: same-origin"], 201),
        "an old browser on a page of ours": ([f"Origin: http://{own}"], 201),
        "nobody knows where from": ([], 403),
        "another page of this machine": (["Origin: http://127.0.0.1:9999"], 403),
        "another site": (["Sec-Fetch-Site: cross-site"], 403),
        "another port": (["Sec-Fetch-Site: same-site", f"Origin: http://{own}"], 403),
        "typed into the address bar": (["Sec-Fetch-Site: none"], 403),
        "https where we have none": ([f"Origin: https://{own}"], 403),
    }
    seen = {}
    for number, (sentence, (headers, _)) in enumerate(tried.items()):
        seen[sentence] = await _raw(instance, "POST", "/v1/projects", cookie, *headers, body=b'{"name": "p%d"}' % number)
    assert seen == {sentence: status for sentence, (_, status) in tried.items()}
    assert await _raw(instance, "GET", "/v1/projects", cookie, "Sec-Fetch-Site: none") == 200


async def test_a_one_time_token_opens_one_session(instance: Instance) -> None:
    link = await instance.data("POST", "/v1/session/link")
    assert link["url"] == f"{instance.url}/signin?token={link['token']}"
    cookie = await _cookie(instance, link["token"])
    assert await _raw(instance, "GET", "/v1/projects", f"Cookie: {cookie}") == 200
    assert (await instance.refused("POST", "/v1/session", {"token": link["token"]}, token=None))[0] == 401


async def test_a_sign_in_link_leads_to_the_console_once(instance: Instance) -> None:
    link = await instance.data("POST", "/v1/session/link")
    async with instance.http.get(link["url"], allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (303, "/")
        assert response.headers["referrer-policy"] == "no-referrer"
        cookie = response.headers["set-cookie"].split(";")[0]
    assert await _raw(instance, "GET", "/v1/session", f"Cookie: {cookie}") == 200
    async with instance.http.get(link["url"], allow_redirects=False) as response:
        assert (response.status, "set-cookie" in response.headers) == (401, False)


async def test_the_admin_token_is_no_sign_in_link(instance: Instance) -> None:
    assert (await instance.refused("GET", f"/signin?token={ADMIN}", token=None))[:2] == (401, "unauthorized")


async def test_only_the_admin_token_makes_links(instance: Instance) -> None:
    cookie = f"Cookie: {await _cookie(instance)}"
    assert await _raw(instance, "POST", "/v1/session/link", cookie, "Sec-Fetch-Site: same-origin") == 403


async def test_a_link_and_a_session_last_as_long_as_they_say(start: Start) -> None:
    instance: Instance = await start(session_secs=1.0, link_secs=1.0)
    link = await instance.data("POST", "/v1/session/link")
    cookie = await _cookie(instance)
    assert await _raw(instance, "GET", "/v1/projects", f"Cookie: {cookie}") == 200
    await asyncio.sleep(1.05)  # what is tested is that time
    assert await _raw(instance, "GET", "/v1/projects", f"Cookie: {cookie}") == 401
    assert (await instance.refused("POST", "/v1/session", {"token": link["token"]}, token=None))[0] == 401


async def test_a_sign_in_may_be_guessed_at_ten_times_a_minute_and_the_owner_is_never_locked_out(start: Start) -> None:
    instance: Instance = await start(guess_burst=5.0)
    tries = [await instance.refused("POST", "/v1/session", {"token": f"guess{n}"}, token=None) for n in range(20)]
    assert [refused[:2] for refused in tries] == [(401, "unauthorized")] * 5 + [(429, "rate_limited")] * 15
    assert await _cookie(instance)


async def test_a_wrong_bearer_gets_the_same_answer_however_often_it_comes(start: Start) -> None:
    instance: Instance = await start(guess_burst=5.0)
    assert {(await instance.call("GET", "/mcp", token=f"guess{n}"))[0] for n in range(20)} == {401}
    assert {(await instance.call("GET", "/v1/projects", token=f"guess{n}"))[0] for n in range(20)} == {401}
    assert (await instance.mcp())[0] == 200
