"""Why a door was not made, in words a person can act on."""

from __future__ import annotations


class Refused(Exception):
    """`code`: invalid, forbidden, upstream_failed or unavailable, as in `rootlink.errors`. Without values of the environment."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
