"""A program that kills itself with SIGKILL, for `test_crash.py`: `crasher.py URL HOW NUMBER`.

statement N   in one connect that replaces a secret, brings one and opens two hosts: just before SQL statement N of it
forever 0     connects and disconnects without end, saying each name when it is through: to be killed from outside
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from typing import Any

from sqlalchemy import Engine, event

from rootlink.store import Store
from tests.store.vault import Vault


def main(url: str, how: str, number: int) -> None:
    store, vault = Store.open(url), Vault()
    project = store.projects.get("default").id
    if how == "statement":
        _die_before(number)
        store.connections.connect(_wish(vault, project, "crash"))
        return
    for n in count():
        row = store.connections.connect(_wish(vault, project, f"n{n}"))
        store.connections.set_state(row.id, "connected")
        print(row.name, flush=True)
        if n % 2:
            store.connections.remove(row.id)


def _wish(vault: Vault, project: str, name: str) -> Any:
    return vault.connection(project, name, secrets={"OLD": name, f"NEW_{name}": name}, hosts=["a.example", f"{name}.example"])


def _die_before(number: int) -> None:
    statements = count(1)

    def at_statement(*_: Any) -> None:
        if next(statements) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", at_statement)
    event.listen(Engine, "commit", at_statement)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
