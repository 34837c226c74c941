"""A Request Manager, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_server.app.database import database_options
from spincycle_server.app.parts import Served, background
from spincycle_server.config import Config
from spincycle_server.credentials import channel_credentials
from spincycle_server.gateway import ErrorFormat
from spincycle_server.job_factories import find_factory, knows_job_type
from spincycle_server.listening import Address
from spincycle_server.plugins import load_authenticator
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.request_manager.access import AccessLists
from spincycle_server.request_manager.build_pool import BuildPool
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.runner_reports_service import RunnerReportsService
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.service import RequestManagerService
from spincycle_server.rpc import Gate, MethodTable
from spincycle_server.spec_files import load_specs
from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

REQUEST_MANAGER_ADDRESS = Address("127.0.0.1", 32308)

_DATABASE_LOOK = 1.0
"""Seconds between looks at whether the database answers."""


@contextlib.asynccontextmanager
async def request_manager(config: Config) -> AsyncIterator[Address]:
    """Runs a Request Manager; gives the address under which this machine reaches it by gRPC.

    Raises:
        SpinCycleError: It cannot start.
    """
    factory = find_factory(config.jobs_factory, config.job_runner_max_output)
    specs = load_specs(Path(config.specs_dir), knows_job_type(factory))
    store = await Store.open(config.store_url(), database_options(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        runners = Runners(store, channel_credentials(config.jr_client_tls))
        stack.push_async_callback(runners.close)
        dispatcher = Dispatcher(
            store,
            runners,
            # What a lost runner had must be found within one more lease.
            interval=min(config.resume_interval, config.job_runner_lease / 2),
            suspended_timeout=config.resume_timeout,
            max_waiting=config.server_max_waiting,
        )
        stack.push_async_callback(dispatcher.close)
        stopper = RequestStopper(store, runners, dispatcher)
        build_pool = BuildPool(specs, factory, create_timeout=config.jobs_create_timeout)
        access = AccessLists(specs, admin_roles=config.auth_admin_roles, strict=config.auth_strict)
        users = RequestManagerService(
            store=store,
            build_pool=build_pool,
            dispatcher=dispatcher,
            stopper=stopper,
            runners=runners,
            access=access,
            request_ids=RequestIdGenerator(),
        )
        reports = RunnerReportsService(store, runners, dispatcher, stopper, lease=config.job_runner_lease)
        gate = Gate(config.server_max_requests)
        services = (
            request_manager_pb2.DESCRIPTOR.services_by_name,
            runner_reports_pb2.DESCRIPTOR.services_by_name,
        )
        tables = [
            MethodTable(services[0]["RequestManager"], users, gate, load_authenticator(config.auth_plugin)),
            MethodTable(
                services[1]["RunnerReports"],
                reports,
                gate,
                reserved=services[1]["RunnerReports"].methods_by_name,
            ),
        ]
        address = config.server_addr or REQUEST_MANAGER_ADDRESS
        background(stack, "dispatcher", dispatcher.run())
        server = Served(
            "request-manager",
            "Spin Cycle Request Manager",
            ErrorFormat.FULL,
            tables,
            gate,
            address,
            config.server_grpc,
        )
        await server.start(stack, config)
        stack.callback(reports.end_streams)
        stack.push_async_callback(server.finish_calls, config.server_stop_timeout)
        # It ends first: a server that shuts down is not to be healthy again.
        background(stack, "database", _watch_database(store, server, config.database_timeout))
        yield server.grpc_address


async def _watch_database(store: Store, server: Served, patience: float) -> None:
    """Has the health of a Request Manager tell whether its database answers. Ends when cancelled.

    Args:
        store: The database.
        server: The server whose health is told.
        patience: Seconds after which a database that says nothing counts as away.
    """
    while True:
        await asyncio.sleep(_DATABASE_LOOK)
        looking = asyncio.create_task(_trouble(store))
        done, _ = await asyncio.wait({looking}, timeout=patience)
        trouble = looking.result() if done else "it does not answer in time"
        if trouble is None:
            continue
        logger.error("database is away: not serving", error=str(trouble))
        await server.set_serving(False)
        while await looking is not None:  # One look at a time, however long it takes.
            await asyncio.sleep(_DATABASE_LOOK)
            looking = asyncio.create_task(_trouble(store))
        logger.info("database is back: serving")
        await server.set_serving(True)


async def _trouble(store: Store) -> SpinCycleError | None:
    try:
        await store.ping()
    except SpinCycleError as error:
        return error
    return None
