"""The body of the Resend function, run by a real JavaScript engine (Node here; V8 isolates in `tests/e2e`)."""

from __future__ import annotations

import subprocess
from typing import Any

import msgspec
import pytest

from rootlink import catalog
from tests.harness.node import NODE

BODY = catalog.load().get("resend").desired("resend", {}, {"RESEND_API_KEY": "RESEND_API_KEY"})["function"]["code"]
EMAIL = {"to": "you@example.com", "subject": "Hi", "text": "Hello"}
ENV = {"RESEND_API_KEY": "re_hunter2", "DEFAULT_FROM": "onboarding@resend.dev"}

RUN = """
const { body, input, env, status, answer } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const requests = [];
globalThis.fetch = async (url, options) => {
  requests.push({ url, ...options });
  return { status, ok: status < 300, text: async () => answer };
};
const ctx = { env, runId: "run_1", ws: "main", fnName: "resend", version: 1 };
(async () => {
  const run = { requests };
  try { run.output = await (0, eval)(`(${body}\\n)`)(input, ctx); } catch (error) { run.error = error.message; }
  console.log(JSON.stringify(run));
})();
"""


def run(input: object, *, env: dict[str, str] = ENV, status: int = 200, answer: str = '{"id": "em_1"}') -> dict[str, Any]:
    told = {"body": BODY, "input": input, "env": env, "status": status, "answer": answer}
    done = subprocess.run([NODE, "-e", RUN], input=msgspec.json.encode(told), capture_output=True, check=True, timeout=30)
    return dict(msgspec.json.decode(done.stdout))


def test_an_email_is_one_request_and_answers_its_id() -> None:
    ran = run({**EMAIL, "from": "Acme <a@acme.com>", "cc": ["c@example.com"]})
    assert ran["output"] == {"id": "em_1"}
    [request] = ran["requests"]
    assert (request["method"], request["url"]) == ("POST", "https://api.resend.com/emails")
    assert request["headers"]["authorization"] == "Bearer re_hunter2"
    assert request["headers"]["idempotency-key"] == "run_1"
    assert msgspec.json.decode(request["body"]) == {
        "from": "Acme <a@acme.com>",
        "to": ["you@example.com"],
        "subject": "Hi",
        "text": "Hello",
        "cc": ["c@example.com"],
    }


def test_without_a_sender_the_default_one_sends() -> None:
    [request] = run({**EMAIL, "to": ["a@example.com", "b@example.com"]})["requests"]
    sent = msgspec.json.decode(request["body"])
    assert (sent["from"], sent["to"]) == ("onboarding@resend.dev", ["a@example.com", "b@example.com"])


@pytest.mark.parametrize(
    ("input", "says"),
    [
        (None, "Pass `to`"),
        ({**EMAIL, "to": []}, "Pass `to`"),
        ({**EMAIL, "subject": ""}, "Pass `subject`"),
        ({"to": "a@example.com", "subject": "Hi"}, "Pass `html` or `text`"),
    ],
)
def test_an_email_that_lacks_something_is_not_sent(input: object, says: str) -> None:
    ran = run(input)
    assert says in ran["error"]
    assert ran["requests"] == []


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (
            422,
            '{"name": "validation_error", "message": "The domain is not verified."}',
            "validation_error: The domain is not verified.",
        ),
        (403, '{"name": "invalid_api_key", "message": "API key is invalid"}', "HTTP 403): invalid_api_key: API key is invalid"),
        (502, "<html>Bad gateway</html>", "HTTP 502): without saying why"),
        (500, "null", "HTTP 500): without saying why"),
        (200, "{}", "answered no id"),
        (200, "not json", "answered no id"),
    ],
)
def test_a_refusal_says_what_resend_said_and_not_the_key(status: int, answer: str, says: str) -> None:
    ran = run(EMAIL, status=status, answer=answer)
    assert says in ran["error"]
    assert "hunter2" not in ran["error"]
