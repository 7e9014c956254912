"""What a client's request means, whatever era it came in: method and params in, the result's bytes out.

Nothing here knows HTTP, sessions or `_meta` envelopes; those are `eras/`. A result from a mounted server passes as the bytes it
sent. Refusals are `RpcError`: codes of JSON-RPC and of MCP, words for a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from rootlink.engine.calls import Call, Client
from rootlink.engine.catalogue import FunctionTarget, MountTarget, OwnTarget, View, merge
from rootlink.engine.functions.host import FunctionHost, Run
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.rpc import RpcError
from rootlink.errors import RootlinkError, rpc_error

INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND = -32602, -32601, -32002

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the project key's id, what it may do, and in which workspace."""

    ws: str
    principal: str
    scopes: frozenset[str]

    @property
    def manages(self) -> bool:
        return "manage" in self.scopes


class OwnTools(Protocol):
    """The engine's own four tools: their definitions, and what they do."""

    @property
    def definitions(self) -> list[dict[str, Any]]: ...

    async def call(self, caller: Caller, name: str, arguments: Params) -> dict[str, Any]: ...


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def text_result(text: str, *, error: bool = False, structured: object = None) -> dict[str, Any]:
    """A tools/call result with one block of text."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": error}
    if isinstance(structured, dict):
        result["structuredContent"] = structured
    return result


def run_result(run: Run) -> dict[str, Any]:
    """A function's run as a tools/call result: the output as text and, when it is an object, as structured content."""
    if run.status == "ok":
        text = run.output if isinstance(run.output, str) else msgspec.json.encode(run.output).decode()
        return text_result(text, structured=run.output)
    error = run.error or {}
    return text_result(f"{error.get('name', run.status)}: {error.get('message', run.status)}", error=True)


class Dispatch:
    """One engine's answers. Views are cached until `forget(ws)`."""

    def __init__(self, mounts: Mounts, functions: FunctionHost, own: OwnTools, redact: Callable[[str], str]) -> None:
        self._mounts, self._functions, self._own, self._redact = mounts, functions, own, redact
        self._views: dict[str, View] = {}
        self._methods: dict[str, Callable[[Caller, Params, Call | None], Awaitable[msgspec.Raw]]] = {
            "ping": self._ping,
            "tools/list": self._lister("tools"),
            "prompts/list": self._lister("prompts"),
            "resources/list": self._lister("resources"),
            "resources/templates/list": self._lister("resourceTemplates"),
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read_resource,
            "completion/complete": self._complete,
        }

    def view(self, ws: str, client: Client | None = None) -> View:
        view = self._views.get(ws)
        if view is None:
            functions = [self._functions.tool(ws, deployed.name) for deployed in self._functions.list(ws)]
            view = self._views[ws] = merge(self._mounts.list(ws), functions, self._own.definitions)
        return view

    def forget(self, ws: str) -> None:
        self._views.pop(ws, None)

    async def handle(self, caller: Caller, method: str, params: Params, call: Call | None = None) -> msgspec.Raw:
        """The result of `method` as JSON bytes. Raises RpcError, and nothing else but cancellation."""
        act = self._methods.get(method)
        if act is None:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        try:
            return await act(caller, params, call)
        except RootlinkError as error:
            answer = rpc_error(error)
            raise RpcError(answer["code"], self._redact(error.message), answer["data"]) from error
        except RpcError as error:  # a server's own words
            raise RpcError(error.code, self._redact(error.message), error.data) from error.__cause__

    def capabilities(self) -> dict[str, Any]:
        """The same for every workspace and moment: what is mounted later must not need a new handshake."""
        return {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True},
            "completions": {},
        }

    async def subscribe(self, caller: Caller, uri: object, client: Client) -> None:
        """`resources/subscribe`, and a `subscriptions/listen` that names resources. Raises RpcError."""
        raise RpcError(METHOD_NOT_FOUND, "Method not found: resources/subscribe")

    async def unsubscribe(self, caller: Caller, uri: object, client: Client) -> None:
        raise RpcError(METHOD_NOT_FOUND, "Method not found: resources/unsubscribe")

    def level(self, caller: Caller, client: Client, level: str) -> None:
        self._mounts.level(caller.ws, client, level)

    def told(self, caller: Caller, client: Client, method: str, params: msgspec.Raw) -> None:
        self._mounts.told(caller.ws, client, method, params)

    def forget_client(self, key: str) -> None:
        self._mounts.forget_client(key)

    async def _ping(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        return msgspec.Raw(b"{}")

    def _lister(self, member: str) -> Callable[[Caller, Params, Call | None], Awaitable[msgspec.Raw]]:
        head = b'{"' + member.encode() + b'":'

        async def answer(caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
            if params.get("cursor") is not None:
                raise RpcError(INVALID_PARAMS, "Unknown cursor: this list has one page")
            kept = "managed_tools" if member == "tools" and caller.manages else member
            return msgspec.Raw(head + self.view(caller.ws).raw[kept] + b"}")

        return answer

    async def _call_tool(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise RpcError(INVALID_PARAMS, "tools/call needs `name`, a string")
        if arguments is not None and not isinstance(arguments, dict):
            raise RpcError(INVALID_PARAMS, "tools/call needs `arguments` to be an object")
        target = self.view(caller.ws).targets.get(name)
        if isinstance(target, MountTarget):
            mount = self._mounts.get(caller.ws, target.mount)
            return await mount.request("tools/call", {**params, "name": target.name}, call=call)
        if isinstance(target, FunctionTarget):
            return raw(run_result(await self._functions.invoke(caller.ws, target.name, arguments or {}, trigger="mcp")))
        if isinstance(target, OwnTarget):
            return raw(await self._own.call(caller, name, arguments or {}))
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name[:200]}", {"code": "not_found"})

    async def _get_prompt(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        target = self._prompt(caller, params.get("name"))
        return await self._mounts.get(caller.ws, target.mount).request("prompts/get", {**params, "name": target.name}, call=call)

    async def _read_resource(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        owner = self._resource_owner(caller, params.get("uri"))
        return await self._mounts.get(caller.ws, owner).request("resources/read", params, call=call)

    async def _complete(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise RpcError(INVALID_PARAMS, "completion/complete needs `ref`, an object")
        if ref.get("type") == "ref/prompt":
            target = self._prompt(caller, ref.get("name"))
            asked, owner = {**params, "ref": {**ref, "name": target.name}}, target.mount
        else:
            asked, owner = params, self._template_owner(caller, ref.get("uri"))
        return await self._mounts.get(caller.ws, owner).request("completion/complete", asked, call=call)

    def _prompt(self, caller: Caller, name: object) -> MountTarget:
        target = self.view(caller.ws).prompts.get(name) if isinstance(name, str) else None
        if target is None:
            raise RpcError(INVALID_PARAMS, f"Unknown prompt: {str(name)[:200]}")
        return target

    def _resource_owner(self, caller: Caller, uri: object) -> str:
        owner = self.view(caller.ws).owner(uri) if isinstance(uri, str) else None
        if owner is None:
            raise RpcError(RESOURCE_NOT_FOUND, f"Resource not found: {str(uri)[:200]}", {"uri": str(uri)[:2000]})
        return owner

    def _template_owner(self, caller: Caller, uri: object) -> str:
        """The mount that listed this very template, or the owner of the URI."""
        for mount in self._mounts.list(caller.ws):
            if any(template["uriTemplate"] == uri for template in mount.catalogue.templates):
                return mount.name
        return self._resource_owner(caller, uri)
