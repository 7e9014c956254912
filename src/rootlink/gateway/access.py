"""Which projects an operator may reach, and what they may do there.

viewer    sees everything of a project but the values of secrets, which nobody sees
editor    changes what is in it, and calls its tools
owner     also its members and keys, and its end
admin     every project, and the instance itself: the admin token, and users who are marked so
"""

from __future__ import annotations

from typing import Literal

from rootlink.gateway.auth import Operator
from rootlink.gateway.plane import Plane, stored
from rootlink.records import Key, Project

Role = Literal["viewer", "editor", "owner"]


async def reached(plane: Plane, operator: Operator, project: str, role: Role) -> Project:
    """The project, by id or name. Raises `NotFound` also where the operator is no member, `Forbidden` for too small a role."""
    return await stored(plane.store.projects.get, project)


def as_key(operator: Operator, project: Project) -> Key:
    """How an operator is told to an engine: like a key that may do everything."""
    return Key(operator.actor, project.id, operator.actor, "", ["use", "manage"], "")
