"""Adopting an original's database changes no row, and the original's statements still work."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.maintenance.migrating import upgrade_database
from spincycle_server.store import DatabaseOptions, Store
from spincycle_server.store.states import StopOutcome
from tests.databases import OPTIONS, SharedServers
from tests.maintenance import original
from tests.store.samples import a_chain, a_log_entry, a_request, create, lost_assignments


@pytest.fixture(params=original.EXITS)
def original_url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> str:
    """The URL of a database of each version of the original, with requests in all states."""
    url = database_servers.url("mariadb", tmp_path)
    original.make_original(url, request.param)
    return url


def migrate(url: str, options: DatabaseOptions = OPTIONS) -> int:
    """Takes a database over; returns how many requests can be found by their args from now on."""
    return upgrade_database(url, options).indexed


def test_adoption_changes_no_row(original_url: str) -> None:
    before = original.rows_of(original_url)
    assert {len(rows) for rows in before.values()} == {6, 12, 1}
    assert migrate(original_url) == 5
    assert original.rows_of(original_url) == before
    assert migrate(original_url) == 0
    assert original.rows_of(original_url) == before


async def test_servers_refuse_an_original_database_before_its_migration(original_url: str) -> None:
    with pytest.raises(FailedPreconditionError, match="run `spincycle migrate`"):
        await Store.open(original_url, OPTIONS)


def test_the_statements_of_the_original_still_work(original_url: str) -> None:
    migrate(original_url)
    fresh = original.OriginalRequest(
        "dc26aor8di16sqictj70", 7, "2026-11-21 19:00:00.5", "2026-11-21 19:00:01.25", finished_jobs=1,
        args=None, log=[original.an_entry("aaaa", 3), original.an_entry("bbbb", 4, exit=255)],
    )  # fmt: skip
    with original.engine_of(original_url).begin() as connection:
        original.insert(connection, fresh)
    with original.engine_of(original_url).begin() as connection:
        connection.execute(text("SET time_zone = '+00:00'"))
        claim = {"id": fresh.id, "host": "rm1", "at": "2026-11-21 19:01:00"}
        assert connection.execute(original.CLAIM, claim).rowcount == 1
        assert connection.execute(original.CLAIM, claim).rowcount == 0
        again = {"id": fresh.id, "at": "2026-11-21 19:02:00", "url": "http://10.0.0.9:32307", "before": 7}
        assert connection.execute(original.START, again).rowcount == 1
        assert connection.execute(original.DROP_SUSPENDED, claim).rowcount == 1
        ended = {"id": fresh.id, "at": "2026-11-21 19:03:00.123456", "state": 3, "jobs": 4}
        assert connection.execute(original.FINISH, ended).rowcount == 1
    with original.engine_of(original_url).begin() as connection:
        connection.execute(text("SET time_zone = '+00:00'"))
        row = connection.execute(original.SELECT_REQUEST, {"id": fresh.id}).one()
        assert (row.state, row.jr_url, row.finished_jobs, row.args) == (3, None, 4, b"null")
        assert str(row.created_at) == "2026-11-21 19:00:00.500000"
        assert str(row.finished_at) == "2026-11-21 19:03:00.123456"
    # One that was made after the takeover can be found by its args after another `migrate`.
    assert migrate(original_url) == 0


async def test_requests_of_the_original_are_read_unchanged(original_url: str) -> None:
    migrate(original_url)
    store = await Store.open(original_url, OPTIONS)
    for expected in original.ALL:
        found = await store.get_request(expected.id, with_job_chain=True)
        assert (found.state, found.finished_jobs) == (expected.state, expected.finished_jobs)
        assert found.user == (expected.user or "")
        assert len(found.args) == len(expected.args or [])
        assert found.job_chain == await store.get_job_chain(expected.id)
        assert set(found.job_chain.jobs) == set(original.JOBS)
        assert len(await store.get_log(expected.id)) == len(expected.log)
    log = await store.get_log(original.COMPLETE.id)
    failed = next(entry for entry in log if State(entry.state) is State.FAIL)
    assert (failed.exit, failed.name, failed.stdout) == (200, "echo-cccc", "grüß")
    suspended = await store.get_suspended(original.SUSPENDED.id)
    assert isinstance(suspended, SuspendedJobChain)
    assert dict(suspended.total_job_tries) == {"aaaa": 1, "bbbb": 1}
    assert await lost_assignments(store) == []
    await store.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["host=db1"], [original.SUSPENDED, original.COMPLETE, original.RUNNING]),
        (["host=db1", 'tags=["a",{"größe":42}]'], [original.COMPLETE]),
        (["host=none"], []),
    ],
)
async def test_requests_of_the_original_are_found_by_args(
    original_url: str, wanted: list[str], found: list[original.OriginalRequest]
) -> None:
    migrate(original_url)
    store = await Store.open(original_url, OPTIONS)
    requests = await store.find_requests(RequestFilter(args=wanted))
    assert [request.id for request in requests] == [request.id for request in found]
    await store.close()


async def test_new_requests_are_stored_in_an_adopted_database(original_url: str) -> None:
    migrate(original_url)
    store = await Store.open(original_url, OPTIONS)
    made = a_request(user="Zoë 🐦")
    del made.args[:]
    await store.create_request(made, CreateRequest(type=made.type), a_chain(made.id), None)
    found = await store.get_request(made.id, with_job_chain=False)
    assert (len(found.args), found.user) == (0, "Zoë 🐦")
    entry = a_log_entry(made.id, exit=-(2**40), name="nap 🐦", error="boom 🐦")
    assert await store.record_log(entry) == entry
    await store.close()


async def test_requests_in_an_adopted_database_are_paused_by_users_with_any_name(original_url: str) -> None:
    migrate(original_url)
    store = await Store.open(original_url, OPTIONS)
    made = await create(store)
    await store.begin_pause(made.id, "Ann \N{FOX FACE}", stops_jobs=False)
    found = await store.get_request(made.id, with_job_chain=False)
    assert found.waiting.startswith("paused by Ann \N{FOX FACE} at 20")
    await store.close()


def test_columns_that_are_added_to_an_original_hold_all_characters(original_url: str) -> None:
    migrate(original_url)
    query = text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND character_set_name NOT IN ('utf8mb4', 'ascii')"
    )
    with original.engine_of(original_url).connect() as connection:
        narrow = {tuple(row) for row in connection.execute(query)}
    known = {
        table: {name.strip(" `") for name in names.split(",")} for table, names in original.COLUMNS.items()
    }
    assert {(table, column) for table, column in narrow if column not in known.get(table, column)} == set()


async def test_running_requests_of_the_original_are_left_alone_until_they_are_stopped(
    original_url: str,
) -> None:
    migrate(original_url)
    store = await Store.open(original_url, OPTIONS)
    before = await store.get_request(original.RUNNING.id, with_job_chain=False)
    assert await store.get_assignment(original.RUNNING.id) is None
    assert await store.run_by_originals(10) == {original.RUNNING.id: "http://10.0.0.9:32307"}
    assert await store.request_stop(original.RUNNING.id) is StopOutcome.RUN_BY_ORIGINAL
    await store.end_lost_original(original.RUNNING.id)
    assert await store.run_by_originals(10) == {}
    stopped = await store.get_request(original.RUNNING.id, with_job_chain=False)
    assert State(stopped.state) is State.STOPPED
    assert stopped.HasField("finished_at")
    assert (stopped.created_at, stopped.started_at) == (before.created_at, before.started_at)
    await store.close()
