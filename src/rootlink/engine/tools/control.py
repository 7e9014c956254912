"""One server's tools (or one function's): the rules a person made, what was agreed to, and what follows for a list.

    a list of definitions ──► judge ──► withheld: neither listed nor called, and why      asks: a person is asked before a call

Rules
- The first list is agreed to, without what `lint` flags. From then on a definition is its pin, or held back until it is approved.
- A name in no pin: held where the rules are closed, or what was agreed to can't be read; held while a pinned tool is missing from
  the list, for it may be that one under a new name; else it is new, and agreed to.
- A pin outlives its tool: what goes and comes back changed is held.
- Lists of single clients may hold other tools than the server's own list (`base`). They are judged by the same pins. What only
  such lists hold is remembered (`apart`), for it is not missing from the server's.
- What a server says of itself at the handshake reaches models too: it is judged like a tool called `INSTRUCTIONS`, by the same
  pins, and is not passed on while it is held back or switched off.
- A function is its author's own: nothing of it is held back, but it can be switched off or asked about.

A list is judged once; the same list again costs a look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from rootlink.engine.tools import lint
from rootlink.engine.tools.pins import UNREADABLE, fingerprint
from rootlink.wire.tools import Access, Mode, ToolRules, ToolView

MOST_JUDGED = 5000  # tools in the lists whose judgement is remembered: they are kept alive by it
MOST_FOUND = 2 << 20  # bytes of definitions held back that only single clients' lists have
MOST_NAME = 1024  # characters of a name: it is written down
MOST_PINS = 5000  # what was agreed to goes no further by itself: a server that makes up names would fill the disk
BYTES_A_TOKEN = 4

Definition = dict[str, Any]

INSTRUCTIONS = "@instructions"
TAKEN = "its name stands for what its server says at the handshake"
CHANGED = "its definition changed since it was agreed to"
LOST = "what was agreed to cannot be read any more"
NEW = "it was not there when the others were agreed to"
RENAMED = "{gone} is missing, and this may be its new name"
FULL = f"{MOST_PINS} tools were agreed to already"
ODD = "its definition cannot be read"
LONG = f"its name is longer than {MOST_NAME} characters"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written down. `rules.pins` is all that was agreed to. `agreed`: a first list was. `lost`: an earlier record could
    not be read. `apart`: pinned tools that only lists of single clients have had. `masked`: of definitions that hold a known
    secret, the fingerprint of what was written down of them, which is what there is until the server is up again."""

    rules: ToolRules = ToolRules()
    agreed: bool = False
    lost: bool = False
    apart: list[str] = []
    masked: dict[str, str] = {}


class Why(NamedTuple):
    """Why a tool is withheld. `held`: words, and a person can approve it; None: it is switched off."""

    held: str | None

    def words(self, public: str, owner: str) -> str:
        """`public`: what clients call it; `owner`: the name of its server."""
        if self.held is None:
            return f"{public} is switched off; switch it on with: rootlink tools set {public} allow"
        tool = public.removeprefix(f"{owner}__")
        return (
            f"{public} is held back: {self.held}. Look at it with: rootlink tools show {owner}, "
            f"and agree to it with: rootlink tools approve {owner} {tool}"
        )


class Judged(NamedTuple):
    """By the server's own names of its tools. `withheld` is what is `held`, and what is switched off."""

    withheld: dict[str, Why]
    asks: dict[str, Access | None]
    held: dict[str, Why]


NOTHING = Judged({}, {}, {})
OFF = Why(None)


class Control:
    """`kept` is how it begins; `keep` is told of what it becomes, to write it down. `authored`: a function's."""

    def __init__(self, kept: Kept, keep: Callable[[Kept], None], *, authored: bool = False) -> None:
        self._kept, self._keep, self._authored = kept, keep, authored
        self._judged: dict[int, tuple[list[Definition], Judged]] = {}
        self._flags: dict[tuple[str, frozenset[str]], list[str]] = {}  # fingerprint, names in its list → what is odd
        self._found: dict[str, tuple[Definition, Why]] = {}  # held back, and not in the server's own list
        self._found_bytes = 0
        self._said: Definition | None = None  # at the handshake

    @property
    def kept(self) -> Kept:
        return self._kept

    @property
    def pins(self) -> dict[str, str]:
        return self._kept.rules.pins

    # what a person decided

    def update(self, rules: ToolRules) -> bool:
        """New rules; what they do not pin stays as it was agreed to here. Answers whether anything is different."""
        merged = msgspec.structs.replace(rules, pins={**self.pins, **rules.pins})
        kept = msgspec.structs.replace(self._kept, rules=merged)
        if rules.pins:
            kept = msgspec.structs.replace(kept, agreed=True, lost=False)
        return self._become(kept)

    def choose(self, tool: str, mode: Mode | None) -> bool:
        """`mode` for one tool; None: its default again."""
        modes = {name: chosen for name, chosen in self._kept.rules.modes.items() if name != tool}
        return self._rule(modes=modes if mode is None else {**modes, tool: mode})

    def approve(self, tool: str, fingerprint: str) -> bool:
        return self._rule(pins={**self.pins, tool: fingerprint})

    def _rule(self, **changed: Any) -> bool:
        rules = msgspec.structs.replace(self._kept.rules, **changed)
        return self._become(msgspec.structs.replace(self._kept, rules=rules))

    def _become(self, kept: Kept) -> bool:
        if kept == self._kept:
            return False
        if kept.rules.pins != self.pins:
            kept = msgspec.structs.replace(kept, masked={})
        self._kept = kept
        self._forget()
        self._keep(kept)
        return True

    # what follows

    def judge(self, tools: list[Definition], *, base: bool) -> Judged:
        """`base`: the server's own list, as nobody in particular sees it. The first one is agreed to here."""
        if self._authored:
            return self._judge(tools, base=base)
        known = self._judged.get(id(tools))
        if known is not None and known[0] is tools:
            return known[1]
        if base:
            self._forget()  # the lists of single clients are compared with another one now
        judged = self._judge(tools, base=base)
        self._judged[id(tools)] = tools, judged
        while len(self._judged) > 1 and sum(len(known) for known, _ in self._judged.values()) > MOST_JUDGED:
            del self._judged[next(iter(self._judged))]
        return judged

    def hear(self, said: str | None) -> Why | None:
        """What the server says at the handshake now. Answers why it is not passed on; None: it is. The first is agreed to with
        the first list, so it comes before that."""
        self._said = None if self._authored else instructions(said)
        if self._said is None:
            return None
        why = self._of_said()
        if why is None and INSTRUCTIONS not in self.pins:
            rules = msgspec.structs.replace(self._kept.rules, pins={**self.pins, INSTRUCTIONS: fingerprint(self._said)})
            self._kept = msgspec.structs.replace(self._kept, rules=rules)
            self._keep(self._kept)
        return why or (OFF if self.mode(self._said) == "off" else None)

    def _of_said(self) -> Why | None:
        if self._said is None:
            return None
        mark, first = fingerprint(self._said), not self._kept.agreed
        words = self._objection(self._said, mark, frozenset(), first, [], len(self.pins))
        return None if words is None else Why(words)

    def _forget(self) -> None:
        self._judged.clear()
        self._found.clear()
        self._found_bytes = 0

    def _judge(self, tools: list[Definition], *, base: bool) -> Judged:
        held = {} if self._authored else self._held(tools, base=base)
        modes = {tool["name"]: self.mode(tool) for tool in tools}
        asks = {tool["name"]: self.access(tool) for tool in tools if modes[tool["name"]] == "ask"}
        return Judged({**held, **{name: OFF for name, mode in modes.items() if mode == "off"}}, asks, held)

    def _held(self, tools: list[Definition], *, base: bool) -> dict[str, Why]:
        names = frozenset(tool["name"] for tool in tools)
        first = not self._kept.agreed
        missing = sorted({*self.pins}.difference(self._kept.apart, names, {INSTRUCTIONS}))
        held: dict[str, Why] = {}
        agreed: dict[str, str] = {}
        for tool in tools:
            mark = fingerprint(tool)
            words = (
                TAKEN
                if tool["name"] == INSTRUCTIONS
                else self._objection(tool, mark, names, first, missing, len(self.pins) + len(agreed))
            )
            if words is not None:
                held[tool["name"]] = Why(words)
                self._find(tool, held[tool["name"]], base=base)
            elif tool["name"] not in self.pins:
                agreed[tool["name"]] = mark
        self._agree(agreed, names, base=base)
        return held

    def _objection(
        self, tool: Definition, mark: str, names: frozenset[str], first: bool, missing: list[str], pinned: int
    ) -> str | None:
        pin = self.pins.get(tool["name"])
        if mark == UNREADABLE:
            return ODD
        if len(tool["name"]) > MOST_NAME:
            return LONG
        if pin is not None:
            return None if mark in (pin, self._kept.masked.get(tool["name"])) else CHANGED
        if self._kept.lost:
            return LOST
        if pinned >= MOST_PINS:
            return FULL
        if flags := self._flagged(tool, mark, names):
            return "; ".join(flags)
        if first:
            return None
        if self._kept.rules.closed:
            return NEW
        return RENAMED.format(gone=lint.shown(missing[0])) if missing else None

    def _find(self, tool: Definition, why: Why, *, base: bool) -> None:
        size = BYTES_A_TOKEN * tokens(tool)
        if not base and tool["name"] not in self._found and self._found_bytes + size <= MOST_FOUND:
            self._found[tool["name"]] = tool, why
            self._found_bytes += size

    def _agree(self, agreed: dict[str, str], names: Iterable[str], *, base: bool) -> None:
        """Written down only if something is new: most lists are seen again and again."""
        kept = self._kept
        apart = {*kept.apart, *agreed} if not base else {*kept.apart}.difference(names)
        if not agreed and kept.agreed and apart == {*kept.apart}:
            return
        rules = msgspec.structs.replace(kept.rules, pins={**kept.rules.pins, **agreed})
        self._kept = msgspec.structs.replace(kept, rules=rules, agreed=True, apart=sorted(apart))
        self._keep(self._kept)

    def written(self, tools: list[Definition], as_written: list[Definition]) -> None:
        """The server's own list was written down, with known secrets taken out."""
        differing = [(tool, other) for tool, other in zip(tools, as_written, strict=True) if other != tool]
        masked = {
            tool["name"]: fingerprint(other) for tool, other in differing if self.pins.get(tool["name"]) == fingerprint(tool)
        }
        if masked != self._kept.masked:
            self._kept = msgspec.structs.replace(self._kept, masked=masked)
            self._keep(self._kept)

    def _flagged(self, tool: Definition, mark: str, names: frozenset[str]) -> list[str]:
        flags = self._flags.get((mark, names))
        if flags is None:
            if len(self._flags) > MOST_PINS:
                self._flags.clear()
            flags = self._flags[mark, names] = lint.flags(tool, names)
        return flags

    def access(self, tool: Definition) -> Access | None:
        """As the catalogue says, else as the server does; None: neither says anything."""
        labels = self._kept.rules.access
        if self._authored and len(labels) == 1:  # the catalogue knows a connection's one function by a name of its own
            return next(iter(labels.values()))
        if (known := labels.get(tool["name"])) is not None:
            return known
        hints = tool.get("annotations")
        if not isinstance(hints, dict):
            return None
        if hints.get("readOnlyHint") is True:
            return "read"
        if hints.get("destructiveHint") is True:
            return "destructive"
        return "write" if hints.get("readOnlyHint") is False else None

    def mode(self, tool: Definition) -> Mode:
        rules = self._kept.rules
        chosen = rules.modes.get(tool["name"])
        if tool["name"] == INSTRUCTIONS:
            return "off" if chosen == "off" else "allow"
        if chosen is not None:
            return chosen
        access = self.access(tool)
        if access is None:
            return "ask" if rules.closed else "allow"
        return "allow" if access == "read" else "ask"

    # for a person

    def known(self, tools: list[Definition]) -> list[Definition]:
        """The server's own list, what is held back of single clients' lists, and what it says at the handshake."""
        names = {tool["name"] for tool in tools}
        found = [tool for name, (tool, _) in self._found.items() if name not in names]
        said = [self._said] if self._said is not None and INSTRUCTIONS not in names else []
        return [*tools, *found, *said]

    def views(self, tools: list[Definition], public: dict[str, str]) -> list[ToolView]:
        """`public`: what clients call each of `known(tools)`."""
        held, known = self.held(tools), self.known(tools)
        names = frozenset(tool["name"] for tool in known)
        return [self._view(tool, public[tool["name"]], held.get(tool["name"]), names) for tool in known]

    def held(self, tools: list[Definition]) -> dict[str, Why]:
        """What of `known(tools)` is held back."""
        why = self._of_said()
        said = {} if why is None else {INSTRUCTIONS: why}
        return {**said, **self.judge(tools, base=True).held, **{name: why for name, (_, why) in self._found.items()}}

    def _view(self, tool: Definition, public: str, why: Why | None, names: frozenset[str]) -> ToolView:
        mark = fingerprint(tool)
        return ToolView(
            tool=tool["name"],
            name=public,
            title=_title(tool),
            description=tool.get("description") or "",
            access=self.access(tool),
            mode=self.mode(tool),
            chosen=self._kept.rules.modes.get(tool["name"]),
            held=why.held if why is not None else None,
            flags=self._flagged(tool, mark, names),
            tokens=tokens(tool),
            fingerprint=mark,
        )


def instructions(said: str | None) -> Definition | None:
    """What a server says at the handshake, as if it were a tool."""
    return {"name": INSTRUCTIONS, "description": said} if said else None


def _title(tool: Definition) -> str:
    hints = tool.get("annotations")
    title = tool.get("title") or (hints.get("title") if isinstance(hints, dict) else None)
    return title if isinstance(title, str) else ""


def tokens(tool: Definition) -> int:
    """About what a definition costs a model each time: an estimate by its length."""
    try:
        return -(-len(msgspec.json.encode(tool)) // BYTES_A_TOKEN)
    except (TypeError, ValueError, RecursionError):
        return 0
