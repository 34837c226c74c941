"""Requests, chains and reports for tests of the store."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct, to_value
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds, SuspendedJobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import ArgType, Request, RequestArg
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainFinish, ChainReport, RunnerInfo, TryReport
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.store import Store

_ids = RequestIdGenerator()

RUNNER = RunnerInfo(runner_id="r1", url="http://127.0.0.1:32307", grpc_address="127.0.0.1:32317")
OTHER_RUNNER = RunnerInfo(runner_id="r2", url="http://127.0.0.1:42307", grpc_address="127.0.0.1:42317")


def a_request(**fields: Any) -> Request:
    """Returns a request with three jobs, as the Request Manager creates it."""
    request = Request(
        **{"id": _ids.next(), "type": "stop-host", "user": "finch", "total_jobs": 3,
           "state": state_pb2.STATE_PENDING, **fields}
    )  # fmt: skip
    if not request.HasField("created_at"):
        request.created_at.CopyFrom(Timestamp(seconds=1_800_000_000, nanos=123_456_000))
    if not request.args:
        request.args.append(
            RequestArg(name="host", type=ArgType.ARG_TYPE_REQUIRED, given=True, value=to_value("db1", "host"))
        )
    return request


def a_chain(request_id: str) -> JobChain:
    """Returns a chain of three jobs in a row."""
    names = {"aaaa": "noop", "bbbb": "nap", "cccc": "noop"}
    chain = JobChain(request_id=request_id, state=state_pb2.STATE_PENDING)
    for job_id, kind in names.items():
        chain.jobs[job_id].CopyFrom(
            Job(id=job_id, name=kind, type=kind, state=state_pb2.STATE_PENDING, sequence_id="aaaa")
        )
    chain.adjacency_list["aaaa"].CopyFrom(JobIds(ids=["bbbb"]))
    chain.adjacency_list["bbbb"].CopyFrom(JobIds(ids=["cccc"]))
    return chain


async def create(store: Store, runner: RunnerInfo | None = RUNNER, **fields: Any) -> Request:
    """Stores a new request, and returns it."""
    request = a_request(**fields)
    await store.create_request(
        request, CreateRequest(type=request.type, user=request.user), a_chain(request.id), runner
    )
    return request


def a_log_entry(request_id: str, job_id: str = "bbbb", number: int = 1, **fields: Any) -> JobLog:
    """Returns the entry of a finished try."""
    entry = JobLog(
        **{"request_id": request_id, "job_id": job_id, "name": "nap", "type": "nap",
           "state": state_pb2.STATE_COMPLETE, "started_at": 1_800_000_001_000_000_007,
           "finished_at": 1_800_000_002_000_000_008, **fields}
    )  # fmt: skip
    setattr(entry, "try", number)
    return entry


def a_report(
    request_id: str,
    *entries: JobLog,
    epoch: int = 1,
    first: int = 1,
    finished_jobs: int = 0,
    ends: int | SuspendedJobChain | None = None,
) -> ChainReport:
    """Returns a runner's report of a chain: tries with ordinals from `first`, and perhaps the end."""
    report = ChainReport(
        assignment=Assignment(request_id=request_id, epoch=epoch), finished_jobs=finished_jobs
    )
    for ordinal, entry in enumerate(entries, first):
        data = to_struct({"n": ordinal}) if entry.state == state_pb2.STATE_COMPLETE else None
        report.tries.append(TryReport(entry=entry, sequence_try=1, ordinal=ordinal, job_data=data))
    if isinstance(ends, SuspendedJobChain):
        report.suspended.CopyFrom(ends)
    elif ends is not None:
        finished_at = Timestamp(seconds=1_800_000_003, nanos=5000)
        report.finish.CopyFrom(ChainFinish(state=ends, finished_at=finished_at))  # type: ignore[arg-type]
    return report


def a_suspended_chain(request_id: str, finished_jobs: int = 1) -> SuspendedJobChain:
    """Returns a chain that was suspended after its first job."""
    chain = a_chain(request_id)
    chain.jobs["aaaa"].state = state_pb2.STATE_COMPLETE
    chain.finished_jobs = finished_jobs
    return SuspendedJobChain(request_id=request_id, job_chain=chain, sequence_tries={"aaaa": 1})


async def waiting_ids(store: Store, state: State = State.PENDING, limit: int = 10) -> list[str]:
    """Returns the ids of the oldest requests in a state."""
    return [one.request_id for one in (await store.requirements.oldest_waiting(state, limit)).requests]


async def live_now(store: Store) -> list[tuple[RunnerInfo, bool]]:
    """Returns the runners with a lease, each with whether it drains."""
    return [(one.runner, one.draining) for one in await store.live_runners()]


async def lost_assignments(store: Store) -> list[Assignment]:
    """Returns the assignments of requests whose runner has no lease."""
    return [one.assignment for one in await store.lost_requests(10)]
