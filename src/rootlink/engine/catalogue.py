"""One workspace's catalogue: every mount's tools, resources and prompts under one roof, and whose each is.

Rules
- A tool or prompt is `<mount>__<name>`, a function `function__<name>`, the engine's own tools keep their plain names. Mount
  names never hold `__`, so the first `__` separates.
- A public name has 1 to 64 letters, digits, `_`, `-` or `.`: 128 would be MCP's limit, but one name past 64 makes LLM APIs refuse
  the whole list. What is not allowed becomes `_`, what is too long is cut, and either then ends in a hash of the whole name:
  the same every time, and never equal for two. A name that needs no change always keeps it, whatever others became.
- Resource URIs pass verbatim: the first mount that lists one owns it, in the order of mounting; the same URI of another mount is
  listed under an alias (aliases.py), templates likewise. A URI nobody lists belongs to the first whose template matches, then to
  the one mount with resources, or the one that lists others of its scheme.
- A tool that is held back or switched off (`tools/`) is in no list and nobody's target; its name stays taken, and says why.
- Fields nobody here knows pass verbatim: only `name` is changed, and what a client of another era would choke on (`_for_era`).
- A mount that is down still shows its last known catalogue; asking it costs the others nothing, the list least of all.

A view is made once per change and kind of client, not once per request; pages are encoded when they are first asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from rootlink.engine import aliases
from rootlink.engine.aliases import alias
from rootlink.engine.bridge import STATELESS, plain_tool
from rootlink.engine.calls import Client
from rootlink.engine.mounts import mirrors
from rootlink.engine.pages import Pages
from rootlink.engine.tools.control import INSTRUCTIONS, NOTHING, Judged, Why
from rootlink.engine.tools.question import can_be_asked
from rootlink.wire.tools import Access

MAX_NAME = 64
MAX_TTL = (1 << 53) - 1  # milliseconds; a larger number is none to JavaScript
MAX_INSTRUCTIONS = 8192  # characters, of all mounts together
UNASKED = (
    "rootlink: before some tools are called a person is to be asked, but this client can't be asked (it offers no elicitation), "
    "so they are called without. Make sure that your user agrees before you call:"
)
FUNCTION = "function"  # what stands where a mount's name does in a function's tool
KINDS = {"tools": "tools", "resources": "resources", "resourceTemplates": "templates", "prompts": "prompts"}

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]")
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
    @property
    def capabilities(self) -> dict[str, Any]: ...
    @property
    def version(self) -> str: ...
    @property
    def cache(self) -> Mapping[str, Mapping[str, Any]]:
        """tools, resources, templates, prompts → `{"ttlMs"?, "cacheScope"?}`, as a stateless server said of that list."""
        ...


class Mounted(Protocol):
    """What a catalogue needs of a mount. `catalogue`: its lists as they are now, as nobody in particular sees them."""

    @property
    def name(self) -> str: ...
    @property
    def catalogue(self) -> Lists: ...


def _passes(said: str | None) -> Why | None:
    return None


class Source(NamedTuple):
    """A mount, and its lists at one moment, as one kind of client sees them. `judged`: what is done with its tools. `own`: they
    are the mount's own lists, which every client sees that has no others. `hear`: why what it says at the handshake is not
    passed on, None: it is."""

    mount: Mounted
    lists: Lists
    judged: Judged = NOTHING
    own: bool = True
    hear: Callable[[str | None], Why | None] = _passes

    @property
    def name(self) -> str:
        return self.mount.name

    @property
    def said(self) -> str | None:
        """At the handshake, or that it is held back."""
        said = self.mount.catalogue.instructions
        why = self.hear(said) if said else None
        if why is None:
            return said
        return None if why.held is None else why.words(f"{self.name}__{INSTRUCTIONS}", self.name)


@dataclass(frozen=True, slots=True)
class MountTarget:
    """A tool or prompt of a mount, by the name its own server knows it by. `asks`: a person is asked before each call."""

    mount: str
    name: str
    asks: bool = False
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    name: str
    asks: bool = False
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class OwnTarget:
    """Never asked about: a key of scope `manage` is a person's decision."""

    name: str
    asks: bool = False
    access: Access | None = None


Target = MountTarget | FunctionTarget | OwnTarget


class Owned(NamedTuple):
    """A resource (or a template), by the URI its own server knows it by."""

    mount: str
    uri: str


def public_names(owners: Iterable[tuple[str, Iterable[str]]]) -> dict[tuple[str, str], str]:
    """(owner, name) → public name, the same whatever the order of owners and names."""
    pairs = {(owner, name): f"{owner}__{name}" for owner, names in owners for name in names}
    found = {pair: joined for pair, joined in pairs.items() if _PLAIN.match(joined)}
    taken = set(found.values())
    for pair, joined in sorted(pairs.items()):
        if pair not in found:
            found[pair] = _altered(joined, taken)
            taken.add(found[pair])
    return found


def _altered(joined: str, taken: set[str]) -> str:
    """The hash grows where somebody has the short one already, which takes intent; who takes all of its lengths meets another."""
    plain = _FORBIDDEN.sub("_", joined)
    digests = (hashlib.sha256((joined + "\0" * more).encode("utf-8", "surrogatepass")).hexdigest() for more in count())
    forms = (f"{plain[: MAX_NAME - digits - 1]}_{digest[:digits]}" for digest in digests for digits in (8, 16, 32, 48, 60))
    return next(form for form in forms if form not in taken)


class Template:
    """What an RFC 6570 template can expand to, generously: its literal parts in their order, and something between each two.

    Found part by part, each as early as it can be: no regular expression, for those of a server's making can be made to take
    forever.
    """

    __slots__ = ("_parts",)

    def __init__(self, template: str) -> None:
        self._parts = _EXPRESSION.split(template)

    def match(self, uri: str) -> bool:
        first, *between = self._parts
        if not between:
            return uri == first
        last = between.pop()
        at, end = len(first), len(uri) - len(last)
        if not (uri.startswith(first) and uri.endswith(last)):
            return False
        for part in between:
            found = uri.find(part, at + 1, end)
            if found < 0:
                return False
            at = found + len(part)
        return at < end


@dataclass
class View:
    """One workspace at one moment, as clients of one kind see it. `client`: one of them; None: nobody in particular (REST).
    `withheld`: public name of a tool that is not listed → why, in words."""

    sources: Sequence[Source]
    client: Client | None
    lists: dict[str, list[dict[str, Any]]]  # tools (all, with our own), prompts, resources, resourceTemplates
    used: list[dict[str, Any]]  # tools for a key that may not manage
    targets: dict[str, Target]
    prompts: dict[str, MountTarget]
    owners: dict[str, Owned]
    templates: dict[str, Owned]
    patterns: list[tuple[Template, str]]
    aliased: dict[str, dict[str, str]]  # mount → its URIs that are another's → alias
    withheld: dict[str, str]
    _pages: dict[str, Pages] = field(default_factory=dict)

    @property
    def tools(self) -> list[dict[str, Any]]:
        return self.lists["tools"]

    @property
    def instructions(self) -> str:
        """As the mounts' are now: a handshake asks for them, nothing else does."""
        said = [(source.name, source.said) for source in self.sources]
        texts = [f"{name}: {text}" for name, text in said if text]
        if self._unasked:
            texts.insert(0, f"{UNASKED} {', '.join(self._unasked)}")
        if sum(map(len, texts)) > MAX_INSTRUCTIONS:
            texts = [_cut(text, MAX_INSTRUCTIONS // len(texts)) for text in texts]
        return "\n\n".join(texts)

    @property
    def _unasked(self) -> list[str]:
        """Tools this client calls without being asked, because it can't be."""
        if self.client is None or can_be_asked(self.client):
            return []
        return [name for name, target in self.targets.items() if target.asks]

    def source(self, mount: str) -> Source:
        return self._sources[mount]

    @cached_property
    def _sources(self) -> dict[str, Source]:
        return {source.name: source for source in self.sources}

    def page(self, member: str, cursor: object, *, manages: bool) -> Raw:
        """The answer to a list request: `{member: […]}`, with `nextCursor` when there is more. Raises RpcError -32602."""
        of = "used" if member == "tools" and not manages else member
        pages = self._pages.get(of)
        if pages is None:
            items = self.used if of == "used" else self.lists[member]
            pages = self._pages[of] = Pages(member, items, self._lifetime(member))
        return pages.first if cursor is None else pages.at(cursor)

    def _lifetime(self, member: str) -> int | None:
        """Milliseconds: the least that any server gave its list. None for session clients, and where one gave none: the
        era then says 0, as it does of whatever says nothing."""
        if self.client is None or not self.client.stateless:
            return None
        return min((_ttl(source.lists, KINDS[member]) for source in self.sources), default=0) or None

    @cached_property
    def mirrored(self) -> dict[str, dict[tuple[str, ...], str]]:
        """Tool → {path in its arguments → header}: what stateless clients repeat as `Mcp-Param-*` (mounts/mirrors.py)."""
        return {tool["name"]: found for tool in self.tools if (found := _mirrors(tool.get("inputSchema")))}

    def owner(self, uri: str) -> Owned | None:
        """Whose resource `uri` is, or None."""
        owned = self.owners.get(uri)
        if owned is not None:
            return owned
        named = aliases.read(uri)
        if named is not None and any(source.name == named[0] for source in self.sources):
            return Owned(*named)
        mount = next((mount for pattern, mount in self.patterns if pattern.match(uri)), None) or self._likely(uri)
        return None if mount is None else Owned(mount, uri)

    def _likely(self, uri: str) -> str | None:
        """Servers may answer for URIs that they list nowhere. More than one that could: nobody is asked, for a URI is data."""
        having = [source for source in self.sources if _has_resources(source.lists)]
        if len(having) > 1:
            scheme = uri.partition(":")[0]
            having = [source for source in having if scheme in _schemes(source.lists)]
        return having[0].name if len(having) == 1 else None


def _mirrors(schema: Any) -> dict[tuple[str, ...], str]:
    """What is searched for is searched for as bytes first: walking 500 schemas takes 10 ms, and next to none has any."""
    if mirrors.KEY.encode() not in msgspec.json.encode(schema):
        return {}
    try:
        return mirrors.mirrors(schema)
    except mirrors.BadMirror:  # of a server of the session era, to which it means nothing
        return {}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _ttl(lists: Lists, kind: str) -> int:
    ttl = lists.cache.get(kind, {}).get("ttlMs")
    return min(ttl, MAX_TTL) if isinstance(ttl, int) and not isinstance(ttl, bool) and ttl > 0 else 0


def _has_resources(lists: Lists) -> bool:
    return "resources" in lists.capabilities or bool(lists.resources or lists.templates)


def _schemes(lists: Lists) -> set[str]:
    uris = [*(item["uri"] for item in lists.resources), *(item["uriTemplate"] for item in lists.templates)]
    return {uri.partition(":")[0] for uri in uris}


def is_stateless(lists: Lists) -> bool:
    """Whether the server is of the stateless era."""
    return lists.version >= STATELESS


def merge(
    sources: Sequence[Source],
    functions: list[dict[str, Any]],
    own: list[dict[str, Any]],
    client: Client | None = None,
    judged: Mapping[str, Judged] = {},
) -> View:
    """Merge in the order given, which is the order things were mounted in: stable while nothing changes. `judged`: by the name of
    a function's tool."""
    resources, owners, of_resources = _owned(sources, "resources", "uri")
    templates, shapes, of_templates = _owned(sources, "templates", "uriTemplate")
    aliased = {name: {**of_resources[name], **of_templates[name]} for name in of_resources}
    tools, targets, withheld = _named(sources, "tools")
    prompts, prompt_targets, _ = _named(sources, "prompts")
    for public, of_function in judged.items():
        for why in of_function.withheld.values():
            withheld[public] = why.words(public, FUNCTION)
    functions = [tool for tool in functions if tool["name"] not in withheld]
    lists = {source.name: source.lists for source in sources}
    every: dict[str, Target] = {**targets}
    every.update({tool["name"]: _function(tool["name"], judged.get(tool["name"], NOTHING)) for tool in functions})
    every.update({tool["name"]: OwnTarget(tool["name"]) for tool in own})
    shown = [_for_client(tool, lists[target.mount], client, aliased[target.mount]) for tool, target in tools] + functions
    return View(
        sources=sources,
        client=client,
        lists={
            "tools": [*shown, *own],
            "prompts": [prompt for prompt, _ in prompts],
            "resources": resources,
            "resourceTemplates": templates,
        },
        used=[*shown, *(tool for tool in own if tool["annotations"]["readOnlyHint"])],
        targets=every,
        prompts=prompt_targets,
        owners=owners,
        templates=shapes,
        patterns=[(Template(owned.uri), owned.mount) for uri, owned in shapes.items() if uri == owned.uri],
        aliased=aliased,
        withheld=withheld,
    )


def _function(public: str, judged: Judged) -> FunctionTarget:
    return FunctionTarget(public.removeprefix(f"{FUNCTION}__"), bool(judged.asks), next(iter(judged.asks.values()), None))


Named = list[tuple[dict[str, Any], MountTarget]]


def _named(sources: Sequence[Source], kind: str) -> tuple[Named, dict[str, MountTarget], dict[str, str]]:
    """Every item under its public name, with whose it is; of two with one name in one mount the first. The last: public names of
    tools that are withheld, and why."""
    given = [(source.name, [item["name"] for item in getattr(source.lists, kind)]) for source in sources]
    public = public_names(given)
    items: Named = []
    targets: dict[str, MountTarget] = {}
    withheld: dict[str, str] = {}
    for source in sources:
        judged = source.judged if kind == "tools" else NOTHING
        for item in getattr(source.lists, kind):
            own = item["name"]
            name = public[source.name, own]
            if own in judged.withheld:
                withheld[name] = judged.withheld[own].words(name, source.name)
            elif name not in targets:
                targets[name] = MountTarget(source.name, own, own in judged.asks, judged.asks.get(own))
                items.append(({**item, "name": name}, targets[name]))
    return items, targets, withheld


def _owned(
    sources: Sequence[Source], kind: str, key: str
) -> tuple[list[dict[str, Any]], dict[str, Owned], dict[str, dict[str, str]]]:
    """Items as they are listed, owners by listed URI, and each mount's URIs that are listed under an alias."""
    items: list[dict[str, Any]] = []
    owners: dict[str, Owned] = {}
    aliased: dict[str, dict[str, str]] = {source.name: {} for source in sources}
    for source in sources:
        for item in getattr(source.lists, kind):
            uri = item[key]
            listed = uri if uri not in owners and aliases.read(uri) is None else alias(source.name, uri)
            if listed in owners or owners.get(uri) == (source.name, uri):
                continue
            owners[listed] = Owned(source.name, uri)
            items.append(item if listed == uri else {**item, key: listed})
            if listed != uri:
                aliased[source.name][uri] = listed
    return items, owners, aliased


def _for_client(tool: dict[str, Any], lists: Lists, client: Client | None, table: dict[str, str]) -> dict[str, Any]:
    if table:
        tool = aliases.in_tool(tool, table)
    return tool if client is None else _for_era(tool, lists, client)


def _for_era(tool: dict[str, Any], lists: Lists, client: Client) -> dict[str, Any]:
    """`tool` without what clients of this era cannot use.

    Session clients: schemas that are not of an object, whoever's they are, for strict ones throw the whole list away. Tasks are
    another thing in each era and are not translated: `execution.taskSupport` is shown to clients of the server's own era alone.
    A schema of arguments that does not say they are an object says so: else an official client refuses every server's tools.
    """
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        tool = {**tool, "inputSchema": {**(schema if isinstance(schema, dict) else {}), "type": "object"}}
    if not client.stateless:
        tool = plain_tool(tool)
    execution = tool.get("execution")
    if client.stateless == is_stateless(lists) or not isinstance(execution, dict):
        return tool
    if execution.get("taskSupport") not in ("optional", "required"):
        return tool
    left = {name: value for name, value in execution.items() if name != "taskSupport"}
    rest = {name: value for name, value in tool.items() if name != "execution"}
    return {**rest, "execution": left} if left else rest
