"""The gateway program: it knows who asks, seals, relays. Wiring only."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from rootlink import catalog
from rootlink.console import app as console
from rootlink.errors import Unavailable
from rootlink.gateway.app import build
from rootlink.gateway.provisioner import ProvisionerClient
from rootlink.gateway.server import listen, serve, url_of
from rootlink.gateway.settings import GatewaySettings
from rootlink.programs import landlock, logs, prctl
from rootlink.programs.record import Record
from rootlink.programs.settings import Settings, runtime_dir
from rootlink.programs.token import admin_token
from rootlink.sealing.seal import Sealer
from rootlink.store.store import Store

KEY_WAIT = 15.0  # seconds; at a first start the provisioner makes the key pair while we start
RESERVED_FILES = 128  # for the database, the logs, the provisioner, and what is being accepted or closed
BURST_SECS = 10  # a key may use up the limit of so many seconds at once


def main(settings: Settings, listener: socket.socket | None = None) -> int:
    """Serve until SIGTERM. `listener` is bound already when `up` holds the port. Raises Unavailable when it can't begin."""
    prctl.seal_memory()
    files = prctl.raise_file_limit()
    logs.set_up("gateway", settings.log_level)
    settings.prepare()
    token = admin_token(settings.admin_token_file)
    entries = catalog.load(own=settings.catalog)  # before the rest of the disk is out of reach
    locked = give_up_the_key(settings)
    sock = listener or listen(settings.host, settings.port)
    sealer = Sealer.read(_awaited(settings.public_key_file))
    store = Store.open(settings.store_url)
    provisioner = ProvisionerClient(str(settings.provisioner_socket))
    try:
        page = console.build()
        gateway = build(store, sealer, entries, provisioner, _settings(settings, sock, token, files), console=page)

        async def run() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await serve(gateway, sock, stop=stop)

        with Record(settings.run_dir / "gateway.json").kept(landlock=locked, url=url_of(sock), settings=settings.shown()):
            uvloop.run(run())
    finally:
        store.close()
    return 0


def give_up_the_key(settings: Settings) -> bool:
    """From here on nothing in this process can open `vault/`, whatever it is tricked into. False: this kernel can't do that."""
    tempfile.tempdir = str(settings.run_dir)  # the usual one may lie above the home, and is out of reach then
    code = [Path(path) for path in (*sys.path, sys.prefix, sys.base_prefix) if path]
    system = [Path(path) for path in ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/run")]
    postgresql = [Path(name).expanduser() for name in ("~/.pgpass", "~/.postgresql")]
    read = [*code, *system, *postgresql, settings.public_key_file.parent]
    write = [settings.home / name for name in ("control", "run", "logs")]
    write += [runtime_dir(settings.home), Path("/dev"), Path("/var/tmp")]  # noqa: S108
    rules = [(path, landlock.READ) for path in read] + [(path, landlock.WRITE) for path in write]
    return landlock.restrict(rules, away=settings.private_key_file.parent)


def _settings(settings: Settings, sock: socket.socket, token: str, files: int) -> GatewaySettings:
    rate = float(settings.rate_limit) if settings.rate_limit else float("inf")
    return GatewaySettings(
        admin_token=token,
        public_url=url_of(sock),
        allowed_hosts=frozenset(settings.allowed_hosts),
        connections=max((files - RESERVED_FILES) // 2, 16),
        key_rate=rate,
        key_burst=rate * BURST_SECS,
    )


def _awaited(path: Path) -> Path:
    deadline = time.monotonic() + KEY_WAIT
    while not path.exists():
        if time.monotonic() > deadline:
            raise Unavailable(f"there is no {path}: the provisioner makes it at its first start; start `rootlink provisioner`")
        time.sleep(0.01)
    return path
