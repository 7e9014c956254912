"""A connector's folder as it is on disk, decoded but not yet judged."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rootlink.catalog.manifest import Manifest
from rootlink.errors import Invalid

MANIFEST = "connector.json"


class Folder(msgspec.Struct, frozen=True):
    """`lock` and `code` are None if the manifest names none or the file is not there."""

    slug: str  # the folder's own name
    manifest: Manifest
    lock: str | None = None
    code: str | None = None


def read(path: Path) -> Folder:
    """`Invalid` if `connector.json` is missing, or is not of the format; the message says which member."""
    manifest = _manifest(path)
    own = manifest.own
    lock = _text(path, own.install.lock) if own.install else None
    code = _text(path, own.function.entry) if own.function else None
    return Folder(path.name, manifest, lock, code)


def _manifest(path: Path) -> Manifest:
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise Invalid(f"connector {path.name!r}: {MANIFEST} can't be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"connector {path.name!r}: {MANIFEST}: {error}") from None


def _text(path: Path, name: str) -> str | None:
    """Only a plain file name: a manifest reaches nothing outside its folder."""
    file = path / name
    if Path(name).name != name or not file.is_file():
        return None
    return file.read_text(encoding="utf-8")
