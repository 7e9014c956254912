"""From a spec to a function that can run: which of a source's readings V8 takes, and whether it evaluates to a function.

Nothing of it runs but the body itself, once, without being called, with nothing it could ask for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.pool import Pool
from rootlink.engine.functions.run import timestamp
from rootlink.engine.functions.source import HINT, as_script, as_statements, check_size, complaint, readings
from rootlink.errors import Invalid
from rootlink.wire.mounts import FunctionSpec

PROBE_SECS: Final = 0.5


class Compiler:
    """`handle` gives a number for each attempt."""

    def __init__(self, pool: Pool, handle: Callable[[], int]) -> None:
        self._pool, self._handle = pool, handle

    async def compile(self, ws: str, spec: FunctionSpec, version: int, connection: str | None) -> Held:
        """Raises Invalid: where it does not compile, or that it is no function. Raises Unavailable."""
        check_size(spec.code)
        now = timestamp(time.time())
        first = ""
        for source in readings(spec.code):
            held = Held(self._handle(), ws, spec, source, version, connection, now)
            words = await self._pool.check(held)
            if not words:
                await self._probe(held)
                return held
            first = first or complaint(words, source.count("\n") + 1)
        return await self._script(ws, spec, version, connection, now, first)

    async def _script(self, ws: str, spec: FunctionSpec, version: int, connection: str | None, now: str, first: str) -> Held:
        """The body as statements whose last one is the function. Raises Invalid with `first`, what else was wrong."""
        statements = Held(self._handle(), ws, spec, as_statements(spec.code), version, connection, now)
        wrong = await self._pool.check(statements)
        self._pool.forget(statements)
        if wrong:
            raise Invalid(first)
        held = Held(self._handle(), ws, spec, as_script(spec.code, spec.name), version, connection, now)
        outcome = await self._pool.run(held, Call(), None, PROBE_SECS)
        if outcome.status != "ok" or outcome.output != "function":
            self._pool.forget(held)
            raise Invalid(first)
        return held

    async def _probe(self, held: Held) -> None:
        """Refuse a body that is plainly no function. One that can't be told in time, or throws, is judged when it runs."""
        outcome = await self._pool.run(held, Call(), None, PROBE_SECS)
        if outcome.status == "ok" and outcome.output not in ("function", "thrown"):
            self._pool.forget(held)
            raise Invalid(f"the code evaluates to a value of type {outcome.output}, not to a function; {HINT}")
