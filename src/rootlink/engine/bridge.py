"""Between a client of one era and a server of the other: who asks whom, and what a result may look like.

    client      server      a question of the server's                          its result
    session     session     passes (mounts/)                                    passes
    stateless   session     parks the call (eras/parked.py)                     eras/stateless.py completes it
    session     stateless   `InputRequiredResult`: asked here, then retried     what 2026-07-28 added is taken off (`plain`)
    stateless   stateless   `InputRequiredResult` passes, its state wrapped     passes

Rules
- A server's requestState goes to a stateless client inside ours, with the mount's name; the era seals it. What comes back here
  was opened by the era, so it is what this module put there, but perhaps for a mount that has since changed hands.
- An answer that refuses (`action: "decline"`) is an answer. A client's error has no form as an answer, so it ends the request.
- -32042 (2025-11-25: open these pages first) is retired in 2026-07-28: there it is a question per page. A client that can't open
  pages is told -32021.
- Resource not found: -32002 until 2025-11-25, -32602 since (SEP-2164).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts.questions import allowed
from rootlink.engine.rpc import INTERNAL_ERROR, INVALID_PARAMS, UNREADABLE, RpcError
from rootlink.errors import UpstreamFailed

STATELESS = "2026-07-28"  # and later
RESOURCE_NOT_FOUND, MISSING_CAPABILITY, URL_REQUIRED = -32002, -32021, -32042
ASKING = frozenset({"tools/call", "prompts/get", "resources/read"})  # what may be answered with an InputRequiredResult
MAX_ROUNDS = 16
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.25  # seconds, when a server only wants to be asked again (as the SDKs do)
RESPONSES, STATE = "inputResponses", "requestState"
SERVER_INFO = "io.modelcontextprotocol/serverInfo"

Params = dict[str, Any]


class Known(Protocol):
    @property
    def version(self) -> str: ...


class Upstream(Protocol):
    """What is needed of a mount."""

    @property
    def name(self) -> str: ...
    @property
    def catalogue(self) -> Known: ...
    async def request(
        self, method: str, params: Params | None = None, *, timeout: float | None = None, call: Call | None = None
    ) -> Raw: ...


class _Carried(msgspec.Struct, array_like=True, frozen=True):
    """What our requestState holds: whose it is, the server's own, and whether it stands for pages to be opened (-32042)."""

    mount: str
    state: str | None = None
    pages: bool = False


class _Question(msgspec.Struct):
    method: str
    params: Raw = Raw(b"{}")


_carried = msgspec.json.Decoder(_Carried)
_questions = msgspec.json.Decoder(dict[str, _Question])


async def request(mount: Upstream, method: str, params: Params, call: Call | None) -> Raw:
    """`mount.request` for a client of either era; `call` None is nobody's. Raises as `Mount.request`."""
    if call is not None and call.client.stateless:
        return await _of_stateless(mount, method, params, call)
    return await _of_session(mount, method, params, call)


class _Kind(msgspec.Struct):
    resultType: Any = None


_kind = msgspec.json.Decoder(_Kind)


def input_required(result: Raw) -> dict[str, Raw] | None:
    """The members of an InputRequiredResult; None of any other result (one pass, faster than to search its bytes)."""
    return rpc.members(result) if _kind.decode(result).resultType == "input_required" else None


def is_stateless(mount: Upstream) -> bool:
    return mount.catalogue.version >= STATELESS


def plain(result: Raw) -> Raw:
    """A stateless server's result as session clients know results: without what 2026-07-28 added to every one of them."""
    members = rpc.members(result)
    for name in ("resultType", "ttlMs", "cacheScope"):
        members.pop(name, None)
    meta = members.get("_meta")
    if meta is not None and SERVER_INFO.encode() in bytes(meta):
        kept = rpc.members(meta)
        kept.pop(SERVER_INFO, None)
        members.pop("_meta")
        if kept:
            members["_meta"] = rpc.raw(kept)
    structured = members.get("structuredContent")
    if structured is not None and not bytes(structured).startswith(b"{"):
        del members["structuredContent"]
    return rpc.raw(members)


def plain_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A stateless server's tool as session clients can read it: a schema of output that is not an object costs the SDKs' clients
    the whole list."""
    output = tool.get("outputSchema")
    if output is None or (isinstance(output, dict) and output.get("type") == "object"):
        return tool
    return {name: value for name, value in tool.items() if name != "outputSchema"}


# session clients, and nobody's requests


async def _of_session(mount: Upstream, method: str, params: Params, call: Call | None) -> Raw:
    if method in ASKING and is_stateless(mount):  # these would be the server's own, from nowhere
        params = _without(params, RESPONSES, STATE)
    try:
        result = await mount.request(method, params, call=call)
        if not is_stateless(mount):
            return result
        if method in ASKING:
            result = await _rounds(mount, method, params, call, result)
    except RpcError as error:
        if method == "resources/read" and error.code == INVALID_PARAMS and isinstance(error.data, dict) and "uri" in error.data:
            raise RpcError(RESOURCE_NOT_FOUND, error.message, error.data) from error
        raise
    return plain(result)


async def _rounds(mount: Upstream, method: str, params: Params, call: Call | None, result: Raw) -> Raw:
    """Ask what the server wants to know and send the request again, until it is content."""
    pause = FIRST_PAUSE
    for _ in range(MAX_ROUNDS):
        wanted = input_required(result)
        if wanted is None:
            return result
        if call is None:
            raise UpstreamFailed(f"{mount.name} needs input from a person for this, and there is no MCP client to ask")
        again = dict(params)
        if questions := _read_questions(mount, wanted):
            _check_offered(mount, call.client, questions)
            again[RESPONSES] = await _answers(call, questions)
            pause = FIRST_PAUSE
        else:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if STATE in wanted:
            again[STATE] = wanted[STATE]
        result = await mount.request(method, again, call=call)
    if input_required(result) is None:
        return result
    raise UpstreamFailed(f"{mount.name} asked for more input after {MAX_ROUNDS} rounds of it")


def _read_questions(mount: Upstream, wanted: dict[str, Raw]) -> dict[str, _Question]:
    try:
        return _questions.decode(wanted["inputRequests"]) if "inputRequests" in wanted else {}
    except UNREADABLE:
        raise UpstreamFailed(f"{mount.name} asked for input in a form that is not MCP's") from None


def _check_offered(mount: Upstream, client: Client, questions: dict[str, _Question]) -> None:
    """The server was told what the client can do, and must not ask for more; a client that is asked all the same may break."""
    for question in questions.values():
        if not allowed(client, question.method, question.params):
            raise UpstreamFailed(f"{mount.name} asks for what this client does not offer: {question.method[:80]}")


async def _answers(call: Call, questions: dict[str, _Question]) -> dict[str, Raw]:
    """All at once. Raises the first error a client answers with; the other questions are then withdrawn."""
    try:
        async with asyncio.TaskGroup() as group:
            asked = {key: group.create_task(call.ask(q.method, _session_params(q))) for key, q in questions.items()}
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {key: task.result() for key, task in asked.items()}


def _session_params(question: _Question) -> Raw:
    """2025-11-25 wants an id on every page to be opened; 2026-07-28 has none."""
    if question.method != "elicitation/create" or b'"url"' not in bytes(question.params):
        return question.params
    members = rpc.members(question.params)
    if rpc.value(members.get("mode", Raw(b"null"))) != "url" or "elicitationId" in members:
        return question.params
    return rpc.raw({**members, "elicitationId": secrets.token_hex(16)})


# stateless clients


async def _of_stateless(mount: Upstream, method: str, params: Params, call: Call) -> Raw:
    if method not in ASKING:
        return await mount.request(method, params, call=call)
    params = _unwrapped(mount, params)
    if not is_stateless(mount):
        params = _without(params, RESPONSES, STATE)  # a session server does not know them
    try:
        result = await mount.request(method, params, call=call)
    except RpcError as error:
        if error.code == URL_REQUIRED:
            return _pages(mount, error, call.client)
        raise
    if not is_stateless(mount):
        return _without_type(result)
    wanted = input_required(result)
    if wanted is None:
        return result
    _check_offered(mount, call.client, _read_questions(mount, wanted))
    state = rpc.value(wanted.get(STATE, Raw(b"null")))
    return rpc.raw({**wanted, STATE: _wrapped(mount, state if isinstance(state, str) else None)})


def _without_type(result: Raw) -> Raw:
    """A session server's result: it knows no other way to ask than to ask, and so no result of its can be a question."""
    if b'"input_required"' not in bytes(result) or input_required(result) is None:
        return result
    return rpc.raw({name: value for name, value in rpc.members(result).items() if name != "resultType"})


def _wrapped(mount: Upstream, state: str | None, *, pages: bool = False) -> str:
    return msgspec.json.encode(_Carried(mount.name, state, pages)).decode()


def _unwrapped(mount: Upstream, params: Params) -> Params:
    """`params` with the server's own requestState again. Raises RpcError when it was another mount's, or pages were refused."""
    given = params.get(STATE)
    if given is None:
        return params
    try:
        carried = _carried.decode(given)
    except (*UNREADABLE, TypeError):
        carried = None
    if carried is None or carried.mount != mount.name:
        raise RpcError(INVALID_PARAMS, f"{STATE} is not valid for this request")
    if carried.pages:
        if _refused(params.get(RESPONSES)):
            raise RpcError(INTERNAL_ERROR, "The page this needs was not opened: declined", {"code": "declined"})
        return _without(params, RESPONSES, STATE)
    bare = _without(params, STATE)
    return bare if carried.state is None else {**bare, STATE: carried.state}


def _refused(responses: Any) -> bool:
    given = responses.values() if isinstance(responses, dict) else ()
    return any(isinstance(answer, dict) and answer.get("action") in ("decline", "cancel") for answer in given)


def _pages(mount: Upstream, error: RpcError, client: Client) -> Raw:
    """-32042 as questions. Raises `error` when it names no page, -32021 when the client can't open any."""
    named = error.data.get("elicitations") if isinstance(error.data, dict) else None
    pages = [page for page in named if isinstance(page, dict)] if isinstance(named, list) else []
    if not pages:
        raise error
    elicitation = client.capabilities.get("elicitation")
    if not (isinstance(elicitation, dict) and "url" in elicitation):
        needed: dict[str, Any] = {"elicitation": {"url": {}}}
        raise RpcError(MISSING_CAPABILITY, error.message, {**error.data, "requiredCapabilities": needed}) from error
    questions = {f"page-{i}": {"method": "elicitation/create", "params": {"mode": "url", **p}} for i, p in enumerate(pages, 1)}
    return rpc.raw({"resultType": "input_required", "inputRequests": questions, STATE: _wrapped(mount, None, pages=True)})


def _without(params: Params, *names: str) -> Params:
    return {name: value for name, value in params.items() if name not in names} if any(n in params for n in names) else params
