"""What one check found, and the words for one that could not be made."""

from __future__ import annotations

from typing import NamedTuple

from rootlink.errors import EgressBlocked, RootlinkError, Unavailable, UpstreamFailed


class Found(NamedTuple):
    label: str | None = None
    note: str | None = None


def unasked(error: RootlinkError) -> RootlinkError:
    """`error`, as why the service could not be asked: it says nothing of the key."""
    if isinstance(error, EgressBlocked | Unavailable | UpstreamFailed):
        return type(error)(f"Not checked, so not known to work: {error.message}", data=error.data)
    return error
