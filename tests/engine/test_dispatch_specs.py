"""What may be installed by hand, and how workspaces may be called."""

from __future__ import annotations

import pytest

from rootlink import names
from rootlink.engine.installer import decode_spec
from rootlink.engine.own_tools import INSTALL_SCHEMA
from rootlink.errors import Invalid
from rootlink.wire.mounts import MountSpec

HTTP = {"name": "m", "transport": "http", "endpoint": "https://mcp.example/"}


def test_a_server_installed_by_hand_may_have_a_session_for_each_client_and_calls_in_turn() -> None:
    spec = decode_spec({**HTTP, "session": "client", "concurrency": 1})
    assert (spec.session, spec.concurrency) == ("client", 1)
    assert (decode_spec(HTTP).session, decode_spec(HTTP).concurrency) == (None, None)


@pytest.mark.parametrize("more", [{"session": "mine"}, {"concurrency": "two"}, {"lock": "{}"}])
def test_what_a_server_installed_by_hand_cannot_have_is_named(more: dict[str, object]) -> None:
    with pytest.raises(Invalid, match=next(iter(more))):
        decode_spec({**HTTP, **more})


def test_an_ai_is_told_of_everything_a_server_can_be_given() -> None:
    assert set(INSTALL_SCHEMA["properties"]) == set(MountSpec.__struct_fields__) - {"lock", "files", "oauth", "start_secs"}


def test_no_workspace_is_called_as_a_path_of_mcps_own() -> None:
    with pytest.raises(Invalid, match="'sse' is reserved"):
        names.workspace_name("sse")
    assert names.workspace_name("SSE2") == "SSE2"
