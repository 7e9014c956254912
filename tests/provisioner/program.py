"""A provisioner program with fake engines: `python program.py HOME RUNTIME`. To be killed by tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rootlink.programs import logs, prctl
from rootlink.provisioner import engines
from rootlink.provisioner.app import KeyFiles, serve
from rootlink.provisioner.engines import Operator
from rootlink.provisioner.launch.process import ProcessLauncher
from rootlink.provisioner.layout import Layout
from rootlink.store import Store
from tests.provisioner.stage import ENVIRON, FAKE_ENGINE, QUICK

home, runtime = Path(sys.argv[1]), Path(sys.argv[2])
engines.POLL = 0.5
logs.set_up("provisioner", "info")
layout = Layout(home, runtime)
store = Store.open(f"sqlite:///{home / 'control' / 'rootlink.db'}")
asyncio.run(
    serve(
        store=store,
        launcher=ProcessLauncher(layout, FAKE_ENGINE, ENVIRON, sweeping=prctl.adopt_orphans(), patience=QUICK),
        keys=KeyFiles(home / "vault" / "seal.key", home / "vault-public" / "seal.pub"),
        layout=layout,
        operator=Operator(),
        socket_path=runtime / "provisioner.sock",
    )
)
store.close()
