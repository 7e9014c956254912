from __future__ import annotations

from datetime import UTC, datetime

from rootlink.store import Store


def test_the_log_is_newest_first_and_by_project(store: Store) -> None:
    first = store.activity.add("prj_a", "cli", "secret.put", "KEY")
    other = store.activity.add("prj_b", "cli", "secret.put", "KEY")
    whole = store.activity.add(None, "admin", "project.create", "acme", "by hand")
    assert store.activity.list("prj_a") == [first]
    assert store.activity.list(None) == [whole, other, first]


def test_it_is_read_page_by_page(store: Store) -> None:
    lines = [store.activity.add("prj_a", "cli", "a.b", str(n)) for n in range(5)]
    newest = store.activity.list("prj_a", limit=2)
    older = store.activity.list("prj_a", limit=2, before=newest[-1].id)
    assert [newest, older] == [[lines[4], lines[3]], [lines[2], lines[1]]]
    assert store.activity.list("prj_a", before=lines[0].id) == []
    assert store.activity.list("prj_a", before="act_unknown") == []


def test_its_order_does_not_depend_on_the_clock(url: str) -> None:
    times = iter([datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)])
    store = Store.open(url, clock=lambda: next(times))
    lines = [store.activity.add(None, "cli", "a.b", str(n)) for n in range(2)]
    assert store.activity.list(None) == lines[::-1]
    assert lines[0].time == "2026-01-02T00:00:00.000000Z"
    store.close()
