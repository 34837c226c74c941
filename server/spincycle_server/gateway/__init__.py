"""JSON over HTTP: routes from the contracts, and the HTTP server that serves them."""

from spincycle_server.gateway.app import GatewayApp
from spincycle_server.gateway.cors import with_cors
from spincycle_server.gateway.errors import ErrorFormat
from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.http_server import HttpServer, listening_socket
from spincycle_server.gateway.refusals import EarlyRefusals, users_calls
from spincycle_server.gateway.server_pages import PagesApp, ServerPages

__all__ = [
    "EarlyRefusals",
    "ErrorFormat",
    "GatewayApp",
    "HttpLimits",
    "HttpServer",
    "PagesApp",
    "ServerPages",
    "listening_socket",
    "users_calls",
    "with_cors",
]
