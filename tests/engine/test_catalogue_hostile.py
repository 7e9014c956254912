"""A mounted server that means harm by what it lists: the other servers' lists, and the engine, do not suffer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import pytest

from rootlink.engine import rpc
from rootlink.engine.catalogue import MAX_TTL, Owned, Source, Template, View, merge, public_names
from rootlink.engine.mounts import listing
from tests.engine.held import ADA, Mounted, dispatch, session, stateless


def merged(*servers: Mounted, **members: Any) -> View:
    return merge([Source(server, server.catalogue) for server in servers], [], [], **members)


@pytest.mark.parametrize("template", ["{a}" * 40 + "x", "{a}a" * 40 + "x", "a{b}" * 40 + "c"])
def test_a_template_cannot_be_made_to_match_for_ever(template: str) -> None:
    began = time.thread_time()
    assert not Template(template).match("a" * 20_000 + "y")
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    ("template", "uri", "matches"),
    [
        ("a{b}c", "abc", True),
        ("a{b}c", "ac", False),
        ("a{b}a", "a", False),
        ("a{b}a", "aa", False),
        ("{a}{b}", "x", False),
        ("{a}{b}", "xy", True),
        ("x{a}/y{b}z", "x1/y/y2z", True),
        ("x{a}yy{b}y", "x.yyy", False),
        ("x{a}yy{b}y", "x.yy.y", True),
        ("plain", "plain", True),
        ("plain", "plain2", False),
        ("{a}\n", "x\n", True),
    ],
)
def test_a_template_needs_something_for_each_of_its_expressions(template: str, uri: str, matches: bool) -> None:
    assert Template(template).match(uri) is matches


def test_who_takes_every_short_name_there_is_hides_nothing_and_breaks_no_list() -> None:
    long = "y" * 100
    digest = hashlib.sha256(f"m__{long}".encode()).hexdigest()
    taken = [f"m__{long}"[: 63 - digits] + f"_{digest[:digits]}" for digits in (8, 16, 32, 48, 60)]
    names = [long, *(name.removeprefix("m__") for name in taken)]
    found = public_names([("m", names)])
    assert len(set(found.values())) == 6
    assert found == public_names([("m", names[::-1])])


def test_an_alias_leads_to_the_mount_it_names_whoever_lists_it() -> None:
    thief = Mounted("thief", resources=[{"uri": "rootlink:///b/memo://1"}, {"uri": "memo://1"}])
    owner = Mounted("b", resources=[{"uri": "memo://1"}])
    view = merged(thief, owner)
    assert view.owner("rootlink:///b/memo://1") == Owned("b", "memo://1")
    assert view.owner("rootlink:///thief/rootlink:///b/memo://1") == Owned("thief", "rootlink:///b/memo://1")
    assert len(view.lists["resources"]) == 3


def test_members_of_odd_types_break_no_list() -> None:
    tools = [
        {"name": "t", "_meta": {"ui/resourceUri": [], "ui": {"resourceUri": {}}}},
        {"name": "u", "inputSchema": {"type": []}},
    ]
    odd = Mounted("odd", tools=tools, resources=[{"uri": "memo://1"}])
    for client in (None, session().client, stateless().client):
        names = [tool["name"] for tool in merged(Mounted("a", resources=[{"uri": "memo://1"}]), odd, client=client).tools]
        assert names == ["odd__t", "odd__u"]


async def test_content_of_odd_types_is_no_error() -> None:
    result = {"content": [{"type": "resource", "uri": [], "resource": {"uri": {}}}]}
    resources = [{"uri": "memo://1"}]
    one = dispatch(
        Mounted("a", resources=resources), Mounted("b", {"tools/call": result}, tools=[{"name": "t"}], resources=resources)
    )
    assert rpc.value(await one.handle(ADA, "tools/call", {"name": "b__t"}, session())) == result


@pytest.mark.parametrize("schema", [None, {}, {"type": "array"}, {"type": []}])
def test_a_tool_whose_arguments_are_said_to_be_no_object_costs_no_client_the_list(schema: Any) -> None:
    for client in (session().client, stateless().client):
        (tool,) = merged(Mounted("a", tools=[{"name": "t", "inputSchema": schema}]), client=client).tools
        assert tool["inputSchema"] == {"type": "object"}


async def test_an_item_that_an_official_client_would_refuse_every_list_for_is_dropped() -> None:
    good = {"name": "good", "inputSchema": {"type": "object"}, "description": None, "vendor": 5}
    odd = [{"name": "odd", member: 5} for member in ("title", "description", "inputSchema", "annotations", "icons", "_meta")]

    async def ask(method: str, params: dict[str, Any]) -> Any:
        return rpc.raw({"tools": [*odd, good]})

    assert (await listing.read("m", ask, ["tools"], {"tools": {}})).items == {"tools": [good]}


def test_a_lifetime_is_a_number_every_client_can_read() -> None:
    server = Mounted("a", tools=[{"name": "t"}], version="2026-07-28", cache={"tools": {"ttlMs": 10**300}})
    page = merged(server, client=stateless().client).page("tools", None, manages=True)
    assert rpc.value(page)["ttlMs"] == MAX_TTL


async def test_any_number_of_workspaces_that_are_asked_for_costs_the_engine_no_memory() -> None:
    one = dispatch(Mounted("a", tools=[{"name": "t"}]))
    for number in range(600):
        one.view(f"w{number}")
        await asyncio.sleep(0)
    assert len(one._views) <= 256
    assert next(tool["name"] for tool in one.view("main").tools) == "a__t"
