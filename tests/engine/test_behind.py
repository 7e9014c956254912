"""Mounts and installs behind doors, with the real keeper; the gate is the test's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from aiohttp import web

from rootlink.door.probe import probe
from rootlink.engine.doors import unminded
from rootlink.engine.keeper import Order
from rootlink.engine.mounts.launch import Wish
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.outbound import Behind as BehindDoor
from rootlink.engine.outbound import Outbound, read_capped
from rootlink.engine.packages.kept import KeptInstalls
from rootlink.errors import EgressBlocked, Forbidden, Invalid, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import MountSpec, Paths
from tests.engine.behind import SERVERS, Behind, behind
from tests.engine.ingate import InGate
from tests.mounts.ground import Installed, call, hostile, plain, until

EVIL = "egress blocked: host 'evil.example' is not in this project's outbound allowlist"
ADVICE = f"{EVIL}. Allow it with: rootlink egress allow evil.example"
pytestmark = pytest.mark.skipif(probe() is not None, reason=str(probe()))


@pytest.fixture
async def kept(tmp_path: Path, ingate: InGate) -> AsyncIterator[Behind]:
    async with behind(tmp_path, ingate) as one:
        yield one


@pytest.fixture
async def mounts(kept: Behind, tmp_path: Path) -> AsyncIterator[Mounts]:
    one = Mounts(
        launch=kept.launch,
        outbound=Outbound(EgressPolicy(), lambda connection, decision: None),
        packages=Installed(),
        files_dir=tmp_path / "files",
        mounts_dir=tmp_path / "mounts",
        secrets={},
        allow_paths=[SERVERS],
        on_change=lambda ws, kinds: None,
    )
    yield one
    await one.close()


@pytest.fixture
async def standin() -> AsyncIterator[int]:
    app = web.Application()

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.host}")

    app.router.add_get("/", hello)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def seeing(spec: MountSpec) -> MountSpec:
    return msgspec.structs.replace(spec, paths=Paths(read=[str(SERVERS)]))


def reach(**members: Any) -> MountSpec:
    return seeing(MountSpec("reach", "stdio", command="python", args=["-S", str(SERVERS / "reach.py")], **members))


def python(code: str) -> MountSpec:
    return seeing(MountSpec("reach", "stdio", command="python", args=["-S", "-c", code]))


async def result(mount: Mount, tool: str, **arguments: Any) -> Any:
    return msgspec.json.decode(await mount.request("tools/call", {"name": tool, "arguments": arguments}, timeout=20))


def below(kept: Behind) -> list[psutil.Process]:
    return psutil.Process(kept.process.pid).children(recursive=True)


async def test_a_mount_works_behind_its_door_which_closes_with_it(kept: Behind, mounts: Mounts, ingate: InGate) -> None:
    await ingate.until(lambda: 0 in ingate.doors, "the engine's own door is there")
    before = len(below(kept))
    mount = await mounts.add("main", seeing(plain(egress=["a.example"])))
    assert len(mount.catalogue.tools) == 16
    assert await call(mount, "echo", text="through") == "through"
    held = ingate.door("plain")
    assert (held.asked.scope, held.asked.packages, held.asked.token) == (["a.example"], False, None)
    assert {80, 443} <= held.ports
    await mounts.remove("main", "plain")
    assert len(below(kept)) == before
    await ingate.until(lambda: held.asked.door in ingate.closed, "the gate was told")


async def test_many_calls_and_large_ones_pass_the_pipes(mounts: Mounts) -> None:
    mount = await mounts.add("main", seeing(plain()))
    large = "x" * (1 << 20)
    assert await call(mount, "echo", text=large) == large
    answers = await asyncio.gather(*(call(mount, "add", a=number, b=1) for number in range(300)))
    assert answers == [str(number + 1) for number in range(300)]


async def test_what_is_allowed_is_reached_and_what_is_not_is_refused_in_words(
    kept: Behind, mounts: Mounts, ingate: InGate, standin: int
) -> None:
    ingate.allowed["a.example"] = standin
    mount = await mounts.add("main", reach())
    assert (await result(mount, "get", url="http://a.example/"))["content"][0]["text"] == "hello a.example"
    failed = await result(mount, "get", url="http://evil.example/")
    assert failed["isError"] is True
    assert failed["content"][0] == {"type": "text", "text": ADVICE}
    assert "URLError" in failed["content"][1]["text"]
    assert ADVICE in mount.logs()
    found = [(d.connection, d.host, d.port, d.reason) for d in kept.decisions.hand_over()]
    assert found[0] == ("reach", "evil.example", 0, "not_in_allowlist")
    again = await result(mount, "get", url="http://a.example/")
    assert [block["text"] for block in again["content"]] == ["hello a.example"]


async def test_a_literal_address_arrives_at_the_gate_too(mounts: Mounts, ingate: InGate) -> None:
    mount = await mounts.add("main", reach())
    failed = await result(mount, "get", url="http://203.0.113.7/")
    assert "host '203.0.113.7' is not in this project's outbound allowlist" in failed["content"][0]["text"]


async def test_a_server_that_ends_at_its_start_for_a_refusal_says_so(mounts: Mounts) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await mounts.add("main", python("import urllib.request; urllib.request.urlopen('http://evil.example/')"))
    assert failed.value.message.startswith(f"{ADVICE}\nreach ended with exit code 1")
    assert failed.value.data == {"egress": [{"host": "evil.example", "port": 0, "reason": "not_in_allowlist"}]}


async def test_a_command_that_is_not_there_is_told_in_the_keepers_words(kept: Behind, mounts: Mounts, ingate: InGate) -> None:
    with pytest.raises(Invalid, match=r"plain cannot be started: .*'no-such-program'"):
        await mounts.add("main", msgspec.structs.replace(seeing(plain()), command="no-such-program"))
    assert mounts.all() == []
    await ingate.until(lambda: set(ingate.doors) <= {0}, "no door is left")


async def test_a_folder_that_is_not_open_is_refused(kept: Behind, tmp_path: Path) -> None:
    wish = Wish("m", [sys.executable, "-c", "0"], {}, tmp_path / "mounts", read=[tmp_path], write=[tmp_path / "mounts"])
    with pytest.raises(Forbidden, match=r"m cannot be started: .* may not be read"):
        await kept.launch.start(wish, asyncio.SubprocessProtocol, unminded)


async def test_a_child_that_is_deaf_to_stdin_and_term_is_killed_in_time(kept: Behind, mounts: Mounts) -> None:
    await mounts.add("main", seeing(hostile("ignores_term")))
    before = len(below(kept))
    began = asyncio.get_running_loop().time()
    await mounts.remove("main", "hostile")
    assert asyncio.get_running_loop().time() - began < 6
    assert len(below(kept)) < before


async def test_a_crash_is_told_with_its_exit_code_and_its_last_words(mounts: Mounts) -> None:
    mount = await mounts.add("main", seeing(plain()))
    with pytest.raises(UpstreamFailed, match="plain ended with exit code 42 before it answered tools/call: gone fishing"):
        await call(mount, "crash", code=42, words="gone fishing")


async def test_grandchildren_end_with_their_mount(kept: Behind, mounts: Mounts) -> None:
    before = len(below(kept))
    mount = await mounts.add("main", seeing(plain()))
    for kind in ("session", "orphan", "with-pipes"):
        await call(mount, "children", detached=kind)
    await mounts.remove("main", "plain")
    assert len(below(kept)) == before


async def test_a_start_that_nobody_waits_for_any_more_leaves_nothing(kept: Behind, mounts: Mounts, ingate: InGate) -> None:
    await ingate.until(lambda: 0 in ingate.doors, "the engine's own door is there")
    before, files = len(below(kept)), psutil.Process().num_fds()
    adding = [asyncio.create_task(mounts.add("main", seeing(hostile("never_init", name=f"m{number}")))) for number in range(3)]
    for steps, task in enumerate(adding):
        for _ in range(steps * 3):
            await asyncio.sleep(0.002)
        task.cancel()
    await asyncio.gather(*adding, return_exceptions=True)
    await until(lambda: len(below(kept)) == before, "no process is left")
    await ingate.until(lambda: set(ingate.doors) <= {0}, "no door is left")
    await until(lambda: psutil.Process().num_fds() <= files + 1, "no descriptor is left")  # uvloop opens /dev/null


async def test_a_value_that_no_command_can_be_given_does_not_reach_the_keeper(kept: Behind) -> None:
    order = Order(["a\0b"], {}, "/tmp", [], [], [])
    with pytest.raises(ValueError, match="NUL"):
        await kept.keeper.spawn(order, asyncio.SubprocessProtocol(), lambda *_: None)
    assert not kept.gone.is_set()


async def test_the_keepers_end_is_told_to_everybody(kept: Behind, mounts: Mounts) -> None:
    mount = await mounts.add("main", seeing(plain()))
    kept.process.kill()
    await asyncio.wait_for(kept.gone.wait(), 10)
    await until(lambda: mount.state != "ready", "its end was noticed")
    with pytest.raises((UpstreamFailed, Unavailable)):
        await call(mount, "echo", text="x")
    with pytest.raises(Unavailable, match="keeper has ended"):
        await kept.keeper.listen(1, [9000])


async def test_a_mounts_door_listens_on_a_port_as_soon_as_it_is_allowed(kept: Behind, mounts: Mounts, ingate: InGate) -> None:
    await mounts.add("main", seeing(plain(egress=["db.example:6000"])))
    held = ingate.door("plain")
    assert {80, 443, 6000} <= held.ports
    kept.doors._doors[0].tried.update([9000])
    kept.doors.update(EgressPolicy(allow=["db.example:9000"]))
    await kept.doors.settled()
    await ingate.until(lambda: 9000 in held.ports, "the gate has the port")


async def test_the_engines_own_door_listens_on_a_port_as_soon_as_it_is_allowed(kept: Behind, ingate: InGate) -> None:
    await ingate.until(lambda: 0 in ingate.doors, "the engine's own door is there")
    kept.doors.update(EgressPolicy(allow=["db.example:9000"]))
    await asyncio.wait_for(kept.doors.settled(), 10)
    await ingate.until(lambda: 9000 in ingate.doors[0].ports, "the gate has the port")


# installs


def installs(kept: Behind) -> KeptInstalls:
    return KeptInstalls(kept.launch, [8081])


async def test_an_install_runs_behind_a_door_for_packages_and_may_write_in_the_store(
    kept: Behind, ingate: InGate, tmp_path: Path
) -> None:
    code = "import pathlib, sys; pathlib.Path('made').write_text('x'); print('done', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-S", "-c", code]
    assert await installs(kept)(argv, cwd=tmp_path / "store", env={}, registry="npm", title="pkg") == "done\n"
    assert (tmp_path / "store" / "made").read_text() == "x"
    await ingate.until(lambda: ingate.closed, "its door is closed")


async def test_a_failed_install_is_told_as_ever_and_what_was_refused_besides(
    kept: Behind, ingate: InGate, tmp_path: Path
) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://evil.example/')"
    argv = [sys.executable, "-S", "-c", code]
    with pytest.raises(UpstreamFailed) as failed:
        await installs(kept)(argv, cwd=tmp_path / "store", env={}, registry="npm", title="pkg")
    assert failed.value.message.startswith("the package registry cannot be reached, and pkg is not in the store yet\n")
    assert failed.value.message.endswith("installs reach the configured package registries only; refused: evil.example")
    assert kept.decisions.hand_over()[0].connection == "packages"


async def test_a_cancelled_install_is_ended(kept: Behind, ingate: InGate, tmp_path: Path) -> None:
    await ingate.until(lambda: 0 in ingate.doors, "the engine's own door is there")
    before = len(below(kept))
    argv = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    task = asyncio.create_task(installs(kept)(argv, cwd=tmp_path / "store", env={}, registry="npm", title="pkg"))
    await ingate.until(lambda: len(ingate.doors) == 2, "it runs")
    held = ingate.door("packages")
    assert held.asked.packages is True
    assert 8081 in held.ports
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(below(kept)) == before, "no process is left")


# what the engine itself asks for


async def asked(outbound: Outbound, url: str, own: list[str] | None = None) -> str:
    async with outbound.scope("conn", own).request("GET", url, timeout=10) as response:
        return (await read_capped(response, 1000)).decode()


async def test_without_the_keepers_network_a_name_of_the_gate_cannot_be_dialled_here(kept: Behind, ingate: InGate) -> None:
    """This process is not behind the door, so the address the gate names leads nowhere; the refusals need no packet at all."""
    await ingate.until(lambda: 0 in ingate.doors, "the engine's own door is there")
    outbound = Outbound(EgressPolicy(allow=["a.example"]), lambda c, d: None, way=BehindDoor(kept.doors, 0))
    with pytest.raises(EgressBlocked, match=r"host 'evil\.example' is not in this project's outbound allowlist"):
        await asked(outbound, "http://evil.example/")
    assert ingate.asked == []
    await outbound.close()
