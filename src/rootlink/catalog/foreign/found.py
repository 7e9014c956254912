"""A server as some other program's configuration has it, before it is known what is a credential and what is not."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Found(msgspec.Struct, kw_only=True):
    """`packages` (npm, PyPI: `registry`, `package`, `version`) are started with `args`; a server elsewhere has a `url`.

    Texts may hold `${X}`, `${X:-default}`, `${env:X}`, `${input:id}`: a place to be filled in. `inputs`: VS Code's, by id.
    `program`: which of the package's programs, if it is not the one of its own name. `warnings`: words for a person.
    """

    name: str
    registry: Literal["npm", "pypi"] | None = None
    package: str = ""
    version: str = ""  # "": the newest there is at the first install
    program: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    url: str | None = None
    transport: Literal["streamable-http", "sse"] = "streamable-http"
    headers: dict[str, str] = {}
    inputs: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []

    def __repr__(self) -> str:
        return f"Found({self.name!r})"
