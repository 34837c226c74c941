"""Requests that change hands between an original and this project, on the stored rows, on each database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Engine

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.wire import decode, encode
from spincycle_server.chain import RunningChain
from spincycle_server.maintenance import adoption
from spincycle_server.maintenance.migrating import upgrade_database
from spincycle_server.request_manager.recovery import recovered
from spincycle_server.store import Store
from spincycle_server.store.positions import read_position
from spincycle_server.store.schema import job_log, metadata, request_archives, requests, suspended_job_chains
from tests.databases import OPTIONS, engine_of
from tests.maintenance import original
from tests.maintenance.original_counters import COMPLETE, FAIL, STOPPED, OriginalChain, RunnerPanicError
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_request,
    create,
    waiting_ids,
)

CREATED_AT = 1_795_450_211_000_000


class OriginalDatabase:
    """The database as an original uses it: no statement names a column that an original does not know."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = engine_of(url)

    def close(self) -> None:
        self.engine.dispose()

    def _insert(self, table: str, **values: Any) -> None:
        assert set(values) <= {name.strip(" `") for name in original.COLUMNS[table].split(",")}
        with self.engine.begin() as connection:
            connection.execute(insert(metadata.tables[table]).values(values))

    def create(self) -> str:
        """Stores a PENDING request, as an original does before it asks whether the caller may create it."""
        request = a_request()
        chain = a_chain(request.id)
        chain.jobs["bbbb"].retry = 1
        self._insert(
            "requests", request_id=request.id, type="stop-host", state=State.PENDING, user="mallory",
            created_at=CREATED_AT, total_jobs=3, finished_jobs=0,
        )  # fmt: skip
        self._insert(
            "request_archives", request_id=request.id, create_request=b"{}", args=b"null",
            job_chain=encode(chain),
        )  # fmt: skip
        return request.id

    def runs(self, request_id: str) -> None:
        """Starts or resumes a request on a runner of the original."""
        with self.engine.begin() as connection:
            connection.execute(
                update(requests)
                .where(requests.c.request_id == request_id)
                .values(state=State.RUNNING, started_at=CREATED_AT, jr_url="http://10.0.0.9:32307")
            )
            connection.execute(
                delete(suspended_job_chains).where(suspended_job_chains.c.request_id == request_id)
            )

    def log(self, request_id: str, job_id: str, number: int, state: int) -> None:
        """Stores a finished try."""
        self._insert(
            "job_log", request_id=request_id, job_id=job_id, name="nap", type="nap", state=state,
            started_at=1, finished_at=2, error="", exit=0, stdout=b"", stderr=b"", **{"try": number},
        )  # fmt: skip

    def suspend(self, request_id: str, chain: dict[str, Any]) -> None:
        """Suspends a request."""
        with self.engine.begin() as connection:
            connection.execute(
                update(requests)
                .where(requests.c.request_id == request_id)
                .values(state=State.SUSPENDED, jr_url=None)
            )
        self._insert(
            "suspended_job_chains", request_id=request_id, suspended_job_chain=json.dumps(chain).encode(),
            updated_at=CREATED_AT, suspended_at=CREATED_AT,
        )  # fmt: skip

    def suspended_chain(self, request_id: str) -> dict[str, Any]:
        """Returns the stored suspended chain."""
        with self.engine.connect() as connection:
            data = connection.scalar(
                select(suspended_job_chains.c.suspended_job_chain).where(
                    suspended_job_chains.c.request_id == request_id
                )
            )
        assert data is not None
        chain: dict[str, Any] = json.loads(data)
        return chain

    def is_suspended(self, request_id: str) -> bool:
        """Whether an original would resume the request: its state says so, and it has no runner."""
        with self.engine.connect() as connection:
            row = connection.execute(
                select(requests.c.state, requests.c.jr_url).where(requests.c.request_id == request_id)
            ).one()
        return tuple(row) == (State.SUSPENDED, None)


@pytest.fixture
async def store(migrated_url: str) -> AsyncIterator[Store]:
    store = await Store.open(migrated_url, OPTIONS)
    yield store
    await store.close()


@pytest.fixture
async def theirs(migrated_url: str) -> AsyncIterator[OriginalDatabase]:
    database = OriginalDatabase(migrated_url)
    yield database
    database.close()


def fresh_chain(request_id: str) -> dict[str, Any]:
    """Returns a chain of an original that has run its first job; its second has one retry."""
    chain = a_chain(request_id)
    chain.jobs["aaaa"].state = state_pb2.STATE_COMPLETE
    chain.jobs["bbbb"].retry = 1
    chain.finished_jobs = 1
    started = SuspendedJobChain(
        request_id=request_id, job_chain=chain, total_job_tries={"aaaa": 1}, latest_run_job_tries={"aaaa": 1},
        sequence_tries={"aaaa": 1},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(encode(started))
    return found


async def resumed(store: Store, request_id: str) -> tuple[Assignment, RunningChain]:
    """Resumes a request on a runner of this project."""
    assignment = await store.assign(request_id, RUNNER, expected_state=State.SUSPENDED)
    assert assignment is not None
    suspended = await store.get_suspended(request_id)
    assert suspended is not None
    await store.drop_suspended(assignment)
    return assignment, RunningChain.resume(suspended)


async def fail_once(store: Store, assignment: Assignment, chain: RunningChain, ordinal: int) -> int:
    """Lets the running try of the second job fail. Returns the number of that try."""
    number = chain.tries_of("bbbb")
    entry = a_log_entry(assignment.request_id, "bbbb", number, state=state_pb2.STATE_FAIL)
    report = a_report(assignment.request_id, entry, epoch=assignment.epoch, first=ordinal, finished_jobs=1)
    assert not await store.apply_reports("r1", [report])
    chain.try_finished("bbbb", State.FAIL, 0)
    return number


async def suspend(store: Store, assignment: Assignment, chain: RunningChain, ordinal: int) -> None:
    """Suspends a chain while its second job runs."""
    number = chain.tries_of("bbbb")
    assert [stop.job_id for stop in chain.suspend(0).stop] == ["bbbb"]
    assert chain.try_finished("bbbb", State.STOPPED, 0).done is State.SUSPENDED
    entry = a_log_entry(assignment.request_id, "bbbb", number, state=state_pb2.STATE_STOPPED)
    report = a_report(
        assignment.request_id, entry, epoch=assignment.epoch, first=ordinal, finished_jobs=1,
        ends=chain.suspended(0),
    )  # fmt: skip
    assert not await store.apply_reports("r1", [report])


def tries_until_failure(chain: RunningChain) -> int:
    """Lets the running second job fail as often as it is retried. Returns the number of tries."""
    tries = 1
    while chain.try_finished("bbbb", State.FAIL, 0).run:
        tries += 1
    assert chain.done is State.FAIL
    return tries


async def counted(store: Store) -> int:
    return sum((await store.requirements.count_waiting(State.PENDING, 10)).values())


class TestPendingRequests:
    async def test_requests_that_an_original_denied_wait_for_nothing(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        denied = [theirs.create() for _ in range(3)]
        assert (await waiting_ids(store), await counted(store)) == ([], 0)
        own = await create(store, None)
        assert (await waiting_ids(store, limit=1), await counted(store)) == ([own.id], 1)
        assert await store.lost_requests(10) == []
        for request_id in denied:
            found = await store.get_request(request_id, with_job_chain=True)
            assert State(found.state) is State.PENDING

    async def test_a_denied_request_runs_when_somebody_starts_it(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        request_id = theirs.create()
        assignment = await store.assign(request_id, RUNNER, expected_state=State.PENDING)
        assert assignment == Assignment(request_id=request_id, epoch=1)
        # A runner that refuses it gives it back. Then it waits like any other.
        assert await store.unassign(assignment, State.PENDING)
        assert await waiting_ids(store) == [request_id]

    async def test_a_denied_request_that_somebody_starts_without_a_runner_waits(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        request_id, own = theirs.create(), await create(store, None)
        assert await store.release(request_id)
        assert not await store.release(request_id)
        assert not await store.release(own.id)
        assert set(await waiting_ids(store)) == {request_id, own.id}

    async def test_a_denied_request_can_be_stopped(self, store: Store, theirs: OriginalDatabase) -> None:
        request_id = theirs.create()
        assert await store.stop_unassigned(request_id)
        found = await store.get_request(request_id, with_job_chain=False)
        assert State(found.state) is State.STOPPED


async def test_denied_requests_fail_together_and_watchers_see_it(
    store: Store, theirs: OriginalDatabase, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_PAGE", 2)
    denied = [theirs.create() for _ in range(5)]
    waits, runs = await create(store, None), await create(store)
    with theirs.engine.connect() as connection:
        before = read_position(connection)
    assert upgrade_database(migrated_url, OPTIONS).left_pending == 5
    done = upgrade_database(migrated_url, OPTIONS, fail_pending=True)
    assert (done.failed, done.left_pending) == (5, 0)
    with theirs.engine.connect() as connection:
        after = read_position(connection)
        stamps = connection.execute(select(requests.c.request_id, requests.c.change_stamp)).all()
    changed = {row[0] for row in stamps if after.has(row[1]) and not before.has(row[1])}
    assert changed == set(denied)
    for request_id in denied:
        found = await store.get_request(request_id, with_job_chain=False)
        assert State(found.state) is State.FAIL
        assert found.HasField("finished_at")
    assert await store.stop_unassigned(waits.id)
    assert await store.request_stop(runs.id)


class TestSuspendedChains:
    async def test_a_chain_of_the_original_keeps_the_retry_of_the_stopped_job(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        request_id = theirs.create()
        theirs.runs(request_id)
        chain = OriginalChain(fresh_chain(request_id))
        theirs.log(request_id, "bbbb", chain.try_job("bbbb", STOPPED), STOPPED)
        theirs.suspend(request_id, chain.suspended())
        _, ours = await resumed(store, request_id)
        [run] = ours.start(0).run
        assert (run.job_id, run.number) == ("bbbb", 2)
        assert tries_until_failure(ours) == 2

    async def test_a_retry_that_was_used_on_the_original_stays_used(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        request_id = theirs.create()
        theirs.runs(request_id)
        chain = OriginalChain(fresh_chain(request_id))
        chain.try_job("bbbb", FAIL)
        chain.try_job("bbbb", STOPPED)
        theirs.suspend(request_id, chain.suspended())
        _, ours = await resumed(store, request_id)
        [run] = ours.start(0).run
        assert run.number == 3
        assert tries_until_failure(ours) == 1

    async def test_a_chain_of_this_project_keeps_the_retry_on_the_original(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        made = await create(store, RUNNER)
        chain = a_chain(made.id)
        chain.jobs["bbbb"].retry = 1
        ours = RunningChain.new(chain)
        ours.start(0)
        ours.try_finished("aaaa", State.COMPLETE, 0)
        await suspend(store, Assignment(request_id=made.id, epoch=1), ours, 1)
        assert theirs.is_suspended(made.id)
        original_chain = OriginalChain(theirs.suspended_chain(made.id))
        assert original_chain.tries_left("bbbb") == 2
        assert original_chain.try_job("bbbb", COMPLETE) == 2

    @pytest.mark.parametrize("wait", ["", "1m"])
    async def test_a_retry_that_was_used_here_stays_used_on_the_original(
        self, store: Store, theirs: OriginalDatabase, wait: str
    ) -> None:
        made = await create(store, RUNNER)
        chain = a_chain(made.id)
        chain.jobs["bbbb"].retry = 1
        chain.jobs["bbbb"].retry_wait = wait
        ours = RunningChain.new(chain)
        ours.start(0)
        ours.try_finished("aaaa", State.COMPLETE, 0)
        ours.try_finished("bbbb", State.FAIL, 0)
        ours.suspend(0)
        if not wait:
            ours.try_finished("bbbb", State.STOPPED, 0)
        report = a_report(made.id, finished_jobs=1, ends=ours.suspended(0))
        assert not await store.apply_reports("r1", [report])
        original_chain = OriginalChain(theirs.suspended_chain(made.id))
        assert original_chain.tries_left("bbbb") == 1

    async def test_a_chain_changes_hands_again_and_again_without_losing_a_retry(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        request_id = theirs.create()
        theirs.runs(request_id)
        chain = OriginalChain(fresh_chain(request_id))
        theirs.log(request_id, "bbbb", chain.try_job("bbbb", STOPPED), STOPPED)
        theirs.suspend(request_id, chain.suspended())
        for turn in range(3):
            assignment, ours = await resumed(store, request_id)
            [run] = ours.start(0).run
            assert (run.job_id, run.number) == ("bbbb", 2 * turn + 2)
            await suspend(store, assignment, ours, 1)
            assert theirs.is_suspended(request_id)
            chain = OriginalChain(theirs.suspended_chain(request_id))
            theirs.runs(request_id)
            # Nobody else takes over what the original runs.
            assert await store.lost_requests(10) == []
            assert await store.get_assignment(request_id) is None
            assert chain.tries_left("bbbb") == 2
            theirs.log(request_id, "bbbb", chain.try_job("bbbb", STOPPED), STOPPED)
            theirs.suspend(request_id, chain.suspended())
        assignment, ours = await resumed(store, request_id)
        ours.start(0)
        assert await fail_once(store, assignment, ours, 1) == 8
        assert tries_until_failure(ours) == 1

    async def test_a_chain_that_came_back_is_rebuilt_from_its_newest_suspension(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        """The runner dies after it has resumed what the original suspended later than this project."""
        made = await create(store, RUNNER)
        chain = a_chain(made.id)
        chain.jobs["bbbb"].retry = 1
        ours = RunningChain.new(chain)
        ours.start(0)
        first = a_report(made.id, a_log_entry(made.id, "aaaa"), finished_jobs=1)
        assert not await store.apply_reports("r1", [first])
        ours.try_finished("aaaa", State.COMPLETE, 0)
        await suspend(store, Assignment(request_id=made.id, epoch=1), ours, 2)
        original_chain = OriginalChain(theirs.suspended_chain(made.id))
        theirs.runs(made.id)
        theirs.log(made.id, "bbbb", original_chain.try_job("bbbb", COMPLETE), COMPLETE)
        theirs.log(made.id, "cccc", original_chain.try_job("cccc", STOPPED), STOPPED)
        theirs.suspend(made.id, original_chain.suspended())
        assignment, ours = await resumed(store, made.id)
        [run] = ours.start(0).run
        assert (run.job_id, run.number) == ("cccc", 2)
        again = await store.assign(
            made.id, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=assignment.epoch
        )
        assert again is not None
        rebuilt, _ = recovered(await store.get_record(made.id))
        assert rebuilt.job_chain.finished_jobs == 2
        [run] = RunningChain.resume(rebuilt).start(0).run
        assert (run.job_id, run.number) == ("cccc", 2)

    async def test_a_chain_that_an_earlier_version_stored_keeps_its_retry(
        self, store: Store, theirs: OriginalDatabase
    ) -> None:
        """That version set the job STOPPED, and did not count the try."""
        made = await create(store, RUNNER)
        chain = fresh_chain(made.id)
        chain["jobChain"]["jobs"]["bbbb"]["state"] = STOPPED
        chain["totalJobTries"]["bbbb"] = 1
        with pytest.raises(RunnerPanicError, match=r"cur 0 \+ delta -1 < 0"):
            OriginalChain(chain)
        from_old_runner = decode(json.dumps(chain).encode(), SuspendedJobChain)
        report = a_report(made.id, finished_jobs=1, ends=from_old_runner)
        assert not await store.apply_reports("r1", [report])
        assert OriginalChain(theirs.suspended_chain(made.id)).tries_left("bbbb") == 2
        with theirs.engine.begin() as connection:
            connection.execute(
                update(suspended_job_chains).values(suspended_job_chain=json.dumps(chain).encode())
            )
        _, ours = await resumed(store, made.id)
        [run] = ours.start(0).run
        assert run.number == 2
        assert tries_until_failure(ours) == 2


async def test_a_repeated_report_of_a_suspended_chain_is_accepted(store: Store) -> None:
    made = await create(store, RUNNER)
    chain = RunningChain.new(a_chain(made.id))
    chain.start(0)
    report = a_report(made.id, ends=chain.suspended(0))
    for _ in range(2):
        assert not await store.apply_reports("r1", [report])


def test_the_rows_have_the_columns_of_the_original() -> None:
    tables = {table.name: table for table in (requests, request_archives, job_log, suspended_job_chains)}
    for name, columns in original.COLUMNS.items():
        assert {column.strip(" `") for column in columns.split(",")} <= set(tables[name].c.keys())
