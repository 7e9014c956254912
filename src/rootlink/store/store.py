"""The store as one value: open it, ask its nouns, close it. Safe to use from many threads; every method is one transaction.

Any method raises `Unavailable` when the database can't be asked (full, locked, gone); nothing has been written then.
"""

from __future__ import annotations

from rootlink.records import (
    Activities,
    AllowRules,
    Clock,
    Connections,
    Decisions,
    Engines,
    Keys,
    Projects,
    Secrets,
    Wakes,
    system_clock,
)
from rootlink.store.activity import StoredActivity
from rootlink.store.allowlist import StoredAllowRules
from rootlink.store.connections import StoredConnections
from rootlink.store.database import Database
from rootlink.store.decisions import StoredDecisions
from rootlink.store.engines import StoredEngines
from rootlink.store.keys import StoredKeys
from rootlink.store.projects import StoredProjects
from rootlink.store.secrets import StoredSecrets
from rootlink.store.upgrade import upgrade
from rootlink.store.wakes import StoredWakes


class Store:
    """Use `Store.open`; the constructor takes a database whose schema is up to date."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self.projects: Projects = StoredProjects(database, clock)
        self.keys: Keys = StoredKeys(database, clock)
        self.secrets: Secrets = StoredSecrets(database, clock)
        self.egress: AllowRules = StoredAllowRules(database, clock)
        self.connections: Connections = StoredConnections(database, clock)
        self.engines: Engines = StoredEngines(database)
        self.wakes: Wakes = StoredWakes(database)
        self.decisions: Decisions = StoredDecisions(database)
        self.activity: Activities = StoredActivity(database, clock)

    @classmethod
    def open(cls, url: str, *, clock: Clock = system_clock) -> Store:
        """`sqlite:////absolute/path` (made if missing, mode 0600) or `postgresql://…`.

        Raises `Invalid` for any other url, `Unavailable` if the database is damaged, out of reach, or newer than this program.
        """
        database = Database(url)
        try:
            upgrade(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    def close(self) -> None:
        self._database.close()
