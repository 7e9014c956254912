"""From a spec to a function that can run: which of a source's readings V8 takes, and whether it evaluates to a function.

    module        if a statement of it may begin with `export`: its exports are taken out, one place of V8's after the other
    expression    with less and less of what may trail it in a file
    script        statements whose last one is the function
    TypeScript    if none of these compiles, or the spec says so: the same once more, without the types

Nothing of it runs but the body itself, once, without being called, with nothing it could ask for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.hints import instead
from rootlink.engine.functions.isolates import wrapping
from rootlink.engine.functions.modules import UNEXPECTED, Module, NotTaken, may_be_one, without_dynamic_imports, without_exports
from rootlink.engine.functions.pool import Pool
from rootlink.engine.functions.run import Outcome, timestamp
from rootlink.engine.functions.source import EXPORTED, HINT, NO_IMPORT, Complaint, check_size, complaint, offset, plain, readings
from rootlink.engine.functions.typescript import Refused, TypeScript, looks_like_it
from rootlink.errors import Invalid
from rootlink.wire.mounts import FunctionSpec

PROBE_SECS: Final = 0.5
MAX_STOPS: Final = 16
"""Exports that V8 has to be asked for one by one; those at the beginning of a line are mostly found without."""
HANDLER: Final = (
    f"a function stands by itself, not in an object; {EXPORTED}; from its webhook, input is {{method, headers, query, body}}"
)
_WORKERS: Final = re.compile(r"export\s+default\s*\{\s*(?:async\s+)?fetch\b")


class Compiler:
    """`handle` gives a number for each attempt."""

    def __init__(self, pool: Pool, handle: Callable[[], int]) -> None:
        self._pool, self._handle = pool, handle
        self._typescript = TypeScript()

    async def compile(self, ws: str, spec: FunctionSpec, version: int, connection: str | None) -> Held:
        """Its spec says so if TypeScript was found. Raises Invalid: where it does not compile, or that it is no function. Raises
        Unavailable."""
        check_size(spec.code)
        attempt = _Attempt(self._pool, self._handle, ws, spec, version, connection)
        code, wrong = plain(spec.code), Complaint("")
        if spec.language != "typescript":
            try:
                return await attempt.javascript(code)
            except NotTaken as error:
                wrong = error.complaint
                if spec.language == "javascript":
                    raise wrong.refusal(code) from None
        attempt.spec = msgspec.structs.replace(spec, language="typescript")
        try:
            stripped = await self._typescript.strip(code)
            if stripped == code and wrong.message:
                raise wrong.refusal(code)
            return await attempt.javascript(stripped)
        except (NotTaken, Refused) as error:
            meant = spec.language == "typescript" or looks_like_it(code)
            raise (error.complaint if meant else wrong).refusal(code) from None


class _Attempt:
    """The readings of one source."""

    def __init__(
        self, pool: Pool, handle: Callable[[], int], ws: str, spec: FunctionSpec, version: int, connection: str | None
    ) -> None:
        self._pool, self._handle = pool, handle
        self._ws, self.spec, self._version, self._connection = ws, spec, version, connection
        self._now = timestamp(time.time())

    async def javascript(self, code: str) -> Held:
        """Raises NotTaken with what was wrong with the reading that got furthest, Invalid if it compiles and is no function."""
        if may_be_one(code):
            module = await self._module(code)
            if module is not None:
                return module
        found: list[Complaint] = []
        for source in readings(code):
            held, wrong = await self._check(source)
            if wrong is None:
                await self._refuse_dynamic_import(source)
                await self._probe(held, HINT)
                return held
            found = found or [wrong]
        source = wrapping.as_script(code, self._held("").file)
        held, wrong = await self._check(source)
        if wrong is not None:
            raise NotTaken(max(wrong, *found, key=lambda complaint: complaint.place))
        await self._refuse_dynamic_import(source)
        outcome = await self._evaluated(held)
        if outcome.output != "function":
            self._pool.forget(held)
            last = f"a value of type {outcome.output}" if outcome.status == "ok" else "nothing"
            raise NotTaken(
                Complaint(f"it is not one expression, and its last statement gives {last}, not a function", hint=EXPORTED)
            )
        return held

    async def _module(self, code: str) -> Held | None:
        """None: it has no exports. Raises NotTaken."""
        module = without_exports(Module(code), 0)
        for _ in range(MAX_STOPS):
            held, wrong = await self._check(module.source)
            if wrong is None or UNEXPECTED not in wrong.message or wrong.line is None:
                break
            module = without_exports(module, offset(module.statements, wrong.line, wrong.column))
        if wrong is not None:
            if module.found or wrong.hint == NO_IMPORT:
                raise NotTaken(replace(wrong, hint=EXPORTED) if wrong.hint == HINT else wrong)
            return None
        if not module.found or module.exported is None:
            self._pool.forget(held)
            if module.found:
                raise NotTaken(Complaint("it is a module without a default export", hint=EXPORTED))
            return None
        await self._refuse_dynamic_import(module.source)
        await self._probe(held, EXPORTED)
        return held

    def _held(self, source: str) -> Held:
        return Held(self._handle(), self._ws, self.spec, source, self._version, self._connection, self._now)

    async def _check(self, source: str) -> tuple[Held, Complaint | None]:
        """Held by a worker if there is no complaint."""
        held = self._held(source)
        words = await self._pool.check(held)
        return held, complaint(words) if words else None

    async def _refuse_dynamic_import(self, source: str) -> None:
        """`source` compiles. Raises NotTaken if `import(…)` is in it as code."""
        changed = without_dynamic_imports(source)
        if changed is None:
            return
        held, wrong = await self._check(changed)
        self._pool.forget(held)
        if wrong is not None and UNEXPECTED in wrong.message:
            raise NotTaken(Complaint("it imports another file", wrong.line, wrong.column, NO_IMPORT))

    async def _probe(self, held: Held, hint: str) -> None:
        """Refuse a body that is plainly no function. One that can't be told in time, or throws, is judged when it runs."""
        outcome = await self._evaluated(held)
        if outcome.status == "ok" and outcome.output != "function":
            self._pool.forget(held)
            what = "exports" if hint == EXPORTED else "evaluates to"
            raise Invalid(
                f"the code {what} a value of type {outcome.output}, not {'' if what == 'exports' else 'to '}a function; "
                f"{HANDLER if _WORKERS.search(held.spec.code) else hint}"
            )

    async def _evaluated(self, held: Held) -> Outcome:
        """The type of what the body evaluates to. Raises Invalid if it wants something that no function has, in every run."""
        outcome = await self._pool.run(held, Call(), None, PROBE_SECS)
        error = outcome.error or {}
        words = instead(error)
        if words:
            self._pool.forget(held)
            at: dict[str, Any] = {member: error[member] for member in ("line", "column") if member in error}
            where = f" at line {at['line']}, column {at['column']}" if at else ""
            raise Invalid(f"the code can't be evaluated: {error['name']}: {error['message']}{where}; {words}", data=at or None)
        return outcome
