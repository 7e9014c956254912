"""The provisioner program: it unseals, launches, reaps. Wiring only."""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path
from typing import Any

from rootlink import catalog
from rootlink.door.probe import probe
from rootlink.programs import logs, prctl, registries
from rootlink.programs.record import Record, alone
from rootlink.programs.settings import Settings, runtime_dir
from rootlink.provisioner.app import KeyFiles, serve
from rootlink.provisioner.engines import Operator
from rootlink.provisioner.gate import GateLine
from rootlink.provisioner.launch.behind import Behind
from rootlink.provisioner.launch.process import ProcessLauncher
from rootlink.provisioner.layout import Layout
from rootlink.store.store import Store
from rootlink.wire.engine import EgressPolicy

FIRST_PROJECT = "default"


def main(settings: Settings) -> int:
    """Serve until SIGTERM, then stop the engines. Raises Conflict when this home has a provisioner, and what the store raises."""
    prctl.seal_memory()
    logs.set_up("provisioner", settings.log_level)
    settings.prepare()
    layout = Layout(settings.home, runtime_dir(settings.home), settings.package_store)
    record = Record(settings.run_dir / "provisioner.json")
    with alone(settings.run_dir / "provisioner.lock", "a provisioner of this home runs already"), record.kept():
        store = Store.open(settings.store_url)
        try:
            if not store.projects.list():
                store.projects.create(FIRST_PROJECT)
            asyncio.run(
                serve(
                    store=store,
                    launcher=_launcher(layout, settings),
                    keys=KeyFiles(settings.private_key_file, settings.public_key_file),
                    layout=layout,
                    operator=operator(settings),
                    gate=lambda: GateLine(layout.gate, rate=settings.egress_rate),
                    socket_path=settings.provisioner_socket,
                )
            )
        finally:
            store.close()
    return 0


def _launcher(layout: Layout, settings: Settings) -> ProcessLauncher:
    argv = _engine(settings)
    behind = Behind(layout, argv, settings.environ, registries.settings_paths(settings.environ))
    return ProcessLauncher(layout, argv, settings.environ, behind=behind, sweeping=prctl.adopt_orphans())


def _engine(settings: Settings) -> list[str]:
    """`-P`: an engine's working directory holds what mounts wrote; nothing is imported from there."""
    program = [sys.executable, "-P", "-m", "rootlink.programs", "engine"]
    return [*program, "--home", str(settings.home), "--log-level", settings.log_level]


def operator(settings: Settings) -> Operator:
    @functools.cache
    def shown() -> list[dict[str, Any]]:
        return [entry.summary() for entry in catalog.load(own=settings.catalog).list()]

    return Operator(
        idle_stop=settings.idle_stop,
        private=settings.allow_private,
        resolve=settings.resolve,
        extra_ca=settings.extra_ca,
        allow_paths=tuple(
            dict.fromkeys(spelled for path in settings.allow_path for spelled in (path, str(Path(path).resolve())))
        ),
        sandbox=settings.sandbox,
        catalog=shown,
        probe=probe,
        registries=lambda: _registries(settings),
    )


def _registries(settings: Settings) -> EgressPolicy:
    return registries.package_policy(settings.environ, settings.package_hosts)
