"""One workspace's catalogue: every mount's tools, resources and prompts under one roof, and whose each is.

Rules
- A tool or prompt is `<mount>__<name>`, a function `function__<name>`, the engine's own tools keep their plain names. Mount
  names never hold `__`, so the first `__` separates. A public name longer than 128 characters is cut and ends in a hash.
- Resource URIs pass verbatim (links inside content must go on working); the first mount that lists a URI owns it, then the
  first whose template matches.
- Fields nobody here knows pass verbatim: only `name` is changed.
- A mount that is down still shows its last known catalogue; asking it costs the others nothing, the list least of all.

A view is made once per change, not once per request: `tools` is kept as JSON bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

MAX_NAME = 128
_EXPRESSION = re.compile(r"\{[^{}]*\}")


class Lists(Protocol):
    """The last known lists of one mounted server, as it sent them."""

    @property
    def tools(self) -> list[dict[str, Any]]: ...
    @property
    def resources(self) -> list[dict[str, Any]]: ...
    @property
    def templates(self) -> list[dict[str, Any]]: ...
    @property
    def prompts(self) -> list[dict[str, Any]]: ...
    @property
    def instructions(self) -> str | None: ...


class Source(Protocol):
    """What a catalogue needs of a mount."""

    @property
    def name(self) -> str: ...
    @property
    def catalogue(self) -> Lists: ...


@dataclass(frozen=True, slots=True)
class MountTarget:
    """A tool or prompt of a mount, by the name its own server knows it by."""

    mount: str
    name: str


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    name: str


@dataclass(frozen=True, slots=True)
class OwnTarget:
    name: str


Target = MountTarget | FunctionTarget | OwnTarget


def public_name(owner: str, name: str) -> str:
    """`owner__name`, at most 128 characters; the cut form is the same every time and never equal for two names."""
    joined = f"{owner}__{name}"
    if len(joined) <= MAX_NAME:
        return joined
    return f"{joined[: MAX_NAME - 9]}_{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def template_pattern(template: str) -> re.Pattern[str]:
    """A regular expression that matches what an RFC 6570 template can expand to, generously; no backtracking inside a segment."""
    parts = _EXPRESSION.split(template)
    return re.compile(".+".join(re.escape(part) for part in parts) + r"\Z", re.DOTALL)


@dataclass
class View:
    """One workspace at one moment. Raw members are JSON arrays."""

    tools: list[dict[str, Any]]
    targets: dict[str, Target]
    prompts: dict[str, MountTarget]
    owners: dict[str, str]  # resource URI → mount
    patterns: list[tuple[re.Pattern[str], str]]
    raw: dict[str, bytes]  # tools, managed_tools, prompts, resources, resourceTemplates
    instructions: str

    def owner(self, uri: str) -> str | None:
        """The mount whose resource `uri` is, or None."""
        owned = self.owners.get(uri)
        if owned is not None:
            return owned
        return next((mount for pattern, mount in self.patterns if pattern.match(uri)), None)


def merge(mounts: Iterable[Source], functions: list[dict[str, Any]], own: list[dict[str, Any]]) -> View:
    """Merge in the order given, which is the order things were mounted in: stable while nothing changes."""
    tools: list[dict[str, Any]] = []
    targets: dict[str, Target] = {}
    prompts: list[dict[str, Any]] = []
    prompt_targets: dict[str, MountTarget] = {}
    resources: list[dict[str, Any]] = []
    templates: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    patterns: list[tuple[re.Pattern[str], str]] = []
    instructions: list[str] = []
    for mount in mounts:
        lists = mount.catalogue
        for tool in lists.tools:
            name = public_name(mount.name, tool["name"])
            if name not in targets:
                targets[name] = MountTarget(mount.name, tool["name"])
                tools.append({**tool, "name": name})
        for prompt in lists.prompts:
            name = public_name(mount.name, prompt["name"])
            if name not in prompt_targets:
                prompt_targets[name] = MountTarget(mount.name, prompt["name"])
                prompts.append({**prompt, "name": name})
        for resource in lists.resources:
            if resource["uri"] not in owners:
                owners[resource["uri"]] = mount.name
                resources.append(resource)
        for template in lists.templates:
            patterns.append((template_pattern(template["uriTemplate"]), mount.name))
            templates.append(template)
        if lists.instructions:
            instructions.append(f"{mount.name}: {lists.instructions}")
    for tool in functions:
        targets[tool["name"]] = FunctionTarget(tool["name"].removeprefix("function__"))
        tools.append(tool)
    for tool in own:
        targets[tool["name"]] = OwnTarget(tool["name"])
    encode = msgspec.json.encode
    return View(
        tools=tools + own,
        targets=targets,
        prompts=prompt_targets,
        owners=owners,
        patterns=patterns,
        raw={
            "tools": encode(tools + [tool for tool in own if tool["annotations"]["readOnlyHint"]]),
            "managed_tools": encode(tools + own),
            "prompts": encode(prompts),
            "resources": encode(resources),
            "resourceTemplates": encode(templates),
        },
        instructions="\n\n".join(instructions)[:8192],
    )
