"""Assembles what a process shows of itself, and the port of its own for that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.version import package_version
from spincycle_server import forked_children
from spincycle_server.app.background import run_in_background
from spincycle_server.config import Config, ConfigError
from spincycle_server.gateway import EarlyRefusals, HttpLimits, HttpServer, PagesApp, ServerPages, users_calls
from spincycle_server.identity import Authentication
from spincycle_server.large_work import MAX_WAITING, large_messages
from spincycle_server.listening import Address
from spincycle_server.logs import lost_lines
from spincycle_server.rpc import Gate, OnDenied
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.event_loop import EventLoopDelay
from spincycle_server.telemetry.health import first_problem
from spincycle_server.telemetry.limits import LARGE_MESSAGES, LimitUse
from spincycle_server.telemetry.metrics import ServerMetrics, ServerTelemetry
from spincycle_server.telemetry.metrics_text import MEDIA_TYPE, Exposition

if TYPE_CHECKING:
    from spincycle_server.app.worker import Worker

logger = structlog.get_logger(__name__)

MAX_CONNECTIONS = 100
"""The maximum number of connections to the port of `server.metrics`. Further ones get 503."""

REQUEST_MANAGER = "request-manager"
JOB_RUNNER = "job-runner"


class ProcessTelemetry:
    """What a process shows of itself.

    Args:
        names: The names of its servers.
        worker: Connects this process to the other workers of its server; None if it is the only one.

    Attributes:
        servers: What each server shows of itself, by its name.
        process: What the servers of the process share.
    """

    def __init__(self, names: Iterable[str], worker: Worker | None = None) -> None:
        self.worker = worker
        self.servers = {name: ServerTelemetry(name, package_version()) for name in names}
        self.process = ServerMetrics()
        self.process.read_one(catalogue.LOST_LOG_LINES, lost_lines)
        for server in self.servers.values():  # They share the thread.
            server.metrics.add_limits(_large_messages)

    def exposition(self, stack: contextlib.AsyncExitStack, *servers: str) -> Exposition:
        """Returns what builds the metrics of some servers. It ends when the stack closes."""
        sources = [*(self.servers[name].metrics for name in servers), self.process]
        exposition = Exposition(sources, None if self.worker is None else self.worker.ask_others)
        if self.worker is not None:
            self.worker.channel.answer_with(exposition.numbers)
        stack.callback(exposition.close)
        return exposition


@contextlib.asynccontextmanager
async def process_telemetry(
    config: Config, *names: str, worker: Worker | None = None
) -> AsyncIterator[ProcessTelemetry]:
    """Yields what a process with these servers shows of itself, or as one worker of its server.

    The port of `server.metrics` opens before the servers start and closes after they have stopped, so that
    a probe sees both.

    Raises:
        SpinCycleError: The port cannot be used.
    """
    telemetry = ProcessTelemetry(names, worker)
    loop_delay = EventLoopDelay()
    telemetry.process.add(loop_delay.instruments)
    async with contextlib.AsyncExitStack() as stack:
        run_in_background(stack, "event loop delay", loop_delay.run())
        if config.server_metrics is not None:
            await _serve_pages(stack, config, config.server_metrics, telemetry)
        yield telemetry


async def _serve_pages(
    stack: contextlib.AsyncExitStack, config: Config, address: Address, telemetry: ProcessTelemetry
) -> None:
    check_metrics_address(address)
    readiness = [server.readiness for server in telemetry.servers.values()]
    pages = ServerPages(
        lambda: first_problem(readiness), telemetry.exposition(stack, *telemetry.servers), MEDIA_TYPE
    )
    limits = HttpLimits(
        header_timeout=config.server_header_timeout,
        read_timeout=config.server_read_timeout,
        idle_timeout=config.server_idle_timeout,
        max_connections=MAX_CONNECTIONS,
    )
    worker = telemetry.worker
    server = HttpServer(
        PagesApp(pages),
        address,
        None,
        limits,
        _no_refusals(),
        listener=None if worker is None else worker.metrics,
        sharers=1 if worker is None else worker.workers,
    )
    await server.start()
    stack.push_async_callback(server.stop, 1.0)
    bound = Address(address.host, server.port)
    forked_children.add_address(bound)
    log = logger.info if worker is None else logger.debug  # The supervisor logs it for all workers.
    log("listening for metrics", http=str(bound))


def check_metrics_address(address: Address) -> None:
    """Checks that Prometheus can reach an address.

    Raises:
        ConfigError: It is a unix socket.
    """
    if address.is_unix:
        raise ConfigError("option server.metrics: must be host:port, because Prometheus needs one")


def _large_messages() -> Iterable[LimitUse]:
    return (LimitUse(LARGE_MESSAGES, MAX_WAITING, large_messages()),)


def _no_refusals() -> EarlyRefusals:
    return EarlyRefusals(lambda: False, users_calls((), ()), b"", lambda: None)


def pages_of_server(
    telemetry: ProcessTelemetry,
    server: str,
    stack: contextlib.AsyncExitStack,
    config: Config,
    *,
    authentication: Authentication,
    gate: Gate,
    on_denied: OnDenied,
) -> ServerPages:
    """Returns the pages that a server has beside its methods.

    /metrics is not among them if `server.metrics` moves it to a port of its own.
    """
    readiness = telemetry.servers[server].readiness
    return ServerPages(
        lambda: readiness.problem,
        telemetry.exposition(stack, server) if config.server_metrics is None else None,
        MEDIA_TYPE,
        authentication=authentication,
        on_denied=on_denied,
        on_refused=gate.refusals.add,
    )
