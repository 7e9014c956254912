"""One run of the command line: which instance it speaks to, in which project and workspace, and with which credential.

The instance is the one running in `--home` (its `run/rootlink.json` and admin token), or the one at `--url`, with
`ROOTLINK_TOKEN`; the local admin token is never sent to a `--url` that is not the local instance. The control plane takes the
admin token. A project's engine takes a project key: the command line makes itself one a project, kept in `cli-keys.json`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rootlink.cli.client import UNREADABLE, Client, path
from rootlink.cli.keyring import Keyring
from rootlink.errors import Forbidden, Invalid, NotFound, Unauthorized, Unavailable
from rootlink.programs.settings import Settings

KEY_PREFIX = "rl_sk_"


class Options(NamedTuple):
    """What was said on the command line; None and False: nothing."""

    home: str | None = None
    url: str | None = None
    project: str | None = None
    ws: str | None = None
    json: bool = False

    def overridden(self, later: dict[str, Any]) -> Options:
        return self._replace(**{name: value for name, value in later.items() if value})


class Running(msgspec.Struct):
    """`run/rootlink.json` of a running instance (CONTRACT §2)."""

    api: str
    mcp: str
    admin_token_file: str
    console: str = ""
    home: str = ""
    pid: int | None = None


class Session:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.json = options.json

    @cached_property
    def settings(self) -> Settings:
        return self.settings_with({})

    def settings_with(self, flags: dict[str, Any]) -> Settings:
        """The settings in force with `flags` on top; None, False and an empty list are flags not given."""
        said = self.options
        return Settings.load({"home": said.home, "url": said.url, "project": said.project, "ws": said.ws, **flags})

    @property
    def ws(self) -> str:
        return self.settings.ws

    @property
    def ws_chosen(self) -> bool:
        """Whether a workspace was asked for, as against `main` by default."""
        return self.settings.sources["ws"] != "default"

    @cached_property
    def running(self) -> Running | None:
        """The instance running in this home, if one says so. It may have died since: then nothing answers at its URL."""
        try:
            return msgspec.json.decode((self.settings.home / "run" / "rootlink.json").read_bytes(), type=Running)
        except (OSError, *UNREADABLE):
            return None

    @cached_property
    def base(self) -> str:
        """The URL all paths of CONTRACT §3 are under."""
        if self.settings.url:
            return origin(self.settings.url)
        if self.running is None:
            raise Unavailable(f"no Rootlink runs in {self.settings.home}; start one with: rootlink up")
        return origin(self.running.api)

    @cached_property
    def local(self) -> Running | None:
        """The instance of this home, if that is the one we speak to."""
        return self.running if self.running is not None and origin(self.running.api) == self.base else None

    @property
    def mcp_url(self) -> str:
        """Where AI clients find this workspace."""
        root = self.local.mcp.rstrip("/") if self.local is not None else f"{self.base}/mcp"
        return root if self.ws == "main" else root + path(self.ws)

    @cached_property
    def token(self) -> str:
        """The credential for the control plane."""
        if self.local is not None:
            return _admin_token(Path(self.local.admin_token_file))
        if not self.settings.token:
            raise Unauthorized(f"{self.base} asks for a credential; put its admin token (or a project key) into ROOTLINK_TOKEN")
        return self.settings.token

    @cached_property
    def api(self) -> Client:
        """The control plane (`/v1`)."""
        return Client(self.base, self.token)

    @cached_property
    def engine(self) -> Client:
        """The project's engine (`/engine/api/v1`), with a project key."""
        if self.token.startswith(KEY_PREFIX):
            return Client(self.base, self.token)
        kept = self._keyring.get(self.base, self.project)
        return Client(self.base, kept or self._make_key(), renew=self._make_key if kept else None)

    @cached_property
    def project(self) -> str:
        """`--project`, or ROOTLINK_PROJECT, or the only project there is."""
        if self.settings.project:
            return self.settings.project
        names = [str(project["name"]) for project in self.api.get("/v1/projects")]
        if not names:
            raise NotFound("there is no project yet; make one with: rootlink projects create NAME")
        if len(names) > 1:
            raise Invalid(f"there are several projects ({', '.join(names)}); say which with --project")
        return names[0]

    def in_project(self, *segments: str) -> str:
        """A path of the control plane under this project."""
        return path("v1", "projects", self.project, *segments)

    def in_workspace(self, *segments: str) -> str:
        """A path of the engine's REST under this workspace."""
        return path("engine", "api", "v1", "ws", self.ws, *segments)

    @cached_property
    def _keyring(self) -> Keyring:
        return Keyring(self.settings.home / "cli-keys.json")

    def _make_key(self) -> str:
        key = str(self.api.post(self.in_project("keys"), {"name": "cli"})["key"])
        self._keyring.put(self.base, self.project, key)
        return key


def origin(url: str) -> str:
    """Where an instance is, however much of its API's path stands behind it."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _admin_token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except PermissionError:
        raise Forbidden(f"the admin token {file} belongs to another user; run this as the user who started Rootlink") from None
    except OSError as error:
        raise Unauthorized(f"the admin token {file} cannot be read: {error.strerror}") from None
