"""FunctionHost: the Root Functions of one engine, which is to say of one project.

    deploy   check the spec, compile the body in an isolate without running it, write it down, keep it
    invoke   check the input, hand it to a worker with the secrets it may see, take the outcome, redact, keep the run

V8 and its processes are started by the first deploy or invoke. A body that throws is a run; only a body that can't be one is an
error here. Secrets leave this process in the frame of a call and in no other way.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
import sqlite3
import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.compiling import Compiler
from rootlink.engine.functions.definition import Deployed, Function, Held, check
from rootlink.engine.functions.environment import SecretMissing, environment
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.ledger import KEPT_RUNS, Ledger
from rootlink.engine.functions.operations import Deliver, Operations, Outbound
from rootlink.engine.functions.pool import Pool
from rootlink.engine.functions.run import LogLine, Run, failed, timestamp
from rootlink.errors import NotFound, RateLimited, Unavailable
from rootlink.redaction import Redactor
from rootlink.wire.mounts import FunctionSpec

__all__ = ["Deployed", "Function", "FunctionHost", "Run"]

MAX_INPUT_BYTES: Final = 4 << 20
MAX_IN_FLIGHT: Final = 1000


Functions: TypeAlias = list[Function]  # inside the class `list` is its method
Runs: TypeAlias = list[Run]


class FunctionHost:
    """`db` is used on the event loop's thread only; its tables are made here. Call `close` before the loop ends."""

    def __init__(
        self, db: sqlite3.Connection, outbound: Outbound, secrets: Mapping[str, str], *, limits: WorkerLimits | None = None
    ) -> None:
        self._outbound = outbound
        self._ledger = Ledger(db)
        self._pool = Pool(limits or WorkerLimits())
        self._compiler = Compiler(self._pool, self._next_handle)
        self._deploying = asyncio.Lock()
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._handle = 0
        self._held: dict[tuple[str, str], Held] = {}
        for ws, spec, source, version, connection, deployed_at in self._ledger.functions():
            self._held[ws, spec.name] = Held(self._next_handle(), ws, spec, source, version, connection, deployed_at)
        self.environment(secrets)

    def _next_handle(self) -> int:
        self._handle += 1
        return self._handle

    def environment(self, secrets: Mapping[str, str]) -> None:
        """New secrets, from the next call on."""
        self._secrets = dict(secrets)
        self._redactor = Redactor(self._secrets)

    # deploy

    async def deploy(self, ws: str, spec: FunctionSpec, *, connection: str | None = None) -> Deployed:
        """A new function, or the next version of one. Raises Invalid: what is wrong, or where it does not compile."""
        check(spec)
        async with self._deploying:
            held = await self._compiler.compile(ws, spec, self._ledger.next_version(ws, spec.name), connection)
            self._ledger.put(held)
            replaced = self._held.get((ws, spec.name))
            self._held[ws, spec.name] = held
        if replaced is not None:
            self._pool.forget(replaced)
        return held.deployed

    # what is there

    def get(self, ws: str, name: str) -> Function:
        """Raises NotFound."""
        return self._find(ws, name).view

    def tool(self, ws: str, name: str) -> dict[str, Any]:
        """The MCP tool definition. Raises NotFound."""
        return self._find(ws, name).tool

    def list(self, ws: str) -> Functions:
        return [held.view for held in self._held.values() if held.ws == ws]

    def all(self) -> Functions:
        return [held.view for held in self._held.values()]

    def _find(self, ws: str, name: str) -> Held:
        held = self._held.get((ws, name))
        if held is None:
            raise NotFound(f"no function {name[:80]!r} in workspace {ws[:80]!r}; see: rootlink function list")
        return held

    async def remove(self, ws: str, name: str) -> bool:
        """With its versions and runs. Runs in flight end as they would. False when there is none."""
        async with self._deploying:
            held = self._held.get((ws, name))
            if held is None:
                return False
            self._ledger.drop(ws, name)
            del self._held[ws, name]
        self._pool.forget(held)
        return True

    def runs(self, ws: str, name: str, limit: int = KEPT_RUNS) -> Runs:
        """Newest first. An output above 64 KiB is not kept: then `output` is null and `output_bytes` is not. Raises NotFound."""
        self._find(ws, name)
        return self._ledger.runs(ws, name, limit)

    def run(self, ws: str, name: str, run_id: str) -> Run:
        """Raises NotFound."""
        run = self._ledger.run(ws, name, run_id)
        if run is None:
            raise NotFound(f"no run {run_id[:80]!r} of function {name[:80]!r}; the last {KEPT_RUNS} are kept")
        return run

    # invoke

    async def invoke(self, ws: str, name: str, input: Any, *, trigger: str = "api") -> Run:
        """Run it once. Raises NotFound, RateLimited (too many in flight), Unavailable; whatever the body does is in the Run."""
        held = self._find(ws, name)
        if self._closed:
            raise Unavailable("the engine is stopping")
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            raise RateLimited(f"{MAX_IN_FLIGHT} runs are in flight in this project; try again when some have ended")
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            return await self._invoke(held, input, trigger)
        finally:
            self._in_flight.discard(task)

    async def _invoke(self, held: Held, input: Any, trigger: str) -> Run:
        run_id, started, clock = "run_" + randomness.token_hex(12), time.time(), time.perf_counter()
        call = Call(lambda deliver: self._operations(held, deliver, clock))
        input_bytes = 0
        outcome = failed("Cancelled", "the caller went away before the run ended", status="killed")
        try:
            text = _encode(held, input)
            input_bytes = len(text)
            outcome = await self._pool.run(held, call, self._payload(held, run_id, text), held.timeout)
        except InputRefused as error:
            outcome = failed("InputError", str(error))
        except SecretMissing as error:
            outcome = failed("SecretMissing", str(error))
        finally:
            run = self._keep(
                held,
                Run(
                    run_id=run_id,
                    function=held.name,
                    version=held.version,
                    status=outcome.status,
                    output=outcome.output,
                    error=outcome.error,
                    logs=call.logs,
                    duration_ms=round((time.perf_counter() - clock) * 1000, 3),
                    started_at=timestamp(started),
                    trigger=trigger,
                    input_bytes=input_bytes,
                    output_bytes=outcome.output_bytes,
                    cpu_ms=call.cpu_ms,
                ),
            )
        return run

    def _operations(self, held: Held, deliver: Deliver, clock: float) -> Operations:
        left = held.timeout - (time.perf_counter() - clock)
        deadline = asyncio.get_running_loop().time() + left
        return Operations(lambda: self._outbound.scope(held.name, held.spec.egress), deliver, deadline)

    def _payload(self, held: Held, run_id: str, input: bytes) -> bytes:
        return msgspec.json.encode(
            {
                "input": msgspec.Raw(input),
                "env": environment(held.spec.env, self._secrets),
                "ctx": {"runId": run_id, "ws": held.ws, "fnName": held.name, "version": held.version},
                "seed": randomness.token_hex(32),
            }
        )

    def _keep(self, held: Held, run: Run) -> Run:
        """Without the secrets, and written down if the function is still there."""
        hide = self._redactor
        error = None if run.error is None else {key: hide(value) for key, value in run.error.items()}
        logs = [LogLine(line.level, hide(line.text), line.time) for line in run.logs]
        run = msgspec.structs.replace(run, error=error, logs=logs)
        if (held.ws, held.name) in self._held:
            self._ledger.add(held.ws, self._at_rest(run))
        return run

    def _at_rest(self, run: Run) -> Run:
        """The caller gets the output as it is; what is written down holds no secret.

        A number may be spelt like a secret; with its mark the text is no JSON any more, and the output is not kept.
        """
        said = msgspec.json.encode(run.output).decode()
        hidden = self._redactor(said)
        if hidden == said:
            return run
        try:
            output = msgspec.json.decode(hidden)
        except msgspec.DecodeError:
            output = None
        return msgspec.structs.replace(run, output=output)

    async def close(self) -> None:
        """End every run (`killed`) and every process, and write down what is unwritten."""
        self._closed = True
        await self._pool.close()
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        self._ledger.flush()


class InputRefused(Exception):
    """The message names the path and the rule."""


def _encode(held: Held, input: Any) -> bytes:
    """The input as JSON, once it fits its schema and the size. Raises InputRefused."""
    refusal = held.refusal(input)
    if refusal is not None:
        raise InputRefused(refusal)
    try:
        text = msgspec.json.encode(input)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InputRefused(f"input: not JSON ({type(error).__name__})") from None
    if len(text) > MAX_INPUT_BYTES:
        raise InputRefused(f"input: {len(text)} bytes; at most {MAX_INPUT_BYTES} are allowed")
    return text
