"""Retries of requests: a new request does the rest of one that has ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError
from spincycle_grpc.job_paths import count_tasks
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.chain import RunningChain, job_called, retried_chain
from spincycle_server.graph.chain_writer import MAX_CHAIN_BYTES
from spincycle_server.large_work import run_sized
from spincycle_server.request_manager.idempotency import as_created
from spincycle_server.store.store import work_of
from spincycle_server.telemetry.spans import OpenSpan, part_of

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import JobChain
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.new_requests import NewRequests
    from spincycle_server.store import IdempotencyKey, Store
    from spincycle_server.store.audit import EventRow
    from spincycle_server.store.retries import RetrySource

logger = structlog.get_logger(__name__)

_CAN_RETRY = frozenset({State.FAIL, State.STOPPED})


class RequestRetrier:
    """Creates the retries of requests.

    Args:
        store: Has the requests and their records.
        dispatcher: Says whether one more request may wait.
        new_requests: Stores and starts the retries.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher, new_requests: NewRequests) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._new_requests = new_requests

    async def retry(
        self,
        first: Request,
        retry_id: str,
        user: str,
        *,
        from_job: str,
        key: IdempotencyKey | None,
        event: EventRow | None,
        trace: TraceContext | None = None,
        span: OpenSpan | None = None,
    ) -> Request:
        """Creates the retry of a request and starts it. Returns it as created.

        Args:
            first: The request with its args.
            retry_id: The id of the retry.
            user: The user of the retry.
            from_job: The id or the name of a job that runs again with all jobs after it; "" for none.
            key: The idempotency key of the call, if it has one.
            event: The audit event, which is stored in the same transaction.
            trace: The trace that the retry belongs to. None: it belongs to none, whatever the first one did.
            span: The span of the call, if it is recorded.

        Raises:
            CreatedBeforeError: The key has created a retry before.
            SpinCycleError: An error of the method Retry.
        """
        if State(first.state) not in _CAN_RETRY:
            raise FailedPreconditionError(
                f"request in state {State(first.state).name}: only FAIL and STOPPED requests can be retried",
                reason="WRONG_STATE",
                request_id=first.id,
            )
        self._dispatcher.check_limit()
        source = await self._store.retry_source(first.id)
        with part_of(span, "build"):
            size = source.job_chain.ByteSize()
            job_chain = await run_sized(size, _chain_of, first, source, retry_id, from_job)
        _set_trace(job_chain, trace)
        requirement = await self._store.requirements.of(first.id)
        tasks = await run_sized(job_chain.ByteSize(), count_tasks, job_chain)
        created = _pending_retry(first, retry_id, user, job_chain, tasks)
        await self._new_requests.add(
            created,
            source.create_request,
            job_chain,
            requirement,
            key=key,
            event=event,
            work=work_of(source.create_request.ByteSize(), len(job_chain.jobs), job_chain.ByteSize()),
            span=span,
        )
        logger.info("request retried", request_id=first.id, retry_id=retry_id, type=first.type, user=user)
        return created

    async def created_before(self, retry_id: str) -> Request:
        """Returns an existing retry as the call that created it was answered.

        Raises:
            NotFoundError: It does not exist any more.
        """
        found = await self._store.get_request(retry_id, with_job_chain=True)
        created = as_created(found)
        created.finished_jobs = found.job_chain.finished_jobs
        created.total_tasks, created.finished_tasks = await run_sized(
            found.job_chain.ByteSize(), count_tasks, found.job_chain
        )
        created.ClearField("job_chain")
        return created


def _chain_of(first: Request, source: RetrySource, retry_id: str, from_job: str) -> JobChain:
    """Returns the chain with which a retry starts."""
    from_id = job_called(source.job_chain, from_job) if from_job else ""
    if not source.is_known:
        raise _incomplete(first.id, "an original Spin Cycle ran a part of it")
    try:
        recorded = RunningChain.rebuilt(source.job_chain, source.tries).finished_jobs
        retried = retried_chain(source.job_chain, source.tries, retry_id, from_id)
    except InvalidArgumentError as error:
        raise _incomplete(first.id, error.message) from error
    # The record can have more: jobs of a sequence that was about to be tried again.
    if recorded < first.finished_jobs:
        raise _incomplete(first.id, "tries are missing from its job log")
    if retried.ByteSize() > MAX_CHAIN_BYTES:
        raise InvalidArgumentError(
            f"the job chain would have {retried.ByteSize()} bytes with the data of its jobs: at most "
            f"{MAX_CHAIN_BYTES} can be sent to a runner, so create a new request",
            reason="CHAIN_TOO_LARGE",
            request_id=first.id,
        )
    return retried


def _incomplete(request_id: str, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"the record of the request does not say which jobs are done ({why}): create a new request",
        reason="RECORD_INCOMPLETE",
        request_id=request_id,
    )


def _set_trace(job_chain: JobChain, trace: TraceContext | None) -> None:
    """Replaces the trace of the first request by that of its retry."""
    job_chain.ClearField("traceparent")
    job_chain.ClearField("tracestate")
    if trace is not None:
        trace.write_to(job_chain)


def _pending_retry(
    first: Request, retry_id: str, user: str, job_chain: JobChain, tasks: tuple[int, int]
) -> Request:
    retry = Request(
        id=retry_id,
        type=first.type,
        state=state_pb2.STATE_PENDING,
        user=user,
        args=first.args,
        total_jobs=len(job_chain.jobs),
        finished_jobs=job_chain.finished_jobs,
        total_tasks=tasks[0],
        finished_tasks=tasks[1],
        retry_of=first.id,
        trace_id="" if (trace := TraceContext.of(job_chain)) is None else trace.trace_id,
    )
    retry.created_at.FromMicroseconds(time.time_ns() // 1000)  # The database stores microseconds.
    return retry
