"""A well-behaved child: what is asked of it, what it is given, and that it ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.engine.mounts import launch
from rootlink.engine.rpc import RpcError
from rootlink.errors import Conflict, Invalid, NotFound, UpstreamFailed
from rootlink.wire.mounts import MountSpec
from tests.harness.calls import Told
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, call, hostile, plain, tree, until, until_async


async def test_an_added_server_is_ready_with_its_whole_catalogue(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    assert mount.state == "ready"
    assert len(mount.catalogue.tools) == 16  # in pages of 8
    assert mount.catalogue.tools[0]["x-vendor"] == {"kept": True}
    assert [resource["uri"] for resource in mount.catalogue.resources] == ["plain://one"]
    assert [template["uriTemplate"] for template in mount.catalogue.templates] == ["plain://{x}"]
    assert [prompt["name"] for prompt in mount.catalogue.prompts] == ["greet"]
    assert mount.catalogue.instructions == "be plain"
    assert mount.catalogue.server_info["name"] == "plain"
    assert mount.catalogue.version == "2025-06-18"


async def test_results_and_errors_pass_as_they_are(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    arguments = {"n": 2**70, "nothing": None, "text": "ä €\n"}
    raw = await mount.request("tools/call", {"name": "echo", "arguments": arguments})
    assert isinstance(raw, msgspec.Raw)
    assert msgspec.json.decode(raw)["structuredContent"] == arguments
    with pytest.raises(RpcError) as failed:
        await mount.request("tools/call", {"name": "fail"})
    assert (failed.value.code, failed.value.message) == (-32050, "it failed")
    assert failed.value.data == {"big": 2**70, "n": [1, None]}


async def test_half_a_surrogate_pair_costs_one_character(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    assert await call(mount, "surrogate") == "cut \ufffd \\ud83d"


async def test_many_calls_at_once_each_get_their_own_answer(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    answers = await asyncio.gather(*(call(mount, "add", a=number, b=1) for number in range(500)))
    assert answers == [str(number + 1) for number in range(500)]


async def test_progress_reaches_its_caller_and_no_foreign_token_the_server(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    told = Told()
    params = {"name": "progress", "arguments": {}, "_meta": {"progressToken": "theirs", "trace": "kept"}}
    meta = msgspec.json.decode(await mount.request("tools/call", params, call=told))["content"][0]["text"]
    assert [notice["progress"] for notice in told.steps] == [0, 1, 2]
    assert all("progressToken" not in notice for notice in told.steps)
    assert json.loads(meta)["trace"] == "kept"
    assert json.loads(meta)["progressToken"] != "theirs"
    meta = msgspec.json.decode(await mount.request("tools/call", params))["content"][0]["text"]
    assert json.loads(meta) == {"trace": "kept"}
    assert params["_meta"] == {"progressToken": "theirs", "trace": "kept"}


async def test_a_cancelled_call_is_cancelled_upstream(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    task = asyncio.create_task(call(mount, "slow", seconds=5))
    await until_async(lambda: _busy(mount), "the call arrived")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    told = json.loads(await call(mount, "cancelled"))
    assert isinstance(told[0]["requestId"], int)


async def _busy(mount: Any) -> bool:
    return int(await call(mount, "busy")) > 1


async def test_a_call_past_its_time_fails_with_words_and_is_cancelled(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    with pytest.raises(UpstreamFailed, match=r"plain did not answer tools/call within 0\.2 s"):
        await call(mount, "slow", timeout=0.2, seconds=5)
    assert len(json.loads(await call(mount, "cancelled"))) == 1
    assert mount.state == "ready"


async def test_a_servers_ping_is_answered_and_its_other_requests_refused(make: MakeMounts) -> None:
    mount = await make().add("main", plain())
    answers = json.loads(await call(mount, "ping_me"))
    assert answers["p1"] == {}
    assert answers[str(2**70)]["code"] == -32601


async def test_concurrency_one_is_kept_and_in_order(make: MakeMounts) -> None:
    mount = await make().add("main", plain(concurrency=1))
    await asyncio.gather(*(call(mount, "slow", seconds=0.02) for _ in range(5)))
    assert await call(mount, "busy") == "1"


async def test_a_list_that_grew_is_told_once_per_burst(make: MakeMounts) -> None:
    told: list[tuple[str, set[str]]] = []
    mount = await make(on_change=lambda ws, kinds: told.append((ws, kinds))).add("main", plain())
    assert told == []
    await call(mount, "grow", by=200)
    await until(lambda: len(mount.catalogue.tools) == 216, "the new tools are known")
    assert told
    assert len(told) <= 3
    assert all(kinds == {"tools"} and ws == "main" for ws, kinds in told)


async def test_a_child_sees_its_own_environment_and_nothing_else(make: MakeMounts, tmp_path: Path) -> None:
    secrets = {"TOKEN": "hunter-2-hunter", "OTHER": "not yours"}
    spec = plain(env={"API_TOKEN": "${TOKEN}", "DATA": "${{state}}/memory.json", "IN": "${{files}}", "MONEY": "$5"})
    mount = await make(secrets=secrets).add("main", spec)
    environ = json.loads(await call(mount, "env"))
    own = tmp_path / "mounts" / "main" / "plain"
    assert environ.pop("PWD", str(own)) == str(own)  # bubblewrap's doing
    assert environ == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(own),
        "TMPDIR": str(own / "tmp"),
        "API_TOKEN": "hunter-2-hunter",
        "DATA": f"{own}/memory.json",
        "IN": str(tmp_path / "files"),
        "MONEY": "$5",
    }
    assert await call(mount, "where") == str(own)
    assert own.stat().st_mode & 0o777 == 0o700


async def test_stderr_is_kept_short_and_redacted(make: MakeMounts) -> None:
    mount = await make(secrets={"TOKEN": "hunter-2-hunter"}).add("main", plain())
    await call(mount, "complain", lines=[f"line {number}" for number in range(300)])
    await call(mount, "complain", lines=["x" * 5000, "the token is hunter-2-hunter", "aHVudGVyLTItaHVudGVy"])
    lines = await until(lambda: mount.logs() if len(mount.logs()) == 200 else None, "stderr arrived")
    assert lines[-3] == "x" * 2048
    assert lines[-2] == "the token is [secret]"
    assert "aHVudGVy" not in lines[-1]


async def test_a_taken_name_is_a_conflict_and_another_workspace_is_not(make: MakeMounts) -> None:
    mounts = make()
    first, second = await asyncio.gather(mounts.add("main", plain()), mounts.add("main", plain()), return_exceptions=True)
    assert sorted((isinstance(first, Conflict), isinstance(second, Conflict))) == [False, True]
    await mounts.add("other", plain())
    assert [mount.ws for mount in mounts.all()] == ["main", "other"]
    assert len(mounts.list("main")) == 1


async def test_an_unknown_secret_is_named_with_what_to_do(make: MakeMounts, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="secret API_KEY is not in this project's vault; set it with: rootlink secrets set API_KEY"):
        await make().add("main", plain(env={"K": "${API_KEY}"}))
    assert not (tmp_path / "mounts" / "main" / "plain").exists()


async def test_progress_of_an_add_is_told_in_words(make: MakeMounts) -> None:
    said: list[str] = []
    await make().add("main", plain(), progress=said.append)
    assert said == ["starting plain", "plain has 16 tools"]


async def test_a_command_that_is_not_there_leaves_nothing(make: MakeMounts, tmp_path: Path) -> None:
    mounts = make()
    before = tree()
    with pytest.raises(UpstreamFailed, match="/nowhere/at-all"):
        await mounts.add("main", msgspec.structs.replace(plain(), command="/nowhere/at-all"))
    assert mounts.all() == []
    assert not (tmp_path / "mounts" / "main" / "plain").exists()
    assert tree() == before


async def test_a_removed_server_is_gone_and_its_state_stays_unless_told_otherwise(make: MakeMounts, tmp_path: Path) -> None:
    mounts, before = make(), tree()
    folder = tmp_path / "mounts" / "main" / "plain"
    await mounts.add("main", plain())
    assert await mounts.remove("main", "plain") is True
    assert await mounts.remove("main", "plain") is False
    with pytest.raises(NotFound):
        mounts.get("main", "plain")
    assert tree() == before
    assert folder.is_dir()
    await mounts.add("main", plain())
    await mounts.remove("main", "plain", forget=True)
    assert not folder.exists()


async def test_close_breaks_off_what_is_still_starting(make: MakeMounts) -> None:
    mounts, before = make(), tree()
    task = asyncio.create_task(mounts.add("main", hostile("never_init")))
    await until(lambda: tree() != before, "the child runs")
    await asyncio.wait_for(mounts.close(), 6)
    with pytest.raises(Exception, match="stopped while it was starting"):
        await task
    assert tree() == before


@pytest.mark.parametrize("form", [launch.probe(), launch.Plain()], ids=lambda form: form.form)
async def test_a_child_that_is_deaf_to_stdin_and_term_is_killed_in_time(make: MakeMounts, form: launch.Launch) -> None:
    mounts, before = make(launch=form), tree()
    await mounts.add("main", hostile("ignores_term"))
    began = asyncio.get_running_loop().time()
    await mounts.close()
    assert asyncio.get_running_loop().time() - began < 6
    assert tree() == before


async def test_a_stdio_server_of_the_stateless_era_is_found_out_asked_and_listened_to(make: MakeMounts) -> None:
    spec = MountSpec("modern", "stdio", command="python", args=["-S", str(SERVERS / "stateless_stdio.py")])
    mount = await make().add("main", spec)
    assert mount.catalogue.version == "2026-07-28"
    meta = json.loads(await call(mount, "echo"))
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "rootlink"
    await call(mount, "grow")
    await until(lambda: len(mount.catalogue.tools) == 3, "the new tool is known")


async def test_a_literal_credential_in_env_is_redacted_too(make: MakeMounts) -> None:
    mount = await make().add("main", plain(env={"SOME_TOKEN": "ghp_literal_123", "REGION": "eu-central"}))
    await call(mount, "complain", lines=["ghp_literal_123 in eu-central"])
    await until(lambda: mount.logs() == ["[secret] in eu-central"], "redacted")
