"""Zombies that are nobody's are collected within about a second; those that somebody waits for are left to him."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SCRIPT = """
import asyncio, json, os, subprocess, sys, time
import uvloop
from rootlink.programs import prctl
from rootlink.programs.orphans import reap_forgotten

ORPHAN = "import subprocess, sys; subprocess.Popen(['sleep', '0.2'])"

def zombies():
    listed = subprocess.run(["ps", "-o", "stat=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    return sum(1 for stat in listed.split() if stat.startswith("Z"))

async def main():
    prctl.adopt_orphans()
    reaping = asyncio.create_task(reap_forgotten())
    for _ in range(3):
        subprocess.run([sys.executable, "-c", ORPHAN], check=True)
    codes = []
    for code in (3, 4, 5):  # ended while others are being collected
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", f"import time; time.sleep(.3); exit({code})")
        codes.append(await child.wait())
    deadline = time.monotonic() + 3.0
    await asyncio.sleep(0.3)
    while (left := zombies()) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    took = 3.0 - (deadline - time.monotonic())
    used = time.process_time()
    await asyncio.sleep(2.0)
    reaping.cancel()
    print(json.dumps({"codes": codes, "left": left, "took": took, "cpu": time.process_time() - used}))

uvloop.run(main())
"""


def told() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


def test_orphans_are_collected_soon_and_exit_codes_are_not_taken_from_who_waits() -> None:
    outcome = told()
    assert outcome["left"] == 0 and outcome["took"] < 2.5
    assert outcome["codes"] == [3, 4, 5]
    assert outcome["cpu"] < 0.02  # of two idle seconds
