"""The tools of a workspace for functions: what `ctx.tools` asks, answered by Dispatch as for any client, but with nobody to ask.

Rules
- A function is no manager: Rootlink's own tools are out of its reach, whoever called it.
- Tool control applies. A tool that is held back or switched off says so; one that a person is asked about is refused, for there
  is no person: REST calls those unasked, since whoever holds a key decides, but a body is a stranger's.
- A function that would have to wait for a run above it to end is refused at once.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from msgspec import Raw

from rootlink.engine.catalogue import FunctionTarget, OwnTarget, Target, View
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.tools import MAX_LISTED, MAX_RUNS_DEEP, ToolFailed, Within
from rootlink.engine.rpc import RpcError
from rootlink.errors import Forbidden, NotFound, RateLimited, RootlinkError, from_code

USE = frozenset({"use"})
_LISTED = ("name", "title", "description", "inputSchema", "outputSchema")


class WorkspaceTools:
    """Implements `functions.tools.Tools`."""

    def __init__(self, dispatch: Dispatch, functions: FunctionHost) -> None:
        self._dispatch, self._functions = dispatch, functions

    async def call(self, ws: str, name: str, arguments: dict[str, Any], within: Within) -> Raw:
        target = _target(self._dispatch.view(ws), ws, name)
        if isinstance(target, FunctionTarget):
            self._check_tree(ws, target.name, within)
        caller = Caller(ws, f"function:{within.caller}", USE, within)
        try:
            return await self._dispatch.handle(caller, "tools/call", {"name": name, "arguments": arguments})
        except RpcError as error:
            cause = error.__cause__
            if isinstance(cause, RootlinkError):
                raise _again(cause, error.message) from None
            raise ToolFailed(error.message) from None

    def list(self, ws: str) -> list[dict[str, Any]]:
        view = self._dispatch.view(ws)
        callable = (tool for tool in view.tools if _refusal(view.targets.get(tool["name"]), tool["name"]) is None)
        return [{key: tool[key] for key in _LISTED if key in tool} for tool in islice(callable, MAX_LISTED)]

    def _check_tree(self, ws: str, function: str, within: Within) -> None:
        path = " → ".join([*within.functions, function])
        if len(within.functions) >= MAX_RUNS_DEEP:
            raise RateLimited(
                f"functions call one another too deeply: {path}; at most {MAX_RUNS_DEEP} may stand above one another"
            )
        limit = self._functions.get(ws, function).concurrency
        if limit is not None and within.functions.count(function) >= limit:
            raise RateLimited(f"{path}: this call would wait for itself, for `concurrency` of {function} is {limit}")


def _target(view: View, ws: str, name: str) -> Target:
    """Raises NotFound, Forbidden."""
    target = view.targets.get(name)
    if target is None and name in view.withheld:
        raise Forbidden(view.withheld[name])
    if target is None:
        raise NotFound(f"no tool {name[:200]!r} in workspace {ws!r}; see: rootlink tools")
    refusal = _refusal(target, name)
    if refusal is not None:
        raise Forbidden(refusal)
    return target


def _refusal(target: Target | None, name: str) -> str | None:
    if isinstance(target, OwnTarget):
        return f"{name} is one of Rootlink's own tools, which functions can't call"
    if target is not None and target.asks:
        return (
            f"{name} asks a person first, and a function can't ask; allow it with: rootlink tools set {name} allow, "
            "which lets every AI client call it unasked too"
        )
    return None


def _again(cause: RootlinkError, message: str) -> RootlinkError:
    """`cause`, in words that secrets were taken out of."""
    return type(cause)(message) if isinstance(cause, Forbidden) else from_code(cause.code, message)
