"""What a keeper is told when it starts: one JSON argument, which anybody on the machine can read. No secret belongs in it.

A NamedTuple, because the keeper imports this and `dataclasses` alone would be a quarter of its start.
"""

# ruff: noqa: PTH100, PTH118, PTH120
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import json
import os
from typing import NamedTuple

KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")


class Plan(NamedTuple):
    """All paths are absolute. `engine` and `env`: what the engine is started with; `cwd` is one of its folders, or below.

    `path`: PATH by which commands are looked up, here and for every door. `read`, `write`: what the engine sees besides the
    system; what does not exist is left out. `read_roots`, `write_roots`: what it may ask for, for its doors, and all below; below
    a write root no symbolic link is followed, since what is in there may have been put there by a child. `store`: the package
    store, readable for every door that asks, writable where the engine says `store`. `ca`: a PEM bundle that every door sees at
    the same path, and Chromium trusts. `ports`: TCP ports of the engine's own door besides 80 and 443.
    """

    bwrap: str
    engine: list[str]
    env: dict[str, str]
    cwd: str
    path: str
    store: str
    read: list[str] = []  # noqa: RUF012 (a NamedTuple's defaults; nobody appends)
    write: list[str] = []  # noqa: RUF012
    read_roots: list[str] = []  # noqa: RUF012
    write_roots: list[str] = []  # noqa: RUF012
    ca: str | None = None
    ports: list[int] = []  # noqa: RUF012

    def argv(self, python: str) -> list[str]:
        """The keeper's whole command line. Its standard input, output and error become the engine's."""
        return [python, "-I", "-S", KEEPER, json.dumps(self._asdict())]


def parsed(text: str) -> Plan:
    """Raises ValueError or TypeError: not what `argv` wrote."""
    return Plan(**json.loads(text))
