"""Repeated creates: they are answered as the first one, whatever has become of the request."""

from __future__ import annotations

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.request_manager.idempotency import as_created


def test_a_repeated_create_does_not_show_how_the_request_ends() -> None:
    first = Request(id="r", type="roll", state=state_pb2.STATE_PENDING, user="finch", total_jobs=3)
    now = Request()
    now.CopyFrom(first)
    now.MergeFrom(
        Request(
            state=state_pb2.STATE_RUNNING,
            finished_jobs=1,
            waiting="STOPPED after its finally nodes",
            ending=state_pb2.STATE_STOPPED,
            stop_reason="request s replaced it at the limit cluster/a",
        )
    )
    assert as_created(now) == first
