"""What installers are given, and what their failures are told as."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from rootlink.engine.packages import installer
from rootlink.errors import Unavailable, UpstreamFailed
from tests.packages.conftest import until


def test_an_installer_gets_the_users_settings_for_registries_and_nothing_else(tmp_path: Path) -> None:
    environ = {
        "HOME": "/home/me",
        "PATH": "/evil",
        "GITHUB_TOKEN": "secret",
        "NODE_OPTIONS": "--require /evil.js",
        "LD_PRELOAD": "/evil.so",
        "NPM_CONFIG_REGISTRY": "http://mirror.example/",
        "npm_config_proxy": "http://proxy.example",
        "HTTPS_PROXY": "http://proxy.example",
        "UV_DEFAULT_INDEX": "http://mirror.example/simple",
        "SSL_CERT_FILE": "/ca.pem",
    }
    env = installer.environment(environ, tmp_path)
    kept = {"NPM_CONFIG_REGISTRY", "npm_config_proxy", "HTTPS_PROXY", "UV_DEFAULT_INDEX", "SSL_CERT_FILE"}
    assert set(env) == kept | {"HOME", "PATH", "XDG_CONFIG_HOME", "npm_config_userconfig"}
    assert env["HOME"] == str(tmp_path)
    assert env["npm_config_userconfig"] == "/home/me/.npmrc"
    assert env["XDG_CONFIG_HOME"] == "/home/me/.config"
    assert env["PATH"] != "/evil"


def test_a_mirror_set_for_pip_is_used_by_uv_unless_uv_has_its_own(tmp_path: Path) -> None:
    assert installer.environment({"PIP_INDEX_URL": "a"}, tmp_path)["UV_DEFAULT_INDEX"] == "a"
    assert installer.environment({"PIP_INDEX_URL": "a", "UV_DEFAULT_INDEX": "b"}, tmp_path)["UV_DEFAULT_INDEX"] == "b"


SAID = {
    "npm error code E404\nnpm error 404 Not Found - GET http://x/pkg": "npm has no package pkg",
    "npm error code ETARGET\nnpm error notarget No matching version found for pkg@9.": "npm has no such version of pkg",
    "npm error code EINTEGRITY\nnpm error sha512-A integrity checksum failed": "integrity mismatch",
    "npm error code ECONNREFUSED\nnpm error connect ECONNREFUSED 127.0.0.1:9": "registry cannot be reached",
    "npm error code EAI_AGAIN": "registry cannot be reached",
    "npm error code E401\nnpm error Unable to authenticate": "registry refused the request",
    "× No solution found: Because pkg was not found in the package registry": "npm has no package pkg",
    "Because there is no version of pkg==9 and you require pkg==9": "npm has no such version of pkg",
    "pkg==1 has no wheels with a matching Python ABI tag": "no prebuilt package for this machine",
    "Because the requested Python version (>=3.11) does not satisfy Python>=3.13": "does not run on this Python",
    "error: Hash mismatch for `pkg==1`": "integrity mismatch",
    "error: Failed to fetch: `http://x/simple/pkg/`": "registry cannot be reached",
    "something new": "installing pkg failed",
}


@pytest.mark.parametrize(("output", "words"), SAID.items())
def test_a_failure_is_told_in_words_and_with_the_last_lines(output: str, words: str) -> None:
    error = installer.failure(output, registry="npm", title="pkg")
    assert isinstance(error, UpstreamFailed)
    assert words in error.message
    assert output.splitlines()[-1] in error.message


def test_a_full_disk_is_ours_and_not_the_registrys() -> None:
    assert isinstance(installer.failure("npm error code ENOSPC", registry="npm", title="pkg"), Unavailable)


def test_credentials_in_a_registrys_address_are_not_shown() -> None:
    assert "hunter2" not in installer.last_lines("npm error GET http://me:hunter2@mirror.example/pkg\n")


async def test_cancelling_a_run_ends_its_whole_process_group(tmp_path: Path) -> None:
    started = tmp_path / "pids"
    code = "import os, subprocess, sys, time, pathlib\n"
    code += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    code += f"pathlib.Path({str(started)!r}).write_text(str(child.pid))\ntime.sleep(60)\n"
    run = asyncio.create_task(installer.run([sys.executable, "-c", code], cwd=tmp_path, env={}, registry="npm", title="pkg"))
    await until(lambda: started.exists() and bool(started.read_text()))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until(lambda: not _runs(int(started.read_text())), 5)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
