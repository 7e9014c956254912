"""An engine's mounts in a process of their own, to be killed. Prints one line when the grandchildren run.

engine_host.py FORM MARK DIR [uvloop]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rootlink.engine.mounts import launch
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.outbound import Outbound
from rootlink.wire.engine import EgressPolicy
from tests.mounts.ground import Installed, call, plain

FORMS = {"contained": launch.probe, "plain": launch.Plain}


async def main(form: str, mark: str, folder: Path) -> None:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    mounts = Mounts(
        launch=FORMS[form](),
        outbound=Outbound(EgressPolicy(), lambda connection, decision: None),
        packages=Installed(),
        files_dir=folder / "files",
        mounts_dir=folder / "mounts",
        secrets={},
        allow_paths=[],
        on_change=lambda ws, kinds: None,
    )
    mount = await mounts.add("main", plain(env={"MARK": f"mark-{mark}"}))
    for kind in ("session", "orphan", "with-pipes"):
        await call(mount, "children", detached=kind)
    print("ready", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    arguments = (sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    if "uvloop" in sys.argv:
        import uvloop

        uvloop.run(main(*arguments))
    else:
        asyncio.run(main(*arguments))
