"""The chain builder: the entry point of this package for the rest of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from spincycle_grpc.jobs import JobFactory
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import encode
from spincycle_server.capabilities import APPROVAL, Labels, Requirement, labels_of
from spincycle_server.graph.build_monitor import BuildMonitor
from spincycle_server.graph.chain_template import Templates
from spincycle_server.graph.chain_writer import ChainWriter, checked_size
from spincycle_server.graph.job_creator import JobCreator
from spincycle_server.graph.job_ids import job_ids
from spincycle_server.graph.job_maker import JobMaker
from spincycle_server.graph.plan import Plans
from spincycle_server.graph.request_args import record_args, request_sequence
from spincycle_server.graph.sequence_expander import SequenceExpander
from spincycle_server.specs.model import Specs

DEFAULT_MAX_JOBS = 500_000
"""The default limit of jobs per chain."""


@dataclass(frozen=True, slots=True)
class BuiltRequest:
    """A request that has been built but not yet stored.

    Attributes:
        request: The request that its args are recorded in: required, optional, static.
        job_chain: The chain. All jobs are PENDING.
        requirement: What the request needs of a runner.
        chain_bytes: The size of the chain as a message.
        tasks: How many of its jobs do more than to connect other jobs.
        chain_json: Returns the JSON of the chain.
    """

    request: Request
    job_chain: JobChain
    requirement: Requirement
    chain_bytes: int
    tasks: int
    chain_json: Callable[[], bytes]


class ChainBuilder:
    """Builds the args and the job chain of each request. Safe for concurrent use by several threads.

    Args:
        specs: The request specs.
        job_factory: Creates the jobs.
        max_jobs: The maximum number of jobs in one chain.
    """

    def __init__(self, specs: Specs, job_factory: JobFactory, *, max_jobs: int = DEFAULT_MAX_JOBS) -> None:
        self._specs = specs
        self._plans = Plans(specs)
        self._templates = Templates(self._plans, max_jobs)
        self._job_factory = job_factory
        self._max_jobs = max_jobs

    def build(
        self,
        request_type: str,
        given_args: Mapping[str, object],
        request_id: str,
        *,
        ids: Iterator[str] | None = None,
        monitor: BuildMonitor | None = None,
        record: Request | None = None,
        trace: TraceContext | None = None,
    ) -> BuiltRequest:
        """Builds one request, in time linear in the jobs and edges of its chain.

        Calls `create` of each job, which may block. Equal specs, args, ids and jobs give equal chains.

        Args:
            request_type: The name of the request spec.
            given_args: The caller's args: JSON values by name, including args that the spec does not name.
            request_id: The id of the request, or "" if there is no request.
            ids: The ids of the jobs. Default: random ids.
            monitor: Follows the build and can cancel it.
            record: The request that gets the args. After an error it has some of them. Default: a new one.
            trace: The trace that the request belongs to, which the chain keeps. None: it belongs to none.

        Raises:
            InvalidArgumentError: The type or the args are invalid. Reason: UNKNOWN_REQUEST_TYPE,
                NOT_A_REQUEST, REQUIRED_ARG_MISSING, STATIC_ARG_GIVEN, BAD_EACH, BAD_IF, BAD_LIMIT_KEY,
                TOO_MANY_JOBS, CHAIN_TOO_LARGE, WRONG_TYPE, NUMBER_TOO_LARGE, TOO_DEEP.
            InternalError: The spec is invalid, or a job cannot be created. Reason: BAD_SPEC,
                UNKNOWN_SEQUENCE, SEQUENCE_CIRCLE, IMPOSSIBLE_DEPS, REQUIRED_ARG_MISSING, JOB_ARGS_MISSING,
                ARG_NOT_SET, UNKNOWN_JOB_TYPE, JOB_NOT_CREATED.
            CallCancelledError: The monitor cancelled the build. Reason: BUILD_CANCELLED.
        """
        sequence = request_sequence(self._specs, request_type)
        request = Request() if record is None else record
        record_args(request, sequence, given_args)
        creator = JobCreator(self._job_factory, request_id, monitor, trace)
        ids = ids or job_ids()
        template = self._templates.of(sequence, given_args)
        if template is None:
            writer = ChainWriter(request_id, sequence.timeout, ids, self._max_jobs)
            SequenceExpander(self._plans, writer, JobMaker(writer, creator)).run(
                sequence.name, dict(given_args)
            )
            chain, tasks, features = writer.chain, writer.tasks, frozenset(writer.features)
            jobs = chain.jobs.values()
            if APPROVAL in features:  # No job factory needs to know the type of approvals.
                types = frozenset(job.type for job in jobs if not job.HasField("approval"))
            else:
                types = frozenset(job.type for job in jobs)
            chain_json: Callable[[], bytes] = partial(encode, chain)
        else:
            chain, chain_json = template.build(request_id, ids, dict(given_args), creator)
            tasks, types, features = template.tasks, template.types, template.features
        if trace is not None:
            trace.write_to(chain)
        requirement = _requirement(types, labels_of(sequence.runner), features)
        return BuiltRequest(request, chain, requirement, checked_size(chain), tasks, chain_json)


@lru_cache(maxsize=1024)
def _requirement(types: frozenset[str], labels: Labels, features: frozenset[str]) -> Requirement:
    """Returns a requirement. Its id is a hash, and a small request is built in few microseconds."""
    return Requirement(types, labels, features)
