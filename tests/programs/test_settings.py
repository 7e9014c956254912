from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from rootlink.errors import Forbidden, Invalid
from rootlink.programs.settings import BY_NAME, SETTINGS, Settings, from_argv, runtime_dir, runtime_path


def load(home: Path, flags: dict[str, Any] | None = None, /, **environ: Any) -> Settings:
    return Settings.load({"home": str(home), **(flags or {})}, environ)


def toml(home: Path, text: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "rootlink.toml").write_text(text)


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    assert (load(tmp_path).port, load(tmp_path).sources["port"]) == (7300, "default")
    toml(tmp_path, "port = 7301")
    assert (load(tmp_path).port, load(tmp_path).sources["port"]) == (7301, "rootlink.toml")
    found = load(tmp_path, ROOTLINK_PORT="7302")
    assert (found.port, found.sources["port"]) == (7302, "environment ROOTLINK_PORT")
    found = load(tmp_path, {"port": 0}, ROOTLINK_PORT="7302")
    assert (found.port, found.sources["port"]) == (0, "flag --port")


@pytest.mark.parametrize("absent", [None, False, [], ()])
def test_a_flag_that_was_not_given_counts_for_nothing(tmp_path: Path, absent: Any) -> None:
    assert load(tmp_path, {"port": absent, "resolve": absent, "detach": absent}).sources["port"] == "default"


def test_every_setting_has_a_field_a_flag_and_a_variable(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert {setting.name for setting in SETTINGS} == set(settings.sources) == set(settings.shown())
    assert BY_NAME["extra_ca"].flag == "--extra-ca" and BY_NAME["extra_ca"].variable == "ROOTLINK_EXTRA_CA"


def test_the_home_is_where_the_desktop_standard_puts_data() -> None:
    assert Settings.load({}, {"XDG_DATA_HOME": "/data"}).home == Path("/data/rootlink")
    assert Settings.load({}, {}).home == Path("~/.local/share/rootlink").expanduser()
    assert Settings.load({}, {"ROOTLINK_HOME": "/elsewhere"}).sources["home"] == "environment ROOTLINK_HOME"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "http", "must be a port"),
        ("port", "65536", "must be a port"),
        ("resolve", ["api.example=1.2.3.4"], "NAME:PORT=ADDRESS:PORT"),
        ("resolve", ["api.example:443=nowhere:1"], "NAME:PORT=ADDRESS:PORT"),
        ("resolve", ["api.example:443=1.2.3:1"], "does not appear to be an IPv4 or IPv6 address"),
        ("extra_ca", "/nowhere/ca.pem", "existing file"),
        ("allow_private", ["10.0.0.0/99"], "network"),
        ("allow_path", ["/nowhere"], "existing directory"),
        ("sandbox", "none", "must be 'kernel' or 'advisory'"),
        ("egress_rate", "10 MB/s", "such as 500000, 500K or 10M"),
        ("egress_rate", "-1", "such as 500000, 500K or 10M"),
        ("package_hosts", ["https://registry.example/"], "give the host only"),
        ("idle_stop", "soon", "15m"),
        ("log_level", "loud", "debug, info"),
        ("url", "rootlink.example", "http://"),
        ("project", "a/b", "not allowed"),
        ("rate_limit", "-1", "whole number"),
    ],
)
def test_a_value_that_can_not_be_is_refused_with_its_source(tmp_path: Path, name: str, value: Any, words: str) -> None:
    with pytest.raises(Invalid, match=f"flag {BY_NAME[name].flag}: {name} ") as refused:
        load(tmp_path, {name: value})
    assert words in refused.value.message
    text = value if isinstance(value, str) else ",".join(value)
    with pytest.raises(Invalid, match=f"environment {BY_NAME[name].variable}"):
        Settings.load({"home": str(tmp_path)}, {BY_NAME[name].variable: text})


def test_values_are_read_in_the_forms_people_write_them(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        {"idle_stop": "15m", "allow_private": ["10.1.2.3"], "allow_path": [str(tmp_path)], "resolve": ["a.b:443=[::1]:8443"]},
        ROOTLINK_ALLOWED_HOSTS="a.example, b.example",
        ROOTLINK_RATE_LIMIT="0",
    )
    assert (settings.idle_stop, settings.allow_private) == (900.0, ("10.1.2.3/32",))
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.allow_path == (str(tmp_path.resolve()),) and settings.resolve == ("a.b:443=[::1]:8443",)
    assert load(tmp_path, ROOTLINK_IDLE_STOP="90").idle_stop == 90.0


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0), ("500000", 500_000), ("500K", 500_000), ("10M", 10_000_000), ("2 g", 2_000_000_000), (70, 70)]
)
def test_a_rate_is_bytes_a_second(tmp_path: Path, text: Any, rate: int) -> None:
    settings = load(tmp_path, {"egress_rate": text})
    assert settings.egress_rate == rate
    assert from_argv(settings.flags()).egress_rate == rate


def test_the_kernel_sandbox_is_the_default_and_both_tiers_can_be_chosen(tmp_path: Path) -> None:
    assert load(tmp_path).sandbox == "kernel"
    for tier in ("kernel", "advisory"):
        assert load(tmp_path, ROOTLINK_SANDBOX=tier).sandbox == tier


def test_hosts_of_package_registries_are_hosts_with_or_without_a_port(tmp_path: Path) -> None:
    settings = load(tmp_path, ROOTLINK_PACKAGE_HOSTS="Registry.example, files.example:8443")
    assert settings.package_hosts == ("registry.example", "files.example:8443")


def test_a_misspelt_setting_is_refused_with_the_right_spelling(tmp_path: Path) -> None:
    toml(tmp_path, 'allow-privat = ["10.0.0.0/8"]')
    with pytest.raises(Invalid, match="did you mean 'allow_private'"):
        load(tmp_path)
    toml(tmp_path, 'allow-private = ["10.0.0.0/8"]')
    assert load(tmp_path).allow_private == ("10.0.0.0/8",)


@pytest.mark.parametrize("text", ["port = ", "\x00", 'home = "/x"', "[port]"])
def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path, text: str) -> None:
    toml(tmp_path, text)
    with pytest.raises(Invalid):
        load(tmp_path)


def test_no_secret_is_shown_or_taken_from_a_flag(tmp_path: Path) -> None:
    url = "postgresql://u:passw0rd@db/x"
    settings = load(tmp_path, {"token": "from-argv"}, ROOTLINK_DATABASE_URL=url, ROOTLINK_TOKEN="t0ken-value")
    assert settings.token == "t0ken-value" and settings.store_url == url
    assert not {"passw0rd", "t0ken-value", "from-argv"} & set(" ".join([repr(settings), str(settings.shown())]).split("'"))
    assert settings.shown()["token"] == {"value": "set", "source": "environment ROOTLINK_TOKEN"}
    with pytest.raises(Invalid) as refused:
        load(tmp_path, ROOTLINK_DATABASE_URL="   ")
    assert "passw0rd" not in refused.value.message


def test_a_child_program_reads_the_same_settings_from_its_flags(tmp_path: Path) -> None:
    flags = {"port": "0", "resolve": ["a.b:443=127.0.0.1:1", "c.d:80=127.0.0.1:2"], "idle_stop": "1s", "detach": True}
    settings = load(tmp_path, flags)
    again = from_argv(settings.flags())
    assert (again.home, again.port, again.resolve, again.idle_stop) == (tmp_path, 0, settings.resolve, 1.0)
    assert not again.detach
    for argv in (["--port"], ["port", "1"], ["--nothing", "1"]):
        with pytest.raises(Invalid):
            from_argv(["--home", str(tmp_path), *argv])


def test_an_engine_gets_what_an_installer_needs_and_no_more(tmp_path: Path) -> None:
    passed = {"PATH": "/bin", "HOME": "/h", "NPM_CONFIG_REGISTRY": "r", "npm_config_cafile": "c", "UV_INDEX_URL": "u"}
    passed |= {"PIP_INDEX_URL": "p", "HTTPS_PROXY": "x", "no_proxy": "y", "SSL_CERT_FILE": "z"}
    kept_back = {"ROOTLINK_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "a", "LD_PRELOAD": "l", "PYTHONPATH": "q", "SSH_AUTH_SOCK": "s"}
    assert load(tmp_path, **passed, **kept_back).environ == {"LANG": "C.UTF-8", **passed}


def test_the_home_is_private_from_the_start(tmp_path: Path) -> None:
    settings = load(tmp_path / "a" / "home")
    settings.prepare()
    settings.prepare()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (settings.home, *settings.home.iterdir()))


def test_sockets_fit_into_an_address_however_long_the_home(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 200)
    assert len(str(runtime_path(home))) < 50
    assert runtime_path(home) != runtime_path(tmp_path)
    made = runtime_dir(home)
    try:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700 and runtime_dir(home) == made
        made.chmod(0o755)
        with pytest.raises(Forbidden):
            runtime_dir(home)
    finally:
        made.rmdir()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to give a directory away")
def test_a_runtime_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    path = runtime_path(tmp_path)
    path.mkdir(mode=0o700)
    try:
        os.chown(path, 65534, 65534)
        with pytest.raises(Forbidden):
            runtime_dir(tmp_path)
    finally:
        path.rmdir()


def test_a_link_in_place_of_the_runtime_directory_is_refused(tmp_path: Path) -> None:
    path = runtime_path(tmp_path)
    path.symlink_to(tmp_path)
    try:
        with pytest.raises(Forbidden, match="a symbolic link is there: remove it"):
            runtime_dir(tmp_path)
    finally:
        path.unlink()


@pytest.mark.parametrize("there", ["file", "link to nowhere"])
def test_what_is_in_the_way_of_the_runtime_directory_is_named(tmp_path: Path, there: str) -> None:
    path = runtime_path(tmp_path)
    path.touch() if there == "file" else path.symlink_to(tmp_path / "nowhere")
    try:
        with pytest.raises(Forbidden, match=rf"{path} must be .* a (file|symbolic link) is there: remove it and start again"):
            runtime_dir(tmp_path)
    finally:
        path.unlink()
