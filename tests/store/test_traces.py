"""The trace that a request belongs to, in the database."""

from __future__ import annotations

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.store import Store
from spincycle_server.telemetry.spans_of_requests import EndedRequest
from spincycle_server.telemetry.trace_lines import trace_lines
from tests.store.samples import RUNNER, a_chain, a_log_entry, a_report, a_request, create

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = TraceContext(TRACE_ID, "b7ad6b7169203331", 1)


@pytest.mark.parametrize("state", ["", "rojo=" + "v" * 255 + ",k=" + "v" * 249])
async def test_the_trace_of_a_request_is_kept(store: Store, state: str) -> None:
    trace = TraceContext(TRACE_ID, "b7ad6b7169203331", 1, state)
    request = a_request()
    chain = a_chain(request.id)
    trace.write_to(chain)
    await store.create_request(request, CreateRequest(type=request.type), chain, None)
    found = await store.get_request(request.id, with_job_chain=True)
    assert found.trace_id == TRACE_ID
    assert TraceContext.of(found.job_chain) == trace
    assert TraceContext.of(await store.get_job_chain(request.id)) == trace
    (listed,) = await store.find_requests(RequestFilter())
    assert listed.trace_id == TRACE_ID
    await store.assign(request.id, RUNNER, expected_state=State.PENDING)
    assert trace_lines.fields(request.id) == {"trace_id": TRACE_ID, "span_id": trace.span_id}


async def test_a_request_without_a_trace_has_none(store: Store) -> None:
    request = await create(store)
    assert not (await store.get_request(request.id, with_job_chain=False)).trace_id
    assert trace_lines.fields(request.id) is None


async def traced(store: Store, runner: RunnerInfo | None) -> Request:
    """Stores a request of a trace."""
    request = a_request()
    chain = a_chain(request.id)
    TRACE.write_to(chain)
    await store.create_request(request, CreateRequest(type=request.type), chain, runner)
    return request


async def test_each_end_of_a_request_of_a_trace_is_told_once_and_after_its_commit(store: Store) -> None:
    ends: list[EndedRequest] = []
    store.on_ended(ends.append)
    reported, repeated = await traced(store, RUNNER), 2
    report = a_report(reported.id, a_log_entry(reported.id), finished_jobs=3, ends=state_pb2.STATE_COMPLETE)
    for _ in range(repeated):
        assert not await store.apply_reports(RUNNER.runner_id, [report])
    stopped, broken = await traced(store, None), await traced(store, RUNNER)
    assert await store.stop_unassigned(stopped.id)
    await store.end_assignment(Assignment(request_id=broken.id, epoch=1), State.FAIL)
    untraced = await create(store, None)
    assert await store.stop_unassigned(untraced.id)
    assert [(end.request_id, end.state, end.epoch) for end in ends] == [
        (reported.id, State.COMPLETE, 1),
        (stopped.id, State.STOPPED, 0),
        (broken.id, State.FAIL, 1),
    ]
    for end in ends:
        assert (end.type, end.trace) == ("stop-host", TRACE)
        assert end.created_at == 1_800_000_000_123_456
        found = await store.get_request(end.request_id, with_job_chain=False)
        assert end.finished_at == found.finished_at.ToMicroseconds()
