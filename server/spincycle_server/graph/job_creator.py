"""Creates the jobs of job nodes. This is the only place where a build runs users' code."""

from __future__ import annotations

from typing import Any

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError
from spincycle_grpc.jobs import JobFactory, JobId, UnknownJobTypeError, make_job
from spincycle_grpc.structs import fill_unicode_struct
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_pb2 import Job
from spincycle_server.graph.build_monitor import BuildMonitor
from spincycle_server.graph.plan import NodePlan
from spincycle_server.graph.scope import Scope
from spincycle_server.graph.values import checked_copy, copied_args

MAX_CONTENT = 64 * 1024 * 1024
"""The maximum size in bytes of the args and the data of all jobs of a chain. A larger chain could not be sent
to a runner. The limit also bounds the memory of a request whose large arg goes to many jobs."""


class JobCreator:
    """Creates the jobs of one chain.

    Args:
        factory: Creates the jobs.
        request_id: The id of the request.
        monitor: Records which job is being created; None if nobody looks.
        trace: The trace that the request belongs to, if any.

    Attributes:
        content: The bytes of the args and the data of the jobs so far.
    """

    def __init__(
        self,
        factory: JobFactory,
        request_id: str,
        monitor: BuildMonitor | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        self._factory = factory
        self._request_id = request_id
        self._monitor = monitor
        self._trace = ("", "") if trace is None else (trace.traceparent, trace.state)
        self.content = 0

    def create(self, node: NodePlan, scope: Scope, args: dict[str, object], message: Job) -> bool:
        """Creates a job, adds its args and its data to its message, and copies what it sets to the scope.

        The job gets its own copy of the args, so that changes to them cannot reach other jobs.

        Args:
            node: The node of the job.
            scope: The scope of its sequence.
            args: What the job is given.
            message: The message of the job, which has its id and all that the spec says.

        Returns:
            Whether the job has args or data.

        Raises:
            InvalidArgumentError: The job refuses its args (WRONG_TYPE, or a reason of the job's own), or the
                args and the data of all jobs are too large (CHAIN_TOO_LARGE).
            InternalError: The job cannot be created, or does not set an arg that the node sets.
                Reason: UNKNOWN_JOB_TYPE, JOB_NOT_CREATED, ARG_NOT_SET.
            CallCancelledError: The build was cancelled. Reason: BUILD_CANCELLED.
        """
        if args:
            # In place: a copy of a large Struct lets no other thread run meanwhile.
            fill_unicode_struct(message.args, args, "args")
        job_args = copied_args(args)
        data = self._data_of(node, scope, message.id, job_args)
        if data:
            message.bytes = data
        has_content = bool(args or data)
        if has_content:
            self._count_content(message)
        if node.sets:
            scope.take_sets(node, node.type, self._checked_sets(node, scope, job_args))
        return has_content

    def _count_content(self, job: Job) -> None:
        """Counts the args and the data of a job."""
        self.content += job.args.ByteSize() + len(job.bytes)
        if self.content > MAX_CONTENT:
            raise InvalidArgumentError(
                f"the args and the data of all jobs would have more than {MAX_CONTENT} bytes: "
                "pass smaller args, or make several requests",
                reason="CHAIN_TOO_LARGE",
            )

    def _data_of(self, node: NodePlan, scope: Scope, job_id: str, job_args: dict[str, Any]) -> bytes:
        if self._monitor is not None:
            self._monitor.begin_job(scope.path, node.name, node.type)
        try:
            job = make_job(self._factory, JobId(node.type, node.name, job_id, self._request_id, *self._trace))
            job.create(job_args)
            data = job.serialize()
        except UnknownJobTypeError as error:
            raise scope.path.broken_spec(str(error), error.reason, node.name) from error
        except InvalidArgumentError as error:  # The job refuses its args, which are the caller's.
            message = f"job type {node.type} could not be created: {error}"
            raise scope.path.bad_arg(message, error.reason, node.name) from error
        except Exception as error:
            raise _not_created(node, scope, _in_words(error)) from error
        finally:
            if self._monitor is not None:
                self._monitor.end_job()
        if not isinstance(data, bytes):
            raise _not_created(
                node, scope, f"serialize returned {type(data).__name__}, but must return bytes"
            )
        return data

    def _checked_sets(self, node: NodePlan, scope: Scope, job_args: dict[str, Any]) -> dict[str, object]:
        try:
            return {arg: checked_copy(arg, job_args[arg]) for arg, _ in node.sets if arg in job_args}
        except InvalidArgumentError as error:
            raise _not_created(node, scope, f"create set an invalid job arg: {error}") from error


def _not_created(node: NodePlan, scope: Scope, what: str) -> InternalError:
    return scope.path.broken_spec(
        f"job type {node.type} could not be created: {what}", "JOB_NOT_CREATED", node.name
    )


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, SpinCycleError) else f"{type(error).__name__}: {error}"
