"""What starts a function by itself: a schedule and a webhook URL, at most one of each, both off until a person sets them.

    schedules   the expression, zone and input; `due`, the next time, reckoned from `since`; how the last one ended
    webhooks    the serial of the URL that is live; the token in the URL is an HMAC of it, and is not kept

Rule 1. What is set belongs to the function of that name and owner. It goes with the function, and no other one inherits it.
Rule 2. A serial is random, so a URL that was turned off or replaced never opens again.

Tables of the engine's SQLite file, used on the event loop's thread only. Times are Unix seconds. `scheduler.py` runs what is set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import structlog

from rootlink import shapes
from rootlink.engine.functions.definition import Function
from rootlink.engine.functions.run import timestamp
from rootlink.engine.functions.schedule import Schedule
from rootlink.errors import Invalid, NotFound, RootlinkError, Unavailable
from rootlink.wire.engine import Wake

SHOWN: Final = 3  # next times
MAX_INPUT_BYTES: Final = 64 << 10
Key: TypeAlias = tuple[str, str]  # workspace, function

log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS schedules (
    ws TEXT NOT NULL, name TEXT NOT NULL, connection TEXT, expression TEXT NOT NULL, timezone TEXT NOT NULL, input BLOB NOT NULL,
    since REAL NOT NULL, due REAL, skipped INTEGER NOT NULL, skipped_at REAL, last BLOB NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE IF NOT EXISTS webhooks (
    ws TEXT NOT NULL, name TEXT NOT NULL, connection TEXT, serial TEXT NOT NULL, made_at REAL NOT NULL, PRIMARY KEY (ws, name));
"""
_PUT_SCHEDULE = "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_WEBHOOK = "INSERT OR REPLACE INTO webhooks VALUES (?, ?, ?, ?, ?)"


class Functions(Protocol):
    """What is asked of the FunctionHost."""

    def get(self, ws: str, name: str) -> Function:
        """Raises NotFound."""

    async def refusal(self, ws: str, name: str, input: Any) -> str | None:
        """Why the input does not fit the function's schema."""


class CronBody(msgspec.Struct, forbid_unknown_fields=True):
    expression: str
    timezone: str = "UTC"
    input: Any = msgspec.field(default_factory=dict)


class TriggersBody(msgspec.Struct, forbid_unknown_fields=True):
    """PUT …/functions/{name}/triggers. What is left out stays as it is; `rotate` also turns a webhook on."""

    cron: CronBody | msgspec.UnsetType | None = msgspec.UNSET
    webhook: bool | Literal["rotate"] | msgspec.UnsetType = msgspec.UNSET


class Last(msgspec.Struct, frozen=True):
    """How a due time ended. `status`: running, one of a Run, or refused: it did not begin, and `error` says why."""

    due: float
    status: str
    run_id: str | None = None
    error: str | None = None


class Row(msgspec.Struct, frozen=True):
    """A row of `schedules`. `connection`: whose the function is. `due` None: never again."""

    ws: str
    name: str
    connection: str | None
    expression: str
    timezone: str
    input: bytes
    since: float
    due: float | None
    skipped: int = 0
    skipped_at: float | None = None
    last: Last | None = None


class Scheduled(NamedTuple):
    row: Row
    schedule: Schedule

    @property
    def view(self) -> dict[str, Any]:
        row, shown = self.row, self.schedule.shown
        times = [] if row.due is None else [row.due, *self.schedule.several(row.due, SHOWN - 1)]
        last = None if row.last is None else {**msgspec.structs.asdict(row.last), "due": shown(row.last.due)}
        return {
            "expression": row.expression,
            "timezone": row.timezone,
            "input": msgspec.json.decode(row.input),
            "next": [shown(at) for at in times],
            "last": last,
            "skipped": {"count": row.skipped, "last": None if row.skipped_at is None else shown(row.skipped_at)},
        }


class Webhook(NamedTuple):
    """A row of `webhooks`, and what follows from it: `hash` is the BLAKE3 of the token."""

    connection: str | None
    serial: str
    made_at: float
    token: str
    hash: str


class Triggers:
    """`secret`: a key that only this engine knows, the same at every start. `now`: the wall clock. `changed` is called when what
    is due may be another."""

    def __init__(
        self,
        db: sqlite3.Connection,
        functions: Functions,
        *,
        project: str,
        secret: bytes,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._functions, self._project, self._secret, self.now = db, functions, project, secret, now
        self.changed: Callable[[], None] = lambda: None
        self._schedules: dict[Key, Scheduled] = {}
        self._webhooks: dict[Key, Webhook] = {}
        self._load()

    # what a person sees and sets

    def view(self, ws: str, name: str) -> dict[str, Any]:
        """GET …/functions/{name}/triggers. Raises NotFound."""
        self._mine(ws, name)
        scheduled, webhook = self._schedules.get((ws, name)), self._webhooks.get((ws, name))
        return {
            "cron": None if scheduled is None else scheduled.view,
            "webhook": None if webhook is None else {"made_at": timestamp(webhook.made_at)},
        }

    async def set(self, ws: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """`view`, with the webhook's `path` when it is new. Raises NotFound, Invalid, Unavailable; nothing is changed then."""
        try:
            wanted = msgspec.convert(body, TriggersBody)
        except msgspec.ValidationError as error:
            raise Invalid(f"these triggers can't be set: {shapes.words(str(error))}") from None
        if isinstance(wanted.cron, CronBody):
            await self._check_input(ws, name, wanted.cron.input)
        function, key = self._mine(ws, name), (ws, name)
        scheduled, webhook = self._schedules.get(key), self._webhooks.get(key)
        if wanted.cron is not msgspec.UNSET:
            scheduled = None if wanted.cron is None else self._scheduled(function, wanted.cron)
        if wanted.webhook is False:
            webhook = None
        elif wanted.webhook == "rotate" or (wanted.webhook is True and webhook is None):
            webhook = self._webhook(key, function.connection, secrets.token_hex(16), self.now())
        new_url = webhook is not None and webhook != self._webhooks.get(key)
        self._keep(key, scheduled, webhook)
        log.info("triggers set", ws=ws, function=name, cron=scheduled is not None, webhook=webhook is not None, new_url=new_url)
        self.changed()
        shown = self.view(ws, name)
        if webhook is not None and new_url:
            shown["webhook"]["path"] = f"/hooks/{self._project}/{ws}/{name}/{webhook.token}"
        return shown

    def forget(self, ws: str, name: str) -> None:
        """The function is gone. What can't be written now is put right by the next start."""
        key = ws, name
        if key in self._schedules or key in self._webhooks:
            self._schedules.pop(key, None)
            self._webhooks.pop(key, None)
            log.info("triggers went with their function", ws=ws, function=name)
            with suppress(Unavailable):
                self._keep(key, None, None)

    def _scheduled(self, function: Function, body: CronBody) -> Scheduled:
        schedule, now = Schedule(body.expression, body.timezone), self.now()
        key, input = (function.ws, function.name, function.connection), msgspec.json.encode(body.input)
        return Scheduled(Row(*key, body.expression, body.timezone, input, now, schedule.after(now)), schedule)

    async def _check_input(self, ws: str, name: str, input: Any) -> None:
        size = len(msgspec.json.encode(input))
        if size > MAX_INPUT_BYTES:
            raise Invalid(f"the input is {size} bytes; a schedule's is at most {MAX_INPUT_BYTES}")
        if refusal := await self._functions.refusal(ws, name, input):
            raise Invalid(f"the function would refuse this: {refusal}")

    # what is there

    @property
    def schedules(self) -> list[Scheduled]:
        return list(self._schedules.values())

    @property
    def due(self) -> float | None:
        """The nearest time at which something is due."""
        dues = [row.due for row, _ in self._schedules.values() if row.due is not None and self.owned(row)]
        return min(dues, default=None)

    @property
    def wake(self) -> Wake:
        """When and for whom this engine is needed when it is stopped."""
        live = [hook.hash for key, hook in self._webhooks.items() if self._is_owner(key, hook.connection)]
        return Wake(self.due, live)

    def get(self, ws: str, name: str) -> Scheduled | None:
        return self._schedules.get((ws, name))

    def owned(self, row: Row) -> bool:
        """Rule 1. A connection's function is away for a moment while it is replaced."""
        return self._is_owner((row.ws, row.name), row.connection)

    def put(self, scheduled: Scheduled) -> None:
        """In place of what is there. Raises Unavailable, and nothing has changed then."""
        key = scheduled.row.ws, scheduled.row.name
        self._keep(key, scheduled, self._webhooks.get(key))

    def accepts(self, ws: str, name: str, token: str) -> bool:
        """Whether this is the token of the function's URL. It takes as long when there is none."""
        hook = self._webhooks.get((ws, name))
        known = hook is not None and self._is_owner((ws, name), hook.connection)
        expected = self.mac("webhook", ws, name, hook.serial if hook is not None else "")
        return hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace")) and known

    def mac(self, *parts: str) -> str:
        """43 characters that only this engine can make. Every part goes in with its length."""
        mac = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in (self._project, *parts):
            held = part.encode("utf-8", "surrogatepass")
            mac.update(len(held).to_bytes(8) + held)
        return base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=")

    def _webhook(self, key: Key, connection: str | None, serial: str, made_at: float) -> Webhook:
        import blake3  # no webhook, no hash

        token = self.mac("webhook", *key, serial)
        return Webhook(connection, serial, made_at, token, blake3.blake3(token.encode()).hexdigest())

    def _is_owner(self, key: Key, connection: str | None) -> bool:
        try:
            return self._functions.get(*key).connection == connection
        except NotFound:
            return False

    def _mine(self, ws: str, name: str) -> Function:
        """The function; what another one of this name left behind goes. Raises NotFound."""
        function = self._functions.get(ws, name)
        scheduled, webhook = self._schedules.get((ws, name)), self._webhooks.get((ws, name))
        owners = {one.connection for one in (scheduled and scheduled.row, webhook) if one is not None}
        if owners - {function.connection}:
            self.forget(ws, name)
        return function

    # the tables

    def _load(self) -> None:
        """Those of a function that was removed just before the engine ended are left out, and so is what can't be read."""
        for statement in filter(str.strip, _SCHEMA.split(";")):
            self._db.execute(statement)
        for ws, name, *rest, last in self._db.execute("SELECT * FROM schedules ORDER BY rowid").fetchall():
            try:
                row = Row(*[ws, name, *rest, msgspec.json.decode(last, type=Last | None)])
                self._schedules[ws, name] = Scheduled(row, Schedule(row.expression, row.timezone))
            except (RootlinkError, msgspec.DecodeError, TypeError) as error:
                log.warning("schedule unreadable, left out", ws=ws, function=name, why=type(error).__name__)
        for ws, name, *rest in self._db.execute("SELECT * FROM webhooks ORDER BY rowid").fetchall():
            self._webhooks[ws, name] = self._webhook((ws, name), *rest)
        owners = {key: found.row.connection for key, found in self._schedules.items()}
        owners |= {key: hook.connection for key, hook in self._webhooks.items()}
        for key, connection in owners.items():
            if connection is None and not self._is_owner(key, None):
                self.forget(*key)

    def _keep(self, key: Key, scheduled: Scheduled | None, webhook: Webhook | None) -> None:
        """What there is of a function from now on. Raises Unavailable, and nothing has changed then."""
        with self._transaction():
            for table in ("schedules", "webhooks"):
                self._db.execute(f"DELETE FROM {table} WHERE ws = ? AND name = ?", key)  # noqa: S608
            if scheduled is not None:
                *columns, last = msgspec.structs.astuple(scheduled.row)
                self._db.execute(_PUT_SCHEDULE, (*columns, msgspec.json.encode(last)))
            if webhook is not None:
                self._db.execute(_PUT_WEBHOOK, (*key, *webhook[:3]))
        self._schedules.pop(key, None)
        self._webhooks.pop(key, None)
        self._schedules |= {key: scheduled} if scheduled is not None else {}
        self._webhooks |= {key: webhook} if webhook is not None else {}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing. Raises Unavailable when the disk says no."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            log.error("triggers not written", error=str(error))
            raise Unavailable("the engine can't write its state now (disk full or locked?); nothing was changed") from error
