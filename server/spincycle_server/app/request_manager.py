"""Assembles a Request Manager."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.jobs import JobFactory
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_server.app.background import run_in_background
from spincycle_server.app.certificates import Certificates
from spincycle_server.app.database import database_options
from spincycle_server.app.endpoints import INSIDE_THE_PROCESS, ServerEndpoints, ServersAddress
from spincycle_server.app.identity import access_lists_of, authentication_of, permissions_of
from spincycle_server.app.reloads import Reloads
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
from spincycle_server.watch import Hub, RunningJobsPoll, Watching

logger = structlog.get_logger(__name__)

REQUEST_MANAGER_ADDRESS = Address("127.0.0.1", 32308)

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
    servers_addresses: Sequence[ServersAddress] = (),
    *,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[RunningRequestManager]:
    """Runs a Request Manager.

    Args:
        config: The configuration.
        cluster: Recognizes the other servers of the installation.
        certificates: The certificates of this process.
        reloads: Loads the specs again on SIGHUP.
        servers_addresses: The addresses for other servers alone.
        sources: Where the values of options come from, by the option's name.

    Raises:
        SpinCycleError: The server cannot start.
    """
    factory = find_factory(config.jobs_factory, config.job_runner_max_output)
    specs = load_specs(Path(config.specs_dir), knows_job_type(factory))
    store = await Store.open(config.store_url(), database_options(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        runners = Runners(
            store,
            certificates.channel(config.jr_client_tls),
            cluster.metadata,
            only_own=cluster.is_private,
        )
        stack.push_async_callback(runners.close)
        runners.asked_types.use_specs(specs.job_types)
        store.why_waiting = runners.why_waiting
        store.cannot_pause = runners.cannot_pause
        dispatcher = Dispatcher(
            store,
            runners,
            # Requests of a lost runner must be found within one more lease.
            interval=min(config.resume_interval, config.job_runner_lease / 2),
            suspended_timeout=config.resume_timeout,
            max_waiting=config.server_max_waiting,
            max_blocked=config.server_max_blocked,
        )
        stack.push_async_callback(dispatcher.close)
        originals = OriginalRunners(
            store, interval=config.resume_interval, ca_file=config.jr_client_tls.ca_file
        )
        stopper = RequestStopper(store, runners, dispatcher, originals)
        pauser = RequestPauser(store, runners, dispatcher)
        authentication = await authentication_of(config, cluster, stack, store, trust=certificates.trust)
        audit = AuditLog(store, is_on=authentication.is_on, admin_roles=config.auth_admin_roles)
        stack.push_async_callback(audit.close)
        run_in_background(stack, "audit", audit.run())
        build_pool = BuildPool(
            specs, factory, create_timeout=config.jobs_create_timeout, strict_args=config.specs_strict_args
        )
        permissions = permissions_of(config, specs, authentication)
        reloads.add("specs", partial(_reload_specs, config, factory, build_pool, permissions, runners))
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
            followers=OutputFollowers(store, runners, limit=config.server_max_followers),
            audit=audit,
            watching=watching_of(config, store, runners, permissions, stack),
            self_description=SelfDescription(
                store,
                audit,
                [
                    ShownOption(name, value, sources.get(name, "default"))
                    for name, value in config.shown().items()
                ],
                database_timeout=config.database_timeout,
            ),
        )
        reports = RunnerReportsService(
            store, runners, dispatcher, stopper, pauser, lease=config.job_runner_lease
        )
        run_in_background(stack, "dispatcher", dispatcher.run())
        run_in_background(stack, "originals", originals.run())
        address = config.server_addr or REQUEST_MANAGER_ADDRESS
        web = web_room(config, address, certificates, authentication=authentication, store=store, audit=audit)
        endpoints = _endpoints(
            config, web, users=users, reports=reports, authentication=authentication, audit=audit
        )
        await endpoints.start(stack, config, certificates.server)
        own_address = endpoints.grpc_address
        for where in servers_addresses:
            address = await endpoints.start_for_servers(stack, config, certificates.server, where)
            if where is INSIDE_THE_PROCESS:
                own_address = address
        stack.callback(reports.end_streams)
        stack.push_async_callback(endpoints.finish_calls, config.server_stop_timeout)
        # Started last, so it stops first: it must not set a server that shuts down to SERVING.
        run_in_background(stack, "database", _watch_database(store, endpoints, config.database_timeout))
        yield RunningRequestManager(own_address, authentication, audit)


def watching_of(
    config: Config, store: Store, runners: Runners, permissions: Permissions, stack: contextlib.AsyncExitStack
) -> Watching:
    """Starts to look for changes whenever somebody watches. It ends when the stack closes."""
    hub = Hub(store)
    store.on_changed(hub.changed)
    run_in_background(stack, "watch", hub.run())
    run_in_background(stack, "running jobs", RunningJobsPoll(hub, runners.running_jobs).run())
    return Watching(store, hub, permissions, max_watchers=config.server_max_watchers)


async def _reload_specs(
    config: Config, factory: JobFactory, build_pool: BuildPool, permissions: Permissions, runners: Runners
) -> None:
    """Uses the specs as their files are now.

    Raises:
        SpecsError: The specs have errors. The earlier ones stay in use.
    """
    specs = await asyncio.to_thread(load_specs, Path(config.specs_dir), knows_job_type(factory))
    prepared = await asyncio.to_thread(build_pool.prepare, specs)
    permissions.use(access_lists_of(config, specs))
    build_pool.use(prepared)
    runners.asked_types.use_specs(specs.job_types)
    logger.info("specs reloaded")


def _endpoints(
    config: Config,
    web: WebRoom,
    *,
    users: RequestManagerService,
    reports: RunnerReportsService,
    authentication: Authentication,
    audit: AuditLog,
) -> ServerEndpoints:
    gate = Gate(config.server_max_requests)
    for_users = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
    for_runners = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]
    tables = [
        MethodTable(for_users, users, gate, authentication, on_denied=audit.add_denial),
        MethodTable(for_runners, reports, gate, authentication, on_denied=audit.add_denial),
    ]
    return ServerEndpoints(
        tables,
        gate,
        config.server_addr or REQUEST_MANAGER_ADDRESS,
        config.server_grpc,
        name="request-manager",
        title="Spin Cycle Request Manager",
        error_format=ErrorFormat.FULL,
        web=web,
    )


async def _watch_database(store: Store, endpoints: ServerEndpoints, ping_limit: float) -> None:
    """Sets the health status to NOT_SERVING while the database does not answer. Runs until cancelled.

    Args:
        store: The database.
        endpoints: The server whose health status is set.
        ping_limit: Seconds that a ping may take.
    """
    while True:
        await asyncio.sleep(_PING_INTERVAL)
        ping = asyncio.create_task(_ping(store))
        done, _ = await asyncio.wait({ping}, timeout=ping_limit)
        error = ping.result() if done else f"no answer within {ping_limit:g} seconds"
        if error is None:
            continue
        logger.error("database unavailable: not serving", error=str(error))
        await endpoints.set_serving(False)
        while await ping is not None:  # Only one ping runs at a time, however long it takes.
            await asyncio.sleep(_PING_INTERVAL)
            ping = asyncio.create_task(_ping(store))
        logger.info("database available again: serving")
        await endpoints.set_serving(True)


async def _ping(store: Store) -> SpinCycleError | None:
    """Returns None if the database answers, otherwise the error."""
    try:
        await store.ping()
    except SpinCycleError as error:
        return error
    return None
