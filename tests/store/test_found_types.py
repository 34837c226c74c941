"""The types of requests that a find may return, and whether each is read by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.store import finding, found_types
from spincycle_server.store.found_types import FoundTypes
from tests.databases import engine_of, migrate
from tests.store.test_finding import ROWS, fill


@pytest.fixture
def unused() -> Any:
    """A connection to a database without tables: a query would fail."""
    with create_engine("sqlite://").connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("wanted", "only", "hidden", "names"),
    [
        ("", None, (), None),
        ("nap", None, (), ["nap"]),
        ("nap", None, ("stop",), ["nap"]),
        ("nap", None, ("nap",), []),
        ("", ("nap", "stop"), (), ["nap", "stop"]),
        ("", ("nap", "stop"), ("stop",), ["nap"]),
        ("", (), (), []),
        ("nap", ("nap", "stop"), (), ["nap"]),
        ("nap", ("stop",), (), []),
        ("n\0p", None, (), []),
        ("", ("n\0p", "nap"), (), ["nap"]),
    ],
)
def test_the_names_follow_from_the_filter_and_from_what_the_caller_may_see(
    unused: Connection,
    wanted: str,
    only: tuple[str, ...] | None,
    hidden: tuple[str, ...],
    names: list[str] | None,
) -> None:
    types = FoundTypes(unused, wanted, only, hidden)
    assert types.names == names
    assert types.may_be_scanned is (names is not None)


def test_many_types_are_not_read_one_by_one(unused: Connection) -> None:
    many = [f"type-{number}" for number in range(found_types.MAX_SCANNED + 1)]
    assert FoundTypes(unused, "", many[1:], ()).may_be_scanned
    assert not FoundTypes(unused, "", many, ()).may_be_scanned


@pytest.mark.parametrize(("visible", "are_rare"), [(0, True), (9, True), (10, False), (100, False)])
def test_types_are_rare_if_few_of_the_newest_requests_have_them(
    unused: Connection, visible: int, are_rare: bool
) -> None:
    newest = [SimpleNamespace(type="nap" if number < visible else "stop") for number in range(100)]
    assert FoundTypes(unused, "", ("nap",), ()).are_rare(newest) is are_rare


@pytest.mark.parametrize(
    ("hidden", "by_type"),
    [(("rare",), False), (("nap", "Nap", "stop-host"), True)],
    ids=["common", "rare"],
)
def test_rare_types_are_read_by_type_and_common_ones_by_time(
    database_url: str, hidden: tuple[str, ...], by_type: bool
) -> None:
    migrate(database_url)
    engine = engine_of(database_url)
    fill(engine, ROWS)
    statements: list[str] = []
    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", lambda *parts: statements.append(parts[2]))
        assert finding.find_requests(connection, RequestFilter(limit=3), hidden_types=hidden)
    engine.dispose()
    assert any("UNION ALL" in statement for statement in statements) is by_type
