"""The contract of the store, on each database and with failing commits."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import update

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct, to_value
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request, RequestArg, RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    REFUSAL_REASON_NO_SUCH_REQUEST,
    REFUSAL_REASON_STALE,
    Assignment,
)
from spincycle_server.store import Store
from spincycle_server.store.schema import requests
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_request,
    a_suspended_chain,
    create,
    waiting_ids,
)

UNKNOWN = "9vb2d3q0c7k5r1n8m4tg"


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


class TestRequests:
    async def test_a_request_is_read_back_as_it_was_created(self, store: Store) -> None:
        made = a_request(
            user="Zoë",
            args=[
                RequestArg(name="host", given=True, value=to_value("db1", "")),
                RequestArg(name="tags", given=True, value=to_value({"größe": [1, None, "x" * 300]}, "")),
            ],
        )
        chain = a_chain(made.id)
        await store.create_request(made, CreateRequest(type=made.type), chain, None)
        found = await store.get_request(made.id, with_job_chain=True)
        assert found.job_chain == chain
        found.ClearField("job_chain")
        assert found == made

    async def test_a_request_created_with_a_runner_is_running(self, store: Store) -> None:
        made = await create(store)
        found = await store.get_request(made.id, with_job_chain=False)
        assert State(found.state) is State.RUNNING
        assert found.job_runner_url == RUNNER.url
        assert found.started_at.ToMicroseconds() >= found.created_at.ToMicroseconds()
        assert await store.get_assignment(made.id) == (Assignment(request_id=made.id, epoch=1), "r1")

    async def test_times_keep_their_microseconds(self, store: Store) -> None:
        for nanos in (0, 1000, 999_999_000):
            made = await create(store, created_at=Timestamp(seconds=1_800_000_000, nanos=nanos))
            await store.finish(made.id, State.COMPLETE, 1_800_000_001_000_001, 3)
            found = await store.get_request(made.id, with_job_chain=False)
            assert found.created_at.nanos == nanos
            assert (found.finished_at.seconds, found.finished_at.nanos) == (1_800_000_001, 1000)

    async def test_ids_and_types_are_compared_byte_by_byte(self, store: Store) -> None:
        made = await create(store)
        with pytest.raises(NotFoundError):
            await store.get_request(made.id.upper(), with_job_chain=False)
        with pytest.raises(NotFoundError):
            await store.get_request(made.id + " ", with_job_chain=False)
        assert not await store.find_requests(RequestFilter(type="Stop-Host"))
        assert await store.requests_by_id([made.id.upper()]) == {}

    async def test_unknown_requests_and_jobs_are_not_found(self, store: Store) -> None:
        for asked in (
            store.get_request(UNKNOWN, with_job_chain=True),
            store.get_job_chain(UNKNOWN),
            store.get_log(UNKNOWN),
            store.get_job_log(UNKNOWN, "aaaa"),
            store.get_record(UNKNOWN),
            store.finish(UNKNOWN, State.COMPLETE, 1, 1),
            store.suspend(UNKNOWN, a_suspended_chain(UNKNOWN)),
            store.set_progress(UNKNOWN, 1),
            store.record_log(a_log_entry(UNKNOWN)),
            store.request_stop(UNKNOWN),
            store.assign(UNKNOWN, RUNNER, expected_state=State.PENDING),
        ):
            with pytest.raises(NotFoundError) as raised:
                await asked
            assert raised.value.request_id == UNKNOWN
        assert await store.get_assignment(UNKNOWN) is None
        assert await store.get_suspended(UNKNOWN) is None

    async def test_long_and_unusual_texts_are_truncated_to_fit(self, store: Store) -> None:
        made = await create(store, user="ü" * 200)
        assert (await store.get_request(made.id, with_job_chain=False)).user == "ü" * 100
        entry = a_log_entry(made.id, error="a\0b" + "é" * 60_000, stdout="o" * 3_000_000, exit=-7)
        [found] = [await store.record_log(entry)]
        assert found.error.startswith("a\N{REPLACEMENT CHARACTER}bé")
        assert 60_000 < len(found.error.encode()) <= 65_535
        assert (found.stdout, found.exit) == (entry.stdout, -7)

    async def test_large_requests_are_stored_whole(self, store: Store) -> None:
        hosts = [f"host-{number:06d}.example.com" for number in range(20_000)]
        made = a_request(args=[RequestArg(name="hosts", given=True, value=to_value(hosts, ""))])
        request = CreateRequest(type=made.type)
        request.args["hosts"] = hosts
        await store.create_request(made, request, a_chain(made.id), None)
        assert (await store.get_request(made.id, with_job_chain=False)).args == made.args


class TestStates:
    async def test_waiting_requests_are_returned_oldest_first(self, store: Store) -> None:
        made = [
            await create(store, None, created_at=Timestamp(seconds=1_800_000_000 + age)) for age in (5, 1, 3)
        ]
        await create(store)
        assert await waiting_ids(store) == [made[1].id, made[2].id, made[0].id]
        assert await waiting_ids(store, limit=1) == [made[1].id]

    async def test_one_of_many_concurrent_assignments_succeeds(self, store: Store) -> None:
        made = await create(store, None)
        assigned = await asyncio.gather(
            *(store.assign(made.id, runner, expected_state=State.PENDING) for runner in [RUNNER] * 20)
        )
        assert [one for one in assigned if one] == [Assignment(request_id=made.id, epoch=1)]
        assert await state_of(store, made.id) is State.RUNNING

    async def test_an_assignment_needs_the_expected_epoch(self, store: Store) -> None:
        made = await create(store)
        again = await store.assign(made.id, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1)
        assert again == Assignment(request_id=made.id, epoch=2)
        assert await store.assign(made.id, RUNNER, expected_state=State.RUNNING, expected_epoch=1) is None
        assert await store.get_assignment(made.id) == (again, "r2")

    async def test_an_assignment_is_taken_back_once(self, store: Store) -> None:
        made = await create(store)
        assignment = Assignment(request_id=made.id, epoch=1)
        assert await store.unassign(assignment, State.PENDING)
        assert not await store.unassign(assignment, State.PENDING)
        found = await store.get_request(made.id, with_job_chain=False)
        assert State(found.state) is State.PENDING
        assert not found.HasField("started_at")
        assert not found.job_runner_url
        assert await store.assign(made.id, RUNNER, expected_state=State.PENDING) == Assignment(
            request_id=made.id, epoch=2
        )

    async def test_a_request_finishes_once(self, store: Store) -> None:
        made = await create(store)
        await store.finish(made.id, State.FAIL, 1_800_000_009_000_000, 2)
        with pytest.raises(FailedPreconditionError, match="request in state FAIL, expected state RUNNING"):
            await store.finish(made.id, State.COMPLETE, 1_800_000_010_000_000, 3)
        found = await store.get_request(made.id, with_job_chain=False)
        assert (State(found.state), found.finished_jobs, found.job_runner_url) == (State.FAIL, 2, "")
        assert found.finished_at.seconds == 1_800_000_009

    async def test_an_outdated_assignment_cannot_end_its_request(self, store: Store) -> None:
        made = await create(store)
        await store.assign(made.id, OTHER_RUNNER, expected_state=State.RUNNING)
        with pytest.raises(FailedPreconditionError):
            await store.end_assignment(Assignment(request_id=made.id, epoch=1), State.FAIL)
        assert await state_of(store, made.id) is State.RUNNING

    async def test_requests_without_a_runner_are_stopped_at_once(self, store: Store) -> None:
        waiting, running = await create(store, None), await create(store)
        assert await store.stop_unassigned(waiting.id)
        assert not await store.stop_unassigned(waiting.id)
        assert not await store.stop_unassigned(running.id)
        assert await state_of(store, waiting.id) is State.STOPPED

    async def test_a_stop_request_is_stored(self, store: Store) -> None:
        made = await create(store)
        assert not (await store.get_record(made.id)).stop_requested
        assert await store.request_stop(made.id)
        assert await store.request_stop(made.id)
        assert (await store.get_record(made.id)).stop_requested
        await store.finish(made.id, State.STOPPED, 1, 0)
        assert not await store.request_stop(made.id)

    async def test_a_suspended_request_with_a_stop_request_is_not_assigned(self, store: Store) -> None:
        made = await create(store)
        assert await store.request_stop(made.id)
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
        assert await store.assign(made.id, OTHER_RUNNER, expected_state=State.SUSPENDED) is None
        assert await state_of(store, made.id) is State.STOPPED
        assert await store.get_suspended(made.id) is None

    async def test_progress_is_set(self, store: Store) -> None:
        made = await create(store)
        await store.set_progress(made.id, 2)
        assert (await store.get_request(made.id, with_job_chain=False)).finished_jobs == 2


class TestSuspension:
    async def test_a_chain_is_suspended_and_resumed(self, store: Store) -> None:
        made = await create(store)
        suspended = a_suspended_chain(made.id)
        refused = await store.apply_reports("r1", [a_report(made.id, finished_jobs=1, ends=suspended)])
        assert not refused
        assert await state_of(store, made.id) is State.SUSPENDED
        assert await waiting_ids(store, State.SUSPENDED) == [made.id]
        assert await store.get_suspended(made.id) == suspended
        again = await store.assign(made.id, OTHER_RUNNER, expected_state=State.SUSPENDED)
        assert again is not None
        await store.drop_suspended(again)
        assert await store.get_suspended(made.id) is None

    async def test_a_chain_suspended_by_an_original_is_kept_until_the_request_ends(
        self, store: Store
    ) -> None:
        made = await create(store)
        suspended = a_suspended_chain(made.id)
        await store.suspend(made.id, suspended)
        with pytest.raises(FailedPreconditionError):
            await store.suspend(made.id, suspended)
        again = await store.assign(made.id, OTHER_RUNNER, expected_state=State.SUSPENDED)
        assert again is not None
        await store.drop_suspended(again)
        assert (await store.get_record(made.id)).base == suspended
        assert not await store.apply_reports(
            "r2", [a_report(made.id, epoch=2, ends=state_pb2.STATE_COMPLETE)]
        )
        assert await store.get_suspended(made.id) is None

    async def test_a_suspended_chain_is_out_of_date_after_later_tries(self, store: Store) -> None:
        made = await create(store)
        suspended = a_suspended_chain(made.id)
        await store.apply_reports("r1", [a_report(made.id, ends=suspended)])
        again = await store.assign(made.id, RUNNER, expected_state=State.SUSPENDED)
        assert again is not None
        assert await store.get_suspended(made.id) == suspended
        await store.apply_reports("r1", [a_report(made.id, a_log_entry(made.id), epoch=2)])
        assert await store.get_suspended(made.id) is None

    async def test_a_chain_suspended_again_is_not_dropped_by_the_previous_resume(self, store: Store) -> None:
        made = await create(store)
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
        again = await store.assign(made.id, RUNNER, expected_state=State.SUSPENDED)
        assert again is not None
        later = a_suspended_chain(made.id, finished_jobs=2)
        await store.apply_reports("r1", [a_report(made.id, epoch=2, ends=later)])
        await store.drop_suspended(again)
        assert await store.get_suspended(made.id) == later

    async def test_requests_that_are_not_resumed_in_time_fail(self, store: Store) -> None:
        made = await create(store)
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
        assert await store.fail_unresumed(3600) == []
        assert await store.fail_unresumed(-1) == [made.id]
        assert await state_of(store, made.id) is State.FAIL
        assert await store.get_suspended(made.id) is None


class TestJobLog:
    async def test_log_entries_are_ordered_by_job_and_try(self, store: Store) -> None:
        made = await create(store)
        entries = [
            a_log_entry(made.id, "aB3x", 2, error="no", exit=255, state=state_pb2.STATE_FAIL, stderr="ß"),
            a_log_entry(made.id, "aB3x", 1),
            a_log_entry(made.id, "AB3x", 1),
            a_log_entry(made.id, "ab3x", 1),
        ]
        for entry in entries:
            assert await store.record_log(entry) == entry
        assert await store.get_log(made.id) == [entries[2], entries[1], entries[0], entries[3]]
        assert await store.get_job_log(made.id, "aB3x") == entries[0]

    async def test_the_first_entry_of_a_try_is_kept(self, store: Store) -> None:
        made = await create(store)
        first = a_log_entry(made.id)
        assert await store.record_log(first) == first
        assert await store.record_log(a_log_entry(made.id, error="again")) == first
        assert await store.get_log(made.id) == [first]


class TestReports:
    async def test_tries_and_the_end_are_stored_together(self, store: Store) -> None:
        made = await create(store)
        entries = [a_log_entry(made.id, job_id) for job_id in ("aaaa", "bbbb", "cccc")]
        report = a_report(made.id, *entries, finished_jobs=3, ends=state_pb2.STATE_COMPLETE)
        assert await store.apply_reports("r1", [report]) == []
        assert await store.get_log(made.id) == entries
        found = await store.get_request(made.id, with_job_chain=False)
        assert (State(found.state), found.finished_jobs) == (State.COMPLETE, 3)
        assert found.finished_at == report.finish.finished_at

    async def test_tasks_are_counted_apart_from_jobs(self, store: Store) -> None:
        made = await create(store, total_tasks=1)
        unknown = await create(store)

        async def tasks_of(request_id: str) -> tuple[int, int]:
            found = await store.get_request(request_id, with_job_chain=False)
            [listed] = [one for one in await store.find_requests(RequestFilter()) if one.id == request_id]
            assert (listed.total_tasks, listed.finished_tasks) == (found.total_tasks, found.finished_tasks)
            return found.total_tasks, found.finished_tasks

        async def report(request_id: str, jobs: int, tasks: int | None, ends: int | None = None) -> None:
            sent = a_report(request_id, finished_jobs=jobs, ends=ends)
            if tasks is not None:
                sent.finished_tasks = tasks
            assert await store.apply_reports("r1", [sent]) == []

        assert (await tasks_of(made.id), await tasks_of(unknown.id)) == ((1, 0), (0, 0))
        for jobs, tasks, expected in (
            (1, 0, (1, 0)),
            (2, 1, (1, 1)),
            (1, None, (0, 0)),  # The runner is of an earlier version.
            (2, 1, (1, 1)),
            (1, 0, (1, 0)),  # Its sequence is tried again.
        ):
            await report(made.id, jobs, tasks)
            assert await tasks_of(made.id) == expected
        await report(made.id, 3, 1, State.COMPLETE)
        assert await tasks_of(made.id) == (1, 1)
        await report(unknown.id, 3, 1, State.COMPLETE)
        assert await tasks_of(unknown.id) == (0, 0)

    async def test_tasks_are_unknown_after_an_original_has_run_jobs(self, store: Store) -> None:
        made = await create(store, total_tasks=1)
        await store.suspend(made.id, a_suspended_chain(made.id, finished_jobs=1))
        for state, expected in ((State.FAIL, (0, 0)), (State.COMPLETE, (1, 1))):
            with store._engine.begin() as connection:  # as an original resumes and ends it
                connection.execute(
                    update(requests)
                    .values(state=state, finished_jobs=3)
                    .where(requests.c.request_id == made.id)
                )
            found = await store.get_request(made.id, with_job_chain=False)
            assert (found.finished_jobs, found.total_tasks, found.finished_tasks) == (3, *expected)

    async def test_a_repeated_report_changes_nothing(self, store: Store) -> None:
        made = await create(store)
        part = a_report(made.id, a_log_entry(made.id, "aaaa"), finished_jobs=1)
        last = a_report(made.id, a_log_entry(made.id), first=2, finished_jobs=2, ends=state_pb2.STATE_FAIL)
        for report in (part, part, last, last):
            assert await store.apply_reports("r1", [report]) == []
        assert len(await store.get_log(made.id)) == 2
        assert await state_of(store, made.id) is State.FAIL

    async def test_stale_reports_are_refused_and_the_others_are_stored(self, store: Store) -> None:
        mine, taken, ended = await create(store), await create(store), await create(store)
        await store.assign(taken.id, OTHER_RUNNER, expected_state=State.RUNNING)
        await store.finish(ended.id, State.STOPPED, 1, 0)
        wrong = a_log_entry(mine.id)
        wrong.job_id = "too long"
        reports = [
            a_report(taken.id, a_log_entry(taken.id)),
            a_report(ended.id, a_log_entry(ended.id)),
            a_report(UNKNOWN, a_log_entry(UNKNOWN)),
            a_report(mine.id, wrong),
            a_report(mine.id, a_log_entry(mine.id), finished_jobs=1),
        ]
        refused = await store.apply_reports("r1", reports)
        assert [(one.assignment.request_id, one.reason) for one in refused] == [
            (taken.id, REFUSAL_REASON_STALE),
            (ended.id, REFUSAL_REASON_STALE),
            (UNKNOWN, REFUSAL_REASON_NO_SUCH_REQUEST),
            (mine.id, REFUSAL_REASON_INVALID),
        ]
        assert await store.get_log(taken.id) == []
        assert len(await store.get_log(mine.id)) == 1
        assert (await store.get_request(mine.id, with_job_chain=False)).finished_jobs == 1

    async def test_the_record_has_the_tries_in_the_order_of_their_reports(self, store: Store) -> None:
        made = await create(store)
        await store.apply_reports(
            "r1", [a_report(made.id, a_log_entry(made.id, "cccc"), a_log_entry(made.id, "aaaa"))]
        )
        await store.assign(made.id, OTHER_RUNNER, expected_state=State.RUNNING)
        failed = a_log_entry(made.id, "bbbb", 1, state=state_pb2.STATE_FAIL)
        await store.apply_reports("r2", [a_report(made.id, failed, a_log_entry(made.id, "bbbb", 2), epoch=2)])
        record = await store.get_record(made.id)
        assert [(epoch, tried.entry.job_id) for epoch, tried in record.tries] == [
            (1, "cccc"), (1, "aaaa"), (2, "bbbb"), (2, "bbbb"),
        ]  # fmt: skip
        assert [getattr(tried.entry, "try") for _, tried in record.tries] == [1, 1, 1, 2]
        assert [from_struct(tried.job_data) for _, tried in record.tries] == [
            {"n": 1}, {"n": 2}, {}, {"n": 2},
        ]  # fmt: skip
        assert [tried.HasField("job_data") for _, tried in record.tries] == [True, True, False, True]
        assert record.job_chain == a_chain(made.id)


class TestFinding:
    async def test_filters(self, store: Store) -> None:
        old = await create(store, type="stop-host", user="a", created_at=Timestamp(seconds=1_700_000_000))
        new = await create(store, type="start-host", user="b", created_at=Timestamp(seconds=1_700_000_100))
        await store.finish(old.id, State.COMPLETE, 1_700_000_050_000_000, 3)

        async def found(**fields: object) -> list[str]:
            requests = await store.find_requests(RequestFilter(**fields))  # type: ignore[arg-type]
            return [request.id for request in requests]

        assert await found() == [new.id, old.id]
        assert await found(type="stop-host") == [old.id]
        assert await found(user="b") == [new.id]
        assert await found(states=[state_pb2.STATE_COMPLETE]) == [old.id]
        assert await found(since=Timestamp(seconds=1_700_000_050)) == [new.id]
        assert await found(since=Timestamp(seconds=1_700_000_049, nanos=999_999_000)) == [new.id, old.id]
        assert await found(until=Timestamp(seconds=1_700_000_100)) == [old.id]
        assert await found(limit=1) == [new.id]
        assert await found(limit=1, offset=1) == [old.id]
        assert await found(offset=1) == [new.id, old.id]
        assert await found(args=["host=db1"]) == [new.id, old.id]
        assert await found(args=["host=DB1"]) == []
        assert await found(args=["host=db1", "host=db2"]) == []


class TestGroupCommit:
    async def test_concurrent_writes_share_commits(self, store: Store) -> None:
        made = await asyncio.gather(*(create(store) for _ in range(200)))
        assert len({request.id for request in made}) == 200
        assert store.commits < 50
        found = await store.requests_by_id([request.id for request in made])
        assert len(found) == 200

    async def test_a_failing_write_affects_no_other_write(self, store: Store) -> None:
        made = await create(store)

        async def create_again() -> Request:
            request = a_request(id=made.id)
            await store.create_request(request, CreateRequest(type="x"), a_chain(made.id), None)
            return request

        results = await asyncio.gather(create(store), create_again(), create(store), return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, True, False]
        assert (await store.get_request(made.id, with_job_chain=False)).type == "stop-host"
