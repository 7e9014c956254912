"""When a schedule is due: a cron expression in a time zone, nothing else. No clock and no I/O but the zone's own file.

    minute hour day-of-month month day-of-week      and the names in `NAMES`; lists, ranges, steps, `L`, `#`, `MON`, `JAN` as
                                                    Debian's cron and cronsim have them
    time zone                                       an IANA name (`Europe/Berlin`); UTC unless given

Where clocks are put forward, what was to run in the hour that is missing runs right after it; where they are put back, what is
due in the hour that comes twice runs the first time only. Expressions whose hours or minutes are `*` follow real time instead.
Times are Unix seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rootlink.errors import Invalid

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MAX_EXPRESSION: Final = 200
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+/-]{0,63}\Z")
_NO_ZONES = ("posix/", "right/")  # folders of other readings of the same names; `right` counts leap seconds
_SAMPLE = "such as 0 9 * * 1-5 for 9:00 on weekdays"


class Schedule:
    """Raises Invalid in words for what is no expression, no zone, or never due."""

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.expression, self.timezone = expression, timezone
        self._fields = _fields(expression)
        self._zone = _zone(timezone)
        if self.after(datetime.now(UTC).timestamp()) is None:
            raise Invalid(f"cron expression {_shown(expression)} is never due")

    def after(self, moment: float) -> float | None:
        """The first time due after `moment`; None when there is none in the next 50 years."""
        return next(iter(self.several(moment, 1)), None)

    def several(self, moment: float, count: int) -> list[float]:
        """The next times after `moment`, at most `count`."""
        found: list[float] = []
        times = _iterator(self._fields, datetime.fromtimestamp(moment, self._zone))
        while len(found) < count and (at := _next(times)) is not None:
            # Where clocks change, two times of the clock can be one moment, or one that has been.
            if at > (found[-1] if found else moment):
                found.append(at)
        return found

    def shown(self, moment: float) -> str:
        """RFC 3339 with the zone's own offset."""
        return datetime.fromtimestamp(moment, self._zone).isoformat(timespec="seconds")


def _iterator(fields: str, start: datetime) -> Any:
    from cronsim import CronSim

    return CronSim(fields, start)


def _next(times: Any) -> float | None:
    try:
        at: datetime = next(times)
    except (StopIteration, OverflowError):
        return None
    return at.timestamp()


def _fields(expression: str) -> str:
    """The five fields. Raises Invalid."""
    from cronsim import CronSim, CronSimError

    if len(expression) > MAX_EXPRESSION:
        raise Invalid(f"the cron expression is longer than {MAX_EXPRESSION} characters")
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMES:
            raise Invalid(f"cron expression {_shown(text)} is not known; the names are {', '.join(NAMES)}")
        return NAMES[text.lower()]
    count = len(text.split())
    if count == 6:
        raise Invalid(
            f"cron expression {_shown(text)} has six fields; seconds are not taken, once a minute is the most: give five"
        )
    if count != 5:
        raise Invalid(f"cron expression {_shown(text)} has {count} fields; it must have five, {_SAMPLE}")
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise Invalid(f"cron expression {_shown(text)} is not right: {str(error).lower()}; {_SAMPLE}") from None
    except (AssertionError, ValueError, TypeError):
        raise Invalid(f"cron expression {_shown(text)} is not right; {_SAMPLE}") from None
    return text


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    refused = Invalid(f"time zone {_shown(name)} is not known; give an IANA name, such as Europe/Berlin or UTC")
    if not _ZONE.match(name) or name.startswith(_NO_ZONES):
        raise refused
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise refused from None


def _shown(text: str) -> str:
    return repr(text)[:80]
