"""The control plane's tables and queries: the only place that speaks SQL to them. `Store.open(url)` is the way in.

`database.py` is a transaction and its errors, `schema.py` the tables, `upgrade.py` getting old tables up to date (`migrations/`),
and one file for each noun of `records/`.
"""

from __future__ import annotations

from rootlink.store.store import Store

__all__ = ["Store"]
