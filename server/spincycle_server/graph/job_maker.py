"""Makes the jobs of job nodes. This is the only place where a build runs users' code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError
from spincycle_grpc.jobs import JobFactory, JobId, UnknownJobTypeError, make_job
from spincycle_grpc.structs import fill_unicode_struct
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_server.capabilities import APPROVAL as APPROVAL_FEATURE
from spincycle_server.capabilities import RETRY_BACKOFF
from spincycle_server.graph.build_monitor import BuildMonitor
from spincycle_server.graph.chain_writer import ChainWriter
from spincycle_server.graph.path_labels import shown_value
from spincycle_server.graph.plan import NodePlan
from spincycle_server.graph.scope import Scope
from spincycle_server.graph.values import checked_copy, copied_args
from spincycle_server.specs.approval import APPROVAL, MAX_MESSAGE, MAX_SHOWN_VALUE, filled_message


class JobMaker:
    """Makes the jobs of one chain.

    Args:
        factory: Creates the jobs.
        request_id: The id of the request.
        writer: Writes the jobs into the chain.
        monitor: Records which job is being created.
        trace: The trace that the request belongs to, if any.
    """

    def __init__(
        self,
        factory: JobFactory,
        request_id: str,
        writer: ChainWriter,
        monitor: BuildMonitor,
        trace: TraceContext | None = None,
    ) -> None:
        self._factory = factory
        self._request_id = request_id
        self._writer = writer
        self._monitor = monitor
        self._trace = ("", "") if trace is None else (trace.traceparent, trace.state)

    def make(self, node: NodePlan, scope: Scope, args: dict[str, object]) -> str:
        """Makes a job, adds it to the chain, copies the args that it sets to the scope, and returns its id.

        The job gets its own copy of the args, so that changes to them cannot reach other jobs.

        Raises:
            InvalidArgumentError: The job refuses its args (WRONG_TYPE, or a reason of the job's own), or the
                args and the data of all jobs are too large (CHAIN_TOO_LARGE).
            InternalError: The job cannot be created, or does not set an arg that the node sets.
                Reason: UNKNOWN_JOB_TYPE, JOB_NOT_CREATED, ARG_NOT_SET.
            CallCancelledError: The build was cancelled. Reason: BUILD_CANCELLED.
        """
        job_id = self._writer.job_id()
        message = self._writer.job(job_id, node.name, node.type, scope.sequence_id, scope.parent_sequence_id)
        if node.retry:
            message.retry = node.retry
            message.retry_wait = node.retry_wait
            if node.backoff is not None:
                message.retry_backoff.CopyFrom(node.backoff)
                self._writer.features.add(RETRY_BACKOFF)
        if node.timeout:
            message.timeout = node.timeout
        if args:
            # In place: a copy of a large Struct lets no other thread run meanwhile.
            fill_unicode_struct(message.args, args, "args")
        job_args = copied_args(args)
        data = self._create(node, scope, job_id, job_args)
        if data:
            message.bytes = data
        if args or data:
            self._writer.count_content(message)
        if node.sets:
            scope.take_sets(node, node.type, self._checked_sets(node, scope, job_args))
        return job_id

    def make_approval(self, node: NodePlan, what: Approval, scope: Scope, args: Mapping[str, object]) -> str:
        """Adds the job of an approval to the chain, with its message, and returns its id.

        Runs no user's code.

        Raises:
            InvalidArgumentError: The message with its args is too long. Reason: APPROVAL_MESSAGE_TOO_LONG.
        """
        text = filled_message(what.message, lambda name: shown_value(args[name], MAX_SHOWN_VALUE))
        if len(text) > MAX_MESSAGE:
            raise scope.path.bad_arg(
                f"the message of the approval has {len(text)} characters with its args, but at most "
                f"{MAX_MESSAGE} are allowed: pass shorter args, or name fewer args in the message",
                "APPROVAL_MESSAGE_TOO_LONG",
                node.name,
            )
        self._writer.features.add(APPROVAL_FEATURE)
        job_id = self._writer.job_id()
        message = self._writer.job(job_id, node.name, APPROVAL, scope.sequence_id, scope.parent_sequence_id)
        message.approval.CopyFrom(what)
        message.approval.message = text
        return job_id

    def _create(self, node: NodePlan, scope: Scope, job_id: str, job_args: dict[str, Any]) -> bytes:
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
