"""The catalogue over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from rootlink import catalog
from tests.gateway.conftest import ADMIN, Instance


async def icon(instance: Instance, name: str) -> tuple[Mapping[str, str], str]:
    bearer = {"authorization": f"Bearer {ADMIN}"}
    async with instance.http.get(f"{instance.url}/v1/catalog/{name}/icon", headers=bearer) as response:
        assert response.status == 200
        return response.headers, await response.text()


async def test_every_connector_is_shown_with_its_variants_and_its_icon(instance: Instance) -> None:
    for entry in catalog.load().list():
        shown = await instance.data("GET", f"/v1/catalog/{entry.name}")
        assert [one["variant"] for one in shown["variants"]] == list(entry.variants)
        assert shown["checks"]
        assert shown["icon"] == f"/v1/catalog/{entry.name}/icon"
        assert (await icon(instance, entry.name))[1] == entry.icon


async def test_an_icon_opened_as_a_page_may_run_and_load_nothing(instance: Instance) -> None:
    headers, _ = await icon(instance, "memory")
    assert headers["content-type"].startswith("image/svg+xml")
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["x-content-type-options"] == "nosniff"


async def test_an_icon_needs_a_credential_and_a_connector(instance: Instance) -> None:
    assert (await instance.refused("GET", "/v1/catalog/memory/icon", token=None))[:2] == (401, "unauthorized")
    assert (await instance.refused("GET", "/v1/catalog/nothing/icon"))[:2] == (404, "not_found")
