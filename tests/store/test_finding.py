"""Finds on each database return the same requests in the same order as a slow model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.state_pb2 import STATE_PENDING, STATE_RUNNING
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.store import finding, found_types
from spincycle_server.store.schema import request_args, requests
from tests.databases import DATABASES, OPTIONS, SharedServers, engine_of, migrate

FIRST = 1_750_000_000_000_000
LAST = 253_402_300_798_000_000
TIMES = [FIRST + 1_000_000 * number for number in range(12)] + [FIRST + 1, FIRST + 2, FIRST + 999_999]
TYPES = ["nap", "Nap", "stop-host", "rare"]
USERS = [None, "finch", "Finch", "finch ", "ü" * 100]
ARGS = {
    "host": ["db1", "DB1", "db1 ", "", "a=b", "x" * 200],
    "Host": ["db1"],
    "ports": ["[1,null]", "80"],
}


@dataclass
class Row:
    """A request as the model knows it."""

    request_id: str
    type: str
    state: int
    user: str | None
    created_at: int
    finished_at: int | None
    args: dict[str, str] = field(default_factory=dict)


def made_rows(count: int, seed: int) -> list[Row]:
    """Returns rows of few different values, so that all filters match some and times are the same often."""
    chance = random.Random(seed)
    ids = RequestIdGenerator()
    rows = []
    for _ in range(count):
        created_at = chance.choice(TIMES)
        finished_at = chance.choice([None, created_at, *(time for time in TIMES if time > created_at)])
        args = {name: chance.choice(values) for name, values in ARGS.items() if chance.random() < 0.6}
        kind = "rare" if chance.random() < 0.01 else chance.choice(TYPES[:3])
        state, user = chance.choice(list(State)), chance.choice(USERS)
        rows.append(Row(ids.next(), kind, state, user, created_at, finished_at, args))
    chance.shuffle(rows)
    return rows


def fill(engine: Engine, rows: list[Row]) -> None:
    """Stores rows."""
    with engine.begin() as connection:
        connection.execute(
            insert(requests),
            [
                {"request_id": row.request_id, "type": row.type, "state": row.state, "user": row.user,
                 "created_at": row.created_at, "finished_at": row.finished_at, "started_at": None,
                 "total_jobs": 3, "finished_jobs": 0}
                for row in rows
            ],
        )  # fmt: skip
        args = [
            {"request_id": row.request_id, "name": name, "value": value, "created_at": row.created_at}
            for row in rows
            for name, value in row.args.items()
        ]
        if args:
            connection.execute(insert(request_args), args)


def nanoseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos


@dataclass(frozen=True)
class Visible:
    """The types that a caller may see."""

    only: frozenset[str] | None = None
    hidden: frozenset[str] = frozenset()


EVERYTHING = Visible()


def matches(row: Row, wanted: RequestFilter, visible: Visible) -> bool:
    """Whether a row matches a filter, as the contract defines it, and the caller may see it."""
    return (
        (visible.only is None or row.type in visible.only)
        and row.type not in visible.hidden
        and (not wanted.type or row.type == wanted.type)
        and (not wanted.states or row.state in wanted.states)
        and (not wanted.user or row.user == wanted.user)
        and (
            not wanted.HasField("since")
            or row.finished_at is None
            or row.finished_at * 1000 > nanoseconds(wanted.since)
        )
        and (not wanted.HasField("until") or row.created_at * 1000 < nanoseconds(wanted.until))
        and all(
            name in row.args and row.args[name] == value[:200]
            for name, _, value in (arg.partition("=") for arg in wanted.args)
        )
    )


def expected(rows: list[Row], wanted: RequestFilter, visible: Visible = EVERYTHING) -> list[str]:
    """Returns the ids that a find gives."""
    found = sorted(
        (row for row in rows if matches(row, wanted, visible)),
        key=lambda row: (-row.created_at, row.request_id),
    )
    if wanted.limit:
        found = found[wanted.offset : wanted.offset + wanted.limit]
    return [row.request_id for row in found]


@st.composite
def filters(draw: st.DrawFn) -> RequestFilter:
    """Filters with many, few or no matches."""
    wanted = RequestFilter(
        type=draw(st.sampled_from(["", "", *TYPES, "nosuch", "naṗ", "n\0p", "n" * 200])),
        states=draw(st.lists(st.sampled_from([*State, 99, -1]), max_size=4)),
        user=draw(st.sampled_from(["", "", "finch", "Finch", "finch ", "ü" * 100, "FINCH", "f\0"])),
        limit=draw(st.sampled_from([0, 1, 2, 5, 10, 50, 500, 2**64 - 1])),
        offset=draw(st.sampled_from([0, 0, 1, 7, 50, 399, 2**64 - 1])),
        args=draw(
            st.lists(
                st.sampled_from(
                    [f"{name}={value}" for name, values in ARGS.items() for value in values]
                    + ["nosuch=1", "host=" + "x" * 300, "host=d", "ports=\0"]
                ),
                max_size=2,
            )
        ),
    )
    for name in ("since", "until"):
        times = st.sampled_from([0, 4_000_000_000_000_000, LAST, *TIMES])
        time = draw(st.one_of(st.none(), st.none(), times))
        if time is not None:
            moved = time * 1000 + draw(st.sampled_from([-1000, -1, 0, 1, 1000]))
            if moved >= 0:
                getattr(wanted, name).FromNanoseconds(moved)
    return wanted


ROWS = made_rows(400, seed=1)


@pytest.fixture(scope="module", params=DATABASES)
def filled(
    request: pytest.FixtureRequest,
    database_servers: SharedServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Connection]:
    """A connection to a database of many requests, of each kind."""
    url = database_servers.url(request.param, tmp_path_factory.mktemp("finding"))
    migrate(url)
    engine = engine_of(url)
    fill(engine, ROWS)
    engine.dispose()
    # As the store reads: each statement is a transaction of its own.
    reads = make_engine(parse_url(url), OPTIONS, connections=1, reads=True)
    with reads.execution_options(readonly=True).connect() as connection:
        yield connection
    reads.dispose()


def found_ids(connection: Connection, wanted: RequestFilter, visible: Visible = EVERYTHING) -> list[str]:
    found = finding.find_requests(connection, wanted, only_types=visible.only, hidden_types=visible.hidden)
    return [request.id for request in found]


SOME_TYPES = st.frozensets(st.sampled_from([*TYPES, "nosuch", "naṗ", "n\0p"]), max_size=4)
MANY_TYPES = frozenset({f"type-{number}" for number in range(found_types.MAX_SCANNED)} | {"nap", "rare"})


@pytest.mark.parametrize(("few", "block"), [(3, 4), (30, 7), (finding.FEW, finding.BLOCK)])
def test_finds_return_the_same_as_a_slow_model(
    filled: Connection, few: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small values of BLOCK and FEW make 400 requests enough to use every way to read."""
    monkeypatch.setattr(finding, "FEW", few)
    monkeypatch.setattr(finding, "BLOCK", block)

    @settings(max_examples=100, deadline=None)
    @example(RequestFilter(type="nap", states=[STATE_PENDING, STATE_RUNNING], limit=5), EVERYTHING)
    @example(RequestFilter(args=["host=db1"], user="finch", type="nap", limit=50), EVERYTHING)
    @example(RequestFilter(limit=5, offset=7), Visible(only=frozenset({"nap", "rare"})))
    @example(RequestFilter(limit=5, offset=7), Visible(only=MANY_TYPES))
    @example(RequestFilter(limit=5, offset=7), Visible(hidden=frozenset({"nap", "Nap"})))
    @example(RequestFilter(args=["host=db1"], limit=5), Visible(hidden=frozenset({"nap"})))
    @example(RequestFilter(type="nap"), Visible(hidden=frozenset({"nap"})))
    @example(RequestFilter(type="nap", limit=3), Visible(only=frozenset({"rare"})))
    @example(RequestFilter(), Visible(only=frozenset()))
    @given(
        filters(),
        st.one_of(
            st.just(EVERYTHING),
            st.builds(Visible, hidden=SOME_TYPES),
            st.builds(Visible, only=st.one_of(SOME_TYPES, st.just(MANY_TYPES))),
        ),
    )
    def check(wanted: RequestFilter, visible: Visible) -> None:
        assert found_ids(filled, wanted, visible) == expected(ROWS, wanted, visible)

    check()


def test_found_requests_have_all_fields_except_args_and_chains(filled: Connection) -> None:
    by_id = {row.request_id: row for row in ROWS}
    for request in finding.find_requests(filled, RequestFilter(limit=100)):
        row = by_id[request.id]
        assert (request.type, request.state, request.user) == (row.type, row.state, row.user or "")
        assert request.created_at.ToMicroseconds() == row.created_at
        assert request.HasField("finished_at") == (row.finished_at is not None)
        assert not request.args
        assert not request.HasField("job_chain")


@pytest.mark.parametrize(
    "wanted",
    [
        RequestFilter(args=["host"]),
        RequestFilter(args=["=db1"]),
        RequestFilter(args=["host=db1", ""]),
        RequestFilter(args=["host=db1"] * (finding.MAX_ARGS + 1)),
        RequestFilter(since=Timestamp(seconds=2**60)),
        RequestFilter(until=Timestamp(seconds=-(2**60))),
        RequestFilter(since=Timestamp(nanos=-1)),
        RequestFilter(until=Timestamp(nanos=1_000_000_000)),
    ],
)
def test_invalid_filters_are_refused(filled: Connection, wanted: RequestFilter) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        finding.find_requests(filled, wanted)
    assert raised.value.reason == "BAD_FILTER"


@pytest.mark.parametrize("kind", DATABASES)
def test_pages_of_requests_created_at_one_moment_have_no_gaps_and_no_duplicates(
    kind: str, database_servers: SharedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ids order them. As many blocks as 10,000 requests have are read: the blocks are smaller."""
    monkeypatch.setattr(finding, "BLOCK", finding.BLOCK // 10)
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    engine = engine_of(url)
    ids = RequestIdGenerator()
    rows = [
        Row(ids.next(), "nap", State.COMPLETE, None, FIRST, FIRST + 1, {"n": str(number % 3)})
        for number in range(1_000)
    ]
    fill(engine, rows)
    filters_of_all: list[Any] = [
        {},
        {"type": "nap"},
        {"states": [3, 4]},
        {"until": Timestamp(seconds=2 * 10**9)},
    ]
    with engine.connect() as connection:
        in_order = [row.request_id for row in rows]
        for fields in filters_of_all:
            assert found_ids(connection, RequestFilter(**fields)) == in_order
            assert found_ids(connection, RequestFilter(**fields, limit=1_001)) == in_order
            assert found_ids(connection, RequestFilter(**fields, offset=999)) == in_order
        for fields in filters_of_all[:2]:
            pages = [
                found_ids(connection, RequestFilter(**fields, limit=150, offset=offset))
                for offset in range(0, 1_050, 150)
            ]
            assert [request_id for page in pages for request_id in page] == in_order
        assert found_ids(connection, RequestFilter(args=["n=1"])) == in_order[1::3]
        assert (
            found_ids(connection, RequestFilter(args=["n=1"], limit=5, offset=3_000)) == in_order[9001::3][:5]
        )
    engine.dispose()
