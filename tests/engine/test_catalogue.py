"""Several servers under one roof: whose a name is, and what passes untouched."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine import aliases
from rootlink.engine.calls import Client
from rootlink.engine.catalogue import FunctionTarget, MountTarget, Source, Template, View, merge, public_names
from rootlink.engine.pages import MAX_BYTES, Pages
from rootlink.engine.rpc import RpcError
from tests.engine.held import Mounted, session, stateless

ALLOWED = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
SESSION, STATELESS = session().client, stateless().client


def merged(*servers: Mounted, functions: list[dict[str, Any]] | None = None, client: Client | None = None) -> View:
    return merge([Source(server, server.catalogue) for server in servers], functions or [], [], client)


def public_name(owner: str, name: str) -> str:
    return public_names([(owner, [name])])[owner, name]


def listed(view: View, member: str = "tools") -> list[dict[str, Any]]:
    return msgspec.json.decode(view.page(member, None, manages=True))[member]


# names


def test_a_tool_is_named_after_its_mount_and_routed_by_its_own_name() -> None:
    view = merged(Mounted("a", tools=[{"name": "x.y"}]), Mounted("b", tools=[{"name": "x.y"}]))
    assert view.targets == {"a__x.y": MountTarget("a", "x.y"), "b__x.y": MountTarget("b", "x.y")}


def test_fields_nobody_knows_pass_untouched() -> None:
    tool = {"name": "t", "inputSchema": {"$defs": {"n": 2**70}}, "vendor": {"deep": [None, 1.5]}, "_meta": {"k": "v"}}
    assert listed(merged(Mounted("a", tools=[tool]))) == [{**tool, "name": "a__t"}]


@pytest.mark.parametrize("name", ["x/y", "two words", "größe", "\ud83d", "名", "n" * 63, "n" * 5000, "a\x00b"])
def test_a_name_hosts_refuse_becomes_one_they_take_and_the_same_every_time(name: str) -> None:
    found = public_name("m", name)
    assert ALLOWED.match(found)
    assert found.startswith("m__")
    assert found == public_name("m", name)
    assert found != public_name("m", name + "2")


def test_a_name_that_hosts_take_is_not_touched() -> None:
    for name in ("read_graph", "a-b.c", "n" * 59, "X"):
        assert public_name("m", name) == f"m__{name}"


def test_a_mount_of_the_longest_name_has_tools_too() -> None:
    assert ALLOWED.match(public_name("m" * 63, "t"))
    assert public_name("m" * 63, "t") != public_name("m" * 63, "u")


def test_names_that_would_be_equal_are_told_apart_whatever_the_order() -> None:
    names = ["a/b", "a b", public_name("m", "a/b").removeprefix("m__"), "a_b"]
    found = public_names([("m", names)])
    assert len(set(found.values())) == 4
    assert found == public_names([("m", list(reversed(names)))])
    assert found["m", names[2]] == f"m__{names[2]}"  # it needed no change, so it keeps its name


def test_functions_stand_beside_mounts() -> None:
    view = merged(functions=[{"name": "function__hello"}])
    assert view.targets["function__hello"] == FunctionTarget("hello")


def test_a_second_tool_of_the_same_name_does_not_hide_the_first() -> None:
    view = merged(Mounted("a", tools=[{"name": "t", "n": 1}, {"name": "t", "n": 2}]))
    assert [tool["n"] for tool in view.tools] == [1]


# resources


def test_the_first_mount_that_lists_a_uri_owns_it() -> None:
    view = merged(
        Mounted("a", resources=[{"uri": "memo://1"}]),
        Mounted("b", resources=[{"uri": "memo://1"}, {"uri": "memo://2"}], templates=[{"uriTemplate": "user://{id}/x"}]),
    )
    assert [view.owner(uri) for uri in ("memo://1", "memo://2", "user://7/x")] == [
        ("a", "memo://1"),
        ("b", "memo://2"),
        ("b", "user://7/x"),
    ]
    assert view.owner("other://7/y") is None


def test_a_uri_two_mounts_list_is_reachable_at_both() -> None:
    twins = [Mounted(name, resources=[{"uri": "memo://1", "n": name}], templates=[{"uriTemplate": "u://{id}"}]) for name in "ab"]
    view = merged(*twins)
    assert listed(view, "resources") == [{"uri": "memo://1", "n": "a"}, {"uri": "rootlink:///b/memo://1", "n": "b"}]
    assert [item["uriTemplate"] for item in listed(view, "resourceTemplates")] == ["u://{id}", "rootlink:///b/u://{id}"]
    assert view.owner("rootlink:///b/memo://1") == ("b", "memo://1")
    assert view.owner("rootlink:///b/u://7") == ("b", "u://7")
    assert view.owner("rootlink:///a/memo://1") == ("a", "memo://1")
    assert view.owner("rootlink:///nobody/memo://1") is None


def test_links_to_an_aliased_resource_lead_to_it_and_others_stay() -> None:
    table = {"memo://1": "rootlink:///b/memo://1"}
    value = {
        "content": [
            {"type": "resource_link", "uri": "memo://1", "n": 2**70},
            {"type": "resource", "resource": {"uri": "memo://1", "text": "memo://1"}},
            {"type": "resource_link", "uri": "memo://2"},
            "no block",
        ],
        "messages": [{"content": {"type": "resource_link", "uri": "memo://1"}}, {"content": [{"uri": "memo://1"}]}, None],
        "contents": [{"uri": "memo://1"}],
    }
    found = msgspec.json.decode(aliases.in_result(Raw(msgspec.json.encode(value)), table))
    alias = table["memo://1"]
    assert found["content"][0] == {"type": "resource_link", "uri": alias, "n": 2**70}
    assert found["content"][1]["resource"] == {"uri": alias, "text": "memo://1"}
    assert found["content"][2:] == value["content"][2:]
    assert found["messages"] == [{"content": {"type": "resource_link", "uri": alias}}, {"content": [{"uri": alias}]}, None]
    assert found["contents"] == [{"uri": alias}]


def test_a_result_without_links_to_aliased_resources_stays_the_bytes_it_was() -> None:
    sent = Raw(b'{"content": [ {"type":"text","text":"memo://1"} ]}')
    assert bytes(aliases.in_result(sent, {"memo://1": "x"})) == bytes(sent)


def test_the_page_of_an_app_passes_verbatim_unless_its_uri_is_another_mounts() -> None:
    tool = {"name": "t", "_meta": {"ui": {"resourceUri": "ui://page", "x": 1}, "ui/resourceUri": "ui://page", "k": 1}}
    twins = [Mounted(name, tools=[tool], resources=[{"uri": "ui://page"}]) for name in "ab"]
    first, second = (found["_meta"] for found in listed(merged(*twins)))
    assert first == tool["_meta"]
    alias = "rootlink:///b/ui://page"
    assert second == {"ui": {"resourceUri": alias, "x": 1}, "ui/resourceUri": alias, "k": 1}


def test_a_uri_nobody_lists_goes_to_the_one_server_it_can_be_of() -> None:
    have: dict[str, Any] = {"capabilities": {"resources": {}}}
    assert merged(Mounted("a"), Mounted("b", **have)).owner("any://1") == ("b", "any://1")
    two = merged(
        Mounted("a", resources=[{"uri": "x://1"}], **have), Mounted("b", templates=[{"uriTemplate": "y://{n}/t"}], **have)
    )
    assert two.owner("x://2") == ("a", "x://2")
    assert two.owner("y://2") == ("b", "y://2")
    assert two.owner("z://2") is None


def test_a_template_matches_literally_outside_its_expressions() -> None:
    pattern = Template("file:///{+path}.txt")
    assert pattern.match("file:///a/b.txt")
    assert not pattern.match("file:///a/bXtxt")


# eras


def test_session_clients_are_not_shown_schemas_their_sdks_refuse() -> None:
    tools = [
        {"name": "list", "inputSchema": {"type": "object"}, "outputSchema": {"type": "array"}},
        {"name": "map", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object", "x": 1}},
    ]
    server = Mounted("a", tools=tools, version="2026-07-28")
    assert [tool.get("outputSchema") for tool in listed(merged(server, client=SESSION))] == [None, {"type": "object", "x": 1}]
    assert [tool.get("outputSchema") for tool in listed(merged(server, client=STATELESS))] == [
        {"type": "array"},
        {"type": "object", "x": 1},
    ]


def test_how_tasks_are_run_is_shown_to_clients_of_the_servers_own_era_alone() -> None:
    tools = [
        {"name": "a", "execution": {"taskSupport": "optional"}},
        {"name": "b", "execution": {"taskSupport": "required", "vendor": 1}},
        {"name": "c", "execution": {"taskSupport": "forbidden"}},
    ]
    server = Mounted("m", tools=tools, version="2025-11-25")
    shown = [[tool.get("execution") for tool in listed(merged(server, client=client))] for client in (SESSION, STATELESS)]
    assert shown == [[tool["execution"] for tool in tools], [None, {"vendor": 1}, {"taskSupport": "forbidden"}]]


def test_a_stateless_client_may_keep_a_list_as_long_as_the_shortest_lived_part_of_it() -> None:
    def server(name: str, ttl: object) -> Mounted:
        return Mounted(name, version="2026-07-28", cache={"tools": {"ttlMs": ttl, "cacheScope": "public"}})

    def lifetime(*servers: Mounted, client: Client | None = STATELESS) -> tuple[object, object]:
        answer = msgspec.json.decode(merged(*servers, client=client).page("tools", None, manages=False))
        return answer.get("ttlMs"), answer.get("cacheScope")

    assert lifetime(server("a", 9000), server("b", 500)) == (500, "private")
    unsaid = (None, None)  # which the era turns into 0 and private
    assert lifetime(server("a", 9000), Mounted("old")) == unsaid
    assert lifetime(server("a", "soon")) == lifetime(server("a", -5)) == lifetime() == unsaid
    assert lifetime(server("a", 9000), client=SESSION) == unsaid


def test_what_a_tool_wants_repeated_in_headers_is_known_by_its_public_name() -> None:
    def tool(name: str, header: object) -> dict[str, Any]:
        return {"name": name, "inputSchema": {"type": "object", "properties": {"r": {"type": "string", "x-mcp-header": header}}}}

    view = merged(Mounted("m", tools=[tool("a/b", "Region"), tool("bad", ""), {"name": "plain"}]))
    assert view.mirrored == {public_name("m", "a/b"): {("r",): "Region"}}


# instructions


def test_instructions_say_whose_they_are_and_share_the_room_there_is() -> None:
    assert merged(Mounted("a", instructions="be kind"), Mounted("b"), Mounted("c", instructions="x")).instructions == (
        "a: be kind\n\nc: x"
    )
    long = merged(Mounted("a", instructions="x" * 9000), Mounted("b", instructions="short")).instructions
    assert len(long) <= 8192
    assert long.endswith("…\n\nb: short")


def test_instructions_are_those_of_now() -> None:
    server = Mounted("a")
    view = merged(server)
    server.catalogue = msgspec.structs.replace(server.catalogue, instructions="late")
    assert view.instructions == "a: late"


# pages


def every_page(pages: Pages, member: str) -> list[list[Any]]:
    answer = msgspec.json.decode(pages.first)
    found = [answer[member]]
    while "nextCursor" in answer:
        answer = msgspec.json.decode(pages.at(answer["nextCursor"]))
        found.append(answer[member])
    return found


def test_a_list_that_fits_is_one_page_without_a_cursor() -> None:
    assert bytes(Pages("tools", [{"name": "a"}, {"name": "b"}]).first) == b'{"tools":[{"name":"a"},{"name":"b"}]}'
    assert bytes(Pages("tools", []).first) == b'{"tools":[]}'
    assert bytes(Pages("tools", [], 5).first) == b'{"tools":[],"ttlMs":5,"cacheScope":"private"}'


def test_a_long_list_comes_whole_and_in_order() -> None:
    items = [{"n": n} for n in range(2500)]
    pages = every_page(Pages("resources", items, 7), "resources")
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [item for page in pages for item in page] == items


def test_a_page_is_no_larger_than_a_mebibyte_but_has_one_item() -> None:
    items = [{"text": "x" * size} for size in (10, MAX_BYTES, 10, MAX_BYTES // 2, MAX_BYTES // 2, 10)]
    pages = every_page(Pages("tools", items), "tools")
    assert [len(page) for page in pages] == [1, 1, 2, 2]
    assert [item for page in pages for item in page] == items


def test_a_cursor_outlives_a_restart_but_not_a_change() -> None:
    items = [{"n": n} for n in range(1500)]
    cursor = msgspec.json.decode(Pages("tools", items).first)["nextCursor"]
    assert Pages("tools", items).at(cursor)
    for other in (Pages("tools", [*items, {"n": 1500}]), Pages("prompts", items), Pages("tools", items[:10])):
        with pytest.raises(RpcError) as refused:
            other.at(cursor)
        assert refused.value.code == -32602


@pytest.mark.parametrize("cursor", ["", "garbage", "ä", 5, [], {}, True, "x" * 10_000, "AAAA", "===="])
def test_a_cursor_that_is_none_is_refused_with_words(cursor: object) -> None:
    for pages in (Pages("tools", [{"n": n} for n in range(1500)]), Pages("tools", [])):
        with pytest.raises(RpcError, match="Unknown cursor") as refused:
            pages.at(cursor)
        assert refused.value.code == -32602
