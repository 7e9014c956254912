"""How a mount's program is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Start:
    """`argv[0]` is an absolute path. `env` is what the program needs besides its own; `package` is `name@version`, None for a
    command that is no package; `readonly` are the directories it must be able to read."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    package: str | None = None
    readonly: list[Path] = field(default_factory=list)
