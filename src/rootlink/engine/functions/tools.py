"""`ctx.tools` of one run: the tools of its workspace, as far as its function may call them, counted and limited.

The port is `Tools`; the engine's answer to it is engine/toolcalls.py.

Rules
- A tool that a function calls may be another function, which calls tools itself. All runs that one call leads to are one tree:
  they share one budget of calls, and stand at most four above one another.
- What a function may call: the names and patterns of its spec; without any, all tools of the workspace, but none if it belongs to
  a connection, whose code its user did not write.
- Every refusal is an error of the body's, by name: ToolError (the tool said no, or broke), NotFound, Forbidden, EgressBlocked,
  LimitError.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw

from rootlink.engine.functions import results
from rootlink.engine.functions.room import Room
from rootlink.errors import EgressBlocked, Forbidden, NotFound, RateLimited, RootlinkError, TooLarge

MAX_CALLS: Final = 100  # of a whole tree of runs
MAX_AT_ONCE: Final = 8  # of one run
MAX_RUNS_DEEP: Final = 4
MAX_ARGUMENT_BYTES: Final = 1 << 20
MAX_RESULT_BYTES: Final = 4 << 20
SLOW_BYTES: Final = 16 << 10  # of arguments or a result: more is read one a turn of the event loop
MAX_LISTS: Final = 10  # of one run
MAX_LISTED, MAX_LISTED_BYTES = 500, 1 << 20
_SHOWN = 4000  # characters of what a tool said


class ToolFailed(Exception):
    """The tool was asked, and answered with an error. The message is its words."""


class Budget:
    """What is left of the calls of one tree."""

    def __init__(self) -> None:
        self._left = MAX_CALLS

    def spend(self) -> None:
        """Raises RateLimited."""
        if not self._left:
            raise RateLimited(f"too many tool calls: at most {MAX_CALLS} a run, with those of the functions it calls")
        self._left -= 1


@dataclass(frozen=True, slots=True)
class Within:
    """Whose call it is: the functions that run because of one another, the first of them first."""

    functions: tuple[str, ...]
    budget: Budget = field(default_factory=Budget, compare=False)

    def calling(self, function: str) -> Within:
        return Within((*self.functions, function), self.budget)

    @property
    def caller(self) -> str:
        return self.functions[-1]


class Tools(Protocol):
    """A workspace's tools, by the names that clients know."""

    async def call(self, ws: str, name: str, arguments: dict[str, Any], within: Within) -> Raw:
        """The result as MCP has it, an object. Raises ToolFailed, RootlinkError. Cancelled, it withdraws the call."""
        ...

    def list(self, ws: str) -> list[dict[str, Any]]:
        """Definitions of all that any function could call."""
        ...


class Tool(msgspec.Struct, frozen=True, tag_field="k", tag="tool"):
    """The body calls `name` with the arguments `a`, JSON in a string: what is wrong with it is wrong with this call alone."""

    i: int
    name: str
    a: str


class ToolList(msgspec.Struct, frozen=True, tag_field="k", tag="tools"):
    i: int


class _Block(msgspec.Struct, gc=False):
    text: str = ""


class _Result(msgspec.Struct):
    content: list[_Block] = []
    isError: bool = False


_result = msgspec.json.Decoder(_Result)


class ToolCalls:
    """Of one run. `allowed`: patterns. `count` is of the calls that were made, or refused by the tool's side."""

    def __init__(self, tools: Tools | None, ws: str, allowed: list[str], within: Within, room: Room) -> None:
        self._tools, self._ws, self._allowed, self._within, self._room = tools, ws, allowed, within, room
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._lists = 0
        self.count = 0

    async def answer(self, operation: Tool | ToolList) -> dict[str, Any]:
        """For the body: `v` the result and `t` its text, or `e` and `n`, an error's message and name."""
        try:
            if isinstance(operation, ToolList):
                return {"v": self._list()}
            return await self._call(operation.name, operation.a)
        except ToolFailed as error:
            return {"e": str(error)[:_SHOWN], "n": "ToolError"}
        except RootlinkError as error:
            return {"e": error.message[:_SHOWN], "n": _name(error)}

    async def _call(self, name: str, encoded: str) -> dict[str, Any]:
        self._within.budget.spend()
        self.count += 1
        tools = self._reach(name)
        _check_arguments(encoded)
        async with self._slots:
            if len(encoded) > SLOW_BYTES:
                await self._room.turn()
            result = await tools.call(self._ws, name, _read(encoded), self._within)
        size = len(bytes(result))
        if size > MAX_RESULT_BYTES:
            raise ToolFailed(f"{name[:200]} answered with {size} bytes; at most {MAX_RESULT_BYTES} are taken; ask it for less")
        if size > SLOW_BYTES:
            await self._room.turn()
        text, failed = _said(result)
        if failed:
            raise ToolFailed(text or f"{name[:200]} failed, and gave no reason")
        return {"v": result, "t": text}

    def _reach(self, name: str) -> Tools:
        if self._tools is None:
            raise NotFound("there are no tools to call here")
        if not any(matches(pattern, name) for pattern in self._allowed):
            raise Forbidden(f"this function may not call {name[:200]}: `tools` of its spec does not name it")
        return self._tools

    def _list(self) -> list[dict[str, Any]]:
        self._lists += 1
        if self._lists > MAX_LISTS:
            raise RateLimited(f"too many lists of tools: at most {MAX_LISTS} a run; keep the first")
        found: list[dict[str, Any]] = []
        size = 0
        for tool in [] if self._tools is None else self._tools.list(self._ws):
            if not any(matches(pattern, tool["name"]) for pattern in self._allowed):
                continue
            size += len(msgspec.json.encode(tool))
            if len(found) == MAX_LISTED or size > MAX_LISTED_BYTES:
                break
            found.append(tool)
        return found


def allowed(patterns: list[str] | None, connection: str | None) -> list[str]:
    """What a function may call, by its spec and whose it is."""
    if patterns is None:
        return ["*"] if connection is None else []
    return patterns


def matches(pattern: str, name: str) -> bool:
    """`*` stands for any characters, nothing else for anything but itself. No regular expression: those can be made to last."""
    first, *between = pattern.split("*")
    if not between:
        return name == first
    last = between.pop()
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for part in between:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _check_arguments(text: str) -> None:
    size = len(text.encode())
    if size > MAX_ARGUMENT_BYTES:
        raise TooLarge(f"the arguments are {size} bytes; at most {MAX_ARGUMENT_BYTES} are allowed")


def _read(arguments: str) -> dict[str, Any]:
    try:
        found = results.decode(arguments.encode())
    except results.TooManyParts:
        raise TooLarge(f"the arguments hold more than {results.MAX_PARTS:,} lists, objects and strings") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ToolFailed("the arguments must be a JSON object, not nested too deeply, with text that is valid Unicode")
    return found


def _said(result: Raw) -> tuple[str, bool]:
    """Its blocks of text, joined, and whether it is an error."""
    try:
        said = _result.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", False
    return "\n".join(block.text for block in said.content if block.text), said.isError


def _name(error: RootlinkError) -> str:
    if isinstance(error, EgressBlocked):
        return "EgressBlocked"
    if isinstance(error, RateLimited | TooLarge):
        return "LimitError"
    return type(error).__name__ if isinstance(error, Forbidden | NotFound) else "ToolError"
