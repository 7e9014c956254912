"""Which host and port a URL that somebody gave leads to, and in which words one is refused that leads to several, or nowhere."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.catalog import address
from rootlink.errors import Invalid

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://ro:hunter2@db.example.com:6543/shop", "db.example.com:6543"),
        ("postgres://ro:hunter2@DB.Example.com./shop?sslmode=require", "db.example.com:5432"),
        ("postgresql://db.example.com", "db.example.com:5432"),
        ("postgresql://db.example.com:/shop", "db.example.com:5432"),
        ("postgresql://ro:h%40unter%2F2@db.example.com/shop", "db.example.com:5432"),
        ("postgresql://ro:a@b@db.example.com/shop", "db.example.com:5432"),
        ("postgresql://ro@[2001:DB8::1]:6543/shop", "[2001:db8::1]:6543"),
        ("postgresql://ro@[::1]/shop", "[::1]:5432"),
        ("postgresql://ro@127.0.0.1/shop", "127.0.0.1:5432"),
        ("postgresql://ro@localhost/shop", "localhost:5432"),
        ("postgresql://ro@db.example.com/shop?application_name=me@work", "db.example.com:5432"),
        ("https://api.example.com/v1?host=other", None),
        ("https://api.example.com/v1", "api.example.com:443"),
        ("http://api.example.com?x", "api.example.com:80"),
        ("https://api.example.com#x", "api.example.com:443"),
    ],
)
def test_a_url_leads_to_one_place(url: str, place: str | None) -> None:
    if place is None:
        with pytest.raises(Invalid):
            address.of("PLACE", url)
    else:
        assert str(address.of("PLACE", url)) == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must be a URL that begins with one of https://, http://, postgres://, postgresql://"),
        ("host=db.example.com password=hunter2", "must be a URL that begins with"),
        ("mysql://ro:hunter2@db.example.com/shop", "must be a URL that begins with"),
        (" postgresql://ro:hunter2@db.example.com/shop", "must be a URL that begins with"),
        ("postgresql://ro:hunter2@one.example,two.example/shop", "names several hosts: give the one"),
        ("postgresql://ro:hunter2@one.example:1,two.example:2/shop", "names several hosts"),
        ("postgresql:///shop?user=ro&password=hunter2", "names no host, which would be a unix socket"),
        ("postgresql://ro:hunter2@/shop", "names no host, which would be a unix socket"),
        ("postgresql://ro:hunter2@:5432/shop", "names no host, which would be a unix socket"),
        ("postgresql://ro:hunter2@%2Fvar%2Frun%2Fpostgresql/shop", "names a unix socket"),
        ("postgresql://ro:hunter2@db.example.com/shop?host=/var/run/postgresql", "names a unix socket"),
        ("postgresql:///shop?host=%2Fvar%2Frun", "names a unix socket"),
        ("postgresql://ro:hunter2@db.example.com/shop?host=evil.example", "names its host, port or service after the '?'"),
        ("postgresql://ro:hunter2@db.example.com/shop?sslmode=x&HOST=evil.example", "after the '\\?'"),
        ("postgresql://ro:hunter2@db.example.com/shop?h%6Fst=evil.example", "after the '\\?'"),
        ("postgresql://ro:hunter2@db.example.com/shop?hostaddr=203.0.113.9", "after the '\\?'"),
        ("postgresql://ro:hunter2@db.example.com/shop?port=1", "after the '\\?'"),
        ("postgresql://ro:hunter2@db.example.com/shop?service=shop", "after the '\\?'"),
        (
            "postgresql://ro:hun/ter2@db.example.com/shop",
            "has a '/', '\\?' or '#' in its user or password: write %2F, %3F or %23",
        ),
        ("postgresql://ro:hun?ter2@db.example.com/shop", "write %2F, %3F or %23"),
        ("postgresql://ro:hun#ter2@db.example.com/shop", "write %2F, %3F or %23"),
        ("postgresql://ro:hunter2@db.example.com:99999/shop", "a port from 1 to 65535"),
        ("postgresql://ro:hunter2@db.example.com:hunter2/shop", "a port from 1 to 65535"),
        ("postgresql://ro:hunter2@[::1/shop", "one plain host"),
        ("postgresql://ro:hunter2@[::1]5432/shop", "write \\[ADDRESS\\]:PORT"),
        ("postgresql://ro:hunter2@2130706433/shop", "one plain host"),
        ("postgresql://ro:hunter2@db%2eexample.com/shop", "one plain host"),
        ("postgresql://ro:hunter2@db.example.com\\@evil.example/shop", "write %5C"),
        ("postgresql://ro:hunter2@db example.com/shop", "one plain host"),
        ("postgresql://ro:hunter2@*.example.com/shop", "one plain host"),
    ],
)
def test_what_leads_to_no_place_or_several_is_refused_in_words_that_repeat_nothing(url: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        address.of("PLACE", url)
    assert refused.value.message.startswith("PLACE ")
    assert refused.value.data == {"field": "PLACE"}
    assert not [part for part in (SECRET, "hun", "one.example", "evil", "2130706433") if part in refused.value.message]


@given(st.text(max_size=60), st.text(alphabet="ab.:@/?#[]%,=", max_size=40))
def test_whatever_is_written_is_a_place_or_refused(tail: str, near: str) -> None:
    for url in (f"postgresql://{tail}", f"postgresql://{near}", f"https://u:{SECRET}@{near}{tail}"):
        with contextlib.suppress(Invalid):
            assert address.of("PLACE", url).port is not None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("docs.example.com", "docs.example.com"),
        ("Docs.Example.com/", "docs.example.com"),
        ("docs.example.com:8080", "docs.example.com:8080"),
        ("https://docs.example.com/page?x=1#y", "docs.example.com"),
        ("http://docs.example.com:8080/page", "docs.example.com:8080"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_site_is_a_host_or_a_page_there(text: str, rule: str) -> None:
    assert address.site("SITES", text) == rule


@pytest.mark.parametrize(
    "text", ["*.example.com", "docs.example.com/page", "a b", "https://a.example, b.example", "ftp://a.example", ""]
)
def test_what_is_no_site_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="SITES must"):
        address.site("SITES", text)
