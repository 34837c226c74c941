"""Pages of finds on each database: joined, they are what a slow model finds, whatever arrives meanwhile."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.store import finding, found_pages
from spincycle_server.store.found_pages import FoundPosition, find_page
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.schema import requests
from tests.databases import DATABASES, SharedServers, engine_of, migrate
from tests.store.test_finding import (
    EVERYTHING,
    FIRST,
    MANY_TYPES,
    ROWS,
    SOME_TYPES,
    Row,
    Visible,
    expected,
    fill,
    filled,
    filters,
)

__all__ = ["filled"]


def pages_of(
    connection: Connection, wanted: RequestFilter, page_size: int, visible: Visible = EVERYTHING
) -> list[list[Request]]:
    """Returns all pages of a find."""
    pages = []
    behind: FoundPosition | None = None
    while True:
        page = find_page(
            connection, wanted, behind, page_size, only_types=visible.only, hidden_types=visible.hidden
        )
        pages.append(page.requests)
        behind = page.last
        if behind is None:
            return pages


def ids_of(pages: list[list[Request]]) -> list[str]:
    return [request.id for page in pages for request in page]


def test_joined_pages_are_what_a_slow_model_finds(
    filled: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FEW", 30)
    monkeypatch.setattr(found_pages, "BLOCK", 7)

    @settings(max_examples=60, deadline=None)
    @example(RequestFilter(limit=5, offset=7), 2, Visible(only=frozenset({"nap", "rare"})))
    @example(RequestFilter(limit=4), 2, EVERYTHING)
    @given(
        filters(),
        st.sampled_from([0, 40, 90, 400, 2**31 - 1]),
        st.one_of(
            st.just(EVERYTHING),
            st.builds(Visible, hidden=SOME_TYPES),
            st.builds(Visible, only=st.one_of(SOME_TYPES, st.just(MANY_TYPES))),
        ),
    )
    def check(wanted: RequestFilter, page_size: int, visible: Visible) -> None:
        pages = pages_of(filled, wanted, page_size, visible)
        assert ids_of(pages) == expected(ROWS, wanted, visible)
        if page_size:
            assert {len(page) for page in pages[:-1]} <= {page_size}
        assert all(pages[:-1])
        assert pages[-1] or len(pages) == 1

    check()


def test_a_page_ends_where_its_room_ends(filled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4_000  # with the room for two reasons why a request waits
    monkeypatch.setattr(found_pages, "PageRoom", lambda items: PageRoom(items, size))
    pages = pages_of(filled, RequestFilter(), 0)
    assert ids_of(pages) == expected(ROWS, RequestFilter())
    assert all(sum(request.ByteSize() for request in page) <= size for page in pages)
    assert len(pages) > 1
    assert all(len(page) > 1 for page in pages[:-1])


@pytest.mark.parametrize("kind", DATABASES)
def test_requests_that_come_and_go_meanwhile_do_not_shift_pages(
    kind: str, database_servers: SharedServers, tmp_path: Any
) -> None:
    """New ones are created at the newest time of the first page and later, with smaller and larger ids."""
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    engine = engine_of(url)
    numbers = count(1)

    def row(time: int, prefix: str) -> Row:
        return Row(f"{prefix}{next(numbers):019d}", "nap", 1, None, FIRST + time // 3, None)

    rows = [row(time, "5") for time in range(20)]
    fill(engine, rows)
    in_order = expected(rows, RequestFilter())
    seen: list[str] = []
    behind: FoundPosition | None = None
    while True:
        with engine.connect() as connection:
            page = find_page(connection, RequestFilter(), behind, 3)
        seen += [request.id for request in page.requests]
        behind = page.last
        if behind is None:
            break
        fill(engine, [row(60, "9"), row(60, "1")])
        with engine.begin() as connection:
            connection.execute(delete(requests).where(requests.c.request_id == behind.request_id))
    assert seen == in_order
    engine.dispose()
