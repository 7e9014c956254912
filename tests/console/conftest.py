"""A real browser (Debian's Chromium, headless) at a real Rootlink. One of each for all tests of a worker; a page each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.harness.instance import ROOT, Instance, closing

CHROMIUM = shutil.which("chromium")
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = ROOT / ".tests" / "console"  # pictures of each page, for whoever wants to look; kept out of the repository
SHAPES = {"light": (1280, 800), "dark": (1280, 800), "phone": (390, 844)}

SignIn = Callable[..., Page]


@pytest.fixture(scope="package")  # its loop runs in this thread until it is closed: other tests have loops of their own
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (scripts/packages installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    home = tmp_path_factory.mktemp("console") / "home"
    yield from closing(Instance(home, "--allow-private", "127.0.0.0/8"))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What a page must not do is noted: an error in its console or a violation of its policy fails the test that caused it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text) if "Content Security Policy" in message.text else None)
    context.on("weberror", lambda error: said.append(str(error.error)))
    yield context
    context.close()
    assert not said, said


@pytest.fixture
def page(context: BrowserContext, instance: Instance) -> Page:
    """Signed in as the owner, at the first page."""
    return signed_in(context, instance)


def signed_in(context: BrowserContext, instance: Instance, path: str = "/") -> Page:
    page = context.new_page()
    link = instance.v1("POST", "/session/link").data["url"]
    page.goto(link)
    page.get_by_role("navigation", name="Pages").wait_for()
    if path != "/":
        page.goto(instance.api + path)
    return page


def at(instance: Instance, path: str, project: str = "default") -> str:
    """The URL of a project's page."""
    return f"{instance.api}/console/p/{project}{path}"


def serious(page: Page) -> list[str]:
    """What axe finds that would keep somebody out: rule, and where."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def shots(page: Page, name: str) -> None:
    """Pictures of a page in light, in dark and on a phone."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for shape, (width, height) in SHAPES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if shape == "dark" else "light")
        page.wait_for_timeout(150)
        page.screenshot(path=SHOTS / f"{name}-{shape}.png")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme="light")


def shot(page: Page, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
