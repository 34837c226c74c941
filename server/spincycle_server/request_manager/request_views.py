"""How much of requests a caller gets: what gRPC clients accept, or everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.status_pb2 import RunningStatus
from spincycle_server.store.pages import PAGE_BYTES, PageRoom

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain
    from spincycle_grpc.v1.request_pb2 import Request
    from spincycle_grpc.v1.status_pb2 import JobStatus
    from spincycle_server.rpc import CallContext


def shows_job_chain(request: messages.GetRequest, context: CallContext) -> bool:
    """Whether a call of Get asks for the job chain."""
    if request.view in (messages.REQUEST_VIEW_BASIC, messages.REQUEST_VIEW_FULL):
        return request.view == messages.REQUEST_VIEW_FULL
    return context.transport == "http" and not request.omit_job_chain


def omit_large_args(request: Request, context: CallContext) -> None:
    """Leaves the args out of a response over gRPC if they are too large for a message."""
    if context.transport == "grpc" and sum(arg.ByteSize() for arg in request.args) > PAGE_BYTES:
        omit_args(request)


def omit_args(request: Request) -> None:
    """Leaves out the args of a request, and says so."""
    request.ClearField("args")
    request.args_omitted = True


def show_as_original(requests: Iterable[Request], context: CallContext) -> None:
    """Leaves the numbers of tasks out of a response over HTTP that an original could have given.

    No request is without tasks, so unlike other new fields, they would be in every response.
    """
    if context.transport == "http":
        for request in requests:
            request.ClearField("total_tasks")
            request.ClearField("finished_tasks")


def hide_data(job_chain: JobChain) -> None:
    """Removes the data of jobs from the chain of a retry. Jobs pass it on to each other, not to users."""
    if job_chain.finished_jobs:
        for job in job_chain.jobs.values():
            job.ClearField("data")


def running_response(
    jobs: Sequence[JobStatus], requests: Mapping[str, Request], context: CallContext
) -> messages.RunningResponse:
    """Returns the response of Running. Over gRPC, it leaves out the jobs for which it has no room.

    Args:
        jobs: The running jobs, oldest first.
        requests: Their requests, by id.
        context: The call.
    """
    response = messages.RunningResponse(status=RunningStatus(jobs=jobs, requests=requests))
    if context.transport != "grpc" or response.ByteSize() <= PAGE_BYTES:
        return response
    room = PageRoom(0)
    shown: list[JobStatus] = []
    theirs: dict[str, Request] = {}
    for job in jobs:
        request = None if job.request_id in theirs else requests.get(job.request_id)
        if not room.take(job.ByteSize() + (request.ByteSize() if request is not None else 0) + 50):
            break
        shown.append(job)
        if request is not None:
            theirs[job.request_id] = request
    return messages.RunningResponse(
        status=RunningStatus(jobs=shown, requests=theirs), omitted_jobs=len(jobs) - len(shown)
    )
