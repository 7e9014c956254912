"""The operator's own CA reaches whatever an engine starts."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest
import trustme

from rootlink.engine.trust import VARIABLES, Trust
from rootlink.errors import Unavailable
from tests.mounts.conftest import MakeMounts
from tests.mounts.conftest import make as make
from tests.mounts.ground import call, plain


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    path = tmp_path / "extra.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def certificates(path: Path) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=str(path))
    return len(context.get_ca_certs())


def test_without_a_ca_of_the_operators_nothing_is_written_or_said(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "state" / "ca.pem", None)
    assert trust.environment() == {}
    assert not (tmp_path / "state").exists()


def test_the_bundle_holds_the_systems_roots_and_the_operators(tmp_path: Path, extra: Path) -> None:
    trust = Trust(tmp_path / "state" / "ca.pem", str(extra))
    system = len(ssl.create_default_context().get_ca_certs())
    assert trust.environment() == dict.fromkeys(VARIABLES, str(tmp_path / "state" / "ca.pem"))
    assert certificates(trust.path) == system + 1
    assert [path.name for path in trust.path.parent.iterdir()] == ["ca.pem"]


def test_it_is_written_again_when_the_file_or_the_setting_changes_and_not_otherwise(tmp_path: Path, extra: Path) -> None:
    trust = Trust(tmp_path / "ca.pem", str(extra))
    assert trust.bundle() is not None
    first = trust.path.stat().st_ino
    trust.bundle()
    assert trust.path.stat().st_ino == first
    with extra.open("ab") as file:
        file.write(trustme.CA().cert_pem.bytes())
    before = certificates(trust.path)
    trust.bundle()
    assert certificates(trust.path) == before + 1
    trust.update(None)
    assert trust.bundle() is None


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"gone\.pem.*--extra-ca"):
        Trust(tmp_path / "ca.pem", str(tmp_path / "gone.pem")).bundle()


async def test_a_child_is_told_of_it_unless_it_declares_another(make: MakeMounts, tmp_path: Path, extra: Path) -> None:
    trust = Trust(tmp_path / "ca.pem", str(extra))
    mount = await make(trust=trust).add("main", plain(env={"SSL_CERT_FILE": "/mine"}))
    environ = json.loads(await call(mount, "env"))
    assert environ["SSL_CERT_FILE"] == "/mine"
    assert {environ[name] for name in VARIABLES if name != "SSL_CERT_FILE"} == {str(trust.path)}
    assert os.access(trust.path, os.R_OK)
