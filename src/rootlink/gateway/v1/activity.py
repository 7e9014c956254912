"""`/v1/projects/{p}/activity`: the audit log."""

from __future__ import annotations

from rootlink.errors import Invalid
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import Activity

MOST = 1000


async def every(call: Call) -> list[Activity]:
    project = await call.project()
    return await stored(call.plane.store.activity.list, project.id, _limit(call.query("limit")), call.query("before"))


def _limit(text: str | None) -> int:
    if text is None:
        return 200
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MOST:
        raise Invalid(f"limit must be a number from 1 to {MOST}")
    return int(text)


ROUTES = [
    Route(
        "GET",
        "/v1/projects/{p}/activity",
        every,
        "The audit log, newest first",
        answer=list[Activity],
        query={"limit": f"1 to {MOST}, 200 when not given", "before": "only lines older than the one with this id"},
    ),
]
