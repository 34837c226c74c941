"""The process that runs servers: its start, its signals and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from spincycle_grpc.version import package_version
from spincycle_server import forked_children
from spincycle_server.app.background import run_in_background
from spincycle_server.app.certificates import Certificates
from spincycle_server.app.cluster import combined_cluster, job_runner_cluster, request_manager_cluster
from spincycle_server.app.descriptors import watch_descriptors
from spincycle_server.app.endpoints import INSIDE_THE_PROCESS, ListenOptions, ServersAddress
from spincycle_server.app.identity import authentication_of
from spincycle_server.app.reloads import Reloads
from spincycle_server.app.service_manager import give_signs_of_life, ready
from spincycle_server.app.telemetry import JOB_RUNNER, REQUEST_MANAGER, ProcessTelemetry, process_telemetry
from spincycle_server.app.tracing import recorded_spans
from spincycle_server.config import (
    Config,
    LoadedConfig,
    ServiceManagerOptions,
    forget_environment,
    public_secret_files,
    take_service_manager_options,
)
from spincycle_server.garbage_collection import WITH_RUNNER, WITHOUT_RUNNER, collect_not_yet, collect_seldom
from spincycle_server.large_work import end_large_thread
from spincycle_server.listening import Address
from spincycle_server.logs import configure_logs
from spincycle_server.python_build import python_build
from spincycle_server.telemetry import catalogue

if TYPE_CHECKING:
    from spincycle_server.app.worker import Worker

logger = structlog.get_logger(__name__)

JOB_RUNNER_ADDRESS = Address("127.0.0.1", 32307)

EXIT_TIMEOUT = 5.0
"""Seconds that exit handlers and children of users' code may delay the exit after the servers stopped."""


def run(
    serve: Callable[[LoadedConfig, ServiceManagerOptions], Coroutine[Any, Any, None]], loaded: LoadedConfig
) -> None:
    """Runs servers until SIGTERM or SIGINT.

    It removes the servers' variables and systemd's from the environment, so that jobs do not inherit them.

    Args:
        serve: One of the coroutine functions below.
        loaded: The configuration, with its sources.

    Raises:
        SpinCycleError: A server cannot start.
    """
    run_loop(serve(loaded, prepare(loaded)))


def prepare(loaded: LoadedConfig) -> ServiceManagerOptions:
    """Prepares this process for servers: its environment and its log. It starts no thread.

    Returns:
        What systemd expects of this process.
    """
    config = loaded.config
    forget_environment()
    manager = take_service_manager_options()
    configure_logs(config.log_level, config.log_format)
    logger.info("starting", version=package_version(), python=python_build())
    logger.info("configuration", **config.shown())
    for option, path in public_secret_files(config).items():
        logger.warning(
            "every user of this machine may read or change a file with a secret: run `chmod o= FILE`",
            option=option,
            file=path,
        )
    return manager


def run_loop(serve: Coroutine[Any, Any, None]) -> None:
    """Runs servers in an event loop, and exits even if users' code hangs.

    Raises:
        SpinCycleError: A server cannot start.
    """
    collect_not_yet()  # until the server listens
    forked_children.install()
    uvloop.run(serve)
    end_large_thread()
    _exit_despite_hanging_threads()


def _exit_despite_hanging_threads() -> None:
    """Exits at once if a thread hangs in a user's code; Python would wait for it forever.

    Python would also wait for each child that `multiprocessing` has started, so that wait has a limit.
    """
    hanging = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    if hanging:
        logger.warning("exited although threads still run", threads=hanging)
        sys.stderr.flush()
        os._exit(0)
    timer = threading.Timer(EXIT_TIMEOUT, _exit_at_once)
    timer.daemon = True
    timer.start()


def _exit_at_once() -> None:
    logger.warning("exited although children or exit handlers of jobs still run")
    sys.stderr.flush()
    os._exit(0)


async def serve_request_manager(
    loaded: LoadedConfig, service_manager: ServiceManagerOptions, worker: Worker | None = None
) -> None:
    """Runs a Request Manager, or one worker of it, until SIGTERM or SIGINT."""
    from spincycle_server.app.request_manager import REQUEST_MANAGER_ADDRESS, request_manager

    reloads = Reloads(loaded)
    config = loaded.config if worker is None else worker.config
    address = config.server_addr or REQUEST_MANAGER_ADDRESS
    cluster = request_manager_cluster(config, _listened(config, address))
    with _stop_signal() as stopped:
        async with (
            process_telemetry(config, REQUEST_MANAGER, worker=worker) as telemetry,
            _certificates(config, stopped, reloads, service_manager, telemetry) as certificates,
            recorded_spans(config, "spincycle-request-manager") as spans,
            request_manager(
                config,
                cluster,
                certificates,
                reloads,
                telemetry=telemetry,
                servers_addresses=_for_servers(config),
                sources=loaded.sources,
                shown=loaded.config.shown(),
                spans=spans,
                worker=worker,
            ),
        ):
            if worker is not None:
                worker.channel.listens()
            await _serve_until(stopped, service_manager, growth=WITHOUT_RUNNER)


async def serve_job_runner(loaded: LoadedConfig, service_manager: ServiceManagerOptions) -> None:
    """Runs a Job Runner until SIGTERM or SIGINT."""
    from spincycle_server.app.job_runner import job_runner

    config, reloads = loaded.config, Reloads(loaded)
    address = config.server_addr or JOB_RUNNER_ADDRESS
    cluster = job_runner_cluster(config, _listened(config, address))
    request_managers = config.request_manager_addresses
    with _stop_signal() as stopped:
        async with contextlib.AsyncExitStack() as stack:
            telemetry = await stack.enter_async_context(process_telemetry(config, JOB_RUNNER))
            certificates = await stack.enter_async_context(
                _certificates(config, stopped, reloads, service_manager, telemetry)
            )
            spans = await stack.enter_async_context(recorded_spans(config, "spincycle-job-runner"))
            authentication = await authentication_of(config, cluster, stack, trust=certificates.trust)
            await stack.enter_async_context(
                job_runner(
                    config,
                    address,
                    config.server_grpc,
                    request_managers,
                    telemetry=telemetry,
                    cluster=cluster,
                    authentication=authentication,
                    certificates=certificates,
                    servers_address=next(iter(_for_servers(config)), None),
                    spans=spans,
                )
            )
            await _serve_until(stopped, service_manager, growth=WITH_RUNNER)


async def serve_both(loaded: LoadedConfig, service_manager: ServiceManagerOptions) -> None:
    """Runs a Request Manager and a Job Runner until SIGTERM or SIGINT.

    The runner stops first, so that the Request Manager receives the job chains that it suspends. Without
    options for TLS between them, they use plain text inside the process.
    """
    from spincycle_server.app.job_runner import job_runner
    from spincycle_server.app.request_manager import request_manager

    config, reloads = loaded.config, Reloads(loaded)
    cluster = combined_cluster(config)
    reports_inside = bool(config.server_tls) and not config.rm_client_tls
    chains_inside = bool(config.server_tls) and not config.jr_client_tls
    inside = [INSIDE_THE_PROCESS] if reports_inside else []
    with _stop_signal() as stopped:
        async with (
            process_telemetry(config, REQUEST_MANAGER, JOB_RUNNER) as telemetry,
            _certificates(config, stopped, reloads, service_manager, telemetry) as certificates,
            recorded_spans(config, "spincycle") as spans,
            request_manager(
                config,
                cluster,
                certificates,
                reloads,
                telemetry=telemetry,
                servers_addresses=[*_for_servers(config), *inside],
                sources=loaded.sources,
                spans=spans,
            ) as manager,
            job_runner(
                config,
                config.job_runner_addr,
                config.job_runner_grpc,
                [str(manager.grpc_address.reachable_here)],
                telemetry=telemetry,
                cluster=cluster,
                authentication=manager.authentication,
                certificates=certificates,
                servers_address=INSIDE_THE_PROCESS if chains_inside else None,
                on_denied=manager.audit.add_denial,
                options=ListenOptions("job_runner.addr (--runner-http)", "job_runner.grpc (--runner-grpc)"),
                spans=spans,
            ),
        ):
            await _serve_until(stopped, service_manager, growth=WITH_RUNNER)


async def _serve_until(
    stopped: asyncio.Event, service_manager: ServiceManagerOptions, *, growth: int
) -> None:
    """Waits for the end of servers that have started. `growth` is that of `collect_seldom`."""
    forked_children.add_open_descriptors(anonymous=True)
    collect_seldom(growth)
    with ready(service_manager):
        await stopped.wait()


def _listened(config: Config, address: Address) -> list[Address]:
    own = [] if config.cluster_listen is None else [config.cluster_listen]
    return [address, config.server_grpc or address.for_grpc(), *own]


def _for_servers(config: Config) -> list[ServersAddress]:
    """Returns the address of `cluster.listen`, if it is set."""
    return [] if config.cluster_listen is None else [ServersAddress(config.cluster_listen, True)]


@contextlib.asynccontextmanager
async def _certificates(
    config: Config,
    stopped: asyncio.Event,
    reloads: Reloads,
    service_manager: ServiceManagerOptions,
    telemetry: ProcessTelemetry,
) -> AsyncIterator[Certificates]:
    """Yields the certificates of this process. They are loaded again when files change, and on SIGHUP.

    Args:
        config: The options.
        stopped: Is set if SIGHUP means that the terminal of the process is gone.
        reloads: Loads everything else again on SIGHUP.
        service_manager: Gets signs of life until the servers have stopped.
        telemetry: Shows when they expire.
    """
    certificates = Certificates(config)
    telemetry.process.read(catalogue.CERTIFICATE_EXPIRY_SECONDS, certificates.expiry_times)
    # `nohup` ignores SIGHUP, so that the process outlives its terminal.
    had_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def on_hangup() -> None:
        if had_terminal and not has_terminal():
            logger.info("shutting down", signal=signal.SIGHUP.name)
            stopped.set()
            return
        logger.info("reloading specs, certificates and log level", signal=signal.SIGHUP.name)
        certificates.reload()
        reloads.ask()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    async with contextlib.AsyncExitStack() as stack:
        run_in_background(stack, "certificates", certificates.watch())
        run_in_background(stack, "reloads", reloads.run())
        run_in_background(stack, "descriptors", watch_descriptors())
        run_in_background(stack, "watchdog", give_signs_of_life(service_manager))
        yield certificates


def has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _stop_signal() -> Iterator[asyncio.Event]:
    """Yields an event that SIGTERM and SIGINT set. A second signal exits the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopped.is_set():
            logger.warning("exited at once after a second signal", signal=number.name)
            os._exit(128 + number)
        logger.info("shutting down", signal=number.name)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    forked_children.add_open_descriptors()  # No code of jobs is loaded yet.
    try:
        yield stopped
    finally:
        logger.info("shut down")
