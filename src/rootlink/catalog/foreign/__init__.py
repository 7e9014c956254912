"""Servers that are not the catalogue's: read from what people paste (`paste.py`), written for other programs (`export.py`).

`formats.py` and `lines.py` read one way of writing a server each, into a `Found`; `registry.py` a registry's `server.json`;
`guess.py` says what a value is; `form.py` makes the manifest, so that the form is the catalogue's own.
"""

from __future__ import annotations

from rootlink.catalog.foreign.export import FORMATS, exported, plain
from rootlink.catalog.foreign.form import Pasted, connection_name
from rootlink.catalog.foreign.paste import read

__all__ = ["FORMATS", "Pasted", "connection_name", "exported", "plain", "read"]
