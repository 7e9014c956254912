"""The host's side of `crypto.subtle` (https://w3c.github.io/webcrypto): one operation, JSON in, JSON out, bytes in base64.

Digests and HMAC of little data are computed where they are asked for. All else goes to threads of this module's own, of a run one
after another: a flood of them keeps neither the event loop nor what else uses threads waiting. `cryptography` is imported there,
at first use. A refusal is `{"e": message, "n": the DOMException's name}`; nothing of a key or of data is ever in a message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

MAX_BYTES: Final = 8 << 20  # of one operation's data and key
MAX_PUBLIC_KEY_BYTES: Final = 1024
SMALL_CHARS: Final = 16 << 10  # about 30 microseconds of SHA-512
THREADS: Final = 2

_HASHES: Final = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_COORDINATE_BYTES: Final = {"P-256": 32, "P-384": 48}
_IV_BYTES: Final = range(8, 129)  # what `cryptography` takes
_TAG_BITS: Final = (32, 64, 96, 104, 112, 120, 128)


class Subtle(msgspec.Struct, frozen=True, tag_field="k", tag="subtle"):
    """`o`: what to do. `a`: a hash's name. `c`: a curve's, or Ed25519. `f`: how an imported key is written. `x`: data. `s`: a
    signature. `d`: additional data. `t`: bits of the tag. All bytes in base64."""

    i: int
    o: Literal["digest", "sign", "verify", "encrypt", "decrypt", "import", "check"]
    a: str = ""
    c: Literal["", "P-256", "P-384", "Ed25519"] = ""
    f: Literal["raw", "spki"] = "raw"
    key: str = ""
    x: str = ""
    s: str = ""
    iv: str = ""
    d: str = ""
    t: int = 128

    @property
    def chars(self) -> int:
        return len(self.x) + len(self.d) + len(self.key) + len(self.s) + len(self.iv)

    @property
    def small(self) -> bool:
        """Whether it may be computed on an event loop."""
        return self.o in ("digest", "sign", "verify") and self.chars <= SMALL_CHARS


Answer = dict[str, Any]


class Refused(Exception):
    """`name` is the DOMException's; the message is for the body's author."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@cache
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="subtle")


def compute(operation: Subtle) -> Answer:
    """Raises nothing."""
    try:
        if operation.chars > MAX_BYTES // 3 * 4:
            raise Refused("OperationError", f"the data is larger than {MAX_BYTES >> 20} MiB")
        return _WORK[operation.o](operation)
    except Refused as error:
        return {"e": f"crypto.subtle: {error}", "n": error.name}
    except Exception as error:  # noqa: BLE001  whatever a library makes of a body's bytes is the body's to handle
        return {"e": f"crypto.subtle: the operation failed ({type(error).__name__})", "n": "OperationError"}


def _digest(operation: Subtle) -> Answer:
    return {"x": _text(hashlib.new(_hash(operation), _bytes(operation.x)).digest())}


def _mac(operation: Subtle) -> bytes:
    return hmac.digest(_bytes(operation.key), _bytes(operation.x), _hash(operation))


def _sign(operation: Subtle) -> Answer:
    return {"x": _text(_mac(operation))}


def _verify(operation: Subtle) -> Answer:
    return {"v": hmac.compare_digest(_mac(operation), _bytes(operation.s))}


def _encrypt(operation: Subtle) -> Answer:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key, iv, tag_bytes = _aes(operation)
    encryptor = Cipher(algorithms.AES(key), modes.GCM(iv)).encryptor()
    encryptor.authenticate_additional_data(_bytes(operation.d))
    text = encryptor.update(_bytes(operation.x)) + encryptor.finalize()
    return {"x": _text(text + encryptor.tag[:tag_bytes])}


def _decrypt(operation: Subtle) -> Answer:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key, iv, tag_bytes = _aes(operation)
    data = _bytes(operation.x)
    if len(data) < tag_bytes:
        raise Refused("OperationError", "the data is shorter than its tag")
    tag = data[len(data) - tag_bytes :]
    decryptor = Cipher(algorithms.AES(key), modes.GCM(iv, tag, min_tag_length=tag_bytes)).decryptor()
    decryptor.authenticate_additional_data(_bytes(operation.d))
    try:
        return {"x": _text(decryptor.update(data[: len(data) - tag_bytes]) + decryptor.finalize())}
    except InvalidTag:
        raise Refused("OperationError", "the data can't be decrypted: a wrong key or iv, or it was changed") from None


def _aes(operation: Subtle) -> tuple[bytes, bytes, int]:
    """The key, the iv, how many bytes the tag has."""
    iv = _bytes(operation.iv)
    if len(iv) not in _IV_BYTES:
        raise Refused("OperationError", f"an iv of {len(iv)} bytes is not supported: {_IV_BYTES[0]} to {_IV_BYTES[-1]} are")
    if operation.t not in _TAG_BITS:
        raise Refused("OperationError", f"tagLength is one of {', '.join(map(str, _TAG_BITS))}")
    return _bytes(operation.key), iv, operation.t // 8


def _import(operation: Subtle) -> Answer:
    """A public key, as SPKI or as its bare bytes (in `key`), in the form `check` takes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    data = _bytes(operation.key)
    if len(data) > MAX_PUBLIC_KEY_BYTES:
        raise Refused("DataError", f"a public key has at most {MAX_PUBLIC_KEY_BYTES} bytes")
    if operation.c == "Ed25519":
        return {"x": _text(_ed25519(operation.f, data).public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return {"x": _text(_point(operation.f, operation.c, data).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))}


def _check(operation: Subtle) -> Answer:
    """Whether a public key made a signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import utils

    data, key, signature = _bytes(operation.x), _bytes(operation.key), _bytes(operation.s)
    try:
        if operation.c == "Ed25519":
            _ed25519("raw", key).verify(signature, data)
            return {"v": True}
        size = _COORDINATE_BYTES[operation.c]
        if len(signature) != 2 * size:
            return {"v": False}
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        _point("raw", operation.c, key).verify(utils.encode_dss_signature(r, s), data, _scheme(operation))
    except InvalidSignature:
        return {"v": False}
    return {"v": True}


def _ed25519(form: str, data: bytes) -> ed25519.Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PublicKey.from_public_bytes(data) if form == "raw" and len(data) == 32 else _spki(form, data)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise Refused("DataError", "the key is not one of Ed25519")
    return key


def _point(form: str, curve: str, data: bytes) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    wanted = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}[curve]
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(wanted(), data) if form == "raw" else _spki(form, data)
    except ValueError:
        raise Refused("DataError", f"the bytes are no point of {curve}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, wanted):
        raise Refused("DataError", f"the key is not one of {curve}")
    return key


def _spki(form: str, data: bytes) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return load_der_public_key(data) if form == "spki" else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused("DataError", "the bytes are no public key as SPKI in DER") from None


def _scheme(operation: Subtle) -> ec.ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    known = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
    return ec.ECDSA(known[_hash(operation)])


def _hash(operation: Subtle) -> str:
    name = _HASHES.get(operation.a)
    if name is None:
        raise Refused("NotSupportedError", "the hash is not supported")
    return name


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("OperationError", "the data is not base64") from None


_WORK: Final = {
    "digest": _digest,
    "sign": _sign,
    "verify": _verify,
    "encrypt": _encrypt,
    "decrypt": _decrypt,
    "import": _import,
    "check": _check,
}
