"""The trace that a request belongs to, in the database."""

from __future__ import annotations

import pytest

from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.store import Store
from spincycle_server.telemetry.trace_lines import trace_lines
from tests.store.samples import RUNNER, a_chain, a_request, create

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


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
