"""Variants of the catalogue that are servers elsewhere, connected with the real programs: one with a key in a header, which only
a call proves, and one that a person signs in to. The services are stand-ins on loopback, reached by their real names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from tests.engine.oauth.authority import Site
from tests.harness.instance import KERNEL, Instance, closing, eventually
from tests.harness.standin import Authority, Seen, StandIn, front, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
MAPS, MCP, API = "mapstools.googleapis.com", "mcp.supabase.com", "api.supabase.com"
GOOD, BAD = "AIzaGood0123456789", "AIzaWrong9876543210"


# Google: lists its tools to everybody, and asks for the key at a call


def google(seen: Seen) -> tuple[int, Any]:
    if seen.method != "POST":
        return 405, {}
    asked = msgspec.json.decode(seen.body)
    if "id" not in asked:
        return 202, b""
    if asked["method"] == "tools/call" and seen.headers.get("x-goog-api-key") != GOOD:
        words = "API key not valid. Please pass a valid API key."
        return 400, {"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}
    tools = [
        {"name": name, "description": "Of places.", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
        for name in ("search_places", "lookup_weather", "compute_routes")
    ]
    answered: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "maps", "version": "1"},
        },
        "tools/list": {"tools": tools},
        "tools/call": {"content": [{"type": "text", "text": f"found by the stand-in: {asked.get('params', {}).get('name')}"}]},
    }
    result = answered.get(asked["method"])
    if result is None:
        return 200, {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "Method not found"}}
    return 200, {"jsonrpc": "2.0", "id": asked["id"], "result": result}


def list_organizations() -> str:
    """List the organizations."""
    return "acme"


class World:
    def __init__(self, site: Site, maps: StandIn, mcp: StandIn, api: StandIn) -> None:
        self.site, self.maps, self.mcp, self.api = site, maps, mcp, api

    def well(self) -> None:
        """Everything is as it should be."""
        self.maps.answer = google
        for one in (self.maps, self.mcp, self.api):
            one.away = False
        self.site.lies.declined = False


@pytest.fixture(scope="module")
def world(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    site = Site(f"https://{API}", f"https://{MCP}")
    site.more.append(list_organizations)
    with ExitStack() as stack:
        stack.enter_context(site.serving())
        maps = stack.enter_context(standin(MAPS, google, tmp_path_factory.mktemp("maps"), authority))
        api, mcp = (stack.enter_context(front(name, port, authority)) for name, port in zip((API, MCP), site.ports, strict=True))
        yield World(site, maps, mcp, api)


@pytest.fixture(scope="module")
def instance(world: World, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    pins = [word for one in (world.maps, world.mcp, world.api) for word in one.pin]
    yield from closing(Instance(tmp_path_factory.mktemp("remotes") / "home", *KERNEL, *pins, *authority.flags))


@pytest.fixture
def clean(instance: Instance, world: World) -> Iterator[Instance]:
    """An instance that holds nothing."""
    assert held(instance) == []
    yield instance
    world.well()
    for connection in instance.project("GET", "/connections").data:
        assert instance.project("DELETE", f"/connections/{connection['name']}").status == 200
    for secret in instance.project("GET", "/secrets").data:
        instance.project("DELETE", f"/secrets/{secret['name']}")


def held(instance: Instance) -> list[str]:
    """What there is of connections: rows, secrets, hosts."""
    rows = {path: instance.project("GET", path).data for path in ("/connections", "/secrets", "/egress")}
    return [str(row.get("name") or row.get("domain")) for found in rows.values() for row in found]


def grounding(key: str) -> dict[str, Any]:
    return {"connector": "google-maps", "variant": "grounding", "secrets": {"GOOGLE_MAPS_API_KEY": key}}


def refused(instance: Instance, wish: dict[str, Any], code: str) -> str:
    """The words of a connect that fails, which leaves nothing."""
    answer = instance.project("POST", "/connections", wish)
    assert (answer.json["ok"], answer.code) == (False, code), answer.body
    assert held(instance) == []
    for secret in wish.get("secrets", {}).values():
        assert secret not in answer.message
        assert instance.secret_is_nowhere(secret) == []
    return answer.message


def test_googles_own_server_is_connected_with_the_key_in_its_header_and_its_tools_are_called(clean: Instance) -> None:
    made = clean.connect(**grounding(GOOD))
    assert (made["state"], made["error"], made["notes"]) == ("connected", None, ["The check made one search of places."])
    assert sorted(made["tools"]) == [f"google-maps__{tool}" for tool in ("compute_routes", "lookup_weather", "search_places")]
    for tool in made["tools"]:
        said = clean.call(tool, {"text_query": "Berlin"})
        assert said["content"][0]["text"] == f"found by the stand-in: {tool.partition('__')[2]}"
    assert clean.secret_is_nowhere(GOOD) == []


def test_a_key_that_google_does_not_know_is_found_by_a_call_for_its_list_is_everybodys(clean: Instance) -> None:
    said = refused(clean, grounding(BAD), "invalid")
    words = "A search with this key failed. Is the key right, and Maps Grounding Lite enabled for it?"
    assert said == f"{words} The server says: API key not valid. Please pass a valid API key."


def test_an_outage_of_googles_is_told_as_one(clean: Instance, world: World) -> None:
    world.maps.answer = lambda seen: (503, {"message": "down for maintenance"})
    said = refused(clean, grounding(GOOD), "upstream_failed")
    assert said.startswith("google-maps answered HTTP 503") and "down for maintenance" in said
    world.maps.away = True
    assert MAPS in refused(clean, grounding(GOOD), "upstream_failed")


def test_a_key_that_died_is_shown_in_the_connections_state_until_a_call_goes_well(clean: Instance, world: World) -> None:
    clean.connect(**grounding(GOOD))

    def error() -> str | None:
        shown: str | None = clean.project("GET", "/connections/google-maps").data["error"]
        return shown

    world.maps.answer = lambda seen: google(Seen(seen.method, seen.path, {**seen.headers, "x-goog-api-key": BAD}, seen.body))
    with pytest.raises(AssertionError):
        clean.call("google-maps__search_places", {"text_query": "Berlin"})
    eventually(lambda: "API key not valid" in (error() or ""), what="the state")
    assert (error() or "").startswith("the last call of search_places (")
    world.well()
    clean.call("google-maps__search_places", {"text_query": "Berlin"})
    eventually(lambda: error() is None, what="the state, when it went well")


# Supabase: a person signs in there


REMOTE: dict[str, Any] = {"connector": "supabase", "variant": "remote"}


def begun(instance: Instance) -> str:
    """The page that a person must open."""
    answer = instance.project("POST", "/connections", REMOTE).data
    [link] = [step["link"] for step in answer["steps"] if step.get("link")]
    assert urlsplit(link).netloc == API
    return str(link)


def agreed(link: str, world: World) -> str:
    """Opened as a browser does: where it is sent back to."""
    page = httpx2.get(link.replace(f"https://{API}", f"http://127.0.0.1:{world.site.ports[0]}"), follow_redirects=False)
    return str(page.headers["location"])


def back(place: str) -> httpx2.Response:
    return httpx2.get(place, follow_redirects=False, timeout=60)


def undone(instance: Instance) -> None:
    eventually(lambda: held(instance) == [], what="the undoing")


def test_supabases_own_server_is_signed_in_to_and_its_tools_are_called(clean: Instance, world: World) -> None:
    page = back(agreed(begun(clean), world))
    assert page.status_code == 200 and "supabase is signed in" in page.text
    eventually(lambda: clean.project("GET", "/connections/supabase").data["state"] == "connected", what="the connection")
    made = clean.project("GET", "/connections/supabase").data
    assert made["error"] is None and "supabase__list_organizations" in made["tools"]
    assert clean.call("supabase__list_organizations")["content"][0]["text"] == "acme"
    assert world.site.authorized[-1]["resource"] == f"https://{MCP}/mcp"
    for secret in world.site.secrets:
        assert clean.secret_is_nowhere(secret) == []
    world.mcp.away = True
    eventually(lambda: "supabase" in failing(clean), what="words of the outage")


def failing(instance: Instance) -> str:
    answer = instance.engine("POST", "/tools/supabase__list_organizations/call", {"arguments": {}})
    return "" if answer.json["ok"] else answer.message


def test_a_person_who_declines_undoes_the_connect(clean: Instance, world: World) -> None:
    world.site.lies.declined = True
    page = back(agreed(begun(clean), world))
    assert page.status_code >= 400 and "nobody was signed in" in page.text
    undone(clean)


def test_an_outage_of_supabases_is_told_as_one_before_anybody_signs_in(clean: Instance, world: World) -> None:
    world.api.away = True
    assert API in refused(clean, REMOTE, "upstream_failed")
    world.mcp.away = True
    assert MCP in refused(clean, REMOTE, "upstream_failed")


def test_an_outage_in_the_middle_of_a_sign_in_undoes_it(clean: Instance, world: World) -> None:
    place = agreed(begun(clean), world)
    world.api.away = True
    page = back(place)
    assert page.status_code >= 400 and API in page.text
    undone(clean)
