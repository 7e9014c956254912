"""Which secrets a body gets: all of the project's, or what its spec's `env` names, with `${NAME}` filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class SecretMissing(Exception):
    """`env` refers to a secret the project does not have. The message names it."""


def environment(env: Mapping[str, str] | None, secrets: Mapping[str, str]) -> dict[str, str]:
    """What `ctx.env` holds. Raises SecretMissing."""
    if env is None:
        return dict(secrets)
    return {name: _fill(name, value, secrets) for name, value in env.items()}


def _fill(name: str, value: str, secrets: Mapping[str, str]) -> str:
    def secret(reference: re.Match[str]) -> str:
        wanted = reference.group(1)
        if wanted not in secrets:
            raise SecretMissing(f"ctx.env.{name} needs the secret {wanted}; set it with: rootlink secrets set {wanted}")
        return secrets[wanted]

    return _REFERENCE.sub(secret, value)
