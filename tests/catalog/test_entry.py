"""What an entry makes of the values it is given; the sample entries are those of `test_rules.py`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rootlink.catalog import Entry
from rootlink.catalog.manifest import Manifest
from rootlink.errors import Invalid, NotFound, RootlinkError, TooLarge
from rootlink.wire.checks import HttpCheck, TcpCheck, ToolCheck
from rootlink.wire.mounts import FunctionSpec, MountSpec, Paths
from tests.catalog.test_rules import (
    ARGUMENT,
    ENV,
    FUNCTION,
    IDENTITY,
    LOCK,
    MCP,
    OWN,
    PACKAGE,
    PROVIDED,
    REMOTE,
    SIGNED,
    changed,
    made,
    varied,
)

SECRET = "k_hunter"


@pytest.fixture
def mcp() -> Entry:
    return Entry(made(MCP, lock=LOCK))


@pytest.fixture
def function() -> Entry:
    return Entry(made(FUNCTION))


def mount(entry: Entry, inputs: dict[str, Any] | None = None, names: dict[str, str] | None = None) -> MountSpec:
    desired = entry.desired("mine", inputs or {}, {"API_KEY": "API_KEY"} if names is None else names)
    assert list(desired) == ["mount"]
    return msgspec.convert(desired["mount"], MountSpec)


def test_a_package_becomes_what_its_readme_says(mcp: Entry) -> None:
    spec = mount(mcp)
    assert (spec.name, spec.transport, spec.command) == ("mine", "stdio", "npx")
    assert spec.args == ["-y", "@acme/sample@2.3.4", "${{files}}"]
    assert spec.env == {"API_KEY": "${API_KEY}"}
    assert spec.egress == ["api.example.com"]
    assert spec.lock == mcp.lock is not None


def test_a_python_package_is_started_with_uvx() -> None:
    pypi = {"registryType": "pypi", "identifier": "acme", "version": "1.2", "transport": {"type": "stdio"}}
    entry = Entry(made(changed(changed(MCP, ("packages",), [pypi]), (*OWN, "fields"), {})))
    spec = mount(entry, names={})
    assert (spec.command, spec.args, spec.lock) == ("uvx", ["acme@1.2"], None)


def test_a_secret_is_referred_to_by_its_name_in_the_vault(mcp: Entry, function: Entry) -> None:
    assert mount(mcp, names={"API_KEY": "API_KEY__MINE"}).env == {"API_KEY": "${API_KEY__MINE}"}
    spec = msgspec.convert(function.desired("mine", {}, {"API_KEY": "OTHER"})["function"], FunctionSpec)
    assert spec.env == {"API_KEY": "${OTHER}"}


def test_a_function_becomes_its_body_and_its_tool(function: Entry) -> None:
    desired = function.desired("mine", {}, {"API_KEY": "API_KEY"})
    assert list(desired) == ["function"]
    spec = msgspec.convert(desired["function"], FunctionSpec)
    assert (spec.name, spec.code, spec.description) == ("mine", "async () => 1", "Send one.")
    assert (spec.timeout_ms, spec.egress) == (30_000, ["api.example.com"])


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        (["/a", "/b"], ["/a", "/b"]),
        ("/a, /b", ["/a", "/b"]),
        ("/a\n/b, c\n", ["/a", "/b, c"]),
        ("${{files}}/notes", ["${{files}}/notes"]),
        (None, ["${{files}}"]),
    ],
)
def test_folders_come_as_a_list_or_as_text(mcp: Entry, given: object, folders: list[str]) -> None:
    spec = mount(mcp, {"folders": given})
    assert spec.args[2:] == folders
    assert spec.paths == Paths(write=folders)


def test_a_template_takes_the_engines_folders_and_fields() -> None:
    template = {"name": "PLACE", "value": "{state}/{WHO}.db", "variables": {"state": {}, "WHO": {"description": "Who"}}}
    entry = Entry(
        made(changed(changed(MCP, ENV, template), (*OWN, "fields"), {"WHO": {"label": "Who"}, "folders": {"label": "F"}}))
    )
    assert [field.name for field in entry.fields] == ["WHO", "folders"]
    assert mount(entry, {"WHO": "{state}"}, {}).env == {"PLACE": "${{state}}/{state}.db"}
    assert mount(entry, {}, {}).env == {}


def test_a_named_argument_is_two_words() -> None:
    argument = {"type": "named", "name": "--ref", "description": "Which"}
    entry = Entry(made(changed(changed(MCP, ARGUMENT, argument), (*OWN, "fields", "folders"), ...)))
    assert mount(entry, {"ref": "x"}).args[2:] == ["--ref", "x"]
    assert mount(entry).args[2:] == []


def test_hosts_of_a_url_the_user_gave_are_opened_for_it_alone() -> None:
    entry = Entry(made(changed(MCP, (*OWN, "egress"), {"fromUrl": ["API_KEY"]})))
    hosts = entry.hosts_for({}, {"API_KEY": "postgresql://ro:p@DB.example.com/app"})
    assert hosts == ["db.example.com:5432"]
    assert entry.desired("mine", {}, {"API_KEY": "API_KEY"}, hosts)["mount"]["egress"] == hosts
    for wrong in (
        {},
        {"API_KEY": "no url"},
        {"API_KEY": "mail://h"},
        {"API_KEY": "https://h:99999"},
        {"API_KEY": "https://a b/"},
    ):
        with pytest.raises(Invalid):
            entry.hosts_for({}, wrong)


def test_good_values_pass(mcp: Entry) -> None:
    mcp.check({}, {"API_KEY": SECRET}, set())
    mcp.check({"folders": ["/a"]}, {"API_KEY": SECRET}, set())
    mcp.check({}, {}, {"API_KEY"})


@pytest.mark.parametrize(
    ("inputs", "secrets", "says"),
    [
        ({}, {}, r"connector sample needs API_KEY \(Key\) under `secrets`.*k_….*https://example\.com/keys"),
        ({}, {"API_KEY": None}, "needs API_KEY"),
        ({}, {"API_KEY": "hunter2"}, r"API_KEY has not the right form: it looks like k_…; get it at https://example\.com/keys"),
        ({}, {"API_KEY": SECRET + "\n"}, "API_KEY has not the right form"),
        ({}, {"API_KEY": ""}, "'API_KEY' is empty"),
        ({}, {"API_KEY": 7}, "'API_KEY' must be text"),
        ({}, {"API_KEY": SECRET, "hunter": "hunter2"}, "no field 'hunter'; it has: API_KEY, folders"),
        ({"API_KEY": SECRET}, {}, "API_KEY is a secret: give it under `secrets`"),
        ({}, {"API_KEY": SECRET, "folders": "/a"}, "folders is not a secret: give it under `inputs`"),
        ({"folders": []}, {"API_KEY": SECRET}, "folders is empty"),
        ({"folders": " \n "}, {"API_KEY": SECRET}, "folders is empty"),
        ({"folders": [7]}, {"API_KEY": SECRET}, "folders must be text, not int"),
        ({"folders": {"a": 1}}, {"API_KEY": SECRET}, "folders must be a list of texts"),
        ({"folders": "hunter2"}, {"API_KEY": SECRET}, "folders must be an absolute path"),
        ({"folders": "~/hunter2"}, {"API_KEY": SECRET}, "folders must be an absolute path"),
        ({"folders": "/a/../hunter2"}, {"API_KEY": SECRET}, "folders must be an absolute path"),
        ({"folders": "${{files}}/../hunter2"}, {"API_KEY": SECRET}, "folders must be an absolute path"),
        ({"folders": "/${API_KEY}"}, {"API_KEY": SECRET}, "folders must not refer to secrets"),
        ({"folders": "/" + "x" * 5000}, {"API_KEY": SECRET}, "folders must be at most 4096"),
        ({"folders": "/a\0"}, {"API_KEY": SECRET}, "without NUL"),
    ],
)
def test_a_wrong_value_is_refused_by_the_fields_name_and_never_repeated(
    mcp: Entry, inputs: dict[str, Any], secrets: dict[str, Any], says: str
) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        mcp.check(inputs, secrets, set())
    assert "hunter2" not in refused.value.message


def test_a_huge_secret_is_too_large(mcp: Entry) -> None:
    with pytest.raises(TooLarge):
        mcp.check({}, {"API_KEY": "k_" + "x" * 70_000}, set())


@pytest.mark.parametrize(
    ("member", "good", "bad"),
    [
        ({"format": "number"}, [1, 2.5, "3", "-4.5"], ["x", "1e9", True, "१"]),
        ({"format": "boolean"}, [True, False, "true"], ["yes", 1]),
        ({"choices": ["a", "b"]}, ["a"], ["c", 1]),
        ({}, ["text", True], [1.5, ["a"], None.__class__]),
    ],
    ids=str,
)
def test_a_value_has_the_form_its_field_asks_for(member: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    argument = {"type": "named", "name": "--it", "description": "It", **member}
    entry = Entry(made(changed(changed(MCP, ARGUMENT, argument), (*OWN, "fields", "folders"), ...)))
    for value in good:
        entry.check({"it": value}, {}, {"API_KEY"})
    for value in bad:
        with pytest.raises(RootlinkError):
            entry.check({"it": value}, {}, {"API_KEY"})


def test_a_name_no_mount_may_have_is_refused(mcp: Entry, function: Entry) -> None:
    with pytest.raises(Invalid):
        mcp.desired("a__b", {}, {"API_KEY": "API_KEY"})
    with pytest.raises(Invalid):
        function.desired("a b", {}, {"API_KEY": "API_KEY"})


def test_a_required_secret_without_a_name_in_the_vault_is_refused(mcp: Entry) -> None:
    with pytest.raises(Invalid, match="API_KEY"):
        mcp.desired("mine", {}, {})


def test_a_flag_is_there_if_it_is_true_and_has_no_value() -> None:
    flag = {"type": "named", "name": "--only", "description": "Only", "format": "boolean", "default": "true"}
    entry = Entry(made(changed(changed(MCP, ARGUMENT, flag), (*OWN, "fields", "folders"), {"label": "x"})))
    assert mount(entry).args[2:] == ["--only"]
    assert mount(entry, {"only": True}).args[2:] == ["--only"]
    assert mount(entry, {"only": False}).args[2:] == []


def test_files_and_limits_reach_the_engine() -> None:
    runtime = {"startTimeoutS": 45, "timeoutS": 60, "concurrency": 1, "session": "client"}
    spec = mount(Entry(made(changed(MCP, (*OWN, "runtime"), runtime))))
    assert (spec.start_secs, spec.timeout_secs, spec.concurrency, spec.session) == (45, 60, 1, "client")
    assert spec.files == {"sample.toml": 'key = "${API_KEY}"'}


def test_a_remote_becomes_an_endpoint_and_headers() -> None:
    spec = mount(Entry(made(REMOTE)), {"place": "there"}, {"API_KEY": "MINE"})
    assert (spec.transport, spec.endpoint) == ("http", "https://mcp.example.com/there")
    assert spec.headers == {"Authorization": "Bearer ${MINE}"}
    assert (spec.command, spec.args, spec.env, spec.lock) == (None, [], {}, None)
    assert spec.egress == ["mcp.example.com"]


def test_a_sign_in_names_its_grant_after_the_connection_and_comes_back_here() -> None:
    entry, secrets = Entry(made(SIGNED)), {"CLIENT_SECRET": "CLIENT_SECRET"}
    for name, grant in (("sample", "SAMPLE_OAUTH"), ("my-own", "SAMPLE_OAUTH__MY_OWN")):
        desired = entry.desired(name, {"CLIENT": "me"}, secrets, redirect="http://here/oauth/callback")["mount"]
        oauth = msgspec.convert(desired, MountSpec).oauth
        assert oauth is not None
        assert (oauth.secret, oauth.redirect, oauth.scopes) == (grant, "http://here/oauth/callback", ["read"])
        assert (oauth.client_id, oauth.client_secret) == ("me", "${CLIENT_SECRET}")


def test_a_client_that_signs_in_by_itself_comes_back_nowhere() -> None:
    auth = PROVIDED | {"identity": IDENTITY, "privateKey": "{CLIENT_SECRET}", "assertion": "{CLIENT_SECRET}"}
    signed = changed(changed(SIGNED, (*OWN, "auth"), auth), (*OWN, "egress", "hosts"), ["mcp.example.com", "idp.example.com"])
    entry = Entry(made(signed))
    desired = entry.desired("sample", {"CLIENT": "me"}, {"CLIENT_SECRET": "MINE"}, redirect="http://here/oauth/callback")["mount"]
    oauth = msgspec.convert(desired, MountSpec).oauth
    assert oauth is not None and oauth.identity is not None
    assert (oauth.redirect, oauth.private_key, oauth.assertion) == ("", "${MINE}", "${MINE}")
    assert (oauth.identity.token_endpoint, oauth.identity.id_token) == ("https://idp.example.com/token", "${MINE}")


def test_checks_name_secrets_and_never_hold_them(mcp: Entry) -> None:
    asked, tried = mcp.checks({}, {"API_KEY": "API_KEY__MINE"}, {"API_KEY": SECRET})
    assert isinstance(asked, HttpCheck)
    assert isinstance(tried, ToolCheck)
    assert asked.headers == {"x": "${API_KEY__MINE}"}
    assert (asked.ok[0].label, asked.errors[0].say) == ("{name}", "Not a key.")
    assert (tried.tool, tried.severity, tried.error) == ("look", "warn", "Nothing to see.")
    assert SECRET not in msgspec.json.encode([asked, tried]).decode()


def test_a_check_that_sends_a_field_nobody_gave_is_not_made() -> None:
    entry = Entry(made(changed(MCP, (*ENV, "isRequired"), False)))
    assert [check.id for check in entry.checks({}, {}, {})] == ["look"]


def test_a_place_is_dialled_if_its_url_is_given_and_not_if_only_the_vault_knows_it() -> None:
    reach = {"id": "reach", "title": "Reaches it", "type": "tcp", "fromUrl": "API_KEY", "error": "Nobody at {host}:{port}."}
    entry = Entry(made(changed(changed(MCP, (*OWN, "egress"), {"fromUrl": ["API_KEY"]}), (*OWN, "verify"), [reach])))
    [check] = entry.checks({}, {"API_KEY": "API_KEY"}, {"API_KEY": "postgresql://ro:k_p@DB.example.com/app"})
    assert isinstance(check, TcpCheck)
    assert (check.host, check.port, check.error) == ("db.example.com", 5432, "Nobody at {host}:{port}.")
    assert entry.checks({}, {"API_KEY": "API_KEY"}, {}) == []


def test_rules_are_the_labels_what_is_off_and_that_strangers_are_held_back(mcp: Entry) -> None:
    rules = mcp.rules()
    assert rules.access == {"send": "write", "look": "read", "wipe": "destructive"}
    assert (rules.modes, rules.closed, rules.pins) == ({"wipe": "off"}, True, {})


def test_a_variant_is_the_same_connector_another_way() -> None:
    entry = Entry(varied(to=None))
    assert entry.variant(None) is entry
    assert entry.variant("") is entry
    assert (entry.variant_name, entry.variant("far").variant_name) == (None, "far")
    assert (entry.variant("far").name, entry.variant("far").kind) == (entry.name, entry.kind)
    assert [field.name for field in entry.variant("far").fields] == ["place", "API_KEY"]
    with pytest.raises(NotFound, match="connector sample has no variant 'near'; there are: far"):
        entry.variant("near")
    with pytest.raises(NotFound, match="no variant 'far'; it has none"):
        Entry(made(MCP)).variant("far")


def test_a_server_somebody_brought_is_an_entry_without_folder_or_lock() -> None:
    entry = Entry.from_manifest(msgspec.convert(changed(MCP, (*PACKAGE, "version"), ""), Manifest))
    spec = mount(entry)
    assert (spec.args[:2], spec.lock) == (["-y", "@acme/sample"], None)
    assert (entry.version, entry.icon, entry.detail()["icon"]) == ("1.0.0", None, None)
