"""`/v1/projects/{p}/egress`: the allowlist, and what was refused."""

from __future__ import annotations

import msgspec

from rootlink.egress import hosts
from rootlink.errors import Invalid, RootlinkError
from rootlink.gateway.plane import log, stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import AllowRule, Decision

VERDICTS = ("allowed", "denied")


class NewRule(msgspec.Struct):
    domain: str


class RuleView(msgspec.Struct):
    domain: str
    source: str
    created_at: str


async def every(call: Call) -> list[RuleView]:
    project = await call.project()
    names = await _sources(call, project.id)
    return [_view(rule, names) for rule in await stored(call.plane.store.egress.list, project.id)]


async def allow(call: Call) -> RuleView:
    project = await call.project()
    rule = await stored(call.plane.store.egress.add, project.id, str(hosts.rule(call.body.domain)))
    await call.note(project.id, "egress.allow", rule.domain)
    await call.plane.refresh(project.id)
    return _view(rule, {})


async def remove(call: Call) -> list[RuleView]:
    project = await call.project()
    names = await _sources(call, project.id)
    gone = await stored(call.plane.store.egress.remove, project.id, str(hosts.rule(call.params["domain"])))
    await call.note(project.id, "egress.remove", gone[0].domain)
    await call.plane.refresh(project.id)
    return [_view(rule, names) for rule in gone]


async def decisions(call: Call) -> list[Decision]:
    project = await call.project()
    verdict = call.query("verdict")
    if verdict is not None and verdict not in VERDICTS:
        raise Invalid(f"verdict must be one of {', '.join(VERDICTS)}")
    try:
        await call.plane.provisioner.pull_decisions(project.id)
    except RootlinkError as error:  # what is kept already is still worth showing
        log.warning("decisions not pulled", project=project.id, code=error.code)
    return await stored(call.plane.store.decisions.list, project.id, verdict)  # type: ignore[arg-type]


async def _sources(call: Call, project: str) -> dict[str, str]:
    """How a source is shown: `connection:<name>`, not the id that is stored."""
    connections = await stored(call.plane.store.connections.list, project)
    return {f"connection:{connection.id}": f"connection:{connection.name}" for connection in connections}


def _view(rule: AllowRule, sources: dict[str, str]) -> RuleView:
    return RuleView(rule.domain, sources.get(rule.source, rule.source), rule.created_at)


ROUTES = [
    Route("GET", "/v1/projects/{p}/egress", every, "List the allowlist", answer=list[RuleView]),
    Route("POST", "/v1/projects/{p}/egress", allow, "Allow a domain", body=NewRule, answer=RuleView, status=201),
    Route(
        "GET",
        "/v1/projects/{p}/egress/decisions",
        decisions,
        "What was allowed and refused, newest first",
        answer=list[Decision],
        query={"verdict": "allowed or denied; both when not given"},
    ),
    Route("DELETE", "/v1/projects/{p}/egress/{domain}", remove, "Take a domain off the allowlist", answer=list[RuleView]),
]
