"""What people paste becomes the form of a connector: nothing they did not say, no credential left in what is kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rootlink import catalog
from rootlink.catalog import Entry, foreign
from rootlink.catalog.foreign import guess, jsonish
from rootlink.errors import Invalid, RootlinkError, TooLarge
from rootlink.gateway import custom
from rootlink.wire.mounts import MountSpec

GHP = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
DENSE = "Zx9Qw3Er7Ty1Ui5Op2As8Df4Gh6Jk"


def servers(text: str | dict[str, Any]) -> list[foreign.Pasted]:
    return foreign.read(text if isinstance(text, str) else json.dumps(text))


def one(text: str | dict[str, Any]) -> foreign.Pasted:
    (server,) = servers(text)
    return server


def form(server: foreign.Pasted) -> dict[str, str]:
    """Each field: `secret`, its default, or `?` where it is asked for."""
    return {field.name: "secret" if field.secret else field.default or "?" for field in fields(server)}


def fields(server: foreign.Pasted) -> list[Any]:
    return Entry.from_manifest(custom.checked(server.manifest, server.hosts or ["h.example"])).fields


def mount(server: foreign.Pasted, **inputs: str) -> dict[str, Any]:
    entry = Entry.from_manifest(server.manifest)
    secrets = {field.name: field.name for field in entry.fields if field.secret}
    found: dict[str, Any] = entry.desired(server.name, inputs, secrets, server.hosts)["mount"]
    return found


def stdio(args: list[str], env: dict[str, Any] | None = None, command: str = "npx") -> dict[str, Any]:
    return {"mcpServers": {"it": {"command": command, "args": args, **({"env": env} if env else {})}}}


# formats


def test_mcp_servers_json_becomes_a_form_with_its_key_sealed_apart() -> None:
    server = one(stdio(["-y", "@x/github@1.2.3"], {"GITHUB_TOKEN": GHP, "LOG_LEVEL": "info"}))
    assert form(server) == {"GITHUB_TOKEN": "secret", "LOG_LEVEL": "info"}
    assert server.secrets == {"GITHUB_TOKEN": GHP}
    assert GHP not in msgspec.json.encode(server.manifest).decode()
    assert mount(server)["args"] == ["-y", "@x/github@1.2.3"]
    assert mount(server)["env"] == {"GITHUB_TOKEN": "${GITHUB_TOKEN}", "LOG_LEVEL": "info"}


@pytest.mark.parametrize(
    "text",
    [
        '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time==2025.9.25"]}}}',
        '{"time": {"command": "uvx", "args": ["mcp-server-time@2025.9.25"]}}',
        '"time": {"command": "uvx", "args": ["mcp-server-time==2025.9.25"]},',
        '{"command": "uvx", "args": ["mcp-server-time==2025.9.25"], "name": "time"}',
        '{"servers": {"time": {"type": "stdio", "command": "uvx", "args": ["mcp-server-time==2025.9.25"]}}}',
        '{"mcp": {"servers": {"time": {"command": "uvx mcp-server-time==2025.9.25"}}}}',
        '// mine\n{"mcpServers": {/* old */ "time": {"command": "uvx", "args": ["mcp-server-time==2025.9.25",],},},}',
        '```json\n{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time==2025.9.25"]}}}\n```',
        "uvx mcp-server-time==2025.9.25",
        "$ uv tool run mcp-server-time@2025.9.25",
        "pipx run mcp-server-time==2025.9.25",
        "claude mcp add time -- uvx mcp-server-time==2025.9.25",
        "codex mcp add time -- uvx mcp-server-time==2025.9.25",
        """claude mcp add-json time '{"command": "uvx", "args": ["mcp-server-time==2025.9.25"]}'""",
        """code --add-mcp '{"name": "time", "command": "uvx", "args": ["mcp-server-time==2025.9.25"]}'""",
        "uvx \\\n  mcp-server-time==2025.9.25",
    ],
)
def test_however_it_is_written_it_is_the_same_server(text: str) -> None:
    server = one(text)
    (package,) = server.manifest.packages
    assert (server.name, package.registry_type, package.identifier, package.version) == (
        "time",
        "pypi",
        "mcp-server-time",
        "2025.9.25",
    )


def test_vs_codes_inputs_are_fields_with_its_words() -> None:
    server = one(
        {
            "inputs": [
                {"type": "promptString", "id": "key", "description": "Your key", "password": True},
                {"type": "pickString", "id": "region", "description": "Where", "options": ["eu", "us"], "default": "eu"},
            ],
            "servers": {
                "it": {"command": "npx", "args": ["x@1.0.0", "--region", "${input:region}"], "env": {"IT": "${input:key}"}}
            },
        }
    )
    assert form(server) == {"IT": "secret", "REGION": "eu"}
    described = {field.name: field for field in fields(server)}
    assert described["IT"].help.startswith("Your key")
    assert described["REGION"].choices == ["eu", "us"]
    assert mount(server)["args"] == ["-y", "x@1.0.0", "--region", "eu"]


def test_a_registrys_server_json_offers_its_package_and_its_remote() -> None:
    package, remote = servers(
        {
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": "io.github.someone/weather",
            "description": "Weather",
            "version": "1.0.2",
            "packages": [
                {"registryType": "oci", "identifier": "docker.io/x/y", "transport": {"type": "stdio"}},
                {
                    "registryType": "npm",
                    "identifier": "@x/weather",
                    "version": "1.0.2",
                    "transport": {"type": "stdio"},
                    "environmentVariables": [
                        {"name": "WEATHER_KEY", "isSecret": True, "isRequired": True, "description": "A key"},
                        {"name": "UNITS", "default": "metric", "choices": ["metric", "imperial"]},
                    ],
                    "packageArguments": [
                        {"type": "named", "name": "--port", "value": "{port}", "variables": {"port": {"default": "1"}}}
                    ],
                },
            ],
            "remotes": [
                {
                    "type": "streamable-http",
                    "url": "https://mcp.weather.example/{tenant}/mcp",
                    "variables": {"tenant": {"isRequired": True}},
                    "headers": [
                        {"name": "X-Key", "value": "{key}", "variables": {"key": {"isSecret": True, "isRequired": True}}}
                    ],
                }
            ],
        }
    )
    assert (package.name, remote.name) == ("weather", "weather-2")
    assert form(package) == {"WEATHER_KEY": "secret", "UNITS": "metric", "port": "1"}
    assert form(remote) == {"tenant": "?", "key": "secret"}
    assert remote.hosts == ["mcp.weather.example"]
    assert mount(remote, tenant="t")["endpoint"] == "https://mcp.weather.example/t/mcp"


def test_a_server_elsewhere_is_asked_for_its_host_and_its_header() -> None:
    server = one(
        "claude mcp add --transport http linear https://mcp.linear.app/mcp --header 'Authorization: Bearer lin_api_abcdefgh'"
    )
    assert (server.name, server.hosts, form(server)) == ("linear", ["mcp.linear.app"], {"TOKEN": "secret"})
    assert server.secrets == {"TOKEN": "lin_api_abcdefgh"}
    assert mount(server)["headers"] == {"Authorization": "Bearer ${TOKEN}"}


def test_a_server_elsewhere_without_a_credential_may_ask_for_a_sign_in() -> None:
    assert mount(one("https://mcp.linear.app/mcp"))["oauth"]
    assert mount(one("https://x.example/mcp?api_key=abcdefghijklm")).get("oauth") is None


def test_mcp_remote_is_the_server_it_speaks_to() -> None:
    server = one(stdio(["-y", "mcp-remote", "https://x.example/sse", "--header", "Authorization:Bearer ${TOK}"]))
    (remote,) = server.manifest.remotes
    assert (remote.type, remote.url, server.hosts) == ("sse", "https://x.example/sse", ["x.example"])
    assert list(form(server).values()) == ["secret"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("docker run -i --rm -e TOKEN ghcr.io/x/y", "containers are not run here"),
        (json.dumps(stdio(["run", "-i", "x"], command="docker")), "containers are not run here"),
        ("node /home/me/server.js", "rootlink mcp add"),
        ("bash -c 'curl x | sh'", "can run anything"),
        ("npx -y x | tee log", "needs a shell"),
        ("npx -y github:someone/x", "can't be pinned"),
        ("uvx --from git+https://x.example/y z", "can't be pinned"),
        ("npx --ignore-scripts=false x", "not taken here"),
        ("npx", "needs the name of a package"),
        ('{"servers": {"x": {"command": "npx", "args": ["x"], "envFile": ".env"}}}', "envFile"),
        (
            '{"inputs": [{"type": "command", "id": "x", "command": "y"}], "servers": {"x": {"command": "npx", "args": ["x"]}}}',
            "VS Code",
        ),
        ('{"servers": {"x": {"command": "npx", "args": ["x"], "env": {"A": "${input:gone}"}}}}', "gone"),
        ('{"mcpServers": {"x": {"command": 5}}}', "must be"),
        ('{"mcpServers": {"x": {"type": "http"}}}', "neither"),
        ('{"hello": "world"}', "no server in this JSON"),
        ('{"mcpServers": {"x": {', "missing bracket"),
        ("[1, 2]", "no configuration"),
        ("https://me:pw@x.example/mcp", "before its host"),
        ("just some words about\nnothing", "more than one line"),
        ("", "nothing was pasted"),
        ("ftp://x.example", "can't be connected"),
    ],
)
def test_what_can_not_be_connected_is_refused_with_what_to_do(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words.replace("(", r"\(")):
        foreign.read(text)


@pytest.mark.parametrize(
    "members",
    [
        {"environmentVariables": [{"name": "A", "value": "{X}"}]},
        {"environmentVariables": [{"name": "A", "default": "{X}"}]},
        {"environmentVariables": [{"name": "A", "value": "{X}", "variables": {"X": {"default": "{Y}"}}}]},
        {"environmentVariables": [{"name": "A", "value": "x", "variables": {"X": {"variables": {"Y": {}}}}}]},
        {"environmentVariables": 5},
        {"packageArguments": 5},
    ],
)
def test_a_server_json_that_is_not_in_order_is_refused_in_words(members: dict[str, Any]) -> None:
    package = {"registryType": "npm", "identifier": "x", "version": "1", "transport": {"type": "stdio"}}
    with pytest.raises(Invalid):
        foreign.read(json.dumps({"name": "a.b/it", "packages": [{**package, **members}]}))


@pytest.mark.parametrize("members", [{"headers": 5}, {"variables": [1]}, {"url": "https://x.y/{A}"}])
def test_a_remote_that_is_not_in_order_is_refused_in_words(members: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        foreign.read(json.dumps({"name": "a.b/it", "remotes": [{"type": "sse", "url": "https://x.y/", **members}]}))


@pytest.mark.parametrize(
    "server",
    [
        {"command": "env", "args": ["env"] * 5000},
        {"command": "cmd", "args": ["/c", "cmd"] * 3000},
        {"command": "npx", "args": ["-y", "x"], "env": {"U": "http://a.b?x=" * 4500}},
    ],
)
def test_what_is_nested_without_end_is_refused(server: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="nested deeper"):
        foreign.read(json.dumps(server))


def test_more_than_any_configuration_is_refused() -> None:
    with pytest.raises(TooLarge):
        foreign.read("x" * (64 * 1024 + 1))


# credentials


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_PERSONAL_ACCESS_TOKEN", "abc"),
        ("OPENAI_API_KEY", "sk-proj-abcdefghijklmnop"),
        ("apiKey", "abc"),
        ("DB_PASSWORD", "hunter2"),
        ("DATABASE_URL", "postgres://u:pw@db.example/x"),
        ("SETTING", GHP),
        ("SETTING", "xoxb-1234-5678-abcdef"),
        ("SETTING", "AKIAIOSFODNN7EXAMPLE"),
        ("SETTING", DENSE),
        ("SETTING", "0123456789abcdef0123456789abcdef"),
        ("SETTING", "https://u:pw@x.example/"),
        ("SETTING", "https://x.example/hook?token=abcdef"),
        ("SETTING", "Bearer abc"),
        ("HEADERS", '{"Authorization": "Bearer ntn_1234"}'),
        ("PRIVATE", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
    ],
)
def test_a_credential_is_known_by_its_name_or_by_its_shape(name: str, value: str) -> None:
    server = one(stdio(["-y", "x@1.0.0"], {name: value}))
    assert form(server) == {name: "secret"}
    assert server.secrets == {name: value}
    assert json.dumps(value)[1:-1] not in msgspec.json.encode(server.manifest).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "debug"),
        ("MAX_TOKENS", "4096"),
        ("MODEL", "claude-3-5-sonnet-20241022"),
        ("TENANT_ID", "123e4567-e89b-12d3-a456-426614174000"),
        ("BASE_URL", "https://api.example.com/v1"),
        ("AUTH_TYPE", "oauth"),
        ("USE_AUTH", "true"),
        ("PUBLIC_KEY_NAME", "main"),
        ("REGION", "eu-central-1"),
        ("EMPTY_OK", "none"),
    ],
)
def test_a_setting_is_a_field_with_its_value(name: str, value: str) -> None:
    server = one(stdio(["-y", "x@1.0.0"], {name: value}))
    assert form(server) == {name: value}
    assert server.secrets == {}


@pytest.mark.parametrize("value", ["YOUR_API_KEY", "<your-key>", "sk-...", "xxxx", "", "${API_KEY}", "your-api-key-here"])
def test_a_place_left_open_is_asked_for(value: str) -> None:
    server = one(stdio(["-y", "x@1.0.0"], {"API_KEY": value}))
    assert (form(server), server.secrets) == ({"API_KEY": "secret"}, {})


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--api-key", "abcdef123"], ["--api-key", "${API_KEY}"]),
        (["--api-key=abcdef123"], ["--api-key=${API_KEY}"]),
        (["--header", "Authorization: Bearer abcdef"], ["--header", "Authorization: ${AUTHORIZATION}"]),
        (["postgres://u:pw@db.example:5433/x"], ["${CONNECTION_URL}"]),
        ([GHP], ["${SECRET}"]),
        (["--token", GHP, "--token2", DENSE], ["--token", "${TOKEN}", "--token2", "${TOKEN2}"]),
    ],
)
def test_a_credential_in_the_arguments_is_a_field_and_warned_of(args: list[str], left: list[str]) -> None:
    server = one(stdio(["-y", "x@1.0.0", *args]))
    assert mount(server)["args"] == ["-y", "x@1.0.0", *left]
    assert any("command line" in warning for warning in server.warnings)


def test_a_credential_in_a_url_is_a_field() -> None:
    server = one("https://mcp.exa.example/mcp?exaApiKey=0f3e5f2a-1111-2222-3333-444455556666&tools=web")
    assert form(server) == {"EXAAPIKEY": "secret"}
    assert mount(server)["endpoint"] == "https://mcp.exa.example/mcp?exaApiKey=${EXAAPIKEY}&tools=web"
    path = one(f"https://mcp.zapier.example/s/{DENSE}/mcp")
    assert mount(path)["endpoint"] == "https://mcp.zapier.example/s/${TOKEN}/mcp"


def test_no_message_and_no_repr_holds_what_was_pasted() -> None:
    server = one(stdio(["-y", "x@1.0.0"], {"API_KEY": GHP}))
    assert GHP not in repr(server)
    for text in (
        f"npx --bad-option {GHP}",
        f"curl -H 'Authorization: Bearer {GHP}' https://x.example",
        GHP,
        f"npx {GHP}/x/y",
        f"claude mcp add {GHP}",
        f'{{"x": "{GHP}"',
    ):
        with pytest.raises(RootlinkError) as raised:
            foreign.read(text)
        assert GHP not in raised.value.message


# folders, hosts, variables


def test_folders_in_arguments_are_folders_to_choose() -> None:
    server = one(stdio(["-y", "fs@1.0.0", "/home/me/documents", "~/notes", "/home/me/one.db"]))
    assert form(server) == {"FOLDER": "/home/me/documents", "FOLDER_2": "?", "FILE": "/home/me/one.db"}
    spec = mount(server, FOLDER_2="/home/me/notes")
    assert spec["args"][2:] == ["/home/me/documents", "/home/me/notes", "/home/me/one.db"]
    assert spec["paths"]["write"] == ["/home/me/documents", "/home/me/notes"]
    assert any("~/notes" in warning for warning in server.warnings)


def test_hosts_are_found_in_what_is_no_secret_and_in_what_is() -> None:
    env = {
        "BASE_URL": "https://api.example.com/v1",
        "DATABASE_URL": "postgres://u:pw@db.example:5433/x",
        "L": "http://localhost:1/",
    }
    assert one(stdio(["-y", "x@1.0.0"], env)).hosts == ["api.example.com", "db.example:5433"]


def test_variables_that_change_which_code_runs_are_left_out() -> None:
    server = one(stdio(["-y", "x@1.0.0"], {"NODE_OPTIONS": "--require /tmp/x", "PATH": "/tmp", "LD_PRELOAD": "/x", "A": "b"}))
    assert form(server) == {"A": "b"}
    assert len(server.warnings) == 3


def test_servers_of_one_name_get_names_of_their_own() -> None:
    pasted = {"mcpServers": {"my server": {"command": "npx", "args": ["x"]}, "my_server": {"command": "npx", "args": ["y"]}}}
    assert [server.name for server in foreign.read(json.dumps(pasted), {"my-server"})] == ["my-server-2", "my_server"]
    assert [server.name for server in foreign.read("npx -y @x/mcp@1.0.0", {"x"})] == ["x-2"]


@pytest.mark.parametrize("name", ["__x__", "function", "7zip", "日本", "a" * 200, "-"])
def test_any_name_becomes_one_that_a_connection_may_have(name: str) -> None:
    server = one({"mcpServers": {name: {"command": "npx", "args": ["-y", "x@1.0.0"]}}})
    custom.checked(server.manifest, [])
    assert server.name.isascii()


def test_a_program_of_another_name_is_started() -> None:
    assert mount(one("uvx --from some-package==1.0 other --flag"))["args"] == ["--from", "some-package@1.0", "other", "--flag"]
    assert mount(one("npx -y -p @x/y@1.0.0 other"))["args"] == ["-y", "--package", "@x/y@1.0.0", "other"]


def test_json_is_read_with_comments_and_late_commas_but_no_string_is_touched() -> None:
    assert jsonish.decode('{"a": "// no, /* no */ ,}", /* yes */ "b": [1, 2,], // yes\n}') == {
        "a": "// no, /* no */ ,}",
        "b": [1, 2],
    }
    assert jsonish.decode("{a: 1}") is ...


def test_a_guess_takes_no_time_whatever_is_pasted() -> None:
    for text in (
        "a-" * 30_000,
        '"' * 60_000,
        "{" * 60_000,
        "https://" + "a." * 20_000,
        "your-" * 10_000,
        '{"' + '\\"' * 200_000,
        '{"' + '\\"' * 200_000 + "\\",
        "{/* " + "/* " * 200_000,
    ):
        guess.looks_secret(text)
        guess.left_open(text)
        jsonish.decode(text)


# out again


@pytest.mark.parametrize("name", [entry.name for entry in catalog.load().list() if entry.kind == "mcp"])
@pytest.mark.parametrize("format", foreign.FORMATS)
def test_what_is_exported_asks_for_the_same_when_it_is_pasted(name: str, format: str) -> None:
    entry = catalog.load().get(name)
    given = {field.name: _example(field) for field in entry.fields if not field.secret and field.required}
    secrets = [field.name for field in entry.fields if field.secret]
    vault = {secret: f"{secret}__WORK" for secret in secrets}
    hosts = entry.hosts or ["db.example:5432"]
    spec = msgspec.convert(entry.desired("work", given, vault, hosts)["mount"], MountSpec)
    sites = entry.manifest.own.egress.from_hosts
    config, _ = foreign.exported("work", spec, entry.manifest, format, {kept: field for field, kept in vault.items()})
    written = json.dumps(config)
    assert "__WORK" not in written
    back = one(written)
    assert {field.name for field in Entry.from_manifest(back.manifest).fields if field.secret} == set(secrets)
    if format == "server.json":
        assert [_plain(field) for field in fields(back)] == [_plain(field) for field in entry.fields if field.name not in sites]
    else:
        more = {field.name: _example(field) for field in fields(back) if not field.secret and field.required}
        again = mount(back, **more)
        assert (again.get("args"), again.get("endpoint")) == (spec.args or None, spec.endpoint)
        assert again.get("env") == (None if spec.endpoint else {key: _unworked(value) for key, value in spec.env.items()})
        assert again.get("headers", {}) == {key: _unworked(value) for key, value in spec.headers.items()}


def _example(field: Any) -> str:
    return "/srv/files" if field.format == "filepath" else (field.choices or ["example"])[0]


def _plain(field: Any) -> Any:
    return msgspec.structs.replace(field, pattern=None)


def _unworked(value: str) -> str:
    return value.replace("__WORK}", "}")
