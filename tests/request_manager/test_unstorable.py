"""What cannot be stored or read concerns one request, and keeps no other from going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from sqlalchemy import update

from spincycle_grpc.errors import InternalError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    Assignment,
    ChainReport,
    RefusedReport,
    ReportRequest,
)
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.runner_reports_service import RunnerReportsService
from spincycle_server.rpc import CallContext
from spincycle_server.store import Store
from spincycle_server.store.schema import request_archives, suspended_job_chains
from tests.limits import STEP
from tests.request_manager.test_delivery import AWAY, ToldRunners
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_suspended_chain,
    create,
)


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


async def dispatched(store: Store, *answers: None) -> Dispatcher:
    """Goes one round, and returns when what it sent has arrived."""
    runners = ToldRunners(store, *answers)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    await dispatcher._round()
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    return dispatcher


async def spoil(store: Store, request_id: str) -> None:
    with store._engine.begin() as connection:
        for table, column in ((request_archives, "job_chain"), (suspended_job_chains, "suspended_job_chain")):
            connection.execute(
                update(table).where(table.c.request_id == request_id).values({column: b'{"requestId":'})
            )


async def test_a_waiting_request_that_cannot_be_read_fails_and_others_start(store: Store) -> None:
    spoilt, sound = await create(store, None), await create(store, None)
    await spoil(store, spoilt.id)
    dispatcher = await dispatched(store, None)
    await dispatcher._dispatch_pending(await store.waiting_requests(10))
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_suspended_request_that_cannot_be_read_fails_and_others_resume(store: Store) -> None:
    spoilt, sound = await create(store), await create(store)
    for made in (spoilt, sound):
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
    await spoil(store, spoilt.id)
    await dispatched(store, None)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_lost_request_that_cannot_be_read_fails_and_others_go_on(store: Store) -> None:
    spoilt, sound = await create(store, OTHER_RUNNER), await create(store, OTHER_RUNNER)
    await spoil(store, spoilt.id)
    await dispatched(store, None)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await store.get_assignment(sound.id) == (Assignment(request_id=sound.id, epoch=2), "r1")


async def test_a_runner_that_cannot_be_reached_is_told_only_while_the_assignment_stands(store: Store) -> None:
    made = await create(store, RUNNER)
    runners = ToldRunners(store, *[AWAY] * 1000)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    await asyncio.sleep(0)
    await store.finish(made.id, State.COMPLETE, 1, 3)
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert runners.answers


async def test_a_stop_that_is_noted_is_answered_though_the_runner_is_not_reached(store: Store) -> None:
    made = await create(store, RUNNER)
    runners = ToldRunners(store)

    async def unreachable(*_: object) -> None:
        raise UnavailableError("cannot reach it")

    runners.stop_job_chain = unreachable  # type: ignore[method-assign, assignment]
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    stopper = RequestStopper(store, runners, dispatcher)
    async with asyncio.timeout(STEP):
        await stopper.stop(made.id)
    assert (await store.get_record(made.id)).stop_requested


async def test_a_report_that_cannot_be_stored_is_refused_and_others_are_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await create(store), await create(store)
    entry = a_log_entry(bad.id)
    apply = store.apply_reports

    async def without_bad(runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        if any(report.assignment.request_id == bad.id for report in reports):
            raise InternalError("the database refused a change", reason="DATABASE_ERROR")
        return await apply(runner_id, reports)

    monkeypatch.setattr(store, "apply_reports", without_bad)
    runners = ToldRunners(store)
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    stopper = RequestStopper(store, runners, dispatcher)
    service = RunnerReportsService(store, runners, dispatcher, stopper, lease=60)
    message = ReportRequest(
        number=1,
        runner=RUNNER,
        chains=[
            a_report(bad.id, entry, ends=state_pb2.STATE_COMPLETE),
            a_report(good.id, a_log_entry(good.id), ends=state_pb2.STATE_COMPLETE),
        ],
    )

    async def messages() -> AsyncIterator[ReportRequest]:
        yield message

    answers = [answer async for answer in service.Report(messages(), CallContext())]
    assert [(one.assignment.request_id, one.reason) for one in answers[0].refused] == [
        (bad.id, REFUSAL_REASON_INVALID)
    ]
    assert await state_of(store, bad.id) is State.RUNNING
    assert await state_of(store, good.id) is State.COMPLETE
