"""The operator's own CA (`--extra-ca`) for what an engine starts: one file of the system's roots and that CA, and who reads it.

`bundle()` writes it again when either file changed. What runs already goes on with the one it was started with.
"""

from __future__ import annotations

import os
import secrets
import ssl
from pathlib import Path

from rootlink.errors import Unavailable

VARIABLES = (  # Node adds to its own roots; the others read this file instead of theirs
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
)
_KNOWN = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_BEGIN = b"-----BEGIN "


class Trust:
    """`path` is the file that is written. `update()` when the operator's setting changed."""

    def __init__(self, path: Path, extra_ca: str | None) -> None:
        self.path = path
        self._extra = extra_ca
        self._written: tuple[object, ...] | None = None

    def update(self, extra_ca: str | None) -> None:
        self._extra = extra_ca

    def bundle(self) -> Path | None:
        """The file, up to date; None without a CA of the operator's. Blocks for some ms when it writes. Raises Unavailable."""
        if self._extra is None:
            return None
        roots = _system_roots()
        try:
            seen = (self._extra, _state(Path(self._extra)), [(str(root), _state(root)) for root in roots])
            if seen != self._written or not self.path.exists():
                self._write([*roots, Path(self._extra)])
                self._written = seen
        except OSError as error:
            raise Unavailable(f"the CA file {self._extra!r} (--extra-ca) cannot be used: {error.strerror}") from error
        return self.path

    def environment(self) -> dict[str, str]:
        """Variables for a child that may read `bundle()`. Raises Unavailable."""
        bundle = self.bundle()
        return {} if bundle is None else dict.fromkeys(VARIABLES, str(bundle))

    def _write(self, files: list[Path]) -> None:
        parts = [content.strip() for file in files if _BEGIN in (content := file.read_bytes())]
        draft = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(b"\n".join(parts) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _system_roots() -> list[Path]:
    """Files of the system's certificates: one that holds them all, or each of a folder."""
    paths = ssl.get_default_verify_paths()
    for file in (paths.cafile, *_KNOWN):
        if file and Path(file).is_file():
            return [Path(file)]
    folder = Path(paths.capath) if paths.capath else None
    if folder is None or not folder.is_dir():
        return []
    return sorted({file.resolve() for file in folder.iterdir() if file.is_file()})
