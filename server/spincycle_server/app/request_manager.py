"""Assembles a Request Manager."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.jobs import JobFactory
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_server.app.background import run_in_background
from spincycle_server.app.certificates import Certificates
from spincycle_server.app.database import database_options
from spincycle_server.app.endpoints import INSIDE_THE_PROCESS, ServerEndpoints, ServersAddress
from spincycle_server.app.identity import access_lists_of, authentication_of, permissions_of
from spincycle_server.app.notifications import start_notifications
from spincycle_server.app.reloads import Reloads
from spincycle_server.app.telemetry import REQUEST_MANAGER, ProcessTelemetry
from spincycle_server.app.web import WebRoom, web_room
from spincycle_server.config import Config
from spincycle_server.gateway import ErrorFormat
from spincycle_server.identity import Authentication, Cluster
from spincycle_server.identity.permissions import Permissions
from spincycle_server.job_factories import find_factory, knows_job_type
from spincycle_server.listening import Address
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.request_manager.audit import AuditLog
from spincycle_server.request_manager.build_pool import BuildPool
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.limit_changes import LimitChanges
from spincycle_server.request_manager.notification_desk import NotificationDesk
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.output_followers import OutputFollowers
from spincycle_server.request_manager.request_pauser import RequestPauser
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.runner_reports_service import RunnerReportsService
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.self_description import SelfDescription, ShownOption
from spincycle_server.request_manager.service import RequestManagerService
from spincycle_server.rpc import Gate, MethodTable
from spincycle_server.spec_files import load_specs
from spincycle_server.store import Store
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import BoundedNames
from spincycle_server.telemetry.metrics import ServerMetrics
from spincycle_server.telemetry.spans import Spans
from spincycle_server.telemetry.spans_of_requests import RequestSpans
from spincycle_server.watch import Hub, RunningJobsPoll, RunningSnapshots, Watching

if TYPE_CHECKING:
    from spincycle_server.app.worker import Worker

logger = structlog.get_logger(__name__)

REQUEST_MANAGER_ADDRESS = Address("127.0.0.1", 32308)

RUNNERS_CHANGED = b"runners"
"""What a worker tells the others if a runner has begun to report to it, or has left."""

_PING_INTERVAL = 1.0
"""Seconds between pings of the database."""


class RunningRequestManager(NamedTuple):
    """A Request Manager that serves.

    Attributes:
        grpc_address: The address of its gRPC endpoint.
        authentication: Identifies its callers, and those of a Job Runner in the same process.
        audit: The audit log, also of that Job Runner.
    """

    grpc_address: Address
    authentication: Authentication
    audit: AuditLog


@contextlib.asynccontextmanager
async def request_manager(
    config: Config,
    cluster: Cluster,
    certificates: Certificates,
    reloads: Reloads,
    *,
    telemetry: ProcessTelemetry,
    servers_addresses: Sequence[ServersAddress] = (),
    sources: Mapping[str, str] = MappingProxyType({}),
    shown: Mapping[str, str] | None = None,
    spans: Spans | None = None,
    worker: Worker | None = None,
) -> AsyncIterator[RunningRequestManager]:
    """Runs a Request Manager.

    Args:
        config: The configuration.
        cluster: Recognizes the other servers of the installation.
        certificates: The certificates of this process.
        reloads: Loads the specs again on SIGHUP.
        telemetry: What the process shows of itself.
        servers_addresses: The addresses for other servers alone.
        sources: Where the values of options come from, by the option's name.
        shown: The options as administrators see them; None for those of `config`.
        spans: Records spans; None to record none.
        worker: What this process shares with the other workers of the server; None if it is the only one.

    Raises:
        SpinCycleError: The server cannot start.
    """
    factory = find_factory(config.jobs_factory, config.job_runner_max_output)
    specs = load_specs(Path(config.specs_dir), knows_job_type(factory))
    store = await Store.open(config.store_url(), database_options(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        request_spans = _request_spans(spans, store)
        runners = Runners(
            store,
            certificates.channel(config.jr_client_tls),
            cluster.metadata,
            only_own=cluster.is_private,
        )
        stack.push_async_callback(runners.close)
        runners.asked_types.use_specs(specs.job_types)
        store.reasons.of_runners = runners.why_waiting
        store.reasons.cannot_pause = runners.cannot_pause
        dispatcher = Dispatcher(
            store,
            runners,
            # Requests of a lost runner must be found within one more lease.
            interval=min(config.resume_interval, config.job_runner_lease / 2),
            suspended_timeout=config.resume_timeout,
            max_waiting=config.server_max_waiting,
            max_blocked=config.server_max_blocked,
            spans=request_spans,
        )
        stack.push_async_callback(dispatcher.close)
        originals = OriginalRunners(
            store, interval=config.resume_interval, ca_file=config.jr_client_tls.ca_file
        )
        stopper = _stopper(store, runners, dispatcher, originals)
        pauser = RequestPauser(store, runners, dispatcher)
        authentication = await authentication_of(config, cluster, stack, store, trust=certificates.trust)
        audit = AuditLog(store, is_on=authentication.is_on, admin_roles=config.auth_admin_roles)
        stack.push_async_callback(audit.close)
        run_in_background(stack, "audit", audit.run())
        build_pool = BuildPool(
            specs, factory, create_timeout=config.jobs_create_timeout, strict_args=config.specs_strict_args
        )
        permissions = permissions_of(config, specs, authentication)
        types = store.metrics.requests.types
        types.allow(specs.request_types)
        reloads.add(
            "specs",
            partial(_reload_specs, config, factory, build_pool, permissions, runners=runners, types=types),
        )
        followers = OutputFollowers(store, runners, limit=config.server_max_followers)
        watching = watching_of(config, store, runners, permissions, stack)
        users = RequestManagerService(
            store=store,
            build_pool=build_pool,
            dispatcher=dispatcher,
            stopper=stopper,
            pauser=pauser,
            runners=runners,
            originals=originals,
            permissions=permissions,
            request_ids=RequestIdGenerator(),
            followers=followers,
            audit=audit,
            watching=watching,
            notifications=NotificationDesk(
                store, audit, start_notifications(config, store, reloads, stack, telemetry)
            ),
            self_description=SelfDescription(
                store,
                audit,
                [
                    ShownOption(name, value, sources.get(name, "default"))
                    for name, value in (config.shown() if shown is None else shown).items()
                ],
                database_timeout=config.database_timeout,
            ),
        )
        reports = RunnerReportsService(
            store,
            runners,
            dispatcher,
            stopper,
            pauser,
            lease=config.job_runner_lease,
            spans=request_spans,
        )
        _join_workers(dispatcher, worker)
        run_in_background(stack, "dispatcher", dispatcher.run())
        run_in_background(stack, "originals", originals.run())
        web = web_room(
            config,
            config.server_addr or REQUEST_MANAGER_ADDRESS,
            certificates,
            authentication=authentication,
            store=store,
            audit=audit,
        )
        endpoints = _endpoints(
            config,
            web,
            users=users,
            reports=reports,
            authentication=authentication,
            audit=audit,
            telemetry=telemetry,
            spans=spans,
            worker=worker,
        )
        database = DatabaseState()
        own = telemetry.servers[REQUEST_MANAGER]
        _measure(own.metrics, store, dispatcher, runners, reports)
        own.metrics.add_limits(
            build_pool.limits, followers.limits, watching.limits, users.limits, audit.limits
        )
        database.add_to(own.metrics)
        await endpoints.start(stack, config, certificates.server)
        own_address = endpoints.grpc_address
        for where in servers_addresses:
            address = await endpoints.start_for_servers(stack, config, certificates.server, where)
            if where is INSIDE_THE_PROCESS:
                own_address = address
        stack.callback(reports.end_streams)
        stack.push_async_callback(endpoints.finish_calls, config.server_stop_timeout)
        # Started last, so it stops first: it must not set a server that shuts down to SERVING.
        run_in_background(
            stack, "database", _watch_database(store, endpoints, database, config.database_timeout)
        )
        own.readiness.start(endpoints.why_closed, lambda: database.problem)
        yield RunningRequestManager(own_address, authentication, audit)


def _stopper(
    store: Store, runners: Runners, dispatcher: Dispatcher, originals: OriginalRunners
) -> RequestStopper:
    """Returns what stops requests, also those that others replace at a limit."""
    stopper = RequestStopper(store, runners, dispatcher, originals)
    store.on_limits(LimitChanges(store, runners, dispatcher, stopper).committed)
    return stopper


def _join_workers(dispatcher: Dispatcher, worker: Worker | None) -> None:
    """Lets the workers of a server tell each other of new runners, which may run what waits anywhere."""
    if worker is not None:
        dispatcher.tell_neighbours = partial(worker.channel.tell, RUNNERS_CHANGED)
        worker.channel.on_news(lambda news: dispatcher.wake() if news == RUNNERS_CHANGED else None)


def _request_spans(spans: Spans | None, store: Store) -> RequestSpans | None:
    """Returns what records the spans of requests, and lets it know of each end; None to record none."""
    if spans is None:
        return None
    request_spans = RequestSpans(spans)
    store.on_ended(request_spans.ended)
    return request_spans


def watching_of(
    config: Config, store: Store, runners: Runners, permissions: Permissions, stack: contextlib.AsyncExitStack
) -> Watching:
    """Starts to look for changes whenever somebody watches. It ends when the stack closes."""
    snapshots = RunningSnapshots(runners.jobs_of_requests)
    hub = Hub(store, snapshots.of)
    store.on_changed(hub.changed)
    run_in_background(stack, "watch", hub.run())
    run_in_background(stack, "running jobs", RunningJobsPoll(hub, snapshots.of).run())
    return Watching(store, hub, permissions, max_watchers=config.server_max_watchers)


async def _reload_specs(
    config: Config,
    factory: JobFactory,
    build_pool: BuildPool,
    permissions: Permissions,
    *,
    runners: Runners,
    types: BoundedNames,
) -> None:
    """Uses the specs as their files are now.

    Raises:
        SpecsError: The specs have errors. The earlier ones stay in use.
        FailedPreconditionError: They have approvals, and users are not authenticated. Reason:
            NEEDS_AUTHENTICATION.
    """
    specs = await asyncio.to_thread(load_specs, Path(config.specs_dir), knows_job_type(factory))
    prepared = await asyncio.to_thread(build_pool.prepare, specs)
    permissions.use(access_lists_of(config, specs))
    build_pool.use(prepared)
    runners.asked_types.use_specs(specs.job_types)
    types.allow(specs.request_types)
    logger.info("specs reloaded")


def _endpoints(
    config: Config,
    web: WebRoom,
    *,
    users: RequestManagerService,
    reports: RunnerReportsService,
    authentication: Authentication,
    audit: AuditLog,
    telemetry: ProcessTelemetry,
    spans: Spans | None,
    worker: Worker | None,
) -> ServerEndpoints:
    gate = Gate(config.server_max_requests)
    for_users = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
    for_runners = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]
    tables = [
        MethodTable(for_users, users, gate, authentication, on_denied=audit.add_denial, spans=spans),
        MethodTable(for_runners, reports, gate, authentication, on_denied=audit.add_denial, spans=spans),
    ]
    return ServerEndpoints(
        tables,
        gate,
        config.server_addr or REQUEST_MANAGER_ADDRESS,
        config.server_grpc,
        name=REQUEST_MANAGER,
        title="Spin Cycle Request Manager",
        error_format=ErrorFormat.FULL,
        web=web,
        telemetry=telemetry,
        authentication=authentication,
        on_denied=audit.add_denial,
        worker=worker,
    )


def _measure(
    metrics: ServerMetrics,
    store: Store,
    dispatcher: Dispatcher,
    runners: Runners,
    reports: RunnerReportsService,
) -> None:
    """Adds what the parts of a Request Manager measure."""
    store.metrics.add_to(metrics)
    metrics.add([dispatcher.takeovers, reports.renewals])
    metrics.read(catalogue.RUNNERS, runners.states)
    metrics.read_one(catalogue.OLDEST_WAITING_SECONDS, lambda: dispatcher.oldest_waiting)
    metrics.add_limits(dispatcher.limits, reports.limits)


class DatabaseState:
    """What the pings say of the database.

    Attributes:
        is_up: Whether it answered the last ping. A server does not start without it.
        ping_seconds: How long the last ping took that it answered.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.ping_seconds = 0.0

    @property
    def problem(self) -> str:
        """What is wrong; "" if nothing is."""
        return "" if self.is_up else "the database does not answer"

    def add_to(self, metrics: ServerMetrics) -> None:
        """Adds the state to the metrics of a server."""
        metrics.read_one(catalogue.DATABASE_UP, lambda: float(self.is_up))
        metrics.read_one(catalogue.DATABASE_PING_SECONDS, lambda: self.ping_seconds)


async def _watch_database(
    store: Store, endpoints: ServerEndpoints, state: DatabaseState, ping_limit: float
) -> None:
    """Sets the health status to NOT_SERVING while the database does not answer. Runs until cancelled.

    Args:
        store: The database.
        endpoints: The server whose health status is set.
        state: What is known of the database.
        ping_limit: Seconds that a ping may take.
    """
    while True:
        await asyncio.sleep(_PING_INTERVAL)
        ping = asyncio.create_task(_ping(store, state))
        done, _ = await asyncio.wait({ping}, timeout=ping_limit)
        error = ping.result() if done else f"no answer within {ping_limit:g} seconds"
        if error is None:
            continue
        state.is_up = False
        logger.error("database unavailable: not serving", error=str(error))
        await endpoints.set_serving(False)
        while await ping is not None:  # Only one ping runs at a time, however long it takes.
            await asyncio.sleep(_PING_INTERVAL)
            ping = asyncio.create_task(_ping(store, state))
        state.is_up = True
        logger.info("database available again: serving")
        await endpoints.set_serving(True)


async def _ping(store: Store, state: DatabaseState) -> SpinCycleError | None:
    """Returns None if the database answers, otherwise the error."""
    started = time.monotonic()
    try:
        await store.ping()
        state.ping_seconds = time.monotonic() - started
    except SpinCycleError as error:
        return error
    return None
