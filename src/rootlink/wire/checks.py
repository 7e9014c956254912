"""What is asked of a service before a connection is kept: does it know this key, who are we to it, and what may we do there.

The catalogue says it (`catalog/manifest.py`), the engine does it (`engine/checks.py`), behind the door of the connection. Texts
to be sent (`url`, `headers`, `body`, `arguments`, `host`) may refer to secrets as `${NAME}`, like a MountSpec. Texts to be shown
(`label`, `note`, `say`, `error`) may hold `{path}`: a member of the answer's JSON by its dotted path (`{data.0.name}`), or
`{host}` and `{port}` of what was dialled; what is not there is left out. An answer's words are shortened and redacted.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["error", "warn"]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An answer that is expected, and what it means. It fits if the status (of HTTP) and every member of `json`, by dotted path,
    are equal. `label`: who we are to the service. `note`: what a person should know. `say`: what is wrong, for an error."""

    status: int | None = None
    json: dict[str, Any] = {}
    label: str | None = None
    note: str | None = None
    say: str | None = None


class HttpCheck(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="http"):
    """Of `ok` and `errors`, what fits and names most of the answer decides (of several, `errors` first, then their order); none:
    the service did not say what it says to a good key. In `url` a value is percent-encoded; so in `body` if its content type is
    a form's, else it is escaped as in a JSON string. Redirects are not followed."""

    id: str
    url: str
    method: Literal["GET", "POST"] = "GET"
    headers: dict[str, str] = {}
    body: str | None = None
    ok: list[Outcome] = []
    errors: list[Outcome] = []
    severity: Severity = "error"


class TcpCheck(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tcp"):
    """Whether anybody answers there; at ports 443 and 80, behind a door, only whether it may be reached. `error` may say `{host}`
    and `{port}`."""

    id: str
    host: str
    port: int
    error: str
    severity: Severity = "error"


class ToolCheck(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool"):
    """A call of one of the server's own tools, once it is mounted. `json`: members, by dotted path, of the result's structured
    content or of the JSON in its first text. `error`: what is wrong if the result is an error or does not fit."""

    id: str
    tool: str
    arguments: dict[str, Any] = {}
    json: dict[str, Any] = {}
    label: str | None = None
    note: str | None = None
    error: str | None = None
    severity: Severity = "error"


Check = HttpCheck | TcpCheck | ToolCheck


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What checks found. `error`: words for a person, None if all went well; `code` is then what is raised (`errors.py`)."""

    label: str | None = None
    notes: list[str] = []
    error: str | None = None
    code: str | None = None
