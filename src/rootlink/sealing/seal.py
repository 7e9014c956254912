"""Closing envelopes. This needs the public key alone: whoever takes a value in can seal it, and can't open it again."""

from __future__ import annotations

from pathlib import Path

import msgspec
from nacl.public import PublicKey, SealedBox

from rootlink.errors import Invalid
from rootlink.sealing import keyfile
from rootlink.sealing.envelope import ALGORITHM, KEY_BYTES, Envelope, Sealed, checked_value, key_id

__all__ = ["Sealed", "Sealer"]


class Sealer:
    """`public` is the 32 bytes of an X25519 public key; `Invalid` otherwise."""

    def __init__(self, public: bytes) -> None:
        if len(public) != KEY_BYTES:
            raise Invalid(f"a public sealing key has {KEY_BYTES} bytes, this one has {len(public)}")
        self.key_id = key_id(public)
        self._box = SealedBox(PublicKey(public))

    @classmethod
    def read(cls, path: Path) -> Sealer:
        """From `vault-public/seal.pub`; `Unavailable` if it is not there or no key."""
        return cls(keyfile.read(path))

    def seal(self, project: str, name: str, version: int, value: str) -> Sealed:
        """`project` is the id. `Invalid`, `TooLarge`: the value breaks a rule of `envelope.py`."""
        checked = checked_value(name, value)
        envelope = Envelope(project, name, version, self.key_id, ALGORITHM, checked)
        return Sealed(self._box.encrypt(msgspec.json.encode(envelope)), self.key_id)
