"""Ids: a noun's prefix and 12 random hex digits (48 bits; unique columns catch the rest). An id is never a credential.

Where a caller may give an id or a name (`/projects/{p}`, `/secrets/{id}`), a name that looks like an id of that noun would make
one thing answer for another, so such names are refused.
"""

from __future__ import annotations

import re
import secrets
from typing import Literal

from rootlink.errors import Invalid

Prefix = Literal["prj", "key", "sec", "con", "act"]


def new_id(prefix: Prefix) -> str:
    return f"{prefix}_{secrets.token_hex(6)}"


def is_id(prefix: Prefix, text: str) -> bool:
    return re.fullmatch(rf"{prefix}_[0-9a-f]{{12}}", text) is not None


def not_an_id(prefix: Prefix, name: str) -> str:
    """`name` unchanged; `Invalid` if it could be taken for an id."""
    if is_id(prefix, name):
        raise Invalid(f"name {name!r} is not allowed: it has the form of an id; choose another")
    return name
