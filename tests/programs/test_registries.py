"""Which hosts package installers will ask is found out from npm, uv and the user's settings for them, in all their forms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rootlink.programs import registries
from rootlink.programs.registries import package_policy, settings_paths

DEFAULT = "https://index.example/simple"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user without any settings, where the tools' own defaults are reserved names."""
    monkeypatch.setattr(registries, "_SYSTEM_UV", tmp_path / "etc" / "uv" / "uv.toml")
    monkeypatch.setattr(registries, "_default_index", lambda env, cwd: DEFAULT)
    known = SimpleNamespace(netloc="index.example", file_storage_domain="files.example")
    monkeypatch.setattr(registries, "_pip_index", lambda: known)
    (tmp_path / ".npmrc").write_text("registry=https://npm.example/\n")
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


def uv_toml(user: dict[str, str], text: str) -> None:
    folder = Path(user["HOME"]) / ".config" / "uv"
    folder.mkdir(parents=True)
    (folder / "uv.toml").write_text(text)


def npmrc(user: dict[str, str], text: str) -> None:
    (Path(user["HOME"]) / ".npmrc").write_text(text)


def allowed(user: dict[str, str], *more: str) -> list[str]:
    return package_policy(user, more).allow


def test_the_registries_of_both_tools_and_the_place_of_files_are_allowed_wherever_they_are(user: dict[str, str]) -> None:
    found = package_policy(user)
    assert found.allow == ["files.example", "index.example", "npm.example"]
    assert found.private == ["0.0.0.0/0", "::/0"]


def test_every_registry_of_an_npmrc_is_allowed_with_its_port_and_proxies(user: dict[str, str]) -> None:
    npmrc(
        user,
        "registry=http://localhost:4873/\n@mine:registry=https://mine.example:8443/npm/\n"
        "@web:registry=http://web.example:80/\nhttps-proxy=http://user:secret@proxy.example:3128\n",
    )
    assert {"localhost:4873", "mine.example:8443", "web.example", "proxy.example:3128"} < set(allowed(user))


@pytest.mark.parametrize("name", ["npm_config_registry", "NPM_CONFIG_REGISTRY"])
def test_a_variable_says_the_registry_of_npm(user: dict[str, str], name: str) -> None:
    assert "other.example" in allowed({**user, name: "https://other.example/"}) and "npm.example" not in allowed(
        {**user, name: "https://other.example/"}
    )


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_a_variable_takes_the_place_of_the_default_index(user: dict[str, str], name: str) -> None:
    found = allowed({**user, name: "https://token:secret@mirror.example:8443/simple"})
    assert found == ["mirror.example:8443", "npm.example"]


@pytest.mark.parametrize("name", ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "PIP_FIND_LINKS"])
def test_a_variable_adds_indexes_to_the_default_one(user: dict[str, str], name: str) -> None:
    found = allowed({**user, name: "https://one.example/simple http://two.example:8080/x"})
    assert found == ["files.example", "index.example", "npm.example", "one.example", "two.example:8080"]


def test_an_index_may_have_a_name_in_its_variable(user: dict[str, str]) -> None:
    assert "one.example" in allowed({**user, "UV_INDEX": "inner=https://one.example/simple?a=b"})


def test_a_uv_toml_names_indexes_in_every_form(user: dict[str, str]) -> None:
    uv_toml(
        user,
        'extra-index-url = ["https://extra.example/simple"]\nfind-links = ["https://links.example/"]\n'
        '[[index]]\nurl = "https://inner.example/simple"\n[pip]\nextra-index-url = ["https://pip.example/simple"]\n',
    )
    more = ["extra.example", "files.example", "index.example", "inner.example", "links.example", "npm.example", "pip.example"]
    assert allowed(user) == more


@pytest.mark.parametrize(
    "text",
    [
        'index-url = "https://mirror.example/simple"',
        '[[index]]\nurl = "https://mirror.example/simple"\ndefault = true',
        '[pip]\nindex-url = "https://mirror.example/simple"',
    ],
)
def test_a_uv_toml_may_take_the_place_of_the_default_index(user: dict[str, str], text: str) -> None:
    uv_toml(user, text)
    assert allowed(user) == ["mirror.example", "npm.example"]


def test_another_uv_toml_may_be_named_or_all_be_left_aside(user: dict[str, str], tmp_path: Path) -> None:
    uv_toml(user, 'index-url = "https://mirror.example/simple"')
    (tmp_path / "other.toml").write_text('index-url = "https://other.example/simple"')
    assert allowed({**user, "UV_CONFIG_FILE": str(tmp_path / "other.toml")}) == ["npm.example", "other.example"]
    assert allowed({**user, "UV_NO_CONFIG": "1"}) == ["files.example", "index.example", "npm.example"]


@pytest.mark.parametrize(
    "text", ["index-url = ", "index = 5", "[pip]\nindex = [5]", "index-url = 5", "find-links = [5]", "pip = 1"]
)
def test_settings_that_uv_could_not_read_either_open_nothing(user: dict[str, str], text: str) -> None:
    uv_toml(user, text)
    assert set(allowed(user)) <= {"files.example", "index.example", "npm.example"}


def test_a_local_index_needs_no_host_but_is_shown(user: dict[str, str], tmp_path: Path) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "simple index"
    wheels.mkdir()
    index.mkdir()
    told = {**user, "UV_FIND_LINKS": str(wheels), "UV_INDEX_URL": index.as_uri()}
    assert allowed(told) == ["npm.example"]
    assert {str(wheels), str(index)} < set(settings_paths(told))


def test_proxies_of_the_environment_are_allowed(user: dict[str, str]) -> None:
    found = allowed({**user, "https_proxy": "http://me:secret@proxy.example:3128", "ALL_PROXY": "socks5://socks.example"})
    assert {"proxy.example:3128", "socks.example:1080"} < set(found)


def test_hosts_that_the_operator_adds_are_allowed(user: dict[str, str]) -> None:
    assert "binaries.example" in allowed(user, "binaries.example")


@pytest.mark.parametrize("url", ["https://", "https://[::1", "https://a..b/", "ftp://x.example/", "https://x:99999/"])
def test_what_is_no_url_of_a_registry_opens_nothing(user: dict[str, str], url: str) -> None:
    assert allowed({**user, "UV_INDEX_URL": url}) == ["npm.example"]


def test_an_address_may_be_a_registry_too(user: dict[str, str]) -> None:
    assert {"127.0.0.1:4873", "[::1]:4873"} < set(
        allowed({**user, "UV_INDEX": "http://127.0.0.1:4873/simple http://[::1]:4873/simple"})
    )


def test_a_tool_that_is_broken_leaves_the_others_answer(user: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argv: list[str], env: object, cwd: str) -> bytes:
        raise OSError("broken")

    monkeypatch.setattr(registries, "_asked", broken)
    assert allowed(user) == ["files.example", "index.example"]


def test_files_of_the_users_settings_are_shown_with_what_they_name(user: dict[str, str], tmp_path: Path) -> None:
    ca, roots = tmp_path / "npm-ca.pem", tmp_path / "roots.pem"
    ca.touch()
    roots.touch()
    npmrc(user, f"cafile = {ca}\n")
    uv_toml(user, "")
    found = settings_paths({**user, "SSL_CERT_FILE": str(roots), "NODE_EXTRA_CA_CERTS": "/nowhere/ca.pem"})
    assert set(found) == {str(tmp_path / ".npmrc"), str(ca), str(roots), str(tmp_path / ".config" / "uv")}


def test_the_tools_that_are_bundled_say_what_their_defaults_are(tmp_path: Path) -> None:
    found = package_policy({"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert len(found.allow) >= 3 and all("." in rule for rule in found.allow)
