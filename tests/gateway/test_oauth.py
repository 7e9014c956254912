"""The page a browser comes back to from a sign-in."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest

from rootlink.errors import Forbidden, NotFound, Unavailable
from rootlink.gateway.oauth import MOST_QUERY
from rootlink.wire.engine import SignedIn
from tests.gateway.conftest import Instance

RANDOM = "r4nd0m_-" * 4
CODE = "c0de-canary"


async def came_back(instance: Instance, method: str = "GET", query: str | None = None, **members: str) -> tuple[int, str]:
    """Status and text of the page, with the browser's address left as it is."""
    url = f"{instance.url}/oauth/callback?{query if query is not None else urlencode(members)}"
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "cookie": "rootlink_session=whatever"}
    async with instance.http.request(method, url, headers=headers) as response:
        assert response.content_type == "text/html"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "set-cookie" not in response.headers
        return response.status, await response.text()


def state(instance: Instance) -> str:
    return f"{instance.project}.{RANDOM}"


async def test_a_sign_in_ends_with_a_page_in_words_and_a_line_in_the_audit_log(instance: Instance) -> None:
    status, page = await came_back(instance, state=state(instance), code=CODE, iss="https://login.example", other="thing")
    assert status == 200
    assert "docs is signed in" in page
    assert CODE not in page and RANDOM not in page
    assert instance.provisioner.back == [
        (instance.project, SignedIn(state(instance), CODE, "https://login.example")),
    ]
    lines = await instance.data("GET", "/v1/projects/default/activity")
    assert [(line["actor"], line["action"], line["target"]) for line in lines[:1]] == [
        ("browser", "connection.signed_in", "docs")
    ]
    assert CODE not in str(lines) and RANDOM not in str(lines)


async def test_a_service_that_refused_is_heard_and_its_words_are_only_words(instance: Instance) -> None:
    instance.provisioner.refusal = Forbidden("the service says: <script>alert(1)</script> & more")
    status, page = await came_back(instance, state=state(instance), error="access_denied", error_description="<b>no</b>")
    assert status == 403
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<script" not in page and "<b>" not in page
    assert instance.provisioner.back[0][1].error == "access_denied"


async def test_what_is_not_known_is_one_answer(instance: Instance) -> None:
    instance.provisioner.refusal = NotFound("no project 'prj_000000000000'")
    pages = {
        await came_back(instance, state=f"prj_000000000000.{RANDOM}", code=CODE),
        await came_back(instance, state=f"prj_000000000000.{RANDOM}x", code=CODE),
        await came_back(instance, state="nonsense", code=CODE),
        await came_back(instance, query=""),
    }
    assert len(pages) == 1
    ((status, page),) = pages
    assert status == 404
    assert "prj_" not in page


def _malformed(project: str) -> dict[str, str]:
    good = f"state={project}.{RANDOM}"
    return {
        "no state": f"code={CODE}",
        "a state without its project": f"state={RANDOM}&code={CODE}",
        "a state that can be guessed": f"state={project}.abc&code={CODE}",
        "a path for a project": f"state={quote('../../engines/' + project, safe='')}.{RANDOM}&code={CODE}",
        "a project's name": f"state=default.{RANDOM}&code={CODE}",
        "a line break after the state": f"{good}%0A&code={CODE}",
        "two states": f"{good}&{good}&code={CODE}",
        "two codes": f"{good}&code={CODE}&code=other",
        "neither code nor error": good,
        "code and error": f"{good}&code={CODE}&error=x",
        "too much": f"{good}&code={'x' * MOST_QUERY}",
    }


@pytest.mark.parametrize("sentence", _malformed("prj_000000000000"))
async def test_what_is_malformed_does_not_reach_the_provisioner(instance: Instance, sentence: str) -> None:
    status, page = await came_back(instance, query=_malformed(instance.project)[sentence])
    assert status in (400, 404)
    assert "Not signed in" in page and CODE not in page
    assert instance.provisioner.back == []


async def test_a_preview_of_the_link_ends_no_sign_in(instance: Instance) -> None:
    assert (await came_back(instance, "HEAD", state=state(instance), code=CODE))[0] == 200
    assert instance.provisioner.back == []


async def test_an_engine_that_is_away_is_said_and_can_be_tried_again(instance: Instance) -> None:
    instance.provisioner.refusal = Unavailable("the engine does not answer")
    status, page = await came_back(instance, state=state(instance), code=CODE)
    assert status == 503
    assert "the engine does not answer" in page and "rootlink sign-in" in page


async def test_nothing_of_a_sign_in_is_in_the_logs(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    await came_back(instance, state=state(instance), code=CODE)
    instance.provisioner.refusal = Unavailable("no")
    await came_back(instance, state=state(instance), code=CODE)
    logged = "".join(capsys.readouterr())
    assert CODE not in logged and RANDOM not in logged
