"""Retries in the service RequestManager, on a real store, with runners that accept all chains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct, to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainFinish, ChainReport, TryReport
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.request_manager import request_retrier
from spincycle_server.rpc import CallContext
from spincycle_server.specs.model import AclSpec
from spincycle_server.store import Store
from tests.graph.models import NOWHERE, specs
from tests.request_manager.doubles import deliveries_end, state_of
from tests.request_manager.test_service import (
    FINCH,
    SPECS,
    STARTER,
    STOPPER,
    UNKNOWN,
    Manager,
    calls_as,
    managing,
)
from tests.store.samples import RUNNER, a_log_entry

RETRIER = calls_as("robin", "retrier")
SECRET = "hunter2"


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    guarded = SPECS.sequences["guarded"]
    retrier = AclSpec("retrier", admin=False, ops=("retry",), position=NOWHERE)
    listed = specs(SPECS.sequences["nap"], replace(guarded, acl=(*guarded.acl, retrier)))
    async with managing(store, Permissions(AccessLists(listed))) as manager:
        yield manager


async def failed(manager: Manager, request_type: str = "nap", context: CallContext = FINCH) -> Request:
    """Returns a request of which all jobs but the last one are COMPLETE. That one is FAIL."""
    created = await manager.create(request_type, context)
    await deliveries_end(manager.dispatcher)
    chain = await manager.store.get_job_chain(created.id)
    order = [next(iter(set(chain.jobs) - {one for ids in chain.adjacency_list.values() for one in ids.ids}))]
    while children := chain.adjacency_list[order[-1]].ids:
        order.append(children[0])
    report = ChainReport(assignment=Assignment(request_id=created.id, epoch=1), finished_jobs=len(order) - 1)
    for place, job_id in enumerate(order, 1):
        is_last = place == len(order)
        state = state_pb2.STATE_FAIL if is_last else state_pb2.STATE_COMPLETE
        data = None if is_last else to_struct({"password": SECRET})
        entry = a_log_entry(created.id, job_id, state=state)
        report.tries.append(TryReport(entry=entry, sequence_try=1, ordinal=place, job_data=data))
    report.finish.CopyFrom(ChainFinish(state=state_pb2.STATE_FAIL))
    assert await manager.store.apply_reports(RUNNER.runner_id, [report]) == []
    return await manager.store.get_request(created.id, with_job_chain=True)


async def retry(manager: Manager, request_id: str, context: CallContext = FINCH, **fields: Any) -> Request:
    call = messages.RetryRequest(request_id=request_id, **fields)
    return (await manager.service.Retry(call, context)).request


async def test_a_retry_is_delivered_as_a_chain_with_the_complete_jobs_and_their_data(
    manager: Manager,
) -> None:
    first = await failed(manager)
    created = await retry(manager, first.id)
    assert (State(created.state), created.user, created.type) == (State.PENDING, "finch", "nap")
    assert (created.retry_of, created.finished_jobs) == (first.id, first.total_jobs - 1)
    assert created.args == first.args
    await deliveries_end(manager.dispatcher)
    suspended = manager.runners.delivered[-1][1].suspended_job_chain
    assert suspended.request_id == suspended.job_chain.request_id == created.id
    jobs = suspended.job_chain.jobs
    assert jobs.keys() == first.job_chain.jobs.keys()
    complete = [job for job in jobs.values() if job.state == state_pb2.STATE_COMPLETE]
    assert len(complete) == created.finished_jobs == suspended.job_chain.finished_jobs
    assert all(from_struct(job.data) == {"password": SECRET} for job in complete)
    assert await state_of(manager.store, created.id) is State.RUNNING


async def test_no_answer_has_the_data_of_jobs(manager: Manager) -> None:
    created = await retry(manager, (await failed(manager)).id)
    get = messages.GetRequest(request_id=created.id, view=messages.REQUEST_VIEW_FULL)
    got = await manager.service.Get(get, FINCH)
    chain = await manager.service.GetJobChain(messages.GetJobChainRequest(request_id=created.id), FINCH)
    assert got.request.job_chain == chain.job_chain
    assert chain.job_chain.finished_jobs == created.finished_jobs
    for answer in (created, got, chain):
        assert SECRET.encode() not in answer.SerializeToString()


async def test_a_retry_that_waited_for_a_runner_starts_with_what_is_complete(manager: Manager) -> None:
    first = await failed(manager)
    await manager.lose_runner()
    created = await retry(manager, first.id)
    assert await state_of(manager.store, created.id) is State.PENDING
    await manager.store.renew_runner(RUNNER, 3600, draining=False)
    await manager.runners.refresh()
    await manager.service.Start(messages.StartRequest(request_id=created.id), FINCH)
    assert manager.runners.delivered[-1][1].suspended_job_chain.request_id == created.id


async def test_a_retry_is_in_the_audit_log_with_the_request_that_it_retries(manager: Manager) -> None:
    first = await failed(manager)
    created = await retry(manager, first.id)
    events = (await manager.store.list_audit_events(AuditFilter(request_id=created.id))).events
    assert [(one.operation, one.user, one.detail) for one in events] == [
        ("RequestManager.Retry", "finch", f"retry of {first.id}")
    ]
    with pytest.raises(FailedPreconditionError):
        await retry(manager, first.id)
    everything = (await manager.store.list_audit_events(AuditFilter(operation="RequestManager.Retry"))).events
    assert len(everything) == 1


async def test_who_may_retry_or_start_requests_of_a_type_may_retry_one(manager: Manager) -> None:
    first = await failed(manager, "guarded", STARTER)
    for context in (FINCH, STOPPER):
        with pytest.raises(PermissionDeniedError) as denied:
            await retry(manager, first.id, context)
        assert (denied.value.reason, denied.value.request_id) == ("ACCESS_DENIED", first.id)
        assert "may not retry requests of type guarded" in denied.value.message
    for context in (RETRIER, STARTER):
        created = await retry(manager, first.id, context)
        assert created.user == context.caller.name
        await manager.lose_runner()
        await manager.store.finish(created.id, State.STOPPED, 0, 0)
        await manager.store.renew_runner(RUNNER, 3600, draining=False)
        await manager.runners.refresh()


async def test_a_request_that_does_not_exist_or_has_not_failed_is_refused(manager: Manager) -> None:
    with pytest.raises(NotFoundError):
        await retry(manager, UNKNOWN)
    created = await manager.create()
    for state in (State.RUNNING, State.COMPLETE):
        if state is State.COMPLETE:
            await manager.store.finish(created.id, state, 0, 3)
        with pytest.raises(FailedPreconditionError) as refused:
            await retry(manager, created.id)
        assert refused.value.reason == "WRONG_STATE"
        assert f"request in state {state.name}" in refused.value.message


async def test_a_request_with_a_record_that_lacks_tries_is_refused(manager: Manager) -> None:
    lost = await manager.create()
    await manager.store.finish(lost.id, State.FAIL, 0, 1)
    by_original = await failed(manager)
    await manager.store.record_log(a_log_entry(by_original.id, min(by_original.job_chain.jobs), 9))
    for request_id in (lost.id, by_original.id):
        with pytest.raises(FailedPreconditionError) as refused:
            await retry(manager, request_id)
        assert refused.value.reason == "RECORD_INCOMPLETE"


async def test_a_chain_that_is_too_large_with_its_data_is_refused(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await failed(manager)
    monkeypatch.setattr(request_retrier, "MAX_CHAIN_BYTES", first.job_chain.ByteSize())
    with pytest.raises(InvalidArgumentError) as refused:
        await retry(manager, first.id)
    assert refused.value.reason == "CHAIN_TOO_LARGE"


async def test_a_repeated_call_is_answered_as_the_first_one_even_after_the_retry_has_ended(
    manager: Manager,
) -> None:
    first = await failed(manager)
    created = await retry(manager, first.id, idempotency_key="key")
    await manager.store.finish(created.id, State.COMPLETE, 0, first.total_jobs)
    assert await retry(manager, first.id, idempotency_key="key") == created
