from __future__ import annotations

import pytest

from rootlink.errors import Invalid, NotFound
from rootlink.records import Project, Sealed
from rootlink.store import Store
from tests.store.vault import Vault, everything


def test_a_secret_is_found_by_id_and_by_name(store: Store, project: Project, vault: Vault) -> None:
    secret = store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "one"))
    assert store.secrets.get(project.id, secret.id) == secret
    assert store.secrets.get(project.id, "KEY") == secret
    assert store.secrets.list(project.id) == store.secrets.sealed(project.id) == [secret]


def test_putting_it_again_makes_the_next_version_of_the_same_secret(store: Store, project: Project, vault: Vault) -> None:
    first = store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "one"))
    second = store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "two"))
    assert (second.id, second.created_at, second.version) == (first.id, first.created_at, 2)
    assert second.last_rotated_at > first.last_rotated_at
    assert store.secrets.get(project.id, "KEY") == second
    assert vault.values(store, project.id) == {"KEY": "two"}


def test_projects_do_not_see_each_others_secrets(store: Store, project: Project, vault: Vault) -> None:
    secret = store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "one"))
    other = store.projects.create("other").id
    assert store.secrets.list(other) == []
    for ref in ("KEY", secret.id):
        with pytest.raises(NotFound):
            store.secrets.get(other, ref)
        with pytest.raises(NotFound):
            store.secrets.delete(other, ref)


def test_a_deleted_secret_is_gone(store: Store, project: Project, vault: Vault) -> None:
    secret = store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "one"))
    assert store.secrets.delete(project.id, "KEY") == secret
    assert store.secrets.list(project.id) == []
    with pytest.raises(NotFound):
        store.secrets.delete(project.id, secret.id)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "sec_0123456789ab", "A\0", "x" * 129])
def test_a_name_no_environment_can_hold_is_refused(store: Store, project: Project, vault: Vault, name: str) -> None:
    with pytest.raises(Invalid):
        store.secrets.put(project.id, name, vault.seal(project.id, name, "v"))


def test_a_value_that_can_not_be_sealed_changes_nothing(store: Store, project: Project, vault: Vault) -> None:
    store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", "one"))
    before = everything(store)
    with pytest.raises(Invalid):
        store.secrets.put(project.id, "KEY", vault.seal(project.id, "KEY", ""))
    assert everything(store) == before


def test_a_ciphertext_is_not_in_the_repr() -> None:
    assert "hidden" not in repr(Sealed(b"hidden", "k"))
