"""What can be connected: `load()` reads `entries/`, one folder a connector; `Entry` answers what the gateway asks.

`manifest.py` is the format, `rules.py` what an entry must keep to, `field.py` one thing a connector asks for.
"""

from __future__ import annotations

from rootlink.catalog.catalog import ENTRIES, Catalog, load
from rootlink.catalog.entry import Entry
from rootlink.catalog.field import Field

__all__ = ["ENTRIES", "Catalog", "Entry", "Field", "load"]
