"""The two endpoints of a server: HTTP and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from spincycle_grpc.errors import UnavailableError
from spincycle_server import forked_children
from spincycle_server.app.certificates import grpc_client_auth
from spincycle_server.app.telemetry import ProcessTelemetry, pages_of_server
from spincycle_server.app.unix_sockets import allowing_group, claimed_socket
from spincycle_server.config import Config
from spincycle_server.gateway import ErrorFormat, GatewayApp, HttpLimits, HttpServer, with_cors
from spincycle_server.identity import Authentication
from spincycle_server.listening import Address
from spincycle_server.rpc import Gate, GrpcServer, InputLimits, MethodTable, OnDenied
from spincycle_server.telemetry.limits import LimitUse
from spincycle_server.tls.credentials import ServerTls, http_context, server_credentials
from spincycle_server.tls.reloaded import Reloaded

if TYPE_CHECKING:
    from spincycle_server.app.web import WebRoom  # Job Runners have no page.
    from spincycle_server.app.worker import Worker

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServersAddress:
    """An address for other servers alone. Only the methods for servers are served there, over gRPC.

    Attributes:
        address: Where to listen.
        requires_certificate: Whether callers must present a certificate. Otherwise the address is plain text
            on loopback, for a server of the same process.
    """

    address: Address
    requires_certificate: bool


INSIDE_THE_PROCESS = ServersAddress(Address("127.0.0.1", 0), requires_certificate=False)
"""Where servers that share a process reach each other, if their other addresses require TLS."""


class ListenOptions(NamedTuple):
    """The options that set the addresses of a server, for errors."""

    http: str = "server.addr (--http)"
    grpc: str = "server.grpc (--grpc)"


class ServerEndpoints:
    """Serves the methods of one server over HTTP and gRPC.

    Args:
        tables: The methods.
        gate: Limits the concurrent calls of both endpoints together.
        address: The address of HTTP.
        grpc_address: The address of gRPC; None for the HTTP address with a port that is 10 higher.
        name: The name of the server in the log.
        title: The title of the OpenAPI document.
        error_format: The format of errors in the JSON API.
        telemetry: What the process shows of itself.
        authentication: Identifies who asks for the metrics.
        on_denied: Called with each denied request for them.
        options: The options that set the addresses.
        web: The web page; None for a server without one.
        worker: What this process shares with the other workers of the server; None if it is the only one.

    Attributes:
        http_address: The address of HTTP. `start` replaces port 0 with the port that the system chose.
        grpc_address: The address of gRPC, likewise.
    """

    def __init__(
        self,
        tables: Sequence[MethodTable],
        gate: Gate,
        address: Address,
        grpc_address: Address | None,
        *,
        name: str,
        title: str,
        error_format: ErrorFormat,
        telemetry: ProcessTelemetry,
        authentication: Authentication,
        on_denied: OnDenied,
        options: ListenOptions = ListenOptions(),  # noqa: B008 (it cannot change)
        web: WebRoom | None = None,
        worker: Worker | None = None,
    ) -> None:
        self._web = web
        self._worker = worker
        self._tables = tables
        self._gate = gate
        self._name = name
        self._title = title
        self._error_format = error_format
        self._telemetry = telemetry
        self._authentication = authentication
        self._on_denied = on_denied
        self._options = options
        self._grpc_servers: list[GrpcServer] = []
        self.http_address = address
        self.grpc_address = grpc_address or address.for_grpc()

    async def start(
        self, stack: contextlib.AsyncExitStack, config: Config, tls: Reloaded[ServerTls] | None = None
    ) -> None:
        """Starts to serve. The endpoints stop when the stack closes.

        Args:
            stack: Stops the endpoints.
            config: The options.
            tls: The certificate; None for plain text.

        Raises:
            UnavailableError: The server cannot listen on an address.
        """
        limits = InputLimits.of(
            max_body=config.server_max_body,
            max_bodies=config.server_max_bodies,
            max_values=config.server_max_values,
        )
        pages = pages_of_server(
            self._telemetry,
            self._name,
            stack,
            config,
            authentication=self._authentication,
            gate=self._gate,
            on_denied=self._on_denied,
        )
        app = GatewayApp(
            self._tables,
            title=self._title,
            error_format=self._error_format,
            limits=limits,
            on_refused=self._gate.refusals.add,
            body_timeout=config.server_read_timeout,
            call_timeout=config.server_call_timeout,
            pages=pages,
        )
        requires_certificate = grpc_client_auth(config) == "require"
        worker = self._worker
        grpc_server = GrpcServer(
            self._tables,
            str(self.grpc_address),
            server_credentials(tls, require_client_auth=requires_certificate),
            limits=limits,
            max_streams=config.grpc_max_concurrent_streams,
            max_connections=config.server_max_connections,
            handshake_timeout=config.server_header_timeout,
            shares_port=worker is not None,
        )
        http_server = HttpServer(
            with_cors(app if self._web is None else self._web.before(app), config.server_cors_origins),
            self.http_address,
            http_context(tls),
            _limits(config),
            app.early_refusals(self._gate, () if self._web is None else self._web.paths),
            listener=None if worker is None else worker.http,
            sharers=1 if worker is None else worker.workers,
        )
        self._measure(limits.bodies.limits, http_server.limits, grpc_server.limits)
        with naming(self._options.grpc):
            stack.enter_context(claimed_socket(self.grpc_address))
            with allowing_group(self.grpc_address):
                await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, config.server_stop_timeout)
        with naming(self._options.http):
            if worker is None:
                stack.enter_context(claimed_socket(self.http_address))
            with allowing_group(self.http_address) if worker is None else contextlib.nullcontext():
                await http_server.start()
        stack.push_async_callback(http_server.stop, config.server_stop_timeout)
        self._grpc_servers.append(grpc_server)
        await grpc_server.set_serving(True)
        self.http_address = Address(self.http_address.host, http_server.port)
        self.grpc_address = Address(self.grpc_address.host, grpc_server.port)
        forked_children.add_address(self.http_address)
        forked_children.add_address(self.grpc_address)
        self._log_address("listening", http=str(self.http_address), grpc=str(self.grpc_address))

    def _measure(self, *limits: Callable[[], Iterable[LimitUse]]) -> None:
        """Adds the calls and the limits of the endpoints to the metrics of the server."""
        metrics = self._telemetry.servers[self._name].metrics
        for table in self._tables:
            metrics.add(table.calls.instruments)
        metrics.add([self._gate.refusals.metrics])
        metrics.add_limits(self._gate.limits, self._authentication.limits, *limits)

    async def start_for_servers(
        self,
        stack: contextlib.AsyncExitStack,
        config: Config,
        tls: Reloaded[ServerTls] | None,
        where: ServersAddress,
    ) -> Address:
        """Starts to serve other servers at an address of their own. Call it after `start`.

        Returns:
            The address, with the port that the system chose.

        Raises:
            UnavailableError: The server cannot listen on the address.
        """
        credentials = (
            server_credentials(tls, require_client_auth=True) if where.requires_certificate else None
        )
        tables = [table.for_servers() for table in self._tables]
        grpc_server = GrpcServer(
            [table for table in tables if table.methods],
            str(where.address),
            credentials,
            with_reflection=False,
            max_streams=config.grpc_max_concurrent_streams,
            max_connections=config.server_max_connections,
            handshake_timeout=config.server_header_timeout,
            shares_port=self._worker is not None,
        )
        with naming("cluster.listen"):
            await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, config.server_stop_timeout)
        self._grpc_servers.append(grpc_server)
        await grpc_server.set_serving(True)
        address = Address(where.address.host, grpc_server.port)
        forked_children.add_address(address)
        self._log_address("listening for servers", grpc=str(address))
        return address

    def _log_address(self, event: str, **addresses: str) -> None:
        """Logs where the server listens. The supervisor of workers logs it once for all of them."""
        log = logger.info if self._worker is None else logger.debug
        log(event, server=self._name, **addresses)

    def why_closed(self) -> str:
        """Returns why the server cannot take work if it shuts down; "" if it does not."""
        return "the server is shutting down" if self._gate.is_closed else ""

    async def set_serving(self, serving: bool) -> None:
        """Sets the health status: SERVING or NOT_SERVING."""
        for grpc_server in self._grpc_servers:
            await grpc_server.set_serving(serving)

    async def refuse_calls(self) -> None:
        """Refuses new calls because the server shuts down, and sets the health status to NOT_SERVING."""
        self._gate.close()
        await self.set_serving(False)

    async def finish_calls(self, limit: float) -> None:
        """Refuses new calls and waits for the calls in flight, for at most `limit` seconds."""
        await self.refuse_calls()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._gate.wait_idle()


@contextlib.contextmanager
def naming(option: str) -> Iterator[None]:
    """Adds the option that sets an address to the error that the address cannot be used."""
    try:
        yield
    except UnavailableError as error:
        if error.reason != "ADDRESS_IN_USE":
            raise
        raise UnavailableError(f"{error} (option {option})", reason=error.reason) from error


def _limits(config: Config) -> HttpLimits:
    return HttpLimits(
        header_timeout=config.server_header_timeout,
        read_timeout=config.server_read_timeout,
        idle_timeout=config.server_idle_timeout,
        max_connections=config.server_max_connections,
    )
