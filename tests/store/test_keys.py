from __future__ import annotations

import blake3
import pytest

from rootlink.errors import Invalid, NotFound
from rootlink.records import Key, Project
from rootlink.store import Store

HASH = blake3.blake3(b"rl_sk_secret").digest()


def made(store: Store, project: Project, hash: bytes = HASH) -> Key:
    return store.keys.create(project.id, name="laptop", scopes=["use"], hash=hash, prefix="rl_sk_3f2a")


def test_a_key_is_found_by_its_hash(store: Store, project: Project) -> None:
    key = made(store, project)
    assert store.keys.find(HASH) == key
    assert store.keys.list(project.id) == [key]


def test_a_revoked_key_is_not_found_any_more(store: Store, project: Project) -> None:
    key = made(store, project)
    revoked = store.keys.revoke(project.id, key.id)
    assert store.keys.find(HASH) is None
    assert revoked.revoked_at is not None
    assert store.keys.list(project.id) == [revoked]


def test_revoking_again_keeps_the_first_time(store: Store, project: Project) -> None:
    key = made(store, project)
    assert store.keys.revoke(project.id, key.id) == store.keys.revoke(project.id, key.id)


def test_a_key_of_another_project_can_not_be_revoked(store: Store, project: Project) -> None:
    key = made(store, project)
    other = store.projects.create("other")
    with pytest.raises(NotFound):
        store.keys.revoke(other.id, key.id)
    assert store.keys.find(HASH) == key


@pytest.mark.parametrize("hash", [b"", b"x" * 31, b"y" * 32, HASH + b"\0"])
def test_an_unknown_hash_finds_nothing(store: Store, project: Project, hash: bytes) -> None:
    made(store, project)
    assert store.keys.find(hash) is None


def test_without_scopes_a_key_may_do_all(store: Store, project: Project) -> None:
    assert store.keys.create(project.id, name="k", scopes=None, hash=HASH, prefix="p").scopes == ["use", "manage"]


@pytest.mark.parametrize(
    ("name", "scopes", "hash"),
    [("k", ["root"], HASH), ("k", [], HASH), ("", ["use"], HASH), ("a\nb", ["use"], HASH), ("k", ["use"], b"short")],
)
def test_a_malformed_key_is_refused(store: Store, project: Project, name: str, scopes: list[str], hash: bytes) -> None:
    with pytest.raises(Invalid):
        store.keys.create(project.id, name=name, scopes=scopes, hash=hash, prefix="p")
    assert store.keys.list(project.id) == []
