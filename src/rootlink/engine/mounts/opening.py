"""A link opened and greeted within one deadline, or closed again and the reason told in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rootlink.engine.mounts.failures import Start
from rootlink.engine.mounts.link import MAY_BE_REPEATED, Link, unheard, unminded, unminding
from rootlink.engine.rpc import RpcError
from rootlink.errors import RootlinkError, UpstreamFailed

T = TypeVar("T")


async def opened(
    link: Link, name: str, seconds: float, limit: float, greet: Callable[[], Awaitable[T]], start: Start | None = None
) -> T:
    """What `greet` answers. `seconds` are left of `limit`; `start` says what it was asked last. Raises RootlinkError, with
    nothing left of the link."""
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(seconds) as deadline:
            await link.open()
            return await greet()
    except BaseException as error:
        said = link.last_words()
        link.on_closed, link.on_notification, link.on_gap = unminded, unheard, unminding
        await link.close()
        asked = start.asked if start is not None else ""
        if isinstance(error, TimeoutError) and deadline.expired():
            hung = f"; it started, but did not answer {asked}" if asked else ""
            error = UpstreamFailed(f"{name} was not ready within {limit:g} s{hung}{f': {said}' if said else ''}")
        if isinstance(error, RpcError):
            which = f"{name} started, but answered {asked}" if asked else f"{name} answered"
            error = UpstreamFailed(f"{which} with an error: {error.message[:500]}")
        if isinstance(error, UpstreamFailed):
            error.data = None if error.data is MAY_BE_REPEATED else error.data  # which is said of calls
            raise explained(link, error, began) from None
        raise


def explained(link: Link, error: RootlinkError, began: float) -> RootlinkError:
    """`error`, with what the link was refused since `began`."""
    return error if link.refusals is None else link.refusals.explained(error, began)
