"""The types of the stored requests."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.store import finding, stored_types
from tests.databases import engine_of, migrate
from tests.store.test_finding import ROWS, TYPES, Visible, expected, fill, found_ids


@pytest.fixture
def engine(database_url: str) -> Any:
    migrate(database_url)
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


def test_each_type_is_found_once(engine: Engine) -> None:
    with engine.connect() as connection:
        assert stored_types.stored_types(connection) == set()
    fill(engine, ROWS)
    with engine.connect() as connection:
        assert stored_types.stored_types(connection) == set(TYPES)


def test_more_types_than_the_limit_are_not_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, ROWS)
    hidden = Visible(hidden=frozenset({"nap"}))
    for limit, result in ((len(TYPES), set(TYPES)), (len(TYPES) - 1, None)):
        monkeypatch.setattr(stored_types, "MAX_TYPES", limit)
        with engine.connect() as connection:
            assert stored_types.stored_types(connection) == result
            for wanted in (RequestFilter(), RequestFilter(limit=5, offset=3)):
                assert found_ids(connection, wanted, hidden) == expected(ROWS, wanted, hidden)


def test_a_find_of_a_caller_who_may_see_nothing_reads_no_request(engine: Engine) -> None:
    fill(engine, ROWS)
    statements: list[str] = []
    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", lambda *parts: statements.append(parts[2]))
        assert not finding.find_requests(connection, RequestFilter(), hidden_types=TYPES)
    reads = [statement for statement in statements if "requests" in statement]
    assert len(reads) == len(TYPES) + 1
    assert all("min(requests.type)" in statement for statement in reads)
