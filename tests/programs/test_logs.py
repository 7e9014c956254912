from __future__ import annotations

import base64
import json
import subprocess
import sys
from urllib.parse import quote

import pytest

from rootlink.programs.logs import MASK, Redaction

SECRET = 'p@ss/w+rd "ünï" \\x'


def written(secret: str) -> dict[str, str]:
    raw = secret.encode()
    return {
        "raw": secret,
        "base64": base64.b64encode(raw).decode(),
        "base64 at 1": base64.b64encode(b"u" + raw).decode(),
        "base64 at 2": base64.b64encode(b"us" + raw + b"tail").decode(),
        "base64 of a header": base64.b64encode(b"user:" + raw).decode(),
        "base64url": base64.urlsafe_b64encode(raw).decode(),
        "hex": raw.hex(),
        "url": quote(secret, safe=""),
        "json ascii": json.dumps(secret),
        "json": json.dumps(secret, ensure_ascii=False),
        "repr": repr({"k": secret}),
    }


@pytest.mark.parametrize("secret", [SECRET, "sk_live_0123456789abcdef", "a" * 7, "xyzzy42"])
@pytest.mark.parametrize("form", written(SECRET))
def test_a_known_value_is_masked_in_every_form(secret: str, form: str) -> None:
    text = written(secret)[form]
    cleaned = Redaction([secret]).text(f"before {text} after")
    assert MASK in cleaned and text not in cleaned
    assert cleaned.startswith("before ") and cleaned.endswith(" after")


def test_short_values_do_not_blank_out_innocent_text() -> None:
    assert Redaction(["a", "12", "true"]).text("a 12 true") == "a 12 true"


def test_nothing_known_nothing_changed() -> None:
    assert Redaction().text("hello") == "hello"


def test_masks_reach_into_what_an_event_holds() -> None:
    redaction = Redaction(["s3cret-value"])
    deep = {"s3cret-value": [("s3cret-value",), {"s3cret-value"}], "error": ValueError("s3cret-value")}
    event = redaction(None, "info", {"event": "x s3cret-value", "deep": deep, "n": 1})
    assert "s3cret-value" not in str(event) and event["n"] == 1


PROGRAM = """
import logging, structlog
from rootlink.programs import logs
logs.set_up("tester", "info", logs.Redaction(["s3cret-value"]))
log = structlog.get_logger("x")
log.debug("unseen")
log.info("seen", token="s3cret-value", number=2**70)
logging.getLogger("library").warning("said %s", "s3cret-value")
logging.getLogger("uvicorn.access").error("GET /?token=s3cret-value")
try:
    raise ValueError("s3cret-value")
except ValueError:
    log.exception("broke")
"""


def test_every_line_is_json_on_standard_error_and_holds_no_known_value() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "" and "s3cret" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["seen", f"said {MASK}", "broke"]
    assert {line["program"] for line in lines} == {"tester"} and all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["number"] == 2**70 and "Traceback" in lines[2]["exception"]
