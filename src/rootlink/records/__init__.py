"""What Rootlink keeps, one noun a file: the record, its rules, and the Protocol of its storage. No I/O here.

Records are frozen. Times are RFC 3339 UTC strings of fixed width (`moment.py`), so they sort as text. No record holds a plaintext
secret or a key: a `Key` knows its prefix only, a `Secret` its ciphertext only (and never in its `repr`).
"""

from __future__ import annotations

from rootlink.records.activity import Activities, Activity
from rootlink.records.allow_rule import MANUAL, AllowRule, AllowRules, source_of
from rootlink.records.connection import Connection, Connections, Found, NewConnection, Previous, Version
from rootlink.records.decision import Decision, Decisions, Observed
from rootlink.records.engine import EngineRow, Engines
from rootlink.records.identity import new_id
from rootlink.records.key import Key, Keys
from rootlink.records.moment import Clock, system_clock
from rootlink.records.project import Project, Projects
from rootlink.records.secret import Seal, Sealed, Secret, Secrets
from rootlink.records.wake import WakeRow, Wakes

__all__ = [
    "MANUAL",
    "Activities",
    "Activity",
    "AllowRule",
    "AllowRules",
    "Clock",
    "Connection",
    "Connections",
    "Decision",
    "Decisions",
    "EngineRow",
    "Engines",
    "Found",
    "Key",
    "Keys",
    "NewConnection",
    "Observed",
    "Previous",
    "Project",
    "Projects",
    "Seal",
    "Sealed",
    "Secret",
    "Secrets",
    "Version",
    "WakeRow",
    "Wakes",
    "new_id",
    "source_of",
    "system_clock",
]
