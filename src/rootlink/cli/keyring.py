"""The project keys the command line made for itself: one file, readable by its owner only, replaced whole at every change."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rootlink.cli.client import UNREADABLE


class Keyring:
    """Keys by instance and project. A file that cannot be read is an empty keyring: keys are cheap, and made again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, base: str, project: str) -> str | None:
        return self._all().get(f"{base} {project}")

    def put(self, base: str, project: str, key: str) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(msgspec.json.encode({**self._all(), f"{base} {project}": key}))
        draft.replace(self._file)

    def _all(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except (OSError, *UNREADABLE):
            return {}
