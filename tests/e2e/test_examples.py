"""`examples/`, deployed with the commands of its README and run against stand-ins for Resend and GitHub."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from tests.e2e.stand_ins.services import RESEND_KEY, resend
from tests.harness.instance import KERNEL, ROOT, Answer, Instance, closing, request
from tests.harness.standin import Authority, Seen, StandIn, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("doors")]
World = dict[str, StandIn]
SECRET, ALERTS = "it's GitHub's and ours", "ada@example.com"
MOVED = "2026-11-22T09:00:00Z"
ITEMS: list[dict[str, Any]] = [
    {"number": 7, "title": "Doors", "state": "open", "html_url": "https://github.com/acme/app/issues/7", "updated_at": MOVED},
    {"number": 8, "title": "Open them", "state": "closed", "html_url": "https://github.com/acme/app/pull/8", "updated_at": MOVED},
]
ITEMS[1]["pull_request"] = {}


def issues(seen: Seen) -> tuple[int, Any]:
    return (200, ITEMS) if seen.path.startswith("/repos/acme/app/issues?") else (404, {"message": "Not Found"})


@pytest.fixture(scope="module")
def world(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, answers = tmp_path_factory.mktemp("examples"), {"api.resend.com": resend, "api.github.com": issues}
    with ExitStack() as stack:
        yield {host: stack.enter_context(standin(host, answer, folder, authority)) for host, answer in answers.items()}


@pytest.fixture(scope="module")
def instance(world: World, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    pins = [word for one in world.values() for word in one.pin]
    yield from closing(Instance(tmp_path_factory.mktemp("examples") / "home", *KERNEL, *pins, *authority.flags))


@pytest.fixture(scope="module")
def deployed(instance: Instance) -> Instance:
    """Every command of the README but those that ask for a secret's value, as it stands there."""
    for name, value in {"RESEND_API_KEY": RESEND_KEY, "GITHUB_WEBHOOK_SECRET": SECRET, "ALERTS_TO": ALERTS}.items():
        instance.cli("secrets", "set", name, stdin=value)
    for command in commands():
        if command[:2] in (["egress", "allow"], ["function", "deploy"], ["function", "schedule"]):
            instance.cli(*[word.replace("examples/", f"{ROOT}/examples/") for word in command])
    return instance


def commands() -> list[list[str]]:
    text = (ROOT / "examples" / "README.md").read_text().replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (rootlink .*)$", text, re.MULTILINE)]


def mails(world: World) -> list[dict[str, Any]]:
    return [msgspec.json.decode(seen.body) for seen in world["api.resend.com"].seen if seen.path == "/emails"]


def run_of(instance: Instance, name: str) -> dict[str, Any]:
    """The newest run, whole."""
    newest = instance.engine("GET", f"/functions/{name}/runs").data[0]["run_id"]
    found: dict[str, Any] = instance.engine("GET", f"/functions/{name}/runs/{newest}").data
    return found


async def test_the_email_is_sent_as_a_tool_of_an_ai_client(deployed: Instance, world: World) -> None:
    sent = len(mails(world))
    async with deployed.client() as client:
        result = await client.call_tool(
            "function__send_email", {"to": "ada@example.com", "subject": "hello", "text": "from a test"}
        )
        wrong = await client.call_tool("function__send_email", {"to": "ada@example.com", "subject": ""})
    assert not result.is_error, result
    assert result.structured_content == {"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}
    assert wrong.is_error
    assert [mail["subject"] for mail in mails(world)[sent:]] == ["hello"]
    run = run_of(deployed, "send_email")
    assert run["status"] == "error", "the wrong input is a run too, and the last one"
    assert deployed.secret_is_nowhere(RESEND_KEY) == []


def test_an_email_that_is_sent_again_under_one_key_is_sent_once(deployed: Instance, world: World) -> None:
    sent = len(mails(world))
    body = {"input": {"to": "ada@example.com", "subject": "once", "text": "x"}, "idempotency_key": "invoice-7"}
    first = deployed.engine("POST", "/functions/send_email/invoke", body).data
    again = deployed.engine("POST", "/functions/send_email/invoke", body).data
    assert first["run_id"] == again["run_id"]
    assert first["output"] == again["output"]
    assert len(mails(world)) == sent + 1
    assert world["api.resend.com"].seen[-1].headers["idempotency-key"] == first["run_id"]


@pytest.fixture(scope="module")
def hook(deployed: Instance) -> str:
    url: str = json.loads(deployed.cli("function", "webhook", "github_webhook", "--json"))["url"]
    return url


def delivered(hook: str, event: str, body: bytes, signature: str, delivery: str) -> Answer:
    split = urlsplit(hook)
    headers = {"x-github-event": event, "x-hub-signature-256": signature, "x-github-delivery": delivery}
    return request(f"{split.scheme}://{split.netloc}", "POST", split.path, body, headers)


def opened(number: int) -> bytes:
    issue = {"title": "It is broken", "html_url": f"https://github.com/acme/app/issues/{number}", "user": {"login": "grace"}}
    return msgspec.json.encode({"action": "opened", "issue": issue, "repository": {"full_name": "acme/app"}})


def signed(body: bytes) -> str:
    return "sha256=" + hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()


def test_an_event_that_github_signed_becomes_an_email_once(deployed: Instance, world: World, hook: str) -> None:
    sent, body = len(mails(world)), opened(7)
    answer = delivered(hook, "issues", body, signed(body), "d-7")
    assert (answer.status, answer.json) == (200, {"sent": True})
    assert mails(world)[-1]["subject"] == "New issue in acme/app: It is broken"
    assert mails(world)[-1]["to"] == [ALERTS]
    assert delivered(hook, "issues", body, signed(body), "d-7").json == {"sent": True}, "GitHub delivers again at times"
    assert len(mails(world)) == sent + 1
    run = run_of(deployed, "github_webhook")
    assert (run["trigger"], run["tool_calls"]) == ("webhook", 1)
    assert run_of(deployed, "send_email")["trigger"] == "tool"


def test_an_event_with_another_signature_is_turned_away(world: World, hook: str) -> None:
    sent, body = len(mails(world)), opened(8)
    for signature in (signed(body + b" "), "sha256=00", ""):
        answer = delivered(hook, "issues", body, signature, f"d-8{signature[-4:]}")
        assert (answer.status, answer.body) == (401, b"not GitHub's signature")
    assert len(mails(world)) == sent


def test_an_event_of_another_kind_is_ignored(world: World, hook: str) -> None:
    sent, body = len(mails(world)), opened(9)
    assert delivered(hook, "watch", body, signed(body), "d-9").json == {"ignored": True}
    assert len(mails(world)) == sent


def test_the_digest_is_scheduled_and_mails_what_moved(deployed: Instance, world: World) -> None:
    schedule = deployed.engine("GET", "/functions/daily_digest/triggers").data["cron"]
    assert (schedule["expression"], schedule["timezone"]) == ("0 7 * * 1-5", "Europe/Berlin")
    run = deployed.engine("POST", "/functions/daily_digest/invoke", {"input": {"repository": "acme/app", "to": ALERTS}}).data
    assert (run["status"], run["output"]) == ("ok", {"items": 2, "sent": True}), run
    mail = mails(world)[-1]
    assert mail["subject"] == "acme/app: 2 things moved"
    assert mail["text"].splitlines()[::2] == ["- issue #7 (open): Doors", "- PR #8 (closed): Open them"]
    asked = parse_qs(urlsplit(world["api.github.com"].seen[-1].path).query)
    assert (asked["state"], asked["sort"]) == (["all"], ["updated"])


def test_a_repository_that_is_not_there_is_told_with_its_line(deployed: Instance) -> None:
    run = deployed.engine("POST", "/functions/daily_digest/invoke", {"input": {"repository": "acme/none", "to": ALERTS}}).data
    assert run["status"] == "error"
    source = (ROOT / "examples" / "daily_digest.ts").read_text().splitlines()
    assert run["error"]["message"] == "GitHub answered 404 for acme/none"
    assert "throw new Error" in source[run["error"]["line"] - 1]


def test_an_example_may_do_what_it_was_given_and_no_more(deployed: Instance) -> None:
    found = {one["name"]: one for one in deployed.engine("GET", "/functions").data}
    assert list(found["send_email"]["env"]) == ["RESEND_API_KEY"]
    assert found["send_email"]["egress"] == ["api.resend.com"]
    assert found["github_webhook"]["tools"] == ["function__send_email"]
    assert found["daily_digest"]["env"] is None
