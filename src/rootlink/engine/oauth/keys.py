"""What is signed by a key of ours, as JWTs (RFC 7515, 7519).

    assertion()   who a client is: private_key_jwt (RFC 7523 §3). The key is the operator's; a secret of the vault, as PEM
    proof()       that a token is sent by whom it was given to: DPoP (RFC 9449). The key is made for one sign-in (P-256)

The algorithm follows from the key: EC P-256 ES256, P-384 ES384; RSA RS256; Ed25519 EdDSA. Whoever signs calls `loaded()` before:
to load the library takes some 50 ms, which are a thread's. Errors never hold a key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import secrets
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from rootlink.errors import Invalid

ALGORITHM = "ES256"  # of proofs
ASSERTION_SECONDS = 60
MOST_BITS = 4096  # of an RSA key
_CURVES = {"secp256r1": ("ES256", "SHA256", 32), "secp384r1": ("ES384", "SHA384", 48)}
_LIBRARY = ("cryptography.hazmat.primitives.asymmetric.utils", "cryptography.hazmat.primitives.serialization")
_NO_KEY = (
    "the private key of this connection's client is none that can be used: it must be the PEM (PKCS#8) of an EC key (P-256 or "
    "P-384), an RSA key (2048 to 4096 bits) or an Ed25519 key, without a passphrase; set the secret again"
)


async def loaded() -> None:
    await asyncio.to_thread(lambda: [importlib.import_module(name) for name in _LIBRARY])


class Key:
    """A private key. `pem` is its secret."""

    def __init__(self, pem: str) -> None:
        """Raises Invalid."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self.pem = pem
        try:
            self._key: Any = load_pem_private_key(pem.strip().encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Invalid(_NO_KEY) from None
        self.algorithm = self._algorithm()

    def __repr__(self) -> str:
        return f"Key({self.algorithm})"

    def _algorithm(self) -> str:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        if isinstance(self._key, ec.EllipticCurvePrivateKey) and self._key.curve.name in _CURVES:
            return _CURVES[self._key.curve.name][0]
        if isinstance(self._key, rsa.RSAPrivateKey) and 2048 <= self._key.key_size <= MOST_BITS:
            return "RS256"
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return "EdDSA"
        raise Invalid(_NO_KEY)

    def sign(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        if self.algorithm == "EdDSA":
            return bytes(self._key.sign(data))
        if self.algorithm == "RS256":
            return bytes(self._key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        _, digest, size = _CURVES[self._key.curve.name]
        r, s = utils.decode_dss_signature(self._key.sign(data, ec.ECDSA(getattr(hashes, digest)())))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    @property
    def public(self) -> dict[str, str]:
        """Of a key on P-256, as a JWK."""
        numbers = self._key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _text(numbers.x.to_bytes(32, "big")), "y": _text(numbers.y.to_bytes(32, "big"))}


def made() -> str:
    """The PEM of a new key for proofs."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


def assertion(key: Key, client: str, audience: str, now: float) -> str:
    """`audience`: the authorization server's issuer, and nobody else's name: at another one it says nothing."""
    claims = {"iss": client, "sub": client, "aud": audience, "jti": secrets.token_urlsafe(16)}
    return _signed(key, {"typ": "JWT"}, {**claims, "iat": int(now), "exp": int(now) + ASSERTION_SECONDS})


def proof(key: Key, method: str, url: str, now: float, *, nonce: str | None = None, token: str | None = None) -> str:
    """For one request; `token`: the access token it is sent with."""
    claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": _bare(url), "iat": int(now)}
    if token is not None:
        claims["ath"] = _text(hashlib.sha256(token.encode()).digest())
    if nonce is not None:
        claims["nonce"] = nonce
    return _signed(key, {"typ": "dpop+jwt", "jwk": key.public}, claims)


def _signed(key: Key, header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (msgspec.json.encode(part) for part in ({**header, "alg": key.algorithm}, claims))
    data = ".".join(map(_text, parts))
    return f"{data}.{_text(key.sign(data.encode()))}"


def _bare(url: str) -> str:
    """Without query and fragment (RFC 9449 §4.2)."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
