"""How much of requests is shown: what gRPC clients accept, or everything."""

from __future__ import annotations

import pytest

from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.request_manager.request_views import omit_large_args, running_response
from spincycle_server.rpc import CallContext
from spincycle_server.store.pages import PAGE_BYTES

GRPC = CallContext(transport="grpc")
HTTP = CallContext(transport="http")


def a_request(size: int) -> Request:
    """Returns a request with two args of `size` bytes together."""
    value = to_value("x" * (size // 2), "x")
    return Request(id="r", args=[RequestArg(name="a", value=value), RequestArg(name="b", value=value)])


@pytest.mark.parametrize(
    ("context", "size", "is_shown"),
    [(GRPC, 1000, True), (GRPC, PAGE_BYTES, False), (HTTP, PAGE_BYTES, True)],
)
def test_args_that_are_too_large_for_grpc_are_left_out(
    context: CallContext, size: int, is_shown: bool
) -> None:
    request = a_request(size)
    omit_large_args(request, context)
    assert (len(request.args), request.args_omitted) == ((2, False) if is_shown else (0, True))
    assert request.id == "r"


def running(count: int, size: int) -> tuple[list[JobStatus], dict[str, Request]]:
    """Returns jobs of ten requests, with statuses of a size."""
    jobs = [
        JobStatus(request_id=f"r{number % 10}", job_id=f"{number:04}", status="x" * size)
        for number in range(count)
    ]
    return jobs, {f"r{number}": Request(id=f"r{number}") for number in range(10)}


def test_running_jobs_that_fit_are_all_shown() -> None:
    jobs, requests = running(100, 100)
    response = running_response(jobs, requests, GRPC)
    assert list(response.status.jobs) == jobs
    assert dict(response.status.requests) == requests
    assert response.omitted_jobs == 0


def test_the_newest_running_jobs_are_left_out_if_they_do_not_fit() -> None:
    jobs, requests = running(400, 16_000)
    response = running_response(jobs, requests, GRPC)
    shown = list(response.status.jobs)
    assert response.ByteSize() <= PAGE_BYTES + 1000
    assert shown == jobs[: len(shown)]
    assert len(shown) > 150
    assert response.omitted_jobs == len(jobs) - len(shown)
    assert set(response.status.requests) == set(requests)
    whole = running_response(jobs, requests, HTTP)
    assert (len(whole.status.jobs), whole.omitted_jobs) == (400, 0)
