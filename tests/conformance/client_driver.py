"""The engine as the conformance suite's client: `python client_driver.py URL`, as the suite starts it for each scenario.

It mounts the URL in an engine of its own, in this process, and is whatever else a scenario needs: the operator who allows the
scenario's ports, the person who opens a sign-in's link, and the AI's client that lists, calls, and answers what it is asked.
Exits with 0 when all of that could be done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiohttp
import msgspec
import structlog
from nacl.public import PrivateKey

from rootlink.engine import rpc
from rootlink.engine.app import Engine
from rootlink.engine.dispatch import Caller
from rootlink.engine.rpc import RpcError
from rootlink.errors import EgressBlocked, RootlinkError
from rootlink.redaction import Redactor
from rootlink.wire.engine import EgressPolicy, EngineConfig, InstallEvent, SignedIn
from rootlink.wire.mounts import Desired, Identity, MountSpec, OAuth, Step
from tests.harness.calls import Told

MOUNT = "conf"
CALLER = Caller("main", "conformance", frozenset({"use", "manage"}))
REDIRECT = "http://127.0.0.1:3999/oauth/callback"
DOCUMENT = "https://conformance-test.local/client-metadata.json"  # the one the suite knows
UNATTENDED = ("auth/client-credentials", "auth/wif", "auth/enterprise")  # nobody signs in
ROUNDS = 4  # ports that an operator allows one after the other, pages opened for one call
URL_REQUIRED = -32042


class Driver:
    def __init__(self, engine: Engine, url: str, scenario: str, context: dict[str, Any]) -> None:
        self.engine, self.scenario, self.context = engine, scenario, context
        self.url = url
        self.allowed = [urlsplit(url).netloc]
        self.told = Told(capabilities={"elicitation": {"form": {}, "url": {}}}, answer=_answer)
        self.opened: set[str] = set()
        self.opening: set[asyncio.Task[None]] = set()

    # the operator

    def allow(self) -> bool:
        """Whatever was refused since, if it is the suite's own; whether there was anything."""
        refused = [
            f"{one.host}:{one.port}" for one in self.engine.decisions.hand_over() if one.host in ("localhost", "127.0.0.1")
        ]
        fresh = [place for place in refused if place not in self.allowed]
        self.allowed += fresh
        self.engine.outbound.update(EgressPolicy(allow=[*self.allowed], private=["127.0.0.0/8", "::1/128"]))
        return bool(fresh)

    async def mount(self) -> None:
        """Raises RootlinkError."""
        oauth = None
        if self.scenario.startswith("auth/"):
            id = self.context.get("client_id") or (DOCUMENT if self.scenario == "auth/basic-cimd" else None)
            oauth = OAuth(
                "GRANT",
                "" if self.scenario.startswith(UNATTENDED) else REDIRECT,
                client_id=id,
                client_secret=self.context.get("client_secret"),
                private_key=self.context.get("private_key_pem"),
                assertion=self.context.get("valid_jwt"),
                identity=self._identity(),
            )
        spec = MountSpec(MOUNT, "http", endpoint=self.url, oauth=oauth)
        self.allow()
        for _ in range(ROUNDS):
            events: list[InstallEvent] = []

            def emit(event: InstallEvent, events: list[InstallEvent] = events) -> None:
                events.append(event)
                if event.step is not None:
                    self.saw(event.step)

            await self.engine.installer.apply(Desired("c1", "main", MOUNT, mount=spec), emit)
            failed = events[-1].failed
            if failed is None:
                return
            if "rootlink sign-in" in failed["message"]:
                await self.sign_in()
            elif not self.allow():
                raise RootlinkError(failed["message"])

    def _identity(self) -> Identity | None:
        if "idp_id_token" not in self.context:
            return None
        return Identity(self.context["idp_token_endpoint"], self.context["idp_client_id"], self.context["idp_id_token"])

    async def sign_in(self) -> None:
        """As `rootlink sign-in` does. Raises RootlinkError."""
        try:
            await self.opens(await self.engine.accounts.begin("c1"))
        except EgressBlocked:
            if not self.allow():
                raise

    # the person

    def saw(self, step: Step) -> None:
        if step.link is not msgspec.UNSET and step.link not in self.opened:
            self.opened.add(step.link)
            task = asyncio.get_running_loop().create_task(self.opens(step.link))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    async def opens(self, link: str) -> None:
        async with aiohttp.ClientSession() as browser, browser.get(link, allow_redirects=False) as page:
            back = parse_qs(urlsplit(page.headers["Location"]).query)
        known = {name: values[0] for name, values in back.items() if name in SignedIn.__struct_fields__}
        try:
            await self.engine.accounts.end(msgspec.convert(known, SignedIn))
        except RootlinkError as error:
            print(error.message, file=sys.stderr)

    # the client

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Raises RpcError."""
        for turn in range(ROUNDS):
            try:
                return rpc.value(await self.engine.dispatch.handle(CALLER, method, params, self.told))
            except RpcError as error:
                pages = error.data.get("elicitations") if error.code == URL_REQUIRED and isinstance(error.data, dict) else None
                if not pages and self.allow():
                    continue
                if not pages or turn == ROUNDS - 1:
                    raise
                await self.opens(pages[0]["url"])
        raise AssertionError("nothing came of it")

    async def tools(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.ask("tools/list", {}))["tools"]
        return [tool for tool in listed if tool["name"].startswith(f"{MOUNT}__")]

    async def call(self, tool: str, arguments: dict[str, Any] | None = None) -> Any:
        return await self.ask("tools/call", {"name": f"{MOUNT}__{tool}", "arguments": arguments or {}})


async def everything(driver: Driver) -> None:
    """Every tool once, with arguments that fit."""
    for tool in await driver.tools():
        await driver.call(tool["name"].partition("__")[2], _filled(tool["inputSchema"]))


async def named_calls(driver: Driver) -> None:
    for call in driver.context["toolCalls"]:
        await driver.call(call["name"], call["arguments"])


async def every_kind(driver: Driver) -> None:
    await everything(driver)
    for resource in (await driver.ask("resources/list", {}))["resources"]:
        await driver.ask("resources/read", {"uri": resource["uri"]})
    for prompt in (await driver.ask("prompts/list", {}))["prompts"]:
        if prompt["name"].startswith(f"{MOUNT}__"):
            await driver.ask("prompts/get", {"name": prompt["name"], "arguments": {}})


async def echo_schema(driver: Driver) -> None:
    tools = {tool["name"].partition("__")[2]: tool for tool in await driver.tools()}
    echo = next(name for name in tools if "echo" in name)
    focal = next(name for name in tools if name != echo)
    await driver.call(echo, {"schema": tools[focal]["inputSchema"]})


async def lists(driver: Driver) -> None:
    await driver.tools()


async def skills(driver: Driver) -> None:
    await driver.ask("skills/list", {})


ACTS: dict[str, Callable[[Driver], Awaitable[None]]] = {
    "initialize": lists,
    "json-schema-ref-no-deref": lists,
    "sep-2640-client-no-prefetch": skills,
    "json-schema-2020-12-preservation": echo_schema,
    "http-custom-headers": named_calls,
    "http-standard-headers": every_kind,
}


def _filled(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: _of(one) for name, one in schema.get("properties", {}).items() if isinstance(one, dict)}


def _of(schema: dict[str, Any]) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    return {"number": 2, "integer": 2, "boolean": True, "object": {}, "array": []}.get(str(schema.get("type")), "text")


def _answer(method: str, params: Any) -> Any:
    """A client's answer to a form: what is said to be the default, and yes to what has none."""
    assert method == "elicitation/create", method
    return {"action": "accept", "content": _filled(params.get("requestedSchema", {}))}


async def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    url, scenario = sys.argv[-1], os.environ["MCP_CONFORMANCE_SCENARIO"]  # noqa: TID251 - the suite's way to say what is wanted
    context = msgspec.json.decode(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))  # noqa: TID251
    with tempfile.TemporaryDirectory() as home:
        folders = {name: f"{home}/{name}" for name in ("state_dir", "files_dir", "store_dir")}
        for folder in folders.values():
            Path(folder).mkdir()
        seal = bytes(PrivateKey.generate().public_key).hex()
        config = EngineConfig("prj", "key", f"{home}/socket", seal=seal, **folders)
        async with asyncio.TaskGroup() as tasks:
            engine = Engine(config, {}, Redactor(), tasks)
            driver = Driver(engine, url, scenario, context)
            try:
                await driver.mount()
                await ACTS.get(scenario, everything)(driver)
            except (RootlinkError, RpcError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return 1
            finally:
                await engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
