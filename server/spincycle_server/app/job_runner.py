"""Assembles a Job Runner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

import structlog

from spincycle_grpc.jobs import JobFactory
from spincycle_grpc.v1 import job_runner_pb2
from spincycle_grpc.v1.job_runner_pb2 import Suspect
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.version import package_version
from spincycle_server.app.background import run_in_background
from spincycle_server.app.certificates import Certificates
from spincycle_server.app.endpoints import INSIDE_THE_PROCESS, ListenOptions, ServerEndpoints, ServersAddress
from spincycle_server.app.telemetry import JOB_RUNNER, ProcessTelemetry
from spincycle_server.builtin_jobs import Noop, makes_builtin
from spincycle_server.call_threads import CallThreads
from spincycle_server.capabilities import ALL_FEATURES
from spincycle_server.chain import RunningChain
from spincycle_server.config import Config, ConfigError, advertised
from spincycle_server.gateway import ErrorFormat
from spincycle_server.identity import Authentication, Cluster
from spincycle_server.job_factories import factory_knows, find_factory
from spincycle_server.job_runner.chains import Chains
from spincycle_server.job_runner.known_types import KnownTypes
from spincycle_server.job_runner.outbox import Outbox
from spincycle_server.job_runner.reporter import Reporter
from spincycle_server.job_runner.service import JobRunnerService
from spincycle_server.job_runner.suspect_tries import SuspectRules
from spincycle_server.job_runner.suspect_turns import SuspectTurns
from spincycle_server.job_runner.traverser import Traverser
from spincycle_server.job_runner.user_job import TryResources
from spincycle_server.listening import Address
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.rpc import Gate, MethodTable, OnDenied, ignore_denial
from spincycle_server.telemetry import catalogue, limits
from spincycle_server.telemetry.limits import LimitUse
from spincycle_server.telemetry.metrics import ServerTelemetry
from spincycle_server.telemetry.spans import Spans
from spincycle_server.telemetry.spans_of_requests import RequestSpans

logger = structlog.get_logger(__name__)

CALL_THREADS = 64
"""The number of threads that create and stop jobs, and of those that ask jobs for their status."""

_LEASE_CHECK_INTERVAL = 0.25
"""Longest time in seconds between checks of the lease."""


@contextlib.asynccontextmanager
async def job_runner(
    config: Config,
    address: Address,
    grpc_address: Address | None,
    request_managers: Sequence[str],
    *,
    telemetry: ProcessTelemetry,
    cluster: Cluster,
    authentication: Authentication,
    certificates: Certificates,
    servers_address: ServersAddress | None = None,
    on_denied: OnDenied = ignore_denial,
    options: ListenOptions = ListenOptions(),  # noqa: B008 (it cannot change)
    spans: Spans | None = None,
) -> AsyncIterator[None]:
    """Runs a Job Runner. It reports to the first of the Request Managers that answers.

    Args:
        config: The configuration.
        address: The address of HTTP.
        grpc_address: The address of gRPC; None for the HTTP address with a port that is 10 higher.
        request_managers: The gRPC addresses of the Request Managers.
        telemetry: What the process shows of itself.
        cluster: Recognizes the other servers of the installation.
        authentication: Identifies callers.
        certificates: The certificates of this process.
        servers_address: The address for Request Managers alone.
        on_denied: Told of each denied call.
        options: The options that set the addresses.
        spans: Records spans; None to record none.

    Raises:
        SpinCycleError: The server cannot start.
    """
    if address.is_unix or (grpc_address is not None and grpc_address.is_unix):
        raise ConfigError("a Job Runner must listen at host:port, because Request Managers call it there")
    factory = find_factory(config.jobs_factory, config.job_runner_max_output)
    resources = _resources(config, factory)
    noop_types = frozenset({"noop"}) if makes_builtin(factory, "noop", (Noop,)) else frozenset()
    runner_id = RequestIdGenerator().next()
    outbox = Outbox()
    known_types = KnownTypes(partial(factory_knows, factory))
    reporter: Reporter | None = None

    request_spans = None if spans is None else RequestSpans(spans)
    suspect_rules = SuspectRules(SuspectTurns(config.job_runner_suspect_turn), config.job_runner_max_crashes)

    def has_lease() -> bool:
        return reporter is None or reporter.lease_left > 0

    def make_traverser(chain: RunningChain, assignment: Assignment, suspect: Suspect | None) -> Traverser:
        return Traverser(
            chain,
            assignment,
            resources,
            outbox,
            noop_types=noop_types,
            may_start=has_lease if assignment.epoch else _always,
            suspect=suspect,
            suspect_rules=suspect_rules,
            spans=request_spans,
        )

    chains = Chains(
        runner_id,
        make_traverser,
        max_chains=config.job_runner_max_chains,
        max_jobs=config.job_runner_max_jobs,
    )
    async with contextlib.AsyncExitStack() as stack:
        service = JobRunnerService(chains)
        authentication = authentication.of_runner(admins_read=config.auth_read == "acl")
        endpoints = _endpoints(
            config,
            service,
            address,
            grpc_address,
            telemetry=telemetry,
            authentication=authentication,
            on_denied=on_denied,
            options=options,
            spans=spans,
        )
        await endpoints.start(stack, config, certificates.server)
        info = _runner_info(config, runner_id, endpoints, is_private=cluster.is_private)
        if servers_address is not None:
            own = await endpoints.start_for_servers(stack, config, certificates.server, servers_address)
            info.grpc_address = str(_reached_by_servers(config, servers_address, own))
        if servers_address is not INSIDE_THE_PROCESS:
            certificates.warn_of_other_host(Address.parse(info.grpc_address).host)
        service.base_url = info.url
        reporter = Reporter(
            info,
            request_managers,
            outbox,
            chains.assignments,
            lease=config.job_runner_lease,
            credentials=certificates.channel(config.rm_client_tls),
            call_metadata=cluster.metadata,
            on_lapse=chains.suspend_held,
            known_types=known_types,
            on_outcome=chains.approval_ended,
            capacity=chains.capacity,
            on_limit_outcome=chains.limit_wait_ended,
        )
        _measure(
            telemetry.servers[JOB_RUNNER], resources, reporter, chains.limits, outbox.limits, service.limits
        )
        telemetry.servers[JOB_RUNNER].readiness.start(
            endpoints.why_closed, partial(_why_without_lease, reporter)
        )
        stack.push_async_callback(known_types.close)
        run_in_background(stack, "reporter", reporter.run())
        run_in_background(stack, "lease", _watch_lease(reporter, chains))
        stack.push_async_callback(_drain, endpoints, reporter, chains, outbox, config)
        yield


def _always() -> bool:
    """Whether the chain of an original may start jobs, which has no lease."""
    return True


def _resources(config: Config, factory: JobFactory) -> TryResources:
    return TryResources(
        factory=factory,
        runs=CallThreads("job", config.job_runner_max_threads),
        calls=CallThreads("job-call", CALL_THREADS),
        statuses=CallThreads("job-status", CALL_THREADS),
        max_output=config.job_runner_max_output,
        stop_limit=config.job_runner_stop_timeout,
    )


def _endpoints(
    config: Config,
    service: JobRunnerService,
    address: Address,
    grpc_address: Address | None,
    *,
    telemetry: ProcessTelemetry,
    authentication: Authentication,
    on_denied: OnDenied,
    options: ListenOptions,
    spans: Spans | None,
) -> ServerEndpoints:
    gate = Gate(config.server_max_requests)
    descriptor = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
    return ServerEndpoints(
        [MethodTable(descriptor, service, gate, authentication, on_denied=on_denied, spans=spans)],
        gate,
        address,
        grpc_address,
        name=JOB_RUNNER,
        title="Spin Cycle Job Runner",
        error_format=ErrorFormat.MESSAGE,
        telemetry=telemetry,
        authentication=authentication,
        on_denied=on_denied,
        options=options,
    )


def _runner_info(
    config: Config, runner_id: str, endpoints: ServerEndpoints, *, is_private: bool
) -> RunnerInfo:
    """Returns the id and the addresses of this runner. Its endpoints must have been started.

    Args:
        config: The options.
        runner_id: The id.
        endpoints: Where the runner listens.
        is_private: Whether only a Request Manager in the same process calls the runner.
    """
    host = advertised(endpoints.http_address, config.job_runner_advertise)
    scheme = "https" if config.server_tls else "http"
    grpc_address = Address(host, endpoints.grpc_address.port)
    if is_private and not config.server_tls:  # With TLS, the certificate has the advertised name.
        grpc_address = endpoints.grpc_address.reachable_here
    return RunnerInfo(
        runner_id=runner_id,
        url=f"{scheme}://{Address(host, endpoints.http_address.port)}",
        grpc_address=str(grpc_address),
        labels=config.runner_labels,
        features=ALL_FEATURES,
        version=package_version(),
    )


def _reached_by_servers(config: Config, where: ServersAddress, own: Address) -> Address:
    """Returns the address under which Request Managers reach this runner."""
    return (
        own
        if where is INSIDE_THE_PROCESS
        else Address(advertised(own, config.job_runner_advertise), own.port)
    )


def _measure(
    telemetry: ServerTelemetry,
    resources: TryResources,
    reporter: Reporter,
    *more: Callable[[], Iterable[LimitUse]],
) -> None:
    """Adds what the parts of a runner measure. `more` are further limits."""
    metrics = telemetry.metrics
    metrics.add(resources.metrics.instruments)
    metrics.add(reporter.metrics.instruments)
    metrics.read_one(catalogue.RUNNING_TRIES, lambda: resources.metrics.running)
    metrics.read_one(catalogue.LEASE_LEFT_SECONDS, lambda: reporter.lease_left if reporter.has_lease else 0.0)
    metrics.add_limits(
        *more,
        resources.held.limits,
        partial(resources.runs.limits, limits.JOB_THREADS),
        partial(resources.calls.limits, limits.CALL_THREADS),
        partial(resources.statuses.limits, limits.STATUS_THREADS),
    )


def _why_without_lease(reporter: Reporter) -> str:
    """Returns why a runner cannot take work if no Request Manager knows it; "" if one does."""
    return "" if reporter.has_lease else "no Request Manager has acknowledged this Job Runner"


async def _watch_lease(reporter: Reporter, chains: Chains) -> None:
    """Suspends all job chains when the lease expires, because other runners may run them then.

    Runs until cancelled.
    """
    while True:
        left = reporter.lease_left
        if left > 0:
            await asyncio.sleep(min(left, _LEASE_CHECK_INTERVAL))
            continue
        reporter.lease_expired()
        logger.warning("lease expired: no Request Manager was reachable, job chains are suspended")
        while reporter.lease_left <= 0:
            chains.suspend_held()  # in each turn, because a chain can still arrive
            await asyncio.sleep(_LEASE_CHECK_INTERVAL)
        logger.info("lease renewed")


async def _drain(
    endpoints: ServerEndpoints, reporter: Reporter, chains: Chains, outbox: Outbox, config: Config
) -> None:
    """Suspends all job chains and delivers their reports to a Request Manager."""
    await endpoints.refuse_calls()
    reporter.drain()
    try:
        async with asyncio.timeout(config.job_runner_stop_timeout + config.server_stop_timeout):
            await chains.suspend_all()
            await outbox.wait_empty()
            await reporter.leave()
    except TimeoutError:
        logger.warning("reports not delivered: other runners take over their requests when the lease expires")
