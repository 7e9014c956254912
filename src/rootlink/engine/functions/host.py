"""FunctionHost: the Root Functions of one engine, which is to say of one project.

    deploy    check the spec, compile the body in an isolate without running it, write it down, keep it
    rollback  the same with a version that is kept
    invoke    wait for its turn, check the input, hand it to a worker with the secrets it may see, take the outcome, redact, keep

V8 and its processes are started by the first deploy or invoke. A body that throws is a run; only a body that can't be one is an
error here. Secrets leave this process in the frame of a call and in no other way.

A call with a key runs once: its run id stands for the key. Who comes while it runs waits for it with the others; who comes later
gets what is kept of it. The run goes on when its callers leave. Only one that was `killed`, or never began, runs again, under the
same id, so that what it asks of others can be told apart from a second wish.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.cleaning import cleaned, size
from rootlink.engine.functions.compiling import Compiler
from rootlink.engine.functions.definition import Deployed, Function, Held, Version, check
from rootlink.engine.functions.environment import SecretMissing, environment
from rootlink.engine.functions.exchange import Scope
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.judge import Judge
from rootlink.engine.functions.ledger import KEPT_RUNS, KEPT_VERSIONS, Ledger
from rootlink.engine.functions.operations import Deliver, Operations, Outbound
from rootlink.engine.functions.pool import Pool
from rootlink.engine.functions.refusals import Refusals
from rootlink.engine.functions.room import Room
from rootlink.engine.functions.run import Outcome, Run, failed, timestamp
from rootlink.engine.functions.schemas import Schema
from rootlink.engine.functions.tools import ToolCalls, Tools, Within, allowed
from rootlink.engine.functions.turns import Turns
from rootlink.errors import Conflict, Invalid, NotFound, RateLimited, Unavailable
from rootlink.redaction import Redactor
from rootlink.wire.mounts import FunctionSpec

__all__ = ["Deployed", "Function", "FunctionHost", "Run", "Version"]

MAX_INPUT_BYTES: Final = 4 << 20
MAX_IN_FLIGHT: Final = 1000
MAX_FUNCTIONS: Final = 1000
MAX_DEPLOYS: Final = 50  # that wait for each other
MAX_KEY: Final = 200  # characters of an idempotency key
INLINE_CHARS: Final = 32 << 10  # are redacted on the event loop; more go to a thread


Functions: TypeAlias = list[Function]  # inside the class `list` is its method
Runs: TypeAlias = list[Run]
Versions: TypeAlias = list[Version]


class _Joined(NamedTuple):
    """A run with a key that is in flight, and the hash of its input."""

    task: asyncio.Task[Run]
    input: bytes


class FunctionHost:
    """`db` is used on the event loop's thread only; its tables are made here. Call `close` before the loop ends."""

    def __init__(
        self, db: sqlite3.Connection, outbound: Outbound, secrets: Mapping[str, str], *, limits: WorkerLimits | None = None
    ) -> None:
        self._outbound = outbound
        self._ledger = Ledger(db)
        self._pool = Pool(limits or WorkerLimits())
        self._compiler = Compiler(self._pool, self._next_handle)
        self._judge = Judge()
        self._room = Room()
        self.tools: Tools | None = None  # for `ctx.tools`; set by who has them
        self._deploying = asyncio.Lock()
        self._deploys = 0
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._keyed: dict[str, _Joined] = {}
        self._closed = False
        self._handle = 0
        self._held: dict[tuple[str, str], Held] = {}
        self._turns: dict[tuple[str, str], Turns] = {}
        for ws, spec, source, version, connection, deployed_at in self._ledger.functions():
            self._hold(Held(self._next_handle(), ws, spec, source, version, connection, deployed_at))
        self.environment(secrets)

    def _next_handle(self) -> int:
        self._handle += 1
        return self._handle

    def _hold(self, held: Held) -> None:
        key = (held.ws, held.name)
        self._held[key] = held
        if key in self._turns:
            self._turns[key].limit(held.spec.concurrency)
        else:
            self._turns[key] = Turns(held.name, held.spec.concurrency)

    def environment(self, secrets: Mapping[str, str]) -> None:
        """New secrets, from the next call on."""
        self._secrets = dict(secrets)
        self._redactor = Redactor(self._secrets)

    # deploy

    async def deploy(self, ws: str, spec: FunctionSpec, *, connection: str | None = None) -> Deployed:
        """A new function, or the next version of one. Raises Invalid: what is wrong, or where it does not compile; Conflict when
        the project has too many functions, or too large ones; RateLimited."""
        check(spec)
        async with self._deploy_turn():
            if (ws, spec.name) not in self._held and len(self._held) >= MAX_FUNCTIONS:
                raise Conflict(
                    f"this project has {MAX_FUNCTIONS} functions, the most it may have; delete one you no longer need: "
                    "rootlink function delete NAME"
                )
            held = await self._compiler.compile(ws, spec, self._ledger.next_version(ws, spec.name), connection)
            return self._go_live(held)

    async def rollback(self, ws: str, name: str, version: int | None = None) -> Deployed:
        """`version` is live again, under its own number; None: the one that was live before this one. Raises NotFound, Conflict
        when there is nothing to go back to, Invalid when it does not compile any more."""
        async with self._deploy_turn():
            live = self._find(ws, name)
            number = self._ledger.version_before(ws, name, live.version) if version is None else version
            if number is None:
                raise Conflict(f"function {name!r} has had no version but {live.version}, so there is none to go back to")
            if number == live.version:
                raise Conflict(f"version {number} of function {name!r} is live already")
            spec, deployed_at = self._version(ws, name, number)
            check(spec)
            held = await self._compiler.compile(ws, spec, number, live.connection)
            held.deployed_at = deployed_at
            return self._go_live(held)

    @asynccontextmanager
    async def _deploy_turn(self) -> AsyncIterator[None]:
        if self._deploys >= MAX_DEPLOYS:
            raise RateLimited(f"{MAX_DEPLOYS} deploys of this project wait for each other; try again when some are done")
        self._deploys += 1
        try:
            async with self._deploying:
                yield
        finally:
            self._deploys -= 1

    def _go_live(self, held: Held) -> Deployed:
        try:
            self._ledger.put(held)
        except BaseException:
            self._pool.forget(held)
            raise
        replaced = self._held.get((held.ws, held.name))
        self._hold(held)
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

    def versions(self, ws: str, name: str) -> Versions:
        """Newest first. Raises NotFound."""
        return self._ledger.versions(ws, name, self._find(ws, name).version)

    def version(self, ws: str, name: str, version: int) -> Function:
        """One version as it was deployed, with its code. Raises NotFound."""
        live = self._find(ws, name)
        if version == live.version:
            return live.view
        spec, deployed_at = self._version(ws, name, version)
        return Held(0, ws, spec, "", version, live.connection, deployed_at).view

    def _version(self, ws: str, name: str, version: int) -> tuple[FunctionSpec, str]:
        found = self._ledger.version(ws, name, version)
        if found is None:
            raise NotFound(
                f"no version {version} of function {name[:80]!r}; the last {KEPT_VERSIONS} are kept, see: "
                f"rootlink function versions {name[:80]}"
            )
        return found

    async def remove(self, ws: str, name: str) -> bool:
        """With its versions and runs. Runs in flight end as they would. False when there is none."""
        async with self._deploying:
            held = self._held.get((ws, name))
            if held is None:
                return False
            self._ledger.drop(ws, name)
            del self._held[ws, name]
        self._turns.pop((ws, name)).limit(None)  # who waits learns that it is gone
        self._pool.forget(held)
        return True

    def runs(self, ws: str, name: str, limit: int = KEPT_RUNS, status: str | None = None) -> Runs:
        """Newest first, of one status if that is given. An output above 64 KiB is not kept: then `output` is null and
        `output_bytes` is not. Raises NotFound."""
        self._find(ws, name)
        return self._ledger.runs(ws, name, limit, status)

    def run(self, ws: str, name: str, run_id: str) -> Run:
        """Raises NotFound."""
        run = self._ledger.run(ws, name, run_id)
        if run is None:
            raise NotFound(f"no run {run_id[:80]!r} of function {name[:80]!r}; the last {KEPT_RUNS} are kept")
        return run

    async def warm(self) -> None:
        """What a first call would have to wait for, if there is a function to call. Never raises."""
        if self._held:
            await self._pool.warm()

    def prune(self) -> None:
        """Runs that are too old go. At start and once a day. Raises Unavailable."""
        self._ledger.prune(time.time())

    # invoke

    async def refusal(self, ws: str, name: str, input: Any) -> str | None:
        """Why a run with this input would not begin, naming the path; None: it would. Raises NotFound."""
        try:
            await self._encode(self._find(ws, name), input)
        except InputRefused as error:
            return str(error)
        return None

    async def invoke(
        self,
        ws: str,
        name: str,
        input: Any,
        *,
        trigger: str = "api",
        key: str | None = None,
        same: Any = msgspec.UNSET,
        within: Within | None = None,
    ) -> Run:
        """Run it once. `key`: at most once, however often it is called with this key (see above); `same`: what must be equal in
        all of these calls, if that is not the whole input. `within`: the runs that call it.

        Raises NotFound, RateLimited (too many in flight, or at once), Unavailable, Invalid (not a key), Conflict (the key came
        with another input); whatever the body does is in the Run.
        """
        self._find(ws, name)
        if self._closed:
            raise Unavailable("the engine is stopping")
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            raise RateLimited(f"{MAX_IN_FLIGHT} runs are in flight in this project; try again when some have ended")
        if key is not None:
            same = input if same is msgspec.UNSET else same
            return await self._once(ws, name, input, trigger, key, same)
        return await self._counted(self._in_turn(ws, name, input, trigger, "run_" + randomness.token_hex(12), None, within))

    async def _counted(self, run: Awaitable[Run]) -> Run:
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            return await run
        finally:
            self._in_flight.discard(task)

    async def _once(self, ws: str, name: str, input: Any, trigger: str, key: str, same: Any) -> Run:
        if not 0 < len(key) <= MAX_KEY:
            raise Invalid(f"an idempotency key has 1 to {MAX_KEY} characters")
        run_id, digest = self._key_ids(ws, name, key, same)
        joined = self._keyed.get(run_id)
        if joined is None:
            kept = self._ledger.keyed(ws, name, run_id)
            if kept is not None:
                _same_input(name, kept.input, digest)
                if kept.run.status != "killed":
                    return msgspec.structs.replace(kept.run, replayed=True)
            run = self._in_turn(ws, name, input, trigger, run_id, digest)
            task = asyncio.get_running_loop().create_task(run)
            self._in_flight.add(task)  # it counts once, however many wait for it
            self._keyed[run_id] = _Joined(task, digest)
            task.add_done_callback(lambda task: self._over(run_id, task))
            return await asyncio.shield(task)
        _same_input(name, joined.input, digest)
        return msgspec.structs.replace(await asyncio.shield(joined.task), replayed=True)

    def _over(self, run_id: str, task: asyncio.Task[Run]) -> None:
        del self._keyed[run_id]
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # its callers may all have left

    def _key_ids(self, ws: str, name: str, key: str, same: Any) -> tuple[str, bytes]:
        """The run id that stands for a key, and a hash of the input that tells nothing to who does not know the key."""
        import blake3  # no key, no hash

        salt = self._ledger.salt()
        named = msgspec.json.encode([ws, name, key])
        try:
            text = msgspec.json.encode(same, order="sorted")
        except (TypeError, ValueError, RecursionError, OverflowError):
            text = b""  # it will be refused
        run_id = "run_" + blake3.blake3(named, key=salt).hexdigest(12)
        return run_id, blake3.blake3(text, key=blake3.blake3(salt + named).digest()).digest(16)

    async def _in_turn(
        self, ws: str, name: str, input: Any, trigger: str, run_id: str, digest: bytes | None, within: Within | None = None
    ) -> Run:
        turns = self._turns[ws, name]
        await turns.take(self._find(ws, name).timeout)
        try:
            if self._closed:
                raise Unavailable("the engine is stopping")
            held = self._find(ws, name)  # maybe another version by now
            return await self._invoke(held, input, trigger, run_id, digest, within)
        finally:
            turns.give_back()

    async def _invoke(
        self, held: Held, input: Any, trigger: str, run_id: str, digest: bytes | None, within: Within | None
    ) -> Run:
        started, clock, refusals = time.time(), time.perf_counter(), Refusals()
        within = Within((held.name,)) if within is None else within.calling(held.name)
        calls = ToolCalls(self.tools, held.ws, allowed(held.spec.tools, held.connection), within, self._room)
        call = Call(lambda deliver: self._operations(held, deliver, clock, refusals, calls))
        input_bytes, began = 0, False
        outcome = failed("Cancelled", "the caller went away before the run ended", status="killed")
        try:
            text = await self._encode(held, input)
            input_bytes = len(text)
            payload = self._payload(held, run_id, trigger, text)
            began = True
            outcome = await self._pool.run(held, call, payload, held.timeout)
            if outcome.status == "ok" and held.spec.output_schema is not None:
                outcome = await self._judged(held, outcome)
        except InputRefused as error:
            outcome = failed("InputError", str(error))
        except SecretMissing as error:
            outcome = failed("SecretMissing", str(error))
        except Unavailable as error:
            outcome = failed("Unavailable", error.message, status="killed")
            raise
        finally:
            run = await self._keep(
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
                    denied=refusals.denied,
                    tool_calls=calls.count,
                    response=outcome.response,
                ),
                digest if began else None,
            )
        return run

    async def _encode(self, held: Held, input: Any) -> bytes:
        """The input as JSON, once it fits the size and its schema. Raises InputRefused."""
        try:
            text = msgspec.json.encode(input)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise InputRefused(f"input: not JSON ({type(error).__name__})") from None
        if len(text) > MAX_INPUT_BYTES:
            raise InputRefused(f"input: {len(text)} bytes; at most {MAX_INPUT_BYTES} are allowed")
        try:
            complaint = await self._complaint(held.input_schema, input, text)
        except Invalid as error:
            raise InputRefused(f"{error.message}; deploy the function again with another one") from None
        if complaint:
            raise InputRefused(f"input{complaint}")
        return text

    async def _judged(self, held: Held, outcome: Outcome) -> Outcome:
        """`outcome`, unless its output is not what the function promises: clients would throw such an answer away."""
        try:
            complaint = await self._complaint(held.output_schema, outcome.output, msgspec.json.encode(outcome.output))
        except Invalid as error:
            return failed("OutputError", f"{error.message}; deploy the function again with another one")
        return failed("OutputError", f"output{complaint} (output_schema)") if complaint else outcome

    async def _complaint(self, schema: Schema | None, value: Any, encoded: bytes) -> str:
        return "" if schema is None else await self._judge.complaint(schema, value, encoded)

    def _operations(self, held: Held, deliver: Deliver, clock: float, refusals: Refusals, calls: ToolCalls) -> Operations:
        left = held.timeout - (time.perf_counter() - clock)
        deadline = asyncio.get_running_loop().time() + left

        def scope() -> Scope:
            return refusals.watched(self._outbound.scope(held.name, held.spec.egress))

        return Operations(scope, deliver, deadline, calls, self._room)

    def _payload(self, held: Held, run_id: str, trigger: str, input: bytes) -> bytes:
        about = {"runId": run_id, "ws": held.ws, "fnName": held.name, "version": held.version, "trigger": trigger}
        return msgspec.json.encode(
            {
                "input": msgspec.Raw(input),
                "env": environment(held.spec.env, self._secrets),
                "ctx": about,
                "seed": randomness.token_hex(32),
            }
        )

    async def _keep(self, held: Held, run: Run, digest: bytes | None) -> Run:
        """Without the secrets, and written down if the function is still there. `digest`: of a run with a key, its input's."""
        hide = self._redactor
        large = size(run) > INLINE_CHARS
        answer, kept = await asyncio.to_thread(cleaned, run, hide) if large else cleaned(run, hide)
        if (held.ws, held.name) in self._held:
            self._ledger.add(held.ws, kept, digest)
        return answer

    async def close(self) -> None:
        """End every run (`killed`) and every process, and write down what is unwritten."""
        self._closed = True
        for turns in self._turns.values():
            turns.limit(None)
        await self._pool.close()
        await self._judge.close()
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        self._ledger.flush()


class InputRefused(Exception):
    """The message names the path and the rule."""


def _same_input(name: str, kept: bytes, given: bytes) -> None:
    """Raises Conflict."""
    if kept != given:
        raise Conflict(
            f"this idempotency key was used for function {name!r} with another input; use a key of its own for each input"
        )
