"""Bytes to a gateway and back, for requests that no client library would send."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import msgspec

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def exchange(port: int, sent: bytes, *, within: float = 3.0) -> list[tuple[int, Any]]:
    """Every answer to `sent`, as (status, JSON or bytes). Half-closes nothing: the gateway has to make up its mind."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        answers: list[tuple[int, Any]] = []
        while (answer := await _answer(reader, within if not answers else 0.3)) is not None:
            answers.append(answer)
        return answers
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, within: float) -> tuple[int, Any] | None:
    try:
        async with asyncio.timeout(within):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return None
    status = int(head.split(b" ", 2)[1])
    try:
        return status, msgspec.json.decode(body)
    except msgspec.DecodeError:
        return status, body
