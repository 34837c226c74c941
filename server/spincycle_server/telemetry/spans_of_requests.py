"""The spans of a request: the request itself, the tries of its jobs, its commits, deliveries and takeovers.

The span of a request has an id that is derived from the request's id. Its parent is the call that created the
request. All other spans of the request are its children, whichever server records them.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.telemetry.spans import (
    ERROR_TYPE,
    REQUEST_ID,
    REQUEST_TYPE,
    Attributes,
    AttributeValue,
    Kind,
    Span,
    Spans,
    new_span_id,
    request_span_id,
    span_id_of,
)

EPOCH = "spincycle.epoch"
RUNNER_ID = "spincycle.runner.id"


class EndedRequest(NamedTuple):
    """A request of a trace that has ended.

    Attributes:
        request_id: The id.
        type: The type.
        state: The final state.
        epoch: The number of its assignments.
        created_at: When it was created, in microseconds since the Unix epoch.
        finished_at: When it ended, likewise; None if that was now.
        trace: The trace that it belongs to.
    """

    request_id: str
    type: str
    state: int
    epoch: int
    created_at: int
    finished_at: int | None
    trace: TraceContext


class RequestSpans:
    """Records the spans of requests. A request of a trace that is not sampled, or of none, has no spans.

    Args:
        spans: Records the spans.
    """

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def ended(self, request: EndedRequest) -> None:
        """Records the span of a request, when its end is committed."""
        if not request.trace.is_sampled:
            return
        attributes: dict[str, AttributeValue] = {
            REQUEST_ID: request.request_id,
            REQUEST_TYPE: request.type,
            "spincycle.request.state": State(request.state).name,
            EPOCH: request.epoch,
        }
        finished_at = time.time_ns() if request.finished_at is None else request.finished_at * 1000
        self._spans.record(
            Span(
                f"request {request.type}",
                request.trace.within(request_span_id(request.request_id)),
                request.trace.span_id,
                Kind.INTERNAL,
                request.created_at * 1000,
                finished_at,
                attributes,
                request.state == State.FAIL.value,
            )
        )

    def tried(self, entry: JobLog, epoch: int, trace: TraceContext) -> None:
        """Records a try of a job, when it has ended. The error and the output of the job are not recorded.

        Args:
            entry: The job log entry of the try.
            epoch: The number of the assignment in which it ran.
            trace: The trace of the try, from `try_trace`.
        """
        if not trace.is_sampled:
            return
        number: int = getattr(entry, "try")
        attributes: dict[str, AttributeValue] = {
            REQUEST_ID: entry.request_id,
            "spincycle.job.id": entry.job_id,
            "spincycle.job.name": entry.name,
            "spincycle.job.type": entry.type,
            "spincycle.job.try": number,
            "spincycle.job.state": State(entry.state).name,
            "spincycle.job.exit": entry.exit,
            EPOCH: epoch,
        }
        has_failed = entry.state == State.FAIL.value
        if has_failed:
            attributes[ERROR_TYPE] = State.FAIL.name
        ended_at = entry.finished_at or time.time_ns()
        self._spans.record(
            Span(
                f"job {entry.type}",
                trace,
                request_span_id(entry.request_id),
                Kind.INTERNAL,
                entry.started_at or ended_at,  # A job that could not be created has not started.
                ended_at,
                attributes,
                has_failed,
            )
        )

    def within(
        self,
        name: str,
        request_id: str,
        trace: TraceContext | None,
        started_at: int,
        attributes: Attributes,
        *,
        has_failed: bool = False,
    ) -> None:
        """Records something that a server did for a request and that ends now.

        Args:
            name: The name of the span.
            request_id: The request.
            trace: The trace that the request belongs to, if any.
            started_at: When it started, in nanoseconds since the Unix epoch.
            attributes: Its attributes, besides the request.
            has_failed: Whether it did not succeed.
        """
        if trace is None or not trace.is_sampled:
            return
        self._spans.record(
            Span(
                name,
                trace.within(new_span_id()),
                request_span_id(request_id),
                Kind.INTERNAL,
                started_at,
                time.time_ns(),
                {REQUEST_ID: request_id, **attributes},
                has_failed,
            )
        )


def try_trace(trace: TraceContext, request_id: str, epoch: int, job_id: str, number: int) -> TraceContext:
    """Returns the trace in which a try of a job works.

    Args:
        trace: The trace that the request belongs to.
        request_id: The request.
        epoch: The number of the assignment: a try that ended with its runner is repeated in the next one.
        job_id: The job.
        number: The number of the try.
    """
    return trace.within(span_id_of("try", request_id, epoch, job_id, number))
