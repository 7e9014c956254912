"""Where npm and uv will go for packages: asked of the two tools themselves and of the user's own settings, never named here.

The answer is the policy of doors for packages. A registry is the operator's own choice: whatever address it has may be reached.

    npm       its whole configuration, as it prints it: `registry`, `@scope:registry`, `proxy`, `https-proxy`
    Python    the variables and uv.toml files that uv reads; where they leave the default index in place, what uv's help says that
              is, and where the files of that index lie, which pip knows
    both      the proxy variables

Traps
- pip's own configuration files are not read: uv does not read them either, and only the variables are passed on (`installer.py`).
- An index may keep its files at another host. For any but the default one that can't be known: `package_hosts` names it.
- npm's JSON leaves out URLs with credentials in them; its long list has them, with the password struck out.
- The environment must be the installer's, or another configuration answers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from rootlink.egress import hosts
from rootlink.engine.packages import installer, npm, pypi
from rootlink.errors import Invalid, RootlinkError
from rootlink.wire.engine import EgressPolicy

log = structlog.get_logger(__name__)

ANYWHERE = ["0.0.0.0/0", "::/0"]
ASK_SECS = 20.0  # for one of the tools to answer
_DEFAULT_PORTS = {"http": 80, "https": 443}

_INSTEAD = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")  # in place of the default index
_BESIDES = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_FILES = ("npm_config_userconfig", "npm_config_globalconfig", "npm_config_cafile", "uv_config_file", "node_extra_ca_certs")
_CERTIFICATES = ("ssl_cert_file", "ssl_cert_dir")
_SYSTEM_UV = Path("/etc/uv/uv.toml")
_NPM_FILES = re.compile(r"^\s*(?:cafile|\S+:(?:certfile|keyfile))\s*=\s*(/.+?)\s*$", re.MULTILINE)
_NPM_URL = re.compile(r'^(?:(?:@[^:\s]+:)?registry|proxy|https-proxy) = "([^"\n]+)"', re.MULTILINE)
_UV_DEFAULT = re.compile(r"by\s+default:\s*<?(https?://[^\s>)]+)")


def package_policy(environ: Mapping[str, str], package_hosts: Iterable[str] = ()) -> EgressPolicy:
    """Blocks for about half a second: both tools are asked at once. What one does not tell is left out, and logged."""
    with tempfile.TemporaryDirectory(prefix="rootlink-") as home, ThreadPoolExecutor(2) as both:
        env = installer.environment(environ, Path(home))
        asked = [both.submit(_npm_urls, env, home), both.submit(_python_urls, env, home)]
        urls = [url for answer in asked for url in answer.result()]
    urls += [value for name, value in env.items() if name.lower() in _PROXIES]
    rules = {rule for url in urls if (rule := _rule(url)) is not None}
    return EgressPolicy(allow=sorted(rules | set(package_hosts)), private=ANYWHERE)


def settings_paths(environ: Mapping[str, str]) -> list[str]:
    """Files and folders of this machine that installers read: their settings, certificates, local indexes. Absolute, existing."""
    env = installer.environment(environ, Path("/nonexistent"))
    named = [value for name, value in env.items() if name.lower() in _FILES + _CERTIFICATES]
    found = [Path(part) for value in named for part in value.split(os.pathsep)]
    for file in [path for path in found if path.name.endswith("npmrc")]:
        found += [Path(path) for path in _NPM_FILES.findall(_text(file))]
    found += [Path(env["XDG_CONFIG_HOME"]) / "uv", _SYSTEM_UV.parent]
    found += [path for url in _configured(env) if (path := _local(url)) is not None]
    return list(dict.fromkeys(str(path) for path in found if path.is_absolute() and path.exists()))


# npm


def _npm_urls(env: Mapping[str, str], cwd: str) -> list[str]:
    try:
        node = npm.bundled()
        answer = _asked([str(node.binary), str(node.npm), "config", "list", "--long"], env, cwd).decode("utf-8", "replace")
    except (RootlinkError, OSError, subprocess.SubprocessError) as error:
        log.warning("npm does not tell its registries", why=type(error).__name__)
        return []
    return _NPM_URL.findall(answer)


# Python


def _python_urls(env: Mapping[str, str], cwd: str) -> list[str]:
    urls, default = list(_configured(env)), None
    if not _replaced(env):
        default = _default_index(env, cwd)
    return urls if default is None else [*urls, default, *_files_of(default)]


def _configured(env: Mapping[str, str]) -> Iterator[str]:
    """Every index and place of files that a variable or a uv.toml names."""
    for name in _INSTEAD + _BESIDES:
        for word in re.split(r"[\s,]+" if name == "UV_FIND_LINKS" else r"\s+", env.get(name, "")):
            yield _unnamed(word)
    for document in _documents(env):
        for section in (document, document.get("pip")):
            yield from _in_section(section)


def _in_section(section: Any) -> Iterator[str]:
    if not isinstance(section, dict):
        return
    for name in ("index-url", "extra-index-url", "find-links"):
        value = section.get(name, [])
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))
    for index in _indexes(section):
        yield str(index.get("url", ""))


def _replaced(env: Mapping[str, str]) -> bool:
    """Whether the default index is not asked."""
    if env.get("UV_NO_INDEX") or any(env.get(name) for name in _INSTEAD):
        return True
    for document in _documents(env):
        sections = [section for section in (document, document.get("pip")) if isinstance(section, dict)]
        if any(section.get("index-url") or section.get("no-index") for section in sections):
            return True
        if any(index.get("default") is True for section in sections for index in _indexes(section)):
            return True
    return False


def _indexes(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = section.get("index", [])
    return [index for index in found if isinstance(index, dict)] if isinstance(found, list) else []


def _documents(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The uv.toml files in force; one that can't be read stops uv itself, so here it counts as empty."""
    if env.get("UV_NO_CONFIG"):
        return []
    named, usual = env.get("UV_CONFIG_FILE"), [Path(env["XDG_CONFIG_HOME"]) / "uv" / "uv.toml", _SYSTEM_UV]
    found = []
    for file in [Path(named)] if named else usual:
        with contextlib.suppress(tomllib.TOMLDecodeError):
            found.append(tomllib.loads(_text(file)))
    return found


def _default_index(env: Mapping[str, str], cwd: str) -> str | None:
    try:
        said = _asked([pypi.uv_binary(), "help", "pip", "install"], env, cwd).decode("utf-8", "replace")
    except (RootlinkError, OSError, subprocess.SubprocessError) as error:
        log.warning("uv does not tell its index", why=type(error).__name__)
        return None
    found = _UV_DEFAULT.search(said)
    if found is None:
        log.warning("uv does not tell its index", why="its help does not say")
    return found[1] if found else None


def _files_of(index: str) -> list[str]:
    """Where the files of pip's default index lie, if it is this one. pip's module is read alone: all of pip takes 0.2 s."""
    known = _pip_index()
    if known is None or urlsplit(index).hostname != urlsplit(f"//{known.netloc}").hostname:
        log.info("nobody tells where the index keeps its files; the setting package_hosts can")
        return []
    return [f"https://{known.file_storage_domain}"]


def _pip_index() -> Any:
    found = importlib.util.find_spec("pip")
    folders = found.submodule_search_locations if found is not None else None
    for folder in folders or []:
        spec = importlib.util.spec_from_file_location("_pip_index", Path(folder) / "_internal/models/index.py")
        with contextlib.suppress(OSError, AttributeError, ImportError):
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module.PyPI
    return None


# both


def _asked(argv: list[str], env: Mapping[str, str], cwd: str) -> bytes:
    nothing = subprocess.DEVNULL
    return subprocess.run(argv, env=dict(env), cwd=cwd, stdin=nothing, capture_output=True, timeout=ASK_SECS, check=True).stdout


def _unnamed(word: str) -> str:
    """uv takes `name=URL`."""
    name, equals, url = word.partition("=")
    return url if equals and re.fullmatch(r"[A-Za-z0-9._-]+", name) else word


def _rule(url: str) -> str | None:
    """The rule that opens a URL's host and port; None for what is no host of the network."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        log.warning("a package registry's URL can't be read")
        return None
    if not host or parts.scheme not in ("", "http", "https", "socks4", "socks5", "socks5h"):
        return None
    if "://" not in url and port is None:
        return None  # a path, or a word of npm's; proxies without a scheme have a port
    port = port or _DEFAULT_PORTS.get(parts.scheme, 1080)
    try:
        name = hosts.canonical(host)
    except Invalid as error:
        log.warning("a package registry's host can't be used", reason=error.message)
        return None
    return str(hosts.Rule(name, None if port in hosts.WEB_PORTS else port))


def _local(url: str) -> Path | None:
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return Path(url) if url.startswith("/") else None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
