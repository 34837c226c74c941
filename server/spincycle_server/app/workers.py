"""A Request Manager that runs as several workers: checks the options, takes the addresses, and supervises."""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.app.background import run_in_background
from spincycle_server.app.certificates import check_client_auth
from spincycle_server.app.cluster import request_manager_cluster
from spincycle_server.app.divided_limits import divided
from spincycle_server.app.endpoints import ListenOptions, naming
from spincycle_server.app.request_manager import REQUEST_MANAGER_ADDRESS
from spincycle_server.app.running import has_terminal, prepare, run_loop, serve_request_manager
from spincycle_server.app.service_manager import tell
from spincycle_server.app.shared_ports import reserved_port
from spincycle_server.app.telemetry import REQUEST_MANAGER, check_metrics_address
from spincycle_server.app.unix_sockets import allowing_group, claimed_socket
from spincycle_server.app.worker import Worker
from spincycle_server.config import Config, ConfigError, LoadedConfig, ServiceManagerOptions
from spincycle_server.database.urls import parse_url
from spincycle_server.garbage_collection import collect_again
from spincycle_server.gateway import listening_socket
from spincycle_server.graph.job_ids import reseed
from spincycle_server.grpc_settings import load_grpc
from spincycle_server.logs import name_process, set_level
from spincycle_server.telemetry.numbers import add_counts
from spincycle_server.workers.channel import Channel
from spincycle_server.workers.supervisor import Place, Supervision, supervise

logger = structlog.get_logger(__name__)

_NO_SERVICE_MANAGER = ServiceManagerOptions(None, None)
"""What workers know of systemd: only their supervisor speaks to it."""

EXIT_GRACE = 5.0
"""Seconds that a worker may take to exit after its servers have stopped, as the exit of any server."""


class _Taken(NamedTuple):
    """The addresses of the workers, taken.

    Attributes:
        config: The options with these addresses.
        http: The socket of HTTP.
        metrics: The socket of `server.metrics`; None without that option.
    """

    config: Config
    http: socket.socket
    metrics: socket.socket | None


def run_workers(loaded: LoadedConfig) -> None:
    """Runs a Request Manager as several workers until SIGTERM or SIGINT. Call it before any thread starts.

    Raises:
        SpinCycleError: The server cannot start.
        SystemExit: In the supervisor, at its end.
    """
    config = loaded.config
    manager = prepare(loaded)
    _check(config)
    _preload(config)
    with contextlib.ExitStack() as stack:
        taken = _take_addresses(stack, config)
        collect_again()  # A worker would copy each page when it looks for garbage.
        place = supervise(_supervision(loaded, manager, taken))
        # From here on, this is a worker.
        reseed()
        name_process(worker=place.number)
        load_grpc()
        run_loop(_serve(loaded, taken, place))


def _check(config: Config) -> None:
    """Checks what does not depend on the database, so that an error is reported once.

    Raises:
        SpinCycleError: An option is invalid.
    """
    if parse_url(config.store_url()).get_backend_name() == "sqlite":
        raise ConfigError(
            "option server.workers: SQLite allows one worker: set database.url to a database of MariaDB, "
            "MySQL or PostgreSQL, or set server.workers to 1",
            reason="BAD_CONFIG",
        )
    check_client_auth(config)
    address = config.server_addr or REQUEST_MANAGER_ADDRESS
    own = [] if config.cluster_listen is None else [config.cluster_listen]
    request_manager_cluster(config, [address, config.server_grpc or address.for_grpc(), *own])
    if config.server_metrics is not None:
        check_metrics_address(config.server_metrics)


_OF_DATABASES = {
    "mysql": ("spincycle_server.database.mysql_dialect", "sqlalchemy.dialects.mysql.pymysql"),
    "postgresql": (
        "spincycle_server.database.postgresql_connection",
        "sqlalchemy.dialects.postgresql.psycopg",
    ),
}
_OF_OIDC = ("spincycle_server.app.oidc", "spincycle_server.web.oidc_sign_in")
_OF_SPANS = ("spincycle_server.telemetry.spans_export",)


def _preload(config: Config) -> None:
    """Loads what servers load only when options need it.

    So workers share its memory, start fast, and do not load files of a later version after an upgrade.
    """
    names = [*_OF_DATABASES.get(parse_url(config.store_url()).get_backend_name(), ())]
    if "oidc" in config.auth_methods:
        names += _OF_OIDC
    if config.telemetry_otlp:
        names += _OF_SPANS
    for name in names:
        with contextlib.suppress(ImportError):  # The first worker says what is missing.
            importlib.import_module(name)


def _take_addresses(stack: contextlib.ExitStack, config: Config) -> _Taken:
    """Takes all addresses until the stack closes.

    Raises:
        SpinCycleError: One of them is in use, or cannot be shared.
    """
    options = ListenOptions()
    address = config.server_addr or REQUEST_MANAGER_ADDRESS
    grpc = stack.enter_context(reserved_port(config.server_grpc or address.for_grpc(), options.grpc))
    servers = config.cluster_listen
    if servers is not None:
        servers = stack.enter_context(reserved_port(servers, "cluster.listen"))
    with naming(options.http):
        stack.enter_context(claimed_socket(address))
        with allowing_group(address):
            http = stack.enter_context(contextlib.closing(listening_socket(address)))
    if not address.is_unix:
        address = replace(address, port=http.getsockname()[1])
    metrics, metrics_address = None, config.server_metrics
    if metrics_address is not None:
        with naming("server.metrics"):
            metrics = stack.enter_context(contextlib.closing(listening_socket(metrics_address)))
        metrics_address = replace(metrics_address, port=metrics.getsockname()[1])
    taken = replace(
        config, server_addr=address, server_grpc=grpc, cluster_listen=servers, server_metrics=metrics_address
    )
    return _Taken(taken, http, metrics)


def _supervision(loaded: LoadedConfig, manager: ServiceManagerOptions, taken: _Taken) -> Supervision:
    config = taken.config
    had_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def on_listening() -> None:
        logger.info(
            "listening",
            server=REQUEST_MANAGER,
            http=str(config.server_addr),
            grpc=str(config.server_grpc),
            workers=config.server_workers,
        )
        if config.cluster_listen is not None:
            logger.info("listening for servers", server=REQUEST_MANAGER, grpc=str(config.cluster_listen))
        if config.server_metrics is not None:
            logger.info("listening for metrics", http=str(config.server_metrics))
        tell(manager, "READY=1")

    def on_hangup() -> bool:
        if had_terminal and not has_terminal():
            return True
        with contextlib.suppress(SpinCycleError):  # The workers log it.
            set_level(loaded.newest_log_level())
        return False

    return Supervision(
        workers=config.server_workers,
        stop_limit=longest_stop(config),
        watchdog=manager.watchdog,
        on_listening=on_listening,
        on_stopping=partial(tell, manager, "STOPPING=1"),
        on_alive=partial(tell, manager, "WATCHDOG=1"),
        on_hangup=on_hangup,
        add_counts=add_counts,
    )


def longest_stop(config: Config) -> float:
    """Returns the seconds that a Request Manager may take to stop, as docs/production.md says."""
    parts = 3 if config.cluster_listen is None else 4
    return parts * config.server_stop_timeout + EXIT_GRACE


async def _serve(loaded: LoadedConfig, taken: _Taken, place: Place) -> None:
    """Runs one worker."""
    channel = Channel(place)
    await channel.connect()
    worker = Worker(
        config=divided(taken.config, taken.config.server_workers),
        channel=channel,
        http=taken.http,
        metrics=taken.metrics,
    )
    async with contextlib.AsyncExitStack() as stack:
        # Ends last, so that a worker whose supervisor dies meanwhile notices it.
        run_in_background(stack, "supervisor", channel.run())
        await serve_request_manager(loaded, _NO_SERVICE_MANAGER, worker)
