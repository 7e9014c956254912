from __future__ import annotations

import subprocess
import sys
import threading

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from rootlink.store import Store, schema
from rootlink.store.database import Database
from rootlink.store.upgrade import MIGRATIONS


def test_the_migrations_end_at_the_schema(url: str) -> None:
    Store.open(url).close()
    database = Database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
    database.close()


def test_the_schema_knows_every_migration_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(walked)) == schema.REVISIONS


def test_an_up_to_date_database_opens_without_alembic(url: str) -> None:
    Store.open(url).close()
    look = "import sys; from rootlink.store import Store; Store.open(sys.argv[1]).close(); print('alembic' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", look, url], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_opening_again_keeps_what_was_there(url: str) -> None:
    first = Store.open(url)
    project = first.projects.create("default")
    first.close()
    again = Store.open(url)
    assert again.projects.list() == [project]
    again.close()


def test_of_many_that_open_a_new_database_at_once_one_upgrades_and_none_fails(url: str) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(5)

    def open_and_write(name: str) -> None:
        ready.wait()
        try:
            store = Store.open(url)
            store.projects.create(name)
            store.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_write, args=(f"p{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = Store.open(url)
    assert len(store.projects.list()) == 5
    store.close()
