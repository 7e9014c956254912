"""Connecting the services of the catalogue with the real programs and the real packages: a good key, a bad one, and an outage.

The services are stand-ins on loopback, reached by their real names through the gate (`--resolve`, `--extra-ca`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from mcp import MCPError

from tests.e2e.stand_ins import ALL
from tests.e2e.stand_ins.services import MAIL, MAPS_KEY, RESEND_KEY, SENDING_KEY
from tests.harness.instance import KERNEL, Instance, closing, eventually
from tests.harness.standin import Authority, StandIn, Tap, speaker, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
World = dict[str, StandIn]
BY_NAME = {str(service): service for service in ALL}


@pytest.fixture(scope="module")
def world(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """By host."""
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:
        hosts = {host: one for one in ALL for host in (one.host, *one.others)}
        yield {host: stack.enter_context(standin(host, one.answer, folder, authority)) for host, one in hosts.items()}


@pytest.fixture(scope="module")
def instance(world: World, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    pins = [word for one in world.values() for word in one.pin]
    yield from closing(Instance(tmp_path_factory.mktemp("services") / "home", *KERNEL, *pins, *authority.flags))


@pytest.fixture
def clean(instance: Instance) -> Iterator[Instance]:
    """An instance that holds nothing, and whose next test finds nothing either."""
    assert held(instance) == NOTHING
    yield instance
    for connection in instance.project("GET", "/connections").data:
        assert instance.project("DELETE", f"/connections/{connection['name']}").status == 200
    for secret in instance.project("GET", "/secrets").data:
        instance.project("DELETE", f"/secrets/{secret['name']}")
    assert held(instance) == NOTHING


def held(instance: Instance) -> dict[str, list[str]]:
    """What there is of connections: rows, secrets, hosts, tools."""
    return {
        "connections": [one["name"] for one in instance.project("GET", "/connections").data],
        "secrets": [one["name"] for one in instance.project("GET", "/secrets").data],
        "hosts": [one["domain"] for one in instance.project("GET", "/egress").data],
        "servers": [one["name"] for one in instance.engine("GET", "/mcp-servers").data],
        "functions": [one["name"] for one in instance.engine("GET", "/functions").data],
    }


NOTHING: dict[str, list[str]] = {"connections": [], "secrets": [], "hosts": [], "servers": [], "functions": []}


def refused(instance: Instance, body: dict[str, Any], code: str) -> str:
    """The words of a connect that fails, which leaves nothing."""
    answer = instance.project("POST", "/connections", body)
    assert answer.json["ok"] is False, answer.body
    assert answer.code == code, answer.body
    assert held(instance) == NOTHING
    for secret in body["secrets"].values():
        assert secret not in answer.message
        assert instance.secret_is_nowhere(secret) == []
    return answer.message


@pytest.mark.parametrize("name", BY_NAME)
async def test_a_good_key_connects_under_the_services_own_name_for_it_and_works(clean: Instance, world: World, name: str) -> None:
    service = BY_NAME[name]
    stands = [world[host] for host in (service.host, *service.others)]
    made = clean.connect(**service.wish(service.good))
    assert (made["state"], made["error"]) == ("connected", None)
    assert (made["label"], tuple(made["notes"])) == (service.label, service.notes)
    tool, arguments, said = service.call
    assert tool in made["tools"]
    asked = [len(stand.seen) for stand in stands]
    async with clean.client() as client:
        result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert said in str(result)
    seen = [one.path for stand, before in zip(stands, asked, strict=True) for one in stand.seen[before:]]
    assert service.asked in [path.partition("?")[0] for path in seen]
    assert clean.secret_is_nowhere(service.good) == []


@pytest.mark.parametrize("name", BY_NAME)
def test_a_bad_key_is_refused_in_words_and_leaves_nothing(clean: Instance, world: World, name: str) -> None:
    service, stand = BY_NAME[name], world[BY_NAME[name].host]
    asked = len(stand.seen)
    assert refused(clean, service.wish(service.bad), "invalid") == service.said
    assert len(stand.seen) == asked + 1, "the key was asked about once, and no server was started with it"


@pytest.mark.parametrize("name", BY_NAME)
def test_an_outage_is_told_as_one_and_leaves_nothing(clean: Instance, world: World, name: str) -> None:
    service, stand = BY_NAME[name], world[BY_NAME[name].host]
    stand.answer = lambda seen: (503, {"message": "down for maintenance"})
    try:
        said = refused(clean, service.wish(service.good), "upstream_failed")
        assert said == f"Not checked, so not known to work: host '{service.host}' answered HTTP 503; try again in a while"
        stand.away = True
        said = refused(clean, service.wish(service.good), "upstream_failed")
        assert said.startswith(f"Not checked, so not known to work: host '{service.host}'"), said
    finally:
        stand.away, stand.answer = False, service.answer


def test_a_resend_key_that_may_only_send_is_a_good_one(clean: Instance) -> None:
    made = clean.connect("resend", secrets={"RESEND_API_KEY": SENDING_KEY})
    assert (made["label"], made["notes"]) == ("sending-only key", ["A key that may only send: what we recommend."])
    assert clean.call("function__resend", MAIL)["structuredContent"]["id"].startswith("49a3999c")


def test_a_supabase_project_is_asked_for_and_names_the_connection(clean: Instance) -> None:
    service = BY_NAME["supabase"]
    wish = service.wish(service.good)
    said = refused(clean, {**wish, "inputs": {"project-ref": "z" * 20}}, "invalid")
    assert said == "Supabase has no such project for this token."
    made = clean.connect(**{**wish, "inputs": {"project-ref": "abcdefghijklmnopqrst"}})
    assert made["label"] == "shop"


def test_a_connection_is_checked_again_and_a_key_that_died_is_told(clean: Instance, world: World) -> None:
    service, stand = BY_NAME["slack"], world["slack.com"]
    clean.connect(**service.wish(service.good))
    again = clean.project("POST", "/connections/slack/check").data
    assert again == {"ok": True, "label": "helper in Acme", "notes": [], "error": None}
    stand.answer = lambda seen: (200, {"ok": False, "error": "token_revoked"})
    try:
        died = clean.project("POST", "/connections/slack/check").data
        assert died["ok"] is False
        assert died["error"].startswith("This token was revoked")
        stand.answer = lambda seen: (503, {})
        out = clean.project("POST", "/connections/slack/check").data
        assert out["error"].startswith("Not checked, so not known to work: host 'slack.com' answered HTTP 503")
    finally:
        stand.answer = service.answer
    assert [one["state"] for one in clean.project("GET", "/connections").data] == ["connected"], "it is only said"


def test_the_steps_tell_of_the_check(clean: Instance) -> None:
    service = BY_NAME["resend"]
    told = clean.project("POST", "/connections", service.wish(service.bad), accept="text/event-stream").body.decode()
    assert "checking the key with its service" in told
    assert '"state":"failed","detail":"Resend does not know this key."' in told
    assert service.bad not in told


def test_a_key_in_a_servers_own_error_does_not_reach_the_client(clean: Instance, world: World) -> None:
    """The archived server for Google Maps puts the URL it asked into its error, and so the key."""
    service, stand = BY_NAME["google-maps-legacy"], world["maps.googleapis.com"]
    clean.connect(**service.wish(service.good))
    stand.away = True
    try:
        said = clean.call("google-maps__maps_geocode", {"address": "Berlin"})
    finally:
        stand.away = False
    assert said["isError"]
    assert MAPS_KEY not in str(said)
    assert "[secret GOOGLE_MAPS_API_KEY]" in str(said)


def test_a_success_that_is_an_error_comes_as_its_server_sent_it_and_a_check_calls_it_one(clean: Instance, world: World) -> None:
    """As Slack's servers do when a token dies; once their host is closed, the refusal is joined to the call."""
    service, stand = BY_NAME["slack"], world["slack.com"]
    clean.connect("slack", variant="zencoder", inputs={"SLACK_TEAM_ID": "T0ACME"}, secrets={service.secret: service.good})
    stand.answer = lambda seen: (200, {"ok": False, "error": "invalid_auth"})
    try:
        said = clean.call("slack__slack_list_channels")
        assert not said.get("isError")
        assert [msgspec.json.decode(block["text"]) for block in said["content"]] == [{"ok": False, "error": "invalid_auth"}]
        eventually(lambda: "succeeded with an error inside: invalid_auth" in (shown(clean) or ""), what="the state")
        assert (shown(clean) or "").startswith("the last call of slack_list_channels (")
        assert clean.project("POST", "/connections/slack/check").data["error"] == "Slack does not know this token."
    finally:
        stand.answer = service.answer
    clean.call("slack__slack_list_channels")
    eventually(lambda: shown(clean) is None, what="the state, when a call went well")
    clean.project("DELETE", "/egress/slack.com")
    closed = clean.call("slack__slack_list_channels")
    assert "egress blocked: host 'slack.com' is not in this project's outbound allowlist" in str(closed["content"])
    assert "fetch failed" in str(closed["content"])


def shown(instance: Instance) -> str | None:
    """What is wrong with the connection, for whoever looks at it."""
    found: str | None = instance.project("GET", "/connections/slack").data["error"]
    return found


async def test_a_servers_json_rpc_error_is_told_as_one(clean: Instance, world: World) -> None:
    service, stand = BY_NAME["github"], world["api.github.com"]
    clean.connect(**service.wish(service.good))
    stand.answer = lambda seen: (401, {"message": f"Bad credentials: {service.good}"})
    try:
        async with clean.client() as client:
            with pytest.raises(MCPError) as failed:
                await client.call_tool("github__search_repositories", {"query": "hello"})
    finally:
        stand.answer = service.answer
    assert "Bad credentials" in str(failed.value)
    assert service.good not in str(failed.value)


@pytest.fixture(scope="module")
def databases(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Tap]]:
    """An instance whose `db.example` is nobody at port 5432, and at port 5433 somebody who is no PostgreSQL."""
    with speaker(lambda said: b"") as there, socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()[1]
        gone.close()
        pins = ["--resolve", f"db.example:5432=127.0.0.1:{nobody}", "--resolve", f"db.example:5433=127.0.0.1:{there.port}"]
        for up in closing(Instance(tmp_path_factory.mktemp("databases") / "home", *KERNEL, *pins)):
            yield up, there


def dsn(place: str) -> dict[str, Any]:
    return {"connector": "postgres", "secrets": {"PG_DSN": f"postgresql://ro:p4ssw0rd-of-it@{place}/shop"}}


def test_a_database_where_nobody_answers_is_told_as_that(databases: tuple[Instance, Tap]) -> None:
    """The gate takes the connection before it dials; that is not mistaken for an answer."""
    said = refused(databases[0], dsn("db.example:5432"), "upstream_failed")
    assert said.startswith("Nothing answers at db.example:5432."), said


def test_a_database_at_an_address_nobody_opened_is_told_with_the_rule(databases: tuple[Instance, Tap]) -> None:
    said = refused(databases[0], dsn("10.1.2.3:5432"), "forbidden")
    assert "egress blocked: host '10.1.2.3' is a private address" in said, said
    assert "--allow-private" in said


def test_somebody_who_answers_is_not_asked_for_more_by_the_check(databases: tuple[Instance, Tap]) -> None:
    """What comes after it, the server's own start, is what fails here."""
    instance, there = databases
    said = refused(instance, dsn("db.example:5433"), "upstream_failed")
    assert "Nothing answers" not in said
    assert said.startswith("postgres "), said
    assert there.arrived, "it was dialled"
    assert bytes(there.arrived[0]) == b""


def test_a_host_that_was_taken_from_the_allowlist_is_named_by_a_check(clean: Instance) -> None:
    service = BY_NAME["resend"]
    clean.connect(**service.wish(RESEND_KEY))
    clean.project("DELETE", "/egress/api.resend.com")

    def told() -> bool:
        found = clean.project("POST", "/connections/resend/check").data["error"] or ""
        return "egress blocked: host 'api.resend.com' is not in this project's outbound allowlist" in found

    eventually(told, what="the refusal")
