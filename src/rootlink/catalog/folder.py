"""A connector's folder as it is on disk, decoded but not yet judged."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rootlink.catalog.manifest import Manifest
from rootlink.errors import Invalid

MANIFEST = "connector.json"
ICON = "icon.svg"
VARIANTS = "variants"


class Folder(msgspec.Struct, frozen=True):
    """`lock`, `code` and `icon` are None if the manifest names none or the file is not there. `variants`: by their folders'
    names; a variant has none of its own, and no icon."""

    slug: str  # the folder's own name
    manifest: Manifest
    lock: str | None = None
    code: str | None = None
    icon: str | None = None
    variants: dict[str, Folder] = {}


def read(path: Path) -> Folder:
    """`Invalid` if a `connector.json` is missing, or is not of the format; the message says which member."""
    variants = sorted(found.parent for found in (path / VARIANTS).glob(f"*/{MANIFEST}"))
    return _read(path, path.name, {one.name: _read(one, path.name, {}) for one in variants})


def _read(path: Path, slug: str, variants: dict[str, Folder]) -> Folder:
    manifest = _manifest(path, slug)
    own = manifest.own
    lock = _text(path, own.install.lock) if own.install else None
    code = _text(path, own.function.entry) if own.function else None
    return Folder(slug, manifest, lock, code, _text(path, ICON), variants)


def _manifest(path: Path, slug: str) -> Manifest:
    name = slug if slug == path.name else f"{slug}/{path.name}"
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise Invalid(f"connector {name!r}: {MANIFEST} can't be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"connector {name!r}: {MANIFEST}: {error}") from None


def _text(path: Path, name: str) -> str | None:
    """Only a plain file name: a manifest reaches nothing outside its folder."""
    file = path / name
    if Path(name).name != name or not file.is_file():
        return None
    return file.read_text(encoding="utf-8")
