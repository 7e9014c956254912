"""Six services that a person connects with a key. Each answers its good key, and every other one as the service itself does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from tests.harness.standin import Seen

Answer = Callable[[Seen], tuple[int, Any]]


@dataclass(frozen=True)
class Service:
    """`secret`: its field. `said`: what a bad key comes to, in the catalogue's words. `call`: a tool of the connection, its
    arguments, and what its result then says; `asked`: the path that the stand-in is asked for it."""

    connector: str
    host: str
    secret: str
    good: str
    bad: str
    said: str
    label: str | None
    call: tuple[str, dict[str, Any], str]
    asked: str
    answer: Answer
    variant: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # more hosts that answer the same

    def wish(self, key: str, **more: Any) -> dict[str, Any]:
        variant = {"variant": self.variant} if self.variant else {}
        return {"connector": self.connector, "inputs": self.inputs, "secrets": {self.secret: key}, **variant, **more}

    def __str__(self) -> str:
        return f"{self.connector}-{self.variant}" if self.variant else self.connector


def path(seen: Seen) -> str:
    return urlsplit(seen.path).path


def query(seen: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(seen.path).query).items()}


def bearer(seen: Seen) -> str:
    """Of the header, or of a form's `token`, as Slack's libraries send it."""
    form = parse_qs(seen.body.decode("utf-8", "replace")).get("token", [""])[0]
    return seen.headers.get("authorization", "").partition(" ")[2] or form


GITHUB_KEY = "ghp_" + "g00d" * 9


def github(seen: Seen) -> tuple[int, Any]:
    if bearer(seen) != GITHUB_KEY:
        return 401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"}
    if path(seen) == "/mcp/":
        return github_s_own_server(seen)
    if path(seen) == "/user":
        return 200, {"login": "octocat", "id": 583231, "type": "User", "name": "The Octocat"}
    if path(seen) == "/search/repositories":
        owner = {
            "login": "octocat",
            "id": 583231,
            "node_id": "MDQ6VXNlcjU4MzIzMQ==",
            "avatar_url": "https://github.com/images/octocat.png",
            "url": "https://api.github.com/users/octocat",
            "html_url": "https://github.com/octocat",
            "type": "User",
        }
        found = {
            "id": 1296269,
            "node_id": "MDEwOlJlcG9zaXRvcnkxMjk2MjY5",
            "name": "Hello-World",
            "full_name": "octocat/Hello-World",
            "private": False,
            "owner": owner,
            "html_url": "https://github.com/octocat/Hello-World",
            "description": "found by the stand-in",
            "fork": False,
            "url": "https://api.github.com/repos/octocat/Hello-World",
            "created_at": "2011-01-26T19:01:12Z",
            "updated_at": "2011-01-26T19:14:43Z",
            "pushed_at": "2011-01-26T19:06:43Z",
            "git_url": "git://github.com/octocat/Hello-World.git",
            "ssh_url": "git@github.com:octocat/Hello-World.git",
            "clone_url": "https://github.com/octocat/Hello-World.git",
            "default_branch": "main",
        }
        return 200, {"total_count": 1, "incomplete_results": False, "items": [found]}
    return 404, {"message": "Not Found", "status": "404"}


def github_s_own_server(seen: Seen) -> tuple[int, Any]:
    """MCP over HTTP, as little of it as one call takes."""
    if seen.method != "POST":
        return 405, {}
    asked = msgspec.json.decode(seen.body)
    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    tool = {"name": "search_repositories", "inputSchema": schema, "annotations": {"readOnlyHint": True}}
    results = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "g", "version": "1"},
        },
        "tools/list": {"tools": [tool]},
        "tools/call": {"content": [{"type": "text", "text": f"read only: {seen.headers.get('x-mcp-readonly')}"}]},
    }
    if "id" not in asked:
        return 202, b""
    if asked["method"] not in results:
        return 200, {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "Method not found"}}
    return 200, {"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]}


SLACK_KEY = "xoxb-1234567890-good"


def slack(seen: Seen) -> tuple[int, Any]:
    """Slack says everything with status 200."""
    if bearer(seen) != SLACK_KEY:
        return 200, {"ok": False, "error": "invalid_auth"}
    channel = {
        "id": "C0GENERAL",
        "name": "general",
        "name_normalized": "general",
        "is_channel": True,
        "is_member": True,
        "is_private": False,
        "num_members": 3,
        "topic": {"value": "from the stand-in"},
        "purpose": {"value": "all of it"},
    }
    answers: dict[str, dict[str, Any]] = {
        "/api/auth.test": {
            "url": "https://acme.slack.com/",
            "team": "Acme",
            "user": "helper",
            "team_id": "T0ACME",
            "user_id": "U0HELPER",
            "bot_id": "B0HELPER",
            "is_enterprise_install": False,
        },
        "/api/conversations.list": {"channels": [channel], "response_metadata": {"next_cursor": ""}},
        "/api/users.conversations": {"channels": [channel], "response_metadata": {"next_cursor": ""}},
        "/api/users.list": {"members": [], "response_metadata": {"next_cursor": ""}},
        "/api/conversations.history": {
            "messages": [{"type": "message", "user": "U0HELPER", "text": "hello from the stand-in", "ts": "1700000000.000100"}],
            "has_more": False,
        },
    }
    found = answers.get(path(seen))
    return 200, {"ok": False, "error": "unknown_method"} if found is None else {"ok": True, **found}


SUPABASE_KEY = "sbp_0123456789abcdef"
PROJECT = {
    "id": "abcdefghijklmnopqrst",
    "ref": "abcdefghijklmnopqrst",
    "organization_id": "acme",
    "organization_slug": "acme",
    "name": "shop",
    "region": "eu-central-1",
    "status": "ACTIVE_HEALTHY",
    "created_at": "2024-01-01T00:00:00Z",
    "database": {"host": "db.example", "version": "15.1", "postgres_engine": "15", "release_channel": "ga"},
}


def supabase(seen: Seen) -> tuple[int, Any]:
    if bearer(seen) != SUPABASE_KEY:
        return 401, {"message": "Unauthorized"}
    if path(seen) == "/v1/projects":
        return 200, [PROJECT]
    if path(seen) == f"/v1/projects/{PROJECT['ref']}":
        return 200, PROJECT
    return 404, {"message": "Not found"}


BRAVE_KEY = "BSAgood0123456789"


def brave(seen: Seen) -> tuple[int, Any]:
    if seen.headers.get("x-subscription-token") != BRAVE_KEY:
        error = {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "The provided subscription token is invalid.", "status": 422}
        return 422, {"type": "ErrorResponse", "error": error}
    found = {
        "title": "Found by the stand-in",
        "url": "https://found.example/",
        "description": "what was looked for",
        "type": "search_result",
    }
    return 200, {"type": "search", "query": {"original": "x"}, "web": {"type": "search", "results": [found]}}


MAPS_KEY = "AIzaGood0123456789"


def maps(seen: Seen) -> tuple[int, Any]:
    """Google says no with status 200 too."""
    if query(seen).get("key") != MAPS_KEY:
        return 200, {"status": "REQUEST_DENIED", "error_message": "The provided API key is invalid.", "results": []}
    found = {
        "place_id": "ChIJ-stand-in",
        "formatted_address": "Stand-in Street 1, Berlin",
        "address_components": [],
        "geometry": {"location": {"lat": 52.5, "lng": 13.4}, "location_type": "APPROXIMATE", "viewport": {}},
        "types": ["locality"],
    }
    return 200, {"status": "OK", "results": [found]}


RESEND_KEY, SENDING_KEY = "re_good_0123456789", "re_sending_0123456789"


def resend(seen: Seen) -> tuple[int, Any]:
    if bearer(seen) not in (RESEND_KEY, SENDING_KEY):
        return 403, {"statusCode": 403, "name": "invalid_api_key", "message": "API key is invalid"}
    if path(seen) == "/emails" and seen.method == "POST":
        return 200, {"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}
    if bearer(seen) == SENDING_KEY:
        words = "This API key is restricted to only send emails"
        return 401, {"statusCode": 401, "name": "restricted_api_key", "message": words}
    return 200, {"object": "list", "has_more": False, "data": [{"id": "d1", "name": "mail.acme.example", "status": "verified"}]}


MAIL = {"to": "ada@example.com", "subject": "hello", "text": "from the tests"}
GOOGLE = "Google refused this key: The provided API key is invalid."
ONE_QUERY, ONE_LOOKUP = "The check spent one query of the plan.", "The check made one geocoding request."

MAPS = Service(
    "google-maps",
    "maps.googleapis.com",
    "GOOGLE_MAPS_API_KEY",
    MAPS_KEY,
    "AIzaWrong9876543210",
    GOOGLE,
    None,
    ("google-maps__maps_geocode", {"address": "Berlin"}, "Stand-in Street 1"),
    "/maps/api/geocode/json",
    maps,
    notes=(ONE_LOOKUP,),
)
ALL = (
    Service(
        "github",
        "api.github.com",
        "GITHUB_PERSONAL_ACCESS_TOKEN",
        GITHUB_KEY,
        "ghp_" + "wr0n" * 9,
        "GitHub does not know this token: it is mistyped, expired or revoked.",
        "octocat",
        ("github__search_repositories", {"query": "hello"}, "found by the stand-in"),
        "/search/repositories",
        github,
    ),
    Service(
        "github",
        "api.github.com",
        "GITHUB_PERSONAL_ACCESS_TOKEN",
        GITHUB_KEY,
        "ghp_" + "wr0n" * 9,
        "GitHub does not know this token: it is mistyped, expired or revoked.",
        "octocat",
        ("github__search_repositories", {"query": "hello"}, "read only: true"),
        "/mcp/",
        github,
        variant="remote",
        inputs={"read_only": True},
        others=("api.githubcopilot.com",),
    ),
    Service(
        "slack",
        "slack.com",
        "SLACK_BOT_TOKEN",
        SLACK_KEY,
        "xoxb-1234567890-wrong",
        "Slack does not know this token.",
        "helper in Acme",
        ("slack__conversations_history", {"channel_id": "C0GENERAL", "limit": "10"}, "hello from the stand-in"),
        "/api/conversations.history",
        slack,
        others=("acme.slack.com",),
    ),
    Service(
        "supabase",
        "api.supabase.com",
        "SUPABASE_ACCESS_TOKEN",
        SUPABASE_KEY,
        "sbp_fedcba9876543210",
        "Supabase does not know this token.",
        "shop",
        ("supabase__list_projects", {}, "shop"),
        "/v1/projects",
        supabase,
    ),
    Service(
        "brave-search",
        "api.search.brave.com",
        "BRAVE_API_KEY",
        BRAVE_KEY,
        "BSAwrong9876543210",
        "Brave does not know this key.",
        None,
        ("brave-search__brave_web_search", {"query": "gate"}, "found.example"),
        "/res/v1/web/search",
        brave,
        notes=(ONE_QUERY,),
    ),
    MAPS,
    replace(MAPS, variant="legacy"),
    Service(
        "resend",
        "api.resend.com",
        "RESEND_API_KEY",
        RESEND_KEY,
        "re_wrong_9876543210",
        "Resend does not know this key.",
        "mail.acme.example",
        ("function__resend", MAIL, "49a3999c"),
        "/emails",
        resend,
    ),
)
