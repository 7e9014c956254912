"""PyPI packages: pinned by `uv pip compile`, installed with hashes required into a venv, started as `python <script>`.

Only wheels: building a source distribution runs its code before anybody has looked at it. The environment is of Rootlink's own
Python, so the key of an install holds that Python's version and place.
"""

from __future__ import annotations

import configparser
import platform
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from rootlink.engine.packages import installer, locks
from rootlink.engine.packages.asks import Ask, Spec, normal_name
from rootlink.engine.packages.locks import PypiLock
from rootlink.engine.packages.shelf import digest
from rootlink.engine.packages.starts import Start
from rootlink.errors import Invalid, Unavailable, UpstreamFailed

_ENV = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@cache
def uv_binary() -> str:
    """Raises `Unavailable` if `uv` is not installed."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise Unavailable("uv is not installed: the Python package uv is missing") from None


class Pypi:
    """uv, as an installer for one Python. `env` is that of `installer.environment`."""

    def __init__(self, cache: Path, env: Mapping[str, str], python: str, run: installer.Run = installer.run) -> None:
        self._cache, self._installer = cache, run
        self._env = env
        self._python = python

    def read(self, text: str) -> PypiLock:
        return locks.pypi_lock(text)

    def pin_name(self, ask: Ask) -> str:
        specs = (f"{spec.name}{spec.extras}{spec.wanted}" for spec in ask.specs)
        return digest("pypi", _VERSION, sysconfig.get_platform(), platform.libc_ver()[0], *specs)

    def key(self, ask: Ask, lock: PypiLock) -> str:
        place = str(Path(self._python).resolve())
        return digest(
            lock.text, platform.python_version(), place, sysconfig.get_platform(), platform.libc_ver()[0], ask.specs[0].name
        )

    async def resolve(self, specs: Iterable[Spec], title: str, folder: Path) -> PypiLock:
        """Asks the registry. Raises as `installer.run`, and `UpstreamFailed` if what came back cannot be trusted."""
        asked, answer = folder / "asked.txt", folder / "requirements.txt"
        asked.write_text("".join(f"{spec.name}{spec.extras}{spec.wanted}\n" for spec in specs), "utf-8")
        flags = ["pip", "compile", str(asked), "--generate-hashes", "--no-header", "--no-annotate", "--no-build"]
        await self._run([*flags, "--python", self._python, "--output-file", str(answer)], title, folder)
        try:
            return locks.pypi_lock(answer.read_text("utf-8"))
        except Invalid as error:
            raise UpstreamFailed(f"{title} is not installed: {error.message}") from error

    async def install(self, lock: PypiLock, title: str, folder: Path) -> None:
        """Exactly the requirements into a virtual environment in `folder`. Raises as `installer.run`."""
        requirements, venv = folder / "requirements.txt", folder / "venv"
        requirements.write_text(lock.text, "utf-8")
        await self._run(["venv", "--relocatable", "--no-project", "--python", self._python, str(venv)], title, folder)
        flags = ["pip", "install", "--python", str(venv / "bin" / "python"), "--require-hashes", "--no-build", "--no-deps"]
        flags += ["--link-mode", "copy", "--compile-bytecode"]  # compiled now, since nobody may write there later
        await self._run([*flags, "-r", str(requirements)], title, folder)

    async def _run(self, flags: list[str], title: str, folder: Path) -> None:
        argv = [
            uv_binary(),
            *flags,
            "--no-progress",
            "--color",
            "never",
            "--no-python-downloads",
            "--cache-dir",
            str(self._cache),
        ]
        await self._installer(argv, cwd=folder, env=self._env, registry="PyPI", title=title)

    def start(self, ask: Ask, lock: PypiLock, folder: Path) -> Start:
        """Raises `UpstreamFailed` if the package has no such program."""
        spec, venv = ask.specs[0], folder / "venv"
        scripts = _scripts(venv, spec)
        name = ask.program or _own(scripts, spec)
        program = venv / "bin" / name
        if name not in scripts or not program.is_file():
            found = ", ".join(sorted(scripts)[:10]) or "none"
            raise UpstreamFailed(f"{ask.title} has no program {name!r}; it has {found} (uvx --from {ask.title} PROGRAM)")
        package = f"{spec.name}@{lock.versions.get(spec.name, '')}"
        return Start(
            [*_interpreter(program, venv), str(program), *ask.args], dict(_ENV), package, [folder, Path(sys.base_prefix)]
        )


def _own(scripts: set[str], spec: Spec) -> str:
    by_name = {normal_name(script): script for script in scripts}
    if spec.name in by_name or len(scripts) != 1:
        return by_name.get(spec.name, spec.name)
    return next(iter(scripts))


def _scripts(venv: Path, spec: Spec) -> set[str]:
    """The programs a distribution brings: its console scripts, and the files it puts into `bin`."""
    packages = next(venv.glob("lib/python*/site-packages"), venv)
    for folder in packages.glob("*.dist-info"):
        if normal_name(folder.name.removesuffix(".dist-info").rpartition("-")[0]) == spec.name:
            return _console_scripts(folder / "entry_points.txt") | _files_in_bin(folder / "RECORD")
    return set()


def _console_scripts(path: Path) -> set[str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return set()
    return set(parser["console_scripts"]) if parser.has_section("console_scripts") else set()


def _files_in_bin(path: Path) -> set[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    places = (line.split(",", 1)[0] for line in lines)
    return {place.rpartition("/")[2] for place in places if place.startswith("../../../bin/")}


def _interpreter(program: Path, venv: Path) -> list[str]:
    with program.open("rb") as file:
        head = file.read(256)
    binary = not head.startswith(b"#!")
    return [] if binary else [str(venv / "bin" / "python")]
