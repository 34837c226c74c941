"""The service RunnerReports: how streams end, and the methods of the original."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.request_pb2 import RequestProgress
from spincycle_grpc.v1.runner_reports_pb2 import (
    ChainReport,
    FinishRequest,
    ProgressRequest,
    RecordLogRequest,
    RefusedReport,
    ReportRequest,
    SuspendRequest,
)
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.request_pauser import RequestPauser
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.runner_reports_service import RunnerReportsService
from spincycle_server.rpc import CallContext
from spincycle_server.store import Store
from tests.limits import STEP
from tests.request_manager.doubles import WillingRunners, make_dispatcher, state_of
from tests.store.samples import RUNNER, a_log_entry, a_report, a_suspended_chain, create

CONTEXT = CallContext()
UNKNOWN = "00000000000000000000"


@pytest.fixture
async def service(store: Store) -> AsyncIterator[RunnerReportsService]:
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    stopper = RequestStopper(store, runners, dispatcher, OriginalRunners(store))
    pauser = RequestPauser(store, runners, dispatcher)
    yield RunnerReportsService(store, runners, dispatcher, stopper, pauser, lease=60)
    await dispatcher.close()
    await runners.close()


async def test_messages_are_acknowledged_in_their_order(service: RunnerReportsService) -> None:
    async def messages() -> AsyncIterator[ReportRequest]:
        yield ReportRequest(number=1, runner=RUNNER)
        for number in range(2, 6):
            yield ReportRequest(number=number)

    answers = service.Report(messages(), CONTEXT)
    assert [answer.number async for answer in answers] == [1, 2, 3, 4, 5]


async def test_an_idle_stream_ends_when_the_server_shuts_down(service: RunnerReportsService) -> None:
    async def messages() -> AsyncIterator[ReportRequest]:
        yield ReportRequest(number=1, runner=RUNNER)
        await asyncio.Event().wait()

    stream = service.Report(messages(), CONTEXT)
    assert (await anext(stream)).number == 1
    rest = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    service.end_streams()
    async with asyncio.timeout(STEP):
        assert await rest is None


async def test_a_message_that_was_received_is_stored_and_acknowledged_before_its_stream_ends(
    store: Store, service: RunnerReportsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(store)
    apply_reports = store.apply_reports

    async def shut_down_and_apply(runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        service.end_streams()
        return await apply_reports(runner_id, reports)

    monkeypatch.setattr(store, "apply_reports", shut_down_and_apply)

    async def messages() -> AsyncIterator[ReportRequest]:
        yield ReportRequest(number=1, runner=RUNNER)
        yield ReportRequest(number=2, chains=[a_report(request.id, ends=state_pb2.STATE_COMPLETE)])
        yield ReportRequest(number=3)

    answers = [answer.number async for answer in service.Report(messages(), CONTEXT)]
    assert answers == [1, 2]
    assert await state_of(store, request.id) is State.COMPLETE


async def test_a_finish_sets_the_final_state(store: Store, service: RunnerReportsService) -> None:
    request = await create(store)
    finish = FinishRequest(request_id=request.id, state=state_pb2.STATE_FAIL, finished_jobs=2)
    await service.Finish(finish, CONTEXT)
    found = await store.get_request(request.id, with_job_chain=False)
    assert (State(found.state), found.finished_jobs) == (State.FAIL, 2)
    assert found.HasField("finished_at")
    with pytest.raises(FailedPreconditionError) as caught:
        await service.Finish(finish, CONTEXT)
    assert caught.value.reason == "WRONG_STATE"


@pytest.mark.parametrize(
    "state", [state_pb2.STATE_UNKNOWN, state_pb2.STATE_PENDING, state_pb2.STATE_RUNNING, 7]
)
async def test_a_request_cannot_finish_in_a_state_that_is_not_final(
    store: Store, service: RunnerReportsService, state: state_pb2.State.ValueType
) -> None:
    request = await create(store)
    with pytest.raises(InvalidArgumentError) as caught:
        await service.Finish(FinishRequest(request_id=request.id, state=state), CONTEXT)
    assert caught.value.reason == "BAD_STATE"
    assert await state_of(store, request.id) is State.RUNNING


async def test_a_suspended_chain_is_stored_with_the_state_of_its_request(
    store: Store, service: RunnerReportsService
) -> None:
    request = await create(store)
    suspended = a_suspended_chain(request.id)
    await service.Suspend(SuspendRequest(request_id=request.id, suspended_job_chain=suspended), CONTEXT)
    assert await state_of(store, request.id) is State.SUSPENDED
    assert await store.get_suspended(request.id) == suspended


async def test_progress_is_stored(store: Store, service: RunnerReportsService) -> None:
    request = await create(store)
    progress = RequestProgress(request_id=request.id, finished_jobs=2)
    await service.Progress(ProgressRequest(request_id=request.id, progress=progress), CONTEXT)
    assert (await store.get_request(request.id, with_job_chain=False)).finished_jobs == 2


MISMATCHES: list[Callable[[RunnerReportsService, str], Awaitable[object]]] = [
    lambda service, request_id: service.Suspend(
        SuspendRequest(request_id=request_id, suspended_job_chain=SuspendedJobChain(request_id=UNKNOWN)),
        CONTEXT,
    ),
    lambda service, request_id: service.Progress(
        ProgressRequest(request_id=request_id, progress=RequestProgress(request_id=UNKNOWN)), CONTEXT
    ),
    lambda service, request_id: service.Progress(ProgressRequest(request_id=request_id), CONTEXT),
]


@pytest.mark.parametrize("call", MISMATCHES)
async def test_a_report_of_another_request_than_the_address_names_is_refused(
    store: Store,
    service: RunnerReportsService,
    call: Callable[[RunnerReportsService, str], Awaitable[object]],
) -> None:
    request = await create(store)
    with pytest.raises(InvalidArgumentError) as caught:
        await call(service, request.id)
    assert (caught.value.reason, caught.value.request_id) == ("WRONG_REQUEST", request.id)
    assert await state_of(store, request.id) is State.RUNNING


async def test_the_first_entry_of_a_try_stands(store: Store, service: RunnerReportsService) -> None:
    request = await create(store)
    first = await service.RecordLog(
        RecordLogRequest(request_id=request.id, entry=a_log_entry(UNKNOWN, exit=1)), CONTEXT
    )
    again = await service.RecordLog(
        RecordLogRequest(request_id=request.id, entry=a_log_entry(UNKNOWN, exit=2)), CONTEXT
    )
    assert (first.entry.exit, first.entry.request_id) == (1, request.id)
    assert again == first


async def test_reports_of_an_unknown_request_are_not_found(service: RunnerReportsService) -> None:
    progress = RequestProgress(request_id=UNKNOWN)
    outcomes = await asyncio.gather(
        service.Finish(FinishRequest(request_id=UNKNOWN, state=state_pb2.STATE_COMPLETE), CONTEXT),
        service.Suspend(
            SuspendRequest(request_id=UNKNOWN, suspended_job_chain=a_suspended_chain(UNKNOWN)), CONTEXT
        ),
        service.Progress(ProgressRequest(request_id=UNKNOWN, progress=progress), CONTEXT),
        service.RecordLog(RecordLogRequest(request_id=UNKNOWN, entry=a_log_entry(UNKNOWN)), CONTEXT),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [NotFoundError] * 4
