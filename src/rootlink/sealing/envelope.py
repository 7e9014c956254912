"""What is sealed, and the rules of a value.

A libsodium sealed box has no associated data, so what a ciphertext is for goes inside it: project, name, version, key id and
algorithm travel with the value, and `unseal` refuses the box if any of them is not what the row says. A ciphertext that is moved
to another row, another project or an older version does not open.

Rule 1. A value is text of 1 byte to 64 KiB in UTF-8, without NUL: it ends up in the environment of a process.
Rule 2. Nothing here puts a value into a `repr`, a message or the chain of an exception.
"""

from __future__ import annotations

import blake3
import msgspec

from rootlink.errors import Invalid, TooLarge

ALGORITHM = "libsodium-sealed-box"
KEY_BYTES = 32
MAX_VALUE_BYTES = 64 * 1024


class Sealed(msgspec.Struct, frozen=True):
    """A closed envelope and the id of the key that opens it."""

    ciphertext: bytes
    key_id: str

    def __repr__(self) -> str:
        return f"Sealed({len(self.ciphertext)} bytes, key {self.key_id})"


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    project: str  # project id
    name: str
    version: int
    key_id: str
    alg: str
    value: str

    def __repr__(self) -> str:
        return f"Envelope({self.project}, {self.name!r}, version {self.version})"

    def is_for(self, *, project: str, name: str, version: int, key_id: str) -> bool:
        return (self.project, self.name, self.version, self.key_id, self.alg) == (project, name, version, key_id, ALGORITHM)


def key_id(public: bytes) -> str:
    """16 hex digits of the public key's BLAKE3."""
    return blake3.blake3(public).hexdigest(8)


def checked_value(name: str, value: object) -> str:
    """`value` if it may be sealed (rule 1), else `Invalid` or `TooLarge`, naming the secret and never the value."""
    size = _utf8_size(value) if isinstance(value, str) else None
    if not isinstance(value, str) or size is None:
        raise Invalid(f"the value of secret {name!r} must be text (valid UTF-8)")
    if size == 0:
        raise Invalid(f"the value of secret {name!r} is empty")
    if size > MAX_VALUE_BYTES:
        raise TooLarge(f"the value of secret {name!r} is too large: at most {MAX_VALUE_BYTES // 1024} KiB")
    if "\0" in value:
        raise Invalid(f"the value of secret {name!r} holds a NUL character, which no environment can carry")
    return value


def _utf8_size(text: str) -> int | None:
    # UnicodeEncodeError carries the whole text; it must not become the context of what is raised next.
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None
