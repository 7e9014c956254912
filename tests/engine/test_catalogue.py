"""Several servers under one roof: whose a name is, and what passes untouched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from rootlink.engine.catalogue import FunctionTarget, MountTarget, View, merge, public_name, template_pattern


@dataclass
class Lists:
    tools: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    instructions: str | None = None


@dataclass
class Server:
    name: str
    catalogue: Lists


def merged(*servers: Server, functions: list[dict[str, Any]] | None = None) -> View:
    return merge(servers, functions or [], [])


def test_a_tool_is_named_after_its_mount_and_routed_by_its_own_name() -> None:
    view = merged(Server("a", Lists(tools=[{"name": "x/y"}])), Server("b", Lists(tools=[{"name": "x/y"}])))
    assert view.targets == {"a__x/y": MountTarget("a", "x/y"), "b__x/y": MountTarget("b", "x/y")}


def test_fields_nobody_knows_pass_untouched() -> None:
    tool = {"name": "t", "inputSchema": {"$defs": {"n": 2**70}}, "vendor": {"deep": [None, 1.5]}, "_meta": {"k": "v"}}
    view = merged(Server("a", Lists(tools=[tool])))
    assert msgspec.json.decode(view.raw["tools"]) == [{**tool, "name": "a__t"}]


def test_the_first_mount_that_lists_a_uri_owns_it() -> None:
    view = merged(
        Server("a", Lists(resources=[{"uri": "memo://1"}])),
        Server("b", Lists(resources=[{"uri": "memo://1"}, {"uri": "memo://2"}], templates=[{"uriTemplate": "user://{id}/x"}])),
    )
    assert (view.owner("memo://1"), view.owner("memo://2"), view.owner("user://7/x")) == ("a", "b", "b")
    assert view.owner("user://7/y") is None


def test_a_long_name_is_cut_the_same_way_every_time_and_never_like_another() -> None:
    long = "n" * 200
    assert len(public_name("a", long)) == 128
    assert public_name("a", long) == public_name("a", long) != public_name("a", long + "m")


def test_a_template_matches_literally_outside_its_expressions() -> None:
    pattern = template_pattern("file:///{+path}.txt")
    assert pattern.match("file:///a/b.txt")
    assert not pattern.match("file:///a/bXtxt")


def test_functions_stand_beside_mounts() -> None:
    view = merged(functions=[{"name": "function__hello"}])
    assert view.targets["function__hello"] == FunctionTarget("hello")


def test_a_second_tool_of_the_same_name_does_not_hide_the_first() -> None:
    view = merged(Server("a", Lists(tools=[{"name": "t", "n": 1}, {"name": "t", "n": 2}])))
    assert [tool["n"] for tool in view.tools] == [1]
