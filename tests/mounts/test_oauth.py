"""A link that asks with somebody's sign-in (`remote.Credential`): what is sent, and what is sent again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import pytest

from rootlink.engine import rpc
from rootlink.engine.mounts.remote import SignInNeeded
from rootlink.wire.mounts import MountSpec
from tests.engine.oauth.authority import Site, Token
from tests.mounts.conftest import MakeMounts


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().serving() as one:
        one.tokens.append(Token("good-token", "", "c", "notes", one.url, time.time() + 60, 1))
        yield one


class Handed:
    """A credential that hands out tokens from a list, the last one again and again."""

    def __init__(self, *tokens: str | None) -> None:
        self.tokens = list(tokens)
        self.refusals: list[tuple[str | None, int, int]] = []

    async def token(self) -> str | None:
        return self.tokens[0]

    def dressed(self, token: str, method: str, url: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    def heard(self, url: str, headers: Mapping[str, str]) -> None:
        pass

    async def refused(self, token: str | None, status: int, headers: Iterable[str], *, again: int) -> bool:
        self.refusals.append((token, status, again))
        assert any("resource_metadata=" in header for header in headers)
        if token != self.tokens[0]:
            return True
        if len(self.tokens) == 1:
            raise SignInNeeded("notes wants to be signed in to; do so with: rootlink sign-in notes")
        self.tokens.pop(0)
        return True

    async def page(self) -> str:
        raise NotImplementedError

    def redact(self, text: str) -> str:
        return text


def spec(site: Site, **members: object) -> MountSpec:
    return MountSpec("notes", "http", endpoint=site.url, **members)  # type: ignore[arg-type]


async def test_what_was_refused_for_an_old_token_is_asked_again_with_the_next_and_done_once(make: MakeMounts, site: Site) -> None:
    held = Handed("good-token")
    mounts = make(allow=site.places, credential=lambda ws, asked: held)
    mount = await mounts.add("main", spec(site))
    held.tokens = ["old-1", "old-2", "good-token"]
    result = rpc.value(await mount.request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}))
    assert result["structuredContent"] == {"result": 3}
    assert {token for token, _, _ in held.refusals} == {"old-1", "old-2"}
    assert site.asked["add"] == 1


async def test_a_server_nobody_is_signed_in_to_is_not_mounted_and_the_words_say_what_to_do(make: MakeMounts, site: Site) -> None:
    mounts = make(allow=site.places, credential=lambda ws, asked: Handed(None))
    with pytest.raises(SignInNeeded, match="rootlink sign-in notes"):
        await mounts.add("main", spec(site))
    assert mounts.list("main") == []


async def test_a_sign_in_stands_before_a_header_of_the_same_name(make: MakeMounts, site: Site) -> None:
    mounts = make(allow=site.places, credential=lambda ws, asked: Handed("good-token"))
    assert (await mounts.add("main", spec(site, headers={"authorization": "Bearer other"}))).state == "ready"


async def test_a_header_alone_is_still_enough(make: MakeMounts, site: Site) -> None:
    mounts = make(allow=site.places, secrets={"TOKEN": "good-token"})
    assert (await mounts.add("main", spec(site, headers={"Authorization": "Bearer ${TOKEN}"}))).state == "ready"


async def test_a_refusal_ends_no_mount(make: MakeMounts, site: Site) -> None:
    held = Handed("good-token")
    mount = await make(allow=site.places, credential=lambda ws, asked: held).add("main", spec(site))
    site.revoke()
    for _ in range(5):
        with pytest.raises(SignInNeeded):
            await mount.request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
    assert mount.state == "ready"
