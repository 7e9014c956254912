from __future__ import annotations

import json
import subprocess
import sys

from rootlink.programs.logs import Redaction
from rootlink.redaction import MARK, Redactor


def test_masks_reach_into_what_an_event_holds() -> None:
    redaction = Redaction(Redactor(["s3cret-value"]))
    deep = {"s3cret-value": [("s3cret-value",), {"s3cret-value"}], "error": ValueError("s3cret-value")}
    event = redaction(None, "info", {"event": "x s3cret-value", "deep": deep, "n": 1})
    assert "s3cret-value" not in str(event) and event["n"] == 1


PROGRAM = """
import logging, structlog
from rootlink.programs import logs
from rootlink.redaction import Redactor
logs.set_up("tester", "info", Redactor(["s3cret-value"]))
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
    assert [line["event"] for line in lines] == ["seen", f"said {MARK}", "broke"]
    assert {line["program"] for line in lines} == {"tester"} and all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["number"] == 2**70 and "Traceback" in lines[2]["exception"]
