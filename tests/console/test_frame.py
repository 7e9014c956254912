"""What is around every page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import at, serious, shots
from tests.harness.instance import Instance

PAGES = ["Overview", "Connectors", "Functions", "Egress", "Secrets", "Agents", "Keys", "Activity", "Members"]


@pytest.mark.slow
@pytest.mark.parametrize("title", PAGES)
def test_every_page_is_one_click_away_and_has_a_heading(page: Page, title: str) -> None:
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
    assert title in page.title()


@pytest.mark.slow
@pytest.mark.parametrize("title", PAGES)
def test_no_page_keeps_somebody_out(page: Page, instance: Instance, title: str) -> None:
    page.goto(at(instance, f"/{title.lower()}"))
    expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
    shots(page, title.lower())
    assert serious(page) == []
