"""Specs and args in, a request's args and job chain out: what the rest of the server uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spincycle_grpc.jobs import JobFactory
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import RequestArg
from spincycle_server.graph.build_monitor import BuildMonitor
from spincycle_server.graph.chain_writer import ChainWriter
from spincycle_server.graph.job_ids import job_ids
from spincycle_server.graph.job_maker import JobMaker
from spincycle_server.graph.plan import Plans
from spincycle_server.graph.request_args import request_args, request_sequence
from spincycle_server.graph.sequence_expander import SequenceExpander
from spincycle_server.specs.model import Specs

DEFAULT_MAX_JOBS = 500_000
"""How many jobs a chain may have, unless the builder is told otherwise."""


@dataclass(frozen=True, slots=True)
class BuiltRequest:
    """What became of specs and args.

    Attributes:
        args: The args of the request as recorded with it: required, optional, static.
        job_chain: The chain, all PENDING.
    """

    args: list[RequestArg]
    job_chain: JobChain


class ChainBuilder:
    """Makes the args and the job chains of requests. May be used by several threads at once.

    Args:
        specs: The request specs.
        job_factory: Makes the jobs.
        max_jobs: How many jobs one chain may have.
    """

    def __init__(self, specs: Specs, job_factory: JobFactory, *, max_jobs: int = DEFAULT_MAX_JOBS) -> None:
        self._specs = specs
        self._plans = Plans(specs)
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
    ) -> BuiltRequest:
        """Builds one request, in time linear in the jobs and edges of its chain.

        Runs the create of jobs, which may block. The same specs, args, ids and jobs give the same chain.

        Args:
            request_type: The name of the request spec.
            given_args: What the caller gave: JSON values by name, also ones that the spec does not name.
            request_id: The request that the chain is for; "" when it is for none.
            ids: The ids of the jobs. Default: random ones.
            monitor: Follows the build, and can end it.

        Raises:
            InvalidArgumentError: The type or the args cannot be used. Reason: UNKNOWN_REQUEST_TYPE,
                NOT_A_REQUEST, REQUIRED_ARG_MISSING, STATIC_ARG_GIVEN, BAD_EACH, BAD_IF, TOO_MANY_JOBS,
                WRONG_TYPE, NUMBER_TOO_LARGE, ARG_TOO_DEEP.
            InternalError: The spec is broken, or a job cannot be created. Reason: BAD_SPEC,
                UNKNOWN_SEQUENCE, SEQUENCE_CIRCLE, IMPOSSIBLE_DEPS, REQUIRED_ARG_MISSING, JOB_ARGS_MISSING,
                ARG_NOT_SET, UNKNOWN_JOB_TYPE, JOB_NOT_CREATED.
            CallCancelledError: The monitor gave the build up. Reason: BUILD_CANCELLED.
        """
        sequence = request_sequence(self._specs, request_type)
        args = request_args(sequence, given_args)
        writer = ChainWriter(request_id, sequence.timeout, ids or job_ids(), self._max_jobs)
        maker = JobMaker(self._job_factory, request_id, writer, monitor or BuildMonitor(clock=lambda: 0.0))
        SequenceExpander(self._plans, writer, maker).run(sequence.name, dict(given_args))
        return BuiltRequest(args, writer.chain)
