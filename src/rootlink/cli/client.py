"""A small client of Rootlink's HTTP API on the standard library: one connection a request, so nothing is ever stale.

Every answer is the envelope of CONTRACT §3; a refusal comes back as the exception of `rootlink.errors` its code names.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from rootlink.errors import Invalid, Unauthorized, Unavailable, UpstreamFailed, from_code

ANSWER_WITHIN = 630.0  # seconds; a first connect installs packages, and the server has its own, shorter deadlines
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Answer(msgspec.Struct):
    ok: bool
    data: Any = None
    error: dict[str, Any] | None = None


def path(*segments: str) -> str:
    """A path of segments, each quoted whole: a name with a slash in it stays one segment."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


class Client:
    """Speaks to the instance at `base` (`http[s]://host[:port]`) with the bearer `token`.

    `renew` makes another token when this one is refused; it is asked once.
    """

    def __init__(self, base: str, token: str, *, renew: Callable[[], str] | None = None) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"{base!r} is not the URL of a Rootlink: http://HOST:PORT or https://HOST is expected")
        self.base = base.rstrip("/")
        self._parts = parts
        self._token = token
        self._renew = renew

    def get(self, at: str, **query: str) -> Any:
        return self._answer("GET", at, query=query)

    def post(self, at: str, body: Any = None, **query: str) -> Any:
        return self._answer("POST", at, {} if body is None else body, query=query)

    def put(self, at: str, body: Any, **query: str) -> Any:
        return self._answer("PUT", at, body, query=query)

    def delete(self, at: str, **query: str) -> Any:
        return self._answer("DELETE", at, query=query)

    def events(self, at: str, body: Any) -> Iterator[tuple[str, Any]]:
        """POST `body` and yield the server-sent events of the answer: (event, data). A refusal before the stream raises."""
        with self._response("POST", at, body, accept="text/event-stream") as response:
            if not (response.getheader("content-type") or "").startswith("text/event-stream"):
                yield "done", self._data(response)
                return
            yield from _events(response)

    def _answer(self, method: str, at: str, body: Any = None, *, query: dict[str, str]) -> Any:
        target = f"{at}?{urlencode(query)}" if query else at
        try:
            with self._response(method, target, body) as response:
                return self._data(response)
        except Unauthorized:
            if self._renew is None:
                raise
            self._token, self._renew = self._renew(), None
            return self._answer(method, at, body, query=query)

    @contextmanager
    def _response(
        self, method: str, target: str, body: Any, *, accept: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=ANSWER_WITHIN)
        headers = {"authorization": f"Bearer {self._token}", "accept": accept, "connection": "close"}
        payload = None if body is None else msgspec.json.encode(body)
        if payload is not None:
            headers["content-type"] = "application/json"
        try:
            connection.request(method, self._parts.path.rstrip("/") + target, body=payload, headers=headers)
            yield connection.getresponse()
        except ConnectionRefusedError:
            raise Unavailable(f"nothing answers at {self.base}; start it with: rootlink up") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.base} did not answer: {str(error) or type(error).__name__}") from None
        finally:
            connection.close()

    def _data(self, response: http.client.HTTPResponse) -> Any:
        try:
            answer = msgspec.json.decode(response.read(), type=Answer)
        except UNREADABLE:
            raise UpstreamFailed(f"{self.base} answered {response.status}, but not as a Rootlink does") from None
        if not answer.ok:
            raise refusal(answer.error)
        return answer.data


def refusal(error: Any) -> Exception:
    """The exception for an `error` member (`{code, message}`)."""
    known = error if isinstance(error, dict) else {}
    return from_code(str(known.get("code", "internal")), str(known.get("message", "Internal error")))


def _events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """The `event` and `data` fields of a server-sent stream; comments and other fields are passed over."""
    event, data = "message", list[bytes]()
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        field, _, value = line.partition(b":")
        if field == b"event":
            event = value.strip().decode("utf-8", "replace")
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            yield event, _decoded(b"\n".join(data))
            event, data = "message", []


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        raise UpstreamFailed("the answer's event stream holds something that is not JSON") from None
