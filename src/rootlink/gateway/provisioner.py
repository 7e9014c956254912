"""The gateway's side of `wire/provisioner.py`: one method for each request, over the provisioner's unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from rootlink.errors import Internal, Unavailable, UpstreamFailed, from_code
from rootlink.gateway.link import Broken, Link, LinkError, Links, Untaken, request
from rootlink.wire.checks import Verdict
from rootlink.wire.engine import InstallEvent, SignedIn
from rootlink.wire.gate import Counts
from rootlink.wire.mounts import Desired
from rootlink.wire.provisioner import EngineAddress, EngineView
from rootlink.wire.tools import ToolView

MOST = 8 * 1024 * 1024  # bytes of an answer; more is no answer of the provisioner's
TRIES = 3

_AWAY = "The provisioner does not answer; is it running? (rootlink status)."
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class _Envelope(msgspec.Struct):
    ok: bool
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, str] | None = None


class _Link(msgspec.Struct):
    link: str


class _SignedIn(msgspec.Struct):
    connection: str


class ProvisionerAway(Unavailable):
    """The provisioner does not answer (any more), or not in time. What it did is not known."""


class NeverTaken(Unavailable):
    """The provisioner did not get the request: whatever it was for has not begun."""


class ProvisionerClient:
    """Every method raises `ProvisionerAway`, or `NeverTaken` when it surely did nothing (both are `Unavailable`), and whatever
    error the provisioner answers with."""

    def __init__(self, socket: str) -> None:
        self._links = Links(socket)

    async def ensure(self, project: str, within: float) -> EngineAddress:
        return await self._ask(b"POST", f"/engines/{project}/ensure", EngineAddress, within)

    async def view(self, project: str) -> EngineView:
        return await self._ask(b"GET", f"/engines/{project}", EngineView, 10.0)

    async def stop(self, project: str) -> EngineView:
        return await self._ask(b"POST", f"/engines/{project}/stop", EngineView, 30.0)

    async def restart(self, project: str, within: float) -> EngineView:
        return await self._ask(b"POST", f"/engines/{project}/restart", EngineView, within)

    async def logs(self, project: str) -> dict[str, list[str]]:
        return await self._ask(b"GET", f"/engines/{project}/logs", dict[str, list[str]], 10.0)

    async def delete(self, project: str) -> None:
        await self._ask(b"DELETE", f"/engines/{project}", msgspec.Raw, 60.0)

    async def refresh(self, project: str) -> None:
        await self._ask(b"POST", f"/projects/{project}/refresh", msgspec.Raw, 120.0)

    async def pull_decisions(self, project: str) -> None:
        await self._ask(b"POST", f"/projects/{project}/decisions", msgspec.Raw, 5.0)

    async def remove(self, connection: str, within: float) -> None:
        await self._ask(b"POST", f"/connections/{connection}/remove", msgspec.Raw, within)

    async def traffic(self, within: float) -> Counts:
        """Of the gate, all projects together."""
        return await self._ask(b"GET", "/gate", Counts, within)

    async def health(self) -> None:
        await self._ask(b"GET", "/healthz", msgspec.Raw, 3.0)

    async def tools(self, connection: str, within: float) -> list[ToolView]:
        return await self._ask(b"GET", f"/connections/{connection}/tools", list[ToolView], within)

    async def check(self, connection: str, within: float) -> Verdict:
        return await self._ask(b"POST", f"/connections/{connection}/check", Verdict, within)

    async def sign_in(self, connection: str, within: float) -> str:
        """The link a person opens."""
        return (await self._ask(b"POST", f"/connections/{connection}/sign-in", _Link, within)).link

    async def signed_in(self, project: str, back: SignedIn, within: float) -> str:
        """The name of the connection whose sign-in it ended."""
        return (await self._ask(b"POST", f"/projects/{project}/sign-ins", _SignedIn, within, back)).connection

    def reconcile(self, connection: str, within: float) -> AsyncIterator[InstallEvent]:
        """The events of an install as they come; the last one is `done` or `failed`. `within`: while nobody is waited for; each
        step with a link (a person must open it) begins the time anew."""
        return self._story(f"/connections/{connection}/reconcile", within)

    def update(self, connection: str, within: float) -> AsyncIterator[InstallEvent]:
        """As `reconcile`, of a row that was changed; after `failed` it is as it was before."""
        return self._story(f"/connections/{connection}/update", within)

    def trial(self, connection: str, desired: Desired, within: float) -> AsyncIterator[InstallEvent]:
        """As `reconcile`; the last one is `tried` or `failed`."""
        return self._story(f"/connections/{connection}/trial", within, desired)

    async def _story(self, path: str, within: float, body: Any = None) -> AsyncIterator[InstallEvent]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within) as deadline:
                link = await self._send(b"POST", path, body)
                try:
                    if link.status != 200:
                        _data(await link.body(MOST), msgspec.Raw)
                        raise UpstreamFailed("The provisioner answered what no provisioner answers")
                    async for line in _lines(link):
                        event = _decoded(line, InstallEvent)
                        if event.step is not None and event.step.link:
                            deadline.reschedule(loop.time() + within)
                        yield event
                finally:
                    link.release()
        except TimeoutError:
            raise ProvisionerAway(f"The install did not end within {within:.0f} s.") from None
        except LinkError:
            raise ProvisionerAway(_AWAY) from None

    def close(self) -> None:
        self._links.close()

    async def _ask(self, method: bytes, path: str, kind: type[T], within: float, body: Any = None) -> T:
        try:
            async with asyncio.timeout(within):
                link = await self._send(method, path, body)
                try:
                    answer = await link.body(MOST)
                finally:
                    link.release()
        except TimeoutError:
            raise ProvisionerAway(f"The provisioner did not answer within {within:.0f} s.") from None
        except LinkError:
            raise ProvisionerAway(_AWAY) from None
        return _data(answer, kind)

    async def _send(self, method: bytes, path: str, body: Any = None) -> Link:
        """A link whose answer has begun. What was surely not taken is sent again, a few times."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = request(method, path.encode(), [(b"host", b"provisioner")], len(content))
        for _ in range(TRIES):
            try:
                link = await self._links.take()
            except Untaken:
                break  # nobody listens: that does not change within microseconds
            try:
                await link.ask(head, content)
                return link
            except Untaken:
                link.release()
            except BaseException:
                link.release()
                raise
        raise NeverTaken(_AWAY)


async def _lines(link: Link) -> AsyncIterator[bytes]:
    rest = b""
    while part := await link.chunk():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MOST:
            raise Broken("a line without an end")
        for line in lines:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def _data(body: bytes, kind: type[T]) -> T:
    answer = _decoded(body, _Envelope)
    if not answer.ok:
        error = answer.error or {}
        raise from_code(error.get("code", Internal.code), error.get("message", "Internal error"))
    return _decoded(answer.data, kind)


def _decoded(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except _UNREADABLE:
        raise UpstreamFailed("The provisioner answered what no provisioner answers") from None
