"""Responses over gRPC: users get at most what their clients accept, and a clear error beyond that."""

from __future__ import annotations

import pytest

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.v1 import job_runner_pb2, request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.identity import METHOD_ACCESS
from spincycle_server.rpc import Method
from spincycle_server.rpc.responses import MAX_RESPONSE, serialized
from spincycle_server.shared_messages import SharedMessage


def a_method(service: str, name: str) -> Method:
    file = {
        "RequestManager": request_manager_pb2,
        "JobRunner": job_runner_pb2,
        "RunnerReports": runner_reports_pb2,
    }[service].DESCRIPTOR
    descriptor = file.services_by_name[service].methods_by_name[name]
    return Method(
        descriptor=descriptor,
        request_type=request_manager_pb2.GetJobLogRequest,
        access=METHOD_ACCESS[descriptor.full_name],
        call=lambda: None,
        is_stream=False,
        is_server_stream=False,
    )


def a_response(size: int) -> JobLog:
    """Returns a message of a size in bytes."""
    message = JobLog(stdout="x" * size)
    message.stdout = "x" * (2 * size - message.ByteSize())
    assert message.ByteSize() == size
    return message


@pytest.mark.parametrize(
    ("service", "name", "limit"),
    [
        ("RequestManager", "GetJobLog", MAX_RESPONSE),
        ("JobRunner", "RunningJobs", MAX_MESSAGE_BYTES),
        ("RunnerReports", "RecordLog", MAX_MESSAGE_BYTES),
    ],
)
def test_a_response_that_its_receiver_would_not_accept_is_an_error(
    service: str, name: str, limit: int
) -> None:
    method = a_method(service, name)
    assert serialized(method, a_response(limit)) == a_response(limit).SerializeToString()
    with pytest.raises(FailedPreconditionError, match=f"{limit + 1} bytes.*over HTTP") as caught:
        serialized(method, a_response(limit + 1))
    assert caught.value.reason == "RESPONSE_TOO_LARGE"


def test_a_shared_response_is_serialized_once() -> None:
    method = a_method("RequestManager", "Watch")
    shared = SharedMessage(a_response(100))
    assert serialized(method, shared) == a_response(100).SerializeToString()
    assert serialized(method, shared) is serialized(method, shared)
    with pytest.raises(FailedPreconditionError):
        serialized(method, SharedMessage(a_response(MAX_RESPONSE + 1)))


def test_clients_accept_the_largest_response_by_default() -> None:
    """GRPC's default of `grpc.max_receive_message_length`."""
    assert MAX_RESPONSE == 4 * 1024 * 1024
