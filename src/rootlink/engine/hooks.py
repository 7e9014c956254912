"""`POST /hooks/{ws}/{name}`: one call of a webhook URL, as the gateway hands it on (wire/engine.py).

Anybody may have sent it. So it is use of the engine, which keeps it from its sleep, only once the token is known, and what is
not known is one answer, whichever part of it is wrong. Of a run that came to nothing the sender learns its id.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rootlink.engine.functions.run import Run
from rootlink.engine.functions.scheduler import Scheduler
from rootlink.engine.functions.triggers import Triggers
from rootlink.engine.lease import Lease
from rootlink.engine.rest import Json, body_of, ok
from rootlink.errors import Conflict, Invalid, NotFound, RateLimited, RootlinkError, Unavailable, envelope
from rootlink.wire.engine import ENGINE_HEADER, HookAnswer, HookCall

_JSON = {"content-type": "application/json"}


class Hooks:
    def __init__(self, triggers: Triggers, scheduler: Scheduler, lease: Lease) -> None:
        self._triggers, self._scheduler, self._lease = triggers, scheduler, lease

    def routes(self) -> list[Route]:
        return [Route("/hooks/{ws}/{name}", self._hook, methods=["POST"])]

    async def _hook(self, request: Request) -> Response:
        try:
            return await self._answered(request)
        except RootlinkError as error:
            return Json(envelope(error), error.status)

    async def _answered(self, request: Request) -> Response:
        ws, name = request.path_params["ws"], request.path_params["name"]
        try:
            call = msgspec.convert(await body_of(request), HookCall)
        except msgspec.ValidationError:
            raise Invalid("not a HookCall") from None
        if not self._triggers.accepts(ws, name, call.token):
            raise NotFound("no such webhook")
        if self._stopping():
            return stopping()
        if call.input is None:
            return ok(HookAnswer())
        ran = await self._scheduler.deliver(ws, name, call.input, call.delivery)
        if isinstance(ran, Run):
            return ok(answer(ran))
        if isinstance(ran, Unavailable) and self._stopping():
            return stopping()
        if isinstance(ran, RateLimited | Unavailable):
            raise ran
        if isinstance(ran, Conflict):  # the sender's own mistake, which it would repeat after a 500
            return ok(HookAnswer(HTTPStatus.CONFLICT, _JSON, msgspec.json.encode(envelope(ran))))
        return ok(HookAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, failed=""))

    def _stopping(self) -> bool:
        return self._lease.stopping


def stopping() -> Response:
    """Nothing was run: the gateway asks the next engine."""
    return Json(envelope(Unavailable("the engine is stopping; ask again")), 503, {ENGINE_HEADER: "stopping"})


def answer(run: Run) -> HookAnswer:
    """What the function returned: a `Response` as it is, any other value as JSON."""
    if run.status != "ok":
        return HookAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, failed=run.run_id)
    if not run.response or not isinstance(run.output, dict):
        return HookAnswer(HTTPStatus.OK, _JSON, msgspec.json.encode(run.output))
    status, headers = run.output.get("status"), run.output.get("headers")
    shown = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    return HookAnswer(status if isinstance(status, int) else HTTPStatus.OK, shown, _body(run.output))


def _body(output: dict[str, Any]) -> bytes:
    text, encoded = output.get("body"), output.get("body_base64")
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(encoded) if isinstance(encoded, str) else b""
    except (binascii.Error, ValueError):
        return b""
