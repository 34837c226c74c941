"""Filtered logs and the order of reports on each database, against the same in plain Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.store.changes import TryKey, tries_after
from spincycle_server.store.job_logs import get_log, log_row
from spincycle_server.store.log_filter import LogFilter, LogPosition
from spincycle_server.store.log_pages import get_log_page
from spincycle_server.store.schema import job_log
from tests.databases import DATABASES, SharedServers, engine_of, migrate
from tests.store.samples import a_log_entry
from tests.store.test_finding import FIRST, Row, fill
from tests.store.test_requirements import plans_of

MIXED, OTHER = "a" * 20, "b" * 20
MANY = 3_000
STATES = (State.COMPLETE, State.COMPLETE, State.FAIL, State.STOPPED)

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def number_of(entry: JobLog) -> int:
    number: int = getattr(entry, "try")
    return number


def made_rows() -> list[tuple[JobLog, int, int]]:
    """Returns entries with epoch and ordinal. Epoch 0: an original recorded the try."""
    chance = random.Random(11)
    rows = []
    ordinals = [0, 0, 0]
    for number in range(120):
        job_id = f"{number:03}a"
        name = chance.choice(["noop", "drain"])
        kind = chance.choice(["noop", "noop", "nap"])
        for number_of_try in range(1, chance.choice([2, 2, 3, 5])):
            epoch = chance.choice([0, 1, 2, 2])
            ordinals[epoch] += 1
            entry = a_log_entry(
                MIXED,
                job_id,
                number_of_try,
                name=name,
                type=kind,
                state=chance.choice(STATES),
                finished_at=chance.randrange(1, 30) if epoch == 0 else 5,
                stdout="x" * chance.choice([0, 5, 500]),
            )
            rows.append((entry, epoch, ordinals[epoch]))
    chance.shuffle(rows)
    return rows


ROWS = made_rows()


def key_of(row: tuple[JobLog, int, int]) -> tuple[int, int, str, int]:
    entry, epoch, ordinal = row
    return epoch, ordinal if epoch else entry.finished_at, entry.job_id, number_of(entry)


def expected(wanted: LogFilter) -> list[JobLog]:
    last = {entry.job_id: 0 for entry, _, _ in ROWS}
    for entry, _, _ in ROWS:
        last[entry.job_id] = max(last[entry.job_id], number_of(entry))
    found = []
    for row in ROWS:
        entry = row[0]
        if wanted.states and entry.state not in wanted.states:
            continue
        if wanted.job_id and entry.job_id != wanted.job_id:
            continue
        if wanted.latest_tries and number_of(entry) < last[entry.job_id]:
            continue
        if wanted.omits_noops and entry.name == entry.type == "noop":
            continue
        found.append(row)
    if wanted.newest_first:
        found.sort(key=key_of, reverse=True)
    else:
        found.sort(key=lambda row: (row[0].job_id, number_of(row[0])))
    return [entry for entry, _, _ in found]


def stored(entry: JobLog, epoch: int, ordinal: int, stamp: int | None) -> dict[str, Any]:
    row = log_row(entry, stamp)
    return {**row, "epoch": epoch or None, "ordinal": ordinal if epoch else None}


@pytest.fixture(scope="module", params=DATABASES)
def logged(
    request: pytest.FixtureRequest,
    database_servers: SharedServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Connection]:
    """A connection to a database with a request that an original and two assignments ran, and a large one."""
    url = database_servers.url(request.param, tmp_path_factory.mktemp("log-filter"))
    migrate(url)
    engine = engine_of(url)
    fill(engine, [Row(request_id, "nap", 3, None, FIRST, FIRST + 1) for request_id in (MIXED, OTHER)])
    many = [
        a_log_entry(OTHER, f"{number:04}", state=State.FAIL if number % 1000 == 7 else State.COMPLETE)
        for number in range(MANY)
    ]
    with engine.begin() as connection:
        connection.execute(insert(job_log), [stored(*row, stamp=place) for place, row in enumerate(ROWS)])
        connection.execute(
            insert(job_log), [stored(entry, 1, place, None) for place, entry in enumerate(many, 1)]
        )
        if engine.dialect.name == "postgresql":
            connection.execute(text("ANALYZE job_log"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@slowly
@given(
    st.builds(
        LogFilter,
        st.frozensets(st.sampled_from([*STATES, State.RUNNING]), max_size=2),
        st.sampled_from(["", "", "", "007a", "none", "n\0 é"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.sampled_from([0, 1, 7, 50]),
)
def test_joined_pages_are_the_wanted_entries(logged: Connection, wanted: LogFilter, page_size: int) -> None:
    entries: list[JobLog] = []
    behind: LogPosition | None = None
    while True:
        page = get_log_page(logged, MIXED, behind, page_size, None, wanted=wanted)
        entries += page.entries
        behind = page.last
        if behind is None:
            break
        assert len(page.entries) == page_size
    assert entries == expected(wanted) == get_log(logged, MIXED, wanted)


@slowly
@given(st.sampled_from([1, 7, 50, 1_000]), st.none() | st.tuples(st.integers(0, 90), st.integers(0, 300)))
def test_tries_of_one_request_come_in_the_order_of_their_reports(
    logged: Connection, size: int, stamps: tuple[int, int] | None
) -> None:
    spans = None if stamps is None else [stamps]
    found: list[TryKey] = []
    last: TryKey | None = None
    while True:
        page = tries_after(logged, [MIXED], spans, last, size)
        found += [one.key for one in page]
        if len(page) < size:
            break
        last = page[-1].key
    rows = [row for place, row in enumerate(ROWS) if stamps is None or stamps[0] < place <= stamps[1]]
    assert [key[1:] for key in found] == sorted(map(key_of, rows))
    together = tries_after(logged, [MIXED, "0"], spans, None, 999)
    assert found == [one.key for one in together]


def test_only_keys_of_the_request_count(logged: Connection) -> None:
    def first_after(other: str) -> int:
        return len(tries_after(logged, [MIXED], None, TryKey(other, 2, 10**9, "zzzz", 9), 5))

    assert (first_after("0" * 20), first_after(MIXED), first_after("z" * 20)) == (5, 0, 0)


def test_the_newest_tries_the_failed_jobs_and_streams_read_an_index(logged: Connection) -> None:
    """So a page costs the same whether a request has ten tries or forty thousand."""
    logged.rollback()  # On SQLite, an open transaction keeps others out.
    name = logged.dialect.name
    newest = LogFilter(newest_first=True)
    key = TryKey(OTHER, 1, 2_000, "1999", 1)
    plans = [
        *plans_of(logged.engine, lambda one: newest.read(one, OTHER, [job_log.c.name], None, 10))[:1],
        *plans_of(logged.engine, lambda one: tries_after(one, [OTHER], None, key, 10)),
    ]
    assert all("job_log_reports" in plan for plan in plans), plans
    assert not any("filesort" in plan or "TEMP B-TREE FOR ORDER" in plan for plan in plans), plans
    if name in ("sqlite", "postgresql"):
        failed = LogFilter(frozenset({State.FAIL}), latest_tries=True)
        [plan] = plans_of(logged.engine, lambda one: failed.read(one, OTHER, [job_log.c.name]))
        assert "job_log_failures" in plan
