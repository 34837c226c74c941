"""Counts on each database are those of a slow model, or say that there may be more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE, STATE_FAIL
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import counting
from spincycle_server.store.counting import COUNTED_STATES, Count, count_requests
from tests.databases import DATABASES, OPTIONS, SharedServers, engine_of, migrate
from tests.store.test_finding import (
    EVERYTHING,
    FIRST,
    MANY_TYPES,
    Visible,
    fill,
    filters,
    made_rows,
    matches,
)

ROWS = [
    replace(
        row,
        state=(state := State.RUNNING if row.state in (State.UNKNOWN, State.RESERVED) else row.state),
        finished_at=(row.finished_at or row.created_at) if state in FINAL_STATES else None,
    )
    for row in made_rows(300, seed=2)
]


@pytest.fixture(scope="module", params=DATABASES)
def filled(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """A connection to a database of many requests, of each kind."""
    url = database_servers.url(request.param, tmp_path_factory.mktemp("counting"))
    migrate(url)
    engine = engine_of(url)
    fill(engine, ROWS)
    engine.dispose()
    reads = make_engine(parse_url(url), OPTIONS, connections=1, reads=True)
    with reads.execution_options(readonly=True).connect() as connection:
        yield connection
    reads.dispose()


def counted(connection: Connection, wanted: RequestFilter, visible: Visible = EVERYTHING) -> dict[int, Count]:
    return count_requests(connection, wanted, only_types=visible.only, hidden_types=visible.hidden)


def expected(wanted: RequestFilter, visible: Visible) -> dict[int, int]:
    """Returns the exact counts."""
    named = [state for state in State if int(state) in {*map(int, wanted.states)}]
    states = named if wanted.states else COUNTED_STATES
    found = [row.state for row in ROWS if matches(row, wanted, visible)]
    return {state: found.count(state) for state in states}


SOME = Visible(only=frozenset({"nap", "rare"}))
HIDDEN = Visible(hidden=frozenset({"nap", "stop-host"}))
MANY = Visible(only=MANY_TYPES)


@pytest.mark.parametrize("visible", [EVERYTHING, SOME, HIDDEN, MANY])
def test_counts_below_the_limit_are_exact(filled: Connection, visible: Visible) -> None:
    @settings(max_examples=15)
    @given(filters())
    def check(wanted: RequestFilter) -> None:
        exact = {state: Count(count) for state, count in expected(wanted, visible).items()}
        assert counted(filled, wanted, visible) == exact

    check()


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_a_count_at_the_limit_says_that_there_may_be_more(
    filled: Connection, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_COUNT", limit)

    @settings(max_examples=15)
    @given(filters())
    def check(wanted: RequestFilter) -> None:
        for state, exact in expected(wanted, SOME).items():
            found = counted(filled, wanted, SOME)[state]
            assert found.number <= min(exact, limit)
            assert found.more or found.number == exact

    check()


def test_filters_that_an_index_answers_are_counted_up_to_the_limit(
    filled: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_COUNT", 5)
    until = Timestamp()
    until.FromMicroseconds(FIRST + 8_000_000)
    for wanted in (
        RequestFilter(),
        RequestFilter(type="nap"),
        RequestFilter(user="finch"),
        RequestFilter(states=[STATE_FAIL, STATE_COMPLETE], until=until),
        RequestFilter(args=["host=db1"], states=[STATE_FAIL]),
    ):
        exact = expected(wanted, EVERYTHING)
        assert max(exact.values()) > 5 or wanted.args
        for state, found in counted(filled, wanted).items():
            if not wanted.args:
                assert found == Count(min(exact[state], 5), exact[state] > 5)


def test_a_state_that_no_request_has_is_not_counted(filled: Connection) -> None:
    assert counted(filled, RequestFilter(states=[99])) == {}  # type: ignore[list-item]
    assert set(counted(filled, RequestFilter(type="nosuch"))) == set(COUNTED_STATES)


def test_a_malformed_filter_is_refused(filled: Connection) -> None:
    with pytest.raises(InvalidArgumentError, match="name=value"):
        counted(filled, RequestFilter(args=["host"]))
