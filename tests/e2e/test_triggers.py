"""Schedules and webhooks through the real programs: they start an engine that is stopped, and nothing else does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing as closed
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.instance import Answer, Instance, closing, eventually, request

ECHO = "async (input, ctx) => ({ body: input.body, trigger: ctx.trigger, run: ctx.runId })"
KINDS = """async (input) => {
  if (input.query.kind === 'html') return new Response('<script>alert(1)</script>', {
    status: 202, headers: {'content-type': 'text/html', 'set-cookie': 'rootlink_session=evil', 'x-hook-secret': 'echo'} });
  if (input.query.kind === 'bytes') return new Response(new Uint8Array([0, 255, 254]));
  if (input.query.kind === 'fail') throw new Error('CANARY of the function');
  return [input.query.kind];
}"""


@pytest.fixture
def sleepy(tmp_path: Path) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path / "home", "--idle-stop", "1s"))


def deploy(instance: Instance, name: str, code: str) -> None:
    answer = instance.engine("PUT", "/functions", {"name": name, "code": code})
    assert answer.status == 200, answer.body


def triggers(instance: Instance, name: str, **body: Any) -> Any:
    return instance.engine("PUT", f"/functions/{name}/triggers", body).data


def called(instance: Instance, path: str, body: Any = None, **headers: str) -> Answer:
    return request(instance.api, "POST", path, body or {}, {name.replace("_", "-"): value for name, value in headers.items()})


def state(instance: Instance) -> str:
    return str(instance.project("GET", "/engine").data["state"])


def stopped(instance: Instance) -> None:
    eventually(lambda: state(instance) == "stopped", wait=40, what="the idle stop")


def overdue(instance: Instance) -> None:
    """As if the time had come: what is due was due ten seconds ago. The engine must be stopped."""
    [engine] = (instance.home / "projects").glob("*/engine/state.db")
    due = time.time() - 10
    for file, change in (
        (engine, "UPDATE schedules SET due = ?, since = 0"),
        (instance.home / "control" / "rootlink.db", "UPDATE wakes SET due = ?"),
    ):
        with closed(sqlite3.connect(file, timeout=10)) as db, db:
            assert db.execute(change, (due,)).rowcount == 1


def runs(instance: Instance, name: str) -> Any:
    return instance.engine("GET", f"/functions/{name}/runs").data


def test_a_stopped_engine_is_started_by_a_webhook_it_knows_and_by_no_other(sleepy: Instance) -> None:
    deploy(sleepy, "f", ECHO)
    path = triggers(sleepy, "f", webhook=True)["webhook"]["path"]
    first = called(sleepy, path, {"n": 1})  # a running engine knows it at once
    assert first.status == 200 and first.json["body"] == '{"n":1}' and first.json["trigger"] == "webhook"
    stranger = path[:-1] + ("A" if path[-1] != "A" else "B")
    until = time.monotonic() + 40
    while state(sleepy) != "stopped":  # which calls that are not known do not put off
        assert time.monotonic() < until
        assert called(sleepy, stranger).status == 404
        time.sleep(0.5)
    assert called(sleepy, stranger).status == 404
    time.sleep(1)
    assert state(sleepy) == "stopped"
    again = called(sleepy, path, {"n": 2})
    assert again.status == 200 and again.json["body"] == '{"n":2}'
    assert state(sleepy) == "running"
    assert sleepy.secret_is_nowhere(path.rsplit("/", 1)[1]) == []
    assert triggers(sleepy, "f", webhook=False)["webhook"] is None
    assert called(sleepy, path).status == 404
    stopped(sleepy)
    assert called(sleepy, path).status == 404
    assert state(sleepy) == "stopped"


def test_a_stopped_engine_is_started_for_its_schedule_also_after_down_and_up(sleepy: Instance) -> None:
    deploy(sleepy, "f", "async (input, ctx) => ({ input, trigger: ctx.trigger })")
    cron = triggers(sleepy, "f", cron={"expression": "0 0 1 1 *", "timezone": "Europe/Berlin", "input": {"n": 1}})["cron"]
    assert len(cron["next"]) == 3 and cron["next"][0].endswith("-01-01T00:00:00+01:00")
    stopped(sleepy)
    overdue(sleepy)
    eventually(lambda: state(sleepy) == "running", what="the start for what is due")
    [run] = eventually(lambda: runs(sleepy, "f"), what="the run")
    assert run["trigger"] == "cron" and run["output"] == {"input": {"n": 1}, "trigger": "cron"}
    last = sleepy.engine("GET", "/functions/f/triggers").data["cron"]["last"]
    assert (last["status"], last["run_id"]) == ("ok", run["run_id"])

    sleepy.down()
    overdue(sleepy)
    sleepy.up()
    eventually(lambda: state(sleepy) == "running", what="the start for what is due")
    eventually(lambda: len(runs(sleepy, "f")) == 2, what="the run")

    triggers(sleepy, "f", cron={"expression": "* * * * *"})
    until = time.monotonic() + 12  # two looks, and it is idle after a second
    while time.monotonic() < until:
        assert state(sleepy) == "running"
        time.sleep(0.5)


def test_a_webhook_outlives_an_engine_that_is_lost_the_moment_after(sleepy: Instance) -> None:
    deploy(sleepy, "f", ECHO)
    path = triggers(sleepy, "f", webhook=True)["webhook"]["path"]
    psutil.Process(sleepy.engine_pid()).kill()
    eventually(lambda: state(sleepy) == "stopped", what="its end")
    assert called(sleepy, path, {"n": 1}).status == 200


def test_what_a_function_answers_is_no_page_of_ours(shared: Instance) -> None:
    deploy(shared, "kinds", KINDS)
    path = triggers(shared, "kinds", webhook=True)["webhook"]["path"]
    page = called(shared, f"{path}?kind=html")
    assert (page.status, page.body) == (202, b"<script>alert(1)</script>")
    assert page.headers["content-type"] == "text/plain; charset=utf-8" and page.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in page.headers["content-security-policy"]
    assert "set-cookie" not in page.headers and page.headers["x-hook-secret"] == "echo"
    assert called(shared, f"{path}?kind=bytes").body == b"\x00\xff\xfe"
    plain = called(shared, f"{path}?kind=json")
    assert (plain.status, plain.json, plain.headers["content-type"]) == (200, ["json"], "application/json")
    failed = called(shared, f"{path}?kind=fail")
    assert failed.status == 500 and b"CANARY" not in failed.body
    [run] = [run for run in runs(shared, "kinds") if run["status"] == "error"]
    assert failed.json["error"] == {"code": "upstream_failed", "message": "the function failed", "run_id": run["run_id"]}


def test_a_delivery_that_comes_twice_runs_once(shared: Instance) -> None:
    deploy(shared, "twice", ECHO)
    path = triggers(shared, "twice", webhook=True)["webhook"]["path"]
    first = called(shared, path, webhook_id="msg_1", webhook_timestamp="1")
    again = called(shared, path, webhook_id="msg_1", webhook_timestamp="2")
    other = called(shared, path, webhook_id="msg_2")
    assert first.status == 200 and first.body == again.body and other.json["run"] != first.json["run"]
    assert len(runs(shared, "twice")) == 2
    changed = called(shared, path, {"other": 1}, webhook_id="msg_1")
    assert (changed.status, changed.code) == (409, "conflict")


def test_the_command_line_sets_and_shows_triggers(shared: Instance) -> None:
    deploy(shared, "cli", ECHO)
    assert "cli has no schedule" in shared.cli("function", "schedule", "cli")
    set = shared.cli("function", "schedule", "cli", "--cron", "@daily", "--timezone", "Asia/Tokyo", "--input", '{"a": 1}')
    assert set.startswith("cli runs at @daily (Asia/Tokyo)\n") and set.count("T00:00:00+09:00") == 3
    assert shared.cli("function", "schedule", "cli") == set
    assert "cli has no schedule" in shared.cli("function", "schedule", "cli", "--off")
    made = shared.run("function", "webhook", "cli")
    url = made.stdout.strip()
    assert (
        url.startswith(f"{shared.api}/hooks/prj_")
        and f"curl -X POST -H 'content-type: application/json' -d '{{}}' {url}" in made.stderr
    )
    assert called(shared, url.removeprefix(shared.api)).status == 200
    assert "has a webhook since" in shared.cli("function", "webhook", "cli")
    rotated = shared.cli("function", "webhook", "cli", "--rotate").strip()
    assert rotated != url and called(shared, url.removeprefix(shared.api)).status == 404
    assert called(shared, rotated.removeprefix(shared.api)).status == 200
    assert "has no webhook" in shared.cli("function", "webhook", "cli", "--off")
    assert called(shared, rotated.removeprefix(shared.api)).status == 404
    refused = shared.run("function", "schedule", "cli", "--cron", "* * * * * *")
    assert refused.returncode == 1 and "seconds are not taken" in refused.stderr
    empty = shared.run("function", "schedule", "cli", "--cron", "")
    assert empty.returncode == 1 and "has 0 fields" in empty.stderr


def test_who_may_only_use_may_look_at_triggers_and_not_set_them(shared: Instance) -> None:
    deploy(shared, "seen", ECHO)
    key = shared.project("POST", "/keys", {"name": "user", "scopes": ["use"]}).data["key"]
    assert shared.engine("GET", "/functions/seen/triggers", key=key).data == {"cron": None, "webhook": None}
    assert shared.engine("PUT", "/functions/seen/triggers", {"webhook": True}, key=key).code == "forbidden"
    assert shared.engine("DELETE", "/functions/seen").status == 200
    assert shared.engine("GET", "/functions/seen/triggers").code == "not_found"
