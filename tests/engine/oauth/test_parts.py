"""The parts of a sign-in that need no server."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from rootlink.engine.oauth import discovery, grant, registration, tokens
from rootlink.engine.oauth.discovery import Authority, Challenge, Found
from rootlink.engine.oauth.flow import scope_of
from rootlink.engine.oauth.grant import Grant, Registered
from rootlink.engine.oauth.places import Places
from rootlink.engine.outbound import Outbound
from rootlink.errors import UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import OAuth

HELD = Grant("https://as.example", "https://as.example/token", Registered("id"), "access-token", 5.0, "https://s.example/mcp")
AUTHORITY = Authority("https://as.example", "https://as.example/authorize", "https://as.example/token")


def places(*private: str) -> Places:
    outbound = Outbound(EgressPolicy(allow=["as.example", "s.example"]), lambda connection, decision: None)
    return Places("notes", outbound.scope("notes", None), list(private), lambda text: text.replace("hunter2", "***"))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (['Bearer resource_metadata="https://s.example/x", scope="a b"'], Challenge("", "https://s.example/x", ("a", "b"))),
        (["Basic realm=x", 'bearer  error=insufficient_scope,scope="w"'], Challenge("insufficient_scope", None, ("w",))),
        (['Bearer realm="a, b \\" c", scope=""'], Challenge("", None, ())),
        (['Bearer scope="a \x00b \x7f"'], Challenge("", None, ("a",))),
        (["Bearer"], Challenge()),
        (["Bearer =,=,="], Challenge()),
        (["Bearerscope=a"], Challenge()),
        ([], Challenge()),
    ],
)
def test_a_challenge_is_read_as_far_as_it_can_be(headers: list[str], found: Challenge) -> None:
    assert discovery.challenge(headers) == found


def test_a_challenge_of_nothing_but_beginnings_is_read_in_no_time() -> None:
    for text in ("Bearer " + 'a="' * 20000, "Bearer " + "a=\\" * 20000, "Bearer " + "a= " * 20000, "Bearer" + " " * 60000):
        discovery.challenge([text])


def test_scopes_are_those_of_the_challenge_and_what_was_granted_before_by_the_same_issuer() -> None:
    found = Found(AUTHORITY, "https://s.example/mcp", ("all", "of", "it"))
    known = Grant("https://as.example", "", Registered("id"), "t", 1.0, scope=("had",))
    other = Grant("https://other.example", "", Registered("id"), "t", 1.0, scope=("had",))
    assert scope_of(found, Challenge(), [], None) == ("all", "of", "it")
    assert scope_of(found, Challenge(scopes=("a",)), ["mine"], known) == ("had", "a", "mine")
    assert scope_of(found, Challenge(scopes=()), [], other) == ()


def test_a_resource_is_the_server_or_what_it_lies_under() -> None:
    same = places().same
    for above in ("https://s.example/mcp", "https://s.example", "https://s.example/", "https://S.example:443/mcp/"):
        assert same(above, "https://s.example/mcp"), above
    for other in (
        "https://s.example/mc",
        "https://s.example/mcp/x",
        "http://s.example/mcp",
        "https://s.example:8443/mcp",
        "x",
        "",
    ):
        assert not same(other, "https://s.example/mcp"), other


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]:9/", "http://10.1.2.3/x", "https://h.example/"]
)
def test_plain_http_is_for_this_machine_and_what_the_operator_opened(url: str) -> None:
    assert places("10.0.0.0/8").checked(url, "it") == url


@pytest.mark.parametrize(
    "url", ["http://h.example/", "http://10.1.2.3/", "http://127.0.0.1.example/", "http://localhost.example/", None, 1]
)
def test_plain_http_elsewhere_is_refused(url: Any) -> None:
    with pytest.raises(UpstreamFailed):
        places().checked(url, "it")


async def test_a_client_that_was_registered_beforehand_is_not_shown_to_another_issuer() -> None:
    asked = OAuth("GRANT", "https://us.example/cb", client_id="id", client_secret="hunter2")
    known = Grant("https://first.example", "", Registered("id", "hunter2"), "t", 1.0)
    with pytest.raises(UpstreamFailed, match="another authorization server") as caught:
        await registration.client(places(), AUTHORITY, asked, known, reuse=True)
    assert "hunter2" not in caught.value.message
    assert (await registration.client(places(), AUTHORITY, asked, None, reuse=True)).secret == "hunter2"


async def test_who_registers_nobody_needs_a_client_id() -> None:
    with pytest.raises(UpstreamFailed, match="give its client_id"):
        await registration.client(places(), AUTHORITY, OAuth("GRANT", "https://us.example/cb"), None, reuse=True)


class Published(Places):
    """Documents by their URLs, in place of a network."""

    documents: ClassVar[dict[str, dict[str, Any]]] = {}

    async def document(self, url: str, what: str) -> dict[str, Any] | None:
        return self.documents.get(self.checked(url, what))


@pytest.mark.parametrize("named", [7, True, 1.5, "https://as.example", {"https://as.example": 1}, [7], [["x"]], [], None])
async def test_authorization_servers_that_are_no_list_of_urls_are_refused_in_words(
    named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"resource": "https://s.example/mcp", "authorization_servers": named}
    monkeypatch.setattr(Published, "documents", {"https://s.example/.well-known/oauth-protected-resource/mcp": about})
    plain = places()
    with pytest.raises(UpstreamFailed, match="names no authorization server"):
        await discovery.discover(Published("notes", plain.scope, [], plain.redact), "https://s.example/mcp", Challenge())


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": "a", "token_type": "DPoP"},
        {"access_token": "", "token_type": "Bearer"},
        {"access_token": "a b", "token_type": "Bearer"},
        {"access_token": "a\r\nX-Evil: 1", "token_type": "Bearer"},
        {"access_token": "a" * 40000, "token_type": "Bearer"},
        {"access_token": 7},
        {"access_token": "a", "refresh_token": {"x": 1}},
        {},
    ],
)
def test_a_token_that_is_none_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        tokens._granted(places(), answer, HELD, 10.0)


@pytest.mark.parametrize(
    ("seconds", "until"),
    [
        (60, 70.0),
        ("60", 70.0),
        (0, None),
        (-5, None),
        (True, None),
        (float("inf"), None),
        ("x", None),
        (None, None),
        ("9" * 400, 10.0 + 999999999999),
        (10**400, None),
    ],
)
def test_when_a_token_ends_is_known_if_it_is_said(seconds: Any, until: float | None) -> None:
    assert tokens._granted(places(), {"access_token": "a", "expires_in": seconds}, HELD, 10.0).expires == until


def test_a_grant_is_known_among_secrets_and_shows_no_token() -> None:
    text = grant.written(HELD)
    forged = '{"rootlink":"oauth-grant","issuer":7}'
    found, others = grant.apart({"GRANT": text, "PLAIN": "of-the-project", "FORGED": forged})
    assert (found, others) == ({"GRANT": HELD}, {"PLAIN": "of-the-project", "FORGED": forged})
    assert "access-token" not in repr(HELD)


def test_what_others_say_is_shown_short_and_without_secrets() -> None:
    said = places().said("a\x1b[31m\nhunter2 \u202e", None, 7, "x" * 5000)
    assert said.startswith("a[31m ***") and len(said) < 500 and said.isprintable()
