"""How a link is greeted: which of the two eras its server speaks, and who it says it is.

    HTTP     server/discover, then initialize: an answer's status tells what was not understood
    stdio    at a first start nobody knows, and a pipe tells nothing, so:
             server/discover ──result──► stateless era
                             ──error───► initialize, to the same process
                             ──nothing─► after a moment initialize is sent behind it; what is answered decides
                             ──its end─► started anew for initialize alone (servers on Rust's SDK end at what they don't know)
             What was found out is believed at later starts: they begin with the right one, and wait for nothing.

Only an answer that says "neither" fails. A server that supports no version of ours is refused with words.

Traps
- A server of both eras may be bound to one by what it hears first, or by any initialize (the SDKs differ): one that took an
  initialize, and says behind time that it knows the stateless era, is started anew for that era.
- server/discover is never cancelled on a pipe: to a server that does not know it the notice is one more thing it does not know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from rootlink.engine import rpc
from rootlink.engine.mounts.era import (
    CAPABILITIES,
    CLIENT,
    META,
    SESSION_VERSIONS,
    STATELESS_VERSIONS,
    Refused,
    Session,
    Stateless,
    declared,
)
from rootlink.engine.mounts.link import Ended, Link
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed

_NO_ERA = (401, 403, 407, 429)  # says nothing about the era
MAX_GREETING = 256 << 10  # bytes of JSON of a server's info and capabilities: what it declares is in each handshake of ours
PROBE_SECONDS = 5.0  # a session-era server may stay silent to a method it does not know
SILENCE = 0.5  # seconds after the start of a child until it is greeted in the other way too


@dataclass(frozen=True, slots=True)
class Server:
    """Who answered. `info` and `capabilities` are as it sent them."""

    version: str
    info: dict[str, Any]
    capabilities: dict[str, Any]
    instructions: str | None


class Anew(Exception):
    """This link is lost to the question; one opened anew, and greeted in that era alone, may be answered."""

    def __init__(self, error: UpstreamFailed, *, stateless: bool) -> None:
        super().__init__(error.message)
        self.error, self.stateless = error, stateless


async def shake_hands(link: Link, name: str, known: bool | None = None) -> Server:
    """Settle the era of `link` and greet. `known`: whether it was the stateless one the last time. The deadline is the caller's.

    Raises UpstreamFailed, EgressBlocked; where `known` is not False, also Anew.
    """
    if link.modern_first is None and known is not False:
        return await _either(link, name, None if known else SILENCE)
    try:
        return await (_discover if link.modern_first else initialize)(link, name)
    except (RpcError, Refused) as error:
        if isinstance(error, Refused) and error.http in _NO_ERA:
            raise
        first = error
    try:
        return await (initialize if link.modern_first else _discover)(link, name)
    except (RpcError, Refused) as error:
        told = error if link.modern_first else first  # what the likelier era said is what a person can use
        if isinstance(told, Refused):
            raise told from None
        raise _neither(name, told) from None


async def _either(link: Link, name: str, patience: float | None) -> Server:
    """Both ways on one link, the second when the first was refused, or not answered for `patience` seconds."""
    link.era = Stateless()
    discovering = asyncio.create_task(_discovered(link))
    greeting: asyncio.Task[Server] | None = None
    try:
        await asyncio.wait({discovering}, timeout=patience)
        if not discovering.done():
            greeting = asyncio.create_task(initialize(link, name))
            await asyncio.wait({discovering, greeting}, return_when=asyncio.FIRST_COMPLETED)
            if _refused(greeting):
                await asyncio.wait({discovering})
        if _succeeded(discovering):
            if greeting is not None:
                await asyncio.wait({greeting}, timeout=SILENCE)
                if _succeeded(greeting):
                    raise Anew(UpstreamFailed(f"{name} speaks two eras and keeps to neither"), stateless=True)
            link.era = Stateless()
            return discovering.result()
        try:
            return await (greeting or initialize(link, name))
        except RpcError as error:
            raise _neither(name, error) from None
        except Ended as error:
            raise Anew(error, stateless=False) from None
    finally:
        tasks = [task for task in (discovering, greeting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _succeeded(task: asyncio.Task[Server]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _refused(task: asyncio.Task[Server]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), RpcError)


def _neither(name: str, error: Exception) -> UpstreamFailed:
    return UpstreamFailed(f"{name} refused the MCP handshake: {str(error)[:300]}")


async def initialize(link: Link, name: str) -> Server:
    """The session era's greeting, also used to renew a session the server forgot. It speaks as the link's owner, or as nobody."""
    link.era = Session()
    owner = link.owner
    capabilities = CAPABILITIES if owner is None else declared(owner, stateless=False)
    asked = {
        "protocolVersion": SESSION_VERSIONS[0],
        "capabilities": capabilities,
        "clientInfo": (owner.info if owner is not None else None) or CLIENT,
    }
    greeted = rpc.value(await link.request("initialize", asked))
    version = greeted.get("protocolVersion")
    if version not in SESSION_VERSIONS:
        spoken = ", ".join((*STATELESS_VERSIONS, *SESSION_VERSIONS))
        raise UpstreamFailed(f"{name} speaks MCP {str(version)[:40]!r}; spoken here: {spoken}")
    link.era = Session(version)
    await link.notify("notifications/initialized")
    return _server(version, greeted.get("serverInfo"), greeted)


async def _discover(link: Link, name: str) -> Server:
    link.era = Stateless()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await _discovered(link)
    except TimeoutError:
        raise RpcError(rpc.METHOD_NOT_FOUND, "server/discover was not answered") from None


async def _discovered(link: Link) -> Server:
    try:
        answer = await link.request("server/discover", {})
    except RpcError as error:
        if error.code != rpc.UNSUPPORTED_VERSION or not _spoken(error.data):
            raise
        answer = await link.request("server/discover", {})  # it names the version it was asked in: it may mean it now
    found = rpc.value(answer)
    supported = found.get("supportedVersions")
    if not isinstance(supported, list) or STATELESS_VERSIONS[0] not in supported:
        raise RpcError(rpc.UNSUPPORTED_VERSION, "the server offers no stateless version spoken here")
    meta = found.get("_meta")
    info = found.get("serverInfo") or (meta.get(f"{META}serverInfo") if isinstance(meta, dict) else None)
    return _server(STATELESS_VERSIONS[0], info, found)


def _spoken(data: Any) -> bool:
    """Whether a refusal of a version names the one we speak."""
    supported = data.get("supported") if isinstance(data, dict) else None
    return isinstance(supported, list) and STATELESS_VERSIONS[0] in supported


def _server(version: str, info: Any, greeted: dict[str, Any]) -> Server:
    capabilities, instructions = greeted.get("capabilities"), greeted.get("instructions")
    if len(msgspec.json.encode((info, capabilities))) > MAX_GREETING:
        raise UpstreamFailed(f"the server says more than {MAX_GREETING} bytes of its name and capabilities")
    return Server(
        version,
        info if isinstance(info, dict) else {},
        capabilities if isinstance(capabilities, dict) else {},
        instructions if isinstance(instructions, str) else None,
    )
