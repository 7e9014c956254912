"""Whether values fit schemas: what is light is judged here at once, the rest in a process, one at a time and not for ever.

The process is started when it is first needed, and ended when nobody has needed it for a while, when a value takes too long, and
by `close`. What becomes of it becomes of no one else.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from rootlink.engine.functions.judge_program import ANSWERED, ASKED
from rootlink.engine.functions.schemas import Schema

JUDGE_SECS: Final = 2.0
START_SECS: Final = 10.0
TURN_SECS: Final = 10.0
IDLE_SECS: Final = 30.0
MAX_WORDS: Final = 64 << 10
TOO_LONG: Final = f": whether it fits the schema took longer than {JUDGE_SECS:g} s to find out; send less, or simplify it"
BUSY: Final = ": whether it fits the schema could not be found out: too many others wait for that; try again later"
GAVE_UP: Final = ": whether it fits the schema could not be found out, perhaps for lack of memory"
_PROGRAM: Final = Path(__file__).with_name("judge_program.py")


class Judge:
    """Make one for an engine; it costs nothing until a value is heavy. In seconds: `idle`, how long its process is kept for the
    next value; `turn`, how long a value waits for others."""

    def __init__(self, idle: float = IDLE_SECS, turn: float = TURN_SECS) -> None:
        self._idle_secs, self._turn_secs = idle, turn
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    async def complaint(self, schema: Schema, value: Any, encoded: bytes) -> str:
        """`.path: rule`, empty when the value fits. `encoded` is the value as JSON."""
        if schema.light(len(encoded)):
            return schema.complaint(value)
        try:
            async with asyncio.timeout(self._turn_secs):
                await self._turn.acquire()
        except TimeoutError:
            return BUSY
        try:
            return await self._elsewhere(schema.encoded, encoded)
        finally:
            self._turn.release()

    async def _elsewhere(self, schema: bytes, value: bytes) -> str:
        if self._closed:
            return GAVE_UP
        if self._idle is not None:
            self._idle.cancel()
        try:
            if self._process is None:
                self._process = await _spawn()
                async with asyncio.timeout(START_SECS):
                    await _answer(self._process)
            async with asyncio.timeout(JUDGE_SECS):
                words = await _ask(self._process, schema, value)
        except TimeoutError:
            await self._end()
            return TOO_LONG
        except (OSError, EOFError):
            await self._end()
            return GAVE_UP
        except BaseException:  # cancelled with an answer on its way, which nobody must take for another's
            await self._end()
            raise
        self._idle = asyncio.get_running_loop().call_later(self._idle_secs, self._dismiss)
        return words

    def _dismiss(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()  # it reads the end, and ends

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            await process.wait()

    async def close(self) -> None:
        """Returns when no process is left. Who waits learns nothing."""
        self._closed = True
        if self._process is not None:
            _kill(self._process)
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            await self._end()


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_PROGRAM),
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _ask(process: asyncio.subprocess.Process, schema: bytes, value: bytes) -> str:
    """Raises EOFError and OSError when the process ends."""
    assert process.stdin is not None
    process.stdin.writelines((ASKED.pack(len(schema), len(value)), schema, value))
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    (length,) = ANSWERED.unpack(await process.stdout.readexactly(ANSWERED.size))
    if length > MAX_WORDS:
        raise EOFError
    return (await process.stdout.readexactly(length)).decode()
