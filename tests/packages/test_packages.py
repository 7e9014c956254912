"""Real packages of the real registries: installed once, whole or not at all, started without the registry ever after."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from rootlink.engine.packages import Packages, Start, installer, kept
from rootlink.errors import Invalid, UpstreamFailed
from tests.packages.conftest import MEMORY, MEMORY_AT, MakePackages, until

pytestmark = pytest.mark.slow
NOWHERE = "http://127.0.0.1:9/"
TIME_SERVER = "mcp-server-time"
FIRST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}
TALK = [FIRST, {"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}]


async def tools_of(start: Start, cwd: Path) -> set[str]:
    """Starts the server with nothing but `start` says, and lists its tools as an MCP client would."""
    process = await asyncio.create_subprocess_exec(
        *start.argv, cwd=cwd, env=start.env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            process.stdin.write(b"".join(msgspec.json.encode(message) + b"\n" for message in TALK))
            while line := await process.stdout.readline():
                answer: dict[str, Any] = msgspec.json.decode(line)
                if answer.get("id") == 2:
                    return {tool["name"] for tool in answer["result"]["tools"]}
        raise AssertionError("the server ended")
    finally:
        process.kill()
        await process.communicate()


def installs(store: Path, registry: str = "npm") -> list[str]:
    folder = store / registry
    aside = {"cache", "pins"}
    return sorted(path.name for path in folder.iterdir() if path.name not in aside) if folder.is_dir() else []


async def test_an_npm_server_is_installed_once_and_starts_without_npx(
    make_packages: MakePackages, shared_store: Path, tmp_path: Path, memory_lock: str
) -> None:
    said: list[str] = []
    packages = make_packages(shared_store)
    start = await packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock, progress=said.append)
    assert said == [f"installing 99 packages of {MEMORY_AT} …"]
    assert start.package == MEMORY_AT
    assert Path(start.argv[0]).name == "node"
    assert start.env == {}
    assert "create_entities" in await tools_of(start, tmp_path)


async def test_the_second_time_it_comes_from_the_store_without_the_registry(
    make_packages: MakePackages, shared_store: Path, tmp_path: Path, memory_lock: str
) -> None:
    await make_packages(shared_store).resolve("npx", ["-y", MEMORY_AT], lock=memory_lock)
    said: list[str] = []
    offline = make_packages(shared_store, npm_config_registry=NOWHERE)
    began = time.monotonic()
    start = await offline.resolve("npx", ["-y", MEMORY_AT, "--x"], lock=memory_lock, progress=said.append)
    assert time.monotonic() - began < 3
    assert said == [f"{MEMORY_AT}: from the store"]
    assert start.argv[-1] == "--x"
    assert "create_entities" in await tools_of(start, tmp_path)


async def test_a_spec_without_a_lock_is_pinned_at_first_and_the_same_for_ever(
    make_packages: MakePackages, shared_store: Path
) -> None:
    said: list[str] = []
    first = await make_packages(shared_store).resolve("npx", ["-y", MEMORY], progress=said.append)
    assert said[0] == f"resolving {MEMORY} …"
    again = await make_packages(shared_store, npm_config_registry=NOWHERE).resolve("npx", ["-y", MEMORY])
    assert again == first
    assert first.package is not None
    assert first.package.startswith(f"{MEMORY}@2")


async def test_an_install_is_read_only(make_packages: MakePackages, shared_store: Path, memory_lock: str) -> None:
    start = await make_packages(shared_store).resolve("npx", ["-y", MEMORY_AT], lock=memory_lock)
    folder = start.readonly[0]
    assert folder.parent == shared_store / "npm"
    paths = [path for path in [folder, *folder.rglob("*")] if not path.is_symlink()]
    assert len(paths) > 1000
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o222 for path in paths)


async def test_six_callers_at_once_make_one_install(make_packages: MakePackages, tmp_path: Path) -> None:
    packages = make_packages()
    said: list[list[str]] = [[] for _ in range(6)]
    starts = await asyncio.gather(
        *(packages.resolve("npx", ["-y", MEMORY_AT, str(n)], progress=said[n].append) for n in range(6))
    )
    assert len(installs(tmp_path / "store")) == 1
    assert len({tuple(start.argv[:2]) for start in starts}) == 1
    assert [start.argv[-1] for start in starts] == [str(n) for n in range(6)]
    assert all(lines == [f"resolving {MEMORY_AT} …", f"installing 99 packages of {MEMORY_AT} …"] for lines in said)


async def test_three_engines_at_once_make_one_install(make_packages: MakePackages, tmp_path: Path, memory_lock: str) -> None:
    """Three Packages share nothing but the disk, as three processes do: flock tells their descriptors apart."""
    said: list[str] = []
    engines = [make_packages() for _ in range(3)]
    await asyncio.gather(
        *(engine.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock, progress=said.append) for engine in engines)
    )
    assert len(installs(tmp_path / "store")) == 1
    assert len([line for line in said if line.startswith("installing")]) == 1
    assert len([line for line in said if line.startswith("waiting")]) == 2


async def test_a_lock_whose_integrity_is_tampered_with_installs_nothing(
    make_packages: MakePackages, tmp_path: Path, memory_lock: str
) -> None:
    lock = msgspec.json.decode(memory_lock)
    entry = lock["packages"][f"node_modules/{MEMORY}"]
    entry["integrity"] = "sha512-" + "A" * 86 + "=="
    with pytest.raises(UpstreamFailed, match="integrity mismatch"):
        await make_packages().resolve("npx", ["-y", MEMORY_AT], lock=msgspec.json.encode(lock).decode())
    assert installs(tmp_path / "store") == []


async def test_a_lock_of_another_package_is_refused(make_packages: MakePackages, memory_lock: str) -> None:
    with pytest.raises(Invalid, match="does not hold"):
        await make_packages().resolve("npx", ["-y", "@modelcontextprotocol/server-filesystem"], lock=memory_lock)


async def test_a_version_that_was_never_published_is_told_so(make_packages: MakePackages) -> None:
    with pytest.raises(UpstreamFailed, match=f"npm has no such version of {MEMORY}@9999.0.0"):
        await make_packages().resolve("npx", ["-y", f"{MEMORY}@9999.0.0"])
    with pytest.raises(UpstreamFailed, match=f"PyPI has no such version of {TIME_SERVER}==9999"):
        await make_packages().resolve("uvx", [f"{TIME_SERVER}==9999"])


async def test_a_program_that_the_package_does_not_have_is_told_with_those_it_has(
    make_packages: MakePackages, shared_store: Path, memory_lock: str
) -> None:
    with pytest.raises(UpstreamFailed, match="no program 'other'; it has mcp-server-memory"):
        await make_packages(shared_store).resolve("npx", ["-p", MEMORY_AT, "other"], lock=memory_lock)


async def test_a_registry_that_cannot_be_reached_is_told_so(make_packages: MakePackages, tmp_path: Path) -> None:
    with pytest.raises(UpstreamFailed, match="registry cannot be reached"):
        await make_packages(npm_config_registry=NOWHERE, npm_config_fetch_retries="0").resolve("npx", ["-y", MEMORY_AT])
    with pytest.raises(UpstreamFailed, match="registry cannot be reached"):
        await make_packages(UV_DEFAULT_INDEX=NOWHERE, UV_HTTP_RETRIES="0").resolve("uvx", [TIME_SERVER])
    assert (installs(tmp_path / "store"), installs(tmp_path / "store", "pypi")) == ([], [])


async def test_an_install_that_takes_too_long_is_stopped_and_leaves_nothing(
    make_packages: MakePackages, silent_registry: str, tmp_path: Path, memory_lock: str
) -> None:
    packages = make_packages(cap_secs=1.5, npm_config_registry=silent_registry)
    with pytest.raises(UpstreamFailed, match="took longer than"):
        await packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock)
    assert installs(tmp_path / "store") == []
    assert not _children_of_this_test()


async def test_a_caller_who_goes_away_leaves_the_others_their_install(make_packages: MakePackages, memory_lock: str) -> None:
    packages = make_packages()
    said: list[str] = []
    leaver = asyncio.create_task(packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock, progress=said.append))
    stayer = asyncio.create_task(packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock))
    await until(lambda: bool(said))
    leaver.cancel()
    assert (await stayer).package == MEMORY_AT
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_when_the_last_caller_goes_away_the_install_is_stopped(
    make_packages: MakePackages, silent_registry: str, tmp_path: Path, memory_lock: str
) -> None:
    packages = make_packages(npm_config_registry=silent_registry)
    caller = asyncio.create_task(packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock))
    await until(lambda: bool(_children_of_this_test()))
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await packages.close()
    assert (_children_of_this_test(), installs(tmp_path / "store")) == ([], [])


KILLED = """
import asyncio, sys
from pathlib import Path
from rootlink.engine.packages import Packages
settings = dict(line.split("=", 1) for line in sys.stdin.read().splitlines() if "=" in line)
asyncio.run(Packages(sys.argv[1], environ=settings).resolve("npx", ["-y", sys.argv[2]], lock=Path(sys.argv[3]).read_text()))
"""


async def test_an_engine_killed_in_the_middle_leaves_nothing_in_use_and_the_next_cleans_up(
    make_packages: MakePackages, silent_registry: str, tmp_path: Path, memory_lock: str
) -> None:
    store = tmp_path / "store"
    (tmp_path / "lock.json").write_text(memory_lock)
    command = [sys.executable, "-c", KILLED, str(store), MEMORY_AT, str(tmp_path / "lock.json")]
    engine = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    assert engine.stdin is not None
    engine.stdin.write(f"npm_config_registry={silent_registry}\n".encode())
    engine.stdin.close()
    await until(lambda: any(".tmp-" in name for name in installs(store)) and bool(psutil.Process(engine.pid).children()))
    npm = psutil.Process(engine.pid).children()
    engine.send_signal(signal.SIGKILL)
    await engine.wait()
    left = installs(store)
    start = await make_packages().resolve("npx", ["-y", MEMORY_AT], lock=memory_lock)
    for process in npm:  # it may outlive its engine; what it still writes is in a folder nobody uses
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert len(left) == 1
    assert ".tmp-" in left[0]
    assert installs(store) == [start.readonly[0].name]


async def test_a_python_server_is_installed_once_and_starts_without_uvx(
    make_packages: MakePackages, shared_store: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    first = await make_packages(shared_store).resolve("uvx", [TIME_SERVER, "--local-timezone=UTC"], progress=said.append)
    assert [line.split()[0] for line in said] == ["resolving", "installing"]
    assert "get_current_time" in await tools_of(first, tmp_path)
    again = await make_packages(shared_store, UV_DEFAULT_INDEX=NOWHERE).resolve("uvx", [TIME_SERVER, "--local-timezone=UTC"])
    assert again == first
    assert first.package is not None
    assert first.package.startswith(f"{TIME_SERVER}@")


async def test_requirements_whose_hash_is_tampered_with_install_nothing(make_packages: MakePackages, tmp_path: Path) -> None:
    requirements = "tzdata==2025.2 --hash=sha256:" + "0" * 64
    with pytest.raises(UpstreamFailed, match="integrity mismatch"):
        await make_packages().resolve("uvx", ["tzdata==2025.2"], lock=requirements)
    assert installs(tmp_path / "store", "pypi") == []


async def test_other_commands_are_ours_or_found_or_refused(
    make_packages: MakePackages, environ: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    packages = make_packages(PATH=str(tmp_path))
    node = await packages.resolve("node", ["server.js"])
    assert (Path(node.argv[0]).name, node.argv[1:]) == ("node", ["server.js"])
    assert (await packages.resolve("python3", ["-m", "x"])).argv == [sys.executable, "-m", "x"]
    assert (await packages.resolve("server", ["a"])).argv == [str(program), "a"]
    assert (await packages.resolve(str(program), [])).argv == [str(program)]
    for command in ("no-such-command", "", "./server", "../server", "/no/such/command", str(tmp_path)):
        with pytest.raises(Invalid, match="is not on this machine"):
            await packages.resolve(command, [])


async def test_a_command_that_is_found_by_who_starts_it_stays_as_it_is_named(tmp_path: Path) -> None:
    packages = Packages(tmp_path, found_elsewhere=True)
    assert (await packages.resolve("no-such-command", ["a"])).argv == ["no-such-command", "a"]
    assert (await packages.resolve("/no/such/command", [])).argv == ["/no/such/command"]
    assert (await packages.resolve("python", [])).argv == [sys.executable]
    for command in ("", "./server", "../server"):
        with pytest.raises(Invalid, match="is not on this machine"):
            await packages.resolve(command, [])


def test_an_install_behind_a_door_is_shown_the_users_settings_that_are_there(tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text("")
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    env = installer.environment({"HOME": str(tmp_path), "SSL_CERT_FILE": str(tmp_path / "gone.pem")}, tmp_path / "home")
    assert kept.settings(env) == [tmp_path / ".npmrc", tmp_path / ".config" / "uv"]


async def test_an_install_is_run_by_whoever_is_given(tmp_path: Path, memory_lock: str) -> None:
    ran: list[tuple[str, str]] = []

    async def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], registry: str, title: str) -> str:
        ran.append((registry, title))
        raise UpstreamFailed("not today")

    packages = Packages(tmp_path, run=run)
    with pytest.raises(UpstreamFailed, match="not today"):
        await packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock)
    with pytest.raises(UpstreamFailed, match="not today"):
        await packages.resolve("uvx", ["some-server"])
    assert ran == [("npm", MEMORY_AT), ("PyPI", "some-server")]
    await packages.close()


async def test_after_close_an_install_is_refused_in_words(
    make_packages: MakePackages, silent_registry: str, memory_lock: str
) -> None:
    packages = make_packages(npm_config_registry=silent_registry)
    caller = asyncio.create_task(packages.resolve("npx", ["-y", MEMORY_AT], lock=memory_lock))
    await until(lambda: bool(_children_of_this_test()))
    await packages.close()
    with pytest.raises(Exception, match="the engine is stopping"):
        await caller


def _children_of_this_test() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_packages_can_be_made_outside_a_loop(tmp_path: Path) -> None:
    Packages(tmp_path)
