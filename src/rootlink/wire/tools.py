"""What may be done with a server's tools: the rules a person made, and what an engine says of each tool."""

from __future__ import annotations

from typing import Literal

import msgspec

Access = Literal["read", "write", "destructive"]
Mode = Literal["allow", "ask", "off"]


class ToolRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one mount or function, by the names its server gives its tools.

    `access`: the catalogue's labels. `modes`: what a person (or the catalogue, for `off`) decided; a tool without one goes by its
    access. `pins`: the fingerprint of each definition that was agreed to; empty: the first list seen is. `closed`: a tool that is
    in no pin is held back too; else only one that changed, or may be another's new name.
    """

    access: dict[str, Access] = {}
    modes: dict[str, Mode] = {}
    pins: dict[str, str] = {}
    closed: bool = False


class ToolView(msgspec.Struct, frozen=True):
    """One tool as a person decides about it. `tool`: by its server's name; `name`: what clients call.

    `mode` is in force, `chosen` what a person set (None: the default). `held`: why it is neither listed nor called, None: it is
    not. `flags`: what is odd about its definition, in words. `tokens`: about what its definition costs a model, each time.
    `fingerprint`: of its definition as it is now, which approving it names. `description` is as the server sent it.
    """

    tool: str
    name: str
    title: str
    description: str
    access: Access | None
    mode: Mode
    chosen: Mode | None
    held: str | None
    flags: list[str]
    tokens: int
    fingerprint: str
