from __future__ import annotations

from rootlink.provisioner.environment import unsealed
from tests.provisioner.stage import Stage


def test_secrets_open_for_their_own_project(stage: Stage) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "s3cret-value")
    opened = unsealed(project, stage.store.secrets.sealed(project), stage.unsealer)
    assert opened == ({"TOKEN": "s3cret-value"}, ())


def test_a_secret_moved_from_another_project_is_left_out_and_named(stage: Stage) -> None:
    mine, other = stage.project("one"), stage.project("two")
    stage.secret(mine, "MINE", "my-value")
    stage.secret(other, "THEIRS", "their-value")
    sealed = [*stage.store.secrets.sealed(mine), *stage.store.secrets.sealed(other)]
    opened = unsealed(mine, sealed, stage.unsealer)
    assert opened == ({"MINE": "my-value"}, ("THEIRS",))


def test_what_was_opened_does_not_show_in_its_repr(stage: Stage) -> None:
    project = stage.project()
    stage.secret(project, "TOKEN", "s3cret-value")
    assert "s3cret" not in repr(unsealed(project, stage.store.secrets.sealed(project), stage.unsealer))
