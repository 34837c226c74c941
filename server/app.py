"""Puts the servers together from their parts, starts them, and ends them in order.

This is the one place that knows all rooms. Each server is a context: entering it starts its
parts from the inside out, leaving it ends them the other way round. First it takes no more
work, then it finishes what is in flight, then it closes what that needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from server.builtin_jobs import Noop, makes_builtin
from server.call_threads import CallThreads
from server.chain import RunningChain
from server.config import Config, advertised
from server.credentials import channel_credentials, server_credentials
from server.gateway import GatewayApp, HttpLimits, HttpServer, with_cors
from server.job_factories import find_factory, knows_job_type
from server.job_runner.chains import Chains
from server.job_runner.job_try import JobTools
from server.job_runner.outbox import Outbox
from server.job_runner.reporter import Reporter
from server.job_runner.service import JobRunnerService
from server.job_runner.traverser import Traverser
from server.listening import Address
from server.logs import configure_logs
from server.plugins import load_authenticator
from server.request_ids import RequestIdGenerator
from server.request_manager.access import AccessLists
from server.request_manager.building import Building
from server.request_manager.dispatch import Dispatcher
from server.request_manager.reports import RunnerReportsService
from server.request_manager.runners import Runners
from server.request_manager.service import RequestManagerService
from server.rpc import Gate, GrpcServer, MethodTable
from server.spec_files import load_specs
from server.store import DatabaseOptions, Store
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1 import job_runner_pb2, request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo

logger = structlog.get_logger(__name__)

REQUEST_MANAGER_ADDRESS = Address("127.0.0.1", 32308)
JOB_RUNNER_ADDRESS = Address("127.0.0.1", 32307)


_LEASE_LOOK = 0.25
"""Seconds between looks at whether the lease still lasts."""

_DATABASE_LOOK = 1.0
"""Seconds between looks at whether the database answers."""

CALL_THREADS = 64
"""Threads of a Job Runner for making and stopping jobs, and as many for asking them for their status."""


def database_options(config: Config) -> DatabaseOptions:
    """Returns how the database is connected to."""
    return DatabaseOptions(
        timeout=config.database_timeout,
        connections=config.database_connections,
        cert_file=config.mysql_cert_file,
        key_file=config.mysql_key_file,
        ca_file=config.mysql_ca_file,
    )


def run(serve: Callable[[Config], Coroutine[Any, Any, None]], config: Config) -> None:
    """Runs a server until it is told to end.

    Raises:
        SpinCycleError: It cannot start.
    """
    configure_logs(config.log_level, config.log_format)
    logger.info("configuration", **config.shown())
    _collect_less_often()
    uvloop.run(serve(config))
    _end_in_spite_of_threads()


def _collect_less_often() -> None:
    """Has the collector of reference cycles leave alone what is there for good, and look less often.

    Nearly all garbage goes by reference counts; at the default, a tenth of the time went into looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _end_in_spite_of_threads() -> None:
    """Ends the process at once if a thread hangs in a user's code, which would keep it for ever."""
    hanging = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    if hanging:
        logger.warning("ended in spite of threads that hang", threads=hanging)
        sys.stderr.flush()
        os._exit(0)


async def serve_request_manager(config: Config) -> None:
    """Runs a Request Manager until SIGTERM or SIGINT."""
    with _told_to_end() as told:
        async with request_manager(config):
            await told.wait()


async def serve_job_runner(config: Config) -> None:
    """Runs a Job Runner until SIGTERM or SIGINT."""
    address = config.server_addr or JOB_RUNNER_ADDRESS
    with _told_to_end() as told:
        async with job_runner(config, address, config.server_grpc, config.request_manager_addresses):
            await told.wait()


async def serve_both(config: Config) -> None:
    """Runs a Request Manager and a Job Runner until SIGTERM or SIGINT.

    The runner ends first, so that the Request Manager takes in what it has suspended.
    """
    with _told_to_end() as told:
        async with (
            request_manager(config) as grpc_address,
            job_runner(config, config.job_runner_addr, config.job_runner_grpc, [str(grpc_address)]),
        ):
            await told.wait()


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
        building = Building(specs, factory, create_timeout=config.jobs_create_timeout)
        access = AccessLists(specs, admin_roles=config.auth_admin_roles, strict=config.auth_strict)
        users = RequestManagerService(
            store=store,
            building=building,
            dispatcher=dispatcher,
            runners=runners,
            access=access,
            request_ids=RequestIdGenerator(),
        )
        reports = RunnerReportsService(store, runners, dispatcher, lease=config.job_runner_lease)
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
        _background(stack, "dispatcher", dispatcher.run())
        server = _Served("request-manager", tables, gate, address, config.server_grpc)
        await server.start(stack, config)
        stack.callback(reports.end_streams)
        stack.push_async_callback(server.finish_calls, config.server_stop_timeout)
        # It ends first: a server that shuts down is not to be healthy again.
        _background(stack, "database", _watch_database(store, server, config.database_timeout))
        yield server.grpc_address


@contextlib.asynccontextmanager
async def job_runner(
    config: Config, address: Address, grpc_address: Address | None, request_managers: Sequence[str]
) -> AsyncIterator[None]:
    """Runs a Job Runner that reports to the first of some Request Managers that answers.

    Args:
        config: The configuration.
        address: Where to serve HTTP.
        grpc_address: Where to serve gRPC; None: made from the former.
        request_managers: The gRPC addresses of Request Managers.

    Raises:
        SpinCycleError: It cannot start.
    """
    factory = find_factory(config.jobs_factory, config.job_runner_max_output)
    tools = JobTools(
        factory=factory,
        runs=CallThreads("job", config.job_runner_max_threads),
        calls=CallThreads("job-call", CALL_THREADS),
        statuses=CallThreads("job-status", CALL_THREADS),
        max_output=config.job_runner_max_output,
        stop_limit=config.job_runner_stop_timeout,
    )
    noop_types = frozenset({"noop"}) if makes_builtin(factory, "noop", (Noop,)) else frozenset()
    runner_id = RequestIdGenerator().next()
    outbox = Outbox()
    reporter: Reporter | None = None

    def make_traverser(chain: RunningChain, assignment: Assignment) -> Traverser:
        def may_start() -> bool:
            return not assignment.epoch or reporter is None or reporter.lease_left > 0

        return Traverser(chain, assignment, tools, outbox, noop_types=noop_types, may_start=may_start)

    chains = Chains(
        runner_id,
        make_traverser,
        max_chains=config.job_runner_max_chains,
        max_jobs=config.job_runner_max_jobs,
    )
    async with contextlib.AsyncExitStack() as stack:
        service = JobRunnerService(chains)
        gate = Gate(config.server_max_requests)
        descriptor = job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]
        reserved = set(descriptor.methods_by_name) - {"RunningJobs", "Version"}
        tables = [MethodTable(descriptor, service, gate, reserved=reserved)]
        server = _Served("job-runner", tables, gate, address, grpc_address)
        await server.start(stack, config)
        host = advertised(address, config.job_runner_advertise)
        scheme = "https" if config.server_tls else "http"
        service.base_url = f"{scheme}://{Address(host, server.http_address.port)}"
        reporter = Reporter(
            RunnerInfo(
                runner_id=runner_id,
                url=service.base_url,
                grpc_address=str(Address(host, server.grpc_address.port)),
            ),
            request_managers,
            outbox,
            chains.assignments,
            lease=config.job_runner_lease,
            credentials=channel_credentials(config.rm_client_tls),
            on_lapse=chains.suspend_held,
        )
        _background(stack, "reporter", reporter.run())
        _background(stack, "lease", _watch_lease(reporter, chains))
        stack.push_async_callback(_drain, server, reporter, chains, outbox, config)
        yield


async def _watch_database(store: Store, server: _Served, patience: float) -> None:
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


async def _watch_lease(reporter: Reporter, chains: Chains) -> None:
    """Stops what a runner does when its lease is over: others may do it by then. Ends when cancelled."""
    while True:
        left = reporter.lease_left
        if left > 0:
            await asyncio.sleep(min(left, _LEASE_LOOK))
            continue
        logger.warning("lease is over: no request manager was reached for that long, chains are suspended")
        while reporter.lease_left <= 0:
            chains.suspend_held()  # again and again, since a chain may have been on its way here
            await asyncio.sleep(_LEASE_LOOK)
        logger.info("lease renewed")


async def _drain(server: _Served, reporter: Reporter, chains: Chains, outbox: Outbox, config: Config) -> None:
    """Suspends what a runner has, and waits until a Request Manager has all of its reports."""
    await server.refuse_calls()
    reporter.drain()
    try:
        async with asyncio.timeout(config.job_runner_stop_timeout + config.server_stop_timeout):
            await chains.suspend_all()
            await outbox.wait_empty()
            await reporter.leave()
    except TimeoutError:
        logger.warning("reports not delivered: their requests are taken over when the lease is over")


class _Served:
    """One server's two ways in.

    Args:
        name: What it is, for the log.
        tables: What it serves.
        gate: What lets calls in.
        address: Where to serve HTTP.
        grpc_address: Where to serve gRPC; None: made from the former.
    """

    def __init__(  # noqa: PLR0917 (each is named above)
        self,
        name: str,
        tables: Sequence[MethodTable],
        gate: Gate,
        address: Address,
        grpc_address: Address | None,
    ) -> None:
        self._name = name
        self._tables = tables
        self._gate = gate
        self._grpc_server: GrpcServer | None = None
        self.http_address = address
        self.grpc_address = grpc_address or address.for_grpc()

    async def start(self, stack: contextlib.AsyncExitStack, config: Config) -> None:
        """Serves until the stack is left. The addresses then have the ports that the system chose."""
        app = GatewayApp(
            self._tables,
            title=f"Spin Cycle {self._name.replace('-', ' ').title()}",
            full_errors=self._name == "request-manager",
            max_body=config.server_max_body,
            body_timeout=config.server_read_timeout,
            call_timeout=config.server_call_timeout,
        )
        grpc_server = self._grpc_server = GrpcServer(
            self._tables, str(self.grpc_address), server_credentials(config.server_tls)
        )
        http_server = HttpServer(
            with_cors(app, config.server_cors_origins), self.http_address, config.server_tls, _limits(config)
        )
        await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, config.server_stop_timeout)
        await http_server.start()
        stack.push_async_callback(http_server.stop, config.server_stop_timeout)
        await grpc_server.set_serving(True)
        self.http_address = Address(self.http_address.host, http_server.port)
        self.grpc_address = Address(self.grpc_address.host, grpc_server.port)
        logger.info("listening", server=self._name, http=str(self.http_address), grpc=str(self.grpc_address))

    async def set_serving(self, serving: bool) -> None:
        """Has the health of the server tell whether it can do its work."""
        if self._grpc_server is not None:
            await self._grpc_server.set_serving(serving)

    async def refuse_calls(self) -> None:
        """Answers new calls that the server shuts down, and has its health say so."""
        self._gate.close()
        await self.set_serving(False)

    async def finish_calls(self, limit: float) -> None:
        """Refuses new calls, and returns when those at hand are answered or the limit (seconds) is over."""
        await self.refuse_calls()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._gate.wait_idle()


def _limits(config: Config) -> HttpLimits:
    return HttpLimits(
        header_timeout=config.server_header_timeout,
        idle_timeout=config.server_idle_timeout,
        max_connections=config.server_max_connections,
    )


def _background(stack: contextlib.AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Runs work until the stack is left. Work that fails ends the server, which is no use without it."""
    task = asyncio.create_task(work, name=name)

    def after(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.critical("server cannot go on", part=name, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    task.add_done_callback(after)
    stack.push_async_callback(end)


@contextlib.contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """Gives an event that SIGTERM and SIGINT set; the second of them ends the process at once."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(number: signal.Signals) -> None:
        if told.is_set():
            logger.warning("ended at once by a second signal", signal=number.name)
            os._exit(128 + number)
        logger.info("ending", signal=number.name)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    try:
        yield told
    finally:
        logger.info("ended")
