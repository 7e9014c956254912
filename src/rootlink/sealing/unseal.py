"""Opening envelopes: the provisioner's alone (an import contract says so).

Rule 1. An envelope opens only for the project, name, version and key it was sealed for.
Rule 2. A lost private key is not made up for: what was sealed for it would be lost without a word.
Rule 3. A failure says which secret, never anything of what was in the box or the key.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from rootlink.errors import Internal, Unavailable
from rootlink.sealing import keyfile
from rootlink.sealing.envelope import KEY_BYTES, Envelope, key_id

ANEW = "anew"  # an empty file beside the private key's place: a person says that a lost key may be replaced


class SealBroken(Internal):
    """A ciphertext that does not open: altered, cut, moved from another row, or sealed for another key."""


def generate() -> tuple[bytes, bytes]:
    """A new key pair, (private, public), 32 bytes each."""
    key = PrivateKey.generate()
    return bytes(key), bytes(key.public_key)


class Unsealer:
    """`private` is the 32 bytes of an X25519 private key; `SealBroken` otherwise."""

    def __init__(self, private: bytes) -> None:
        if len(private) != KEY_BYTES:
            raise SealBroken(f"a private sealing key has {KEY_BYTES} bytes, this one has {len(private)}")
        key = PrivateKey(private)
        self.public = bytes(key.public_key)
        self.key_id = key_id(self.public)
        self._box = SealedBox(key)

    @classmethod
    def open_or_create(cls, private_path: Path, public_path: Path, *, sealed: Callable[[], bool] = lambda: False) -> Unsealer:
        """The key pair of this installation, made at the first start. The public file is written anew if it is missing or not
        of this private key, so a crash between the two files leaves nothing to repair.

        `sealed` tells whether there are secrets that only an earlier key opens. `Unavailable`: unreadable, no key, or lost: a
        private key that must have been there is not replaced by another unless the file `anew` lies beside its place.
        """
        anew = private_path.with_name(ANEW)
        if not private_path.exists():
            if not anew.exists() and (public_path.exists() or sealed()):
                raise _lost(private_path, public_path)
            keyfile.create(private_path, generate()[0], mode=0o600)
        unsealer = cls(keyfile.read(private_path, private=True))
        if not keyfile.holds(public_path, unsealer.public):
            keyfile.replace(public_path, unsealer.public, mode=0o644)
        anew.unlink(missing_ok=True)
        return unsealer

    def open(self, ciphertext: bytes, *, project: str, name: str, version: int) -> str:
        """The value; `SealBroken` if the box is not intact or not for exactly this row."""
        envelope = self._envelope(ciphertext)
        if envelope is None:
            raise SealBroken(
                f"secret {name!r} of {project} does not open with key {self.key_id}: altered, or sealed for another key"
            )
        if not envelope.is_for(project=project, name=name, version=version, key_id=self.key_id):
            raise SealBroken(f"secret {name!r} of {project}, version {version}, holds a box that was sealed for another row")
        return envelope.value

    def _envelope(self, ciphertext: bytes) -> Envelope | None:
        # Decoding errors quote what they read: they must not become the context of `SealBroken`.
        try:
            return msgspec.json.decode(self._box.decrypt(ciphertext), type=Envelope)
        except (CryptoError, ValueError, TypeError, msgspec.MsgspecError, RecursionError):
            return None


def _lost(private: Path, public: Path) -> Unavailable:
    command = f"rm -f {shlex.quote(str(public))} && touch {shlex.quote(str(private.with_name(ANEW)))}"
    return Unavailable(
        f"{private} is missing: it is the only key that opens the secrets kept here. Put it back from a copy. If there is none, "
        f"the secrets are lost; to start anew: {command}, start, and set every secret again"
    )
