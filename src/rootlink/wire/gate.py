"""What is said to the gate, in frames (`door/frames.py`) over two unix sockets.

The doors' socket, for engines. A connection is one engine's; its end closes all doors it opened.

    Hello                         first; Welcome, or the end: this project is not served (yet), or the key is another spawn's
    Open  + listeners' fds        a door: what its listeners accept is decided by `scope` within the project's allowlist
    Listen + listeners' fds       more listeners of an open door
    Close
    Ask → Answer                  may this be reached, and through which address of the door? For whoever can wait for words
    ◄ Refusal                     something behind a door was refused; told at once, coalesced only in a flood
    ◄ Named                       an address of the door stands for this name from here on: the next gate is told in `Open.names`

The control socket, for the provisioner. What is served ends with the gate, not with the connection.

    Serve → Done                  in force when Done is said: open connections it does not allow are cut
    Forget → Done                 the project's doors are closed
    Count → Counted

An engine can narrow its way out, never widen it: the allowlist comes on the control socket alone. The sockets of a door were made
in its network namespace, and accept there wherever they are held; an engine keeps its copies, and hands them to the next gate.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from rootlink.wire.engine import EgressPolicy

Kind = Literal["tcp", "proxy", "dns", "watch"]


class Listener(msgspec.Struct, frozen=True):
    """One descriptor, in the frame's order. `tcp`: any address, one port. `proxy`: an HTTP proxy. `dns`: UDP 53.
    `watch`: a packet socket that sees what the namespace's kernel refused (`door/watch.py`)."""

    kind: Kind
    port: int = 0
    family: Literal[4, 6] = 4


class Hello(msgspec.Struct, frozen=True, tag=True):
    project: str
    key: str


class Welcome(msgspec.Struct, frozen=True, tag=True):
    pass


class Open(msgspec.Struct, frozen=True, tag=True):
    """`door`: a number of the engine's own. `name`: the connection it is for, as refusals show it. `scope`: rules within the
    project's allowlist, None: all of it. `packages`: the way to package registries instead of the project's.
    `token`: what a `proxy` listener that others could reach asks for (the password of Proxy-Authorization).
    `names`: address → name, as an earlier gate gave them (`Named`): what is behind the door may go on using them."""

    door: int
    name: str
    listeners: list[Listener]
    scope: list[str] | None = None
    packages: bool = False
    token: str | None = None
    names: dict[str, str] = {}


class Listen(msgspec.Struct, frozen=True, tag=True):
    door: int
    listeners: list[Listener]


class Close(msgspec.Struct, frozen=True, tag=True):
    door: int


class Ask(msgspec.Struct, frozen=True, tag=True):
    """`name`: for whom within the door; "" for the door's own name. `host`: canonical."""

    n: int
    door: int
    host: str
    port: int
    name: str = ""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """`port` 0: refused by name, before a port was known. `message`: as `egress.policy.Decision`'s, or "". `count`: how often."""

    door: int
    name: str
    host: str
    port: int
    reason: str
    message: str
    count: int = 1


class Named(msgspec.Struct, frozen=True, tag=True):
    door: int
    address: str
    host: str


class Answer(msgspec.Struct, frozen=True, tag=True):
    """One of the three. `failed`: the name leads nowhere, in words."""

    n: int
    address: str | None = None
    refusal: Refusal | None = None
    failed: str | None = None


class Serve(msgspec.Struct, frozen=True, tag=True):
    """`key`: that of the engine's spawn. `packages`: the policy of its doors for packages."""

    n: int
    project: str
    key: str
    policy: EgressPolicy
    packages: EgressPolicy = EgressPolicy()
    rate: int = 0  # bytes a second of one door, each way; 0: no limit


class Forget(msgspec.Struct, frozen=True, tag=True):
    n: int
    project: str


class Count(msgspec.Struct, frozen=True, tag=True):
    n: int


class Done(msgspec.Struct, frozen=True, tag=True):
    n: int


class Counts(msgspec.Struct, frozen=True):
    """Of the gate's life, but for `doors` and `open`, which are now. `up`, `down`: bytes from and to what is behind doors."""

    doors: int = 0
    open: int = 0
    connections: int = 0
    refused: int = 0
    names: int = 0
    up: int = 0
    down: int = 0


class Counted(msgspec.Struct, frozen=True, tag=True):
    n: int
    projects: dict[str, Counts]


FromEngine = Hello | Open | Listen | Close | Ask
ToEngine = Welcome | Refusal | Named | Answer
FromProvisioner = Serve | Forget | Count
ToProvisioner = Done | Counted
