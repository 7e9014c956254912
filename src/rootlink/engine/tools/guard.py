"""An engine's tool control: one `Control` for each mount and each function, and what clients' people said when they were asked.

    Installer  hold, update, choose, approve, drop     when a mount comes, is decided about, goes
    Dispatch   judge a list; ask before a call; and once more, when the call is just about to be sent (`refuse_withheld`)

Rules
- Nothing is known of an owner: all of its tools are withheld. So a mount must be held before it is listed.
- A mount's own list is judged before any list of a single client: the first list is the one that is agreed to.
- Who said "do not ask again" said it for one client, one tool and one definition of it, while this engine runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from rootlink.engine.calls import Call
from rootlink.engine.rpc import RpcError
from rootlink.engine.tools import question
from rootlink.engine.tools.control import NOTHING, Control, Definition, Judged, Kept, Why
from rootlink.engine.tools.question import can_be_asked
from rootlink.errors import Conflict, Forbidden, Invalid, NotFound
from rootlink.wire.tools import Access, Mode, ToolRules, ToolView

MOST_CLIENTS, MOST_REMEMBERED = 1000, 500  # whose answers are remembered, and how many of each
UNKNOWN = Why("nothing is known of what was agreed to")

Redact = Callable[[str], str]


class Owner(NamedTuple):
    """Whose tools. `kind`: a mount and a function may bear one name."""

    ws: str
    kind: Literal["mount", "function"]
    name: str


def own_definition(tool: Definition, name: str) -> Definition:
    """A function's tool, under the name that rules know it by."""
    return {**tool, "name": name}


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What a person decides about one tool. `mode` null: its default again. `approve`: the fingerprint they looked at."""

    mode: Mode | msgspec.UnsetType | None = msgspec.UNSET
    approve: str | msgspec.UnsetType = msgspec.UNSET


class Guard:
    """`keep` writes down what is known of an owner."""

    def __init__(self, keep: Callable[[Owner, Kept], None], redact: Redact) -> None:
        self._keep, self._redact = keep, redact
        self._controls: dict[Owner, Control] = {}
        self._remembered: OrderedDict[str, dict[tuple[Owner, str], str]] = OrderedDict()  # client key → tool → its pin

    # owners

    def hold(self, owner: Owner, kept: Kept) -> None:
        """It is here from now on."""

        def keep(kept: Kept) -> None:
            self._keep(owner, kept)

        self._controls[owner] = Control(kept, keep, authored=owner.kind == "function")
        self._forget_answers(owner)  # whoever bore this name before, its user was asked about that one

    def drop(self, owner: Owner) -> None:
        self._controls.pop(owner, None)

    def kept(self, owner: Owner) -> Kept:
        control = self._controls.get(owner)
        return Kept() if control is None else control.kept

    def update(self, owner: Owner, rules: ToolRules) -> bool:
        """Answers whether anything is different now."""
        control = self._controls.get(owner)
        if control is None or not control.update(rules):
            return False
        self._forget_answers(owner)
        return True

    # lists

    def judge(self, owner: Owner, tools: list[Definition], base: list[Definition]) -> Judged:
        """`tools` as one client sees them; `base`: the server's own list, which may be the same one."""
        control = self._controls.get(owner)
        if control is None:
            return NOTHING._replace(withheld={tool["name"]: UNKNOWN for tool in tools})
        judged = control.judge(base, base=True)
        return judged if tools is base else control.judge(tools, base=False)

    def hear(self, owner: Owner, said: str | None) -> Why | None:
        """What it says at the handshake now. Answers why models are not told so; None: they are."""
        control = self._controls.get(owner)
        return UNKNOWN if control is None else control.hear(said)

    def written(self, owner: Owner, tools: list[Definition], as_written: list[Definition]) -> None:
        """Its own list was written down like this."""
        control = self._controls.get(owner)
        if control is not None:
            control.written(tools, as_written)

    def held(self, owner: Owner, tools: list[Definition]) -> dict[str, Why]:
        """Tools that a person has to look at: of the server's own list, and of single clients'."""
        control = self._controls.get(owner)
        return {} if control is None else control.held(tools)

    def known(self, owner: Owner, tools: list[Definition]) -> list[Definition]:
        control = self._controls.get(owner)
        return tools if control is None else control.known(tools)

    def views(self, owner: Owner, tools: list[Definition], public: dict[str, str]) -> list[ToolView]:
        """`public`: what clients call each tool of `known`."""
        control = self._controls.get(owner)
        return [] if control is None else control.views(tools, public)

    # what a person decides

    def change(self, owner: Owner, tools: list[Definition], tool: str, change: Change) -> bool:
        """Answers whether anything is different. Raises NotFound, Invalid, and Conflict when what was looked at has changed."""
        control = self._controls.get(owner)
        known = {view.tool: view for view in self.views(owner, tools, {one["name"]: "" for one in self.known(owner, tools)})}
        if control is None or tool not in known:
            raise NotFound(f"{owner.name} has no tool {tool[:200]!r}; see: rootlink tools show {owner.name}")
        if change.mode is msgspec.UNSET and change.approve is msgspec.UNSET:
            raise Invalid(
                "nothing to change: give `mode` (allow, ask, off, or null for the default) or `approve` (a fingerprint)"
            )
        if change.approve is not msgspec.UNSET and change.approve != known[tool].fingerprint:
            raise Conflict(
                f"{tool[:200]} of {owner.name} is another definition now than the one that was looked at (its fingerprint is "
                f"{known[tool].fingerprint or 'unreadable'}); look again: rootlink tools show {owner.name}"
            )
        approved = change.approve is not msgspec.UNSET and control.approve(tool, change.approve)
        chosen = change.mode is not msgspec.UNSET and control.choose(tool, change.mode)
        if chosen:
            self._forget_answers(owner)
        return approved or chosen

    # calls

    def refuse_withheld(self, owner: Owner, tools: list[Definition], base: list[Definition], tool: str, public: str) -> None:
        """Raises Forbidden, in words."""
        why = self.judge(owner, tools, base).withheld.get(tool)
        if why is not None:
            raise Forbidden(why.words(public, owner.name))

    async def ask(
        self, call: Call, owner: Owner, tool: str, public: str, access: Access | None, arguments: dict[str, Any]
    ) -> str | None:
        """Ask this call's client before it is sent. None: go on; else why it is not called, in words."""
        if not can_be_asked(call.client) or self._answered(call.client.key, owner, tool):
            return None
        pin = self._pin(owner, tool)
        try:
            said = question.said(await call.ask(question.METHOD, question.params(public, access, arguments, self._redact)))
        except RpcError as error:
            return f"{public} was not called: its user has to agree to each call, and could not be asked: {error.message[:300]}"
        if not said.yes:
            return f"{public} was not called: its user was asked, and did not agree"
        if said.remember:
            self._remember(call.client.key, owner, tool, pin)
        return None

    def _pin(self, owner: Owner, tool: str) -> str:
        control = self._controls.get(owner)
        return control.pins.get(tool, "") if control is not None else ""

    def _answered(self, key: str, owner: Owner, tool: str) -> bool:
        pin = self._remembered.get(key, {}).get((owner, tool))
        return pin is not None and pin == self._pin(owner, tool)

    def _remember(self, key: str, owner: Owner, tool: str, pin: str) -> None:
        answers = self._remembered.setdefault(key, {})
        answers[owner, tool] = pin
        self._remembered.move_to_end(key)
        while len(answers) > MOST_REMEMBERED:
            del answers[next(iter(answers))]
        while len(self._remembered) > MOST_CLIENTS:
            self._remembered.popitem(last=False)

    def _forget_answers(self, owner: Owner) -> None:
        """A person decided about its tools: who said "not again" said it before."""
        for answers in self._remembered.values():
            for known in [known for known in answers if known[0] == owner]:
                del answers[known]

    def forget_client(self, key: str) -> None:
        self._remembered.pop(key, None)
