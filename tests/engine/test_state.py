"""The engine's file, after the disk or a person did something to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.state import ConnectionRow, SessionRow, State
from rootlink.errors import Unavailable
from rootlink.wire.mounts import MountSpec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "engine" / "state.db"
    state = State(path)
    for name in ("one", "two", "three"):
        state.put_mount("main", MountSpec(name, "stdio", command="node"), None, Catalogue())
        state.put_connection(ConnectionRow(f"con_{name}", "main", name, "mount", "0" * 32))
        state.put_session(SessionRow(name, "main", "key_1", "2025-11-25"))
    state.close()
    return path


def names(path: Path) -> list[str]:
    state = State(path)
    try:
        return [spec.name for _, spec, _, _ in state.mounts()]
    finally:
        state.close()


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    assert names(path) == ["one", "two", "three"]
    state = State(path)
    assert state.session("two") == SessionRow("two", "main", "key_1", "2025-11-25")
    assert [row.id for row in state.connections()] == ["con_one", "con_two", "con_three"]
    assert state.connection("con_two") == ConnectionRow("con_two", "main", "two", "mount", "0" * 32)
    assert state.session("none") is None and state.connection("none") is None
    state.close()


@pytest.mark.parametrize("column", ["spec", "catalogue", "ws"])
@pytest.mark.parametrize("value", [b"{", b"\xff\xfe", b"[" * 10_000, 7, "{}"])
def test_a_mount_that_can_not_be_read_is_skipped_and_the_others_stay(path: Path, column: str, value: object) -> None:
    if column == "ws" and value != b"\xff\xfe":
        pytest.skip("any text is a workspace")
    spoil(path, f"UPDATE mounts SET {column} = ? WHERE name = 'two'", value)
    if (column, value) == ("catalogue", "{}"):  # an empty one, and that is fine
        assert names(path) == ["one", "two", "three"]
    else:
        assert names(path) == ["one", "three"]


def test_a_session_that_can_not_be_read_is_none(path: Path) -> None:
    spoil(path, "UPDATE sessions SET principal = CAST(? AS TEXT) WHERE id = 'two'", b"\xff\xfe")
    spoil(path, "UPDATE connections SET name = CAST(? AS TEXT) WHERE id = 'con_two'", b"\xff\xfe")
    state = State(path)
    assert state.session("two") is None and state.session("one") is not None
    assert [row.id for row in state.connections()] == ["con_one", "con_three"]
    state.close()


def spoil(path: Path, statement: str, value: object) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement, (value,))
    db.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def bad_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096 * 2)


def bad_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 2000)


@pytest.mark.parametrize("damage", [garbage, bad_page, bad_first_page])
def test_a_damaged_file_is_refused_with_its_name_and_what_to_do(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    with pytest.raises(
        Unavailable, match=r"state\.db is damaged\. Move it away.*connections are brought back.*are lost"
    ) as refused:
        State(path)
    assert str(path) in refused.value.message
    path.rename(path.with_suffix(".away"))
    assert names(path) == []


def test_a_page_that_breaks_while_the_engine_runs_is_told_in_words(path: Path) -> None:
    state = State(path)
    bad_page(path)
    other = sqlite3.connect(path, isolation_level=None)  # a change by someone else, so that the first forgets what it had read
    other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(Unavailable, match=r"state\.db is damaged"):
        [*state.mounts(), *state.connections(), state.session("one")]
    state.close()


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("a file")
    with pytest.raises(Unavailable, match="can't be used"):
        State(tmp_path / "engine" / "state.db")
