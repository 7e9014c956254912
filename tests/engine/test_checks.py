"""Checks of a key before a connection is kept: real requests to a server of this machine, and what each answer comes to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from aiohttp import web
from msgspec import Raw

from rootlink.engine.checks import Ask, Checks
from rootlink.engine.rpc import RpcError
from rootlink.errors import EgressBlocked, Invalid, RootlinkError, UpstreamFailed
from rootlink.redaction import Redactor
from rootlink.wire.checks import Check, HttpCheck, Outcome, TcpCheck, ToolCheck, Verdict
from rootlink.wire.mounts import Desired, FunctionSpec, MountSpec
from tests.outbound.conftest import MakeOut, Out, Serve, make_out, serve

__all__ = ["make_out", "serve"]

KEY = "k3y-of-the-tests"
HOST = "api.example.com"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(status: int, body: Any = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return answer


class Stage:
    """A service of this machine, and the checks of a connection that may reach it."""

    def __init__(self, out: Out, port: int, seen: list[web.Request], secrets: dict[str, str]) -> None:
        self.out, self.port, self.seen = out, port, seen
        self.said: list[str] = []
        self.checks = Checks(out.outbound, lambda: secrets, Redactor(secrets))

    def http(self, path: str = "/me", **members: Any) -> HttpCheck:
        headers = members.pop("headers", {"authorization": "Bearer ${KEY}"})
        return HttpCheck("key", f"http://{HOST}:{self.port}{path}", headers=headers, **members)

    def desired(self, *checks: Check, egress: list[str] | None = None) -> Desired:
        own = [f"{HOST}:{self.port}"] if egress is None else egress
        return Desired("con_1", "main", "conn", mount=MountSpec("conn", "stdio", command="x", egress=own), checks=list(checks))

    async def before(self, *checks: Check, egress: list[str] | None = None) -> Verdict:
        return await self.checks.before(self.desired(*checks, egress=egress), self.said.append)

    async def fails(self, *checks: Check, egress: list[str] | None = None) -> RootlinkError:
        with pytest.raises(RootlinkError) as failed:
            await self.before(*checks, egress=egress)
        assert KEY not in failed.value.message
        return failed.value

    async def after(self, check: ToolCheck, ask: Ask, found: Verdict | None = None) -> Verdict:
        return await self.checks.after(self.desired(check), ask, self.said.append, found or Verdict())


Make = Callable[..., Awaitable[Stage]]


@pytest.fixture
def make(make_out: MakeOut, serve: Serve) -> Make:
    async def stage(handler: Handler | None = None, secrets: dict[str, str] | None = None) -> Stage:
        service = await serve(handler or says(200, {}))
        out = make_out([f"{HOST}:{service.port}"])
        return Stage(out, service.port, service.seen, {"KEY": KEY} if secrets is None else secrets)

    return stage


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


# what an answer means


async def test_a_good_key_gives_the_label_and_the_note_of_its_answer(make: Make) -> None:
    stage = await make(says(200, {"login": "octocat", "plan": [{"name": "free"}], "id": 7}))
    good = Outcome(200, label="{login}", note="On the {plan.0.name} plan, user {id}; {nothing}")
    found = await stage.before(stage.http(ok=[good]))
    assert found == Verdict("octocat", ["On the free plan, user 7;"])
    assert stage.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert stage.said == ["checking the key with its service"]


async def test_a_bad_key_is_told_in_the_entrys_words(make: Make) -> None:
    stage = await make(says(401, {"message": "Bad credentials"}))
    error = await stage.fails(stage.http(ok=[Outcome(200)], errors=[Outcome(401, say="Nobody knows this key: {message}.")]))
    assert (error.code, error.message) == ("invalid", "Nobody knows this key: Bad credentials.")


async def test_a_success_whose_body_says_no_is_a_failure(make: Make) -> None:
    stage = await make(says(200, {"ok": False, "error": "invalid_auth"}))
    check = stage.http(ok=[Outcome(200, {"ok": True})], errors=[Outcome(200, {"ok": False}, say="Slack says {error}.")])
    assert (await stage.fails(check)).message == "Slack says invalid_auth."
    unlisted = await stage.fails(stage.http(ok=[Outcome(200, {"ok": True})]))
    assert isinstance(unlisted, UpstreamFailed)
    assert "HTTP 200" in unlisted.message


async def test_the_outcome_that_names_more_of_the_answer_decides(make: Make) -> None:
    """A key that may only send is refused with a 401 that says so, like one that nobody knows with a 401 that does not."""
    sending = Outcome(401, {"name": "restricted_api_key"}, label="sending-only key")
    check: dict[str, Any] = {"ok": [Outcome(200), sending], "errors": [Outcome(401, say="Not accepted.")]}
    stage = await make(says(401, {"name": "restricted_api_key"}))
    assert (await stage.before(stage.http(**check))).label == "sending-only key"
    other = await make(says(401, {"name": "invalid_api_key"}))
    assert (await other.fails(other.http(**check))).message == "Not accepted."


async def test_of_two_that_fit_alike_the_error_decides(make: Make) -> None:
    stage = await make(says(200, {"status": "DENIED"}))
    error = await stage.fails(stage.http(ok=[Outcome(200)], errors=[Outcome(json={"status": "DENIED"}, say="Denied.")]))
    assert error.message == "Denied."


@pytest.mark.parametrize(("wanted", "said", "fits"), [(True, 1, False), (1, True, False), (None, None, True), (1, 1.0, True)])
async def test_members_are_equal_as_json_has_it(make: Make, wanted: Any, said: Any, fits: bool) -> None:
    stage = await make(says(200, {"a": {"b": said}}))
    check = stage.http(ok=[Outcome(200, {"a.b": wanted}, label="yes")])
    if fits:
        assert (await stage.before(check)).label == "yes"
    else:
        await stage.fails(check)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_service_in_trouble_says_nothing_of_the_key(make: Make, status: int) -> None:
    stage = await make(says(status))
    error = await stage.fails(stage.http(ok=[Outcome(200)], errors=[Outcome(401, say="Bad key.")]))
    assert error.code == "upstream_failed"
    assert f"HTTP {status}" in error.message
    assert "Not checked" in error.message
    listed = await stage.fails(stage.http(errors=[Outcome(status, say="Too many requests; try again in a moment.")]))
    assert (listed.code, listed.message) == ("upstream_failed", "Too many requests; try again in a moment.")


async def test_an_answer_nobody_expected_is_told_by_its_status_alone(make: Make) -> None:
    stage = await make(says(418, {"error": f"no tea for {KEY}"}))
    error = await stage.fails(stage.http(ok=[Outcome(200)]))
    assert "HTTP 418" in error.message
    assert "tea" not in error.message


async def test_an_answer_that_is_no_json_fits_by_its_status(make: Make) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>")

    stage = await make(page)
    assert await stage.before(stage.http(ok=[Outcome(200, label="{login}")])) == Verdict()


async def test_a_redirect_is_not_followed(make: Make) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    stage = await make(away)
    assert "HTTP 302" in (await stage.fails(stage.http(ok=[Outcome(200)]))).message
    assert len(stage.seen) == 1


async def test_a_body_without_an_end_is_not_read_to_its_end(make: Make) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    stage = await make(endless)
    assert "more than 1 MiB" in (await stage.fails(stage.http(ok=[Outcome(200)]))).message


async def test_a_service_that_does_not_answer_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    monkeypatch.setattr("rootlink.engine.checks.http.SECONDS", 0.2)
    stage = await make(silent)
    assert "did not answer in time" in (await stage.fails(stage.http(ok=[Outcome(200)]))).message


async def test_nobody_there_is_told_as_that(make: Make) -> None:
    stage = await make()
    stage.port = free_port()
    stage.out.outbound.update(msgspec.structs.replace(stage.out.outbound._asked, allow=[f"{HOST}:{stage.port}"]))
    error = await stage.fails(stage.http(ok=[Outcome(200)]))
    assert (error.code, "cannot be reached" in error.message) == ("upstream_failed", True)
    stage.out.names.leads[HOST] = []
    assert "not known to DNS" in (await stage.fails(stage.http(ok=[Outcome(200)]))).message


async def test_a_check_reaches_no_more_than_its_connection(make: Make) -> None:
    stage = await make()
    error = await stage.fails(stage.http(ok=[Outcome(200)]), egress=["other.example.com"])
    assert isinstance(error, EgressBlocked)
    assert f"egress blocked: host '{HOST}' is not one of this connection's own hosts" in error.message
    assert stage.seen == []
    assert stage.out.names.asked == []


# what is shown


async def test_a_strangers_words_are_cut_plain_and_without_secrets(make: Make) -> None:
    name = f"a\u202eb\x1b[31m\u200bc\n{KEY} " + "x" * 200
    stage = await make(says(200, {"name": name, "odd": {"a": 1}, "flag": True}))
    found = await stage.before(stage.http(ok=[Outcome(200, label="{name}", note="{odd}{flag}")]))
    assert found.label is not None
    assert found.label.startswith("ab[31mc [secret KEY] xxx")
    assert len(found.label) == 80
    assert found.notes == []


# what is sent


BREAKING = 'a"b\\c/d?e&f=%41 é#}{$'


async def test_a_value_cannot_break_out_of_where_it_is_put(make: Make) -> None:
    sent: list[tuple[web.Request, bytes]] = []

    async def keep(request: web.Request) -> web.StreamResponse:
        sent.append((request, await request.read()))
        return web.json_response({"query": dict(request.query)})

    stage = await make(keep, {"KEY": BREAKING, "OTHER": "${KEY}"})
    bare: dict[str, Any] = {"headers": {}, "ok": [Outcome(200, label="{query.key}")]}
    assert (await stage.before(stage.http("/a?key=${KEY}&n=1", **bare))).label == "[secret KEY]"
    assert dict(sent[0][0].query) == {"key": BREAKING, "n": "1"}
    await stage.before(stage.http("/p/${KEY}/q", **bare))
    raw = sent[1][0].raw_path.split("/")
    assert (len(raw), unquote(raw[2])) == (4, BREAKING)
    await stage.before(stage.http(method="POST", body='{"k": "${KEY}", "o": "${OTHER}"}', **bare))
    assert json.loads(sent[2][1]) == {"k": BREAKING, "o": "${KEY}"}
    form: dict[str, Any] = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}, "ok": [Outcome(200)]}
    await stage.before(stage.http(method="POST", body="token=${KEY}&x=1", **form))
    assert sent[3][1] == b"token=a%22b%5Cc%2Fd%3Fe%26f%3D%2541%20%C3%A9%23%7D%7B%24&x=1"


@pytest.mark.parametrize("value", ["evil.example/", "u@evil.example", "x\r\nHost: evil"])
async def test_a_value_in_a_urls_host_leads_nowhere(make: Make, value: str) -> None:
    stage = await make(secrets={"KEY": value})
    check = HttpCheck("key", "http://${KEY}.example.com/", ok=[Outcome(200)])
    with pytest.raises(RootlinkError):
        await stage.before(check)
    assert stage.out.names.asked == []


async def test_a_value_that_climbs_in_a_path_is_refused(make: Make) -> None:
    stage = await make(secrets={"KEY": ".."})
    with pytest.raises(Invalid, match="secret KEY cannot be part of a URL"):
        await stage.before(stage.http("/a/${KEY}/b", headers={}))
    assert stage.seen == []


async def test_a_value_with_a_line_break_is_no_header(make: Make) -> None:
    stage = await make(secrets={"KEY": "one\r\nx-two: 2"})
    with pytest.raises(Invalid, match="secret KEY holds a line break"):
        await stage.before(stage.http(ok=[Outcome(200)]))
    assert stage.seen == []


async def test_a_secret_that_is_not_there_is_named(make: Make) -> None:
    stage = await make(secrets={})
    with pytest.raises(Invalid, match="secret KEY is not in this project's vault"):
        await stage.before(stage.http(ok=[Outcome(200)]))


# several


async def test_the_first_check_that_must_hold_ends_it_and_warnings_are_notes(make: Make) -> None:
    stage = await make(says(403, {}))
    bad: dict[str, Any] = {"ok": [Outcome(200)], "errors": [Outcome(403, say="This key may not.")]}
    warned = stage.http("/warn", severity="warn", **bad)
    labelled = stage.http("/one", ok=[Outcome(403, label="first", note="a note")])
    again = stage.http("/two", ok=[Outcome(403, label="second")])
    assert await stage.before(warned, labelled, again) == Verdict("first", ["This key may not.", "a note"])
    await stage.fails(stage.http("/three", **bad), stage.http("/four", **bad))
    assert [request.path for request in stage.seen] == ["/warn", "/one", "/two", "/three"]


async def test_checks_made_again_answer_what_fails(make: Make) -> None:
    stage = await make(says(401, {}))

    async def unasked(tool: str, arguments: dict[str, Any]) -> Raw:
        raise AssertionError(tool)

    bad = stage.http(errors=[Outcome(401, say=f"Not known: {KEY}")])
    found = await stage.checks.again(stage.desired(bad, ToolCheck("t", "x")), unasked)
    assert found == Verdict(error="Not known: [secret KEY]", code="invalid")


async def test_a_functions_own_hosts_bound_its_checks(make: Make) -> None:
    stage = await make()
    function = FunctionSpec("send", "() => 1", egress=[])
    desired = Desired("con_1", "main", "send", function=function, checks=[stage.http(ok=[Outcome(200)])])
    with pytest.raises(EgressBlocked):
        await stage.checks.before(desired, stage.said.append)


# TCP


async def test_a_port_that_somebody_listens_on_answers(make: Make) -> None:
    stage = await make()
    assert await stage.before(TcpCheck("reach", HOST, stage.port, "Nothing answers at {host}:{port}.")) == Verdict()
    assert stage.out.reasons == ["in_allowlist"]


async def test_a_port_that_nobody_listens_on_is_told_in_the_entrys_words(make: Make) -> None:
    stage = await make()
    port = free_port()
    stage.out.outbound.update(msgspec.structs.replace(stage.out.outbound._asked, allow=[f"{HOST}:{port}"]))
    check = TcpCheck("reach", "${KEY}.example.com", port, "Nothing answers at {host}:{port}.")
    stage.checks = Checks(stage.out.outbound, lambda: {"KEY": "api"}, Redactor())
    error = await stage.fails(check, egress=[f"{HOST}:{port}"])
    assert error.code == "upstream_failed"
    assert error.message.startswith(f"Nothing answers at {HOST}:{port}. (host '{HOST}' port {port} cannot be reached")


async def test_a_tcp_check_reaches_no_more_than_its_connection(make: Make) -> None:
    stage = await make()
    error = await stage.fails(TcpCheck("reach", HOST, stage.port, "Nothing."), egress=[])
    assert isinstance(error, EgressBlocked)
    assert stage.out.names.asked == []
    assert stage.out.reasons == ["not_in_connection"]
    stage.out.names.leads[HOST] = ["169.254.169.254"]
    assert "egress blocked" in (await stage.fails(TcpCheck("reach", HOST, stage.port, "Nothing."))).message


# tools


def answering(result: Any) -> Ask:
    async def ask(tool: str, arguments: dict[str, Any]) -> Raw:
        if isinstance(result, Exception):
            raise result
        return Raw(msgspec.json.encode(result))

    return ask


def told(words: Any, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words if isinstance(words, str) else json.dumps(words)}], **more}


async def test_a_tool_is_asked_with_its_arguments_and_names_the_connection(make: Make) -> None:
    stage, seen = await make(), list[Any]()

    async def ask(tool: str, arguments: dict[str, Any]) -> Raw:
        seen.append((tool, arguments))
        return Raw(msgspec.json.encode(told({"rows": [{"role": "ro", "db": "shop"}], "write": False})))

    check = ToolCheck("q", "sql", {"a": ["${KEY}"], "n": 1}, {"write": False}, label="{rows.0.role}@{rows.0.db}", note="fine")
    assert await stage.after(check, ask, Verdict(None, ["before"])) == Verdict("ro@shop", ["before", "fine"])
    assert seen == [("sql", {"a": [KEY], "n": 1})]
    assert stage.said == ["trying sql"]


async def test_structured_content_counts_before_text(make: Make) -> None:
    stage = await make()
    result = told("not json", structuredContent={"who": "ada"})
    assert (await stage.after(ToolCheck("q", "t", label="{who}"), answering(result))).label == "ada"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (told(f"password {KEY} is wrong", isError=True), "password [secret KEY] is wrong"),
        (RpcError(-32603, "password authentication failed"), "password authentication failed"),
        (told({"ok": False, "error": "invalid_auth"}), "invalid_auth"),
        (told({"error": "fetch failed"}), "fetch failed"),
        (UpstreamFailed("x ended with exit code 1"), "x ended with exit code 1"),
    ],
)
async def test_every_shape_of_failure_fails_a_tools_check_in_the_servers_words(make: Make, result: Any, words: str) -> None:
    stage = await make()
    with pytest.raises(UpstreamFailed) as failed:
        await stage.after(ToolCheck("q", "look", label="x"), answering(result))
    assert failed.value.message == f"look failed: {words}"
    with pytest.raises(Invalid) as told_so:
        await stage.after(ToolCheck("q", "look", error="It can't look."), answering(result))
    assert told_so.value.message == f"It can't look. The server says: {words}"


async def test_a_tools_answer_that_does_not_fit_warns_or_fails(make: Make) -> None:
    stage = await make()
    check = ToolCheck("ro", "sql", json={"can_write": False}, severity="warn", error="This role can write.")
    ask = answering(told({"can_write": True}))
    assert await stage.after(check, ask, Verdict("ro@shop")) == Verdict("ro@shop", ["This role can write."])
    with pytest.raises(Invalid, match=r"^This role can write\.$"):
        await stage.after(msgspec.structs.replace(check, severity="error"), ask)
