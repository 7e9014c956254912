"""What a request means: who it goes to, what comes back, and what is said when it can't be answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.rpc import RpcError
from rootlink.errors import Unavailable, UpstreamFailed
from tests.engine.held import ADA, BOB, Mounted, dispatch, session, stateless
from tests.harness.calls import Told


async def ask(dispatched: Dispatch, method: str, params: dict[str, Any], call: Told | None = None, caller: Caller = ADA) -> Any:
    return msgspec.json.decode(await dispatched.handle(caller, method, params, call))


async def refused(dispatched: Dispatch, method: str, params: dict[str, Any], call: Told | None = None) -> RpcError:
    with pytest.raises(RpcError) as error:
        await dispatched.handle(ADA, method, params, call)
    return error.value


# views


def test_a_clients_lists_are_asked_for_once_until_something_changes() -> None:
    mount = Mounted("m")
    dispatched = dispatch(mount)
    client = session("s1").client
    first = dispatched.view("main", client)
    assert dispatched.view("main", client) is first
    assert mount.looked == ["s1"]
    dispatched.forget("main")
    assert dispatched.view("main", client) is not first
    assert mount.looked == ["s1", "s1"]


def test_clients_that_see_the_same_share_one_view_and_others_do_not() -> None:
    mount = Mounted("m", tools=[{"name": "base"}])
    mount.variants = {"s2": Catalogue(tools=[{"name": "base"}, {"name": "more"}])}
    dispatched = dispatch(mount)
    one, two, three = (dispatched.view("main", session(key).client) for key in ("s1", "s2", "s3"))
    assert one is three
    assert (set(one.targets) ^ set(two.targets)) == {"m__more"}
    assert dispatched.view("main", stateless().client) is not one


def test_a_workspace_shows_its_own_mounts_alone() -> None:
    dispatched = dispatch(Mounted("m", tools=[{"name": "t"}]), Mounted("n", ws="other", tools=[{"name": "t"}]))
    assert "m__t" in dispatched.view("main").targets
    assert "n__t" in dispatched.view("other").targets
    assert "n__t" not in dispatched.view("main").targets


async def test_a_key_that_may_not_manage_is_not_shown_what_manages() -> None:
    dispatched = dispatch()
    shown = {tool["name"] for tool in (await ask(dispatched, "tools/list", {}, caller=BOB))["tools"]}
    assert shown == {"mcp_server_list", "connector_catalog"}
    assert len((await ask(dispatched, "tools/list", {}))["tools"]) == 4


async def test_a_list_of_many_comes_in_pages_with_a_cursor_of_ours() -> None:
    mounts = [Mounted(f"m{k}", tools=[{"name": f"t{n}"} for n in range(500)], prompts=[{"name": "p"}]) for k in range(3)]
    dispatched, call = dispatch(*mounts), session()
    first = await ask(dispatched, "tools/list", {}, call)
    second = await ask(dispatched, "tools/list", {"cursor": first["nextCursor"]}, call)
    assert (len(first["tools"]), len(second["tools"]), second.get("nextCursor")) == (1000, 504, None)
    assert [tool["name"] for tool in second["tools"][:1]] == ["m2__t0"]
    error = await refused(dispatched, "prompts/list", {"cursor": first["nextCursor"]}, call)
    assert error.code == -32602
    mounts[0].catalogue = Catalogue(tools=[{"name": "changed"}])
    dispatched.forget("main")
    assert (await refused(dispatched, "tools/list", {"cursor": first["nextCursor"]}, call)).code == -32602


# capabilities


def test_lists_and_their_notices_are_declared_before_there_is_anything() -> None:
    assert dispatch().capabilities("main", session().client) == {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "completions": {},
        "logging": {},
    }


def test_an_extension_is_declared_when_one_server_alone_has_it() -> None:
    ui = {"io.modelcontextprotocol/ui": {"k": 1}}
    found = dispatch(
        Mounted("a", capabilities={"extensions": {"x/one": {"deep": [1]}, "x/both": {}, **ui}, "experimental": {"e": {}}}),
        Mounted("b", capabilities={"extensions": {"x/both": {}, **ui}, "experimental": None}),
    ).capabilities("main", session().client)
    assert found["extensions"] == {"x/one": {"deep": [1]}, **ui}
    assert found["experimental"] == {"e": {}}


# requests


async def test_what_a_server_answers_passes_as_the_bytes_it_sent() -> None:
    class Verbatim(Mounted):
        async def request(self, *args: object, **more: object) -> Raw:
            return Raw(b'{"content":[],  "structuredContent": {"n": 1e400, "n": 123456789012345678901234567890}}')

    call = session()
    answer = await dispatch(Verbatim("m", tools=[{"name": "t"}])).handle(ADA, "tools/call", {"name": "m__t"}, call)
    assert bytes(answer) == b'{"content":[],  "structuredContent": {"n": 1e400, "n": 123456789012345678901234567890}}'


async def test_names_are_the_servers_own_again_and_everything_else_passes() -> None:
    mount = Mounted("m", {"tools/call": {}, "prompts/get": {}}, tools=[{"name": "a/b"}], prompts=[{"name": "say it"}])
    dispatched = dispatch(mount)
    tool, prompt = next(iter(dispatched.view("main").targets)), next(iter(dispatched.view("main").prompts))
    await ask(dispatched, "tools/call", {"name": tool, "arguments": {"x": None}, "vendor": 2**70, "_meta": {"k": 1}})
    await ask(dispatched, "prompts/get", {"name": prompt, "more": []})
    assert mount.asked == [
        ("tools/call", {"name": "a/b", "arguments": {"x": None}, "vendor": 2**70, "_meta": {"k": 1}}),
        ("prompts/get", {"name": "say it", "more": []}),
    ]


async def test_of_two_servers_with_one_uri_each_is_read_where_it_is_listed() -> None:
    def server(name: str) -> Mounted:
        read = {"contents": [{"uri": "memo://1", "text": name}]}
        link = {"content": [{"type": "resource_link", "uri": "memo://1", "name": name}]}
        answers = {"resources/read": read, "tools/call": link}
        return Mounted(name, answers, resources=[{"uri": "memo://1"}], tools=[{"name": "t"}])

    dispatched = dispatch(server("a"), server("b"))
    alias = "rootlink:///b/memo://1"
    for uri, text in (("memo://1", "a"), (alias, "b")):
        assert await ask(dispatched, "resources/read", {"uri": uri}) == {"contents": [{"uri": uri, "text": text}]}
    assert (await ask(dispatched, "tools/call", {"name": "a__t"}))["content"][0]["uri"] == "memo://1"
    assert (await ask(dispatched, "tools/call", {"name": "b__t"}))["content"][0]["uri"] == alias
    stable = "rootlink:///a/memo://1"  # not listed, and there all the same
    assert await ask(dispatched, "resources/read", {"uri": stable}) == {"contents": [{"uri": stable, "text": "a"}]}


async def test_what_was_subscribed_to_under_an_alias_is_told_under_it() -> None:
    mounts = [Mounted(name, resources=[{"uri": "memo://1"}]) for name in "ab"]
    dispatched, changes = dispatch(*mounts), Changes()
    changes.aliases = dispatched.aliases
    told: list[tuple[str, Any]] = []
    changes.on_updated.append(lambda ws, uri, params, key: told.append((uri, msgspec.json.decode(params))))
    client = session().client
    await dispatched.subscribe(ADA, "memo://1", client)
    await dispatched.subscribe(ADA, "rootlink:///b/memo://1", client)
    assert [mount.subscribed for mount in mounts] == [[("memo://1", "s")], [("memo://1", "s")]]
    changes.updated("main", "memo://1", Raw(b'{"uri":"memo://1","x":1}'), None)
    assert told == [
        ("memo://1", {"uri": "memo://1", "x": 1}),
        ("rootlink:///b/memo://1", {"uri": "rootlink:///b/memo://1", "x": 1}),
    ]
    await dispatched.unsubscribe(ADA, "rootlink:///b/memo://1", client)
    assert mounts[1].subscribed == []


async def test_a_completion_goes_to_the_owner_of_the_prompt_or_template() -> None:
    a = Mounted("a", {"completion/complete": {"of": "a"}}, prompts=[{"name": "p"}], templates=[{"uriTemplate": "x://{id}"}])
    b = Mounted("b", {"completion/complete": {"of": "b"}}, prompts=[{"name": "p"}], templates=[{"uriTemplate": "x://{id}"}])
    dispatched = dispatch(a, b)

    async def completed(ref: dict[str, Any]) -> Any:
        return (await ask(dispatched, "completion/complete", {"ref": ref, "argument": {"name": "n", "value": ""}}))["of"]

    assert await completed({"type": "ref/prompt", "name": "b__p"}) == "b"
    assert await completed({"type": "ref/resource", "uri": "x://{id}"}) == "a"
    assert await completed({"type": "ref/resource", "uri": "rootlink:///b/x://{id}"}) == "b"
    assert [params["ref"] for _, params in b.asked] == [
        {"type": "ref/prompt", "name": "p"},
        {"type": "ref/resource", "uri": "x://{id}"},
    ]


REFUSED = {
    "a tool nobody has": ("tools/call", {"name": "m__nothing"}, -32602),
    "a tool without a name": ("tools/call", {}, -32602),
    "arguments that are a list": ("tools/call", {"name": "m__t", "arguments": []}, -32602),
    "a prompt nobody has": ("prompts/get", {"name": "nothing"}, -32602),
    "a resource nobody can have": ("resources/read", {"uri": "memo://1"}, -32002),
    "a resource that is a number": ("resources/read", {"uri": 5}, -32002),
    "a completion of nothing": ("completion/complete", {"ref": "x"}, -32602),
    "a method nobody has": ("vendor/thing", {}, -32601),
    "a method of the other direction": ("sampling/createMessage", {}, -32601),
    "tasks, where nobody has any": ("tasks/list", {}, -32601),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_answered_is_refused_with_its_code(case: str) -> None:
    method, params, code = REFUSED[case]
    assert (await refused(dispatch(Mounted("m", tools=[{"name": "t"}])), method, params, session())).code == code


async def test_a_subscription_to_nothing_is_refused() -> None:
    with pytest.raises(RpcError) as error:
        await dispatch(Mounted("m")).subscribe(ADA, "memo://1", session().client)
    assert (error.value.code, error.value.data) == (-32002, {"uri": "memo://1"})


# errors


async def test_a_servers_error_keeps_its_code_and_data_and_loses_secrets() -> None:
    mount = Mounted("m", {"tools/call": RpcError(-32042, "open hunter2", {"elicitations": [1]})}, tools=[{"name": "t"}])
    error = await refused(dispatch(mount), "tools/call", {"name": "m__t"}, session())
    assert (error.code, error.message, error.data) == (-32042, "open ***", {"elicitations": [1]})


RETRYABLE: dict[str, tuple[Exception, str, dict[str, Any], bool]] = {
    "it never got there": (Unavailable("m is starting"), "tools/call", {"name": "m__t"}, True),
    "a call that was not answered": (UpstreamFailed("m did not answer"), "tools/call", {"name": "m__t"}, False),
    "a reading that was not answered": (UpstreamFailed("m did not answer"), "resources/read", {"uri": "x://1"}, True),
    "the link went": (UpstreamFailed("m went away", data={"retryable": True}), "tools/call", {"name": "m__t"}, True),
}


@pytest.mark.parametrize("case", RETRYABLE)
async def test_a_server_that_cannot_be_asked_is_named_with_whether_to_try_again(case: str) -> None:
    failure, method, params, again = RETRYABLE[case]
    mount = Mounted("m", {method: failure}, tools=[{"name": "t"}], resources=[{"uri": "x://1"}])
    error = await refused(dispatch(mount), method, params, session())
    assert error.code == -32603
    assert error.data == {"code": failure.code, "upstream": "m", "retryable": again}  # type: ignore[attr-defined]


# extensions


async def test_an_extensions_method_goes_to_the_one_server_that_declares_any() -> None:
    vendor = Mounted("v", {"vendor/thing": {"ok": 1}}, capabilities={"experimental": {"vendor": {}}})
    dispatched = dispatch(Mounted("m"), vendor)
    assert await ask(dispatched, "vendor/thing", {"x": 2**70}, session()) == {"ok": 1}
    assert vendor.asked == [("vendor/thing", {"x": 2**70})]
    assert (await refused(dispatched, "vendor/other", {}, session())).data == {"of": "v"}


OWN = ["server/discover", "roots/list", "notifications/x", "tasks/get", "initialize", "resources/subscribe"]


@pytest.mark.parametrize("method", OWN)
async def test_methods_that_are_mcps_own_are_no_extensions(method: str) -> None:
    vendor = Mounted("v", capabilities={"extensions": {"vendor/x": {}}})
    assert (await refused(dispatch(vendor), method, {}, session())).code == -32601
    assert vendor.asked == []


async def test_with_two_servers_of_extensions_a_resource_decides_or_nobody_is_asked() -> None:
    answers: dict[str, Callable[..., Any]] = {"resources/directory/read": lambda params, call: params}
    extended = {"extensions": {"vendor/skills": {}}}
    vendors = [Mounted(name, answers, capabilities=extended, resources=[{"uri": f"{name}://1"}]) for name in "ab"]
    dispatched = dispatch(Mounted("c", resources=[{"uri": "c://1"}]), *vendors)
    method = "resources/directory/read"
    assert await ask(dispatched, method, {"uri": "b://1", "x": 1}, session()) == {"uri": "b://1", "x": 1}
    assert await ask(dispatched, method, {"uri": "rootlink:///a/a://2"}, session()) == {"uri": "a://2"}
    nowhere: list[dict[str, Any]] = [{}, {"uri": 5}, {"uri": "c://1"}, {"uri": "d://1"}]
    for params in nowhere:
        assert (await refused(dispatched, method, params, session())).code == -32601
