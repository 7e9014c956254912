"""Sign-ins of one engine at a real authorization server, for a real MCP server that takes its tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from nacl.public import PrivateKey, SealedBox

from rootlink.engine import rpc
from rootlink.engine.app import Engine
from rootlink.engine.dispatch import Caller
from rootlink.engine.oauth.grant import Grant, read, written
from rootlink.engine.rpc import RpcError
from rootlink.errors import Forbidden, NotFound, RootlinkError, UpstreamFailed
from rootlink.redaction import Redactor
from rootlink.sealing.envelope import Envelope
from rootlink.wire.engine import KEY_HEADER, EgressPolicy, EngineConfig, Environment, InstallEvent, SignedIn
from rootlink.wire.mounts import Desired, MountSpec, OAuth, Step
from tests.engine.oauth.authority import Client, Site, browse
from tests.harness.calls import Told

REDIRECT = "http://127.0.0.1:7717/oauth/callback"
USER = Caller("main", "user", frozenset({"use"}))
MANAGER = Caller("main", "manager", frozenset({"use", "manage"}))
VAULT = PrivateKey.generate()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().serving() as one:
        yield one


class Held:
    """An engine, and what its provisioner knows."""

    def __init__(self, engine: Engine, site: Site) -> None:
        self.engine, self.site = engine, site
        self.steps: list[Step] = []
        self.said: list[str] = []

    @property
    def spec(self) -> MountSpec:
        return MountSpec("notes", "http", endpoint=self.site.url, oauth=OAuth("NOTES_GRANT", REDIRECT))

    async def apply(self, spec: MountSpec | None = None) -> InstallEvent:
        events: list[InstallEvent] = []

        def emit(event: InstallEvent) -> None:
            events.append(event)
            if event.step is not None:
                self.steps.append(event.step)

        await self.engine.installer.apply(Desired("con1", "main", "notes", mount=spec or self.spec), emit)
        return events[-1]

    async def link(self) -> str:
        async with asyncio.timeout(20):
            while not (links := [step.link for step in self.steps if step.link is not msgspec.UNSET]):
                await asyncio.sleep(0.01)
        return str(links[-1])

    async def connect(self, spec: MountSpec | None = None) -> InstallEvent:
        """With a person who opens the link."""
        applying = asyncio.create_task(self.apply(spec))
        with contextlib.suppress(RootlinkError):  # which the connect tells too
            await self.back(await self.link())
        return await applying

    async def back(self, link: str, **changed: str | None) -> str:
        came = {**await asyncio.to_thread(browse, link), **changed}
        return await self.engine.accounts.end(SignedIn(**{name: came.get(name) for name in SignedIn.__struct_fields__}))

    async def add(self, told: Told | None = None, caller: Caller = USER) -> Any:
        asked = {"name": "notes__add", "arguments": {"a": 20, "b": 22}}
        return rpc.value(await self.engine.dispatch.handle(caller, "tools/call", asked, told))

    def kept(self) -> list[Grant]:
        """What the provisioner would put into the vault."""
        found = [read(_opened(grant.ciphertext).value) for grant in self.engine.accounts.hand_over([])]
        return [grant for grant in found if grant is not None]

    async def taken(self) -> dict[str, str]:
        """It did; the project's secrets are then these."""
        grants = self.engine.accounts.hand_over([])
        secrets = {grant.secret: _opened(grant.ciphertext).value for grant in grants}
        self.engine.accounts.hand_over([grant.id for grant in grants])
        return secrets

    def age(self) -> None:
        """The token ends now, as the engine knows it too."""
        self.site.expire()
        account = self.engine.accounts._accounts["NOTES_GRANT"]
        assert account.grant is not None
        account.grant = msgspec.structs.replace(account.grant, expires=time.time())


def _opened(ciphertext: bytes) -> Envelope:
    return msgspec.json.decode(SealedBox(VAULT).decrypt(ciphertext), type=Envelope)


@asynccontextmanager
async def engine(
    home: Path, site: Site, *, allow: list[str] | None = None, secrets: dict[str, str] | None = None
) -> AsyncIterator[Held]:
    folders = {name: str(home / name) for name in ("state_dir", "files_dir", "store_dir")}
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    policy = EgressPolicy(allow=site.places if allow is None else allow, private=["127.0.0.0/8"])
    seal = bytes(VAULT.public_key).hex()
    config = EngineConfig("prj", "key", str(home / "socket"), seal=seal, policy=policy, secrets=secrets or {}, **folders)
    async with asyncio.TaskGroup() as tasks:
        one = Engine(config, {}, Redactor(secrets or {}), tasks)
        one.installer.restore({})
        try:
            yield Held(one, site)
        finally:
            await one.close()


@pytest.fixture
async def held(tmp_path: Path, site: Site) -> AsyncIterator[Held]:
    async with engine(tmp_path, site) as one:
        yield one


# signing in


async def test_a_person_opens_the_link_and_the_server_is_mounted_with_their_sign_in(held: Held, site: Site) -> None:
    ended = await held.connect()
    assert ended.done is not None and ended.done.tools == ["notes__add"], ended
    assert (await held.add())["structuredContent"] == {"result": 42}
    asked = site.authorized[0]
    assert asked["state"].startswith("prj.") and len(asked["state"]) == len("prj.") + 43
    assert (asked["resource"], asked["code_challenge_method"], asked["scope"]) == (site.url, "S256", "notes offline_access")
    [grant] = held.kept()
    assert (grant.issuer, grant.resource, grant.access_token) == (site.issuer, site.url, site.tokens[-1].access_token)
    [sealed] = held.engine.accounts.hand_over([])
    box = _opened(sealed.ciphertext)
    assert (sealed.connection, sealed.secret, box.project, box.name, box.version) == (
        "con1",
        "NOTES_GRANT",
        "prj",
        "NOTES_GRANT",
        0,
    )


async def test_the_answer_to_a_sign_in_is_good_once(held: Held) -> None:
    applying = asyncio.create_task(held.apply())
    came = await asyncio.to_thread(browse, await held.link())
    answer = SignedIn(came["state"], came["code"], came["iss"])
    assert await held.engine.accounts.end(answer) == "notes"
    with pytest.raises(NotFound, match="ended before"):
        await held.engine.accounts.end(answer)
    assert (await applying).done is not None


async def test_an_answer_nobody_waits_for_is_refused(held: Held, site: Site) -> None:
    with pytest.raises(NotFound, match="not known"):
        await held.engine.accounts.end(SignedIn("prj." + "x" * 43, "code", site.issuer))


@pytest.mark.parametrize("iss", ["https://evil.example", "{issuer}/", None])
async def test_an_answer_of_another_issuer_is_refused_and_uses_the_sign_in_up(held: Held, site: Site, iss: str | None) -> None:
    applying = asyncio.create_task(held.apply())
    link = await held.link()
    with pytest.raises(Forbidden, match="not from the authorization server it was begun at"):
        await held.back(link, iss=None if iss is None else iss.format(issuer=site.issuer))
    with pytest.raises(NotFound):
        await held.back(link)
    ended = await applying
    assert ended.failed is not None and "not from the authorization server" in ended.failed["message"]
    assert not site.asked["authorization_code"]


async def test_a_sign_in_that_is_broken_off_ends_the_connect_that_waits_for_it(held: Held, site: Site) -> None:
    applying = asyncio.create_task(held.apply())
    link = await held.link()
    site.lies.slow = 5.0
    ending = asyncio.create_task(held.back(link))
    async with asyncio.timeout(20):
        while not site.asked["authorization_code"]:
            await asyncio.sleep(0.01)
    ending.cancel()
    async with asyncio.timeout(4):
        ended = await applying
    assert ended.failed is not None and "broken off" in ended.failed["message"]


async def test_that_a_person_declined_is_told(held: Held, site: Site) -> None:
    applying = asyncio.create_task(held.apply())
    with pytest.raises(UpstreamFailed, match="nobody was signed in: access_denied"):
        await held.back(await held.link(), error="access_denied", code=None)
    assert (await applying).failed is not None


REFUSED = {
    "another issuer in the metadata": (lambda site: setattr(site.lies, "issuer", "https://evil.example"), "names another issuer"),
    "a resource elsewhere": (
        lambda site: setattr(site.lies, "resource", "https://evil.example/mcp"),
        "for another server than itself",
    ),
    "a resource beside it": (lambda site: setattr(site.lies, "resource", f"{site.url}2"), "for another server than itself"),
    "PKCE in plain alone": (lambda site: site.lies.metadata.update(code_challenge_methods_supported=["plain"]), "PKCE with S256"),
    "no word of PKCE": (lambda site: site.lies.metadata.update(code_challenge_methods_supported=None), "PKCE with S256"),
    "a token endpoint without TLS": (
        lambda site: site.lies.metadata.update(token_endpoint="http://evil.example/t"),
        "without TLS",
    ),
    "a script for a page": (
        lambda site: site.lies.metadata.update(authorization_endpoint="javascript:alert(1)"),
        "the sign-in page",
    ),
    "a page with a user name": (
        lambda site: site.lies.metadata.update(authorization_endpoint="https://bank.example@evil.example/"),
        "the sign-in page",
    ),
    "a page on a host nobody allowed": (
        lambda site: site.lies.metadata.update(authorization_endpoint="https://evil.example/authorize"),
        "evil.example",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_what_is_wrong_at_the_authorization_server_is_refused_before_anybody_signs_in(
    held: Held, site: Site, why: str
) -> None:
    lie, words = REFUSED[why]
    lie(site)
    ended = await held.apply()
    assert ended.failed is not None and words in ended.failed["message"], ended
    assert not site.authorized and not held.kept()
    assert all(step.link is msgspec.UNSET for step in held.steps)


PAGES = [
    "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "--upload-pack=x", "$(touch x)", "|calc", "ftp://host.example/",
    "https://", "https://a@host.example/", "https://host.example\\@evil.example/", "https://host.example/ x", "https://höst.example/é",
    "https://host.example/#x", "HTTP://host.example/", "\x1b]8;;https://host.example/", "https://host.example/\u202e",
    "https://host.example/?a=b&client_id=another", "https://host.example/?redirect%5Furi=https://evil.example/", "", 7, None, [],
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
async def test_no_page_but_a_plain_https_one_is_shown_to_a_person(held: Held, site: Site, page: Any) -> None:
    site.lies.metadata["authorization_endpoint"] = page
    held.engine.outbound.update(EgressPolicy(allow=[*site.places, "host.example", "evil.example"], private=["127.0.0.0/8"]))
    async with asyncio.timeout(20):  # a page that is shown is waited for
        assert (await held.apply()).failed is not None
    assert all(step.link is msgspec.UNSET for step in held.steps)


async def test_an_authorization_server_on_a_host_nobody_allowed_is_not_asked(tmp_path: Path, site: Site) -> None:
    async with engine(tmp_path, site, allow=[site.places[1]]) as held:
        ended = await held.apply()
    assert ended.failed is not None and "egress blocked" in ended.failed["message"]
    assert not site.asked and not site.clients


async def test_an_engine_is_not_idle_while_a_person_signs_in(held: Held, site: Site) -> None:
    """What a sign-in needs to end is in memory alone."""
    await held.connect()
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=held.engine), base_url="http://e", headers={KEY_HEADER: "key"})
    async with asking:
        link = await held.engine.accounts.begin("con1")
        answer = await asking.post("/internal/stop-if-idle", json={"idle_secs": 0})
        assert answer.json()["data"] == {"stopping": False}
        await held.back(link)
        assert (await asking.post("/internal/stop-if-idle", json={"idle_secs": 0})).json()["data"] == {"stopping": True}


async def test_a_stranger_who_guesses_keeps_no_engine_awake(held: Held, site: Site) -> None:
    asking = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=held.engine), base_url="http://e", headers={KEY_HEADER: "key"})
    async with asking:
        used = held.engine.lease._last
        guess = {"state": "prj." + "x" * 43, "code": "c0de"}
        assert (await asking.post("/internal/sign-ins", json=guess)).status_code == 404
        assert held.engine.lease._last == used


async def test_others_are_installed_while_a_sign_in_waits(held: Held, site: Site) -> None:
    waiting = asyncio.create_task(held.apply())
    await held.link()
    events: list[InstallEvent] = []
    function = msgspec.convert({"name": "one", "code": "() => 1"}, type=_function())
    await held.engine.installer.apply(Desired("con2", "main", "one", function=function), events.append)
    assert events[-1].done is not None
    assert await held.engine.installer.release("con1") is False
    ended = await waiting
    assert ended.failed is not None and "taken away" in ended.failed["message"]


def _function() -> Any:
    from rootlink.wire.mounts import FunctionSpec

    return FunctionSpec


# tokens


async def test_a_token_that_ended_is_renewed_and_its_refresh_token_is_another_one(held: Held, site: Site) -> None:
    await held.connect()
    first = held.kept()[0]
    held.age()
    assert (await held.add())["structuredContent"] == {"result": 42}
    second = held.kept()[0]
    assert second.refresh_token not in (None, first.refresh_token) and second.access_token != first.access_token
    assert second.made > first.made
    assert site.asked["refresh_token"] == 1


async def test_twenty_calls_at_the_end_of_a_token_make_one_renewal(held: Held, site: Site) -> None:
    await held.connect()
    held.age()
    site.lies.slow = 0.3
    assert [one["structuredContent"] for one in await asyncio.gather(*(held.add() for _ in range(20)))] == [{"result": 42}] * 20
    assert (site.asked["refresh_token"], site.asked["add"]) == (1, 20)


async def test_twenty_calls_with_a_token_the_server_ended_early_make_one_renewal(held: Held, site: Site) -> None:
    await held.connect()
    site.expire()
    assert [one["structuredContent"] for one in await asyncio.gather(*(held.add() for _ in range(20)))] == [{"result": 42}] * 20
    assert (site.asked["refresh_token"], site.asked["add"]) == (1, 20)


async def test_a_token_about_to_end_is_renewed_beside_the_calls(held: Held, site: Site) -> None:
    await held.connect()
    account = held.engine.accounts._accounts["NOTES_GRANT"]
    assert account.grant is not None
    account.grant = msgspec.structs.replace(account.grant, expires=time.time() + 30)
    site.lies.slow = 2.0
    began = time.monotonic()
    await held.add()
    assert time.monotonic() - began < 1.5
    assert site.asked["refresh_token"] <= 1
    async with asyncio.timeout(10):
        while len(site.tokens) < 2 or account.grant.access_token != site.tokens[-1].access_token:
            await asyncio.sleep(0.02)
    assert site.asked["refresh_token"] == 1


async def test_a_sign_in_that_was_taken_back_is_told_with_what_to_do_and_made_again(held: Held, site: Site) -> None:
    await held.connect()
    site.revoke()
    for _ in range(2):
        with pytest.raises(RpcError, match="rootlink sign-in notes"):
            await held.add()
    assert site.asked["refresh_token"] == 1
    link = await held.engine.accounts.begin("con1")
    assert await held.engine.accounts.begin("con1") == link
    assert await held.back(link) == "notes"
    assert (await held.add())["structuredContent"] == {"result": 42}
    assert len(site.clients) == 1


async def test_a_server_that_refuses_every_token_is_not_renewed_for_with_every_call(
    held: Held, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.connect()
    with monkeypatch.context() as patched:
        patched.setattr(site, "live", lambda token: None)
        for _ in range(5):
            with pytest.raises(RpcError, match="rootlink sign-in notes"):
                await held.add()
        assert site.asked["refresh_token"] == 1
    assert (await held.add())["structuredContent"] == {"result": 42}


async def test_a_client_that_opens_pages_and_may_manage_is_given_the_link(held: Held, site: Site) -> None:
    await held.connect()
    site.revoke()
    with pytest.raises(RpcError) as caught:
        await held.add(Told(capabilities={"elicitation": {"url": {}}}), MANAGER)
    assert caught.value.code == -32042
    [page] = caught.value.data["elicitations"]
    await held.back(page["url"])
    assert (await held.add())["structuredContent"] == {"result": 42}


async def test_a_key_that_just_uses_tools_is_given_no_link_but_told_to_ask_the_operator(held: Held, site: Site) -> None:
    """Who opens the link binds the connection to an account: an AI that was talked into it would bind it to the talker's."""
    await held.connect()
    for ended in (site.revoke, lambda: setattr(site.lies, "scope", "write")):
        ended()
        with pytest.raises(RpcError, match="ask the operator to sign in with: rootlink sign-in notes") as caught:
            await held.add(Told(capabilities={"elicitation": {"url": {}}}))
        assert caught.value.code != -32042 and site.issuer not in repr((caught.value, caught.value.data))
    assert not held.engine.accounts._flows  # none is begun for it either


async def test_a_server_that_wants_more_is_signed_in_to_for_all_of_it(held: Held, site: Site) -> None:
    await held.connect()
    site.lies.scope = "write"
    with pytest.raises(RpcError, match=r"wants more than it was signed in for \(write\)"):
        await held.add()
    await held.back(await held.engine.accounts.begin("con1"))
    assert site.authorized[-1]["scope"].split() == ["notes", "offline_access", "write"]
    assert (await held.add())["structuredContent"] == {"result": 42}
    assert len(site.clients) == 1


async def test_an_authorization_server_that_cannot_be_reached_ends_no_sign_in(held: Held, site: Site) -> None:
    await held.connect()
    held.age()
    held.engine.outbound.update(EgressPolicy(allow=[site.places[1]], private=["127.0.0.0/8"]))
    with pytest.raises(RpcError, match="egress blocked"):
        await held.add()
    held.engine.outbound.update(EgressPolicy(allow=site.places, private=["127.0.0.0/8"]))
    assert (await held.add())["structuredContent"] == {"result": 42}


async def test_a_client_secret_that_was_rotated_by_hand_is_used_at_the_next_sign_in(tmp_path: Path, site: Site) -> None:
    policy = EgressPolicy(allow=site.places, private=["127.0.0.0/8"])
    site.clients["ours"] = Client("ours", "secret-of-before", [REDIRECT], "client_secret_basic")
    async with engine(tmp_path, site, secrets={"APP_SECRET": "secret-of-before"}) as held:
        asked = OAuth("NOTES_GRANT", REDIRECT, client_id="ours", client_secret="${APP_SECRET}")
        assert (await held.connect(msgspec.structs.replace(held.spec, oauth=asked))).done is not None
        grants = await held.taken()
        site.clients["ours"].secret = "secret-of-now"
        await held.engine._environment(Environment({**grants, "APP_SECRET": "secret-of-now"}, policy))
        held.age()
        with pytest.raises(RpcError, match="rootlink sign-in notes"):
            await held.add()
        await held.back(await held.engine.accounts.begin("con1"))
        assert (await held.add())["structuredContent"] == {"result": 42}


async def test_a_connection_that_is_asked_for_again_keeps_one_account(tmp_path: Path, site: Site) -> None:
    """Two would each renew by a refresh token that is good once."""
    plain = {"PLAIN": "of-the-project"}
    async with engine(tmp_path, site, secrets=plain) as first:
        spec = msgspec.structs.replace(first.spec, headers={"X-Plain": "${PLAIN}"})
        await first.connect(spec)
        grants = await first.taken()
    async with engine(tmp_path, site, secrets={**grants, **plain}) as held:
        async with asyncio.timeout(20):
            while held.engine.mounts.get("main", "notes").state != "ready":
                await asyncio.sleep(0.02)
        for _ in range(2):
            assert (await held.apply(spec)).done is not None
            site.expire()
            assert (await held.add())["structuredContent"] == {"result": 42}
        await held.engine.mounts.restart("main", "notes")
        site.expire()
        assert (await held.add())["structuredContent"] == {"result": 42}
        assert len(site.authorized) == 1


# the vault


async def test_our_own_grant_that_comes_back_from_the_vault_restarts_nothing(held: Held) -> None:
    await held.connect()
    mount = held.engine.mounts.get("main", "notes")
    link = mount._link
    secrets = await held.taken()
    assert not held.kept()
    policy = EgressPolicy(allow=held.site.places, private=["127.0.0.0/8"])
    assert await held.engine._environment(Environment(secrets, policy)) == []
    assert mount._link is link
    held.age()
    await held.add()
    assert await held.engine._environment(Environment(secrets, policy)) == []  # the one before it
    await held.add()
    assert (held.site.asked["refresh_token"], mount._link is link) == (1, True)


async def test_the_next_engine_goes_on_with_the_sign_in(tmp_path: Path, site: Site) -> None:
    async with engine(tmp_path, site) as first:
        await first.connect()
        secrets = await first.taken()
    async with engine(tmp_path, site, secrets=secrets) as second:
        assert (await second.add())["structuredContent"] == {"result": 42}
        assert "NOTES_GRANT" not in second.engine.mounts.secrets


async def test_what_an_engine_renewed_and_nobody_took_is_waited_for_by_the_next(tmp_path: Path, site: Site) -> None:
    """A refresh token that is used twice ends its family here, so the older grant must not be tried."""
    async with engine(tmp_path, site) as first:
        await first.connect()
        old = await first.taken()
        first.age()
        await first.add()
        newest = first.kept()[0]
    site.expire()
    stale = written(msgspec.structs.replace(read(old["NOTES_GRANT"]) or newest, expires=time.time()))
    async with engine(tmp_path, site, secrets={"NOTES_GRANT": stale}) as second:
        calling = asyncio.create_task(second.add())
        await asyncio.sleep(0.3)
        assert site.asked["refresh_token"] == 1
        secrets = await second.taken()
        assert read(secrets["NOTES_GRANT"]) == newest
        await second.engine._environment(Environment(secrets, EgressPolicy(allow=site.places, private=["127.0.0.0/8"])))
        assert (await calling)["structuredContent"] == {"result": 42}
    assert site.asked["refresh_token"] == 2


async def test_a_connection_that_is_taken_away_leaves_no_sign_in(held: Held, site: Site) -> None:
    await held.connect()
    assert await held.engine.installer.release("con1") is True
    assert not held.kept()
    applying = asyncio.create_task(held.apply())
    held.steps.clear()
    await held.back(await held.link())
    assert (await applying).done is not None
    assert len(site.authorized) == 2


async def test_a_connection_that_is_taken_away_leaves_no_token_in_the_redactor(tmp_path: Path, site: Site) -> None:
    policy = EgressPolicy(allow=site.places, private=["127.0.0.0/8"])
    async with engine(tmp_path, site) as held:
        await held.connect()
        grants = await held.taken()
        await held.engine._environment(Environment(grants, policy))
        assert [1 for mark in held.engine._redactor._marks if site.tokens[-1].access_token.lower() in mark]
        await held.engine.installer.release("con1")
        await held.engine._environment(Environment({}, policy))
        for secret in site.secrets:
            assert not [1 for mark in held.engine._redactor._marks if secret.lower() in mark]
            assert secret not in repr(vars(held.engine.accounts))


async def test_a_grant_that_was_made_and_not_taken_mounts_its_server_in_the_next_engine(tmp_path: Path, site: Site) -> None:
    """Killed between the sign-in and the hand-over: nobody signs in twice."""
    async with engine(tmp_path, site) as first:
        await first.connect()
    async with engine(tmp_path, site) as second:
        applying = asyncio.create_task(second.apply())
        grants = await second.taken()
        assert read(grants["NOTES_GRANT"]) is not None
        await second.engine._environment(Environment(grants, EgressPolicy(allow=site.places, private=["127.0.0.0/8"])))
        ended = await applying
        assert ended.done is not None, ended
        async with asyncio.timeout(20):
            while second.engine.mounts.get("main", "notes").state != "ready":
                await asyncio.sleep(0.02)
        assert (await second.add())["structuredContent"] == {"result": 42}
    assert len(site.authorized) == 1


async def test_functions_and_other_mounts_never_have_a_grant(tmp_path: Path, site: Site) -> None:
    async with engine(tmp_path, site) as first:
        await first.connect()
        secrets = await first.taken()
    async with engine(tmp_path / ".", site, secrets={**secrets, "PLAIN": "of-the-project"}) as second:
        assert dict(second.engine.mounts.secrets) == {"PLAIN": "of-the-project"}
        steal = {"name": "steal", "transport": "http", "endpoint": site.url, "headers": {"X-Stolen": "${NOTES_GRANT}"}}
        with pytest.raises(RootlinkError, match="NOTES_GRANT is not in this project's vault"):
            await second.engine.installer.install("main", steal)
        look = msgspec.convert({"name": "look", "code": "(input, ctx) => Object.keys(ctx.env)"}, type=_function())
        await second.engine.installer.deploy("main", look)
        seen = rpc.value(
            await second.engine.dispatch.handle(USER, "tools/call", {"name": "function__look", "arguments": {}}, None)
        )
        assert "NOTES_GRANT" not in json.dumps(seen)


# canary


async def test_no_token_is_seen_anywhere(tmp_path: Path, site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.lies.echo = True
    seen: list[str] = []
    async with engine(tmp_path, site) as held:
        seen.append(repr(await held.connect()))
        held.age()
        seen.append(repr(await held.add()))
        site.revoke()
        for told in (None, Told(capabilities={"elicitation": {"url": {}}})):
            with pytest.raises(RpcError) as caught:
                await held.add(told, MANAGER)
            seen.append(repr((caught.value, caught.value.data)))
        mount = held.engine.mounts.get("main", "notes")
        with contextlib.suppress(RootlinkError):
            await mount.restart()
        seen += [repr(held.engine.installer.actual()), repr(held.engine.installer.servers("main")), repr(held.steps)]
        seen += [repr(held.engine.accounts._accounts["NOTES_GRANT"].grant), repr(held.kept())]
    out = capfd.readouterr()
    seen += [out.out, out.err]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(site.secrets) >= 5
    for secret in site.secrets:
        assert not [text for text in seen if secret in text]
        assert not [1 for body in files if secret.encode() in body]


async def test_tokens_that_were_renewed_long_ago_cost_nothing(held: Held, site: Site) -> None:
    await held.connect()
    redactor = held.engine._redactor
    for _ in range(12):
        held.age()
        await held.add()
    marks = len(redactor._marks)
    for _ in range(3):
        held.age()
        await held.add()
    assert abs(len(redactor._marks) - marks) < 20
    assert site.tokens[-1].access_token not in redactor(f"x {site.tokens[-1].access_token} y")


async def test_grants_that_come_back_from_the_vault_again_and_again_cost_nothing(held: Held, site: Site) -> None:
    policy = EgressPolicy(allow=site.places, private=["127.0.0.0/8"])
    await held.connect()
    sizes = []
    for _ in range(12):
        held.age()
        await held.add()
        await held.engine._environment(Environment(await held.taken(), policy))
        sizes.append(len(held.engine._redactor._marks))
    assert abs(sizes[-1] - sizes[-4]) < 20


async def test_a_server_tried_at_another_place_is_not_shown_the_tokens(held: Held, site: Site) -> None:
    await held.connect()
    with Site().serving() as other:
        held.engine.outbound.update(EgressPolicy(allow=[*site.places, *other.places], private=["127.0.0.0/8"]))
        moved = msgspec.structs.replace(held.spec, endpoint=other.url)
        with pytest.raises(RootlinkError, match="rootlink sign-in notes"):
            await held.engine.mounts.trial("main", moved, lambda words: None)
        assert set(other.given) == {""}
        held.steps.clear()
        applying = asyncio.create_task(held.apply(moved))
        await held.back(await held.link())
        assert (await applying).done is not None
        assert [one["resource"] for one in other.authorized] == [other.url]
    assert len(site.authorized) == 1
